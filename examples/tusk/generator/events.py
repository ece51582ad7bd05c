"""From sessions to events: what happens when, and how the player stands at that moment."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from examples.tusk.generator.play import Sessions
from examples.tusk.generator.players import Bools, Floats, Ints, Players
from examples.tusk.generator.world import PLACES

Number = TypeVar("Number", np.int64, np.float64)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SESSION_SLOT_MS = HOUR_MS
"""Longer than any session lasts."""
CHOSEN_ONLY, STARTED, ENDED = 1, 2, 3
XP_FOR_WIN, XP_FOR_LOSS = 20, 10
PRICES = np.array([0.99, 1.99, 4.99, 9.99, 19.99, 49.99, 99.99])
DIAMONDS_PER_DOLLAR = 20


class Kind(IntEnum):
    """What an event is about."""

    APP_OPEN = 0
    TOURNAMENT_JOIN = 1
    CHIP_SELECT = 2
    GAME_START = 3
    GAME_END = 4
    LEVEL_UP = 5
    AD_VIEW = 6
    PURCHASE = 7
    INVITE = 8


MEAN_GAP_SECONDS = np.array([0.0, 20, 12, 6, 110, 1, 4, 30, 25])
"""Mean seconds since the event before, by kind."""


@dataclass(frozen=True)
class Events:
    """One array entry per event, ordered by (player, session, time)."""

    player: Ints
    session: Ints
    """Number of the session, from 0, over all players."""
    kind: Ints
    time_ms: Ints
    """Milliseconds since 1970, UTC, by the true clock."""
    value: Floats
    """Stake of a chosen or started game, coins won or lost at its end, price of a purchase."""
    xp: Ints
    level: Ints
    score: Ints
    coins: Ints
    diamonds: Ints

    def __len__(self) -> int:
        return len(self.player)

    def take(self, chosen: Ints) -> "Events":
        """Return the events at the indices `chosen`, in that order."""
        return Events(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class _Rounds:
    """One entry per try at a table, ordered by (session, number)."""

    session: Ints
    number: Ints
    stage: Ints
    won: Bools
    stake: Floats
    levels_up: Bools

    @property
    def position(self) -> Ints:
        """Where in its session the round stands; ten places belong to each."""
        return 10 * (self.number + 1)

    def take(self, chosen: Ints | Bools) -> "_Rounds":
        return _Rounds(*(getattr(self, field.name)[chosen] for field in fields(self)))


def level_of(xp: Ints) -> Ints:
    """Return the level that `xp` experience points give; each level costs more than the last."""
    return 1 + np.sqrt(xp / 40).astype(np.int64)


def lay_out(
    players: Players,
    sessions: Sessions,
    count: int,
    start_ms: int,
    days: int,
    rng: np.random.Generator,
) -> Events:
    """Lay out the sessions as exactly `count` events from `start_ms` on, for `days` days.

    What happens is given by the sessions; how many advertisements are seen makes the count exact.
    """
    starts = _session_starts(players, sessions, start_ms, days, rng)
    by_start = np.lexsort((starts, sessions.player))
    sessions = sessions.take(by_start)
    starts = _keep_apart(starts[by_start], sessions.player)
    rounds = _deal(players, sessions, rng)
    session, kind, value = _in_order(players, sessions, rounds, count, rng)
    player = sessions.player[session]
    gap_ms = 50 + (1000 * rng.gamma(2, MEAN_GAP_SECONDS[kind] / 2)).astype(np.int64)
    time_ms = starts[session] + _running(gap_ms, session)
    value = np.where(kind == Kind.PURCHASE, _prices(players, player, rng), value)
    return _with_standing(players, session, player, kind, time_ms, value)


def _deal(players: Players, sessions: Sessions, rng: np.random.Generator) -> _Rounds:
    """Decide how far each try of a session goes and which games are won."""
    session = np.repeat(np.arange(len(sessions)), sessions.tries)
    number = _running(np.ones_like(session), session) - 1
    shuffled = np.lexsort((rng.random(len(session)), session))
    place = np.empty_like(number)
    place[shuffled] = number
    ended = place < sessions.games[session]
    won = place < sessions.wins[session]
    unfinished = np.where(rng.random(len(session)) < 0.35, STARTED, CHOSEN_ONLY)
    gain = np.where(won, XP_FOR_WIN, XP_FOR_LOSS) * ended
    player = sessions.player[session]
    xp = players.start_xp[player] + _running(gain, player)
    level_before = level_of(xp - gain)
    return _Rounds(
        session=session,
        number=number,
        stage=np.where(ended, ENDED, unfinished),
        won=won,
        stake=100.0 * 2 ** np.minimum(level_before // 2, 9),
        levels_up=level_of(xp) > level_before,
    )


def _in_order(
    players: Players, sessions: Sessions, rounds: _Rounds, count: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Floats]:
    """Return (session, kind, value) of each event, in order of session and of time within it."""
    every = np.arange(len(sessions))
    last = 10 * (sessions.tries + 1)
    started = rounds.take(rounds.stage >= STARTED)
    ended = rounds.take(rounds.stage == ENDED)
    leveled = rounds.take(rounds.levels_up)
    outcome = np.where(ended.won, 0.95, -1.0) * ended.stake
    joins, buys, invites = sessions.tournament, sessions.purchase, sessions.invite
    blocks = [
        _block(Kind.APP_OPEN, every, 0),
        _block(Kind.TOURNAMENT_JOIN, every[joins], 1),
        _block(Kind.CHIP_SELECT, rounds.session, rounds.position, rounds.stake),
        _block(Kind.GAME_START, started.session, started.position + 1, started.stake),
        _block(Kind.GAME_END, ended.session, ended.position + 2, outcome),
        _block(Kind.LEVEL_UP, leveled.session, leveled.position + 3),
        _block(Kind.PURCHASE, every[buys], last[buys]),
        _block(Kind.INVITE, every[invites], last[invites] + 1),
    ]
    unpaid = np.flatnonzero(players.spending[sessions.player[ended.session]] == 0)
    missing = count - sum(len(session) for session, *_ in blocks)
    watched = ended.take(rng.choice(unpaid, missing))
    blocks.append(_block(Kind.AD_VIEW, watched.session, watched.position + 4))
    session, order, kind, value = (np.concatenate(column) for column in zip(*blocks, strict=True))
    by_order = np.lexsort((order, session))
    return session[by_order], kind[by_order], value[by_order]


def _block(kind: Kind, session: Ints, order: Ints | int, value: Floats | float = 0.0) -> tuple[np.ndarray, ...]:
    return tuple(np.broadcast_arrays(session, order, int(kind), value))


def _session_starts(players: Players, sessions: Sessions, start_ms: int, days: int, rng: np.random.Generator) -> Ints:
    """Return when each session starts: around the player's favourite hour of their local day."""
    offset = np.array([place.utc_offset_hours for place in PLACES])[players.place]
    local = rng.normal(players.favourite_hour[sessions.player], 1.8) % 24 + 1.6 * sessions.slot
    hour = local - offset[sessions.player]
    time: Ints = start_ms + sessions.day * DAY_MS + (hour * HOUR_MS).astype(np.int64)
    latest = start_ms + days * DAY_MS - 2 * HOUR_MS
    time[time > latest] -= DAY_MS
    time[time < start_ms] += DAY_MS
    return time


