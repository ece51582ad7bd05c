"""Settings of the gateway."""

from pydantic import Field

from libs.kit.settings import Settings


class GatewaySettings(Settings):
    """What the gateway needs to know."""

    gateway_address: str = Field(default="127.0.0.1:7400", description="host:port to serve REST on")
    registry_address: str = Field(default="127.0.0.1:7401", description="host:port of the trait registry")
    model_address: str = Field(default="127.0.0.1:7402", description="host:port of the model builder")
    audience_address: str = Field(default="127.0.0.1:7403", description="host:port of the audience service")
    sync_address: str = Field(default="127.0.0.1:7404", description="host:port of the sync worker")

    def service_addresses(self) -> dict[str, str]:
        """Which service answers for which proto package."""
        return {
            "traitmesh.registry.v1": self.registry_address,
            "traitmesh.model.v1": self.model_address,
            "traitmesh.audience.v1": self.audience_address,
            "traitmesh.sync.v1": self.sync_address,
        }
