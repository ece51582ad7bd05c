"""Writes each batch into a file of JSON lines: it works as it stands; replace what is about files."""

import os
import re
import uuid
from pathlib import Path

import orjson

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee


class DestinationTemplate(Destination):
    """The connector; its object is a folder below the configured one."""

    name = "destination-template"
    # Of append, append_dedup (upsert by key), update (never creates) and overwrite, those it can do.
    sync_modes = ("append",)
    guarantee = Guarantee.EXACTLY_ONCE
    batch_size = 1000
    # A field that nobody may see has "airbyte_secret": True.
    config_schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Template",
        "type": "object",
        "required": ["folder"],
        "properties": {"folder": {"type": "string", "description": "An existing folder to write below"}},
    }

    def check(self) -> None:
        """Prove that the config works, and say what a person must change where it does not."""
        if not os.access(self.config["folder"], os.W_OK):
            raise ConfigError("config.folder: must be a folder that can be written to")

    def discover(self) -> list[DestinationObject]:
        """List what can be written to."""
        names = sorted(path.name for path in Path(self.config["folder"]).iterdir() if path.is_dir())
        return [DestinationObject(name, "append", {"type": "object"}) for name in names]

    def write(self, batch: Batch) -> list[Reject]:
        """Make the batch durable and return the records that are refused, by their index."""
        rejects: list[Reject] = []
        lines: list[bytes] = []
        for index, record in enumerate(batch.records):
            if any(record.data.get(column) is None for column in batch.stream.primary_key):
                rejects.append(Reject(index, "no_key", "a column of the key is null or absent"))
            else:
                lines.append(orjson.dumps(record.data, option=orjson.OPT_APPEND_NEWLINE))
        # The key is the same whenever this batch comes again, so that it finds its own file.
        name = batch.idempotency_key or uuid.uuid4().hex
        try:
            self._replace(self._folder(batch.stream.object_name) / f"{name}.jsonl", b"".join(lines))
        except OSError as error:
            # Nothing is acknowledged; the host sends the same batch again, later.
            raise TransientError(f"the file cannot be written: {error.strerror}") from None
        return rejects

    def _folder(self, name: str) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"object {name}: must be a plain folder name")
        folder = Path(self.config["folder"], name)
        folder.mkdir(exist_ok=True)
        return folder

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        """Write a file that is there whole or not at all, also after a power failure."""
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


if __name__ == "__main__":
    DestinationTemplate.main()