def _keep_apart(starts: Ints, player: Ints) -> Ints:
    """Move sessions earlier where needed, so that none runs into the player's next one."""
    number = _running(np.ones_like(player), player)
    # A lead of 1,000 days for each player keeps the minimum below from crossing into the next.
    slack = starts - SESSION_SLOT_MS * number + 1_000 * DAY_MS * player
    least = np.minimum.accumulate(slack[::-1])[::-1]
    moved: Ints = starts + least - slack
    return moved


def _prices(players: Players, player: Ints, rng: np.random.Generator) -> Floats:
    """Draw the price of a purchase by each of `player`; big spenders buy big packs."""
    step = rng.exponential(0.5 + 6 * players.spending[player])
    return PRICES[np.minimum(step.astype(np.int64), len(PRICES) - 1)]


def _with_standing(
    players: Players,
    session: Ints,
    player: Ints,
    kind: Ints,
    time_ms: Ints,
    value: Floats,
) -> Events:
    """Add what the player has reached just after each event."""
    ended = kind == Kind.GAME_END
    gain = np.where(value > 0, XP_FOR_WIN, XP_FOR_LOSS) * ended
    xp = players.start_xp[player] + _running(gain, player)
    paid = np.where(kind == Kind.PURCHASE, value, 0)
    coins = 10_000 + _running(np.where(ended, value, 1_000 * paid), player)
    bonus = 2 * (kind == Kind.LEVEL_UP)
    return Events(
        player=player,
        session=session,
        kind=kind,
        time_ms=time_ms,
        value=value,
        xp=xp,
        level=level_of(xp),
        score=50 * xp,
        coins=np.maximum(coins, 0).astype(np.int64),
        diamonds=_running(DIAMONDS_PER_DOLLAR * paid + bonus, player).astype(np.int64),
    )


def _running(amount: npt.NDArray[Number], group: Ints) -> npt.NDArray[Number]:
    """Return the running total of `amount` within each run of equal `group`, itself included."""
    total = np.cumsum(amount)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    before = total[first] - amount[first]
    return total - np.repeat(before, np.diff(first, append=len(group)))
