"""Column lineage of the shapes that dbt models have."""

# ruff: noqa: E501  (a golden is one line)

import pytest

from services.model_builder.lineage.columns import Untraceable, trace
from services.model_builder.lineage.edges import project_edges

TABLES = {
    "traitmesh.events": {"user_id": "VARCHAR", "name": "VARCHAR", "time": "TIMESTAMP", "value": "DOUBLE"},
    "traitmesh.users": {"user_id": "VARCHAR", "user_ord": "BIGINT"},
}

#: SQL; then by output column its inputs, "?" behind those that only decide; then what decides about the rows.
GOLDENS = [
    ("select user_id, value * 2 as v from {e}", {"user_id": "e.user_id", "v": "e.value"}, ""),
    ("select * from {u}", {"user_id": "u.user_id", "user_ord": "u.user_ord"}, ""),
    ("select * exclude (time, value) from {e}", {"user_id": "e.user_id", "name": "e.name"}, ""),
    ("select user_id from {e} where time > '2026-01-01'", {"user_id": "e.user_id"}, "e.time"),
    ("select count(*) as n from {e} group by user_id", {"n": "e.user_id?"}, "e.user_id"),
    ("select count(1) + 1 as n from {e} where time > '2026-01-01'", {"n": "e.time?"}, "e.time"),
    ("select count(*) filter (where name = 'a') as n from {e} group by user_id", {"n": "e.name? e.user_id?"}, "e.user_id"),
    ("select count(distinct user_id) as n from {e} where name = 'a'", {"n": "e.user_id"}, "e.name"),
    ("select count(*) as n from {e} group by user_id having count(*) > 1", {"n": "e.user_id?"}, "e.user_id"),
    ("select count(*) as n from (select distinct user_id, name from {e})", {"n": "e.name? e.user_id?"}, "e.name e.user_id"),
    (
        "with m as (select max(time) as t from {e}), r as (select e.user_id, count(*) as n from {e} as e cross join m where e.time >= m.t group by e.user_id) select coalesce(r.n, 0) as n from {u} as u left join r using (user_id)",
        {"n": "e.time? e.user_id?"},
        "e.time e.user_id u.user_id",
    ),
    ("select user_id, sum(value) as v from {e} group by all", {"user_id": "e.user_id", "v": "e.value"}, "e.user_id"),
    ("select case when name = 'a' then value end as v from {e}", {"v": "e.name? e.value"}, ""),
    ("select sum(value) filter (where name = 'a') as v from {e}", {"v": "e.name? e.value"}, ""),
    ("select max_by(name, time) as v from {e}", {"v": "e.name e.time"}, ""),
    ("select row_number() over (partition by user_id order by time) as v from {e}", {"v": "e.time? e.user_id?"}, ""),
    ("select u.user_ord from {u} as u join {e} as e on u.user_id = e.user_id", {"user_ord": "u.user_ord"}, "e.user_id u.user_id"),
    ("select user_ord from {u} join {e} using (user_id)", {"user_ord": "u.user_ord"}, "e.user_id u.user_id"),
    ("with a as (select name as n from {e}), b as (select n as m from a) select m from b", {"m": "e.name"}, ""),
    ("select v from (select value as v from {e} where name = 'a')", {"v": "e.value"}, "e.name"),
    ("select user_id as a from {e} union all select user_id from {u}", {"a": "e.user_id u.user_id"}, ""),
    ("select (select max(time) from {e}) as newest from {u}", {"newest": "e.time"}, ""),
    ("select user_id from {u} where user_id in (select user_id from {e})", {"user_id": "u.user_id"}, "e.user_id u.user_id"),
    ("select t.x from {e} as e, unnest([e.name]) as t(x)", {"x": "e.name"}, ""),
    ("select list_transform([name], x -> x || user_id) as v from {e}", {"v": "e.name e.user_id"}, ""),
    ("from {u}", {"user_id": "u.user_id", "user_ord": "u.user_ord"}, ""),
    ("select a from (values ('x')) as t(a)", {"a": ""}, ""),
    ("select user_id, time from {e} qualify row_number() over (order by value) = 1", {"user_id": "e.user_id", "time": "e.time"}, "e.value"),
]  # fmt: skip


def shown(inputs: object) -> str:
    marks = {f"{each.table.split('.')[1][0]}.{each.column}{'' if each.direct else '?'}" for each in inputs}  # type: ignore[attr-defined]
    return " ".join(sorted(marks))


@pytest.mark.parametrize(("sql", "columns", "rows"), GOLDENS)
def test_shapes(sql: str, columns: dict[str, str], rows: str) -> None:
    found = trace(sql.format(e="lake.traitmesh.events", u='"lake"."traitmesh"."users"'), "duckdb", TABLES)
    assert {name: shown(inputs) for name, inputs in found.columns.items()} == columns
    assert shown(found.rows).replace("?", "") == rows


@pytest.mark.parametrize(
    "sql",
    [
        "select user_id from {e} natural join {u}",
        "select columns('user.*') from {e}",
        "pivot {e} on name using sum(value)",
        "select user_id, name from {e} union all by name select 'x' as name, user_id from {u}",
        "with recursive r as (select user_id, 1 as n from {u} union all select user_id, n + 1 from r) select * from r",
        "select 1 +",
        "drop table {e}",
        "",
    ],
)
def test_what_cannot_be_traced_surely_is_not_guessed(sql: str) -> None:
    with pytest.raises(Untraceable):
        trace(sql.format(e="lake.traitmesh.events", u="lake.traitmesh.users"), "duckdb", TABLES)


@pytest.mark.parametrize(
    ("sql", "partial"), [("select user_id from lake.traitmesh.users", False), ("from {{", True), (None, True)]
)
def test_a_model_that_cannot_be_traced_has_arrows_between_tables(sql: str | None, partial: bool) -> None:
    model = {
        "resource_type": "model",
        "unique_id": "model.m",
        "schema": "dbt",
        "alias": "m",
        "name": "m",
        "config": {"materialized": "table"},
        "compiled_code": sql,
    }
    source = {"schema": "traitmesh", "identifier": "users", "name": "users"}
    manifest = {"nodes": {"model.m": model}, "sources": {"source.s": source}, "parent_map": {"model.m": ["source.s"]}}
    known = TABLES | {"dbt.m": {"user_id": "VARCHAR"}}
    [edge] = project_edges(manifest, "duckdb", known.get)
    assert (edge.input_table, edge.output_table, edge.partial) == ("traitmesh.users", "dbt.m", partial)
    assert edge.output_column == ("" if partial else "user_id")
