"""A namespace of a running cluster, by the programs that an operator uses: kubectl and helm."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.tests.rendering import CHART, COMPONENT, EVALUATION, Resource

RELEASE = "traitmesh"

#: What is told of a pod by the kernel, and by trying; run in the pod.
INSPECTION = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found = {name: status[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")}
found["user"] = os.getuid()
for folder in ("/", "/app", "/tmp"):
    try:
        open(os.path.join(folder, "written"), "w").close()
        found[folder] = "written"
    except OSError as error:
        found[folder] = error.strerror
print(json.dumps(found))
"""

#: The processes of a pod by what they run.
PROCESSES = """
import glob
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        print(open(path).read().replace(chr(0), " "))
    except OSError:
        pass
"""

#: Asks each address over a new connection, again and again until /tmp/stop is there; prints how it went.
ASKING = """
import collections, json, os, sys, time, urllib.request
answers = collections.Counter()
while not os.path.exists("/tmp/stop"):
    for url in sys.argv[1:]:
        request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["KEY"]})
        try:
            answers[str(urllib.request.urlopen(request, timeout=30).status)] += 1
        except Exception as error:
            answers[repr(error)] += 1
    time.sleep(0.01)
print(json.dumps(answers))
"""

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that kubectl reaches by default; `values` are files of values for each release."""

    namespace: str
    values: Sequence[Path]
    settings: dict[str, str] = field(default_factory=dict, repr=False)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What kubectl prints; a command that fails fails the test."""
        return _run("kubectl", "-n", self.namespace, *arguments, given=given)

    def helm(self, *arguments: str) -> str:
        """The same of helm."""
        return _run("helm", "-n", self.namespace, *arguments)

    def apply_release(self, command: str, **settings: str) -> None:
        """Installs or upgrades the release and waits for it; settings are added to those given before."""
        self.settings.update(settings)
        files = [part for path in (EVALUATION, *self.values) for part in ("--values", str(path))]
        set_ones = [part for name, value in self.settings.items() for part in ("--set", f"{name}={value}")]
        self.helm(command, RELEASE, str(CHART), *files, *set_ones, "--wait", "--timeout", "10m")

    def pods(self, component: str = "") -> list[Resource]:
        """The release's pods that are not about to end, of one process or of all."""
        selector = f"app.kubernetes.io/name={RELEASE}" + (f",{COMPONENT}={component}" if component else "")
        found = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def python(self, pod: str, program: str) -> str:
        """What a Python program prints in a pod."""
        return self.kubectl("exec", pod, "--", "python", "-c", program)

    def sql(self, statement: str, database: str = RELEASE) -> str:
        """What PostgreSQL of the evaluation answers, a row a line."""
        psql = ("psql", "-h", "127.0.0.1", "-U", RELEASE, "-d", database, "-v", "ON_ERROR_STOP=1", "-qtAc", statement)
        return self.kubectl("exec", "deploy/traitmesh-evaluation", "-c", "postgres", "--", *psql).strip()

    def start_asking(self, key: str, *paths: str) -> None:
        """Starts the pod `asking`, which asks the gateway's Service for each path without end."""
        urls = [f"http://traitmesh-gateway{path}" for path in paths]
        container = {
            "name": "asking",
            "image": self.pods("gateway")[0]["spec"]["containers"][0]["image"],
            "command": ["python", "-c", ASKING, *urls],
            "env": [{"name": "KEY", "value": key}],
            "securityContext": RESTRICTED,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "asking"},
            "spec": {"containers": [container], "restartPolicy": "Never"},
        }
        self.kubectl("apply", "-f", "-", given=json.dumps(pod))
        self.kubectl("wait", "--for=condition=Ready", "pod/asking", "--timeout=60s")

    def stop_asking(self) -> dict[str, int]:
        """Ends that pod; returns how often there was each HTTP status, or error."""
        self.kubectl("exec", "asking", "--", "touch", "/tmp/stop")
        self.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asking", "--timeout=60s")
        answers: dict[str, int] = json.loads(self.kubectl("logs", "asking"))
        self.kubectl("delete", "pod", "asking", "--wait=false")
        return answers

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[str]:
        """The address on this machine at which a Service answers, within the block."""
        command = ["kubectl", "-n", self.namespace, "port-forward", f"service/{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            assert forwarding.stdout is not None
            try:
                # Its first line is: Forwarding from 127.0.0.1:40123 to 7400.
                yield forwarding.stdout.readline().split()[2]
            finally:
                forwarding.terminate()


def inspection(cluster: Cluster, pod: Resource) -> dict[str, Any]:
    """What INSPECTION finds in a pod."""
    found: dict[str, Any] = json.loads(cluster.python(pod["metadata"]["name"], INSPECTION))
    return found


def _run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        print(done.stdout, done.stderr, file=sys.stderr)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}"
    return done.stdout
