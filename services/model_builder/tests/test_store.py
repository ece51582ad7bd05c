"""The schema, and what the store keeps apart."""

from sqlalchemy import func, select

from libs.kit.testing import schema_differences
from services.model_builder.store import profiles
from services.model_builder.store.tables import metadata
from services.model_builder.store.tables import profiles as profile_table
from services.model_builder.tests.conftest import World


def test_the_store_declares_what_the_migrations_make(world: World) -> None:
    assert schema_differences(world.engine, metadata) == []


def test_profiles_change_together_and_keep_to_their_workspace(world: World) -> None:
    with world.engine.begin() as tx:
        assert profiles.apply(tx, "one", [("ana", b"1"), ("bo", b"1")]) == 2
    with world.engine.begin() as tx:
        profiles.apply(tx, "two", [("ana", b"2")])
    with world.engine.begin() as tx:
        assert profiles.apply(tx, "one", [("ana", b"3"), ("bo", None), ("cy", b"3")]) == 3
    with world.engine.begin() as tx:
        mine = profile_table.c.workspace.in_(["one", "two"])
        query = select(profile_table.c.workspace, profile_table.c.user_id, profile_table.c.body).where(mine)
        found = {(row.workspace, row.user_id): bytes(row.body) for row in tx.execute(query)}
        assert found == {("one", "ana"): b"3", ("one", "cy"): b"3", ("two", "ana"): b"2"}
        profiles.clear(tx, "one")
        assert tx.execute(select(func.count()).where(mine)).scalar_one() == 1
