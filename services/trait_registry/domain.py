"""What a trait is, and how declared traits become the next model revision. Pure rules: nothing here reads or writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

#: Columns of the model that are no traits.
RESERVED_IDS = frozenset({"user_id", "user_ord", "as_of", "build"})


class TraitKind(StrEnum):
    """How a trait's value comes about."""

    COMPUTED = "computed"
    PREDICTED = "predicted"
    DECIDED = "decided"


class TraitType(StrEnum):
    """What values a trait takes."""

    BOOLEAN = "boolean"
    CONTINUOUS = "continuous"
    CATEGORICAL = "categorical"


@dataclass(frozen=True)
class Definition:
    """What a trait revision fixes: everything about a trait but its number."""

    display_name: str
    description: str
    kind: TraitKind
    type: TraitType
    unit: str
    origin: str
    column: str


@dataclass(frozen=True)
class TraitRevision:
    """One trait as one number of it defines it."""

    trait: str
    number: int
    definition: Definition


class Change(StrEnum):
    """What happened to a trait between two model revisions."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class TraitChange:
    """One difference between two model revisions."""

    trait: str
    change: Change


class OwnedByAnotherOriginError(ValueError):
    """An origin declared a trait that another one makes."""

    def __init__(self, trait: str, owner: str) -> None:
        super().__init__(f"the trait {trait} is made by {owner}; choose another id")


def next_model(
    current: Sequence[TraitRevision],
    origin: str,
    declared: dict[str, Definition],
    newest_numbers: dict[str, int],
) -> tuple[tuple[TraitRevision, ...], tuple[TraitChange, ...]]:
    """The model's traits once `origin` makes exactly the `declared` ones, and what that changes.

    `current` is the latest model revision in column order, `newest_numbers` the highest revision of each trait that
    ever was, so that a trait which comes back goes on counting. Traits keep their place; new ones go to the end, by
    id. Raises OwnedByAnotherOriginError if a declared trait belongs to somebody else.
    """
    kept: list[TraitRevision] = []
    changes: list[TraitChange] = []
    for revision in current:
        wanted = declared.get(revision.trait)
        if revision.definition.origin != origin:
            if wanted is not None:
                raise OwnedByAnotherOriginError(revision.trait, revision.definition.origin)
            kept.append(revision)
        elif wanted is None:
            changes.append(TraitChange(revision.trait, Change.REMOVED))
        elif wanted != revision.definition:
            number = newest_numbers[revision.trait] + 1
            kept.append(replace(revision, number=number, definition=wanted))
            changes.append(TraitChange(revision.trait, Change.CHANGED))
        else:
            kept.append(revision)
    for trait in sorted(declared.keys() - {revision.trait for revision in current}):
        kept.append(TraitRevision(trait, newest_numbers.get(trait, 0) + 1, declared[trait]))
        changes.append(TraitChange(trait, Change.ADDED))
    return tuple(kept), tuple(changes)


class Influence(StrEnum):
    """How an input takes part in an output, after OpenLineage's ColumnLineageDatasetFacet."""

    DIRECT = "direct"
    INDIRECT = "indirect"


@dataclass(frozen=True)
class Column:
    """One column of one dataset; an empty field means the dataset as a whole."""

    namespace: str
    dataset: str
    field: str


@dataclass(frozen=True)
class LineageEdge:
    """One arrow from an input to an output, and the job that draws it."""

    input: Column
    output: Column
    influence: Influence
    partial: bool


WAREHOUSE = "warehouse"
MODEL_TABLE = "traitmesh.user_model"


def lineage_root(root: str) -> Column | None:
    """The column that `traits/{trait}` or `schema.table.column` means; None if it is neither."""
    if root.startswith("traits/"):
        return Column(WAREHOUSE, MODEL_TABLE, root.removeprefix("traits/"))
    schema, _, rest = root.partition(".")
    table, _, field = rest.partition(".")
    if not (schema and table and field):
        return None
    return Column(WAREHOUSE, f"{schema}.{table}", field)
