"""What a notebook may declare, over the wire, and what its process may leave behind."""

import json
import os
import time
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from traitmesh_proto.model.v1 import notebook_pb2
from traitmesh_proto.registry.v1 import trait_pb2

from libs.kit import errors
from libs.kit.testing import reason
from services.model_builder import contained
from services.model_builder.notebooks.declaration import read_notebook
from services.model_builder.tests import mini
from services.model_builder.tests.conftest import World


def with_metadata(declared: Any) -> bytes:
    return orjson.dumps({"nbformat": 4, "cells": [], "metadata": {"traitmesh": declared}})


GOOD = {"id": "score", "type": "continuous"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be a Jupyter notebook"),
        (b"[" * 100_000, "must be a Jupyter notebook"),
        (b"[]", "nbformat must be 4"),
        (b'{"nbformat": 3}', "nbformat must be 4"),
        (b'{"nbformat": 4, "cells": 1, "metadata": []}', "cells must be a list of objects"),
        (b'{"nbformat": 4, "cells": []}', "metadata.traitmesh must be an object"),
        (with_metadata([]), "metadata.traitmesh must be an object"),
        (with_metadata({"trait": "score"}), "metadata.traitmesh.trait must be an object with id and type"),
        (with_metadata({"trait": GOOD | {"id": "a; drop table x"}}), "metadata.traitmesh.trait.id must be 1 to 60"),
        (with_metadata({"trait": GOOD | {"id": "row_hash"}}), "row_hash is a column of every model"),
        (with_metadata({"trait": GOOD | {"type": {}}}), "metadata.traitmesh.trait.type must be one of"),
        (with_metadata({"trait": GOOD | {"unit": 1}}), "metadata.traitmesh.trait.unit must be text"),
        (with_metadata({"trait": GOOD | {"kind": "x"}}), "metadata.traitmesh.trait has no kind"),
        (with_metadata({"trait": GOOD, "inputs": "dbt.a"}), "metadata.traitmesh.inputs must be a list"),
        (with_metadata({"trait": GOOD, "inputs": ["dbt.a", "x.y"]}), "metadata.traitmesh.inputs[1] must be a table"),
        (with_metadata({"trait": GOOD, "inputs": ['dbt."a" b']}), "metadata.traitmesh.inputs[0] must be a table"),
    ],
)
def test_hostile_metadata_is_refused_with_its_path(content: bytes, said: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        read_notebook(content)
    assert caught.value.violations[0].field == "content.data"
    assert said in caught.value.message


def test_a_notebook_is_kept_without_its_outputs() -> None:
    notebook = json.loads(mini.notebook())
    notebook["cells"][0] |= {"outputs": [{"text": "ana@example.com"}], "execution_count": 3}
    notebook["cells"].append({"cell_type": "markdown", "source": "x", "attachments": {"a.png": {}}})
    kept = read_notebook(json.dumps(notebook).encode())
    assert b"example.com" not in kept.content
    assert json.loads(kept.content)["cells"][1] == {"cell_type": "markdown", "source": "x"}
    assert kept.trait.column == "predicted.score.value"


def test_a_pushed_notebook_declares_its_trait(world: World) -> None:
    parent = world.create_workspace("pushed")
    trial = world.push_notebook(f"{parent}/notebooks/n", mini.notebook(), validate_only=True)
    assert (trial.notebook.revision, trial.notebook.trait) == (0, f"{parent}/traits/score")
    with pytest.raises(grpc.RpcError):
        world.notebooks.GetNotebook(notebook_pb2.GetNotebookRequest(name=f"{parent}/notebooks/n"))
    first = world.push_notebook(f"{parent}/notebooks/n", mini.notebook())
    same = world.push_notebook(f"{parent}/notebooks/n", mini.notebook())
    second = world.push_notebook(f"{parent}/notebooks/n", mini.notebook(inputs=["dbt.a"]))
    assert [each.notebook.revision for each in (first, same, second)] == [1, 1, 2]
    assert list(second.notebook.inputs) == ["dbt.a"]
    listed = world.notebooks.ListNotebooks(notebook_pb2.ListNotebooksRequest(parent=parent))
    assert list(listed.notebooks) == [second.notebook]
    [trait] = world.traits.ListTraits(trait_pb2.ListTraitsRequest(parent=parent)).traits
    assert (trait.kind, trait.origin) == (trait_pb2.TRAIT_KIND_PREDICTED, f"{parent}/notebooks/n")
    with pytest.raises(grpc.RpcError) as taken:
        world.push_notebook(f"{parent}/notebooks/m", mini.notebook())
    assert reason(taken.value) == "ERROR_REASON_INVALID_FIELD"
    with pytest.raises(grpc.RpcError) as large:
        world.notebooks.PushNotebook(
            notebook_pb2.PushNotebookRequest(name=f"{parent}/notebooks/n", content=HttpBody(data=b" " * (5 << 20)))
        )
    assert reason(large.value) == "ERROR_REASON_LIMIT_EXCEEDED"


def run(code: str, folder: Path, seconds: int = 20) -> tuple[int, list[str]]:
    said: list[str] = []
    environment = {"PATH": os.defpath, "ONLY": "this"}
    status = contained.run(
        ["sh", "-c", code], folder=folder, environment=environment, seconds=seconds, on_line=said.append
    )
    return status, said


def test_a_contained_program_sees_its_environment_alone(tmp_path: Path) -> None:
    status, said = run("pwd; env | grep -c TRAITMESH; echo $ONLY; exit 3", tmp_path)
    assert (status, said) == (3, [str(tmp_path), "0", "this"])


def test_nothing_outlives_a_contained_program(tmp_path: Path) -> None:
    status, said = run("(setsid sh -c 'sleep 300 & echo $!; sleep 300' &) ; sleep 0.3; exit 0", tmp_path)
    assert status == 0
    assert not Path(f"/proc/{int(said[0])}").exists()


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(contained.TimedOut):
        run("setsid sleep 300 & echo $! > child; sleep 300", tmp_path, seconds=1)
    assert time.monotonic() - started < 20
    assert not Path(f"/proc/{int((tmp_path / 'child').read_text())}").exists()


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    status = contained.run(["absent"], folder=tmp_path, environment={}, seconds=5, on_line=said.append)
    assert (status, said) == (contained.CANNOT_START, ["absent cannot be started: No such file or directory"])
