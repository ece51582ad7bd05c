"""The whole journey with the demo company: `make demo`.

Events -> traits -> model -> audiences -> syncs -> profile, each step by the `traitmesh` command line, which speaks to
the gateway's REST API alone. What is shown of the destinations is read from the destinations themselves.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

from deploy.local.processes import Program, wait_until
from deploy.local.stack import ROOT, Stack, StackError
from deploy.local.temporal import TemporalMissingError, find_or_make
from traitmesh import ApiError, Client

HERE = Path(__file__).resolve().parent
USERS = int(os.environ.get("TUSK_USERS", "50000"))
EVENTS = int(os.environ.get("TUSK_EVENTS", "1000000"))
SEED = 7

SLACK_SINK_PORT = 7480
SLACK_SINK_TOKEN = "xoxb-local"  # noqa: S105 -- the sink on loopback lets nobody else in
CHANNEL = "growth"

#: Share of the records that must be confirmed before the worker is killed: in the middle, for sure.
KILL_AFTER = 0.2

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 120


@dataclass
class Journey:
    """What the steps share, and what is told at the end."""

    stack: Stack
    workspace: str
    client: Client
    told: list[tuple[str, str]] = field(default_factory=list)

    def run(self, *arguments: str, may_fail: bool = False) -> int:
        """Runs a `traitmesh` command as a user would, shown with its output; ends the demo if it fails."""
        shown = " ".join(f"'{a}'" if set(a) & set(' {"') else a for a in arguments)
        console.print(f"[bold]$ traitmesh {shown}[/]")
        environment = os.environ | {
            "TRAITMESH_HOME": str(self.stack.folder),
            "TRAITMESH_WORKSPACE": self.workspace,
        }
        done = subprocess.run(
            [sys.executable, "-m", "traitmesh.cli", *arguments], env=environment, cwd=ROOT, check=False
        )
        if done.returncode and not may_fail:
            sys.exit(f"`traitmesh {shown}` ended with {done.returncode}; the logs: make logs")
        return done.returncode

    def tell(self, what: str, outcome: str) -> None:
        """Keeps a line for the table at the end."""
        self.told.append((what, outcome))


def main() -> None:
    """Runs the journey on this machine's stack, in a workspace of its own."""
    started = time.monotonic()
    home = Path(os.environ.get("TRAITMESH_HOME") or ROOT / ".traitmesh").resolve()
    stack = Stack(home, int(os.environ.get("TRAITMESH_PORT_OFFSET") or 0))
    _title("1. Start PostgreSQL, the warehouse, Temporal and the services")
    subprocess.run([sys.executable, "-m", "deploy.local", "up"], cwd=ROOT, check=True)
    journey = _enter_workspace(stack)
    steps: list[tuple[str, Callable[[Journey], None]]] = [
        ("2. Load the events of Tusk, a mobile game", load_events),
        ("3. Shape: traits computed by dbt, the first model revision, the first build", shape),
        ("4. A notebook predicts churn, dbt gets one more trait; build again and compare", evolve),
        ("5. Discover: an audience by rules, and one from a funnel's drop-offs", discover),
        ("6. Activate: mirror the model to PostgreSQL; the worker is killed in the middle", activate_postgres),
        ("7. Activate: an audience to Slack, which refuses until a person mends it", activate_slack),
        ("8. Serve: a profile, what each value is made of, and the lineage as a picture", serve),
    ]
    for title, step in steps:
        _title(title)
        step(journey)
    _summary(journey, time.monotonic() - started)


def _enter_workspace(stack: Stack) -> Journey:
    """A new workspace for each demonstration, so that every one of them begins with nothing."""
    os.environ["TRAITMESH_HOME"] = str(stack.folder)
    client = Client.from_settings(workspace="-")
    taken = {workspace["name"] for workspace in client.pages("/v1/workspaces", "workspaces")}
    names = (f"tusk-{number}" if number > 1 else "tusk" for number in range(1, 10_000))
    workspace = next(name for name in names if f"workspaces/{name}" not in taken)
    journey = Journey(stack, workspace, Client.from_settings(workspace=workspace))
    journey.run("workspace", "create", workspace, "--display-name", "Tusk", "--time-zone", "Asia/Phnom_Penh")
    return journey


