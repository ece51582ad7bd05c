"""The feed: records in order of arrival, some sent twice, a few damaged, in gzip files."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import orjson

from examples.tusk.generator.events import Events, Kind
from examples.tusk.generator.players import Ints
from examples.tusk.generator.snowplow import Arrivals, Record, Tracker

FILES = 4
LINES_AT_ONCE = 2_000
DUPLICATE_SHARE = 0.005
DAMAGED_SHARE = 0.0002
USER_FIELDS = ("user_id", "domain_userid", "network_userid")


class Damage(IntEnum):
    """What is wrong with a bad row."""

    NONE = 0
    BROKEN_JSON = 1
    NO_USER = 2
    UNREADABLE_TIME = 3
    FAR_FUTURE = 4


@dataclass(frozen=True)
class Feed:
    """One array entry per line, in order of arrival."""

    event: Ints
    """Index of the event the line tells; one sent twice is here twice."""
    damage: Ints

    def __len__(self) -> int:
        return len(self.event)


def events_of(lines: int) -> int:
    """Return how many events give `lines` lines, the rest being sent twice."""
    return lines - round(lines * DUPLICATE_SHARE)


def draw_feed(events: Events, arrivals: Arrivals, lines: int, rng: np.random.Generator) -> Feed:
    """Order the events by arrival, send some again later, and damage a few others.

    A session's opening is never damaged, so that no player is lost.
    """
    count = len(events)
    bad = max(len(Damage) - 1, round(lines * DAMAGED_SHARE))
    shuffled = rng.permutation(count)
    twice, once = np.split(shuffled, [lines - count])
    damage = np.zeros(count, dtype=np.int64)
    damageable = once[events.kind[once] != Kind.APP_OPEN]
    damage[damageable[:bad]] = 1 + np.arange(bad) % (len(Damage) - 1)
    again_ms = arrivals.collector_ms[twice] + rng.integers(500, 7_200_000, len(twice))
    event = np.concatenate((np.arange(count), twice))
    arrival_ms = np.concatenate((arrivals.collector_ms, again_ms))
    order = np.argsort(arrival_ms, kind="stable")
    return Feed(event=event[order], damage=damage[event[order]])


def write(feed: Feed, tracker: Tracker, out: Path, progress: Callable[[int], None]) -> list[Path]:
    """Write the feed to `out` as `events-1.ndjson.gz` and so on; the bytes depend on it alone.

    Files of the same name are replaced, each when it is complete. `progress` is called with the
    number of lines written so far. Returns the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    bounds = np.linspace(0, len(feed), FILES + 1).astype(int).tolist()
    for number in range(1, FILES + 1):
        path = out / f"events-{number}.ndjson.gz"
        with _gzip_file(path) as file:
            for start in range(bounds[number - 1], bounds[number], LINES_AT_ONCE):
                stop = min(start + LINES_AT_ONCE, bounds[number])
                file.write(_lines(feed, tracker, start, stop))
                progress(stop)
        written.append(path)
    return written


def _lines(feed: Feed, tracker: Tracker, start: int, stop: int) -> bytes:
    records = tracker.records(feed.event[start:stop])
    lines = [orjson.dumps(record) for record in records]
    damage = feed.damage[start:stop]
    for place in np.flatnonzero(damage).tolist():
        lines[place] = _damaged(records[place], Damage(int(damage[place])))
    return b"\n".join([*lines, b""])


def _damaged(record: Record, damage: Damage) -> bytes:
    if damage is Damage.BROKEN_JSON:
        return orjson.dumps(record)[:-40]
    if damage is Damage.NO_USER:
        return orjson.dumps({k: v for k, v in record.items() if k not in USER_FIELDS})
    if damage is Damage.UNREADABLE_TIME:
        return orjson.dumps({**record, "derived_tstamp": "32nd of May"})
    return orjson.dumps({**record, "derived_tstamp": "2199-01-01T00:00:00.000Z"})


@contextmanager
def _gzip_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing through gzip, with no name or time in it; it appears when closed."""
    part = path.with_name(path.name + ".part")
    with (
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file,
    ):
        yield cast("BinaryIO", file)
    part.replace(path)
