"""ClickHouse, embedded in a child process of the environment that holds the peers."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER = Path(__file__).resolve().parent / "peers" / "chdb_server.py"

Rows = list[list[str]]


class Chdb:
    """A session that keeps its tables in a folder. Used in a `with` block."""

    def __init__(self, python: str, folder: Path) -> None:
        command = [python, str(SERVER), str(folder)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()

    def rows(self, sql: str) -> Rows:
        """The rows of a statement, as text."""
        return self._ask(sql)[1]

    def seconds(self, sql: str) -> float:
        """How long a statement takes, within the child."""
        return self._ask(sql)[0]

    def _ask(self, sql: str) -> tuple[float, Rows]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(sql) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("chdb ended; its words are above")
        answer = json.loads(line)
        return float(answer["seconds"]), answer["rows"]
