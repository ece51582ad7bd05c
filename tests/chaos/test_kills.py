"""kill -9 of any process in the middle of a sync: nothing lost, nothing doubled.

The destination is slow on purpose, so that there is a middle. It counts what it was told: each user must be told of
exactly once.
"""

import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.local.stack import Stack
from tests.conftest import SLACK_TOKEN, Company, eventually, start_slack

MOVING = ("STATE_PLANNING", "STATE_SENDING")


@pytest.fixture(scope="module")
def slow_slack(tusk: Company, stack: Stack) -> str:
    """A destination that takes two messages a second."""
    url = start_slack(stack, "slow", posts_per_second=2, burst=1)
    config = json.dumps({"token": SLACK_TOKEN, "base_url": url})
    tusk.run("destination", "create", "slow-slack", "--connector", "destination-slack", "--config", config)
    return url


def test_what_is_killed_is_running(stack: Stack) -> None:
    names = {program.name for program in stack.programs() if stack.processes.find(program.name)}
    assert names == {program.name for program in stack.programs()}


@pytest.mark.parametrize(
    "victim", ["sync_worker-worker", "sync_worker", "gateway", "model_builder", "trait_registry", "temporal"]
)
def test_a_process_is_killed_in_the_middle_of_a_sync(victim: str, tusk: Company, stack: Stack, slow_slack: str) -> None:
    def kill() -> None:
        stack.processes.kill(victim)
        assert stack.processes.find(victim) is None
        stack.restart(victim)

    _told_once(tusk, slow_slack, f"kill-{victim}".lower(), kill)


def test_postgresql_is_killed_in_the_middle_of_a_sync(tusk: Company, stack: Stack, slow_slack: str) -> None:
    def kill() -> None:
        pid = int((stack.folder / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        postmaster.send_signal(signal.SIGKILL)
        assert postmaster.wait(10) is not None or not postmaster.is_running()
        eventually(lambda: not _backends(stack.folder / "postgres"), "the server's processes to end", 30)
        stack.start_postgres()

    _told_once(tusk, slow_slack, "kill-postgres", kill)


def _told_once(company: Company, slack_url: str, sync: str, fault: Callable[[], None]) -> None:
    """Runs a sync of every user, lets `fault` happen in its middle, and counts what the destination was told."""
    before = len(_messages(slack_url))
    order = ("--destination", "slow-slack", "--object", "growth", "--mode", "insert", "--map", "user_id")
    company.run("sync", "create", sync, *order)
    company.run("sync", "run", sync, "--detach")
    run = f"syncs/{sync}/runs/1"

    def confirmed() -> int:
        return int(company.client.get(run).get("confirmedCount", 0))

    eventually(lambda: confirmed() > 0, "the first confirmed records")
    fault()
    state = company.client.get(run)
    assert int(state["confirmedCount"]) < int(state["plannedCount"]), "the fault came too late"
    name = f"workspaces/{company.workspace}/{run}"
    ended = company.client.wait(name, MOVING, lambda _: None, 120)
    assert ended["state"] == "STATE_SUCCEEDED"
    users = int(company.client.get("builds/latest")["rowCount"])
    assert int(ended["confirmedCount"]) == users
    told = Counter(user for text in _messages(slack_url)[before:] for user in re.findall(r"user_id: (\S+)", text))
    assert len(told) == users
    assert set(told.values()) == {1}


def _messages(slack_url: str) -> list[str]:
    """The texts in the channel, oldest first."""
    headers = {"Authorization": f"Bearer {SLACK_TOKEN}"}
    with httpx.Client(base_url=slack_url, headers=headers) as slack:
        channel = slack.post("conversations.list").json()["channels"][0]["id"]
        texts: list[str] = []
        cursor = ""
        while True:
            asked = {"channel": channel, "limit": "200", "cursor": cursor}
            page = slack.post("conversations.history", data=asked).json()
            texts += [message["text"] for message in page["messages"]]
            cursor = page.get("response_metadata", {}).get("next_cursor", "")
            if not cursor:
                return texts[::-1]


def _backends(data: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data)
    ]
