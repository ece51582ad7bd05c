"""Who is in, decided the slow and obvious way: every chain is tried, every event is counted one by one.

Reads rules in the JSON form that callers send. No SQL, and nothing shared with the compiler. Times are integer
microseconds relative to as_of; a user is a dict of traits, an event a dict of its columns.
"""

import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

User = dict[str, Any]
Event = dict[str, Any]
Form = dict[str, Any]


def verdict(rule: Form, traits: User, events: list[Event]) -> bool:
    """Whether the rule lets in a user with these traits and events."""
    ((kind, content),) = rule.items()
    if kind == "all":
        return all(verdict(inner, traits, events) for inner in content["rules"])
    if kind == "any":
        return any(verdict(inner, traits, events) for inner in content["rules"])
    if kind == "not":
        return not verdict(content, traits, events)
    if kind == "trait":
        return compare(traits.get(content["trait"]), content["operator"], content.get("values", []))
    if kind == "event":
        return event_verdict(content, events)
    return furthest_step(content["funnel"], events) == int(content.get("reached", 0))


def event_verdict(rule: Form, events: list[Event]) -> bool:
    oldest = -duration(rule["within"]) if "within" in rule else -math.inf
    count = sum(1 for event in events if oldest < event["time"] <= 0 and matches(rule, event))
    wanted = int(rule.get("count", 1))
    return compare(count, rule.get("operator", "OPERATOR_GREATER_OR_EQUAL"), [wanted])


def matches(pattern: Form, event: Event) -> bool:
    return event["name"] == pattern["event"] and all(
        compare(property_value(event, rule), rule["operator"], rule.get("values", []))
        for rule in pattern.get("where", [])
    )


def property_value(event: Event, rule: Form) -> Any:
    column, *path = rule["property"].split(".")
    value = event.get(column)
    for depth, key in enumerate(path):
        value = value.get(key) if isinstance(value, dict) else None
        if column == "contexts" and depth == 0:
            value = value[0] if value else None
    if path and rule.get("values") and type_name(value) != type_name(rule["values"][0]):
        return None  # A field of another type than asked for is as good as absent.
    return value


def type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def compare(value: Any, operator: str, values: list[Any]) -> bool:
    operator = operator.removeprefix("OPERATOR_")
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    if operator in {"IS_NULL", "IS_NOT_NULL"}:
        return missing == (operator == "IS_NULL")
    if missing:
        return operator in {"NOT_EQUAL", "NOT_IN"}
    if operator in {"IN", "NOT_IN"}:
        return (value in values) == (operator == "IN")
    return bool(COMPARED[operator](value, values[0]))


COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "EQUAL": lambda value, other: value == other,
    "NOT_EQUAL": lambda value, other: value != other,
    "LESS": lambda value, other: value < other,
    "LESS_OR_EQUAL": lambda value, other: value <= other,
    "GREATER": lambda value, other: value > other,
    "GREATER_OR_EQUAL": lambda value, other: value >= other,
    "CONTAINS": lambda value, other: other in value,
}


def furthest_step(funnel: Form, events: list[Event]) -> int:
    return len(credited_attempt(funnel, events))


def credited_attempt(funnel: Form, events: list[Event]) -> list[int]:
    """The times of the chain to the furthest step that reaches it first, by the latest predecessors; [] if none."""
    ordered = in_order(funnel, events)
    for length in range(len(funnel["steps"]), 0, -1):
        found = list(chains(funnel, ordered, length))
        if found:
            # The first to arrive; among its ways, the one whose events, from the last back, lie latest.
            best = min(found, key=lambda chain: (chain[-1], [-place for place in reversed(chain)]))
            return [ordered[place]["time"] for place in best]
    return []


def in_order(funnel: Form, events: list[Event]) -> list[Event]:
    def position(event: Event) -> tuple[int, int, int, str]:
        matched = [number for number, step in enumerate(funnel["steps"], 1) if matches(step, event)]
        return (event["time"], matched[0], matched[-1], event["event_id"])

    part = [event for event in events if event["time"] <= 0 and any(matches(s, event) for s in funnel["steps"])]
    return sorted(part, key=position)


def chains(funnel: Form, ordered: list[Event], length: int) -> Iterator[tuple[int, ...]]:
    """Every way to take `length` steps in the window, as places in the order of events."""
    oldest = -duration(funnel["within"]) if "within" in funnel else -math.inf
    window = duration(funnel["window"])

    def extend(chain: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(chain) == length:
            yield chain
            return
        for place in range(chain[-1] + 1 if chain else 0, len(ordered)):
            event = ordered[place]
            start = ordered[chain[0]]["time"] if chain else event["time"]
            begins_in_time = bool(chain) or event["time"] > oldest
            if begins_in_time and event["time"] - start <= window and matches(funnel["steps"][len(chain)], event):
                yield from extend((*chain, place))

    yield from extend(())


def funnel_answer(funnel: Form, attempts: list[list[int]]) -> tuple[list[int], list[float | None]]:
    """Users who reached each step, and the median microseconds to each from the second, from everyone's attempts."""
    steps = range(len(funnel["steps"]))
    reached = [sum(1 for times in attempts if len(times) > step) for step in steps]
    medians = []
    for step in list(steps)[1:]:
        taken = [times[step] - times[0] for times in attempts if len(times) > step]
        medians.append(median(taken) if taken else None)
    return reached, medians


def duration(text: str) -> int:
    """Microseconds of a protobuf JSON duration, such as 3600s or 0.000001s."""
    return round(float(text.removesuffix("s")) * 1_000_000)
