"""Batches on their way: fed to a destination's stdin, and held until their STATE comes back."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmesh_connector.errors import ProtocolError, Reject
from traitmesh_connector.process import ChildProcess
from traitmesh_connector.protocol import Stream, encode, stream_status


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are acknowledged together: lines made by `protocol.record_line`."""

    id: int
    records: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Ack:
    """The destination committed a batch.

    Of `record_count` records sent, `rejects` lists the refused ones. `rejected_count` is larger than
    the list where a foreign destination counts rejects without saying which.
    """

    batch_id: int
    record_count: int
    rejects: tuple[Reject, ...] = ()
    rejected_count: int = 0


class InFlight:
    """The batches sent and not acknowledged, oldest first."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting: deque[tuple[Batch, dict[str, Any]]] = deque()
        self.owed_since = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting)

    def lines(self) -> Iterable[bytes]:
        """Return every record line that the destination may hold."""
        return [line for batch, _ in tuple(self._waiting) for line in batch.records]

    def add(self, batch: Batch) -> bytes:
        """Note `batch` as sent and return what to write: its records and the STATE to be echoed."""
        # The nonce keeps a program from acknowledging what it has not read: ids could be guessed.
        mark = {"batch": batch.id, "nonce": secrets.token_hex(8)}
        state = {"stream_descriptor": self._stream.descriptor, "stream_state": mark}
        if not self._waiting:
            self.owed_since = time.monotonic()
        self._waiting.append((batch, state))
        stats = {"recordCount": float(len(batch.records))}
        line = encode("STATE", {"type": "STREAM", "stream": state, "sourceStats": stats})
        return b"\n".join((*batch.records, line))

    def acknowledge(self, echo: Mapping[str, Any]) -> Ack:
        """Take the oldest batch out by its echo; `ProtocolError` if the echo is not exactly that.

        Programs drop keys they do not know and members that are null, so those don't count.
        """
        if not self._waiting:
            raise ProtocolError("a STATE came back that nobody waits for")
        batch, state = self._waiting[0]
        if _without_nulls(echo.get("stream")) != state:
            raise ProtocolError(f"a STATE came back skipped, reordered or changed while batch {batch.id} is next")
        ack = _ack_of(batch, echo)
        self._waiting.popleft()
        return ack


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _ack_of(batch: Batch, echo: Mapping[str, Any]) -> Ack:
    sent = len(batch.records)
    ours = echo.get("traitmesh") or {}
    try:
        listed = tuple(Reject(int(r["index"]), str(r["code"]), str(r["message"])) for r in ours.get("rejects", ()))
        stats = echo.get("destinationStats") or {}
        count = max(int(stats.get("rejectedRecordCount") or 0), len(listed))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ProtocolError(f"the rejects of batch {batch.id} cannot be read") from None
    indexes = {reject.index for reject in listed}
    if len(indexes) != len(listed) or not indexes <= set(range(sent)) or count > sent:
        raise ProtocolError(f"the rejects of batch {batch.id} do not fit its {sent} records")
    return Ack(batch.id, sent, listed, count)


class Feeder:
    """Pulls batches and writes them to a destination's stdin, on a thread of its own.

    `slots` bounds how many wait for their acknowledgement; whoever takes one out releases a slot.
    """

    def __init__(
        self,
        child: ChildProcess,
        stream: Stream,
        in_flight: InFlight,
        batches: Iterable[Batch],
        max_unacked: int,
    ) -> None:
        self._child = child
        self._stream = stream
        self._in_flight = in_flight
        self._batches = iter(batches)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="connector-feeder", daemon=True)
        self.slots = threading.Semaphore(max_unacked)
        self.error: BaseException | None = None
        self.finished = False

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def stop(self) -> None:
        """Return once no batch is being pulled and none will be."""
        self._stopped = True
        self.slots.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._feed()
        except BrokenPipeError:
            # The program is gone or deaf; the reading side learns how and says so.
            return
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            self.error = error

    def _feed(self) -> None:
        while True:
            self.slots.acquire()
            batch = None if self._stopped else next(self._batches, None)
            if self._stopped:
                return
            if batch is None:
                break
            self._child.send(self._in_flight.add(batch))
        self._child.send(stream_status(self._stream.descriptor, "COMPLETE"))
        self._in_flight.owed_since = time.monotonic()
        self.finished = True
        self._child.end_input()
