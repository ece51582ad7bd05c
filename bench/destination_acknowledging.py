"""A destination made with the SDK that writes nothing: what is left is the cost of SDK, protocol and pipe."""

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import Reject
from traitmesh_connector.protocol import Batch, Guarantee


class DestinationAcknowledging(Destination):
    """Takes every record and keeps none."""

    name = "destination-acknowledging"
    sync_modes = ("append_dedup",)
    guarantee = Guarantee.EXACTLY_ONCE_BY_KEY
    config_schema = {"type": "object", "properties": {}}

    def check(self) -> None:
        """Nothing can be wrong."""

    def discover(self) -> list[DestinationObject]:
        """There is nothing to write to."""
        return []

    def write(self, batch: Batch) -> list[Reject]:  # noqa: ARG002 -- it needs nothing of it
        """Refuses nothing."""
        return []


if __name__ == "__main__":
    DestinationAcknowledging.main()
