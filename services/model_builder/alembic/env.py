"""Run by `libs.kit.database.upgrade`."""

from libs.kit.database import run_migrations
from services.model_builder.store.tables import metadata

run_migrations(metadata)
