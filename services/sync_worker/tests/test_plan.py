"""Plans and states against a brute-force oracle, and what plans are made of."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from libs.kit import errors
from libs.warehouse import Warehouse, close_warehouses, open_warehouse, provision_workspace
from services.sync_worker import plan
from services.sync_worker.domain import BatchState, Mapping, Mode, RunName, Sync
from services.sync_worker.files import SyncFiles, whole_of
from services.sync_worker.ledger import Outcome, RejectedOrdinal
from services.sync_worker.state import write_next_state

BATCH = 4
KEYS = [f"u{number}" for number in range(25)]
STILL_KEYS = [f"still{number}" for number in range(400)]
"""Of users who never change: they are so many that a state is mostly one that holds the changes of another."""

LEVELS = {0.0: "0.0", 1.0: "1.0", math.nan: "null", math.inf: "null"}
"""Values and what they are in JSON: two look different and are the same to a destination."""


@pytest.fixture(scope="module")
def warehouse(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    url = f"ducklake:{database_url}&data_path={tmp_path_factory.mktemp('lake')}"
    provision_workspace(url, "tusk")
    yield open_warehouse(url, "tusk")
    close_warehouses()


def publish(warehouse: Warehouse, table: pa.Table) -> int:
    """Makes the rows the user model and returns the snapshot."""
    columns = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN", pa.int64(): "BIGINT"}
    columns |= {pa.timestamp("us"): "TIMESTAMP", pa.date32(): "DATE"}
    nulls = ", ".join(f"NULL::{columns[column.type]} AS {column.name}" for column in table.schema)
    with warehouse.transaction() as tx:
        tx.drop("traitmesh.user_model")
        tx.create_table_as("traitmesh.user_model", f"SELECT {nulls} WHERE false")
        tx.append("traitmesh.user_model", table)
    return warehouse.snapshot()


def sync_of(mode: Mode, *fields: str, audience: str = "") -> Sync:
    mappings = tuple(Mapping(name, f"{name}_there") for name in ("user_id", *fields))
    return Sync("tusk", "s", audience, "d", "people", mode, mappings)


def question(sync: Sync, snapshot: int, run: int = 1, state: Path | None = None, revision: int = 1) -> plan.Question:
    return plan.Question(sync, run, snapshot, state, revision, retry_rejects=False)


@dataclass
class Oracle:
    """One destination, record by record, without hashes, files or SQL."""

    mode: Mode
    held: dict[str, str] = field(default_factory=dict)
    maybe: dict[str, str | None] = field(default_factory=dict)
    refused: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    pending: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def expected(self, source: dict[str, str], revision: int) -> dict[str, tuple[str, str | None]]:
        """What the next plan must hold: (operation, payload) by key."""
        planned = {}
        for key in {*source, *self.held, *self.maybe, *self.refused}:
            want = source.get(key)
            sure = key not in self.maybe
            stands = self.refused.get(key) == (want, revision)
            if (sure and self.held.get(key) == want) or stands:
                continue
            operation = self._operation(key, want)
            if operation is not None:
                planned[key] = (operation, want)
        return planned

    def _operation(self, key: str, want: str | None) -> str | None:
        if want is None:
            return "delete" if self.mode is Mode.MIRROR else None
        return {
            Mode.UPSERT: "upsert",
            Mode.MIRROR: "upsert",
            Mode.UPDATE: "update",
            Mode.INSERT: None if key in self.held else "insert",
        }[self.mode]

    def check_idempotency(self, key: str, want: str | None, token: str, *, resend: bool) -> None:
        """The same token for the same unsettled effect, a fresh one for any other."""
        if key in self.pending and self.pending[key][0] == want:
            assert token == self.pending[key][1]
        else:
            assert token not in self.used
        assert resend == (key in self.maybe and self.maybe[key] == want)
        self.used.add(token)

    def settle(self, key: str, want: str | None, outcome: str, revision: int, token: str) -> None:
        if outcome == "unknown":
            self.maybe[key] = want
            self.pending[key] = (want, token)
            return
        self.maybe.pop(key, None)
        self.pending.pop(key, None)
        if outcome == "rejected":
            self.refused[key] = (want, revision)
            return
        self.refused.pop(key, None)
        if want is None:
            self.held.pop(key, None)
        else:
            self.held[key] = want


@pytest.mark.parametrize("mode", Mode)
def test_plans_equal_the_oracles_over_random_histories(mode: Mode, warehouse: Warehouse, tmp_path: Path) -> None:
    chance = random.Random(f"plan {mode}")
    oracle = Oracle(mode)
    sync = sync_of(mode, "level")
    files = SyncFiles(tmp_path)
    state: Path | None = None
    seen = set()
    for run in range(1, 15):
        levels = {key: chance.choice([*LEVELS]) for key in KEYS if chance.random() < 0.8}
        levels |= dict.fromkeys(STILL_KEYS, 1.0)
        rows = pa.table({"user_id": list(levels), "level": pa.array(levels.values(), pa.float64())})
        source = {k: f'{{"user_id_there":"{k}","level_there":{LEVELS[level]}}}' for k, level in levels.items()}
        revision = 1 + run // 5
        path = files.plan(RunName("tusk", "s", run))
        plan.write_plan(warehouse, question(sync, publish(warehouse, rows), run, state, revision), path)
        records = list(plan.read_records(path, 0))
        assert [record.ordinal for record in records] == list(range(len(records)))
        expected = oracle.expected(source, revision)
        assert {r.key: r.operation for r in records} == {key: operation for key, (operation, _) in expected.items()}
        payloads = {r.key: None if r.operation == "delete" else r.payload for r in records}
        assert payloads == {key: want for key, (_, want) in expected.items()}
        resends = [record.resend for record in records]
        assert resends == sorted(resends, reverse=True), "what may have arrived goes first"
        batches, rejects = [], []
        for number in range((len(records) + BATCH - 1) // BATCH):
            batch_state = chance.choices([BatchState.CONFIRMED, BatchState.UNKNOWN, BatchState.PLANNED], [6, 3, 1])[0]
            batches.append(Outcome(number, batch_state, 0))
            for record in records[number * BATCH : (number + 1) * BATCH]:
                want = payloads[record.key]
                if batch_state is BatchState.PLANNED:
                    continue  # Never sent: neither the oracle nor the destination knows of it.
                oracle.check_idempotency(record.key, want, record.idempotency_key, resend=record.resend)
                refused = batch_state is BatchState.CONFIRMED and chance.random() < 0.2
                outcome = "rejected" if refused else str(batch_state)
                if refused:
                    rejects.append(RejectedOrdinal(record.ordinal, revision))
                oracle.settle(record.key, want, outcome, revision, record.idempotency_key)
                seen.add((record.operation, outcome))
        write_next_state(state, path, files.state(run), run=run, batch_size=BATCH, batches=batches, rejects=rejects)
        files.forget_states_before(run)
        state = files.state(run)
        seen |= {("state", "whole" if whole_of(state) == state else "changes")} | {
            ("row", "recognised") for _ in recognised(path)
        }
    assert {outcome for _, outcome in seen} == {"confirmed", "rejected", "unknown", "whole", "changes", "recognised"}


def recognised(path: Path) -> list[str]:
    """The keys of a plan's rows that look different and are the same."""
    rows = pq.read_table(path).to_pylist()
    return sorted(row["key"] for row in rows if row["ordinal"] is None)


