"""The activities of a build, in the order in which the workflow takes them."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from temporalio import activity
from traitmesh_proto.audience.v1 import audience_pb2
from traitmesh_proto.audience.v1.audience_pb2_grpc import AudienceServiceStub
from traitmesh_proto.registry.v1.lineage_pb2_grpc import LineageServiceStub

from libs.kit import auth, errors
from libs.kit.messages import timestamp
from libs.kit.temporal import heartbeating
from libs.warehouse import NotFound, Warehouse
from services.model_builder import registry
from services.model_builder.activities.references import (
    BuildPlan,
    FailureOf,
    NotebookOfBuild,
    ProjectOfBuild,
    StagedBuild,
)
from services.model_builder.dbt_project import archive, command, results
from services.model_builder.dbt_project.command import Dbt, Workspot
from services.model_builder.domain import KEY, Blueprint, Failure, State, Trait, parse_numbered
from services.model_builder.lineage import edges
from services.model_builder.notebooks import running
from services.model_builder.notebooks.declaration import predictions_table
from services.model_builder.notebooks.running import Jupyter
from services.model_builder.publishing import assembling, bodies, publication
from services.model_builder.publishing.assembling import CompiledAudience
from services.model_builder.store import builds, notebooks, profiles, projects
from services.model_builder.warehouses import Warehouses, as_faults


class ContractBroken(errors.NotReady):
    """A contract does not hold, so nothing is published; the build lists what is wrong."""


@dataclass(frozen=True)
class BuildActivities:
    """Makes builds. Each activity finds the build by its name and may be repeated from its start."""

    engine: Engine
    warehouses: Warehouses
    audiences: AudienceServiceStub
    lineage: LineageServiceStub
    dbt: Dbt
    jupyter: Jupyter
    folder: Path

    @activity.defn
    def plan_build(self, name: str) -> BuildPlan:
        """Tells what the build runs."""
        with self._working_on(name) as blueprint:
            return BuildPlan(sorted(blueprint.projects), sorted(blueprint.notebooks))

    @activity.defn
    def build_project(self, part: ProjectOfBuild) -> None:
        """Unpacks the project, runs its models and tests them. Raises ContractBroken if a model or test fails."""
        with self._step_of(part.build, f"dbt build {part.project}") as (blueprint, step):
            spot = self._workspot(blueprint, part.project)
            shutil.rmtree(spot.folder, ignore_errors=True)
            (spot.folder / "source").mkdir(parents=True)
            with self.engine.begin() as tx:
                revision = blueprint.projects[part.project]
                content = projects.archive_of(tx, blueprint.workspace, part.project, revision)
            archive.unpack(content, spot.folder / "source")
            command.run(self.dbt, "build", spot)
            verdict = results.judge(spot.artifact("manifest.json"), spot.artifact("run_results.json"), blueprint.traits)
            self._refuse(blueprint, verdict.failures)
            origin = f"workspaces/{blueprint.workspace}/projects/{part.project}"
            self._audit(blueprint, [trait for trait in blueprint.traits if trait.origin == origin])
            step.outcome = str(verdict)

    def _workspot(self, blueprint: Blueprint, project: str) -> Workspot:
        folder = self._folder(blueprint) / project
        source = folder / "source"
        found = sorted(source.rglob(archive.PROJECT_FILE), key=lambda file: len(file.parts))
        as_of = blueprint.as_of.strftime("%Y-%m-%d %H:%M:%S.%f")
        profile = self.warehouses.open(blueprint.workspace).dbt_profile()
        return Workspot(folder, found[0].parent if found else source, profile, {"as_of": as_of})

    @activity.defn
    def run_notebook(self, part: NotebookOfBuild) -> None:
        """Runs a notebook over its inputs and the traits so far. Raises ContractBroken if it fails."""
        with self._step_of(part.build, f"notebook {part.notebook}") as (blueprint, step):
            warehouse = self.warehouses.open(blueprint.workspace)
            with self.engine.begin() as tx:
                revision = blueprint.notebooks[part.notebook]
                notebook = notebooks.find_notebook(tx, blueprint.workspace, part.notebook, revision)
            if notebook is None:
                raise errors.NotFound(f"workspaces/{blueprint.workspace}/notebooks/{part.notebook}")
            trait = next((trait for trait in blueprint.traits if trait.id == notebook.trait), None)
            if trait is None:
                step.outcome = "its trait is not of this model revision"
                return
            folder = self._folder(blueprint) / "notebooks" / part.notebook
            try:
                self._put_inputs(warehouse, blueprint, part.notebook, notebook.inputs, folder)
                outcome = running.run(self.jupyter, bytes(notebook.content), folder, trait.id, trait.type)
            except running.NotebookFailed as failed:
                self._refuse(blueprint, [Failure(trait.id, f"notebook {part.notebook}", f"the notebook {failed}")])
                raise
            running.land(warehouse, predictions_table(trait.id), outcome.values)
            with self.engine.begin() as tx:
                builds.set_notebook_run(tx, blueprint, part.notebook, outcome.metrics, outcome.values.num_rows)
            step.outcome = f"{outcome.values.num_rows} values"

    @activity.defn
    def stage_traits(self, name: str) -> None:
        """Puts computed and predicted traits into one table. Raises ContractBroken if they do not fit."""
        with self._step_of(name, "staging") as (blueprint, step):
            self._audit(blueprint, blueprint.stored)
            warehouse = self.warehouses.open(blueprint.workspace)
            select = assembling.base_select(warehouse, blueprint.stored, self._keys(blueprint))
            rows = assembling.create_anew(warehouse, assembling.stage(blueprint, 0), select)
            step.outcome = f"{rows} users, {len(blueprint.stored)} traits"

    @activity.defn
    def decide_audiences(self, name: str) -> str:
        """Adds the audiences and returns the table that holds all traits."""
        with self._step_of(name, "audiences") as (blueprint, step):
            warehouse = self.warehouses.open(blueprint.workspace)
            table = assembling.decide(warehouse, blueprint, lambda *asked: self._compile(blueprint, *asked))
            step.outcome = f"{len(blueprint.decided)} audiences"
            return table

    def _compile(
        self, blueprint: Blueprint, audiences: Sequence[str], traits: Sequence[str], table: str
    ) -> list[CompiledAudience]:
        request = audience_pb2.CompileAudiencesRequest(
            parent=f"workspaces/{blueprint.workspace}",
            audiences=audiences,
            traits=traits,
            users_table=table,
            as_of=timestamp(blueprint.as_of),
            model_revision=f"workspaces/{blueprint.workspace}/modelRevisions/{blueprint.model_revision}",
        )
        compiled = self.audiences.CompileAudiences(request).audiences
        return [CompiledAudience(each.audience, each.sql, tuple(each.columns)) for each in compiled]

    @activity.defn
    def publish(self, staged: StagedBuild) -> None:
        """Makes the served model equal to the build. From its commit on the build can only succeed."""
        with self._step_of(staged.build, "publish") as (blueprint, step):
            with self.engine.begin() as tx:
                good = builds.find_good(tx, blueprint.workspace)
            base = good.snapshot if good is not None else 0
            warehouse = self.warehouses.open(blueprint.workspace)
            done = publication.publish(warehouse, blueprint, staged.table, base)
            if isinstance(done, Failure):
                self._refuse(blueprint, [done])
                return
            with self.engine.begin() as tx:
                builds.set_published(tx, blueprint.workspace, blueprint.number, **vars(done))
            changed = done.inserted_count + done.updated_count + done.deleted_count
            step.outcome = f"{changed} of {done.row_count} rows changed"

    @activity.defn
    def record_lineage(self, name: str) -> None:
        """Tells the registry where each column comes from."""
        with self._step_of(name, "lineage") as (blueprint, step):
            count = 0
            for job, found in self._edges(blueprint):
                registry.record_lineage(self.lineage, job, name, found)
                count += len(found)
            step.outcome = f"{count} edges"

    def _edges(self, blueprint: Blueprint) -> Iterator[tuple[str, list[edges.Edge]]]:
        parent = f"workspaces/{blueprint.workspace}"
        warehouse = self.warehouses.open(blueprint.workspace)
        for project in blueprint.projects:
            manifest = self._workspot(blueprint, project).artifact("manifest.json")
            found = edges.project_edges(manifest, warehouse.dialect.sqlglot, lambda table: _columns(warehouse, table))
            yield f"{parent}/projects/{project}", found
        for notebook, revision in blueprint.notebooks.items():
            with self.engine.begin() as tx:
                row = notebooks.find_notebook(tx, blueprint.workspace, notebook, revision)
            trait = next((trait for trait in blueprint.traits if row is not None and trait.id == row.trait), None)
            if row is not None and trait is not None:
                yield f"{parent}/notebooks/{notebook}", edges.notebook_edges(row.inputs, trait)
        if blueprint.decided:
            yield from self._audience_edges(blueprint, parent)
        yield f"{parent}/builds/-", edges.model_edges(blueprint.traits)

    def _audience_edges(self, blueprint: Blueprint, parent: str) -> Iterator[tuple[str, list[edges.Edge]]]:
        table = assembling.stage(blueprint, 0)
        audiences = [trait.id for trait in blueprint.decided]
        for compiled in self._compile(blueprint, audiences, [trait.id for trait in blueprint.stored], table):
            found = edges.audience_edges(compiled.audience, compiled.columns, table)
            yield f"{parent}/audiences/{compiled.audience}", found

    @activity.defn
    def serve_profiles(self, name: str) -> None:
        """Writes the profiles that changed and lets the build serve, both in one transaction."""
        row = self._row(name)
        if row.state == State.SUCCEEDED:
            # An attempt before this one did it, and its worker died before it could say so.
            return
        with self._step_of(name, "profiles") as (blueprint, step):
            warehouse = self.warehouses.open(blueprint.workspace)
            with self.engine.begin() as tx:
                good = builds.find_good(tx, blueprint.workspace)
                changes = bodies.changes_since(warehouse, good.snapshot if good is not None else 0, row.snapshot)
                if changes is None:
                    profiles.clear(tx, blueprint.workspace)
                    changes = bodies.whole_model(warehouse, row.snapshot)
                written = profiles.apply(tx, blueprint.workspace, bodies.bodies(changes, blueprint.traits))
                builds.end_build(tx, blueprint.workspace, blueprint.number, State.SUCCEEDED)
            step.outcome = f"{written} profiles written"

    @activity.defn
    def fail_build(self, failure: FailureOf) -> None:
        """Ends a build that cannot succeed; the last good one serves on."""
        workspace, number = parse_numbered(failure.name)
        with self.engine.begin() as tx:
            row = builds.find_build(tx, workspace, number)
            if row is not None and builds.end_build(tx, workspace, number, State.FAILED) and not row.failures:
                builds.add_failures(tx, workspace, number, [Failure("", failure.step, failure.reason)])

    @activity.defn
    def clean_up(self, name: str) -> None:
        """Removes what only the build itself needed."""
        workspace, number = parse_numbered(name)
        with auth.acting_in(workspace), heartbeating(), as_faults():
            with self.engine.begin() as tx:
                row = builds.find_build(tx, workspace, number)
            if row is not None:
                blueprint = builds.blueprint_of(row)
                publication.drop_build_tables(self.warehouses.open(workspace), blueprint)
                shutil.rmtree(self._folder(blueprint), ignore_errors=True)

    @contextmanager
    def _working_on(self, name: str) -> Iterator[Blueprint]:
        workspace, _ = parse_numbered(name)
        with auth.acting_in(workspace), heartbeating(), as_faults():
            row = self._row(name)
            if row.state != State.RUNNING:
                # Somebody reset its workflow, and newer builds may serve by now.
                raise errors.NotReady(f"{name} has {row.state}; make another with `traitmesh build run`")
            yield builds.blueprint_of(row)

    def _row(self, name: str) -> builds.BuildRow:
        with self.engine.begin() as tx:
            row = builds.find_build(tx, *parse_numbered(name))
        if row is None:
            # The workflow was started before the row was committed; if that failed, there is no build.
            raise errors.Unavailable(f"{name} has not been stored yet")
        return row

    @contextmanager
    def _step_of(self, name: str, step: str) -> Iterator[tuple[Blueprint, builds.Step]]:
        with self._working_on(name) as blueprint, builds.step(self.engine, blueprint, step) as taken:
            yield blueprint, taken

    def _keys(self, blueprint: Blueprint) -> dict[str, str]:
        with self.engine.begin() as tx:
            return projects.keys_of(tx, blueprint.workspace, dict(blueprint.projects))

    def _audit(self, blueprint: Blueprint, traits: Sequence[Trait]) -> None:
        """Raises ContractBroken if the tables of stored traits do not hold what the model needs."""
        warehouse = self.warehouses.open(blueprint.workspace)
        self._refuse(blueprint, assembling.audit_tables(warehouse, traits, self._keys(blueprint)))

    def _refuse(self, blueprint: Blueprint, failures: Sequence[Failure]) -> None:
        """Keeps the failures and raises ContractBroken, if there are any."""
        if failures:
            with self.engine.begin() as tx:
                builds.add_failures(tx, blueprint.workspace, blueprint.number, failures)
            raise ContractBroken(f"{failures[0].contract}: {failures[0].reason}")

    def _folder(self, blueprint: Blueprint) -> Path:
        return self.folder / blueprint.workspace / str(blueprint.number)

    def _put_inputs(
        self,
        warehouse: Warehouse,
        blueprint: Blueprint,
        notebook: str,
        inputs: Sequence[str],
        folder: Path,
    ) -> None:
        """Puts the tables that a notebook reads, and the model so far, where it looks for them."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "inputs").mkdir(parents=True)
        for table in inputs:
            if not warehouse.exists(table):
                raise running.NotebookFailed(f"reads {table}, which does not exist; does the dbt project make it?")
            running.put_table(warehouse, table, folder)
        traits = blueprint.before_notebook(notebook)
        model = assembling.base_select(warehouse, traits, self._keys(blueprint))
        listed = ", ".join(warehouse.quote(column) for column in (KEY, *(trait.id for trait in traits)))
        select = f"SELECT {listed} FROM ({model}) AS m ORDER BY m.user_ord"  # noqa: S608 -- the names are quoted
        running.put_input(warehouse, select, folder, "model")


def _columns(warehouse: Warehouse, table: str) -> dict[str, str] | None:
    try:
        return {column.name: column.type for column in warehouse.describe(table)}
    except NotFound:
        return None
