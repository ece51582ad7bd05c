"""Write the events of Tusk, a made-up mobile game, as Snowplow's trackers would.

    python examples/tusk/generate.py --users 50000 --events 1000000 --out DIR

The same arguments give the same bytes. The flow: draw the players, let them play the days, lay
the sessions out as events, draw how each event arrives, and write the feed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

# Run as a script this file's folder is on the path; imports equal paths from the root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.tusk.generator import feed, snowplow
from examples.tusk.generator.events import DAY_MS, lay_out
from examples.tusk.generator.play import play_until
from examples.tusk.generator.players import draw_players

DAYS = 90
FEWEST_EVENTS_A_PLAYER = 12
SHARE_OF_PLAY = 0.93
"""Share of the events that come from play as it happens; level-ups and ads are the rest."""


def generate(users: int, lines: int, seed: int, end: date, out: Path) -> list[Path]:
    """Write `lines` lines about `users` players in the 90 days up to and including `end`.

    Returns the files, `events-1.ndjson.gz` and so on. Raises ValueError if the lines are too few
    for the players.
    """
    if users < 1 or lines < users * FEWEST_EVENTS_A_PLAYER:
        least = max(users, 1) * FEWEST_EVENTS_A_PLAYER
        raise ValueError(f"{users} players need at least 1 player and {least} events, not {lines}")
    end_ms = int(datetime.combine(end + timedelta(1), datetime.min.time(), UTC).timestamp()) * 1000
    start_ms = end_ms - DAYS * DAY_MS
    for_players, for_play, for_events, for_arrivals, for_tracker, for_feed = np.random.default_rng(seed).spawn(6)
    count = feed.events_of(lines)
    players = draw_players(users, DAYS, for_players)
    sessions = play_until(players, DAYS, int(SHARE_OF_PLAY * count), for_play)
    events = lay_out(players, sessions, count, start_ms, DAYS, for_events)
    arrivals = snowplow.draw_arrivals(players, events, end_ms, for_arrivals)
    tracker = snowplow.Tracker(players, events, arrivals, for_tracker)
    order = feed.draw_feed(events, arrivals, lines, for_feed)
    return feed.write(order, tracker, out, _show(lines))


def _show(lines: int) -> Callable[[int], None]:
    started = time.monotonic()

    def show(done: int) -> None:
        if not sys.stderr.isatty():
            return  # In a log, a line that overwrites itself is thousands of lines.
        seconds = time.monotonic() - started
        print(f"\r{done:>12,} of {lines:,} events, {seconds:.0f} s", end="", file=sys.stderr)

    return show


def main() -> None:
    """Read the arguments, generate, and say what was written."""
    parser = argparse.ArgumentParser(description="Write the events of a made-up mobile game.")
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--end", type=date.fromisoformat, default=date(2026, 6, 30))
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    arguments = parser.parse_args()
    gc.disable()  # Millions of records are made, none part of a cycle; looking for some takes a tenth of the time.
    try:
        files = generate(arguments.users, arguments.events, arguments.seed, arguments.end, arguments.out)
    except ValueError as error:
        parser.error(str(error))
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"\n{len(files)} files, {size:.0f} MB, in {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