def load_events(journey: Journey) -> None:
    """Events, as the game's trackers write them."""
    files = _events(journey.stack.folder / "tusk" / f"{USERS}-{EVENTS}-{SEED}")
    journey.run("events", "load", *(os.path.relpath(file, ROOT) for file in files))
    journey.run("events", "quarantine")
    loads = list(journey.client.pages("loads", "loads"))

    def total(counted: str) -> int:
        return sum(int(load.get(counted, 0)) for load in loads)

    journey.tell(
        "events",
        f"{total('eventCount'):,} loaded, {total('duplicateCount'):,} duplicates dropped, "
        f"{total('quarantinedCount'):,} quarantined, {total('newUserCount'):,} users",
    )


def _events(folder: Path) -> list[Path]:
    """The generated files; made once, since the same arguments give the same bytes."""
    done = folder / "done"
    if not done.exists():
        generator = [sys.executable, str(HERE / "generate.py"), "--seed", str(SEED), "--out", str(folder)]
        subprocess.run([*generator, "--users", str(USERS), "--events", str(EVENTS)], cwd=ROOT, check=True)
        done.touch()
    return sorted(folder.glob("*.ndjson.gz"))


def shape(journey: Journey) -> None:
    """Computed traits make the first model revision; a build makes the model."""
    journey.run("project", "push", "examples/tusk/dbt", "--name", "tusk")
    journey.run("build", "run")
    _tell_build(journey)


def evolve(journey: Journey) -> None:
    """Traits are added; both builds can be read, with the difference."""
    journey.run("project", "push", "examples/tusk/dbt", "--name", "tusk", "--overlay", "examples/tusk/next")
    journey.run("notebook", "push", "examples/tusk/notebooks/churn.ipynb")
    journey.run("build", "run")
    journey.run("build", "compare")
    _tell_build(journey)


def discover(journey: Journey) -> None:
    """Ask where users stop, and make audiences of them."""
    journey.run("funnel", "show", "examples/tusk/funnels/chips_to_purchase.json")
    for audience, breakdown in (("loyal_payers_at_risk", "country"), ("started_without_purchase", "lifecycle_stage")):
        journey.run("audience", "create", audience, f"examples/tusk/audiences/{audience}.json")
        journey.run("audience", "size", audience, "--by", breakdown)
    journey.run("build", "run")
    _tell_build(journey)


def activate_postgres(journey: Journey) -> None:
    """Kill -9 in the middle of a mirror: the count at the destination shows that nothing is lost or doubled."""
    table = f"users_{journey.workspace.replace('-', '_')}"
    url = _crm_database(journey.stack)
    journey.run(
        "destination", "create", "crm", "--connector", "destination-postgres", "--config", f'{{"url": "{url}"}}'
    )
    fields = ("user_id", "country", "ltv", "is_payer", "churn_probability", "loyal_payers_at_risk")
    maps = [part for name in fields for part in ("--map", name)]
    journey.run(
        "sync", "create", "crm", "--destination", "crm", "--object", f"public.{table}", "--mode", "mirror", *maps
    )
    journey.run("sync", "run", "crm", "--detach")
    run = f"workspaces/{journey.workspace}/syncs/crm/runs/1"
    confirmed = _kill_in_the_middle(journey, run)
    console.print(f"[red]kill -9[/] of the sync worker after {confirmed:,} records were confirmed")
    console.print(f"  at the destination: {_count(url, table)[0]:,} rows")
    journey.stack.restart("sync_worker-worker")
    console.print("  the worker was started again; the run goes on by itself")
    journey.run("run", "watch", "crm/1")
    rows, users = _count(url, table)
    expected = int(journey.client.get("builds/latest")["rowCount"])
    console.print(f"  at the destination: {rows:,} rows of {users:,} different users; the model has {expected:,}")
    if not rows == users == expected:
        sys.exit("the destination does not hold what the model holds")
    journey.run("sync", "run", "crm")
    journey.tell("mirror to PostgreSQL", f"killed after {confirmed:,}; then {rows:,} of {expected:,} rows, none twice")


