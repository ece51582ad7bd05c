"""JSON as it should have been sent: UTF-8, one value, no repeated key, no number that JSON has not.

`json` accepts more, and takes the last of two equal keys. What is wrong inside of a value is answered as `Unfit` in its
place, so that whoever walks the value can say where it stood. Messages never quote the text, which may be personal.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from services.gateway.transcoding.problems import ProblemError, invalid

#: More digits than any field can hold; `int` itself is quadratic in them.
_LONGEST_INTEGER = 400


@dataclass(frozen=True)
class Unfit:
    """Stands for a value that cannot be used; says what would be right."""

    description: str


def parse(body: bytes, field: str) -> Any:
    """The value of a JSON text; raises ProblemError, naming `field`, if it is none."""
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid(field, f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _not_json(field, error) from None
    except RecursionError:
        raise invalid(field, "is nested too deep") from None


def _not_json(field: str, error: json.JSONDecodeError) -> ProblemError:
    if error.msg == "Extra data":
        what = "must be one JSON value; another begins"
    else:
        what = f"is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
    return invalid(field, f"{what} at line {error.lineno}, column {error.colno}")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    if len(members) < len(pairs):
        return Unfit("names a member twice")
    return members


def _integer(text: str) -> Any:
    return int(text) if len(text) <= _LONGEST_INTEGER else Unfit("has too many digits")


def _number(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else Unfit("must be a number below 1.8e308")


def _no_number(_name: str) -> Unfit:
    return Unfit("must be a finite number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_no_number,
)
