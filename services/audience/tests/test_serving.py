"""What goes wrong in the warehouse, as callers are told."""

import pytest

from libs.kit import errors
from libs.warehouse import Limits, NotFound, QueryError, Unavailable, open_warehouse
from services.audience.serving import ServingModel, faults
from services.audience.tests import population

ENDLESS = {
    "ducklake": "SELECT count(*) AS n FROM range(1000000000000)",
    "postgresql": "SELECT count(*) AS n FROM generate_series(1, 1000000000000)",
}


@pytest.mark.parametrize("engine", ["ducklake", "postgresql"])
@pytest.mark.usefixtures("loaded")
def test_a_question_that_takes_too_long_ends(urls: dict[str, str], engine: str) -> None:
    warehouse = open_warehouse(urls[engine], "worlds", Limits(seconds=0.2), read_only=True)
    target = population.target(warehouse, warehouse.dialect, 0)
    model = ServingModel("workspaces/worlds/builds/1", population.AS_OF, {}, target, warehouse)
    with pytest.raises(errors.LimitExceeded, match="ask for less") as caught:
        model.ask(ENDLESS[engine])
    assert caught.value.metadata == {"limit": "query_seconds"}


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (NotFound("table x"), errors.NotReady),
        (Unavailable("gone"), errors.Unavailable),
        (QueryError("bug"), QueryError),
    ],
)
def test_faults_say_whose_turn_it_is(raised: Exception, told: type[Exception]) -> None:
    with pytest.raises(told), faults():
        raise raised
