"""The arrows that a build records: from event columns through dbt's tables and the notebooks to the model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.model_builder.dbt_project.declaration import models, table_of
from services.model_builder.domain import MODEL_TABLE, Trait, TraitKind
from services.model_builder.lineage.columns import Tables, Untraceable, trace


@dataclass(frozen=True)
class Edge:
    """One arrow; tables as "schema.table", an empty column for the table as a whole."""

    input_table: str
    input_column: str
    output_table: str
    output_column: str
    direct: bool
    partial: bool = False


#: Tells the columns and types of a table; None if it is not there.
Describe = Callable[[str], Mapping[str, str] | None]


def project_edges(manifest: Mapping[str, Any], dialect: str, describe: Describe) -> list[Edge]:
    """The arrows of a dbt project that has run; partial ones between tables where columns cannot be traced."""
    edges: list[Edge] = []
    for model in models(manifest):
        if model["config"]["materialized"] == "ephemeral":
            continue
        output = table_of(model)
        inputs = sorted(_tables_below(manifest, model["unique_id"]))
        tables = {table: columns for table in inputs if (columns := describe(table)) is not None}
        edges += _model_edges(model, output, inputs, tables, dialect, describe)
    return edges


def _model_edges(
    model: Mapping[str, Any],
    output: str,
    inputs: Sequence[str],
    tables: Tables,
    dialect: str,
    describe: Describe,
) -> list[Edge]:
    try:
        traced = trace(model.get("compiled_code") or "", dialect, tables)
        if list(traced.columns) != list(describe(output) or ()):
            raise Untraceable("other columns than the table has")
    except Untraceable:
        return [Edge(table, "", output, "", direct=True, partial=True) for table in inputs if table != output]
    edges = [Edge(each.table, each.column, output, "", direct=False) for each in traced.rows]
    for column, found in traced.columns.items():
        edges += [Edge(each.table, each.column, output, column, direct=each.direct) for each in found]
    # An incremental model reads itself, which tells nothing about where values come from.
    return sorted((edge for edge in set(edges) if edge.input_table != output), key=_order)


def _order(edge: Edge) -> tuple[str, ...]:
    return (edge.output_column, edge.input_table, edge.input_column, str(edge.direct))


def _tables_below(manifest: Mapping[str, Any], unique_id: str) -> Iterator[str]:
    """The tables that a model reads; those of ephemeral models, which are part of its SQL, in their place."""
    for parent in manifest["parent_map"].get(unique_id, ()):
        node = manifest["sources"].get(parent) or manifest["nodes"][parent]
        if node.get("config", {}).get("materialized") == "ephemeral":
            yield from _tables_below(manifest, parent)
        else:
            yield table_of(node)


def notebook_edges(inputs: Iterable[str], trait: Trait) -> list[Edge]:
    """The arrows of a notebook: what it does with its tables is known to nobody but itself."""
    return [Edge(table, "", trait.table, trait.field, direct=True, partial=True) for table in inputs]


def model_edges(traits: Iterable[Trait]) -> list[Edge]:
    """The arrows into the model's columns from the tables that their values lie in."""
    return [
        Edge(trait.table, trait.field, MODEL_TABLE, trait.id, direct=True)
        for trait in traits
        if trait.kind is not TraitKind.DECIDED
    ]


def audience_edges(audience: str, columns: Iterable[str], users_table: str) -> list[Edge]:
    """The arrows into an audience's column from those that its rule reads; those of other traits from the model."""
    edges = []
    for column in columns:
        table, _, field = column.rpartition(".")
        edges.append(Edge(MODEL_TABLE if table == users_table else table, field, MODEL_TABLE, audience, direct=True))
    return edges
