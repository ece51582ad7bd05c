"""The audiences that a workspace has defined, and how they hang together."""

from collections.abc import Collection, Mapping
from typing import Any

from traitmesh_proto.audience.v1 import segment_pb2

from libs.kit import errors
from services.audience import domain, rules


class Definitions:
    """The stored rules of a workspace, by audience."""

    def __init__(self, stored: Mapping[str, dict[str, Any]]) -> None:
        self._messages = {audience: rules.from_stored(form) for audience, form in stored.items()}
        #: The traits that each audience names, other audiences among them.
        self.references = {audience: rules.named_traits(message) for audience, message in self._messages.items()}

    def __contains__(self, audience: str) -> bool:
        return audience in self._messages

    def message(self, audience: str) -> segment_pb2.Rule:
        """An audience's rule as it was given."""
        return self._messages[audience]

    def rule(self, audience: str, traits: rules.Traits) -> domain.Rule:
        """An audience's rule among the traits that there are now; NotReady if it does not fit them any more."""
        try:
            return rules.read_rule(self._messages[audience], "rule", traits)
        except errors.InvalidArgument as error:
            raise errors.NotReady(
                f"the audience {audience} does not fit the model any more: {error.message}"
            ) from error

    def order(self) -> list[str]:
        """All audiences, each after those that it refers to; CircularAudiencesError or NestedAudiencesError."""
        return domain.dependency_order(self.references)

    def needed_beside(self, columns: Collection[str], named: Collection[str]) -> list[str]:
        """The audiences that a rule which names `named` needs and that are not among `columns`, in order."""
        unbuilt = {audience: names for audience, names in self.references.items() if audience not in columns}
        needed = domain.with_referenced(named, unbuilt)
        return [audience for audience in self.order() if audience in needed]
