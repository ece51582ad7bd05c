"""Processes that outlive the command that started them, each known by a file with its id and start time.

The start time tells a process from a later one that got the same id, so nothing else is ever ended by mistake.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Program:
    """What to run, and the port of loopback that it answers on when it is ready; None if it serves nothing."""

    name: str
    command: Sequence[str]
    port: int | None


class Processes:
    """The processes of one stack: ids in `folder`/run, output in `folder`/logs."""

    def __init__(self, folder: Path) -> None:
        self._run = folder / "run"
        self._logs = folder / "logs"
        for path in (self._run, self._logs):
            path.mkdir(parents=True, exist_ok=True)

    def log_file(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._logs / f"{name}.log"

    def find(self, name: str) -> psutil.Process | None:
        """The running process of that name, if there is one."""
        try:
            known = json.loads((self._run / f"{name}.json").read_text())
            process = psutil.Process(known["pid"])
            if process.create_time() == known["create_time"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
            pass
        return None

    def start(self, program: Program, environment: Mapping[str, str], folder: Path) -> bool:
        """Starts a program in `folder` unless it runs already; returns whether it was started."""
        if self.find(program.name) is not None:
            return False
        with self.log_file(program.name).open("ab") as log:
            child = subprocess.Popen(
                program.command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        create_time = psutil.Process(child.pid).create_time()
        known = self._run / f"{program.name}.json"
        partial = known.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"pid": child.pid, "create_time": create_time}))
        partial.replace(known)
        return True

    def stop(self, names: Sequence[str], seconds: float) -> list[str]:
        """Asks all to end, waits up to `seconds`, then forces the rest; returns who was running."""
        running = {name: process for name in names if (process := self.find(name))}
        for process in running.values():
            process.terminate()
        _, alive = psutil.wait_procs(running.values(), timeout=seconds)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        for name in running:
            (self._run / f"{name}.json").unlink(missing_ok=True)
        return list(running)

    def kill(self, name: str) -> None:
        """Ends a process as a crash would, with SIGKILL."""
        process = self.find(name)
        if process is None:
            raise LookupError(f"{name} does not run")
        process.kill()
        psutil.wait_procs([process], timeout=5)


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Asks every 50 ms; returns whether it became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(0.05)
    return False
