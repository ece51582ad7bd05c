"""That the chart renders from every example of values, always to the same, and from nothing that it does not know."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.tests.rendering import CHART, VALUES_FILES, Helm, Release


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_lint_finds_nothing(helm: Helm, values: Path) -> None:
    result = helm.run("lint", CHART, "--strict", "--values", values)
    assert result.returncode == 0, result.stdout
    assert "[WARNING]" not in result.stdout


@pytest.mark.parametrize("values", ["minimal", "openshift", "everything", "warehouse-elsewhere"])
def test_rendering_twice_gives_the_same_bytes(helm: Helm, values: str) -> None:
    assert helm.template(values) == helm.template(values)


def test_every_example_of_values_is_rendered_here() -> None:
    stems = {path.name.removesuffix("-values.yaml") for path in VALUES_FILES}
    assert stems == {"minimal", "openshift", "everything", "warehouse-elsewhere"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nope=1", "at '': additional properties 'nope' not allowed"),
        ("services.audience.settings.querry_seconds=9", "additional properties 'querry_seconds' not allowed"),
        ("services.audiences.replicas=3", "additional properties 'audiences' not allowed"),
        ("services.audience.settings.dbt_seconds=9", "additional properties 'dbt_seconds' not allowed"),
        ("secrets.databaseUrl.value=postgresql://", "additional properties 'value' not allowed"),
        ("secrets.signingKey.name=", "at '/secrets/signingKey/name': minLength"),
        ("temporal.address=", "at '/temporal/address'"),
        ("ingress.enabled=true", "at '/ingress/host': minLength"),
        ("traces.exporter=otlp", "at '/traces/endpoint'"),
        ("image.services.digest=latest", "at '/image/services/digest'"),
        ("security.runAsUser=0", "at '/security/runAsUser'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(helm: Helm, setting: str, message: str) -> None:
    values = CHART / "ci" / "minimal-values.yaml"
    result = helm.run("template", "traitmesh", CHART, "--values", values, "--set", setting)
    assert result.returncode != 0
    assert message in result.stderr


def test_names_stay_within_what_kubernetes_allows(helm: Helm) -> None:
    release = helm.release("minimal", f"fullnameOverride={'n' * 42}")
    assert max(len(resource["metadata"]["name"]) for resource in release.resources) == 63


def test_notes_name_what_exists(helm: Helm, everything: Release) -> None:
    values = CHART / "ci" / "everything-values.yaml"
    notes = helm.run("install", "traitmesh", CHART, "--dry-run=client", "--namespace", "tm", "--values", values)
    assert "kubectl -n tm exec deploy/tm-gateway -- python -m services.gateway key create" in notes.stdout
    assert "https://traits.example.com/v1/workspaces" in notes.stdout
    assert "tm-gateway" in everything.named("Deployment")


def test_readme_lists_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    processes = values.pop("services")
    paths = {*_leaves(values, ""), *_leaves(processes["gateway"], "services.<process>.")}
    lines = (CHART / "README.md").read_text().partition("## Values")[2].splitlines()
    assert {line.split("`")[1] for line in lines if line.startswith("| `")} == paths


def _leaves(values: Any, prefix: str) -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        nested = isinstance(value, dict) and value and key != "resources"
        found += _leaves(value, f"{prefix}{key}.") if nested else [prefix + key]
    return found
