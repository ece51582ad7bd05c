"""Settings of the audience service."""

from pydantic import Field, SecretStr

from libs.kit.settings import Settings


class AudienceSettings(Settings):
    """What the audience service needs to know."""

    audience_address: str = Field(default="127.0.0.1:7403", description="host:port to serve on")
    registry_address: str = Field(default="127.0.0.1:7401", description="host:port of the trait registry")
    model_address: str = Field(default="127.0.0.1:7402", description="host:port of the model builder")
    warehouse_url: SecretStr = Field(description="The warehouse, in a form of libs.warehouse")
    warehouse_memory: str = Field(default="1GB", description="Memory of an embedded warehouse, per workspace")
    warehouse_threads: int = Field(default=2, ge=1, description="Threads of an embedded warehouse")
    query_seconds: float = Field(default=25, gt=0, description="How long one question to the warehouse may take")
