import gzip
import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from examples.tusk.generator.events import lay_out
from examples.tusk.generator.play import play_until
from examples.tusk.generator.players import draw_players
from examples.tusk.tests.lake import TUSK

Event = dict[str, Any]
USERS, LINES, DUPLICATES, BAD = 300, 5_000, 25, 4
FIELDS = {
    *("app_id", "platform", "event_id", "event_name", "domain_userid", "network_userid"),
    *("domain_sessionid", "collector_tstamp", "dvce_sent_tstamp", "derived_tstamp", "etl_tstamp"),
    *("geo_country", "geo_region", "geo_region_name", "geo_city", "geo_latitude", "geo_longitude"),
    *("geo_location", "geo_timezone", "os_timezone", "useragent", "user_ipaddress"),
    "contexts_com_tusk_player_context_1",
    "contexts_com_snowplowanalytics_snowplow_mobile_context_1",
}


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: list[Path | str] = [sys.executable, TUSK / "generate.py", "--out", out, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def lines_of(folder: Path) -> list[bytes]:
    files = sorted(folder.glob("events-*.ndjson.gz"))
    return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def why_bad(line: bytes) -> str | None:
    try:
        event = orjson.loads(line)
        time = datetime.fromisoformat(event["derived_tstamp"])
    except orjson.JSONDecodeError:
        return "broken JSON"
    except ValueError:
        return "unreadable time"
    if not event.keys() & {"user_id", "domain_userid", "network_userid"}:
        return "no user"
    return "far future" if time.year > 2100 else None


def player(event: Event) -> str:
    return str(event.get("user_id") or event["domain_userid"])


def name(event: Event) -> str:
    return str(event.get("se_category") or event["event_name"])


def moment(event: Event, field: str = "derived_tstamp") -> datetime:
    return datetime.fromisoformat(event[field])


@pytest.fixture(scope="session")
def lines(few_events: Path) -> list[bytes]:
    return lines_of(few_events)


@pytest.fixture(scope="session")
def events(lines: list[bytes]) -> list[Event]:
    """The distinct good events in order of time."""
    return sorted((orjson.loads(line) for line in set(lines) if not why_bad(line)), key=moment)


def test_same_arguments_give_same_bytes(tmp_path: Path, few_events: Path) -> None:
    arguments = ("--users", "300", "--events", "5000", "--end", "2026-06-30")
    for folder, seed in (("same", "7"), ("other", "8")):
        done = run(tmp_path / folder, *arguments, "--seed", seed)
        assert done.returncode == 0, done.stderr

    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())]

    assert digests(tmp_path / "same") == digests(few_events)
    assert not set(digests(tmp_path / "other")) & set(digests(few_events))


def test_too_few_events_for_the_players_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--users", "300", "--events", "300")
    assert done.returncode == 2
    assert "300 players need at least" in done.stderr
    assert "3600 events" in done.stderr
    assert not (tmp_path / "out").exists()


def test_lines_duplicates_and_bad_rows_are_as_many_as_promised(lines: list[bytes]) -> None:
    assert len(lines) == LINES
    assert len(set(lines)) == LINES - DUPLICATES
    reasons = Counter(why_bad(line) for line in lines)
    assert reasons.pop(None) == LINES - BAD
    assert reasons == {"broken JSON": 1, "no user": 1, "unreadable time": 1, "far future": 1}


def test_events_look_like_a_mobile_trackers(events: list[Event]) -> None:
    for event in events:
        assert event.keys() >= FIELDS
        structured = event["event_name"] == "event"
        assert structured == ("se_category" in event)
        assert structured != any(key.startswith("unstruct_event_com_tusk_") for key in event)
        [context] = event["contexts_com_tusk_player_context_1"]
        assert context.keys() >= {"score", "level", "tier", "xp", "coins", "diamonds"}
    assert len({event["event_id"] for event in events}) == len(events)
    assert 0.8 < len({player(e) for e in events if "user_id" in e}) / USERS < 1


def test_every_player_is_there_and_play_is_long_tailed(events: list[Event]) -> None:
    per_player = Counter(player(event) for event in events)
    assert len(per_player) == USERS
    most = sum(count for _, count in per_player.most_common(USERS // 10))
    assert most > 0.4 * len(events)


def test_some_events_arrive_hours_late_and_files_are_in_order_of_arrival(
    events: list[Event], lines: list[bytes]
) -> None:
    delays = [moment(event, "collector_tstamp") - moment(event) for event in events]
    late = sum(delay > timedelta(hours=1) for delay in delays)
    assert 0.01 < late / len(events) < 0.05
    assert max(delays) > timedelta(days=1)
    once = [orjson.loads(line) for line in dict.fromkeys(lines) if not why_bad(line)]
    arrivals = [moment(event, "collector_tstamp") for event in once]
    assert arrivals == sorted(arrivals)
    assert max(arrivals) < moment({"derived_tstamp": "2026-07-01T00:00:00Z"})


def test_play_follows_the_local_time_of_day(events: list[Event]) -> None:
    offsets = {"Asia/Phnom_Penh": 7, "America/Sao_Paulo": -3}
    for zone, hours in offsets.items():
        local = [(moment(event) + timedelta(hours=hours)).hour for event in events if event["os_timezone"] == zone]
        evening = sum(18 <= hour < 24 for hour in local)
        small_hours = sum(2 <= hour < 8 for hour in local)
        assert evening > 2 * small_hours, zone


def test_each_step_of_the_funnel_loses_players(events: list[Event]) -> None:
    steps = ("app_open", "ChipSelect", "game_start", "game_end", "purchase")
    reached = [len({player(e) for e in events if name(e) == step}) for step in steps]
    assert reached == sorted(set(reached), reverse=True)
    assert reached[0] == USERS
    assert reached[-1] > 0


def test_no_player_plays_two_sessions_at_once() -> None:
    rng = np.random.default_rng(5)
    players = draw_players(3_000, 90, rng)
    sessions = play_until(players, 90, 55_000, rng)
    events = lay_out(players, sessions, 60_000, 0, 90, rng)
    same_player = np.diff(events.player) == 0
    assert (np.diff(events.session)[same_player] > 0).sum() > 1_000
    assert (np.diff(events.time_ms)[same_player] > 0).all()


def test_levels_grow_with_play_and_never_fall(events: list[Event]) -> None:
    levels: defaultdict[str, list[int]] = defaultdict(list)
    ups: Counter[str] = Counter()
    for event in events:
        levels[player(event)].append(event["contexts_com_tusk_player_context_1"][0]["level"])
        ups[player(event)] += name(event) == "level_up"
    assert all(seen == sorted(seen) for seen in levels.values())
    grown = {who: seen[-1] - seen[0] for who, seen in levels.items()}
    assert sum(ups.values()) > 50
    assert all(ups[who] >= growth for who, growth in grown.items())
