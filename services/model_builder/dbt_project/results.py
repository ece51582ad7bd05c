"""What the results of `dbt build` mean for the traits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.model_builder.dbt_project.command import without_values
from services.model_builder.dbt_project.declaration import table_of
from services.model_builder.domain import Failure, Trait

#: The kinds of nodes that make a table.
_RELATIONS = {"model", "seed", "snapshot"}
_FAILED = {"error", "fail", "runtime error"}


@dataclass(frozen=True)
class Verdict:
    """How many models and tests ran, how many of them only warned, and why the build must not be published."""

    models: int
    tests: int
    warned: int
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        """As a build shows it: "5 models, 40 tests"."""
        return f"{self.models} models, {self.tests} tests" + (f", {self.warned} warned" if self.warned else "")


def judge(manifest: Mapping[str, Any], results: Mapping[str, Any], traits: Sequence[Trait]) -> Verdict:
    """Reads manifest.json (v12) and run_results.json (v6): one failure per failed node and trait that it holds for."""
    ran = Counter(_kind(result) for result in results["results"] if result["status"] != "skipped")
    warned = sum(result["status"] == "warn" for result in results["results"])
    failed = [result for result in results["results"] if result["status"] in _FAILED]
    failures = [failure for result in failed for failure in _failures_of(manifest, result, traits)]
    return Verdict(ran["model"], ran["test"] + ran["unit_test"], warned, tuple(failures))


def _kind(result: Mapping[str, Any]) -> str:
    return str(result["unique_id"].partition(".")[0])


def _failures_of(manifest: Mapping[str, Any], result: Mapping[str, Any], traits: Sequence[Trait]) -> list[Failure]:
    node = _node(manifest, result["unique_id"])
    reason = _reason(result)
    concerned = _concerned(manifest, result["unique_id"], node, traits)
    return [Failure(trait, node["name"], reason) for trait in concerned or [""]]


def _concerned(
    manifest: Mapping[str, Any], unique_id: str, node: Mapping[str, Any], traits: Sequence[Trait]
) -> list[str]:
    """The traits that a node is about: a column's test holds for its trait, any other for all below its model."""
    tested = node.get("attached_node") or (unique_id if node["resource_type"] in _RELATIONS else None)
    if tested is not None and node.get("column_name"):
        column = f"{table_of(_node(manifest, tested))}.{node['column_name']}"
        exactly = [trait.id for trait in traits if trait.column == column]
        if exactly:
            return exactly
    roots = [tested] if tested is not None else node["depends_on"]["nodes"]
    below = _closure(manifest["child_map"], roots)
    tables = {table_of(_node(manifest, found)) for found in below if found.startswith("model.")}
    return [trait.id for trait in traits if trait.table in tables]


def _closure(children: Mapping[str, Sequence[str]], roots: Sequence[str]) -> set[str]:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if found not in reached:
            reached.add(found)
            waiting.extend(children.get(found, ()))
    return reached


def _node(manifest: Mapping[str, Any], unique_id: str) -> dict[str, Any]:
    for kind in ("nodes", "sources", "unit_tests"):
        if unique_id in manifest[kind]:
            node: dict[str, Any] = manifest[kind][unique_id]
            return node
    raise KeyError(unique_id)


def _reason(result: Mapping[str, Any]) -> str:
    if result["status"] == "fail" and isinstance(result.get("failures"), int):
        return f"{result['failures']} rows break this contract; correct the data or the model, then build again"
    # A unit test's message shows rows, after its first line.
    first = (result.get("message") or result["status"]).strip()
    kept = first.splitlines()[0] if result["unique_id"].startswith("unit_test.") else first
    return without_values(kept)[:2000]
