"""Run by `libs.kit.database.upgrade`."""

from libs.kit.database import run_migrations
from services.gateway.store import metadata

run_migrations(metadata)
