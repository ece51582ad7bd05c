"""What a manifest declares, and how mistakes are told."""

from typing import Any

import pytest

from libs.kit import errors
from services.model_builder.dbt_project.declaration import read_declaration
from services.model_builder.domain import DeclaredTrait, TraitType

KEY = {"traitmesh": {"entity": "user", "key": "user_id"}}


def manifest(
    columns: dict[str, Any], meta: dict[str, Any] = KEY, *, top_level: bool = False, **node: Any
) -> dict[str, Any]:
    def with_meta(value: dict[str, Any]) -> dict[str, Any]:
        return {"meta": value, "config": {}} if top_level else {"meta": {}, "config": {"meta": value}}

    model = {
        **with_meta(meta),
        "resource_type": "model",
        "name": "user_traits",
        "schema": "dbt",
        "alias": "user_traits",
        "original_file_path": "models/user_traits.sql",
        "patch_path": "tusk://models/traits.yml",
        "columns": {name: {"description": "It.", **with_meta(value)} for name, value in columns.items()},
    }
    model["config"] = {**model["config"], "materialized": "table"}
    return {"nodes": {"model.tusk.user_traits": model | node}}


def trait(**fields: Any) -> dict[str, Any]:
    return {"traitmesh": {"trait": {"type": "continuous"} | fields}}


@pytest.mark.parametrize("top_level", [False, True])
def test_traits_are_read_from_either_place(top_level: bool) -> None:
    found = read_declaration(manifest({"user_id": {}, "ltv": trait(unit="USD")}, top_level=top_level))
    assert found.keys == {"dbt.user_traits": "user_id"}
    assert found.traits == (DeclaredTrait("ltv", TraitType.CONTINUOUS, "", "It.", "USD", "dbt.user_traits.ltv"),)


@pytest.mark.parametrize(
    ("columns", "meta", "node", "said"),
    [
        ({"ltv": trait(type="number")}, KEY, {}, "column ltv: meta.traitmesh.trait.type must be one of boolean, "),
        ({"ltv": trait(units="USD")}, KEY, {}, "column ltv: meta.traitmesh.trait has no units; it has display_name,"),
        ({"ltv": trait(unit=3)}, KEY, {}, "column ltv: meta.traitmesh.trait.unit must be text"),
        ({"LTV": trait()}, KEY, {}, "column LTV: a trait's id has"),
        ({"user_ord": trait()}, KEY, {}, "column user_ord: user_ord is a column of every model"),
        ({"ltv": {"traitmesh": "yes"}}, KEY, {}, "column ltv: meta.traitmesh must be a mapping of trait"),
        ({"ltv": trait()}, {}, {}, "its columns declare traits, so its meta must have traitmesh"),
        ({}, {"traitmesh": {"entity": "account", "key": "id"}}, {}, "meta.traitmesh.entity must be user"),
        ({}, {"traitmesh": {"entity": "user"}}, {}, "meta.traitmesh.key must name the column"),
        ({"ltv": trait()}, KEY, {"schema": "dbt_marts"}, "must lie in the schema dbt, not dbt_marts"),
    ],
)
def test_mistakes_are_told_with_their_place(
    columns: dict[str, Any], meta: dict[str, Any], node: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.InvalidSource) as caught:
        read_declaration(manifest(columns, meta, **node))
    assert caught.value.message.startswith("models/traits.yml, model user_traits")
    assert said in caught.value.message


def test_two_models_cannot_declare_one_trait() -> None:
    nodes = manifest({"ltv": trait()})["nodes"]
    other = {"model.tusk.more": nodes["model.tusk.user_traits"] | {"name": "more", "alias": "more"}}
    with pytest.raises(errors.InvalidSource, match=r"model user_traits, column ltv: dbt.more.ltv declares it too"):
        read_declaration({"nodes": nodes | other})
