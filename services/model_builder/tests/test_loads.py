"""Loads, called over the wire and done by a real worker."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from sqlalchemy import update
from temporalio.testing import ActivityEnvironment
from traitmesh_proto.model.v1 import load_pb2

from libs.kit import auth
from libs.kit.testing import reason, reset_workflow, violations
from services.model_builder import __main__ as model_builder
from services.model_builder.store.tables import loads
from services.model_builder.tests.conftest import ROOT, TUSK, World
from services.model_builder.tests.mini import event, lines


def test_the_same_file_twice_changes_nothing(world: World) -> None:
    parent = world.create_workspace("twice")
    content = lines(event("ana", 1), event("ana", 1), event("bo", 2), event("bo", 3))
    first = world.load(parent, "a.ndjson", content)
    second = world.load(parent, "a.ndjson", content)
    assert (first.row_count, first.event_count, first.duplicate_count, first.new_user_count) == (4, 3, 1, 2)
    assert (second.row_count, second.event_count, second.duplicate_count, second.new_user_count) == (4, 0, 4, 0)
    assert first.state == second.state == load_pb2.Load.STATE_SUCCEEDED
    found = world.rows("twice", "SELECT user_id, user_ord FROM {} ORDER BY user_ord", "traitmesh.users")
    assert found == [{"user_id": "ana", "user_ord": 0}, {"user_id": "bo", "user_ord": 1}]
    assert world.rows("twice", "SELECT count(*) AS n FROM {}", "traitmesh.events") == [{"n": 3}]
    listed = world.loads.ListLoads(load_pb2.ListLoadsRequest(parent=parent))
    assert [load.name for load in listed.loads] == [second.name, first.name]
    assert not list((world.settings.data_dir / "uploads" / "twice").iterdir())


def test_ordinals_go_on_where_they_ended(world: World) -> None:
    parent = world.create_workspace("ordinals")
    world.load(parent, "a.ndjson", lines(event("dee", 5), event("cy", 1)))
    world.load(parent, "b.ndjson", lines(event("abe", 1), event("cy", 9)))
    found = world.rows("ordinals", "SELECT user_id FROM {} ORDER BY user_ord", "traitmesh.users")
    assert [row["user_id"] for row in found] == ["cy", "dee", "abe"]
    events = world.rows(
        "ordinals", "SELECT e.user_id FROM {} AS e JOIN {} AS u USING (user_ord)", "traitmesh.events", "traitmesh.users"
    )
    assert len(events) == 4


def test_bad_rows_go_to_quarantine_with_the_reason(world: World) -> None:
    parent = world.create_workspace("quarantined")
    nobody = {key: value for key, value in event("x", 1).items() if key != "user_id"}
    content = lines(event("ana", 1), nobody) + b"\n{broken\n{broken too\n"
    load = world.load(parent, "bad.ndjson", content)
    again = world.load(parent, "bad.ndjson", content)
    assert (load.event_count, load.quarantined_count, again.quarantined_count) == (1, 3, 0)
    answer = world.loads.ListQuarantine(load_pb2.ListQuarantineRequest(parent=parent))
    assert [(each.reason, each.row_count, each.file, each.line) for each in answer.reasons] == [
        ("not_json", 2, "bad.ndjson", 3),
        ("no_user", 1, "bad.ndjson", 2),
    ]


def test_contexts_and_times_arrive_as_they_were_sent(world: World) -> None:
    parent = world.create_workspace("contexts")
    contexts = {"contexts_com_tusk_player_context_1": [{"level": 7}], "unstruct_event_com_a_b_1": {"x": "é"}}
    world.load(parent, "a.ndjson", lines(event("ana", 1, derived_tstamp="2026-06-01T10:00:00.123456Z", **contexts)))
    [row] = world.rows("contexts", "SELECT * FROM {}", "traitmesh.events")
    assert row["contexts"] == '{"com_tusk_player_context_1":[{"level":7}]}'
    assert row["unstruct_event"] == '{"com_a_b_1":{"x":"é"}}'
    assert row["time"].isoformat() == "2026-06-01T10:00:00.123456"
    assert (row["name"], row["load"]) == ("click", 1)


def test_events_are_stored_in_the_order_by_which_they_are_read(world: World) -> None:
    parent = world.create_workspace("sorted")
    sent = [("bo", 3, "b"), ("ana", 9, "a"), ("bo", 1, "a"), ("ana", 5, "b"), ("ana", 4, "a")]
    content = lines(*(event(user, day, event_name=name) for user, day, name in sent))
    world.load(parent, "a.ndjson", content)
    # The rows of one file come in its order.
    found = world.rows("sorted", "SELECT name, user_ord, time FROM {}", "traitmesh.events")
    assert len(found) == 5
    assert found == sorted(found, key=lambda row: (row["name"], row["user_ord"], row["time"]))


def test_two_loads_at_once_give_each_ordinal_once(world: World) -> None:
    parent = world.create_workspace("atonce")
    files = [lines(*(event(f"user-{file}-{number}", 1) for number in range(200))) for file in range(3)]
    started = [world.start_load(parent, "a.ndjson", content) for content in files]
    ended = [world.wait_load(load.name) for load in started]
    assert [load.event_count for load in ended] == [200] * 3
    [row] = world.rows(
        "atonce", "SELECT count(DISTINCT user_ord) AS n, max(user_ord) AS newest FROM {}", "traitmesh.users"
    )
    assert row == {"n": 600, "newest": 599}


def test_a_load_survives_its_worker(world: World, tmp_path: Path) -> None:
    parent = world.create_workspace("survivor")
    command = [sys.executable, str(TUSK / "generate.py"), "--users", "300", "--events", "5000", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    content = next(iter(sorted(tmp_path.glob("*.gz")))).read_bytes()
    load = world.start_load(parent, "a.ndjson.gz", content)
    try:
        world.kill_worker()
        assert world.loads.GetLoad(load_pb2.GetLoadRequest(name=load.name)).state == load_pb2.Load.STATE_RUNNING
    finally:
        world.start_worker()
    ended = world.wait_load(load.name)
    assert ended.state == load_pb2.Load.STATE_SUCCEEDED
    assert ended.row_count == ended.event_count + ended.duplicate_count + ended.quarantined_count == 1250
    [row] = world.rows("survivor", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM {}", "traitmesh.events")
    assert row == {"n": ended.event_count, "ids": ended.event_count}


def test_a_load_that_committed_before_its_worker_died_keeps_its_counts(world: World) -> None:
    load = world.load(world.create_workspace("committed"), "a.ndjson", lines(event("ana", 1), event("ana", 1)))
    with world.engine.begin() as tx:
        tx.execute(update(loads).where(loads.c.workspace == "committed").values(state="running", end_time=None))
    # The file is gone by now: an attempt that read it again would fail.
    queue = model_builder.build_queue(world.engine, world.settings)
    again = next(activity for activity in queue.activities if activity.__name__ == "load_events")
    ActivityEnvironment().run(again, load.name)
    repeated = world.wait_load(load.name)
    assert (repeated.event_count, repeated.duplicate_count) == (load.event_count, load.duplicate_count) == (1, 1)


@pytest.mark.parametrize("file_name", ["events.csv", "../a.ndjson", "", "a.ndjson.zip", "a" * 300 + ".json"])
def test_a_file_of_another_form_is_refused(world: World, file_name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.start_load("workspaces/twice", file_name, b"{}")
    assert violations(caught.value) == ["file_name"]


def test_an_empty_file_is_refused_and_leaves_nothing(world: World) -> None:
    parent = world.create_workspace("empty")
    with pytest.raises(grpc.RpcError) as caught:
        world.start_load(parent, "a.ndjson", b"")
    assert violations(caught.value) == ["content"]
    assert not list((world.settings.data_dir / "uploads" / "empty").iterdir())
    assert not world.loads.ListLoads(load_pb2.ListLoadsRequest(parent=parent)).loads


def test_a_file_that_is_not_what_it_says_fails_with_the_reason(world: World) -> None:
    parent = world.create_workspace("notgzip")
    load = world.load(parent, "a.ndjson.gz", b"not gzip at all")
    assert load.state == load_pb2.Load.STATE_FAILED
    assert "cannot be read" in load.error


def test_a_load_that_has_ended_stays_so_when_its_workflow_is_reset(world: World) -> None:
    parent = world.create_workspace("reset")
    failed = world.load(parent, "a.ndjson.gz", b"not gzip at all")
    assert failed.state == load_pb2.Load.STATE_FAILED
    reset_workflow(world.temporal.address, failed.name)
    assert world.loads.GetLoad(load_pb2.GetLoadRequest(name=failed.name)) == failed


def test_nobody_loads_into_another_workspace(world: World) -> None:
    stranger = auth.Caller("otto", "elsewhere", "editor")
    with auth.acting_as(stranger), pytest.raises(grpc.RpcError) as caught:
        world.start_load("workspaces/twice", "a.ndjson", b"{}")
    assert reason(caught.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    with pytest.raises(grpc.RpcError) as absent:
        world.start_load("workspaces/absent", "a.ndjson", b"{}")
    assert reason(absent.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"
