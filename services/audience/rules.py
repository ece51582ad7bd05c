"""From messages to the segment tree of `domain`, with the exact path of every field that is wrong.

Size and depth are checked by a walk that does not recurse, before anything that does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value as ValueMessage
from traitmesh_proto.audience.v1 import segment_pb2

from libs.kit import errors
from libs.kit.messages import enum_value
from services.audience import domain
from services.audience.domain import Operator, TraitType

T = TypeVar("T")
M = TypeVar("M")

Traits = Mapping[str, TraitType]

WANTED_VALUES = {
    TraitType.BOOLEAN: "true or false",
    TraitType.CONTINUOUS: "a number",
    TraitType.CATEGORICAL: "a text",
}


def read_rule(message: segment_pb2.Rule, path: str, traits: Traits) -> domain.Rule:
    """The rule that a message means, given the traits that there are.

    Raises InvalidArgument with every condition that is wrong, its path beginning with `path`.
    """
    _check_size(message, path)
    return _rule(message, path, traits)


def read_funnel(message: segment_pb2.Funnel, path: str) -> domain.Funnel:
    """The funnel that a message means; raises InvalidArgument with every step that is wrong."""
    if not domain.MIN_STEPS <= len(message.steps) <= domain.MAX_STEPS:
        raise errors.invalid(
            f"{path}.steps", f"must be {domain.MIN_STEPS} to {domain.MAX_STEPS}, not {len(message.steps)}"
        )
    steps = _each(message.steps, f"{path}.steps", _pattern)
    window = _duration(message, "window", path)
    if window is None:
        raise errors.invalid(f"{path}.window", "must be given, such as 604800s for 7 days")
    return domain.Funnel(steps, window, _duration(message, "within", path))


def stored_form(message: segment_pb2.Rule) -> dict[str, Any]:
    """The JSON form in which the store keeps a rule."""
    form: dict[str, Any] = json_format.MessageToDict(message)
    return form


def from_stored(form: dict[str, Any]) -> segment_pb2.Rule:
    """The message of a stored rule."""
    return json_format.ParseDict(form, segment_pb2.Rule())


def named_traits(message: segment_pb2.Rule) -> frozenset[str]:
    """The traits that a rule names, whether or not they exist."""
    return frozenset(rule.trait.trait for rule, _ in _walk(message) if rule.WhichOneof("rule") == "trait")


def _walk(message: segment_pb2.Rule) -> Iterator[tuple[segment_pb2.Rule, int]]:
    """Every rule of the tree and its depth, from 1."""
    stack = [(message, 1)]
    while stack:
        rule, depth = stack.pop()
        yield rule, depth
        match rule.WhichOneof("rule"):
            case "all":
                stack += [(inner, depth + 1) for inner in rule.all.rules]
            case "any":
                stack += [(inner, depth + 1) for inner in rule.any.rules]
            case "not":
                stack.append((getattr(rule, "not"), depth + 1))


def _check_size(message: segment_pb2.Rule, path: str) -> None:
    conditions = event_conditions = 0
    for rule, depth in _walk(message):
        kind = rule.WhichOneof("rule")
        conditions += kind in {"trait", "event", "funnel"}
        event_conditions += kind in {"event", "funnel"}
        if depth > domain.MAX_DEPTH:
            raise errors.invalid(path, f"may be nested at most {domain.MAX_DEPTH} deep")
        if conditions > domain.MAX_CONDITIONS:
            raise errors.invalid(path, f"may have at most {domain.MAX_CONDITIONS} conditions")
        if event_conditions > domain.MAX_EVENT_CONDITIONS:
            raise errors.invalid(path, f"may have at most {domain.MAX_EVENT_CONDITIONS} conditions on events")


def _rule(message: segment_pb2.Rule, path: str, traits: Traits) -> domain.Rule:
    match message.WhichOneof("rule"):
        case "all":
            return domain.AllOf(_rules(message.all, f"{path}.all", traits))
        case "any":
            return domain.AnyOf(_rules(message.any, f"{path}.any", traits))
        case "not":
            return domain.Not(_rule(getattr(message, "not"), f"{path}.not", traits))
        case "trait":
            return _trait_rule(message.trait, f"{path}.trait", traits)
        case "event":
            return _event_rule(message.event, f"{path}.event")
        case "funnel":
            return _funnel_rule(message.funnel, f"{path}.funnel")
        case _:
            raise errors.invalid(path, "must be one of all, any, not, trait, event, funnel")


def _rules(message: segment_pb2.Rules, path: str, traits: Traits) -> tuple[domain.Rule, ...]:
    if not message.rules:
        raise errors.invalid(f"{path}.rules", "must be at least one")
    return _each(message.rules, f"{path}.rules", lambda rule, where: _rule(rule, where, traits))


def _each(messages: Sequence[M], path: str, read: Callable[[M, str], T]) -> tuple[T, ...]:
    """What `read` makes of each message; one InvalidArgument with the violations of all."""
    made: list[T] = []
    violations: list[errors.Violation] = []
    for index, message in enumerate(messages):
        try:
            made.append(read(message, f"{path}[{index}]"))
        except errors.InvalidArgument as error:
            violations += error.violations
    if violations:
        raise errors.InvalidArgument(*violations)
    return tuple(made)


def _trait_rule(message: segment_pb2.TraitRule, path: str, traits: Traits) -> domain.TraitRule:
    kind = check_trait(message.trait, f"{path}.trait", traits)
    operator = _operator(message.operator, f"{path}.operator", domain.OPERATORS[kind], f"the {kind} trait")
    return domain.TraitRule(message.trait, kind, _comparison(operator, message.values, path, kind))


def check_trait(trait: str, path: str, traits: Traits) -> TraitType:
    """The type of a trait; raises InvalidArgument with the nearest name if there is none."""
    if not trait:
        raise errors.invalid(path, "must name a trait")
    if trait not in traits:
        raise errors.invalid(path, domain.unknown("trait", text(trait, path), traits))
    return traits[trait]


def _operator(value: segment_pb2.Operator.ValueType, path: str, allowed: frozenset[Operator], subject: str) -> Operator:
    choices = ", ".join(f"OPERATOR_{operator.upper()}" for operator in Operator if operator in allowed)
    if value not in segment_pb2.Operator.values() or not value:
        raise errors.invalid(path, f"must be one of {choices}")
    operator = Operator(enum_value(segment_pb2.Operator.Name(value), "OPERATOR"))
    if operator not in allowed:
        raise errors.invalid(path, f"does not fit {subject}; use one of {choices}")
    return operator


def _comparison(
    operator: Operator, messages: Sequence[ValueMessage], path: str, kind: TraitType | None
) -> domain.Comparison:
    """The comparison with values of type `kind`; None takes values of any one type."""
    values = f"{path}.values"
    if operator in domain.NULL_TESTS:
        if messages:
            raise errors.invalid(values, f"must be empty for OPERATOR_{operator.upper()}")
    elif operator in domain.LISTS:
        if not 1 <= len(messages) <= domain.MAX_VALUES:
            raise errors.invalid(values, f"must be 1 to {domain.MAX_VALUES} values, not {len(messages)}")
    elif len(messages) != 1:
        raise errors.invalid(values, f"must be one value for OPERATOR_{operator.upper()}, not {len(messages)}")
    read = _each(messages, values, lambda message, where: _value(message, where, kind))
    if operator is Operator.CONTAINS and read == ("",):
        raise errors.invalid(f"{values}[0]", "must not be empty, as every text contains that")
    return domain.Comparison(operator, read)


def _value(message: ValueMessage, path: str, kind: TraitType | None) -> domain.Value:
    value: domain.Value
    match message.WhichOneof("kind"):
        case "bool_value":
            value, found = message.bool_value, TraitType.BOOLEAN
        case "number_value":
            value, found = message.number_value, TraitType.CONTINUOUS
            if not math.isfinite(value):
                raise errors.invalid(path, "must be a finite number")
        case "string_value":
            value, found = text(message.string_value, path), TraitType.CATEGORICAL
        case "null_value":
            raise errors.invalid(path, "must not be null; use OPERATOR_IS_NULL or OPERATOR_IS_NOT_NULL")
        case _:
            raise errors.invalid(path, "must be a text, a number, or true or false")
    if kind not in {None, found}:
        raise errors.invalid(path, f"must be {WANTED_VALUES[kind or found]}")
    return value


def text(value: str, path: str) -> str:
    """The text, if it is short enough and holds no control characters but line ends and tabs."""
    if len(value) > domain.MAX_TEXT:
        raise errors.invalid(path, f"may have at most {domain.MAX_TEXT} characters, not {len(value)}")
    if any(ord(character) < 0x20 and character not in "\n\t" for character in value):
        raise errors.invalid(path, "must not hold control characters")
    return value


def _event_rule(message: segment_pb2.EventRule, path: str) -> domain.EventRule:
    operator, count = Operator.GREATER_OR_EQUAL, 1
    if message.operator:
        operator = _operator(message.operator, f"{path}.operator", domain.COUNT_OPERATORS, "a count")
        if not message.HasField("count"):
            raise errors.invalid(f"{path}.count", "must be given with an operator")
    if message.HasField("count"):
        count = message.count
        if count < 0:
            raise errors.invalid(f"{path}.count", "must be 0 or more")
    events = domain.EventCount(_pattern(message, path), _duration(message, "within", path))
    return domain.EventRule(events, operator, count)


def _funnel_rule(message: segment_pb2.FunnelRule, path: str) -> domain.FunnelRule:
    funnel = read_funnel(message.funnel, f"{path}.funnel")
    if not 0 <= message.reached <= len(funnel.steps):
        raise errors.invalid(f"{path}.reached", f"must be 0 to {len(funnel.steps)}, the number of steps")
    return domain.FunnelRule(funnel, message.reached)


def _pattern(message: segment_pb2.EventRule | segment_pb2.FunnelStep, path: str) -> domain.EventPattern:
    if not message.event:
        raise errors.invalid(f"{path}.event", "must name an event")
    if len(message.where) > domain.MAX_PROPERTY_CONDITIONS:
        raise errors.invalid(f"{path}.where", f"may have at most {domain.MAX_PROPERTY_CONDITIONS} conditions")
    event = text(message.event, f"{path}.event")
    return domain.EventPattern(event, _each(message.where, f"{path}.where", _property_rule))


def _property_rule(message: segment_pb2.PropertyRule, path: str) -> domain.PropertyRule:
    column, kind, in_document = _property(message.property, f"{path}.property")
    allowed = domain.OPERATORS[kind] if kind else frozenset(Operator)
    operator = _operator(message.operator, f"{path}.operator", allowed, f"the {kind} property")
    comparison = _comparison(operator, message.values, path, kind)
    if kind is None and comparison.values:
        kind = _common_type(comparison, path)
    return domain.PropertyRule(domain.Property(column, kind, *in_document), comparison)


def _property(name: str, path: str) -> tuple[str, TraitType | None, tuple[str, ...]]:
    """The column, its type, and object and field within a document."""
    if name in domain.TEXT_PROPERTIES:
        return name, TraitType.CATEGORICAL, ()
    if name in domain.NUMBER_PROPERTIES:
        return name, TraitType.CONTINUOUS, ()
    match = domain.DOCUMENT_PROPERTY.fullmatch(name)
    if match:
        return match[1], None, (match[2], match[3])
    if name.startswith(("contexts.", "unstruct_event.")):
        raise errors.invalid(path, "must be contexts.<name>.<field> or unstruct_event.<name>.<field>")
    known = domain.TEXT_PROPERTIES | domain.NUMBER_PROPERTIES
    raise errors.invalid(path, domain.unknown("event property", text(name, path), known))


def _common_type(comparison: domain.Comparison, path: str) -> TraitType:
    """The type of a document's field, which the values that it is compared with tell."""
    types = {bool: TraitType.BOOLEAN, float: TraitType.CONTINUOUS, str: TraitType.CATEGORICAL}
    kinds = {types[type(value)] for value in comparison.values}
    if len(kinds) > 1:
        raise errors.invalid(f"{path}.values", "must all be of one type")
    (kind,) = kinds
    if comparison.operator not in domain.OPERATORS[kind]:
        raise errors.invalid(f"{path}.operator", f"does not fit {WANTED_VALUES[kind]}")
    return kind


def _duration(message: Any, field: str, path: str) -> timedelta | None:
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    micros = duration.seconds * 1_000_000 + duration.nanos // 1000
    longest = domain.MAX_WINDOW // timedelta(microseconds=1)
    if not 0 < micros <= longest:
        raise errors.invalid(f"{path}.{field}", f"must be longer than 0 and at most {domain.MAX_WINDOW.days} days")
    return timedelta(microseconds=micros)
