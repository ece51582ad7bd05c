"""Profiles: what the build that serves says of each user, ready to be sent."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, text

from services.model_builder.domain import State
from services.model_builder.store.tables import builds, profiles

#: A user's id and body; None for a user who is gone.
Change = tuple[str, bytes | None]


def find_profile(tx: Connection, workspace: str, user_id: str) -> Row[Any] | None:
    """A user's body with the build that serves and its age, in one statement, so that they belong together."""
    serving = (
        select(builds.c.number, builds.c.model_revision, builds.c.as_of, builds.c.end_time)
        .where(builds.c.workspace == workspace, builds.c.state == State.SUCCEEDED)
        .order_by(builds.c.number.desc())
        .limit(1)
        .subquery()
    )
    age = func.extract("epoch", func.now() - serving.c.end_time).label("age")
    query = select(profiles.c.body, serving.c.number, serving.c.model_revision, serving.c.as_of, age).join_from(
        profiles, serving, text("true")
    )
    return tx.execute(query.where(profiles.c.workspace == workspace, profiles.c.user_id == user_id)).first()


def clear(tx: Connection, workspace: str) -> None:
    """Removes every profile of the workspace."""
    tx.execute(delete(profiles).where(profiles.c.workspace == workspace))


def apply(tx: Connection, workspace: str, changes: Iterable[Change]) -> int:
    """Writes changed profiles and removes those of users who are gone; readers see all of it once `tx` commits.

    Returns how many users changed.
    """
    tx.execute(text("CREATE TEMPORARY TABLE changed (user_id text PRIMARY KEY, body bytea) ON COMMIT DROP"))
    driver = tx.connection.dbapi_connection
    count = 0
    with driver.cursor() as cursor, cursor.copy("COPY changed FROM STDIN") as copy:  # type: ignore[union-attr]
        for change in changes:
            copy.write_row(change)
            count += 1
    tx.execute(
        text(
            "DELETE FROM model.profiles AS p USING changed AS c"
            " WHERE p.workspace = :workspace AND p.user_id = c.user_id AND c.body IS NULL"
        ),
        {"workspace": workspace},
    )
    tx.execute(
        text(
            "INSERT INTO model.profiles (workspace, user_id, body)"
            " SELECT :workspace, user_id, body FROM changed WHERE body IS NOT NULL"
            " ON CONFLICT (workspace, user_id) DO UPDATE SET body = excluded.body"
        ),
        {"workspace": workspace},
    )
    return count
