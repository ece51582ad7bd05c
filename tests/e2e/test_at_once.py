"""Two workspaces, a build and a sync, two syncs: what goes on at the same time does not disturb each other."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest

from deploy.local.stack import Stack
from services.model_builder.tests import mini
from tests.conftest import Company, create_key
from tests.e2e.receiver import PATIENCE_SECONDS, Receiver, receiving
from traitmesh import ApiError, Client

NAMES = ("north", "south")
USERS = 50
MOVING = ("STATE_PLANNING", "STATE_SENDING")

#: Less than a receiver holds a batch, so that what had to wait for one that is held fails the test.
SECONDS = PATIENCE_SECONDS - 20


@pytest.fixture(scope="module")
def pair(new_company: Callable[[str], Company]) -> list[Client]:
    """Two workspaces with the same names of everything and users of their own, loaded and built at the same time."""
    clients = [new_company(name).client for name in NAMES]
    loads = [load(client, users_of(client.workspace), 1) for client in clients]
    succeeded(clients, loads)
    for client in clients:
        client.upload("projects/mini:push", mini.archive(), "application/gzip")
    builds = [client.create("builds", {})["name"] for client in clients]
    succeeded(clients, builds)
    return clients


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    """Two tools behind webhooks, which hold what they are sent."""
    with receiving() as one, receiving() as other:
        yield [one, other]


def users_of(workspace: str) -> list[str]:
    return [f"{workspace}-{number:03}" for number in range(USERS)]


def load(client: Client, users: Sequence[str], number: int) -> str:
    """Starts to load event `number` of each user; the load's name."""
    content = mini.lines(*(mini.event(user, number) for user in users))
    name: str = client.upload("loads", content, "application/octet-stream", fileName=f"{number}.ndjson")["name"]
    return name


def order(client: Client, receiver: Receiver, sync: str) -> None:
    """Orders that every user is sent to the receiver."""
    destination = {"connector": "destination-webhook", "config": receiver.config}
    made = client.create("destinations", destination, destinationId=sync)
    fields = [{"source": field, "destination": field} for field in ("user_id", "actions")]
    body = {"destination": made["name"], "object": "users", "mode": "MODE_UPSERT", "mappings": fields}
    client.create("syncs", body, syncId=sync)


def run(client: Client, sync: str) -> str:
    """Starts a run of the sync; the run's name."""
    name: str = client.create(f"syncs/{sync}/runs", {})["name"]
    return name


def succeeded(clients: Sequence[Client], names: Sequence[str]) -> list[dict[str, Any]]:
    """Waits for loads, builds or runs, which must end well."""
    ended = [
        client.wait(name, ("STATE_RUNNING", *MOVING), lambda _: None, SECONDS)
        for client, name in zip(clients, names, strict=True)
    ]
    assert [resource["state"] for resource in ended] == ["STATE_SUCCEEDED"] * len(names), ended
    return ended


def actions(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the records say each user did; no user may be told of twice."""
    found = {record["data"]["user_id"]: record["data"]["actions"] for record in records}
    assert len(found) == len(records)
    return found


def test_two_workspaces_at_once_see_only_their_own(pair: list[Client], receivers: list[Receiver], stack: Stack) -> None:
    north, south = (client.get("builds/latest") for client in pair)
    assert time_of(north["createTime"]) < time_of(south["endTime"])
    assert time_of(south["createTime"]) < time_of(north["endTime"])
    for client, receiver in zip(pair, receivers, strict=True):
        order(client, receiver, "own")
    runs = [run(client, "own") for client in pair]
    for receiver in receivers:
        assert receiver.next_batch(), "both must be in the middle before one of them may end"
    for receiver in receivers:
        receiver.let(USERS)
    succeeded(pair, runs)
    for client, receiver in zip(pair, receivers, strict=True):
        assert actions(receiver.taken) == dict.fromkeys(users_of(client.workspace), 1)
        assert int(client.get("builds/latest")["rowCount"]) == USERS
        assert len(list(client.pages("loads", "loads"))) == 1
    stranger = users_of("south")[0]
    with pytest.raises(ApiError, match="check the user's id"):
        pair[0].get(f"profiles/{stranger}")
    key = create_key(stack, "north", "viewer")
    with Client(stack.url, key, "north") as own, Client(stack.url, key, "south") as foreign:
        assert own.get("builds/latest")["name"] == north["name"]
        with pytest.raises(ApiError) as caught:
            foreign.get("builds/latest")
    assert caught.value.status == 404


def test_a_run_ships_the_build_that_it_planned_from(pair: list[Client], receivers: list[Receiver]) -> None:
    client, receiver = pair[0], receivers[0]
    users = users_of("north")
    order(client, receiver, "held")
    first = client.get("builds/latest")["name"]
    held = run(client, "held")
    receiver.let(1)
    assert len(receiver.next_batch()) + len(receiver.next_batch()) < USERS
    succeeded([client], [load(client, [*users, "north-new"], 2)])
    (second,) = succeeded([client], [client.create("builds", {})["name"]])
    middle = client.get(f"/v1/{held}")
    assert middle["state"] == "STATE_SENDING", "the build must be published in the middle of the run"
    assert int(second["updatedCount"]) == USERS
    receiver.let(USERS)
    (ended,) = succeeded([client], [held])
    assert ended["build"] == first
    assert actions(receiver.taken) == dict.fromkeys(users, 1)
    receiver.taken.clear()
    (following,) = succeeded([client], [run(client, "held")])
    assert following["build"] == second["name"]
    assert (int(following["changedCount"]), int(following["addedCount"])) == (USERS, 1)
    assert actions(receiver.taken) == dict.fromkeys(users, 2) | {"north-new": 1}


def test_a_stuck_destination_holds_up_no_other_sync(pair: list[Client], receivers: list[Receiver]) -> None:
    client, (stuck, fine) = pair[1], receivers
    for receiver, sync in ((stuck, "stuck"), (fine, "fine")):
        order(client, receiver, sync)
    waiting = run(client, "stuck")
    assert stuck.next_batch()
    fine.let(USERS)
    succeeded([client], [run(client, "fine")])
    assert actions(fine.taken) == dict.fromkeys(users_of("south"), 1)
    assert client.get(f"/v1/{waiting}")["state"] == "STATE_SENDING"
    assert stuck.taken == []
    stuck.let(USERS)
    succeeded([client], [waiting])
    assert actions(stuck.taken) == actions(fine.taken)


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)