def test_rows_that_look_as_they_did_are_not_looked_at(warehouse: Warehouse, tmp_path: Path) -> None:
    sync, snapshot = sync_of(Mode.MIRROR, "level"), publish(warehouse, pa.table({"user_id": ["a"], "level": [1.0]}))
    state = confirmed_state(warehouse, question(sync, snapshot), tmp_path)
    plan.write_plan(warehouse, question(sync, snapshot, 2, state), tmp_path / "2.parquet")
    assert pq.read_metadata(tmp_path / "2.parquet").num_rows == 0


def of_another_engine(state: Path, fingerprint: str) -> None:
    table = pq.read_table(state)
    other = pc.bit_wise_not(table[fingerprint])
    pq.write_table(table.set_column(table.schema.get_field_index(fingerprint), fingerprint, other), state)


def without_fingerprints(file: Path) -> None:
    """Makes a plan or a state what it was before there were fingerprints."""
    pq.write_table(pq.read_table(file).drop_columns(["fingerprint_a", "fingerprint_b"]), file)


@pytest.mark.parametrize("changed", [{"fingerprint_a"}, {"fingerprint_b"}, set()])
def test_rows_whose_fingerprints_say_nothing_are_compared_by_payload(
    changed: set[str], warehouse: Warehouse, tmp_path: Path
) -> None:
    sync = sync_of(Mode.MIRROR, "level")
    snapshot = publish(warehouse, pa.table({"user_id": ["a", "b"], "level": [1.0, 2.0]}))
    state = confirmed_state(warehouse, question(sync, snapshot), tmp_path)
    for fingerprint in changed:
        of_another_engine(state, fingerprint)
    if not changed:
        without_fingerprints(state)

    later = publish(warehouse, pa.table({"user_id": ["a", "b"], "level": [1.0, 3.0]}))
    learned = confirmed_state(warehouse, question(sync, later, 2, state), tmp_path)
    assert [record.key for record in plan.read_records(tmp_path / "2.plan.parquet", 0)] == ["b"]
    assert plan.count_plan(tmp_path / "2.plan.parquet") == {"changed": 1}
    assert recognised(tmp_path / "2.plan.parquet") == ["a"]

    plan.write_plan(warehouse, question(sync, later, 3, learned), tmp_path / "3.parquet")
    assert pq.read_metadata(tmp_path / "3.parquet").num_rows == 0


