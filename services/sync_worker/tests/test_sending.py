"""One attempt to send, without Temporal: what the ledger says after each way that it can go."""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import Engine, select

from libs.kit import database, errors
from libs.kit.paging import Page
from libs.kit.seal import Seal
from libs.kit.settings import Settings
from libs.kit.testing import schema_differences
from services.sync_worker import ledger, store
from services.sync_worker.connectors import Connectors
from services.sync_worker.domain import Mapping, Mode, RunName, RunState, Sync
from services.sync_worker.sending import Attempt, Delivery, close_config, open_config
from services.sync_worker.tests.stage import Moody
from traitmesh_connector.errors import ConfigError, ConnectorCrashed, ProtocolError, TransientError

SEAL = Seal("a key for tests")
RECORDS = 35
NUMBERS = itertools.count(1)

# A foreign destination: it speaks the protocol, knows nothing of ours, and does what its name says.
FOREIGN = """#!{python}
import json, sys
def say(kind, key, body): print(json.dumps({{"type": kind, key: body}}), flush=True)
command = sys.argv[1]
if command == "spec":
    modes = ["append_dedup", "append"]
    say("SPEC", "spec", {{"connectionSpecification": {{}}, "supported_destination_sync_modes": modes}})
else:
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "RECORD":
            with open("{seen}", "a") as file: file.write(json.dumps(message["record"]["data"]) + "\\n")
        if message["type"] == "STATE":
            {behaviour}
"""
ECHO = 'say("STATE", "state", message["state"])'
COUNT = 'say("STATE", "state", message["state"] | {"destinationStats": {"rejectedRecordCount": 2}})'
INVENT = 'message["state"]["stream"]["stream_state"]["batch"] += 1; ' + ECHO
RENEW = 'say("CONTROL", "control", {"type": "CONNECTOR_CONFIG", "connectorConfig": {"config": {"token": "new"}}}); '


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Engine:
    engine = database.connect(settings, store.SCHEMA)
    database.upgrade(engine, store.SCHEMA, Path(store.__file__).parent / "alembic")
    return engine


@dataclass
class Sending:
    """A planned run of a sync to one destination, ready to be sent."""

    engine: Engine
    connectors: Connectors
    run: RunName
    sync: Sync
    plan: Path

    def attempt(self, stopping: Callable[[], bool] = lambda: False) -> Attempt:
        with self.engine.begin() as tx:
            destination = store.find_destination(tx, self.sync.workspace, self.sync.destination)
        assert destination is not None
        connector = self.connectors.get(destination.connector)
        return Attempt(self.engine, SEAL, Delivery(self.run, self.sync, self.plan, connector, destination), stopping)

    def row(self) -> Any:
        with self.engine.begin() as tx:
            return ledger.find_run(tx, self.run)

    def counts(self) -> tuple[int, int, int]:
        """Confirmed, rejected, unknown."""
        row = self.row()
        return row.confirmed_count, row.rejected_count, row.unknown_count


Prepare = Callable[..., Sending]


@pytest.fixture
def prepare(engine: Engine, connectors_dir: Path, tmp_path: Path) -> Prepare:
    def prepare(connector: str, config: dict[str, object], operation: str = "upsert", batch_size: int = 10) -> Sending:
        name = f"sending-{next(NUMBERS)}"
        sync = Sync("tusk", name, "", name, "people", Mode.MIRROR, (Mapping("user_id", "id"),))
        plan = tmp_path / f"{name}.parquet"
        _write_plan(plan, operation)
        kept = close_config(SEAL, "tusk", name, config, {})
        with engine.begin() as tx:
            store.insert_destination(tx, "tusk", name, name, connector, kept)
            store.insert_sync(tx, sync, name)
            run = ledger.insert_run(tx, "tusk", name, retry_rejects=False)
            ledger.record_plan(tx, run, batch_size, {"added": RECORDS})
            ledger.record_plan(tx, run, batch_size, {"added": RECORDS})  # A repeat changes nothing.
        return Sending(
            engine, Connectors(tmp_path if connector == "destination-foreign" else connectors_dir), run, sync, plan
        )

    return prepare


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[str], Path]:
    """Installs a foreign destination and returns the file of what it saw."""

    def install(behaviour: str) -> Path:
        program = tmp_path / "destination-foreign" / "bin" / "destination-foreign"
        program.parent.mkdir(parents=True)
        seen = tmp_path / "seen"
        program.write_text(FOREIGN.format(python=sys.executable, behaviour=behaviour, seen=seen))
        program.chmod(0o755)
        return seen

    return install


@pytest.fixture
def moody(tmp_path: Path) -> Moody:
    folder = tmp_path / "moody"
    folder.mkdir()
    moody = Moody(folder, "")
    moody.set()
    return moody


def _write_plan(path: Path, operation: str) -> None:
    query = """
        COPY (
            SELECT i AS ordinal, $operation AS operation, printf('u%03d', i) AS key, 'added' AS change,
                json_object('id', printf('u%03d', i))::VARCHAR AS payload, sha256(i::VARCHAR) AS payload_hash,
                'token ' || i AS idempotency_key, 0 AS base, false AS resend
            FROM range($count) AS numbers(i)
        ) TO $path (FORMAT parquet, KV_METADATA {record_schema: '{"type": "object", "properties": {"id": {}}}'})
    """
    duckdb.execute(query, {"operation": operation, "count": RECORDS, "path": str(path)})


def moody_config(moody: Moody) -> dict[str, object]:
    return {"folder": str(moody.folder), "token": "s3cret"}


def test_the_store_declares_what_the_migrations_make(engine: Engine) -> None:
    assert schema_differences(engine, store.metadata) == []


