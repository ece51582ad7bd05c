"""A small company for tests: three users, a dbt project of one model, an audience, a notebook."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from services.model_builder.tests.conftest import archive_of

PROJECT = {
    "dbt_project.yml": "{name: mini, version: '1.0', config-version: 2, profile: own, models: {+materialized: table}}",
    "models/sources.yml": "sources: [{name: traitmesh, database: lake, schema: traitmesh, tables: [{name: events}]}]",
    "models/mini_traits.sql": """
        select
            user_id,
            count(*) as actions,
            count(*) > 1 as is_active,
            max(name) as last_action
        from {{ source('traitmesh', 'events') }}
        where time <= cast('{{ var("as_of") }}' as timestamp)
        group by user_id
    """,
}
TYPES = {"actions": "continuous", "is_active": "boolean", "last_action": "categorical"}


def schema(tests: Mapping[str, Sequence[Any]] | None = None, **types: str) -> str:
    """The schema.yml of the project, with these tests by column and types in the place of the right ones."""
    columns: list[dict[str, Any]] = [{"name": "user_id", "data_tests": ["unique", "not_null"]}]
    for column, kind in (TYPES | types).items():
        meta = {"traitmesh": {"trait": {"type": kind}}}
        columns.append({"name": column, "config": {"meta": meta}, "data_tests": list((tests or {}).get(column, []))})
    model = {"name": "mini_traits", "columns": columns}
    return json.dumps({"models": [model | {"config": {"meta": {"traitmesh": {"entity": "user", "key": "user_id"}}}}]})


def archive(tests: Mapping[str, Sequence[Any]] | None = None, **types: str) -> bytes:
    """The project's archive."""
    return archive_of(PROJECT | {"models/mini_traits.yml": schema(tests, **types)})


def event(user: str, number: int, **fields: Any) -> dict[str, Any]:
    """One event of a user, as a tracker sends it."""
    common = {"app_id": "mini", "platform": "mob", "event_name": "event", "se_category": "click"}
    times = {"derived_tstamp": f"2026-06-0{1 + number % 9}T10:00:00.000Z"}
    return common | times | {"event_id": f"{user}-{number}", "user_id": user} | fields


def lines(*events: Mapping[str, Any]) -> bytes:
    """Events as newline JSON."""
    return b"\n".join(json.dumps(event).encode() for event in events)


EVENTS = [event("ana", 1), event("ana", 2), event("bo", 1, se_category="open"), event("cy", 1)]


def notebook(trait: str = "score", code: str = "", **metadata: Any) -> bytes:
    """A notebook that scores users by what they did."""
    source = code or (
        "from traitmesh.notebook import log_metric, publish_trait, read_model\n"
        "frame = read_model(['actions']).dropna()\n"
        "frame['score'] = frame['actions'] * 1.5\n"
        "log_metric('n', len(frame))\n"
        "publish_trait('score', frame[['user_id', 'score']])"
    )
    declared = {"trait": {"id": trait, "type": "continuous"}, "inputs": []} | metadata
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    described = {"kernelspec": kernel, "traitmesh": declared}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": [cell], "metadata": described}).encode()
