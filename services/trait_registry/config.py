"""Settings of the trait registry."""

from pydantic import Field

from libs.kit.settings import Settings


class RegistrySettings(Settings):
    """What the trait registry needs to know."""

    registry_address: str = Field(default="127.0.0.1:7401", description="host:port to serve on")
