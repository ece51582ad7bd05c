"""Run by `libs.kit.database.upgrade`."""

from libs.kit.database import run_migrations
from services.audience.store import metadata

run_migrations(metadata)
