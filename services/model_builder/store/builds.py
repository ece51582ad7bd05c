"""Builds: what they are pinned to, how far they are, what came out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.kit.paging import Page
from services.model_builder.domain import Blueprint, Failure, State, Trait, TraitKind, TraitType
from services.model_builder.store.tables import build_steps, builds, notebook_runs

BuildRow = Row[Any]


def next_number(tx: Connection, workspace: str) -> int:
    """The number of the workspace's next build."""
    return (tx.execute(select(func.max(builds.c.number)).where(builds.c.workspace == workspace)).scalar() or 0) + 1


def insert_build(tx: Connection, blueprint: Blueprint) -> BuildRow:
    """Inserts a build that runs. The caller has seen that none does."""
    row = insert(builds).values(
        workspace=blueprint.workspace,
        number=blueprint.number,
        model_revision=blueprint.model_revision,
        as_of=blueprint.as_of,
        traits=[asdict(trait) for trait in blueprint.traits],
        projects=blueprint.projects,
        notebooks=blueprint.notebooks,
        state=State.RUNNING,
    )
    return tx.execute(row.returning(builds)).one()


def find_build(tx: Connection, workspace: str, number: int) -> BuildRow | None:
    """One build's row."""
    return tx.execute(select(builds).where(_build(workspace, number))).first()


def find_running(tx: Connection, workspace: str) -> BuildRow | None:
    """The build that goes on."""
    running = (builds.c.workspace == workspace) & (builds.c.state == State.RUNNING)
    return tx.execute(select(builds).where(running)).first()


def find_good(tx: Connection, workspace: str, before: int | None = None) -> BuildRow | None:
    """The newest build that succeeded, hence the one that serves; the newest before a number if that is given."""
    query = select(builds).where(builds.c.workspace == workspace, builds.c.state == State.SUCCEEDED)
    if before is not None:
        query = query.where(builds.c.number < before)
    return tx.execute(query.order_by(builds.c.number.desc()).limit(1)).first()


def list_builds(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[BuildRow], str]:
    """A page of the builds, newest first, and the next page's token."""
    return page.read(tx, select(builds).where(builds.c.workspace == workspace), builds.c.number, newest_first=True)


def blueprint_of(row: BuildRow) -> Blueprint:
    """What the build is pinned to."""
    return Blueprint(
        workspace=row.workspace,
        number=row.number,
        model_revision=row.model_revision,
        as_of=row.as_of,
        traits=tuple(traits_of(row)),
        projects=row.projects,
        notebooks=row.notebooks,
    )


def traits_of(row: BuildRow) -> list[Trait]:
    """The traits of the build, in the order of its columns."""
    return [
        Trait(stored["id"], TraitKind(stored["kind"]), TraitType(stored["type"]), stored["origin"], stored["column"])
        for stored in row.traits
    ]


def set_published(tx: Connection, workspace: str, number: int, **counts: int) -> None:
    """Notes snapshot, row_count and the counts of what the publication wrote."""
    tx.execute(update(builds).where(_build(workspace, number)).values(**counts))


def add_failures(tx: Connection, workspace: str, number: int, failures: Sequence[Failure]) -> None:
    """Adds reasons why the build fails; each once, since an attempt may find them again."""
    stored = tx.execute(select(builds.c.failures).where(_build(workspace, number)).with_for_update()).scalar_one()
    added = [entry for entry in map(asdict, failures) if entry not in stored]
    tx.execute(update(builds).where(_build(workspace, number)).values(failures=[*stored, *added]))


def end_build(tx: Connection, workspace: str, number: int, state: State) -> bool:
    """Ends a build that runs; False if it had ended already."""
    running = _build(workspace, number) & (builds.c.state == State.RUNNING)
    ended = tx.execute(update(builds).where(running).values(state=state, end_time=func.now()))
    return ended.rowcount == 1


class Step:
    """One step while it is taken; whoever takes it says what came out."""

    outcome = ""


@contextmanager
def step(engine: Engine, blueprint: Blueprint, name: str) -> Iterator[Step]:
    """Shows the block as a step of the build, from its start on; its outcome is "failed" if it raises."""
    place = {"workspace": blueprint.workspace, "build": blueprint.number, "step": name}
    begin = upsert(build_steps).values(**place)
    again = {"start_time": func.now(), "seconds": None, "outcome": ""}
    with engine.begin() as tx:
        tx.execute(begin.on_conflict_do_update(index_elements=list(place), set_=again))
    taken = Step()
    try:
        yield taken
    except BaseException:
        taken.outcome = "failed"
        raise
    finally:
        took = func.extract("epoch", func.clock_timestamp() - build_steps.c.start_time)
        mine = [build_steps.c[column] == value for column, value in place.items()]
        with engine.begin() as tx:
            tx.execute(update(build_steps).where(*mine).values(outcome=taken.outcome, seconds=took))


def list_steps(tx: Connection, workspace: str, numbers: Sequence[int]) -> Sequence[Row[Any]]:
    """The steps of some builds, in the order in which they were taken."""
    mine = (build_steps.c.workspace == workspace) & build_steps.c.build.in_(numbers)
    return tx.execute(select(build_steps).where(mine).order_by(build_steps.c.start_time)).all()


def set_notebook_run(
    tx: Connection, blueprint: Blueprint, notebook: str, metrics: Mapping[str, float], row_count: int
) -> None:
    """Keeps what a notebook's run recorded."""
    recorded = {"revision": blueprint.notebooks[notebook], "metrics": metrics, "row_count": row_count}
    row = upsert(notebook_runs).values(
        workspace=blueprint.workspace, build=blueprint.number, notebook=notebook, **recorded
    )
    tx.execute(row.on_conflict_do_update(index_elements=["workspace", "build", "notebook"], set_=recorded))


def list_notebook_runs(tx: Connection, workspace: str, numbers: Sequence[int]) -> Sequence[Row[Any]]:
    """The notebook runs of some builds."""
    mine = (notebook_runs.c.workspace == workspace) & notebook_runs.c.build.in_(numbers)
    return tx.execute(select(notebook_runs).where(mine).order_by(notebook_runs.c.notebook)).all()


def running_seconds(row: Row[Any], now: datetime) -> float:
    """How long a step took, or has taken so far."""
    return float(row.seconds) if row.seconds is not None else max(0.0, (now - row.start_time).total_seconds())


def _build(workspace: str, number: int) -> Any:
    return (builds.c.workspace == workspace) & (builds.c.number == number)
