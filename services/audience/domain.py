"""What a segment is: a tree of rules, what each may compare, and how audiences depend on one another.

Pure: nothing here reads, writes or knows of SQL. The meaning of each rule is told by the cases in tests/cases.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

MAX_DEPTH = 32
MAX_CONDITIONS = 200
MAX_EVENT_CONDITIONS = 50
MAX_PROPERTY_CONDITIONS = 20
MAX_VALUES = 1000
MAX_TEXT = 1024
MIN_STEPS = 2
MAX_STEPS = 10
MAX_AUDIENCE_DEPTH = 5
MAX_WINDOW = timedelta(days=5 * 366)


class TraitType(StrEnum):
    """What values a trait takes."""

    BOOLEAN = "boolean"
    CONTINUOUS = "continuous"
    CATEGORICAL = "categorical"


class Operator(StrEnum):
    """How a value is compared. With null every comparison is false, but NOT_EQUAL and NOT_IN are true."""

    EQUAL = "equal"
    NOT_EQUAL = "not_equal"
    LESS = "less"
    LESS_OR_EQUAL = "less_or_equal"
    GREATER = "greater"
    GREATER_OR_EQUAL = "greater_or_equal"
    IN = "in"
    NOT_IN = "not_in"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"
    CONTAINS = "contains"


NULL_TESTS = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
LISTS = frozenset({Operator.IN, Operator.NOT_IN})
COUNT_OPERATORS = frozenset(
    {
        Operator.EQUAL,
        Operator.NOT_EQUAL,
        Operator.LESS,
        Operator.LESS_OR_EQUAL,
        Operator.GREATER,
        Operator.GREATER_OR_EQUAL,
    }
)
OPERATORS: Mapping[TraitType, frozenset[Operator]] = {
    TraitType.BOOLEAN: frozenset({Operator.EQUAL, Operator.NOT_EQUAL}) | NULL_TESTS,
    TraitType.CONTINUOUS: COUNT_OPERATORS | LISTS | NULL_TESTS,
    TraitType.CATEGORICAL: frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.CONTAINS}) | LISTS | NULL_TESTS,
}

#: Columns of the events that a condition may name, by the type of their values.
TEXT_PROPERTIES = frozenset(
    [
        "app_id",
        "platform",
        "event_name",
        "domain_userid",
        "network_userid",
        "domain_sessionid",
        "geo_country",
        "geo_region",
        "geo_region_name",
        "geo_city",
        "geo_timezone",
        "os_timezone",
        "useragent",
        "user_ipaddress",
        "se_category",
        "se_action",
        "se_label",
        "se_property",
    ]
)
NUMBER_PROPERTIES = frozenset({"se_value", "geo_latitude", "geo_longitude"})
#: Columns of the events that hold documents: `contexts.<name>.<field>` and `unstruct_event.<name>.<field>`.
DOCUMENT_PROPERTY = re.compile(r"(contexts|unstruct_event)\.([A-Za-z0-9_-]{1,128})\.([A-Za-z0-9_-]{1,128})")

Value = bool | float | str


@dataclass(frozen=True)
class Comparison:
    """An operator and what it compares with: one value, several for lists, none for null tests."""

    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Property:
    """A property of events: a column, or a field of a named object in a column that holds a document.

    `type` is None for a field whose type nothing tells, which is tested for null alone.
    """

    column: str
    type: TraitType | None
    object: str = ""
    field: str = ""


@dataclass(frozen=True)
class PropertyRule:
    """A condition on an event itself."""

    property: Property
    comparison: Comparison


@dataclass(frozen=True)
class EventPattern:
    """Events of one name for which all conditions hold. Also one step of a funnel."""

    event: str
    where: tuple[PropertyRule, ...] = ()


@dataclass(frozen=True)
class Funnel:
    """Steps in order, the window counted from the first, and, with `within`, when the first must lie."""

    steps: tuple[EventPattern, ...]
    window: timedelta
    within: timedelta | None = None

    @property
    def window_micros(self) -> int:
        """The window in microseconds, the precision of an event's time."""
        return self.window // timedelta(microseconds=1)


@dataclass(frozen=True)
class AllOf:
    """True if every rule is."""

    rules: tuple["Rule", ...]


@dataclass(frozen=True)
class AnyOf:
    """True if at least one rule is."""

    rules: tuple["Rule", ...]


@dataclass(frozen=True)
class Not:
    """The plain complement among the model's users."""

    rule: "Rule"


@dataclass(frozen=True)
class TraitRule:
    """A comparison of a trait's value."""

    trait: str
    type: TraitType
    comparison: Comparison


@dataclass(frozen=True)
class EventCount:
    """A number per user: the events of a pattern in (as_of - within, as_of], or all up to as_of."""

    pattern: EventPattern
    within: timedelta | None


@dataclass(frozen=True)
class EventRule:
    """True if the number of matching events compares with `count`."""

    events: EventCount
    operator: Operator
    count: int


@dataclass(frozen=True)
class FunnelRule:
    """True if the furthest step that the user reached is `reached`; 0 is for users who never began."""

    funnel: Funnel
    reached: int


Rule = AllOf | AnyOf | Not | TraitRule | EventRule | FunnelRule


def leaves(rule: Rule) -> list[TraitRule | EventRule | FunnelRule]:
    """The conditions of a rule, in written order."""
    match rule:
        case AllOf(rules) | AnyOf(rules):
            return [leaf for inner in rules for leaf in leaves(inner)]
        case Not(inner):
            return leaves(inner)
        case _:
            return [rule]


class CircularAudiencesError(ValueError):
    """Audiences that refer to one another in a circle."""

    def __init__(self, circle: list[str]) -> None:
        super().__init__(f"audiences may not refer to one another in a circle: {' -> '.join(circle)}")


class NestedAudiencesError(ValueError):
    """Audiences that refer to audiences that refer to audiences, too often."""

    def __init__(self, audience: str) -> None:
        super().__init__(f"audiences may refer to one another at most {MAX_AUDIENCE_DEPTH} deep; {audience} is deeper")


def dependency_order(references: Mapping[str, Collection[str]]) -> list[str]:
    """Audiences in an order in which each follows those that it refers to.

    `references` holds, for each audience, the traits that its rule names; those that are no audience do not matter.
    Raises CircularAudiencesError or NestedAudiencesError.
    """
    graph = {audience: sorted(references.keys() & set(named)) for audience, named in sorted(references.items())}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise CircularAudiencesError(error.args[1]) from error
    depths: dict[str, int] = {}
    for audience in order:
        depths[audience] = 1 + max((depths[inner] for inner in graph[audience]), default=0)
        if depths[audience] > MAX_AUDIENCE_DEPTH:
            raise NestedAudiencesError(audience)
    return order


def with_referenced(wanted: Collection[str], references: Mapping[str, Collection[str]]) -> set[str]:
    """The audiences that `wanted` names, and those that they refer to, directly or not."""
    found: set[str] = set()
    frontier = references.keys() & set(wanted)
    while frontier:
        found |= frontier
        named = {trait for audience in frontier for trait in references[audience]}
        frontier = (references.keys() & named) - found
    return found


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """What to say of a name that does not exist: `there is no trait `contry`; did you mean `country`?`."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"there is no {kind} `{name}`" + (f"; did you mean `{close[0]}`?" if close else "")
