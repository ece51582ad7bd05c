"""A well-behaved destination for the tests of the SDK: it appends each batch to a file.

A record whose `fail` names an error makes `write` raise it.
"""

import json
from typing import Any

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee


class DestinationInMemory(Destination):
    name = "destination-in-memory"
    sync_modes = ("append", "append_dedup")
    guarantee = Guarantee.AT_LEAST_ONCE
    batch_size = 4
    config_schema = {
        "type": "object",
        "required": ["path"],
        "properties": {
            "path": {"type": "string"},
            "token": {"type": "string", "airbyte_secret": True},
            "nested": {"type": "object", "properties": {"port": {"type": "integer"}}},
            "pace": {"type": "integer", "default": 7},
        },
    }

    def check(self) -> None:
        if self.config["path"] == "away":
            raise TransientError("away", retry_after=3)

    def discover(self) -> list[DestinationObject]:
        return [DestinationObject("vip", "append_dedup", {"type": "object"}, [["id"]])]

    def write(self, batch: Batch) -> list[Reject]:
        print("a library that prints")
        for record in batch.records:
            self._fail(record.data)
        told = [[r.operation, r.data, r.idempotency_key, r.resend] for r in batch.records]
        facts = {"stream": batch.stream.name, "records": told, "key": batch.idempotency_key} | self.trace_headers()
        with open(self.config["path"], "a") as file:
            file.write(json.dumps(facts | {"pace": self.config["pace"], "resend": batch.resend}) + "\n")
        bad = [i for i, record in enumerate(batch.records) if record.data.get("bad")]
        return [Reject(index, "bad", "is bad") for index in bad]

    def _fail(self, data: dict[str, Any]) -> None:
        match data.get("fail"):
            case "config":
                raise ConfigError("a person must act")
            case "transient":
                raise TransientError("later", retry_after=2.5)
            case "bug":
                raise ValueError("canary-value")


if __name__ == "__main__":
    DestinationInMemory.main()
