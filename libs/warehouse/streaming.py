"""Streaming a result as Arrow batches, under a time limit, releasing what it holds at its end."""

import threading
from collections.abc import Callable, Generator

import pyarrow as pa

from libs.warehouse.interface import LimitExceeded

BATCH_ROWS = 65_536

Batches = Generator[pa.Schema | pa.RecordBatch, None, None]
"""First the schema, then the batches. Its `finally` releases the connection."""


class Deadline:
    """Calls `cancel` when `seconds` have passed before `stop`, and remembers that it did."""

    def __init__(self, seconds: float | None, cancel: Callable[[], None]) -> None:
        self.seconds = seconds
        self.passed = False
        self._cancel = cancel
        self._timer = threading.Timer(seconds or 0, self._expire)
        self._timer.daemon = True
        if seconds is not None:
            self._timer.start()

    def _expire(self) -> None:
        self.passed = True
        self._cancel()

    def check(self) -> None:
        """Raise LimitExceeded if the time is up: between two batches nothing is there to cancel."""
        if self.passed:
            raise LimitExceeded("time", f"{self.seconds} s")

    def stop(self) -> None:
        """Let the query live."""
        self._timer.cancel()


UNLIMITED = Deadline(None, lambda: None)


def stream(batches: Batches) -> pa.RecordBatchReader:
    """Return a reader over the batches; dropping it half-way ends the generator too."""
    # Taking the schema starts the generator: one never started would not run its `finally`.
    schema = next(batches)
    return pa.RecordBatchReader.from_batches(schema, batches)
