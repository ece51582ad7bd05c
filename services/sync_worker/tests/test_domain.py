"""What may be synced, and how."""

from dataclasses import replace

import pytest

from services.sync_worker.domain import Mapping, Mode, RunName, Sync, offered_modes, sync_problems

SYNC = Sync(
    workspace="tusk",
    sync="s",
    audience="whales",
    destination="d",
    object="people",
    mode=Mode.UPSERT,
    mappings=(Mapping("user_id", "id"), Mapping("level", "lvl")),
)
TRAITS = ["level", "email", "whales"]


def test_a_right_sync_has_no_problems() -> None:
    assert sync_problems(SYNC, TRAITS, ["whales"]) == []
    assert SYNC.key_field == "id"


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        (replace(SYNC, audience="whale"), "audience", "did you mean whales?"),
        (replace(SYNC, audience="level"), "audience", "there is no audience level"),
        (replace(SYNC, object=""), "object", "1 to 200"),
        (replace(SYNC, mappings=(*SYNC.mappings, Mapping("emial", "x"))), "mappings[2].source", "did you mean email?"),
        (replace(SYNC, mappings=(*SYNC.mappings, Mapping("email", "id"))), "mappings[2].destination", "twice"),
        (replace(SYNC, mappings=(*SYNC.mappings, Mapping("email", ""))), "mappings[2].destination", "1 to 200"),
        (replace(SYNC, mappings=(Mapping("level", "lvl"),)), "mappings", "user_id"),
    ],
)
def test_each_wrong_field_is_named_with_what_would_be_right(wrong: Sync, field: str, words: str) -> None:
    (problem,) = sync_problems(wrong, TRAITS, ["whales"])
    assert problem.field == field
    assert words in problem.description


def test_modes_follow_from_the_airbyte_modes() -> None:
    assert offered_modes(["append_dedup"]) == (Mode.UPSERT, Mode.MIRROR)
    assert offered_modes(["append", "update"]) == (Mode.INSERT, Mode.UPDATE)
    assert offered_modes(["overwrite"]) == ()


def test_a_runs_name_is_read_as_it_was_written() -> None:
    run = RunName("tusk", "s", 12)
    assert RunName.parse(str(run)) == run
    with pytest.raises(ValueError, match="not the name of a run"):
        RunName.parse("workspaces/tusk/builds/1")
