"""Resource names: `workspaces/{workspace}/...`, after AIP-122."""

import re
from functools import cache

from libs.kit import errors

#: The root of every name.
WORKSPACE = "workspaces/{workspace}"

#: Ids that people choose and that stay out of SQL: `eu-payers`.
ID = re.compile(r"[a-z][a-z0-9_-]{0,39}")
#: Ids that become a column: `days_since_last_seen`.
COLUMN_ID = re.compile(r"[a-z][a-z0-9_]{0,59}")


def parse(pattern: str, name: str, field: str = "name") -> tuple[str, ...]:
    """The variable parts of a name, in order.

    `parse("workspaces/{workspace}/traits/{trait}", "workspaces/tusk/traits/ltv")` is `("tusk", "ltv")`. Raises
    InvalidArgument, naming `field`, if the name is not of the pattern.
    """
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        raise errors.invalid(field, f"must be of the form {pattern}")
    return match.groups()


def number(text: str, name: str) -> int:
    """A numbered part of a name, such as a build's; anything but a positive number is not found."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise errors.NotFound(name)
    return int(text)


def check_id(value: str, field: str, pattern: re.Pattern[str] = ID) -> str:
    """Returns the id, or raises InvalidArgument that says which characters it may have."""
    if pattern.fullmatch(value):
        return value
    allowed = "lower-case letters, digits and underscores" + ("" if pattern is COLUMN_ID else " or hyphens")
    longest = 60 if pattern is COLUMN_ID else 40
    raise errors.invalid(field, f"must be 1 to {longest} {allowed}, starting with a letter")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", r"([^/]+)", pattern))
