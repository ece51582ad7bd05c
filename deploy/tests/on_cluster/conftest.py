"""A release on a real cluster, and a company that uses it.

Nothing here runs unless it is asked for, by `python -m pytest deploy/tests/on_cluster/proof.py`. KUBECONFIG says which
cluster; the files of values that CLUSTER_VALUES names, separated by colons, say where its images are.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.tests.on_cluster.cluster import RELEASE, Cluster
from deploy.tests.rendering import DEPLOY
from traitmesh import Client

TUSK = DEPLOY.parent / "examples" / "tusk"
USERS, EVENTS = 200, 4000

ARRIVE = "BEGIN PERFORM pg_sleep(0.05); INSERT INTO arrivals VALUES (NEW.user_id); RETURN NEW; END"


@dataclass(frozen=True)
class Company:
    """A workspace as its people see it: the command line, and the client behind it."""

    client: Client
    url: str
    api_key: str = field(repr=False)

    def run(self, *arguments: str | Path) -> str:
        """The output of a `traitmesh` command, which must succeed."""
        access = {"TRAITMESH_URL": self.url, "TRAITMESH_API_KEY": self.api_key, "TRAITMESH_WORKSPACE": "tusk"}
        command = [sys.executable, "-m", "traitmesh.cli", *arguments]
        done = subprocess.run(
            command, env=os.environ | access, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace that lets in only what satisfies the Pod Security level `restricted`; removed at the end."""
    values = [Path(name) for name in os.environ.get("CLUSTER_VALUES", "").split(":") if name]
    made = Cluster(f"traitmesh-proof-{secrets.token_hex(3)}", values)
    made.kubectl("create", "namespace", made.namespace)
    try:
        levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        made.kubectl("label", "namespace", made.namespace, *levels)
        yield made
    finally:
        made.kubectl("delete", "namespace", made.namespace, "--timeout=5m")


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Cluster:
    """The release as for an evaluation, with a second worker, small batches and a claim that is kept."""
    settings = {
        "data.keep": "true",
        "evaluation.password": secrets.token_hex(24),
        "services.sync-worker-worker.replicas": "2",
        "services.sync-worker-worker.settings.batch_records": "20",
    }
    cluster.apply_release("install", **settings)
    return cluster


@pytest.fixture(scope="session")
def api_key(release: Cluster) -> str:
    """A key for every workspace, made as the chart's notes say."""
    command = ("python", "-m", "services.gateway", "key", "create", "--workspace", "-", "--role", "admin")
    return release.kubectl("exec", "deploy/traitmesh-gateway", "--", *command).split()[-1]


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small Tusk's events."""
    folder = tmp_path_factory.mktemp("events")
    size = ["--users", str(USERS), "--events", str(EVENTS), "--seed", "7"]
    subprocess.run([sys.executable, TUSK / "generate.py", *size, "--out", folder], check=True, capture_output=True)
    return sorted(folder.glob("*.ndjson.gz"))


@pytest.fixture(scope="session")
def tusk(release: Cluster, api_key: str, events: list[Path]) -> Iterator[Company]:
    """The demo company from outside of the cluster, with events loaded, an audience and a build."""
    with release.forwarded("traitmesh-gateway", 80) as address:
        url = f"http://{address}"
        company = Company(Client(url, api_key, "tusk"), url, api_key)
        company.run("workspace", "create", "tusk")
        company.run("events", "load", *events)
        company.run("project", "push", TUSK / "dbt", "--name", "tusk")
        company.run("notebook", "push", TUSK / "notebooks" / "churn.ipynb")
        audience = "started_without_purchase"
        company.run("audience", "create", audience, TUSK / "audiences" / f"{audience}.json")
        company.run("build", "run")
        yield company


@pytest.fixture(scope="session")
def crm_url(release: Cluster) -> str:
    """A database that is slow on purpose, so that a sync has a middle; it notes each row that arrives."""
    release.sql("CREATE DATABASE crm")
    for statement in (
        "CREATE TABLE users (user_id text PRIMARY KEY, country text)",
        "CREATE TABLE arrivals (user_id text)",
        f"CREATE FUNCTION arrive() RETURNS trigger LANGUAGE plpgsql AS '{ARRIVE}'",
        "CREATE TRIGGER arrive BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION arrive()",
    ):
        release.sql(statement, "crm")
    password = release.settings["evaluation.password"]
    return f"postgresql://{RELEASE}:{password}@traitmesh-evaluation/crm"
