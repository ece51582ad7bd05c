"""A tool behind a webhook that answers when the test lets it, so that a sync can be held in its middle."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: How long a batch is held, or waited for, at the most; the connector would wait a little longer.
PATIENCE_SECONDS = 110

Records = list[dict[str, Any]]


class Receiver(ThreadingHTTPServer):
    """Takes batches; each is answered once `let` has made room for it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._batches: queue.Queue[Records] = queue.Queue()
        self._room = threading.Semaphore(0)
        #: The records of every answered batch, in the order of the answers.
        self.taken: Records = []

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of a destination that sends here."""
        return {
            "url": f"http://127.0.0.1:{self.server_port}/",
            "signing_secret": "whsec_bG9jYWwgY2FuYXJ5",
            "timeout": 120,
            "allow_private_addresses": True,
        }

    def let(self, batches: int) -> None:
        """Lets so many more batches be answered."""
        self._room.release(batches)

    def next_batch(self) -> Records:
        """The next batch that arrived, answered or not."""
        return self._batches.get(timeout=PATIENCE_SECONDS)

    def take(self, records: Records) -> bool:
        """Whether the batch was let through in time."""
        self._batches.put(records)
        if not self._room.acquire(timeout=PATIENCE_SECONDS):
            return False
        self.taken += records
        return True


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        records = body["data"]["records"]
        self.send_response(200 if not records or self.server.take(records) else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps quiet."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that is ended with the block."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.let(1_000)
        receiver.shutdown()
        thread.join()
        receiver.server_close()
