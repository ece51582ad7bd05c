"""Small worlds of users and events: the cases in cases/*.yaml, and a random one, loaded into a warehouse together."""

import json
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from libs.warehouse import Dialect, Warehouse
from services.audience.compiler.target import Target
from services.audience.domain import TraitType

AS_OF = datetime(2026, 3, 10, 12, tzinfo=UTC)
TRAITS = {
    "country": TraitType.CATEGORICAL,
    "plan": TraitType.CATEGORICAL,
    "ltv": TraitType.CONTINUOUS,
    "level": TraitType.CONTINUOUS,
    "payer": TraitType.BOOLEAN,
    "whales": TraitType.BOOLEAN,
}
ARROW = {
    **dict.fromkeys(("country", "plan"), pa.string()),
    "ltv": pa.float64(),
    "level": pa.int64(),
    "payer": pa.bool_(),
    "whales": pa.bool_(),
}
USERS_TABLE = "worlds.users"
UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}


@dataclass
class World:
    """Users who know nothing of other worlds: their traits and their events, by name."""

    name: str
    content: dict[str, Any]
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@cache
def cases() -> list[World]:
    """Every case, in the order of files."""
    worlds = []
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml")):
        for content in yaml.safe_load(path.read_text()):
            world = World(f"{path.stem}: {content['case']}", content, dict(content.get("users", {})))
            for user, written in content.get("events", {}).items():
                world.users.setdefault(user, {})
                world.events[user] = [_event(line, f"{user}{n}") for n, line in enumerate(written)]
            worlds.append(world)
    return worlds


def _event(written: str | dict[str, Any], event_id: str) -> dict[str, Any]:
    """`play -1h` or `{play: -1h, se_value: 3}`; an id of its own as `event_id`."""
    if isinstance(written, str):
        name, _, at = written.partition(" ")
        return {"event_id": event_id, "name": name, "time": offset(at)}
    (name, at), *properties = written.items()
    return {"event_id": event_id, "name": name, "time": offset(at), **dict(properties)}


def offset(text: str | int) -> int:
    """Microseconds from as_of: `-1d12h`, `+1us`, `0`."""
    sign = -1 if str(text).startswith("-") else 1
    return sign * sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(us|[dhms])", str(text)))


@cache
def random_world() -> World:
    """300 users with up to 9 events each, at times so few that ties are everywhere."""
    dice = random.Random(8)
    world = World("random", {})
    for number in range(300):
        user = f"u{number}"
        world.users[user] = {trait: dice.choice(VALUES[trait]) for trait in TRAITS}
        times = range(-dice.choice([3, 8, 40]), 3)
        world.events[user] = [_random_event(dice, dice.choice(times)) for _ in range(dice.randrange(10))]
        for event_number, event in enumerate(world.events[user]):
            event["event_id"] = f"{dice.choice('aZbé')}-{number}-{event_number}"
    return world


VALUES: dict[str, list[Any]] = {
    "country": [None, "", "DE", "AT", "O'Neil", "dé\\n"],
    "plan": [None, "free", "pro"],
    "ltv": [None, float("nan"), -1.5, 0.0, 0.1, 5.0, 1e300],
    "level": [None, 0, 1, 2, 9_007_199_254_740_993],
    "payer": [None, True, False],
    "whales": [True, False],
}
EVENT_NAMES = ["view", "cart", "buy"]


def _random_event(dice: random.Random, hours: int) -> dict[str, Any]:
    level = dice.choice([None, 1, 2, 2.5, "2", True])
    return {
        "name": dice.choice(EVENT_NAMES),
        "time": hours * UNITS["h"],
        "se_value": dice.choice([None, float("nan"), 1.0, 2.0]),
        "platform": dice.choice([None, "", "web", "ios"]),
        "contexts": dice.choice([None, {"player_1": []}, {"player_1": [{"level": level}, {"level": 9}]}]),
        "unstruct_event": dice.choice([None, {"deal_1": {"level": level}}]),
    }


def load(warehouse: Warehouse, worlds: list[World]) -> None:
    """Writes the worlds into the events of the warehouse and one table of users, in one transaction."""
    users: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for number, world in enumerate(worlds):
        for user, traits in world.users.items():
            users.append({"world": number, "user_ord": len(users), "user_id": user, **traits})
            events += [_row(event, users[-1]) for event in world.events.get(user, [])]
    kinds = {pa.string(): "TEXT", pa.float64(): "DOUBLE PRECISION", pa.int64(): "BIGINT", pa.bool_(): "BOOLEAN"}
    schema = pa.schema({"world": pa.int64(), "user_ord": pa.int64(), "user_id": pa.string(), **ARROW})
    columns = ", ".join(f'CAST(NULL AS {kinds[kind.type]}) AS "{kind.name}"' for kind in schema)
    with warehouse.transaction() as transaction:
        transaction.create_table_as(USERS_TABLE, f"SELECT {columns} WHERE FALSE")
        transaction.append(USERS_TABLE, pa.Table.from_pylist(users, schema))
        transaction.append("traitmesh.events", pa.Table.from_pylist(events, EVENT_SCHEMA))


EVENT_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("event_id", "name", "user_id", "platform", "se_category", "se_action"), pa.string()),
        "user_ord": pa.uint32(),
        "time": pa.timestamp("us"),
        "se_value": pa.float64(),
        "contexts": pa.string(),
        "unstruct_event": pa.string(),
    }
)


def _row(event: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    time = (AS_OF + timedelta(microseconds=event["time"])).replace(tzinfo=None)
    documents = {
        column: None if event.get(column) is None else json.dumps(event[column])
        for column in ("contexts", "unstruct_event")
    }
    return {**event, **documents, "time": time, "user_ord": user["user_ord"], "user_id": user["user_id"]}


def target(warehouse: Warehouse, dialect: Dialect, number: int) -> Target:
    """What to compile for to see one world."""
    users = f"(SELECT * FROM {warehouse.table(USERS_TABLE)} WHERE world = {number})"
    return Target.of(dialect, users, warehouse.table("traitmesh.events"), AS_OF)