def test_everything_is_confirmed_but_the_rejects_which_keep_their_reason(prepare: Prepare, moody: Moody) -> None:
    moody.set(reject=["u000", "u034"])
    sending = prepare("destination-moody", moody_config(moody))
    assert sending.attempt().send()
    assert sending.counts() == (RECORDS - 2, 2, 0)
    with sending.engine.begin() as tx:
        rejects, _ = ledger.list_rejects(tx, sending.run, Page(10, None, ""))
    assert [(r.ordinal, r.key, r.code, r.batch) for r in rejects] == [
        (0, "u000", "bad_record", 0),
        (34, "u034", "bad_record", 3),
    ]
    assert len(moody.records()) == RECORDS - 2


def test_an_attempt_that_stops_ends_its_batch_and_another_goes_on(prepare: Prepare, moody: Moody) -> None:
    sending = prepare("destination-moody", moody_config(moody))
    asked = iter([False, False, True])
    assert sending.attempt(lambda: next(asked)).send() is False
    assert sending.counts() == (20, 0, 0)
    assert sending.attempt().send()
    assert sending.counts() == (RECORDS, 0, 0)
    assert len(moody.writes()) == RECORDS


def test_what_a_crash_left_unanswered_is_sent_again_as_such(prepare: Prepare, moody: Moody) -> None:
    moody.set(crash=True)
    sending = prepare("destination-moody", moody_config(moody))
    with pytest.raises(ConnectorCrashed):
        sending.attempt().send()
    confirmed, _, unknown = sending.counts()
    assert confirmed == 0
    assert unknown >= 10
    moody.set()
    assert sending.attempt().send()
    assert sending.counts() == (RECORDS, 0, 0)
    resent = [key for key, _, _, resend in moody.writes() if resend]
    assert resent == [f"u{number:03}" for number in range(unknown)]
    assert [token for _, _, token, _ in moody.writes()] == [f"token {number}" for number in range(RECORDS)]


def test_a_worker_that_was_only_thought_dead_cannot_go_on(prepare: Prepare, moody: Moody) -> None:
    sending = prepare("destination-moody", moody_config(moody))
    epochs: list[int] = []

    def another_takes_over() -> bool:
        if not epochs:
            with sending.engine.begin() as tx:
                epochs.append(ledger.begin_attempt(tx, sending.run))
        return False

    with pytest.raises(errors.Conflict, match="taken over by a newer attempt"):
        sending.attempt(another_takes_over).send()
    assert epochs == [2]
    assert sending.counts() == (0, 0, 0)
    with sending.engine.begin() as tx, pytest.raises(errors.Conflict):
        ledger.confirm(tx, sending.run, 1, 0, [], unnamed_rejects=0, destination_revision=1)
    assert sending.counts() == (0, 0, 0)


def test_nobody_writes_to_the_ledger_of_a_run_that_ended(prepare: Prepare, moody: Moody) -> None:
    sending = prepare("destination-moody", moody_config(moody))
    attempt = sending.attempt()
    with sending.engine.begin() as tx:
        epoch = ledger.close(tx, sending.run)
        ledger.finish(tx, sending.run, epoch, RunState.ABORTED, new_state_file=False)
    with pytest.raises(errors.NotReady, match="nothing to send"):
        attempt.send()
    assert moody.writes() == []


@pytest.mark.parametrize(("mood", "error"), [({"refuse": True}, ConfigError), ({"busy": 7.5}, TransientError)])
def test_a_refusal_confirms_nothing(
    mood: dict[str, Any], error: type[Exception], prepare: Prepare, moody: Moody
) -> None:
    moody.set(**mood)
    sending = prepare("destination-moody", moody_config(moody))
    with pytest.raises(error) as caught:
        sending.attempt().send()
    assert sending.counts()[:2] == (0, 0)
    assert getattr(caught.value, "retry_after", 7.5) == 7.5


def test_a_foreign_destination_gets_airbytes_deletes(prepare: Prepare, foreign: Callable[[str], Path]) -> None:
    seen = foreign(ECHO)
    sending = prepare("destination-foreign", {}, operation="delete")
    assert sending.attempt().send()
    records = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(records) == RECORDS
    assert all(record["_ab_cdc_deleted_at"] and record["id"] for record in records)


def test_an_invented_acknowledgement_confirms_nothing(prepare: Prepare, foreign: Callable[[str], Path]) -> None:
    foreign(INVENT)
    sending = prepare("destination-foreign", {})
    with pytest.raises(ProtocolError):
        sending.attempt().send()
    assert sending.counts()[0] == 0


def test_rejects_that_are_only_counted_are_counted(prepare: Prepare, foreign: Callable[[str], Path]) -> None:
    foreign(COUNT)
    sending = prepare("destination-foreign", {})
    assert sending.attempt().send()
    assert sending.counts() == (RECORDS - 8, 8, 0)
    with sending.engine.begin() as tx:
        batches, _ = ledger.outcomes(tx, sending.run)
    assert [batch.unnamed_rejects for batch in batches] == [2, 2, 2, 2]


def test_a_token_that_the_connector_renewed_is_kept(prepare: Prepare, foreign: Callable[[str], Path]) -> None:
    foreign(RENEW + ECHO)
    sending = prepare("destination-foreign", {"token": "old"})
    assert sending.attempt().send()
    with sending.engine.begin() as tx:
        row = store.find_destination(tx, "tusk", sending.sync.destination)
        sealed = tx.execute(select(store.destinations.c.sealed_config)).scalars().all()
    assert row is not None
    assert open_config(SEAL, row) == {"token": "new"}
    assert row.revision == 1
    assert not any(b"new" in bytes(config) for config in sealed)
