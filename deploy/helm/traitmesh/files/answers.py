"""That the release works together: what `helm test` runs, with the gateway's settings and its address as argument.

It makes a key for a day, asks each service something through the gateway, and revokes the key.
"""

import http.client
import subprocess
import sys

KEY_COMMAND = (sys.executable, "-m", "services.gateway", "key")

#: By service, a question that it must answer itself; no workspace has this name, and each may say so.
QUESTIONS = {
    "trait-registry": "/v1/workspaces/helm-test/traits",
    "model-builder": "/v1/workspaces/helm-test/builds",
    "audience": "/v1/workspaces/helm-test/audiences",
    "sync-worker": "/v1/workspaces/helm-test/destinations",
}
ANSWERS = {"gateway": (200,), "who has no key": (401,), **dict.fromkeys(QUESTIONS, (200, 404))}


def main(address: str) -> None:
    """Ends with an error unless every service answers through the gateway at host:port, and only who has a key."""
    create = (*KEY_COMMAND, "create", "--workspace", "-", "--role", "viewer", "--expires-in-days", "1")
    key = subprocess.run(create, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    try:
        found = {service: status(address, path, key) for service, path in QUESTIONS.items()}
    finally:
        subprocess.run((*KEY_COMMAND, "revoke", key.split("_")[1]), check=True)
    found |= {"gateway": status(address, "/readyz"), "who has no key": status(address, "/v1/workspaces")}
    for asked, answer in found.items():
        print(asked, answer, "well" if answer in ANSWERS[asked] else f"and not {ANSWERS[asked][0]}")
    if any(answer not in ANSWERS[asked] for asked, answer in found.items()):
        sys.exit("not everything answers as it should")


def status(address: str, path: str, key: str | None = None) -> int:
    """The HTTP status of the gateway's answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    return connection.getresponse().status


if __name__ == "__main__":
    main(sys.argv[1])