def _kill_in_the_middle(journey: Journey, run: str) -> int:
    state: dict[str, Any] = {}

    def in_the_middle() -> bool:
        state.update(journey.client.get(f"/v1/{run}"))
        return int(state.get("confirmedCount", 0)) >= KILL_AFTER * int(state.get("plannedCount", 0)) > 0

    if not wait_until(in_the_middle, 120):
        sys.exit("the run did not get to its middle; see make logs NAME=sync_worker-worker")
    journey.stack.processes.kill("sync_worker-worker")
    return int(state["confirmedCount"])


def activate_slack(journey: Journey) -> None:
    """A refusal parks the run, visibly; the signal `retry`, as the Temporal UI sends it, finishes it."""
    _start_slack_sink(journey.stack)
    config = f'{{"token": "{SLACK_SINK_TOKEN}", "base_url": "http://127.0.0.1:{SLACK_SINK_PORT}/api/"}}'
    journey.run("destination", "create", "slack", "--connector", "destination-slack", "--config", config)
    order = ("--audience", "loyal_payers_at_risk", "--mode", "insert", "--map", "user_id", "--map", "country")
    journey.run("sync", "create", "slack", "--destination", "slack", "--object", CHANNEL, *order)
    channel = _channel_id()
    _slack("conversations.archive", channel=channel)
    before = len(_messages(channel))
    console.print(f"somebody archives the channel #{CHANNEL}")
    journey.run("sync", "run", "slack", may_fail=True)
    _slack("conversations.unarchive", channel=channel)
    console.print(f"somebody opens the channel #{CHANNEL} again, and sends the signal:")
    _signal(journey, f"workspaces/{journey.workspace}/syncs/slack/runs/1", "retry")
    journey.run("run", "watch", "slack/1")
    posted = len(_messages(channel)) - before
    console.print(f"  in the channel: {posted:,} new messages")
    journey.tell("audience to Slack", f"parked while the channel was archived, then {posted:,} messages")
    if os.environ.get("SLACK_TOKEN"):
        _activate_real_slack(journey, order)


def _activate_real_slack(journey: Journey, order: tuple[str, ...]) -> None:
    channel = os.environ.get("SLACK_CHANNEL", "general")
    # Not through `run`, which shows its arguments.
    journey.client.create(
        "destinations",
        {"connector": "destination-slack", "config": {"token": os.environ["SLACK_TOKEN"]}},
        destinationId="real-slack",
    )
    journey.run("sync", "create", "real-slack", "--destination", "real-slack", "--object", channel, *order)
    journey.run("sync", "run", "real-slack")
    journey.tell("audience to real Slack", f"#{channel}")


def serve(journey: Journey) -> None:
    """One member of an audience, as an application would ask for it."""
    member = _a_member(journey)
    journey.run("profile", member, "--provenance")
    picture = journey.stack.folder / f"lineage-{journey.workspace}.svg"
    journey.run("lineage", "loyal_payers_at_risk", "--direction", "both", "--output", str(picture))
    journey.run("lineage", "ltv")
    journey.tell("lineage picture", str(picture))
    journey.tell("profile", f"traitmesh profile {member}")


def _a_member(journey: Journey) -> str:
    with psycopg.connect(_crm_database(journey.stack)) as connection:
        table = Identifier(f"users_{journey.workspace.replace('-', '_')}")
        row = connection.execute(
            SQL("SELECT user_id FROM {} WHERE loyal_payers_at_risk ORDER BY user_id LIMIT 1").format(table)
        ).fetchone()
    if row is None:
        sys.exit("nobody is in the audience")
    return str(row[0])


