"""Unpacks the archive of a dbt project, which may be anybody's, into a folder."""

import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from libs.kit import errors

MAX_ARCHIVE_BYTES = 16 << 20
MAX_UNPACKED_BYTES = 64 << 20
MAX_FILES = 5000
PROJECT_FILE = "dbt_project.yml"


def unpack(archive: bytes, folder: Path, field: str = "archive.data") -> Path:
    """Unpacks a gzipped tar into an empty folder and returns the folder that holds dbt_project.yml.

    Raises InvalidArgument, naming `field`, for what is no such archive, has no project in it, or would leave the
    folder: absolute paths, `..`, links, devices. Raises LimitExceeded for one that is too large once unpacked.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            _unpack_members(tar, folder, field)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise errors.invalid(
            field, f"must be a gzipped tar of a dbt project's folder ({type(error).__name__})"
        ) from None
    found = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    for candidate in found:
        if (candidate / PROJECT_FILE).is_file():
            return candidate
    raise errors.invalid(field, f"must hold {PROJECT_FILE}, at its top or in its only folder")


def _unpack_members(tar: tarfile.TarFile, folder: Path, field: str) -> None:
    unpacked = 0
    for files, member in enumerate(tar, 1):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\0" in member.name or "\\" in member.name:
            raise errors.invalid(field, "holds a path that leads out of the project's folder")
        if not (member.isfile() or member.isdir()):
            raise errors.invalid(field, "may hold files and folders only, no links or devices")
        unpacked += member.size
        if files > MAX_FILES:
            raise errors.LimitExceeded(f"the project has more than {MAX_FILES} files", limit="files")
        if unpacked > MAX_UNPACKED_BYTES:
            raise errors.LimitExceeded(
                f"the project is larger than {MAX_UNPACKED_BYTES} bytes once unpacked", limit="unpacked_bytes"
            )
        _write(tar, member, folder / path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Writes content alone: owners, modes and times of the archive stay behind."""
    content = tar.extractfile(member)
    (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content.read())
