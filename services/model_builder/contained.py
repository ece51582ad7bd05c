"""Runs a program that nobody here wrote so that nothing of it outlives its time, its caller, or itself.

The program runs below a guard: a small process (this same file, started as a script) that every orphan below it falls
to. When the program ends, its time is up or the caller is gone, even by kill -9, the guard kills all that is left.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

OUT_OF_TIME = 124
CANNOT_START = 127
_SET_CHILD_SUBREAPER = 36
_TICK = 0.05


class TimedOut(Exception):
    """The program did not end in time and was killed."""


def run(
    command: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    seconds: int,
    on_line: Callable[[str], None],
) -> int:
    """Runs a program in a folder, hands each line of its output on, and returns its exit code.

    It sees this environment and no more. Every process that it leaves is killed before this returns. Raises TimedOut.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(seconds), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    # Leaving the block closes the pipe that tells the guard that we live, and waits for it.
    with guard:
        for line in guard.stdout or ():
            on_line(line.rstrip("\n"))
    if guard.returncode == OUT_OF_TIME:
        raise TimedOut
    return guard.returncode


def _guard(seconds: int, command: Sequence[str]) -> int:
    """What the guard does: starts the program, waits for the first of its three ends, kills what is left."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", flush=True)
        return CANNOT_START
    deadline = time.monotonic() + seconds
    code: int | None = None
    while code is None and time.monotonic() < deadline:
        # The caller never writes: its end of the pipe closes when it is done with us, or dead.
        caller_gone, _, _ = select.select([sys.stdin], [], [], _TICK)
        if caller_gone:
            break
        code = program.poll()
    _kill_everything_below()
    return OUT_OF_TIME if code is None else code % 256


def _kill_everything_below() -> None:
    """Kills and reaps children until none is left: each one's own children fall to us when it dies."""
    while True:
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """The processes whose parent this process is."""
    mine = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
            # The name, in parentheses, may hold anything; the parent is the second field after it.
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                mine.append(int(entry))
    return mine


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), sys.argv[2:]))
