"""Assembling, publishing and reading a build, on both engines of the warehouse."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg
import pyarrow as pa
import pytest

from libs.warehouse import Unsupported, Warehouse, open_warehouse, provision_workspace
from services.model_builder.domain import Blueprint, Trait, TraitKind, TraitType
from services.model_builder.notebooks import running
from services.model_builder.publishing import assembling, bodies, publication, reading
from services.model_builder.publishing.assembling import CompiledAudience
from services.model_builder.publishing.publication import Publication


def trait(name: str, kind: TraitType, column: str) -> Trait:
    return Trait(name, TraitKind.COMPUTED, kind, "workspaces/w/projects/p", column)


LTV = trait("ltv", TraitType.CONTINUOUS, "dbt.traits.ltv")
TIER = trait("tier", TraitType.CATEGORICAL, "dbt.traits.tier")
LEVEL = trait("level", TraitType.CONTINUOUS, "dbt.traits.level")
RICH = Trait("rich", TraitKind.DECIDED, TraitType.BOOLEAN, "workspaces/w/audiences/rich", "")
POOR = Trait("poor", TraitKind.DECIDED, TraitType.BOOLEAN, "workspaces/w/audiences/poor", "")
ONE = Blueprint("w", 1, 1, datetime(2026, 6, 1, tzinfo=UTC), (LTV, TIER))
KEYS = {"dbt.traits": "id"}


@pytest.fixture(params=["ducklake", "postgresql"])
def warehouse(request: pytest.FixtureRequest, postgres: str, tmp_path: Path) -> Warehouse:
    name = f"publishing_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = postgres.replace("/postgres?", f"/{name}?")
    if request.param == "ducklake":
        url = f"ducklake:{url}&data_path={tmp_path}"
    provision_workspace(url, "w")
    opened = open_warehouse(url, "w")
    with opened.transaction() as transaction:
        users = {"user_id": ["ana", "bo", "cy"], "user_ord": [0, 1, 2]}
        transaction.append("traitmesh.users", pa.table(users))
    make_traits(opened, "('ana', 12.5, 'a', 3), ('bo', 1, NULL, 4)")
    return opened


def make_traits(warehouse: Warehouse, values: str) -> None:
    columns = "CAST(id AS VARCHAR) AS id, CAST(ltv AS DOUBLE PRECISION) AS ltv, tier, CAST(level AS INTEGER) AS level"
    select = f"SELECT {columns} FROM (VALUES {values}) AS v (id, ltv, tier, level)"
    assembling.create_anew(warehouse, "dbt.traits", select)


def build(warehouse: Warehouse, blueprint: Blueprint, base: int = 0) -> Publication:
    select = assembling.base_select(warehouse, blueprint.stored, KEYS)
    assembling.create_anew(warehouse, assembling.stage(blueprint, 0), select)

    def compile_audiences(waiting: Sequence[str], present: Sequence[str], table: str) -> list[CompiledAudience]:
        rules = {"rich": "ltv > 10", "poor": "NOT rich"}
        reads = {"rich": (f"{table}.ltv",), "poor": (f"{table}.rich",)}
        select = f"SELECT user_ord FROM {warehouse.table(table)} WHERE "
        return [CompiledAudience(each, select + rules[each], reads[each]) for each in waiting]

    table = assembling.decide(warehouse, blueprint, compile_audiences)
    done = publication.publish(warehouse, blueprint, table, base)
    assert isinstance(done, Publication), done
    return done


def rows(warehouse: Warehouse, done: Publication, *traits: str) -> dict[str, list[object]]:
    read = reading.read(warehouse, done.snapshot, traits).read_all().to_pylist()
    return {row["user_id"]: [row[trait] for trait in traits] for row in read}


def test_every_user_has_a_row_and_types_are_the_models(warehouse: Warehouse) -> None:
    done = build(warehouse, replace(ONE, traits=(LTV, TIER, LEVEL)))
    assert (done.row_count, done.inserted_count) == (3, 3)
    assert rows(warehouse, done, "ltv", "tier", "level") == {
        "ana": [12.5, "a", 3],
        "bo": [1.0, None, 4],
        "cy": [None, None, None],
    }
    assert reading.read(warehouse, done.snapshot, ["level"]).schema.field("level").type == pa.int64()


def test_only_what_differs_is_written(warehouse: Warehouse) -> None:
    first = build(warehouse, ONE)
    same = build(warehouse, replace(ONE, number=2), first.snapshot)
    make_traits(warehouse, "('ana', 12.5, 'a', 3), ('bo', 2, NULL, 4)")
    third = build(warehouse, replace(ONE, number=3), same.snapshot)
    assert (same.inserted_count, same.updated_count, same.deleted_count) == (0, 0, 0)
    assert (third.inserted_count, third.updated_count, third.deleted_count) == (0, 1, 0)
    changes = bodies.changes_since(warehouse, same.snapshot, third.snapshot)
    found = bodies.bodies(changes or bodies.whole_model(warehouse, third.snapshot), ONE.traits)
    changed = {user: orjson.loads(b"{%b}" % body) if body else None for user, body in found}
    assert changed["bo"] == {"traits": {"ltv": 2.0, "tier": None}, "audiences": []}
    assert len(changed) == (1 if warehouse.capabilities.changes else 3)


def test_audiences_are_decided_in_their_order(warehouse: Warehouse) -> None:
    blueprint = replace(ONE, traits=(POOR, LTV, RICH))
    done = build(warehouse, blueprint)
    found = rows(warehouse, done, "poor", "ltv", "rich")
    assert found == {"ana": [False, 12.5, True], "bo": [True, 1.0, False], "cy": [True, None, False]}
    body = dict(bodies.bodies(bodies.whole_model(warehouse, done.snapshot), blueprint.traits))["bo"]
    assert body == b'"traits":{"ltv":1.0},"audiences":["poor"]'
    publication.drop_build_tables(warehouse, blueprint)
    assert not any(warehouse.exists(f"traitmesh.build_1{end}") for end in ("", "_0", "_1", "_2"))


def test_infinite_values_are_none(warehouse: Warehouse) -> None:
    make_traits(
        warehouse,
        "('ana', CAST('NaN' AS DOUBLE PRECISION), 'a', 1), ('bo', CAST('-Infinity' AS DOUBLE PRECISION), 'b', 1)",
    )
    assert rows(warehouse, build(warehouse, ONE), "ltv") == {"ana": [None], "bo": [None], "cy": [None]}


def test_contracts_name_trait_and_reason(warehouse: Warehouse) -> None:
    assert assembling.audit_tables(warehouse, (LTV, TIER, LEVEL), KEYS) == []
    wrong = trait("tier", TraitType.BOOLEAN, "dbt.traits.tier")
    absent = trait("age", TraitType.CONTINUOUS, "dbt.traits.age")
    nowhere = trait("x", TraitType.CONTINUOUS, "dbt.nowhere.x")
    found = assembling.audit_tables(warehouse, (LTV, wrong, absent, nowhere), KEYS)
    assert [(failure.trait, failure.contract) for failure in found] == [
        ("x", "table"),
        ("tier", "type"),
        ("age", "column"),
    ]
    make_traits(warehouse, "('ana', 1, 'a', 1), ('ana', 1, 'a', 1), (NULL, 1, 'a', 1)")
    [failure] = assembling.audit_tables(warehouse, (LTV,), KEYS)
    assert failure.contract == "key"
    assert "null in 1 rows and repeated in 1" in failure.reason


def test_builds_compare_where_there_are_snapshots(warehouse: Warehouse) -> None:
    first = build(warehouse, ONE)
    make_traits(warehouse, "('ana', 12.5, 'b', 3), ('bo', 2, 'b', 4)")
    with warehouse.transaction() as transaction:
        transaction.append("traitmesh.users", pa.table({"user_id": ["dee"], "user_ord": [3]}))
    second = build(warehouse, replace(ONE, number=2, traits=(TIER, LTV, LEVEL)), first.snapshot)
    if not warehouse.capabilities.snapshots:
        with pytest.raises(Unsupported):
            reading.compare(warehouse, 1, 2, ONE.traits, ONE.traits)
        return
    found = reading.compare(warehouse, first.snapshot, second.snapshot, ONE.traits, (TIER, LTV, LEVEL))
    assert (found.added_rows, found.removed_rows, found.changed_rows) == (1, 0, 2)
    assert found.changed_values == {"tier": 2, "ltv": 1}
    assert rows(warehouse, first, "tier") == {"ana": ["a"], "bo": [None], "cy": [None]}


def test_a_repeated_publication_finds_the_first(warehouse: Warehouse) -> None:
    first = build(warehouse, ONE)
    make_traits(warehouse, "('ana', 1, 'b', 3), ('bo', 1, NULL, 4)")
    two = replace(ONE, number=2)
    second = build(warehouse, two, first.snapshot)
    again = publication.publish(warehouse, two, assembling.stage(two, 0), first.snapshot)
    assert isinstance(again, Publication)
    assert again.snapshot == second.snapshot
    if warehouse.capabilities.changes:
        assert again == second


def test_predictions_land_whole(warehouse: Warehouse) -> None:
    for values in ([0.5, 0.25], [1.0]):
        table = pa.table({"user_id": ["ana", "bo"][: len(values)], "value": values})
        running.land(warehouse, "predicted.score", table)
    found = warehouse.query(f"SELECT * FROM {warehouse.table('predicted.score')}").read_all().to_pylist()
    assert found == [{"user_id": "ana", "value": 1.0}]


def test_a_stream_comes_in_small_pieces() -> None:
    batches = [pa.record_batch({"a": list(range(5000))}) for _ in range(4)]
    pieces = list(reading.as_stream(pa.RecordBatchReader.from_batches(batches[0].schema, batches), 1000))
    assert max(map(len, pieces)) == 1000
    assert pa.ipc.open_stream(b"".join(pieces)).read_all().num_rows == 20_000
