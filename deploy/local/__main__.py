"""Traitmesh on this machine: `python -m deploy.local up | stop | status | logs | restart NAME`.

State is under `.traitmesh` of the current folder, or TRAITMESH_HOME. TRAITMESH_PORT_OFFSET moves every port.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from deploy.local.stack import ROOT, Stack, StackError
from deploy.local.temporal import TemporalMissingError


def _stack() -> Stack:
    folder = Path(os.environ.get("TRAITMESH_HOME") or ROOT / ".traitmesh").resolve()
    return Stack(folder, int(os.environ.get("TRAITMESH_PORT_OFFSET") or 0))


@click.group()
def main() -> None:
    """Runs Traitmesh on this machine."""


@main.command()
def up() -> None:
    """Starts whatever does not run yet, and waits until all of it answers."""
    stack = _stack()
    try:
        stack.up(lambda name: click.echo(f"  {name}", err=True))
    except (StackError, TemporalMissingError) as error:
        sys.exit(f"error: {error}")
    _write_client_settings(stack)
    click.echo(f"Traitmesh is up: {stack.url} (documentation {stack.url}/docs, workflows {stack.temporal_ui})")


@main.command()
def stop() -> None:
    """Ends everything; nothing is lost, `up` goes on where it was."""
    stopped = _stack().stop()
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@main.command()
def status() -> None:
    """Shows what runs, its process, port and log."""
    stack = _stack()
    for program in stack.programs():
        process = stack.processes.find(program.name)
        state = f"runs, process {process.pid}" if process else "does not run"
        port = f"port {program.port}" if program.port else ""
        click.echo(f"{program.name:22} {state:24} {port:10} {stack.processes.log_file(program.name)}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--follow", is_flag=True, help="Goes on showing what is written.")
def logs(names: tuple[str, ...], follow: bool) -> None:
    """Shows the logs of some programs, or of all."""
    stack = _stack()
    files = [str(stack.processes.log_file(p.name)) for p in stack.programs() if not names or p.name in names]
    subprocess.run(["tail", "-n", "40", *(["-F"] if follow else []), *files], check=False)


@main.command()
@click.argument("name")
def restart(name: str) -> None:
    """Starts one program again."""
    _stack().restart(name)


def _write_client_settings(stack: Stack) -> None:
    """Gives the command line on this machine a key of its own, once."""
    path = stack.folder / "client.json"
    if path.exists():
        return
    command = [sys.executable, "-m", "services.gateway", "key", "create", "--workspace", "-", "--role", "admin"]
    made = subprocess.run(command, env=stack.environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": stack.url, "api_key": made.stdout.strip().splitlines()[-1]}, file)


if __name__ == "__main__":
    main()
