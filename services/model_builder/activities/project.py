"""The activity of a push: finds out what a dbt project declares."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine
from temporalio import activity

from libs.kit import auth
from libs.kit.temporal import heartbeating
from services.model_builder.activities.references import Archive
from services.model_builder.dbt_project import archive, command, declaration
from services.model_builder.dbt_project.command import Dbt, Workspot
from services.model_builder.store import projects
from services.model_builder.warehouses import Warehouses, as_faults

PARSE_SECONDS = 90


@dataclass(frozen=True)
class ProjectActivities:
    """Parses dbt projects."""

    engine: Engine
    warehouses: Warehouses
    dbt: Dbt

    @activity.defn
    def parse_project(self, pushed: Archive) -> None:
        """Runs `dbt parse` and keeps what the manifest declares. Raises InvalidSource with dbt's message."""
        with self.engine.begin() as tx:
            content = projects.read_archive(tx, pushed.workspace, pushed.sha256)
        with (
            auth.acting_in(pushed.workspace),
            heartbeating(),
            as_faults(),
            tempfile.TemporaryDirectory(prefix="traitmesh-parse-") as folder,
        ):
            place = Path(folder)
            (place / "source").mkdir()
            project = archive.unpack(content, place / "source")
            profile = self.warehouses.open(pushed.workspace).dbt_profile()
            spot = Workspot(place, project, profile)
            command.run(replace(self.dbt, seconds=PARSE_SECONDS), "parse", spot)
            declared = declaration.read_declaration(spot.artifact("manifest.json"))
        with self.engine.begin() as tx:
            projects.set_declaration(tx, pushed.workspace, pushed.sha256, declared)
