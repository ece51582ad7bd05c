"""Publishes a build's table: the served model takes what differs, and its snapshot is the build."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from dataclasses import dataclass

from libs.warehouse import KeyViolation, Warehouse
from services.model_builder.domain import KEY, MODEL_TABLE, ROW_HASH, Blueprint, Failure
from services.model_builder.publishing.assembling import create_anew, final_select, stage


@dataclass(frozen=True)
class Publication:
    """What a publication wrote; snapshot 0 where the engine has none."""

    snapshot: int
    row_count: int
    inserted_count: int
    updated_count: int
    deleted_count: int


def publish(warehouse: Warehouse, blueprint: Blueprint, table: str, base: int) -> Publication | Failure:
    """Makes the served model equal to the build's last table; `base` is the serving build's snapshot, 0 for none.

    A repeated call finds the commit of the first by the build's name. Answers the broken contract if a user is in
    the model twice, and then has written nothing.
    """
    snapshot = warehouse.snapshot_of(blueprint.name) if warehouse.capabilities.commit_messages else None
    if snapshot is not None:
        return _published_before(warehouse, base, snapshot)
    rows = create_anew(warehouse, blueprint.table, final_select(warehouse, blueprint, table))
    try:
        with warehouse.transaction(blueprint.name) as transaction:
            counts = transaction.merge(MODEL_TABLE, blueprint.table, KEY, ROW_HASH)
    except KeyViolation as error:
        return Failure("", "key", str(error))
    snapshot = transaction.snapshot
    if snapshot is None:
        # Nothing differed: the newest snapshot holds the same model as the build before.
        snapshot = warehouse.snapshot() if warehouse.capabilities.snapshots else 0
    return Publication(snapshot, rows, counts.inserted, counts.updated, counts.deleted)


def _published_before(warehouse: Warehouse, base: int, snapshot: int) -> Publication:
    """The counts of a publication whose own were lost with the worker that made it."""
    model = warehouse.table(MODEL_TABLE, at=snapshot)
    rows = int(warehouse.query(f"SELECT count(*) AS n FROM {model}").read_all()["n"][0].as_py())
    if not base:
        return Publication(snapshot, rows, rows, 0, 0)
    changes = warehouse.changes(MODEL_TABLE, base, snapshot, KEY).read_all()["_change"].to_pylist()
    return Publication(snapshot, rows, *(changes.count(kind) for kind in ("insert", "update", "delete")))


def drop_build_tables(warehouse: Warehouse, blueprint: Blueprint) -> None:
    """Drops the build's own tables, those of earlier attempts too."""
    tables = [blueprint.table, *(stage(blueprint, level) for level in range(len(blueprint.decided) + 1))]
    present = [table for table in tables if warehouse.exists(table)]
    if present:
        with warehouse.transaction() as transaction:
            for table in present:
                transaction.drop(table)
