"""Listens to one run of a program: passes its logs on, redacted, and judges how the run ended."""

import logging
import os.path
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from traitmesh_connector.errors import (
    ConnectorCrashed,
    ConnectorError,
    ConnectorStalled,
    from_trace,
)
from traitmesh_connector.process import ChildProcess
from traitmesh_connector.protocol import Message, decode
from traitmesh_connector.redaction import Redactor

logger = logging.getLogger("traitmesh_connector.runner")

LINE_LIMIT = 64 << 20
_LOG_LINES = 1000
_LEVELS = {"FATAL": 50, "ERROR": 40, "WARN": 30, "WARNING": 30, "INFO": 20, "DEBUG": 10, "TRACE": 10}


@dataclass(frozen=True, slots=True)
class Program:
    """How to start a connector.

    `config_schema` is the `connectionSpecification` of its spec and says which values are secret;
    without it every string of a config counts as one. `line_limit` bounds one message in bytes;
    `grace` is how many seconds it may take to exit after its output ended or it told an error.
    """

    command: tuple[str, ...]
    config_schema: Mapping[str, Any] | None = None
    line_limit: int = LINE_LIMIT
    grace: float = 10.0

    @property
    def name(self) -> str:
        """The program's file name, for logs and messages."""
        return os.path.basename(self.command[0])


class Hearing:
    """Everything one run of `program` said that decides whether it went well."""

    def __init__(self, program: Program, redact: Redactor) -> None:
        self._program = program
        self._redact = redact
        self._logged = 0
        self._failure: ConnectorError | None = None
        self._failed_at = 0.0
        self._limited_until = 0.0
        self._incomplete: set[str] = set()
        self.complete: set[str] = set()

    @contextmanager
    def start(
        self, command: str, documents: Mapping[str, bytes], environment: Mapping[str, str] | None
    ) -> Iterator[ChildProcess]:
        """Run the program; a stall after an error it told is raised as that error."""
        with ChildProcess(
            (*self._program.command, command),
            documents,
            environment or {},
            line_limit=self._program.line_limit,
            on_stderr=lambda line: self._log(logging.INFO, line),
        ) as child:
            try:
                yield child
            except ConnectorStalled:
                if self._failure is not None:
                    raise self._failure from None
                raise

    def hear(self, line: bytes) -> Message | None:
        """Return the message of a line that carries data; take in or log any other."""
        message = decode(line)
        if message is None:
            self._log(logging.INFO, line)
        elif message["type"] == "LOG":
            body = message["log"]
            self._log(_LEVELS.get(str(body.get("level")), logging.INFO), str(body.get("message")))
        elif message["type"] == "TRACE":
            self._take_in(message["trace"])
        else:
            return message
        return None

    def deadline(self, quiet_since: float, idle_timeout: float) -> float:
        """Return the monotonic time at which silence becomes a stall."""
        if self._failure is not None:
            return self._failed_at + self._program.grace
        return max(quiet_since, self._limited_until) + idle_timeout

    def judge(self, exit_code: int | None) -> None:
        """Raise what went wrong, the program's own word first; None is an exit by force."""
        name = self._program.name
        if self._failure is not None:
            raise self._failure
        if exit_code is None:
            raise ConnectorStalled(f"{name} ended its output but did not exit")
        if exit_code != 0:
            how = f"by signal {-exit_code}" if exit_code < 0 else f"with code {exit_code}"
            raise ConnectorCrashed(f"{name} exited {how} and told no reason", exit_code)
        if self._incomplete:
            streams = ", ".join(sorted(self._incomplete))
            raise ConnectorCrashed(f"{name} exited with code 0 but left {streams} INCOMPLETE", 0)

    def _take_in(self, trace: Mapping[str, Any]) -> None:
        if trace.get("type") == "ERROR" and isinstance(trace.get("error"), dict):
            error = trace["error"]
            text = self._redact(str(error.get("message") or "the connector told no reason"))
            self._failure = self._failure or from_trace(error, text)
            self._failed_at = time.monotonic()
        elif trace.get("type") == "STREAM_STATUS" and isinstance(trace.get("stream_status"), dict):
            self._take_in_status(trace["stream_status"])

    def _take_in_status(self, status: Mapping[str, Any]) -> None:
        stream = str((status.get("stream_descriptor") or {}).get("name"))
        if status.get("status") == "COMPLETE":
            self.complete.add(stream)
        elif status.get("status") == "INCOMPLETE":
            self._incomplete.add(stream)
        for reason in status.get("reasons") or []:
            reset = (reason.get("rate_limited") or {}).get("quota_reset")
            if isinstance(reset, int | float):
                # The reset is a moment of the wall clock, our patience one of the monotonic.
                wait = max(0.0, reset / 1000 - time.time())
                self._limited_until = time.monotonic() + wait

    def _log(self, level: int, text: str | bytes) -> None:
        self._logged += 1
        if self._logged > _LOG_LINES:
            return
        if isinstance(text, bytes):
            text = text[:10_000].decode(errors="replace")
        logger.log(level, "%s: %s", self._program.name, self._redact(text))
        if self._logged == _LOG_LINES:
            logger.warning("%s: further lines are not logged", self._program.name)