def _tell_build(journey: Journey) -> None:
    build = journey.client.get("builds/latest")
    revision = build["modelRevision"].rpartition("/")[2]
    number = build["name"].rpartition("/")[2]
    outcome = f"model revision {revision}, {int(build['rowCount']):,} users, {int(build['updatedCount']):,} changed"
    for run in build.get("notebookRuns", []):
        if "auc" in run.get("metrics", {}):
            outcome += f", churn AUC {run['metrics']['auc']:.2f}"
    journey.tell(f"build {number}", outcome)


def _crm_database(stack: Stack) -> str:
    """The URL of a database that stands for a company's own; made if it is not there."""
    server = stack.environment()["TRAITMESH_DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'crm'").fetchone():
            connection.execute("CREATE DATABASE crm")
    return server.replace("/postgres?", "/crm?")


def _count(url: str, table: str) -> tuple[int, int]:
    """Rows, and different users, that the destination's table holds."""
    with psycopg.connect(make_conninfo(url)) as connection:
        query = SQL("SELECT count(*), count(DISTINCT user_id) FROM {}").format(Identifier(table))
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _start_slack_sink(stack: Stack) -> None:
    """A server of Slack's Web API on this machine, since a newcomer has no token."""
    arguments = ("--port", str(SLACK_SINK_PORT), "--state-file", str(stack.folder / "slack.db"))
    options = ("--channels", CHANNEL, "--token", SLACK_SINK_TOKEN, "--posts-per-second", "20", "--burst", "40")
    program = Program("slack-sink", (sys.executable, "-m", "slack_sink", *arguments, *options), SLACK_SINK_PORT)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "connectors" / "destination-slack")}
    stack.processes.start(program, environment, ROOT)
    if not wait_until(_slack_answers, 20):
        sys.exit(f"the local Slack did not start; see {stack.processes.log_file('slack-sink')}")


def _slack_answers() -> bool:
    try:
        return bool(_slack("auth.test").get("ok"))
    except httpx.HTTPError:
        return False


def _slack(method: str, **parameters: str) -> dict[str, Any]:
    address = f"http://127.0.0.1:{SLACK_SINK_PORT}/api/{method}"
    headers = {"Authorization": f"Bearer {SLACK_SINK_TOKEN}"}
    answer: dict[str, Any] = httpx.post(address, data=parameters, headers=headers, timeout=10).json()
    return answer


def _channel_id() -> str:
    channels = _slack("conversations.list")["channels"]
    return next(str(channel["id"]) for channel in channels if channel["name"] == CHANNEL)


def _messages(channel: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = _slack("conversations.history", channel=channel, limit="200", cursor=cursor)
        messages += page.get("messages", [])
        cursor = page.get("response_metadata", {}).get("next_cursor", "")
        if not cursor:
            return messages


def _signal(journey: Journey, workflow: str, signal: str) -> None:
    """Signals a workflow by Temporal's own command line, which does what its web UI does."""
    arguments = ["workflow", "signal", "--workflow-id", workflow, "--name", signal]
    console.print(f"[bold]$ temporal {' '.join(arguments)}[/]")
    address = f"127.0.0.1:{journey.stack.port('temporal')}"
    subprocess.run([str(find_or_make()), *arguments, "--address", address], check=True)


def _title(text: str) -> None:
    console.print()
    console.rule(f"[bold cyan]{text}[/]", align="left")


def _summary(journey: Journey, seconds: float) -> None:
    _title(f"Done in {seconds:.0f} s")
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, outcome in journey.told:
        table.add_row(f"[bold]{what}[/]", outcome)
    console.print(table)
    stack = journey.stack
    console.print(f"\n  REST API and its documentation  {stack.url}/docs")
    console.print(f"  Temporal UI: every build and run {stack.temporal_ui}/namespaces/default/workflows")
    console.print("\nTry next:")
    for command in (
        f"export TRAITMESH_WORKSPACE={journey.workspace} PATH=.venv/bin:$PATH",
        "traitmesh trait list",
        "traitmesh run list",
        "traitmesh audience size started_without_purchase --by payer_tier",
        "make stop",
    ):
        console.print(f"  {command}")


if __name__ == "__main__":
    try:
        main()
    except (StackError, TemporalMissingError, ApiError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
