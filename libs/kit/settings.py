"""Settings: read once, in a service's `__main__`, from the environment.

A setting `signing_key` is the variable `TRAITMESH_SIGNING_KEY`. Values marked SecretStr are never printed.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What every service needs to know. A service's `config.py` adds its own."""

    model_config = SettingsConfigDict(env_prefix="TRAITMESH_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        description="PostgreSQL for registry and ledger, as postgresql://user:password@host/database"
    )
    signing_key: SecretStr = Field(
        min_length=32,
        description="Signs the identity of callers between services; the same everywhere",
    )
    server_threads: int = Field(default=16, ge=1, description="Calls that one server answers at a time")
    drain_seconds: float = Field(default=20, ge=0, description="How long calls may go on after SIGTERM")

    tls_certificate: Path | None = Field(default=None, description="PEM chain shown to peers (mTLS)")
    tls_key: Path | None = Field(default=None, description="PEM key of tls_certificate")
    tls_authority: Path | None = Field(default=None, description="PEM authority that peers must have")

    traces: Literal["none", "console", "otlp"] = Field(
        default="none",
        description="Where spans go; otlp reads the standard OTEL_EXPORTER_OTLP_* variables",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class TemporalSettings(BaseSettings):
    """How to reach Temporal; for services that start or run workflows."""

    model_config = SettingsConfigDict(env_prefix="TRAITMESH_TEMPORAL_", extra="ignore", frozen=True)

    address: str = Field(default="127.0.0.1:7233", description="host:port of the Temporal frontend")
    namespace: str = "default"
    api_key: SecretStr | None = Field(default=None, description="For Temporal Cloud")
    ui_url: str = Field(default="http://127.0.0.1:8233", description="The web UI, for links")
