"""That the optional PostgreSQL and Temporal are where the values for an evaluation say, and nowhere else."""

import pytest

from deploy.local import temporal
from deploy.tests.rendering import CHART, EVALUATION, Helm, Release, Resource, environment, selects
from libs.kit.temporal import SEARCH_ATTRIBUTES

PASSWORD = "0123456789abcdefghijABCDEFGHIJ0123"
NAME = "traitmesh-evaluation"


@pytest.fixture(scope="module")
def evaluation(helm: Helm) -> Release:
    return helm.release("evaluation", f"evaluation.password={PASSWORD}")


@pytest.fixture(scope="module")
def servers(evaluation: Release) -> Resource:
    """The pod of PostgreSQL and Temporal."""
    template: Resource = evaluation.named("Deployment")[NAME]["spec"]["template"]
    return template


def test_lint_finds_nothing(helm: Helm) -> None:
    setting = f"evaluation.password={PASSWORD}"
    result = helm.run("lint", CHART, "--strict", "--values", EVALUATION, "--set", setting)
    assert result.returncode == 0, result.stdout
    assert "[WARNING]" not in result.stdout


def test_without_being_asked_for_it_is_not_there(minimal: Release) -> None:
    assert [resource for resource in minimal.resources if NAME in resource["metadata"]["name"]] == []
    assert minimal.of("Secret") == []


@pytest.mark.parametrize("password", ["", "short", "has/a/slash/that/breaks/an/url/0123456789"])
def test_a_password_that_is_short_or_breaks_a_url_is_refused(helm: Helm, password: str) -> None:
    setting = f"evaluation.password={password}"
    result = helm.run("template", "traitmesh", CHART, "--values", EVALUATION, "--set", setting)
    assert result.returncode != 0
    assert "at '/password'" in result.stderr


def test_rendering_twice_gives_the_same_bytes(helm: Helm) -> None:
    setting = f"evaluation.password={PASSWORD}"
    assert helm.template("evaluation", setting) == helm.template("evaluation", setting)


def test_every_secret_that_processes_read_is_made(evaluation: Release) -> None:
    made = evaluation.named("Secret")
    for deployment in evaluation.of("Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            for reference in environment(container).values():
                if isinstance(reference, tuple):
                    assert reference[1] in made[reference[0]]["stringData"]
    keys = made[NAME]["stringData"]
    assert len(keys["signing-key"]) >= 32
    assert keys["signing-key"] != keys["password"]


def test_addresses_lead_to_its_service(evaluation: Release, servers: Resource) -> None:
    service = evaluation.named("Service")[NAME]["spec"]
    assert selects(service["selector"], servers)
    ports = {port["name"]: port["containerPort"] for c in servers["spec"]["containers"] for port in c["ports"]}
    assert {port["port"]: ports[port["targetPort"]] for port in service["ports"]} == {
        5432: 5432,
        7233: 7233,
        8233: 8233,
    }
    worker = evaluation.named("Deployment")["traitmesh-sync-worker-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert environment(worker)["TRAITMESH_TEMPORAL_ADDRESS"] == f"{NAME}:7233"
    assert f"@{NAME}:5432/" in evaluation.named("Secret")[NAME]["stringData"]["database-url"]


def test_temporal_is_the_one_of_the_local_stack(servers: Resource) -> None:
    (container,) = [each for each in servers["spec"]["containers"] if each["name"] == "temporal"]
    assert container["image"].endswith(f":{temporal.VERSION}")
    given = {argument for argument in container["args"] if argument.startswith("--search-attribute")}
    assert given == {f"--search-attribute={key.name}=Keyword" for key in SEARCH_ATTRIBUTES}


def test_its_pod_satisfies_the_restricted_level(servers: Resource) -> None:
    spec = servers["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_only_processes_of_the_release_and_its_test_may_call_it(evaluation: Release, servers: Resource) -> None:
    policy = evaluation.named("NetworkPolicy")[NAME]["spec"]
    assert selects(policy["podSelector"]["matchLabels"], servers)
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [5432, 7233]
    (peer,) = rule["from"]
    (expression,) = peer["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == {"traitmesh", "traitmesh-test"}
    for name in ("traitmesh-deny", "traitmesh-gateway"):
        assert not selects(evaluation.named("NetworkPolicy")[name]["spec"]["podSelector"]["matchLabels"], servers)


def test_it_fits_a_small_node(evaluation: Release) -> None:
    requests = [
        container["resources"]["requests"]
        for deployment in evaluation.of("Deployment")
        for container in deployment["spec"]["template"]["spec"]["containers"]
    ]
    assert sum(int(request["cpu"].removesuffix("m")) for request in requests) <= 500
    assert sum(int(request["memory"].removesuffix("Mi")) for request in requests) <= 3072


def test_no_claim_outlives_an_evaluation(evaluation: Release) -> None:
    claims = evaluation.of("PersistentVolumeClaim")
    assert {claim["metadata"]["name"] for claim in claims} == {NAME, "traitmesh-data"}
    assert all("annotations" not in claim["metadata"] for claim in claims)
