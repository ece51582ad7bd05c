"""A connector's program as a child process that cannot leak, outlive its caller or fill memory.

It gets a minimal environment, its documents through memory instead of disk, and a session of its own,
which is killed as a whole at the end: programs leave workers behind.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

from traitmesh_connector.errors import ConfigError, ConnectorStalled, ProtocolError

_TICK = 0.25
_READ_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20


class ChildProcess:
    """One run of a program; use it as a context manager, which ends the whole process group.

    `documents` maps options to JSON: `{"--config": b"{}"}` becomes `--config /dev/fd/N`, backed by
    memory that is gone with the process. `on_stderr` gets each line of stderr.
    """

    def __init__(
        self,
        command: Sequence[str],
        documents: Mapping[str, bytes],
        environment: Mapping[str, str],
        *,
        line_limit: int,
        on_stderr: Callable[[bytes], None],
    ) -> None:
        self._line_limit = line_limit
        self._on_stderr = on_stderr
        self.last_heard = time.monotonic()
        descriptors = {option: _in_memory(document) for option, document in documents.items()}
        try:
            self._popen = _start(command, descriptors, environment)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
        _widen(self._popen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Killed before its stdin closes: an early end of input looks like success to some programs,
        # which would then swap a half-written table in.
        self.kill()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def kill(self) -> None:
        """End the program and all that it started, now."""
        # The group goes before its leader is reaped, while the id can't belong to anybody else.
        self._signal_group(signal.SIGKILL)
        self._popen.wait()

    def send(self, data: bytes) -> None:
        """Write to stdin, waiting until the program takes it; `BrokenPipeError` if it is gone."""
        stdin = self._popen.stdin
        if stdin is None:
            raise BrokenPipeError
        view = memoryview(data)
        while view:
            view = view[os.write(stdin.fileno(), view) :]

    def end_input(self) -> None:
        """Close stdin: the program finishes what it has and exits."""
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def lines(self, deadline: Callable[[], float | None]) -> Iterator[list[bytes]]:
        """Yield stdout's lines as they come, and an empty list now and then while none comes.

        `deadline` is asked while nothing comes for the monotonic time at which to give up, None for
        never: `ConnectorStalled`. A line over the limit is a `ProtocolError`. Ends with the output.
        """
        stdout, stderr = _descriptor(self._popen.stdout), _descriptor(self._popen.stderr)
        splitters = {fd: _LineSplitter(self._line_limit) for fd in (stdout, stderr)}
        poll = select.poll()
        for descriptor in splitters:
            poll.register(descriptor, select.POLLIN)
        while stdout in splitters:
            ready = poll.poll(_TICK * 1000)
            for descriptor, _ in ready:
                data = os.read(descriptor, _READ_BYTES)
                found = splitters[descriptor].take(data)
                if not data:
                    poll.unregister(descriptor)
                    del splitters[descriptor]
                if descriptor == stderr:
                    for line in found:
                        self._on_stderr(line)
                elif found:
                    self.last_heard = time.monotonic()
                    yield found
                    # The clock runs only while we wait: a slow consumer is not a slow program.
                    self.last_heard = time.monotonic()
            if not ready:
                self._rest(deadline())
                yield []

    def _rest(self, deadline: float | None) -> None:
        if self._has_exited():
            # Workers it left behind hold its stdout open; without them the output ends.
            self._signal_group(signal.SIGKILL)
        elif deadline is not None and time.monotonic() > deadline:
            raise ConnectorStalled("the connector owed an answer and said nothing in time")

    def exit_code(self, grace: float) -> int | None:
        """Wait for the exit and return its code; after `grace` seconds end it by force: None."""
        in_time = self._wait(grace)
        if not in_time:
            self._signal_group(signal.SIGTERM)
            self._wait(grace)
        self.kill()
        return self._popen.returncode if in_time else None

    def _wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._has_exited() and time.monotonic() < end:
            time.sleep(0.005)
        return self._has_exited()

    def _has_exited(self) -> bool:
        """Whether the leader has exited, leaving it unreaped so that its group id stays taken."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal_group(self, number: signal.Signals) -> None:
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


class _LineSplitter:
    """Cuts a byte stream into lines; copies what is incomplete only once it is complete."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> list[bytes]:
        """Return the lines completed by `data`; empty data completes the last one."""
        head, newline, rest = data.partition(b"\n") if data else (b"", b"\n", b"")
        self._parts.append(head)
        self._size += len(head)
        if self._size > self._limit:
            raise ProtocolError(f"a line is longer than {self._limit} bytes")
        if not newline:
            return []
        first = b"".join(self._parts)
        *lines, last = rest.split(b"\n")
        self._parts, self._size = [last], len(last)
        return [line for line in (first, *lines) if line]


def _start(
    command: Sequence[str], descriptors: Mapping[str, int], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    options = [part for option, fd in descriptors.items() for part in (option, f"/dev/fd/{fd}")]
    # Unbuffered, since a program's acknowledgements would otherwise wait in its own buffer.
    base = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=base | dict(environment),
            pass_fds=tuple(descriptors.values()),
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be started: {error.strerror}") from None


def _in_memory(document: bytes) -> int:
    """Return a descriptor of an anonymous file; unlike a pipe's it can be read more than once."""
    descriptor = os.memfd_create("document", 0)
    view = memoryview(document)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def _widen(popen: "subprocess.Popen[bytes]") -> None:
    """Let more fit into the pipes, so that both sides wait less; the kernel may refuse."""
    for pipe in (popen.stdin, popen.stdout):
        with contextlib.suppress(OSError):
            fcntl.fcntl(_descriptor(pipe), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _descriptor(pipe: object) -> int:
    descriptor: int = pipe.fileno()  # type: ignore[attr-defined]
    return descriptor
