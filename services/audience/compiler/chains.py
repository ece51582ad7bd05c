"""What both forms of a funnel give: for each step, the events that complete a chain up to it in time."""

from dataclasses import dataclass

from sqlglot import exp


@dataclass(frozen=True)
class Chains:
    """Named parts in order of use, and per step k a SELECT over them: `user_ord` and the chain's times `t1` .. `tk`.

    Times are microseconds since 1970. A SELECT has a row for each event of the step whose best chain is in the window.
    """

    parts: tuple[tuple[str, exp.Query], ...]
    steps: tuple[exp.Select, ...]

    def define(self, query: exp.Select) -> exp.Select:
        """The query with the parts in its WITH."""
        for name, part in self.parts:
            query = query.with_(exp.to_identifier(name, quoted=True), as_=part, copy=False)
        return query


def time_name(step: int) -> str:
    """The column with the time of a step, from 1."""
    return f"t{step}"
