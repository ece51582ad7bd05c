"""Builds: the whole workflow with dbt, tests, a notebook and audiences; and publishing when 1% of the users changed.

Beside `dbt build` alone, in the same environment on the same warehouse: the models that make
the traits, and their tests.
"""

from datetime import timedelta
from pathlib import Path
from statistics import median

from bench import machine
from bench.bench import Bench
from bench.company import TUSK, Company
from bench.figure import Figure
from bench.measuring import medians, seconds, timed
from deploy.local.stack import ROOT
from services.model_builder.dbt_project import command
from services.model_builder.dbt_project.command import Dbt, Workspot
from traitmesh.client import Json

ROUNDS = 3
CHANGED_SHARE = 0.01


def run(bench: Bench) -> list[Figure]:
    """Seconds of a full build, its share that is dbt, seconds of publishing 1%."""
    company = bench.tusk
    rounds = min(bench.repeats, ROUNDS)
    # First, since a notebook's predictions would change every user.
    publishing = median(_publish_some(company, bench.users) for _ in range(rounds))
    company.push_everything()
    company.build()
    dbt = Dbt(ROOT / ".envs" / "dbt" / "bin" / "dbt", 600, bench.folder / "dbt")
    spot = Workspot(bench.folder / "dbt" / "bare", TUSK / "dbt", company.warehouse.dbt_profile())
    shares: list[float] = []

    def ours() -> float:
        builds: list[Json] = []
        taken = seconds(lambda: builds.append(company.build()))
        shares.append(step_seconds(builds[0], "dbt") / taken)
        return taken

    whole, bare = medians(rounds, [ours, timed(lambda: run_bare(dbt, spot))])
    versions = machine.versions("temporalio", "duckdb")
    versions |= machine.versions("dbt-core", "dbt-duckdb", environment=ROOT / ".envs" / "dbt")
    return [
        Figure("build", whole, "s", versions, "dbt build", bare),
        Figure("build-dbt-share", median(shares), "of build", versions),
        Figure("publish-one-percent", publishing, "s", versions),
    ]


def run_bare(dbt: Dbt, spot: Workspot) -> None:
    """Runs the models of the project, and its tests."""
    Path(spot.folder).mkdir(parents=True, exist_ok=True)
    command.run(dbt, "build", spot)


def step_seconds(build: Json, prefix: str) -> float:
    """How long a build's steps took whose names begin so."""
    steps = [step for step in build["steps"] if step["step"].startswith(prefix)]
    return sum((timedelta(seconds=float(step["duration"][:-1])) for step in steps), timedelta()).total_seconds()


def _publish_some(company: Company, users: int) -> float:
    """Changes 1% of the users and builds; how long publishing took, profiles included."""
    company.buy(company.users(max(1, round(users * CHANGED_SHARE))))
    build = company.build()
    return step_seconds(build, "publish") + step_seconds(build, "profiles")
