"""Uploaded files, each kept under the hash of its content until no load needs it."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from libs.kit import errors

ENDINGS = tuple(form + packed for form in (".ndjson", ".json", ".tsv") for packed in ("", ".gz"))


@dataclass(frozen=True)
class Upload:
    """A file that was taken in."""

    sha256: str
    byte_count: int


def check_file_name(file_name: str) -> str:
    """Returns the name, or raises InvalidArgument if its endings tell no format or it is a path."""
    if not file_name.endswith(ENDINGS) or "/" in file_name or "\0" in file_name or len(file_name) > 200:
        raise errors.invalid("file_name", f"must be at most 200 characters, no path, and end in {', '.join(ENDINGS)}")
    return file_name


def path_of(folder: Path, workspace: str, sha256: str, file_name: str) -> Path:
    """Where a file is kept; the ending goes along, since it tells the format."""
    ending = next(ending for ending in ENDINGS if file_name.endswith(ending))
    return folder / workspace / f"{sha256}{ending}"


def take_in(folder: Path, workspace: str, file_name: str, pieces: Iterable[bytes], limit: int) -> Upload:
    """Writes the pieces to a file under `folder`, which appears whole or not at all.

    Raises LimitExceeded beyond `limit` bytes, InvalidArgument for an empty file.
    """
    place = folder / workspace
    place.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with tempfile.NamedTemporaryFile(dir=place, prefix="incoming-", delete=False) as file:
        try:
            for piece in pieces:
                size += len(piece)
                if size > limit:
                    raise errors.LimitExceeded(
                        f"a file of events may have {limit} bytes; split it", limit="upload_bytes", value=str(limit)
                    )
                digest.update(piece)
                file.write(piece)
            if size == 0:
                raise errors.invalid("content", "must hold the file's bytes, and it is empty")
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path_of(folder, workspace, digest.hexdigest(), file_name))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return Upload(digest.hexdigest(), size)
