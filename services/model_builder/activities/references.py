"""What workflows hand to activities and get back: names and counts, since histories are read by many."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """The archive of a dbt project, by the hash of its content."""

    workspace: str
    sha256: str


@dataclass(frozen=True)
class BuildPlan:
    """The projects and notebooks that a build runs, by id."""

    projects: list[str]
    notebooks: list[str]


@dataclass(frozen=True)
class ProjectOfBuild:
    """One project in one build."""

    build: str
    project: str


@dataclass(frozen=True)
class NotebookOfBuild:
    """One notebook in one build."""

    build: str
    notebook: str


@dataclass(frozen=True)
class StagedBuild:
    """A build, and the table that holds all of its traits."""

    build: str
    table: str


@dataclass(frozen=True)
class FailureOf:
    """A build or load that fails, at which step and why."""

    name: str
    step: str
    reason: str
