"""A destination made with airbyte-cdk that writes nothing and acknowledges each STATE, as its documentation says."""

import sys
from collections.abc import Iterable, Mapping
from logging import Logger
from typing import Any

from airbyte_cdk.destinations import Destination  # type: ignore[import-not-found]
from airbyte_cdk.models import (  # type: ignore[import-not-found]
    AirbyteConnectionStatus,
    AirbyteMessage,
    ConfiguredAirbyteCatalog,
    ConnectorSpecification,
    Status,
    Type,
)


class AcknowledgingDestination(Destination):  # type: ignore[misc]  # airbyte-cdk is not installed where types are checked
    """Takes every record and keeps none."""

    def spec(self, logger: Logger) -> ConnectorSpecification:  # noqa: ARG002 -- airbyte-cdk's signature
        """Asks for no configuration."""
        return ConnectorSpecification(connectionSpecification={"type": "object", "properties": {}})

    def check(self, logger: Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:  # noqa: ARG002 -- the same
        """Nothing can be wrong."""
        return AirbyteConnectionStatus(status=Status.SUCCEEDED)

    def write(
        self,
        config: Mapping[str, Any],  # noqa: ARG002 -- the same
        configured_catalog: ConfiguredAirbyteCatalog,  # noqa: ARG002 -- the same
        input_messages: Iterable[AirbyteMessage],
    ) -> Iterable[AirbyteMessage]:
        """Echoes the STATEs."""
        for message in input_messages:
            if message.type == Type.STATE:
                yield message


if __name__ == "__main__":
    AcknowledgingDestination().run(sys.argv[1:])
