"""Path templates of google.api.http.

Source: the grammar in the comment of google/api/http.proto::

    Template = "/" Segments [ Verb ] ;
    Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;
    Verb     = ":" LITERAL ;

`**` stands for zero or more segments, and only at the end.
"""

import re
from dataclasses import dataclass

_LITERAL = r"[^/{}*:=]+"
_SEGMENT = rf"(?:\*\*|\*|{_LITERAL})"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_PART = re.compile(
    rf"/(?:\{{(?P<field>{_IDENTIFIER}(?:\.{_IDENTIFIER})*)"
    rf"(?:=(?P<pattern>{_SEGMENT}(?:/{_SEGMENT})*))?\}}"
    rf"|(?P<segment>{_SEGMENT}))"
)
_VERB = re.compile(rf":({_LITERAL})")


@dataclass(frozen=True)
class Variable:
    """A field of the request that a stretch of the path gives: segments[start:end]."""

    field_path: str
    start: int
    #: None reaches to the end of the path, however long that is.
    end: int | None


@dataclass(frozen=True)
class Template:
    """A parsed template. Segments are literals, `*` or `**`; the verb is empty if there is none."""

    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str


def parse(text: str) -> Template:
    """Parses a template; raises ValueError that shows the place if it is not of the grammar."""
    segments: list[str] = []
    variables: list[Variable] = []
    position = 0
    while part := _PART.match(text, position):
        pattern = part["segment"] or part["pattern"] or "*"
        start = len(segments)
        segments += pattern.split("/")
        if part["field"]:
            end = None if segments[-1] == "**" else len(segments)
            variables.append(Variable(part["field"], start, end))
        position = part.end()
    verb = _VERB.fullmatch(text, position)
    if not segments or (verb is None and position != len(text)):
        raise ValueError(f"{text!r} is not a path template from its character {position} on")
    if "**" in segments[:-1]:
        raise ValueError(f"{text!r}: ** may only be the last segment")
    _check_field_paths(text, variables)
    return Template(tuple(segments), tuple(variables), verb[1] if verb else "")


def _check_field_paths(text: str, variables: list[Variable]) -> None:
    paths = [variable.field_path for variable in variables]
    if len(paths) != len(set(paths)):
        raise ValueError(f"{text!r} binds a field twice")
