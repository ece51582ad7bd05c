"""Settings of the sync worker."""

from pathlib import Path

from pydantic import Field, SecretStr

from libs.kit.settings import Settings


class SyncSettings(Settings):
    """What the sync worker needs to know."""

    sync_address: str = Field(default="127.0.0.1:7404", description="host:port to serve on")
    registry_address: str = Field(default="127.0.0.1:7401", description="host:port of the trait registry")
    model_address: str = Field(default="127.0.0.1:7402", description="host:port of the model builder")
    warehouse_url: SecretStr = Field(description="Where workspaces keep their data, such as ducklake:...")
    data_dir: Path = Field(description="Folder for plans and states, shared by all sync workers")
    connectors_dir: Path = Field(description="Folder of the installed connectors: <id>/bin/<id>")
    worker_threads: int = Field(default=8, ge=1, description="Runs that one worker sends at a time, per connector")
    send_attempts: int = Field(
        default=8, ge=1, description="How often a failing step is tried before a person is asked"
    )
    retry_seconds: float = Field(default=1.0, gt=0, description="The wait after the first failure; it doubles")
    batch_records: int = Field(
        default=100_000, ge=1, description="The most records of a batch, where a connector would take more"
    )
