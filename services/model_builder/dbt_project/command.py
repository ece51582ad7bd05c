"""Runs dbt as its users do: a program of its own, in its own environment, with a home and a profile for one run."""

import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from libs.kit import errors, telemetry
from libs.warehouse import DbtProfile
from services.model_builder import contained

#: dbt's exit code when nodes failed, which its results tell apart; any other but 0 means that it could not run.
NODES_FAILED = 1

_PROFILE = "traitmesh"
_SHOWN_LINES = 12
_IMPORT_EXTENSIONS = (
    "from duckdb_extensions import import_extension\n"
    "for name in ('ducklake', 'postgres_scanner', 'httpfs'): import_extension(name)"
)
_prepared = threading.Lock()


@dataclass(frozen=True)
class Dbt:
    """The dbt program, how long one command may take, and the folder of what all runs share."""

    program: Path
    seconds: int
    shared: Path


@dataclass(frozen=True)
class Workspot:
    """The folder of one project in one build, and the profile by which dbt reaches the warehouse."""

    folder: Path
    project: Path
    profile: DbtProfile
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Path:
        """Where dbt leaves its artifacts."""
        return self.folder / "target"

    def artifact(self, name: str) -> dict[str, Any]:
        """An artifact of the last command, such as manifest.json."""
        content: dict[str, Any] = json.loads((self.target / name).read_bytes())
        return content


def run(dbt: Dbt, command: str, spot: Workspot) -> None:
    """Runs `dbt parse` or `dbt build`. Returns also when nodes failed: run_results.json says which.

    Raises InvalidSource with dbt's own words, without values, if dbt could not do it at all.
    """
    home = _prepare_home(dbt, spot)
    # What an earlier command left would be taken for the result of this one.
    (spot.target / "run_results.json").unlink(missing_ok=True)
    errors_said: list[str] = []
    try:
        code = contained.run(
            _arguments(dbt, command, spot, home),
            folder=spot.project,
            environment=_environment(dbt, spot, home),
            seconds=dbt.seconds,
            on_line=lambda line: _note_error(line, errors_said),
        )
    except contained.TimedOut:
        raise errors.InvalidSource(f"dbt {command} took longer than {dbt.seconds} seconds", tool="dbt") from None
    if code != 0 and not (code == NODES_FAILED and (spot.target / "run_results.json").exists()):
        said = "\n".join(errors_said[-_SHOWN_LINES:]) or f"exit code {code}"
        raise errors.InvalidSource(f"dbt {command} failed: {said}", tool="dbt")


def without_values(message: str) -> str:
    """A message of dbt without the row values that cast errors quote, and without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    return re.sub(r"(Could not convert|Failed to cast|invalid input syntax).*", r"\1 (value withheld)", plain).strip()


def _note_error(line: str, said: list[str]) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        # Before its log is set up dbt speaks plainly, and so do Python and the guard.
        said.append(without_values(line)[:500])
        return
    if event["info"]["level"] == "error":
        said.append(without_values(event["info"]["msg"])[:2000])


def _prepare_home(dbt: Dbt, spot: Workspot) -> Path:
    """A home for one run, which lends DuckDB's extensions from the shared one."""
    extensions = dbt.shared / ".duckdb"
    with _prepared:
        if not extensions.exists():
            _import_extensions(dbt)
    home = spot.folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / ".duckdb").symlink_to(extensions.resolve())
    profiles = {_PROFILE: {"target": "workspace", "outputs": {"workspace": spot.profile.target}}}
    (home / "profiles.yml").write_text(yaml.safe_dump(profiles))
    return home


def _import_extensions(dbt: Dbt) -> None:
    """Lets dbt's own interpreter unpack the extensions of its DuckDB, which may be another than ours."""
    fresh = dbt.shared / f"fresh-{os.getpid()}"
    fresh.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    code = contained.run(
        [dbt.program.absolute().with_name("python"), "-c", _IMPORT_EXTENSIONS],
        folder=fresh,
        environment={"HOME": str(fresh.resolve()), "PATH": os.defpath},
        seconds=120,
        on_line=said.append,
    )
    if code != 0:
        raise errors.Unavailable(f"the dbt environment of {dbt.program} is not complete", part="dbt")
    # Another worker may have been quicker, and dbt must never see half of it.
    if not (dbt.shared / ".duckdb").exists():
        (fresh / ".duckdb").rename(dbt.shared / ".duckdb")
    shutil.rmtree(fresh, ignore_errors=True)


def _arguments(dbt: Dbt, command: str, spot: Workspot, home: Path) -> list[str | Path]:
    options: dict[str, str | Path] = {
        "--project-dir": spot.project,
        "--profiles-dir": home,
        "--profile": _PROFILE,
        "--target-path": spot.target,
        "--log-path": spot.folder / "logs",
        "--log-level-file": "none",
        "--vars": json.dumps(dict(spot.variables)),
    }
    pairs = [part for option in options.items() for part in option]
    return [dbt.program.absolute(), "--log-format", "json", "--no-use-colors", "--no-version-check", command, *pairs]


def _environment(dbt: Dbt, spot: Workspot, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{dbt.program.absolute().parent}:{os.defpath}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        **spot.profile.environment,
        **telemetry.child_environment(),
    }