def test_a_plan_of_an_older_release_is_settled(warehouse: Warehouse, tmp_path: Path) -> None:
    sync, snapshot = sync_of(Mode.MIRROR), publish(warehouse, pa.table({"user_id": ["a"]}))
    plan.write_plan(warehouse, question(sync, snapshot), tmp_path / "1.plan.parquet")
    without_fingerprints(tmp_path / "1.plan.parquet")
    state = confirmed_state(warehouse, question(sync, snapshot), tmp_path)
    plan.write_plan(warehouse, question(sync, snapshot, 2, state), tmp_path / "2.parquet")
    assert list(plan.read_records(tmp_path / "2.parquet", 0)) == []


def test_a_trait_that_changes_its_type_changes_the_payload(warehouse: Warehouse, tmp_path: Path) -> None:
    """DuckDB's hashes of true and 1 are the same."""
    sync, flag = sync_of(Mode.UPSERT, "flag"), pa.table({"user_id": ["a"], "flag": [True]})
    state = confirmed_state(warehouse, question(sync, publish(warehouse, flag)), tmp_path)
    number = flag.set_column(1, "flag", pa.array([1], pa.int64()))
    plan.write_plan(warehouse, question(sync, publish(warehouse, number), 2, state), tmp_path / "2.parquet")
    (record,) = plan.read_records(tmp_path / "2.parquet", 0)
    assert orjson.loads(record.payload)["flag_there"] == 1


def confirmed_state(warehouse: Warehouse, asked: plan.Question, folder: Path) -> Path:
    """Plans, and writes the state after all was confirmed."""
    path, state = folder / f"{asked.run}.plan.parquet", folder / f"{asked.run}.state.parquet"
    plan.write_plan(warehouse, asked, path)
    batches = [Outcome(0, BatchState.CONFIRMED, 0)]
    write_next_state(asked.state, path, state, run=asked.run, batch_size=BATCH, batches=batches, rejects=[])
    return state


def test_a_plan_once_written_is_never_written_again(warehouse: Warehouse, tmp_path: Path) -> None:
    sync, path = sync_of(Mode.UPSERT), tmp_path / "plan.parquet"
    plan.write_plan(warehouse, question(sync, publish(warehouse, pa.table({"user_id": ["a"]}))), path)
    plan.write_plan(warehouse, question(sync, publish(warehouse, pa.table({"user_id": ["a", "b"]}))), path)
    assert [record.key for record in plan.read_records(path, 0)] == ["a"]
    assert [other.name for other in tmp_path.iterdir()] == ["plan.parquet"], "no draft is left"


def test_a_plan_reads_the_snapshot_that_was_pinned(warehouse: Warehouse, tmp_path: Path) -> None:
    pinned = publish(warehouse, pa.table({"user_id": ["a"]}))
    publish(warehouse, pa.table({"user_id": ["b"]}))
    plan.write_plan(warehouse, question(sync_of(Mode.UPSERT), pinned), tmp_path / "p.parquet")
    assert [record.key for record in plan.read_records(tmp_path / "p.parquet", 0)] == ["a"]


