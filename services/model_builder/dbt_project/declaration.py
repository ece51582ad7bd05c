"""Reads the traits that a project declares out of dbt's manifest (schema v12).

On a model, `config.meta` or `meta`: `traitmesh: {entity: user, key: user_id}`. On its columns: `traitmesh: {trait:
{type: boolean|continuous|categorical, display_name?, unit?}}`; the trait's id is the column's name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from libs.kit import errors, names
from services.model_builder.domain import RESERVED_COLUMNS, Declaration, DeclaredTrait, TraitType

SCHEMA = "dbt"

_TYPES = ", ".join(TraitType)
_MODEL_KEYS = {"entity", "key"}
_TRAIT_KEYS = {"type", "display_name", "unit"}
_PERSISTED = {"table", "incremental", "view"}


def read_declaration(manifest: Mapping[str, Any]) -> Declaration:
    """What the manifest declares. Raises InvalidSource with every mistake, by file, model and column."""
    traits: dict[str, DeclaredTrait] = {}
    keys: dict[str, str] = {}
    mistakes: list[str] = []
    for model in models(manifest):
        try:
            for trait in _read_model(model, keys, mistakes):
                if trait.id in traits:
                    mistakes.append(f"{_place(model)}, column {trait.id}: {traits[trait.id].column} declares it too")
                traits[trait.id] = trait
        except _MistakeError as mistake:
            mistakes.append(f"{_place(model)}: {mistake}")
    if mistakes:
        raise errors.InvalidSource("\n".join(mistakes), tool="dbt")
    return Declaration(tuple(traits[trait] for trait in sorted(traits)), keys)


def models(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The project's models, by unique id."""
    for unique_id in sorted(manifest["nodes"]):
        node = manifest["nodes"][unique_id]
        if node["resource_type"] == "model":
            yield node


def table_of(node: Mapping[str, Any]) -> str:
    """Where a model or source lies, as "schema.table"."""
    return f"{node['schema']}.{node.get('alias') or node.get('identifier') or node['name']}"


class _MistakeError(Exception):
    """A declaration that cannot be understood, and what would be right."""


def _read_model(model: Mapping[str, Any], keys: dict[str, str], mistakes: list[str]) -> Iterator[DeclaredTrait]:
    columns = {name: meta for name, meta in _column_metas(model) if meta is not None}
    declared = _meta(model)
    if declared is None:
        if columns:
            raise _MistakeError("its columns declare traits, so its meta must have traitmesh: {entity: user, key: ...}")
        return
    keys[table_of(model)] = _read_key(model, declared)
    for name, meta in columns.items():
        try:
            yield _read_trait(model, name, meta)
        except _MistakeError as mistake:
            mistakes.append(f"{_place(model)}, column {name}: {mistake}")


def _read_key(model: Mapping[str, Any], declared: Any) -> str:
    _check_mapping(declared, _MODEL_KEYS, "meta.traitmesh")
    if declared.get("entity") != "user":
        raise _MistakeError("meta.traitmesh.entity must be user")
    key = declared.get("key")
    if not isinstance(key, str) or not key:
        raise _MistakeError("meta.traitmesh.key must name the column that holds the user's id")
    if model["config"]["materialized"] not in _PERSISTED:
        raise _MistakeError(f"materialized must be one of {', '.join(sorted(_PERSISTED))} for its traits to be read")
    if model["schema"] != SCHEMA:
        raise _MistakeError(f"its traits must lie in the schema {SCHEMA}, not {model['schema']}: remove +schema")
    return key


def _read_trait(model: Mapping[str, Any], name: str, meta: Any) -> DeclaredTrait:
    _check_mapping(meta, {"trait"}, "meta.traitmesh")
    trait = meta.get("trait")
    _check_mapping(trait, _TRAIT_KEYS, "meta.traitmesh.trait")
    if trait.get("type") not in set(TraitType):
        raise _MistakeError(f"meta.traitmesh.trait.type must be one of {_TYPES}")
    for key in ("display_name", "unit"):
        if not isinstance(trait.get(key, ""), str):
            raise _MistakeError(f"meta.traitmesh.trait.{key} must be text")
    if not names.COLUMN_ID.fullmatch(name):
        raise _MistakeError("a trait's id has 1 to 60 lower-case letters, digits and underscores, a letter first")
    if name in RESERVED_COLUMNS:
        raise _MistakeError(f"{name} is a column of every model; choose another name")
    return DeclaredTrait(
        id=name,
        type=TraitType(trait["type"]),
        display_name=trait.get("display_name", ""),
        description=model["columns"][name]["description"],
        unit=trait.get("unit", ""),
        column=f"{table_of(model)}.{name}",
    )


def _check_mapping(value: Any, known: set[str], place: str) -> None:
    expected = ", ".join(sorted(known))
    if not isinstance(value, dict):
        raise _MistakeError(f"{place} must be a mapping of {expected}")
    unknown = sorted(str(key) for key in value.keys() - known)
    if unknown:
        raise _MistakeError(f"{place} has no {', '.join(unknown)}; it has {expected}")


def _column_metas(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, column in model["columns"].items():
        yield name, _meta(column)


def _meta(node: Mapping[str, Any]) -> Any:
    """What stands under `traitmesh` in config.meta, else in meta; None if nothing does."""
    for meta in (node.get("config", {}).get("meta"), node.get("meta")):
        if isinstance(meta, dict) and "traitmesh" in meta:
            return meta["traitmesh"]
    return None


def _place(model: Mapping[str, Any]) -> str:
    patch = (model.get("patch_path") or model["original_file_path"]).rpartition("://")[2]
    return f"{patch}, model {model['name']}"
