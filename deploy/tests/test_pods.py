"""That pods are safe, find their secrets and files, and come and go without a call being lost."""

import pytest

from deploy.tests.rendering import COMPONENT, CONTAINERFILE, Helm, Release, environment, selects

DATABASE = ("odd-database", "odd.url")
SIGNING = ("odd-signing", "odd.key")
WAREHOUSE = ("odd-warehouse", "odd.lake")
TEMPORAL = ("odd-temporal", "odd.api")

#: Which secrets each process is given; the gateway and the registry have no business with the warehouse.
SECRETS = {
    "gateway": {DATABASE, SIGNING},
    "trait-registry": {DATABASE, SIGNING},
    "audience": {DATABASE, SIGNING, WAREHOUSE},
    "model-builder": {DATABASE, SIGNING, WAREHOUSE, TEMPORAL},
    "model-builder-worker": {DATABASE, SIGNING, WAREHOUSE, TEMPORAL},
    "sync-worker": {DATABASE, SIGNING, WAREHOUSE, TEMPORAL},
    "sync-worker-worker": {DATABASE, SIGNING, WAREHOUSE, TEMPORAL},
}

DEFAULT_NAMES = ["traitmesh-secrets", "database-url", "signing-key", "warehouse-url", "api-key", "tls.crt", "ca.crt"]

SERVERS = {"gateway", "trait-registry", "model-builder", "audience", "sync-worker"}


@pytest.mark.parametrize("values", ["minimal", "openshift", "everything", "warehouse-elsewhere"])
def test_pods_satisfy_the_restricted_level(helm: Helm, values: str) -> None:
    for pod in helm.release(values).pods().values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {key for volume in spec["volumes"] for key in volume} <= {
            "name",
            "emptyDir",
            "persistentVolumeClaim",
            "secret",
        }


def test_the_image_names_a_user_that_kubernetes_can_tell_from_root() -> None:
    users = [line.split()[1] for line in CONTAINERFILE.read_text().splitlines() if line.startswith("USER ")]
    assert users == ["10001:0"]


def test_no_pod_can_call_the_kubernetes_api(minimal: Release) -> None:
    accounts = minimal.named("ServiceAccount")
    for name, pod in minimal.pods().items():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["serviceAccountName"] == f"traitmesh-{name}"
        assert accounts[f"traitmesh-{name}"]["automountServiceAccountToken"] is False


def test_user_and_group_can_be_left_to_the_platform(helm: Helm) -> None:
    for pod in helm.release("openshift").pods().values():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["spec"]["securityContext"].keys()
    given = helm.release("everything").pods()["gateway"]["spec"]["securityContext"]
    assert (given["runAsUser"], given["fsGroup"]) == (1000680000, 1000680000)


def test_each_process_has_its_secrets_by_the_names_given(everything: Release) -> None:
    for name, container in everything.containers().items():
        secrets = {value for value in environment(container).values() if isinstance(value, tuple)}
        assert secrets == SECRETS[name]
    for pod in everything.pods().values():
        (secret,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert secret["secretName"] == "odd-tls"
        assert [item["key"] for item in secret["items"]] == ["odd.crt", "odd.pem", "odd.ca"]


def test_default_names_of_secrets_are_nowhere_when_others_are_given(helm: Helm) -> None:
    given = helm.template("everything")
    assert [name for name in DEFAULT_NAMES if name in given] == []
    defaults = helm.template("minimal")
    assert {name for name in DEFAULT_NAMES if name in defaults} == set(DEFAULT_NAMES[:4])


def test_no_image_comes_from_elsewhere_than_the_registry_given(helm: Helm, everything: Release) -> None:
    for pod in helm.release("openshift").pods().values():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry-login"}]
        assert pod["spec"]["containers"][0]["image"].startswith("registry.example.com/platform/traitmesh/")
    images = {name: container["image"] for name, container in everything.containers().items()}
    assert images["gateway"] == images["audience"] == "odd/one@sha256:" + "1" * 64
    assert images["sync-worker"] == images["model-builder-worker"] == "odd/two:2026.1"


def test_the_data_volume_is_one_claim_for_all_who_share_it(minimal: Release, helm: Helm) -> None:
    (claim,) = minimal.of("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert _mounts(minimal) == {
        "audience": ("traitmesh-data", True),
        "model-builder": ("traitmesh-data", False),
        "model-builder-worker": ("traitmesh-data", False),
        "sync-worker": ("traitmesh-data", False),
        "sync-worker-worker": ("traitmesh-data", False),
    }
    elsewhere = helm.release("warehouse-elsewhere")
    assert elsewhere.of("PersistentVolumeClaim") == []
    assert {name: claim for name, (claim, _) in _mounts(elsewhere).items()} == dict.fromkeys(
        ["model-builder", "model-builder-worker", "sync-worker", "sync-worker-worker"], "odd-claim"
    )


def test_tmp_is_the_only_other_place_to_write_and_has_a_limit(minimal: Release) -> None:
    for pod in minimal.pods().values():
        limits = [volume["emptyDir"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume]
        assert len(limits) == 1
        assert limits[0]["sizeLimit"]
        assert {"name": "tmp", "mountPath": "/tmp"} in pod["spec"]["containers"][0]["volumeMounts"]


def test_memory_is_limited_to_what_is_asked_for(minimal: Release) -> None:
    for container in minimal.containers().values():
        resources = container["resources"]
        assert resources["limits"] == {"memory": resources["requests"]["memory"]}
        assert resources["requests"]["cpu"]


def test_probes_ask_each_server_and_no_worker(minimal: Release, everything: Release) -> None:
    for name, container in minimal.containers().items():
        probes = {key: value for key, value in container.items() if key.endswith("Probe")}
        assert len(probes) == (3 if name in SERVERS else 0)
        for probe in probes.values():
            assert ("httpGet" if name == "gateway" else "grpc") in probe
    gateway = minimal.containers()["gateway"]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert everything.containers()["audience"]["readinessProbe"]["tcpSocket"] == {"port": "grpc"}


def test_a_pod_has_longer_to_end_than_its_work_may_take(everything: Release) -> None:
    for pod in everything.pods().values():
        container = pod["spec"]["containers"][0]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = int(environment(container)["TRAITMESH_DRAIN_SECONDS"])
        assert pod["spec"]["terminationGracePeriodSeconds"] >= pause + drain + 10
    assert everything.pods()["sync-worker-worker"]["spec"]["terminationGracePeriodSeconds"] == 320


def test_budgets_and_spreads_are_for_the_pods_of_their_process(minimal: Release) -> None:
    pods = minimal.pods()
    for budget in minimal.of("PodDisruptionBudget"):
        component = budget["metadata"]["labels"][COMPONENT]
        selector = budget["spec"]["selector"]["matchLabels"]
        assert [name for name, pod in pods.items() if selects(selector, pod)] == [component]
        assert budget["spec"]["maxUnavailable"] == 1
    assert len(minimal.of("PodDisruptionBudget")) == len(pods)
    for name, pod in pods.items():
        spreads = pod["spec"]["topologySpreadConstraints"]
        assert {spread["topologyKey"] for spread in spreads} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        for spread in spreads:
            assert [other for other in pods if selects(spread["labelSelector"]["matchLabels"], pods[other])] == [name]


def _mounts(release: Release) -> dict[str, tuple[str, bool]]:
    """By process, the claim that it mounts at /data, and whether only to read."""
    found = {}
    for name, pod in release.pods().items():
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            if mount["name"] in claims:
                assert mount["mountPath"] == "/data"
                found[name] = (claims[mount["name"]], mount.get("readOnly", False))
    return found
