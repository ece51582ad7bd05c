"""What an engine says it cannot do, it refuses by a precise error."""

from collections.abc import Callable

import pytest

from libs.warehouse import QueryError, Unsupported, Warehouse

ASKED: dict[str, list[Callable[[Warehouse], object]]] = {
    "snapshots": [lambda w: w.snapshot(), lambda w: w.table("traitmesh.users", at=1)],
    "changes": [lambda w: w.changes("traitmesh.users", 0, 1, "user_id")],
    "commit_messages": [lambda w: w.snapshot_of("build 7")],
}


@pytest.mark.parametrize("capability", ASKED)
def test_a_capability_holds_or_is_refused(warehouse: Warehouse, capability: str) -> None:
    with warehouse.transaction("a message is always accepted"):
        pass
    for ask in ASKED[capability]:
        if getattr(warehouse.capabilities, capability):
            ask(warehouse)
        else:
            with pytest.raises(Unsupported) as raised:
                ask(warehouse)
            assert raised.value.capability == capability


def test_asof_joins_exist_where_the_dialect_says_so(warehouse: Warehouse) -> None:
    sql = "SELECT a.t FROM (SELECT 2 AS t) AS a ASOF JOIN (SELECT 1 AS t) AS b ON a.t >= b.t"
    if warehouse.dialect.asof_join:
        assert warehouse.query(sql).read_all().num_rows == 1
    else:
        with pytest.raises(QueryError):
            warehouse.query(sql)


def test_maintenance_keeps_every_row(warehouse: Warehouse) -> None:
    name = warehouse.table("traitmesh.users")
    count = warehouse.query(f"SELECT count(*) AS n FROM {name}").read_all()
    warehouse.maintain()
    assert warehouse.query(f"SELECT count(*) AS n FROM {name}").read_all() == count
