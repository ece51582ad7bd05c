"""The whole journey over the public face: event -> trait -> model -> audience -> sync -> profile."""

import json
import re
from pathlib import Path

import httpx
import pytest

from deploy.local.stack import Stack
from tests.conftest import SLACK_TOKEN, TUSK, USERS, Company, rows_at
from traitmesh import ApiError


def test_loading_the_same_events_again_changes_nothing(tusk: Company, event_files: list[Path]) -> None:
    before = [int(load["eventCount"]) for load in tusk.client.pages("loads", "loads")]
    quarantined = tusk.client.get("quarantine")["reasons"]
    tusk.run("events", "load", str(event_files[0]))
    again = next(tusk.client.pages("loads", "loads"))
    assert int(again["eventCount"]) == 0
    assert int(again["duplicateCount"]) > 0
    assert tusk.client.get("quarantine")["reasons"] == quarantined
    assert sum(before) > 0


def test_a_build_makes_a_row_for_each_user(tusk: Company) -> None:
    build = tusk.client.get("builds/latest")
    assert build["state"] == "STATE_SUCCEEDED"
    users = sum(int(load["newUserCount"]) for load in tusk.client.pages("loads", "loads"))
    assert int(build["rowCount"]) == users
    assert users >= USERS * 0.9
    assert {"dbt build tusk", "publish"} <= {step["step"] for step in build["steps"]}


def test_a_trait_is_added_by_a_notebook_and_shows_in_the_difference(tusk: Company) -> None:
    tusk.run("project", "push", str(TUSK / "dbt"), "--name", "tusk", "--overlay", str(TUSK / "next"))
    tusk.run("notebook", "push", str(TUSK / "notebooks" / "churn.ipynb"))
    base = tusk.client.get("builds/latest")["name"]
    output = tusk.run("build", "run")
    assert "auc" in output
    difference = tusk.client.get("builds/latest:compare", base=base)
    assert sorted(difference["addedTraits"]) == ["churn_probability", "win_rate_30d"]
    first = b"".join(tusk.client.stream(f"/v1/{base}:read"))
    second = b"".join(tusk.client.stream("builds/latest:read"))
    assert b"churn_probability" not in first
    assert b"churn_probability" in second


def test_audiences_by_rules_and_by_a_funnel(tusk: Company) -> None:
    for audience in ("loyal_payers_at_risk", "started_without_purchase"):
        tusk.run("audience", "create", audience, str(TUSK / "audiences" / f"{audience}.json"))
    funnel = tusk.client.post(
        "funnels:query", {"funnel": json.loads((TUSK / "funnels" / "chips_to_purchase.json").read_text())}
    )
    estimate = tusk.client.post(
        "audiences:estimate",
        {"audience": "workspaces/tusk/audiences/started_without_purchase", "breakdownTrait": "country"},
    )
    assert int(estimate["size"]) == int(funnel["steps"][1]["stopped"]) > 0
    assert sum(int(bucket["size"]) for bucket in estimate["breakdown"]) == int(estimate["size"])
    tusk.run("build", "run")
    assert "started_without_purchase" in tusk.run("trait", "list")


def test_a_mirror_holds_what_the_model_holds(tusk: Company, crm_url: str) -> None:
    tusk.run(
        "destination", "create", "crm", "--connector", "destination-postgres", "--config", json.dumps({"url": crm_url})
    )
    maps = [part for name in ("user_id", "country", "ltv", "is_payer") for part in ("--map", name)]
    tusk.run("sync", "create", "crm", "--destination", "crm", "--object", "public.users", "--mode", "mirror", *maps)
    preview = tusk.client.get("syncs/crm:preview")
    tusk.run("sync", "run", "crm")
    rows = rows_at(crm_url, "public.users")
    assert len(rows) == int(preview["addedCount"]) == int(tusk.client.get("builds/latest")["rowCount"])
    tusk.run("sync", "run", "crm")
    assert int(tusk.client.get("syncs/crm/runs/2")["plannedCount"]) == 0


