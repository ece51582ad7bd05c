"""The notebook helper outside a build: the model over REST, as the notebook will find it in a build."""

import zlib
from collections.abc import Callable

import pandas as pd
import pytest

from deploy.local.stack import Stack
from services.model_builder.tests import mini
from tests.conftest import Company, create_key
from traitmesh.notebook import NotebookError, read_model

TRAITS = ["actions", "is_active", "last_action"]
#: What a notebook finds in a build, told as a metric.
NOTEBOOK = """
import zlib
from traitmesh.notebook import log_metric, publish_trait, read_model
frame = read_model().sort_values("user_id")
log_metric("digest", zlib.crc32((frame.to_csv(index=False) + str(frame.dtypes)).encode()))
frame = frame[["user_id", "actions"]].dropna()
publish_trait("score", frame.rename(columns={"actions": "score"}))
"""


def digest(frame: pd.DataFrame) -> int:
    shown = frame.sort_values("user_id")
    return zlib.crc32((shown.to_csv(index=False) + str(shown.dtypes)).encode())


def test_the_model_is_read_by_hand_as_in_a_build(
    new_company: Callable[[str], Company], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_company("by-hand").client
    monkeypatch.delenv("TRAITMESH_RUN_DIR", raising=False)
    monkeypatch.setenv("TRAITMESH_URL", stack.url)
    monkeypatch.setenv("TRAITMESH_API_KEY", create_key(stack, "by-hand", "editor"))
    monkeypatch.setenv("TRAITMESH_WORKSPACE", "by-hand")
    with pytest.raises(NotebookError, match="traitmesh build run"):
        read_model()
    # A user whose only event comes after the build's moment has no value for any trait.
    events = mini.lines(*mini.EVENTS, mini.event("late", 8))
    loaded = client.upload("loads", events, "application/octet-stream", fileName="a.ndjson")
    client.wait(loaded["name"], ("STATE_RUNNING",), lambda _: None, 60)
    client.upload("projects/mini:push", mini.archive(), "application/gzip")
    client.upload("notebooks/scoring:push", mini.notebook(code=NOTEBOOK), "application/x-ipynb+json")
    started = client.create("builds", {"asOf": "2026-06-05T00:00:00Z"})
    build = client.wait(started["name"], ("STATE_RUNNING",), lambda _: None, 120)
    assert build["state"] == "STATE_SUCCEEDED", build
    assert int(build["notebookRuns"][0]["metrics"]["digest"]) == digest(read_model(TRAITS))
    whole = read_model()
    assert list(whole.columns) == ["user_id", *TRAITS, "score"]
    assert set(whole["user_id"]) == {"ana", "bo", "cy", "late"}
    assert whole.set_index("user_id").loc["late"].isna().all()
    assert list(read_model([]).columns) == ["user_id"]
    with pytest.raises(NotebookError, match=r"has no level\. It has: user_id, actions"):
        read_model(["level"])
