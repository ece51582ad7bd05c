"""The chart as Kubernetes would get it."""

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
CHART = DEPLOY / "helm" / "traitmesh"
EVALUATION = CHART / "evaluation-values.yaml"
CONTAINERFILE = DEPLOY / "docker" / "Containerfile"
VALUES_FILES = sorted((CHART / "ci").glob("*-values.yaml"))

COMPONENT = "app.kubernetes.io/component"

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Helm:
    """Helm, and how the tests use it."""

    program: Path

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Runs a command on the chart; a failure is in the result."""
        command = [self.program, arguments[0], *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def template(self, values: str, *settings: str) -> str:
        """What the chart renders to with one of its examples of values, and with `key=value` settings on top."""
        overrides = [part for setting in settings for part in ("--set", setting)]
        file = EVALUATION if values == "evaluation" else CHART / "ci" / f"{values}-values.yaml"
        result = self.run("template", "traitmesh", CHART, "--namespace", "tm", "--values", file, *overrides)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def release(self, values: str, *settings: str) -> "Release":
        """The same as resources."""
        return Release([resource for resource in yaml.safe_load_all(self.template(values, *settings)) if resource])


@dataclass(frozen=True)
class Release:
    """All resources of one rendering."""

    resources: list[Resource]

    def of(self, kind: str) -> list[Resource]:
        """The resources of a kind."""
        return [resource for resource in self.resources if resource["kind"] == kind]

    def named(self, kind: str) -> dict[str, Resource]:
        """The resources of a kind by name."""
        return {resource["metadata"]["name"]: resource for resource in self.of(kind)}

    def pods(self) -> dict[str, Resource]:
        """The pod template of each Deployment, by the process that it runs."""
        templates = [deployment["spec"]["template"] for deployment in self.of("Deployment")]
        return {template["metadata"]["labels"][COMPONENT]: template for template in templates}

    def containers(self) -> dict[str, Resource]:
        """The one container of each pod, by process."""
        return {name: pod["spec"]["containers"][0] for name, pod in self.pods().items()}


def environment(container: Resource) -> dict[str, Any]:
    """Each variable's value, or for a secret its (name, key)."""
    found = {}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        found[variable["name"]] = (reference["name"], reference["key"]) if reference else variable["value"]
    return found


def selects(selector: Mapping[str, str], pod: Resource) -> bool:
    """Whether labels that must match do match those of a pod."""
    labels: Mapping[str, str] = pod["metadata"]["labels"]
    return selector.items() <= labels.items()


def image_environment(containerfile: str) -> Iterable[str]:
    """The settings that the images themselves give."""
    words = containerfile.replace("\\\n", " ").split()
    return [word.partition("=")[0] for word in words if word.startswith("TRAITMESH_") and "=" in word]
