"""What an archive may not do."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from libs.kit import errors
from services.model_builder.dbt_project import archive
from services.model_builder.tests.conftest import archive_of


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info in (tarfile.TarInfo("dbt_project.yml"), tarfile.TarInfo(name)):
            if info.name == name:
                info.type, info.linkname = kind, target
            tar.addfile(info, io.BytesIO())
    return packed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        member("/etc/cron.d/evil"),
        member("../evil"),
        member("models/../../evil"),
        member("models/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("models/link", tarfile.LNKTYPE, "dbt_project.yml"),
        member("models/pipe", tarfile.FIFOTYPE),
        member("models/device", tarfile.CHRTYPE),
        b"",
        b"no archive",
        gzip.compress(b"no tar"),
        member("models/a")[:-30],
        archive_of({"models/a.sql": "select 1"}),
    ],
)
def test_hostile_archives_are_refused(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(errors.InvalidArgument) as caught:
        archive.unpack(content, place)
    assert caught.value.violations[0].field == "archive.data"
    assert [found.name for found in tmp_path.iterdir()] == ["place"]
    assert not [found for found in place.rglob("*") if found.is_symlink()]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = archive_of({"dbt_project.yml": b"\0" * (archive.MAX_UNPACKED_BYTES + 1)})
    assert len(bomb) < 1 << 20
    with pytest.raises(errors.LimitExceeded, match="once unpacked"):
        archive.unpack(bomb, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["", "tusk/"])
def test_the_project_is_found(folder: str, tmp_path: Path) -> None:
    project = archive.unpack(archive_of({f"{folder}dbt_project.yml": "name: a", f"{folder}models/a.sql": ""}), tmp_path)
    assert (project / "models" / "a.sql").is_file()