def test_a_refusal_parks_the_run_until_it_is_retried(tusk: Company, slack_url: str) -> None:
    config = json.dumps({"token": SLACK_TOKEN, "base_url": slack_url})
    tusk.run("destination", "create", "slack", "--connector", "destination-slack", "--config", config)
    order = ("--audience", "started_without_purchase", "--mode", "insert", "--map", "user_id", "--map", "country")
    tusk.run("sync", "create", "slack", "--destination", "slack", "--object", "growth", *order)
    headers = {"Authorization": f"Bearer {SLACK_TOKEN}"}

    def slack(method: str, **parameters: str) -> dict[str, object]:
        answer: dict[str, object] = httpx.post(slack_url + method, data=parameters, headers=headers).json()
        return answer

    channel = slack("conversations.list")["channels"][0]["id"]  # type: ignore[index]
    assert slack("conversations.archive", channel=channel)["ok"]
    assert "needs attention" in tusk.run("sync", "run", "slack", code=2)
    assert slack("conversations.unarchive", channel=channel)["ok"]
    tusk.run("run", "retry", "slack/1")
    run = tusk.client.get("syncs/slack/runs/1")
    assert run["state"] == "STATE_SUCCEEDED"
    assert int(run["confirmedCount"]) == int(run["plannedCount"]) > 0
    assert slack("conversations.history", channel=channel)["messages"]


def test_a_profile_shows_traits_audiences_and_where_they_come_from(tusk: Company, crm_url: str) -> None:
    user_id = str(rows_at(crm_url, "public.users")[0][0])
    profile = tusk.client.get(f"profiles/{user_id}")
    assert profile["build"] == tusk.client.get("builds/latest")["name"]
    assert {"ltv", "churn_probability", "country"} <= profile["traits"].keys()
    made_of = {line.split()[0]: line for line in tusk.run("profile", user_id, "--provenance").splitlines()}
    assert "traitmesh.events.se_value" in made_of["ltv"]
    assert "traitmesh.events.time" in made_of["active_days_30d"]
    assert "traitmesh.events.time" in tusk.run("lineage", "active_days_30d")
    picture = tusk.home / "ltv.svg"
    tusk.run("lineage", "ltv", "--direction", "both", "--output", str(picture))
    drawn = picture.read_text()
    assert "traitmesh.events" in drawn
    assert "public.users" in drawn


def test_bad_input_is_named_and_changes_nothing(tusk: Company) -> None:
    rule = {"trait": {"trait": "contry", "operator": "OPERATOR_EQUAL", "values": ["DE"]}}
    with pytest.raises(ApiError) as caught:
        tusk.client.create("audiences", {"rule": rule}, audienceId="typo")
    assert caught.value.status == 400
    assert caught.value.violations[0][0] == "audience.rule.trait.trait"
    assert "country" in caught.value.detail
    with pytest.raises(ApiError) as absent:
        tusk.client.get("audiences/typo")
    assert absent.value.status == 404


def test_one_trace_leads_from_the_rest_call_into_workers_and_services(tusk: Company, stack: Stack) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = httpx.post(
        f"{stack.url}/v1/workspaces/tusk/syncs/crm/runs",
        json={},
        headers={
            "Authorization": f"Bearer {json.loads((stack.folder / 'client.json').read_text())['api_key']}",
            "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01",
        },
    )
    tusk.client.wait(answer.json()["name"], ("STATE_PLANNING", "STATE_SENDING"), lambda _: None, 60)
    for process in ("gateway", "sync_worker", "sync_worker-worker", "model_builder"):
        log = stack.processes.log_file(process).read_text(errors="replace")
        assert re.search(trace_id, log), f"{process} is not part of the trace"


def test_no_secret_or_personal_value_in_any_log(tusk: Company, stack: Stack, crm_url: str) -> None:
    user_ids = [str(row[0]) for row in rows_at(crm_url, "public.users")[:50]]
    for path in (stack.folder / "logs").iterdir():
        text = path.read_text(errors="replace")
        for canary in (SLACK_TOKEN, *user_ids):
            assert canary not in text, f"{path.name} holds a value that it must not"


def test_every_listed_route_wants_a_key(stack: Stack) -> None:
    openapi = httpx.get(f"{stack.url}/v1/openapi.json").json()
    assert len(openapi["paths"]) > 25
    assert httpx.get(f"{stack.url}/v1/workspaces").status_code == 401
    assert "text/html" in httpx.get(f"{stack.url}/docs", follow_redirects=True).headers["content-type"]
