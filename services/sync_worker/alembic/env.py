"""Run by `libs.kit.database.upgrade`."""

from libs.kit.database import run_migrations
from services.sync_worker.store import metadata

run_migrations(metadata)
