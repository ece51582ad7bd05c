"""The dbt target of a workspace points at its schema and holds no secret."""

import json

from libs.warehouse import Limits, Warehouse, open_warehouse, provision_workspace


def secret_url(urls: dict[str, str], engine: str) -> str:
    return urls[engine].replace("postgres:@/", "postgres:hunter2@/")


def test_the_target_reads_its_secret_from_the_environment(urls: dict[str, str]) -> None:
    for engine in urls:
        url = secret_url(urls, engine)
        provision_workspace(url, "acme")
        profile = open_warehouse(url, "acme").dbt_profile()
        assert "hunter2" not in json.dumps(profile.target)
        assert "{{ env_var('DBT_ENV_SECRET_WAREHOUSE') }}" in json.dumps(profile.target)
        assert "hunter2" in profile.environment["DBT_ENV_SECRET_WAREHOUSE"]


def test_a_lake_is_attached_under_its_alias(urls: dict[str, str], lake: Warehouse) -> None:
    target = open_warehouse(urls["ducklake"], "acme", Limits(memory="700MB", threads=3)).dbt_profile().target
    attached = target["attach"][0]
    assert (target["type"], target["database"], target["schema"], target["threads"]) == ("duckdb", "lake", "dbt", 1)
    assert target["settings"]["threads"] == 3
    assert target["settings"]["memory_limit"] == "700MB"
    assert (attached["alias"], attached["is_ducklake"]) == ("lake", True)
    assert attached["options"]["META_SCHEMA"] == "lake_acme"


def test_the_schemas_as_stored_are_named(warehouse: Warehouse) -> None:
    profile = warehouse.dbt_profile()
    stored = {"duckdb": ("dbt", "traitmesh"), "postgres": ("acme__dbt", "acme__traitmesh")}[warehouse.dialect.sqlglot]
    assert (profile.target["schema"], profile.environment["TRAITMESH_SCHEMA"]) == stored
