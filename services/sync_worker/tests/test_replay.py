"""Histories of real runs replay on today's code: a deployment does not break runs that wait.

Each file is what `temporal workflow show --workflow-id RUN --output json` printed of a run.
"""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from services.sync_worker.workflows import SyncWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_are_histories() -> None:
    assert [path.stem for path in HISTORIES] == ["aborted", "cancelled", "retried", "succeeded"]


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_replays(path: Path) -> None:
    history = WorkflowHistory.from_json(f"workspaces/tusk/syncs/{path.stem}/runs/1", path.read_text())
    asyncio.run(Replayer(workflows=[SyncWorkflow]).replay_workflow(history))
