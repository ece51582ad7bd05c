"""What the model is made of and when it may be served. Pure rules: nothing here reads or writes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

#: The published model; its columns are user_id, user_ord, one per trait, and the hash of them all.
MODEL_TABLE = "traitmesh.user_model"
KEY = "user_id"
ROW_HASH = "row_hash"

#: The columns of the model that are no traits.
RESERVED_COLUMNS = frozenset({KEY, "user_ord", "as_of", "build", ROW_HASH})


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
class Trait:
    """A trait as one model revision fixes it; `column` is where its value is found, empty if it is decided."""

    id: str
    kind: TraitKind
    type: TraitType
    origin: str
    column: str

    @property
    def table(self) -> str:
        """The table of the value, as "schema.table"."""
        return self.column.rpartition(".")[0]

    @property
    def field(self) -> str:
        """The column of the value in that table."""
        return self.column.rpartition(".")[2]


@dataclass(frozen=True)
class DeclaredTrait:
    """What the author of a project or a notebook says about a trait."""

    id: str
    type: TraitType
    display_name: str
    description: str
    unit: str
    column: str


@dataclass(frozen=True)
class Declaration:
    """What a dbt project declares: its traits, and by table the column that holds the user's id."""

    traits: tuple[DeclaredTrait, ...]
    keys: dict[str, str]


class State(StrEnum):
    """How far a load or a build is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why a build failed: the trait that is concerned ("" for none), the contract or step, and what to do."""

    trait: str
    contract: str
    reason: str


@dataclass(frozen=True)
class Blueprint:
    """What a build is pinned to when it is created, so that every attempt makes the same."""

    workspace: str
    number: int
    model_revision: int
    as_of: datetime
    traits: tuple[Trait, ...]
    projects: Mapping[str, int] = field(default_factory=dict)
    """Revision by project id."""
    notebooks: Mapping[str, int] = field(default_factory=dict)
    """Revision by notebook id."""

    @property
    def name(self) -> str:
        """The build's resource name."""
        return build_name(self.workspace, self.number)

    @property
    def table(self) -> str:
        """The build's own table, which is gone once it has been published."""
        return f"traitmesh.build_{self.number}"

    @property
    def stored(self) -> tuple[Trait, ...]:
        """The traits whose values lie in a table before the audiences are decided."""
        return tuple(trait for trait in self.traits if trait.kind is not TraitKind.DECIDED)

    @property
    def decided(self) -> tuple[Trait, ...]:
        """The audiences."""
        return tuple(trait for trait in self.traits if trait.kind is TraitKind.DECIDED)

    def before_notebook(self, notebook: str) -> tuple[Trait, ...]:
        """The stored traits that are known when a notebook runs: those computed, and those of notebooks before it."""
        return tuple(
            trait
            for trait in self.stored
            if trait.kind is TraitKind.COMPUTED or trait.origin.rpartition("/")[2] < notebook
        )


def build_name(workspace: str, number: int) -> str:
    """The resource name of a build."""
    return f"workspaces/{workspace}/builds/{number}"


def load_name(workspace: str, number: int) -> str:
    """The resource name of a load."""
    return f"workspaces/{workspace}/loads/{number}"


def parse_numbered(name: str) -> tuple[str, int]:
    """Workspace and number of the name of a build or load of our own making."""
    _, workspace, _, number = name.split("/")
    return workspace, int(number)


_INTEGER = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|INT[248])")
_NUMBER = re.compile(r"(FLOAT|REAL|DOUBLE|DOUBLE PRECISION|(DECIMAL|NUMERIC)(\(.*\))?)")
_TEXT = re.compile(r"(VARCHAR|TEXT|STRING|CHARACTER VARYING)(\(.*\))?")

_EXPECTED = {
    TraitType.BOOLEAN: "a boolean",
    TraitType.CONTINUOUS: "a number",
    TraitType.CATEGORICAL: "text",
}


def value_type(trait: TraitType, warehouse_type: str) -> str | None:
    """The type of the model's column for a trait whose values are of a warehouse type; None if they do not fit."""
    spelled = warehouse_type.upper()
    if trait is TraitType.BOOLEAN:
        return "BOOLEAN" if spelled in {"BOOLEAN", "BOOL"} else None
    if trait is TraitType.CATEGORICAL:
        return "VARCHAR" if _TEXT.fullmatch(spelled) else None
    if _INTEGER.fullmatch(spelled):
        return "BIGINT"
    return "DOUBLE PRECISION" if _NUMBER.fullmatch(spelled) else None


def check_columns(traits: Iterable[Trait], tables: Mapping[str, Mapping[str, str]]) -> list[Failure]:
    """What is wrong with the columns that traits are read from; `tables` gives the columns' types by table."""
    failures = []
    for trait in traits:
        found = tables[trait.table].get(trait.field)
        if found is None:
            reason = f"{trait.table} has no column {trait.field}; add it to the model's SQL or withdraw the trait"
            failures.append(Failure(trait.id, "column", reason))
        elif value_type(trait.type, found) is None:
            reason = f"{trait.column} is {found}, but a {trait.type} trait is {_EXPECTED[trait.type]}; cast it"
            failures.append(Failure(trait.id, "type", reason))
    return failures


def common_traits(base: Sequence[Trait], build: Sequence[Trait]) -> list[tuple[Trait, Trait]]:
    """The traits of both builds, in the order of the later one, as they were in each."""
    before = {trait.id: trait for trait in base}
    return [(before[trait.id], trait) for trait in build if trait.id in before]
