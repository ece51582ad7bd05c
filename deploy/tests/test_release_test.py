"""That what `helm test` runs is a client like any other, and asks what exists."""

import re

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from deploy.tests.rendering import CHART, Helm, Release, Resource, environment
from services.gateway.__main__ import DESCRIPTORS

ANSWERS = CHART / "files" / "answers.py"


@pytest.fixture(scope="module")
def pod(minimal: Release) -> Resource:
    (found,) = minimal.of("Pod")
    return found


def test_it_runs_only_when_asked(pod: Resource) -> None:
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_it_satisfies_the_restricted_level(pod: Resource, minimal: Release) -> None:
    assert pod["spec"]["securityContext"] == minimal.pods()["gateway"]["spec"]["securityContext"]
    assert pod["spec"]["containers"][0]["securityContext"] == minimal.containers()["gateway"]["securityContext"]
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_it_is_no_pod_of_a_process(pod: Resource, minimal: Release) -> None:
    labels = pod["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in minimal.of("Service")]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in minimal.of("NetworkPolicy")]
    assert not any(selector.items() <= labels.items() for selector in selectors)


def test_it_has_what_making_a_key_needs(pod: Resource, minimal: Release) -> None:
    (container,) = pod["spec"]["containers"]
    assert environment(container) == environment(minimal.containers()["gateway"])
    assert container["image"] == minimal.containers()["gateway"]["image"]
    assert container["command"][2] == ANSWERS.read_text()


def test_it_asks_the_gateway_by_its_service(everything: Release) -> None:
    (pod,) = everything.of("Pod")
    assert pod["spec"]["containers"][0]["args"] == ["tm-gateway:8080"]


def test_it_may_call_where_clients_are_limited(helm: Helm) -> None:
    release = helm.release("openshift")
    (pod,) = release.of("Pod")
    (ingress,) = release.named("NetworkPolicy")["traitmesh-gateway"]["spec"]["ingress"]
    assert ingress["from"][1]["podSelector"]["matchLabels"] == pod["metadata"]["labels"]


def test_its_questions_exist() -> None:
    files = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    methods = [method for file in files.file for service in file.service for method in service.method]
    paths = {method.options.Extensions[annotations_pb2.http].get for method in methods}
    asked = re.findall(r'"(/v1/workspaces/helm-test/\w+)"', ANSWERS.read_text())
    assert len(asked) == 4
    assert {path.replace("workspaces/helm-test", "{parent=workspaces/*}") for path in asked} <= paths
