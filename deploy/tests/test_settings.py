"""That each process gets every setting that it reads, and no other."""

import importlib
import json
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from deploy.tests.rendering import (
    CHART,
    CONTAINERFILE,
    DEPLOY,
    Helm,
    Release,
    Resource,
    environment,
    image_environment,
)
from libs.kit.settings import Settings, TemporalSettings

PROCESSES = [
    "audience",
    "gateway",
    "model-builder",
    "model-builder-worker",
    "sync-worker",
    "sync-worker-worker",
    "trait-registry",
]

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="session")
def complete(helm: Helm) -> Release:
    """With all optional secrets, and no setting but those that the chart itself gives."""
    return helm.release("minimal", "secrets.tls.name=tls", "secrets.temporalApiKey.name=temporal")


def test_every_process_is_listed_here(minimal: Release) -> None:
    assert sorted(minimal.pods()) == PROCESSES


@pytest.mark.parametrize("process", PROCESSES)
def test_what_has_no_default_that_fits_a_cluster_is_given(minimal: Release, process: str) -> None:
    container = minimal.containers()[process]
    given = {*environment(container), *image_environment(CONTAINERFILE.read_text())}
    needed = {name for name, field in _fields(container).items() if _must_be_given(field, container)}
    assert needed <= given


@pytest.mark.parametrize("process", PROCESSES)
def test_nothing_is_given_that_the_service_does_not_read(everything: Release, process: str) -> None:
    container = everything.containers()[process]
    given = {name for name in environment(container) if name.startswith("TRAITMESH_")}
    assert given <= _fields(container).keys()


@pytest.mark.parametrize("process", PROCESSES)
def test_what_the_chart_leaves_alone_may_be_set_by_value(complete: Release, process: str) -> None:
    container = complete.containers()[process]
    given = {*environment(container), *image_environment(CONTAINERFILE.read_text())}
    free = {name for name, field in _fields(container).items() if name not in given and not _is_own_address(field)}
    assert _settings_of(process) == {name.removeprefix("TRAITMESH_").lower() for name in free}


@pytest.mark.parametrize("process", PROCESSES)
def test_the_service_understands_what_it_is_given(
    everything: Release, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = everything.containers()[process]
    given = {name: value for name, value in environment(container).items() if name.startswith("TRAITMESH_")}
    images = dict.fromkeys(image_environment(CONTAINERFILE.read_text()), "/opt/traitmesh")
    for name, value in {**images, **given}.items():
        monkeypatch.setenv(name, "a secret of 32 characters or more" if isinstance(value, tuple) else value)
    own, *_ = [settings() for settings in _settings_classes(container)]
    assert isinstance(own, Settings)
    assert own.drain_seconds == int(given["TRAITMESH_DRAIN_SECONDS"])
    assert own.tls_key == Path("/etc/traitmesh/tls/key.pem")


def test_numbers_are_written_out(everything: Release) -> None:
    containers = everything.containers()
    assert environment(containers["model-builder"])["TRAITMESH_MAX_UPLOAD_BYTES"] == "8589934592"
    assert environment(containers["audience"])["TRAITMESH_QUERY_SECONDS"] == "2.5"


def test_addresses_lead_to_every_pod_of_the_service(everything: Release) -> None:
    services = everything.named("Service")
    pods = everything.pods().values()
    found = set()
    for container in everything.containers().values():
        for value in environment(container).values():
            if not str(value).startswith("dns:///"):
                continue
            name, _, port = value.removeprefix("dns:///").partition(":")
            service = services[name]["spec"]
            assert service["clusterIP"] == "None"
            assert service["ports"][0]["port"] == int(port)
            (pod,) = [pod for pod in pods if service["selector"].items() <= pod["metadata"]["labels"].items()]
            named = {one["name"]: one["containerPort"] for one in pod["spec"]["containers"][0]["ports"]}
            assert named[service["ports"][0]["targetPort"]] == int(port)
            found.add(name)
    assert found == {"tm-trait-registry", "tm-model-builder", "tm-audience", "tm-sync-worker"}


def test_servers_listen_on_the_port_that_is_probed(minimal: Release) -> None:
    for container in minimal.containers().values():
        for port in container.get("ports", []):
            own = f"0.0.0.0:{port['containerPort']}"
            assert own in environment(container).values()


def _fields(container: Resource) -> dict[str, FieldInfo]:
    """The settings that a process reads, by variable."""
    return {
        f"{each.model_config['env_prefix']}{name}".upper(): field
        for each in _settings_classes(container)
        for name, field in each.model_fields.items()
    }


def _settings_classes(container: Resource) -> list[type[BaseSettings]]:
    module = container["args"][0]
    config = importlib.import_module(f"{module}.config")
    classes = [each for each in vars(config).values() if isinstance(each, type) and each.__module__ == config.__name__]
    settings = [each for each in classes if issubclass(each, BaseSettings)]
    main = DEPLOY.parent / module.replace(".", "/") / "__main__.py"
    if "TemporalSettings" in main.read_text():
        settings.append(TemporalSettings)
    return settings


def _must_be_given(field: FieldInfo, container: Resource) -> bool:
    if _is_own_address(field):
        return "serve" in container["args"]
    return field.is_required() or isinstance(field.default, Path) or LOOPBACK in str(field.default)


def _is_own_address(field: FieldInfo) -> bool:
    return (field.description or "").startswith("host:port to serve")


def _settings_of(process: str) -> set[str]:
    schema = json.loads((CHART / "values.schema.json").read_text())
    reference = schema["properties"]["services"]["properties"][process]["properties"]["settings"]["$ref"]
    return set(schema["$defs"][reference.rpartition("/")[2]]["properties"])
