"""That the chart works on a real cluster: what only an API server, a kubelet and a kernel can prove.

Run in this order; plain `pytest` does not collect this file, which asks for a cluster.
"""

import json
import time
from pathlib import Path

import pytest

from deploy.tests.on_cluster.cluster import PROCESSES, RELEASE, Cluster, inspection
from deploy.tests.on_cluster.conftest import USERS, Company
from deploy.tests.rendering import CHART, COMPONENT, VALUES_FILES, Resource

REPLICAS = {
    "gateway": 1,
    "trait-registry": 1,
    "model-builder": 1,
    "model-builder-worker": 1,
    "audience": 1,
    "sync-worker": 1,
    "sync-worker-worker": 2,
}


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_the_api_server_accepts_every_example_of_values(cluster: Cluster, values: Path) -> None:
    rendered = cluster.helm("template", RELEASE, str(CHART), "--values", str(values))
    checked = ("--dry-run=server", "--validate=strict", "--warnings-as-errors")
    cluster.kubectl("apply", *checked, "-f", "-", given=rendered)


def test_every_process_is_ready(release: Cluster) -> None:
    found = [pod["metadata"]["labels"][COMPONENT] for pod in release.pods()]
    assert {name: found.count(name) for name in found} == REPLICAS
    assert all(status["ready"] for status in _statuses(release))


@pytest.mark.parametrize("process", REPLICAS)
def test_a_process_can_do_no_more_than_it_must(release: Cluster, process: str) -> None:
    found = inspection(release, release.pods(process)[0])
    assert found["user"] != 0
    assert (int(found["CapEff"], 16), found["NoNewPrivs"], found["Seccomp"]) == (0, "1", "2")
    assert found["/"] == found["/app"] == "Read-only file system"
    assert found["/tmp"] == "written"


def test_each_service_has_migrated_its_schema(release: Cluster) -> None:
    tables = release.sql("SELECT schemaname FROM pg_tables WHERE tablename = 'alembic_version' ORDER BY 1")
    assert tables.split() == ["audience", "gateway", "model", "registry", "sync"]


def test_helm_test_succeeds(release: Cluster) -> None:
    assert "Phase:          Succeeded" in release.helm("test", RELEASE)


def test_an_audience_goes_from_events_to_a_profile(tusk: Company) -> None:
    build = tusk.client.get("builds/latest")
    assert build["state"] == "STATE_SUCCEEDED"
    assert {"churn_probability", "ltv"} <= {
        trait["name"].split("/")[-1] for trait in tusk.client.pages("traits", "traits")
    }
    assert f"of {USERS} users" in tusk.run("audience", "size", "started_without_purchase")
    assert "traitmesh.events" in tusk.run("profile", "tusk-0000001", "--provenance")


def test_a_run_goes_on_elsewhere_when_its_pod_is_lost(release: Cluster, tusk: Company, crm_url: str) -> None:
    tusk.run(
        "destination", "create", "crm", "--connector", "destination-postgres", "--config", json.dumps({"url": crm_url})
    )
    order = (
        "--destination",
        "crm",
        "--object",
        "public.users",
        "--mode",
        "mirror",
        "--map",
        "user_id",
        "--map",
        "country",
    )
    tusk.run("sync", "create", "crm", *order)
    tusk.run("sync", "run", "crm", "--detach")
    _wait_until_confirmed(tusk, 20)
    victim = _who_sends(release)
    release.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    run = tusk.client.get("syncs/crm/runs/1")
    assert int(run["confirmedCount"]) < int(run["plannedCount"]), "the pod was lost too late"
    tusk.run("run", "watch", "crm/1")
    assert victim not in {pod["metadata"]["name"] for pod in release.pods()}
    rows, users, arrivals = (
        int(release.sql(f"SELECT count({what}) FROM {table}", "crm"))
        for what, table in (("*", "users"), ("DISTINCT user_id", "arrivals"), ("*", "arrivals"))
    )
    assert rows == users == arrivals == int(tusk.client.get("builds/latest")["rowCount"])


def test_an_upgrade_fails_no_request(release: Cluster, tusk: Company, api_key: str) -> None:
    before = {pod["metadata"]["name"] for pod in release.pods()}
    parts = ("traits", "builds", "audiences", "destinations")
    release.start_asking(api_key, "/readyz", *(f"/v1/workspaces/tusk/{part}" for part in parts))
    release.apply_release("upgrade", logLevel="debug")
    for pod in before:
        release.kubectl("wait", "--for=delete", f"pod/{pod}", "--timeout=120s")
    answers = release.stop_asking()
    assert {status["restartCount"] for status in _statuses(release)} == {0}
    assert before.isdisjoint(pod["metadata"]["name"] for pod in release.pods())
    assert answers.keys() == {"200"}
    assert answers["200"] > 100


def test_nothing_is_left_but_the_claim_that_is_kept(release: Cluster) -> None:
    release.helm("uninstall", RELEASE, "--wait", "--timeout", "5m")
    release.kubectl("wait", "--for=delete", "pods", "--all", "--timeout=120s")
    kinds = release.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    # Events are the cluster's diary; the rest is in every namespace.
    kinds = [kind for kind in kinds if not kind.startswith("events")]
    left = release.kubectl("get", ",".join(kinds), "-o", "name", "--ignore-not-found").split()
    assert set(left) == {"configmap/kube-root-ca.crt", "serviceaccount/default", "persistentvolumeclaim/traitmesh-data"}


def _statuses(cluster: Cluster) -> list[Resource]:
    """What the kubelet says of each container."""
    return [status for pod in cluster.pods() for status in pod["status"]["containerStatuses"]]


def _wait_until_confirmed(company: Company, records: int) -> None:
    deadline = time.monotonic() + 60
    while int(company.client.get("syncs/crm/runs/1").get("confirmedCount", 0)) < records:
        assert time.monotonic() < deadline, f"{records} records were not confirmed in time"
        time.sleep(0.2)


def _who_sends(cluster: Cluster) -> str:
    """The pod that has the connector's process."""
    names: list[str] = [pod["metadata"]["name"] for pod in cluster.pods("sync-worker-worker")]
    (sender,) = [name for name in names if "bin/destination-postgres" in cluster.python(name, PROCESSES)]
    return sender
