"""Workflows that began under an earlier release go on under this one: stored histories of real runs replay."""

import asyncio
import base64
import re
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from services.model_builder.workflows import BuildWorkflow, LoadWorkflow, ParseWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_each_workflow_has_a_history() -> None:
    kinds = {path.name.partition(".")[0] for path in HISTORIES}
    assert kinds == {workflow.__name__ for workflow in (BuildWorkflow, LoadWorkflow, ParseWorkflow)}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_stored_history_replays(path: Path) -> None:
    replayer = Replayer(workflows=[BuildWorkflow, LoadWorkflow, ParseWorkflow])
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    asyncio.run(replayer.replay_workflow(history))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_holds_references_only(path: Path) -> None:
    payloads = [base64.b64decode(found) for found in re.findall(r'"data": "([^"]+)"', path.read_text())]
    assert payloads
    for user in (b'"ana"', b'"bo"', b"tusk-00"):
        assert not [payload for payload in payloads if user in payload]
