"""Reads the trait that a notebook declares out of its metadata.

`metadata.traitmesh`: `{"trait": {"id", "type", "display_name"?, "description"?, "unit"?}, "inputs": ["dbt.<table>"]}`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from libs.kit import errors, names
from services.model_builder.domain import RESERVED_COLUMNS, DeclaredTrait, TraitType

MAX_NOTEBOOK_BYTES = 4 << 20
MAX_INPUTS = 50
FIELD = "content.data"

_TABLE = re.compile(r"(dbt|traitmesh)\.[A-Za-z_][A-Za-z0-9_]{0,62}")
_TEXTS = ("display_name", "description", "unit")


@dataclass(frozen=True)
class Notebook:
    """A notebook without outputs, the trait that it predicts and the tables that it reads."""

    content: bytes
    trait: DeclaredTrait
    inputs: tuple[str, ...]


def predictions_table(trait: str) -> str:
    """Where the values of a predicted trait lie: user_id and value."""
    return f"predicted.{trait}"


def read_notebook(content: bytes) -> Notebook:
    """Reads a notebook (nbformat 4). Raises InvalidArgument that tells the path of everything that is wrong."""
    if len(content) > MAX_NOTEBOOK_BYTES:
        raise errors.LimitExceeded(f"a notebook may have {MAX_NOTEBOOK_BYTES} bytes", limit="notebook_bytes")
    try:
        notebook = orjson.loads(content)
    except ValueError as error:
        raise errors.invalid(FIELD, "must be a Jupyter notebook, which is JSON") from error
    mistakes = list(_mistakes(notebook))
    if mistakes:
        raise errors.InvalidArgument(*(errors.Violation(FIELD, mistake) for mistake in mistakes))
    declared = notebook["metadata"]["traitmesh"]
    trait = declared["trait"]
    return Notebook(
        content=_without_outputs(notebook),
        trait=DeclaredTrait(
            id=trait["id"],
            type=TraitType(trait["type"]),
            column=f"{predictions_table(trait['id'])}.value",
            **{text: trait.get(text, "") for text in _TEXTS},
        ),
        inputs=tuple(dict.fromkeys(declared.get("inputs", []))),
    )


def _mistakes(notebook: Any) -> Iterator[str]:
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
        yield "nbformat must be 4"
        return
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        yield "cells must be a list of objects"
    metadata = notebook.get("metadata")
    declared = metadata.get("traitmesh") if isinstance(metadata, dict) else None
    if not isinstance(declared, dict):
        yield 'metadata.traitmesh must be an object: {"trait": {"id": ..., "type": ...}, "inputs": [...]}'
        return
    yield from _unknown(declared, {"trait", "inputs"}, "metadata.traitmesh")
    yield from _trait_mistakes(declared.get("trait"))
    yield from _input_mistakes(declared.get("inputs", []))


def _trait_mistakes(trait: Any) -> Iterator[str]:
    place = "metadata.traitmesh.trait"
    if not isinstance(trait, dict):
        yield f"{place} must be an object with id and type"
        return
    yield from _unknown(trait, {"id", "type", *_TEXTS}, place)
    name = trait.get("id")
    if not isinstance(name, str) or not names.COLUMN_ID.fullmatch(name):
        yield f"{place}.id must be 1 to 60 lower-case letters, digits and underscores, a letter first"
    elif name in RESERVED_COLUMNS:
        yield f"{place}.id: {name} is a column of every model; choose another id"
    if not isinstance(trait.get("type"), str) or trait["type"] not in set(TraitType):
        yield f"{place}.type must be one of {', '.join(TraitType)}"
    for text in _TEXTS:
        if not isinstance(trait.get(text, ""), str) or len(trait.get(text, "")) > 2000:
            yield f"{place}.{text} must be text of at most 2000 characters"


def _input_mistakes(inputs: Any) -> Iterator[str]:
    place = "metadata.traitmesh.inputs"
    if not isinstance(inputs, list) or len(inputs) > MAX_INPUTS:
        yield f"{place} must be a list of at most {MAX_INPUTS} tables"
        return
    for number, table in enumerate(inputs):
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            yield f"{place}[{number}] must be a table of the schemas dbt or traitmesh, such as dbt.user_days"


def _unknown(found: dict[str, Any], known: set[str], place: str) -> Iterator[str]:
    for key in sorted(found.keys() - known)[:5]:
        yield f"{place} has no {key[:60]}; it has {', '.join(sorted(known))}"


def _without_outputs(notebook: dict[str, Any]) -> bytes:
    """The notebook as it is kept: outputs show rows of users."""
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code":
            cell |= {"outputs": [], "execution_count": None}
        cell.pop("attachments", None)
    return orjson.dumps(notebook)
