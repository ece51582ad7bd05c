"""That the network policies allow the edges that the chart's README draws, and no other."""

from collections.abc import Mapping

from deploy.tests.rendering import CHART, COMPONENT, Helm, Release, Resource, selects

#: A port of its own for each place outside of the chart, by which a rule tells which place it means.
PLACES = {1001: "database", 1002: "warehouse", 1003: "temporal", 1004: "collector", 1005: "destinations", 1006: "dns"}
PORTS = [f"networkPolicy.{place}.ports={{{port}}}" for port, place in PLACES.items()]

Edges = set[tuple[str, str]]


def test_the_edges_are_those_of_the_readme(helm: Helm) -> None:
    release = helm.release("minimal", *PORTS)
    assert _inner_edges(release) | _outer_edges(release) == _documented()


def test_whoever_sends_traces_reaches_the_collector(helm: Helm) -> None:
    release = helm.release("everything", *PORTS)
    collector = {(name, "collector") for name in release.pods()}
    assert _inner_edges(release) | _outer_edges(release) == _documented() | collector


def test_all_else_is_denied_both_ways_to_every_pod(minimal: Release) -> None:
    (deny,) = [policy for policy in minimal.of("NetworkPolicy") if not {"ingress", "egress"} & policy["spec"].keys()]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for pod in minimal.pods().values():
        assert selects(deny["spec"]["podSelector"]["matchLabels"], pod)


def test_destinations_are_not_inside(minimal: Release) -> None:
    policy = minimal.named("NetworkPolicy")["traitmesh-sync-worker-worker"]
    (rule,) = [rule for rule in policy["spec"]["egress"] if rule["ports"] == [{"port": 443, "protocol": "TCP"}]]
    (peer,) = rule["to"]
    assert peer["ipBlock"]["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(peer["ipBlock"]["except"])


def test_names_are_asked_over_udp_too(minimal: Release) -> None:
    for name in minimal.pods():
        ports = minimal.named("NetworkPolicy")[f"traitmesh-{name}"]["spec"]["egress"][-1]["ports"]
        assert ports == [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]


def test_peers_given_limit_the_place(everything: Release, helm: Helm) -> None:
    egress = everything.named("NetworkPolicy")["tm-gateway"]["spec"]["egress"]
    assert {"ports": [{"port": 6432, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]} in egress
    (ingress,) = helm.release("openshift").named("NetworkPolicy")["traitmesh-gateway"]["spec"]["ingress"]
    assert ingress["from"][0]["namespaceSelector"]["matchLabels"] == {
        "network.openshift.io/policy-group": "ingress",
    }


def test_policies_can_be_left_out(helm: Helm) -> None:
    assert helm.release("warehouse-elsewhere").of("NetworkPolicy") == []


def _documented() -> Edges:
    text = (CHART / "README.md").read_text().partition("## Who talks to whom")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {(caller, target.strip()) for caller, targets in rows[2:] for target in targets.split(",")}


def _inner_edges(release: Release) -> Edges:
    """Who may call whom: the caller's policies let it out, and those of the called let it in, on the same port."""
    pods = release.pods()
    out = {(*edge,) for name in pods for edge in _allowed(release, name, "egress", "to")}
    back = {(other, name, port) for name in pods for _, other, port in _allowed(release, name, "ingress", "from")}
    # A rule for one direction alone would be an edge that somebody forgot half of.
    assert out == back
    for _, called, port in out:
        assert port in {one["containerPort"] for one in pods[called]["spec"]["containers"][0]["ports"]}
    return {(caller, called) for caller, called, _ in out}


def _allowed(release: Release, name: str, direction: str, side: str) -> set[tuple[str, str, int]]:
    """(the process, another process, port) for each rule of the process's policies that names pods of the release."""
    found = set()
    for rule in _rules(release, name, direction):
        for peer in rule.get(side, []):
            for other, pod in release.pods().items():
                if selects(_pod_labels(peer), pod):
                    found |= {(name, other, port["port"]) for port in rule["ports"]}
    return found


def _outer_edges(release: Release) -> Edges:
    edges: Edges = set()
    for name in release.pods():
        for rule in _rules(release, name, "egress"):
            edges |= {(name, PLACES[port["port"]]) for port in rule["ports"] if port["port"] in PLACES}
        for rule in _rules(release, name, "ingress"):
            if not any("podSelector" in peer for peer in rule.get("from", [])):
                edges.add(("clients", name))
    return edges


def _rules(release: Release, name: str, direction: str) -> list[Resource]:
    pod = release.pods()[name]
    policies = [policy["spec"] for policy in release.of("NetworkPolicy") if selects(_pod_labels(policy["spec"]), pod)]
    return [rule for policy in policies for rule in policy.get(direction, [])]


def _pod_labels(holder: Resource) -> Mapping[str, str]:
    """The labels that a policy's or a peer's selector asks for; none that any pod has if it selects no pods."""
    labels: Mapping[str, str] = holder.get("podSelector", {}).get("matchLabels", {COMPONENT: ""})
    return labels
