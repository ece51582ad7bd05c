"""Where plans and states lie, and how they are written: once, and never seen half done."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from services.sync_worker.domain import RunName


@dataclass(frozen=True)
class SyncFiles:
    """The Parquet files of one sync. They hold personal values: only this user may enter the folders."""

    folder: Path

    @classmethod
    def of(cls, data_dir: Path, workspace: str, sync: str) -> "SyncFiles":
        """The files of a sync under `data_dir`."""
        return cls(data_dir / "sync" / workspace / sync)

    def plan(self, run: RunName) -> Path:
        """What a run sends."""
        return self.folder / "plan" / f"{run.number}.parquet"

    def state(self, number: int) -> Path:
        """What the destination is known to hold after run `number`."""
        return self.folder / "state" / f"{number}.parquet"

    def forget_states_before(self, number: int) -> None:
        """Deletes the states of runs before `number`."""
        for path in (self.folder / "state").glob("*.parquet"):
            run = path.name.partition(".")[0]
            if run.isdigit() and int(run) < number:
                path.unlink(missing_ok=True)


def whole_of(state: Path) -> Path:
    """The file that a state holds changes of, which lies beside it; the state's own if it is whole."""
    beside = state.with_suffix(".whole.parquet")
    return beside if beside.exists() else state


def keep_whole(old: Path, new: Path) -> None:
    """Makes the state `new`, yet to be written, one that holds changes of the same file as `old`.

    The file gets one name more, so that each state can be deleted without a thought of the others.
    """
    with suppress(FileExistsError):
        os.link(whole_of(old), new.with_suffix(".whole.parquet"))


@contextmanager
def written_once(path: Path) -> Iterator[Path]:
    """Yields a path to write to; when the block ends well its content becomes `path`, unless that exists already."""
    with scratch_folder(path.parent) as folder:
        draft = folder / path.name
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(path.parent)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A private folder beside other files of `parent`, gone at the end."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=parent) as folder:
        yield Path(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
