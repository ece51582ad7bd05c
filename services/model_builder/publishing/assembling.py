"""Puts the traits of a build together: one row per user, one column per trait, in a table of the build's own."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from libs.warehouse import NotFound, Warehouse
from services.model_builder.domain import (
    KEY,
    ROW_HASH,
    Blueprint,
    Failure,
    Trait,
    TraitType,
    check_columns,
    value_type,
)

_USERS = "traitmesh.users"


@dataclass(frozen=True)
class CompiledAudience:
    """An audience as SQL: a SELECT of its members' user_ord, and the columns that it reads."""

    audience: str
    sql: str
    columns: tuple[str, ...]


#: Compiles audiences over a table of users that has these traits: (audiences, traits, table).
Compile = Callable[[Sequence[str], Sequence[str], str], Sequence[CompiledAudience]]


def audit_tables(warehouse: Warehouse, traits: Sequence[Trait], keys: Mapping[str, str]) -> list[Failure]:
    """What is wrong with the tables that traits are read from: absent, a column's type, or the key.

    `keys` names the column of the user's id by table; where it is silent that is `user_id`.
    """
    failures: list[Failure] = []
    types: dict[str, dict[str, str]] = {}
    for table in sorted({trait.table for trait in traits}):
        try:
            types[table] = {column.name: column.type for column in warehouse.describe(table)}
        except NotFound:
            failures += _for_each(
                traits, table, "table", f"{table} does not exist after the run; is its model enabled?"
            )
            continue
        reason = _audit_key(warehouse, table, keys.get(table, KEY), types[table])
        if reason:
            failures += _for_each(traits, table, "key", reason)
    return failures + check_columns([trait for trait in traits if trait.table in types], types)


def _audit_key(warehouse: Warehouse, table: str, key: str, columns: Mapping[str, str]) -> str:
    if key not in columns:
        return f"{table} has no column {key}, which its meta calls the key"
    column = warehouse.quote(key)
    counted = warehouse.query(
        f"SELECT count(*) AS total, count({column}) AS present, count(DISTINCT {column}) AS users"
        f" FROM {warehouse.table(table)}"
    )
    [row] = counted.read_all().to_pylist()
    absent, repeated = row["total"] - row["present"], row["present"] - row["users"]
    if absent or repeated:
        return f"{table} must have one row per {key}, but it is null in {absent} rows and repeated in {repeated}"
    return ""


def _for_each(traits: Sequence[Trait], table: str, contract: str, reason: str) -> list[Failure]:
    return [Failure(trait.id, contract, reason) for trait in traits if trait.table == table]


def base_select(warehouse: Warehouse, traits: Sequence[Trait], keys: Mapping[str, str]) -> str:
    """A SELECT of every user with these stored traits: user_id, user_ord, a column per trait; null for no value."""
    quote = warehouse.quote
    tables = sorted({trait.table for trait in traits})
    alias = {table: f"t{number}" for number, table in enumerate(tables)}
    types = {table: {column.name: column.type for column in warehouse.describe(table)} for table in tables}
    columns = ["u.user_id", "u.user_ord"]
    for trait in traits:
        value = f"{alias[trait.table]}.{quote(trait.field)}"
        columns.append(f"{_value(trait.type, value, types[trait.table][trait.field])} AS {quote(trait.id)}")
    joins = "".join(
        f" LEFT JOIN {warehouse.table(table)} AS {alias[table]}"
        f" ON CAST({alias[table]}.{quote(keys.get(table, KEY))} AS VARCHAR) = u.user_id"
        for table in tables
    )
    return f"SELECT {', '.join(columns)} FROM {warehouse.table(_USERS)} AS u{joins}"


def _value(trait: TraitType, value: str, kind: str) -> str:
    cast = f"CAST({value} AS {value_type(trait, kind)})"
    if value_type(trait, kind) != "DOUBLE PRECISION":
        return cast
    # Infinity and NaN are no values: subtracted from themselves they do not give zero.
    return f"CASE WHEN {cast} - {cast} = 0 THEN {cast} END"


def stage(blueprint: Blueprint, level: int) -> str:
    """The build's table of users with `level` rounds of audiences decided."""
    return f"{blueprint.table}_{level}"


def create_anew(warehouse: Warehouse, table: str, sql: str) -> int:
    """Makes the table the result of a SELECT, whatever an earlier attempt left, and returns its number of rows."""
    with warehouse.transaction() as transaction:
        transaction.drop(table)
        transaction.create_table_as(table, sql)
        counted = transaction.query(f"SELECT count(*) AS n FROM {warehouse.table(table)}").read_all()
    return int(counted["n"][0].as_py())


def decide(warehouse: Warehouse, blueprint: Blueprint, compile_audiences: Compile) -> str:
    """Adds the audiences to the build's table, each a boolean column, and returns the last of its tables.

    Audiences that wait for no other are decided together; each round is a table of its own, so that the next one's
    rules find the columns of those before.
    """
    level, table = 0, stage(blueprint, 0)
    present = [trait.id for trait in blueprint.stored]
    waiting = [trait.id for trait in blueprint.decided]
    while waiting:
        compiled = compile_audiences(waiting, present, table)
        ready = [audience for audience in compiled if not _refers(audience, table, waiting)]
        if not ready:
            raise ValueError("audiences refer to each other in a circle")
        level += 1
        create_anew(warehouse, stage(blueprint, level), _with_members(warehouse, table, ready))
        table = stage(blueprint, level)
        present += [audience.audience for audience in ready]
        waiting = [audience for audience in waiting if audience not in present]
    return table


def _refers(audience: CompiledAudience, table: str, waiting: Sequence[str]) -> bool:
    return any(f"{table}.{other}" in audience.columns for other in waiting)


def _with_members(warehouse: Warehouse, table: str, audiences: Sequence[CompiledAudience]) -> str:
    flags, joins = [], []
    for number, audience in enumerate(audiences):
        flags.append(f"m{number}.user_ord IS NOT NULL AS {warehouse.quote(audience.audience)}")
        joins.append(f"LEFT JOIN ({audience.sql}) AS m{number} ON m{number}.user_ord = s.user_ord")
    return f"SELECT s.*, {', '.join(flags)} FROM {warehouse.table(table)} AS s {' '.join(joins)}"


def final_select(warehouse: Warehouse, blueprint: Blueprint, table: str) -> str:
    """The model's columns in the revision's order, and the hash by which a changed row is known."""
    columns = [KEY, "user_ord", *(trait.id for trait in blueprint.traits)]
    listed = ", ".join(warehouse.quote(column) for column in columns)
    return f"SELECT {listed}, {warehouse.row_hash(columns)} AS {ROW_HASH} FROM {warehouse.table(table)}"