def test_an_audiences_sync_holds_its_members_alone(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = pa.table({"user_id": ["in", "out", "unsaid"], "whales": [True, False, None]})
    sync = sync_of(Mode.UPSERT, audience="whales")
    plan.write_plan(warehouse, question(sync, publish(warehouse, rows)), tmp_path / "p.parquet")
    assert [record.key for record in plan.read_records(tmp_path / "p.parquet", 0)] == ["in"]


def test_payloads_are_canonical_json_of_each_type(warehouse: Warehouse, tmp_path: Path) -> None:
    moment = pa.array([1_700_000_000_123_000] * 3, pa.timestamp("us"))
    rows = pa.table(
        {
            "user_id": ["0", "", "é\"'\n"],
            "real": [float("nan"), -0.0, 1e300],
            "whole": [2**63 - 1, None, 0],
            "flag": [False, None, True],
            "moment": moment,
            "day": moment.cast(pa.date32(), safe=False),
        }
    )
    sync = sync_of(Mode.UPSERT, "real", "whole", "flag", "moment", "day")
    path = tmp_path / "p.parquet"
    plan.write_plan(warehouse, question(sync, publish(warehouse, rows)), path)
    found: dict[str, Any] = {record.key: orjson.loads(record.payload) for record in plan.read_records(path, 0)}
    same = {"moment_there": "2023-11-14T22:13:20.123000Z", "day_there": "2023-11-14"}
    assert found["0"] == same | {
        "user_id_there": "0",
        "real_there": None,
        "whole_there": 2**63 - 1,
        "flag_there": False,
    }
    assert found[""]["real_there"] == 0.0
    assert str(found[""]["real_there"]) == "0.0"
    assert found["é\"'\n"]["real_there"] == 1e300
    types = {name: kind["type"][0] for name, kind in plan.read_record_schema(path)["properties"].items()}
    assert list(types.values()) == ["string", "number", "integer", "boolean", "string", "string"]


@pytest.mark.parametrize("keys", [["a", None], ["a", "a"]])
def test_a_model_without_usable_keys_is_refused(keys: list[str | None], warehouse: Warehouse, tmp_path: Path) -> None:
    snapshot = publish(warehouse, pa.table({"user_id": pa.array(keys, pa.string())}))
    with pytest.raises(errors.NotReady, match="must be present and unique"):
        plan.write_plan(warehouse, question(sync_of(Mode.UPSERT), snapshot), tmp_path / "p.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_trait_that_left_the_model_is_named(warehouse: Warehouse, tmp_path: Path) -> None:
    snapshot = publish(warehouse, pa.table({"user_id": ["a"]}))
    with pytest.raises(errors.NotReady, match="no trait level any more"):
        plan.write_plan(warehouse, question(sync_of(Mode.UPSERT, "level"), snapshot), tmp_path / "p.parquet")


def test_a_batch_that_counts_rejects_without_names_confirms_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    sync, first = sync_of(Mode.UPSERT), tmp_path / "1.parquet"
    snapshot = publish(warehouse, pa.table({"user_id": ["a", "b"]}))
    plan.write_plan(warehouse, question(sync, snapshot), first)
    batches = [Outcome(0, BatchState.CONFIRMED, 1), Outcome(1, BatchState.CONFIRMED, 0)]
    state = tmp_path / "state.parquet"
    write_next_state(None, first, state, run=1, batch_size=1, batches=batches, rejects=[])
    plan.write_plan(warehouse, question(sync, snapshot, 2, state), tmp_path / "2.parquet")
    assert [(r.key, r.resend) for r in plan.read_records(tmp_path / "2.parquet", 0)] == [("a", True)]


def test_the_plan_works_on_an_engine_without_snapshots(database_url: str, tmp_path: Path) -> None:
    provision_workspace(database_url, "plain")
    warehouse = open_warehouse(database_url, "plain")
    with warehouse.transaction() as tx:
        tx.create_table_as("traitmesh.user_model", "SELECT 'a' AS user_id, 1.5::float8 AS level, true AS whales")
    sync = sync_of(Mode.MIRROR, "level", audience="whales")
    plan.write_plan(warehouse, plan.Question(sync, 1, None, None, 1, retry_rejects=False), tmp_path / "p.parquet")
    (record,) = plan.read_records(tmp_path / "p.parquet", 0)
    assert orjson.loads(record.payload) == {"user_id_there": "a", "level_there": 1.5}
