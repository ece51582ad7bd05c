"""Settings of the model builder."""

from pathlib import Path

from pydantic import Field, SecretStr

from libs.kit.settings import Settings


class ModelSettings(Settings):
    """What the model builder needs to know, its server and its worker alike."""

    model_address: str = Field(default="127.0.0.1:7402", description="host:port to serve on")
    registry_address: str = Field(default="127.0.0.1:7401", description="host:port of the trait registry")
    audience_address: str = Field(default="127.0.0.1:7403", description="host:port of the audience service")

    warehouse_url: SecretStr = Field(description="The warehouse, in a form of libs.warehouse")
    warehouse_memory: str = Field(default="1GB", description="Memory of an embedded warehouse, per workspace")
    warehouse_threads: int = Field(default=2, ge=1, description="Threads of an embedded warehouse, and of dbt")

    data_dir: Path = Field(description="Uploads and build folders; servers and workers see the same")
    max_upload_bytes: int = Field(default=8 << 30, ge=1, description="The largest file of events")
    connectors_dir: Path = Field(
        default=Path(".envs/connectors"), description="Holds <connector>/bin/<connector> for each connector"
    )
    dbt: Path = Field(default=Path(".envs/dbt/bin/dbt"), description="The dbt program, in an environment of its own")
    dbt_seconds: int = Field(default=3600, ge=1, description="How long one dbt command may take")
    notebook_python: Path = Field(
        default=Path(".envs/notebook/bin/python"), description="The interpreter of the notebooks' environment"
    )
    notebook_seconds: int = Field(default=1800, ge=1, description="How long one notebook may take")
    worker_threads: int = Field(default=4, ge=1, description="Activities that one worker does at a time")
