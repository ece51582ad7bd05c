"""The play: who opens the game on which day, how it goes, and who loses interest.

Interest is the one hidden state of a player. Winning, paying and playing with others raise it,
losing and time lower it; it drives how often the player comes back and when they quit. So churn
can be learned from what the events show, and no better than that.
"""

from dataclasses import dataclass, fields

import numpy as np

from examples.tusk.generator.players import Bools, Floats, Ints, Players

WEEKDAY_FACTORS = np.array([0.9, 0.85, 0.9, 0.95, 1.1, 1.3, 1.25])
MAX_SESSIONS_A_DAY = 6
MAX_TRIES = 14
FIRST_DAY_QUITS = 0.5


@dataclass(frozen=True)
class Sessions:
    """One array entry per session, ordered by (player, day, slot)."""

    player: Ints
    day: Ints
    slot: Ints
    """Number of the session within the player's day, from 0."""
    tries: Ints
    """Tables looked at (stakes chosen); not each becomes a game."""
    games: Ints
    """Games played to their end; at most `tries`."""
    wins: Ints
    """Games won; at most `games`."""
    purchase: Bools
    tournament: Bools
    invite: Bools

    def __len__(self) -> int:
        return len(self.player)

    def most_events(self) -> Ints:
        """Return how many events each session has at most, without level-ups and ads."""
        rare = self.purchase.astype(np.int64) + self.tournament + self.invite
        return 1 + 2 * self.tries + self.games + rare

    def take(self, chosen: Ints | Bools) -> "Sessions":
        """Return the chosen sessions (indices or a mask), in that order."""
        return Sessions(*(getattr(self, field.name)[chosen] for field in fields(self)))


def play_until(players: Players, days: int, events: int, rng: np.random.Generator) -> Sessions:
    """Play at the pace that gives about `events` events, and drop what is over.

    Each player keeps their first session. Raises ValueError if those alone are more.
    """
    pace = 0.03 * events / len(players)
    sessions = _play(players, days, pace, rng)
    while sessions.most_events().sum() < events:
        pace *= 1.15
        sessions = _play(players, days, pace, rng)
    return _thin(sessions, events, rng)


def _thin(sessions: Sessions, events: int, rng: np.random.Generator) -> Sessions:
    first = np.diff(sessions.player, prepend=-1) > 0
    turn = np.argsort(np.where(first, -1.0, rng.random(len(sessions))), kind="stable")
    fits = np.cumsum(sessions.most_events()[turn]) <= events
    if fits.sum() < first.sum():
        raise ValueError(f"{first.sum()} players need more than {events} events")
    return sessions.take(np.sort(turn[fits]))


def _play(players: Players, days: int, pace: float, rng: np.random.Generator) -> Sessions:
    """Play `days` days; `pace` scales how often everyone opens the game."""
    interest = np.where(players.start_xp > 0, 0.4, 0.0)
    gone = np.zeros(len(players), dtype=bool)
    played = []
    for day in range(days):
        sessions = _sessions_of_day(players, day, pace, interest, gone, rng)
        played.append(sessions)
        _settle_day(players, day, sessions, interest, gone, rng)
    everything = Sessions(*(np.concatenate([getattr(part, f.name) for part in played]) for f in fields(Sessions)))
    return everything.take(np.lexsort((everything.slot, everything.day, everything.player)))


def _sessions_of_day(
    players: Players,
    day: int,
    pace: float,
    interest: Floats,
    gone: Bools,
    rng: np.random.Generator,
) -> Sessions:
    here = ~gone & (players.first_day <= day)
    expected = pace * players.appetite * np.exp(interest) * WEEKDAY_FACTORS[day % 7]
    count = np.minimum(rng.poisson(np.where(here, expected, 0)), MAX_SESSIONS_A_DAY)
    count = np.maximum(count, players.first_day == day)
    who = np.repeat(np.arange(len(players)), count)
    slot = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    eagerness = np.clip(np.exp(0.5 * interest[who]) * (0.7 + players.appetite[who]), 0.3, 3.0)
    tries = np.minimum(rng.poisson(1.3 * eagerness), MAX_TRIES)
    settled = np.where(players.first_day[who] == day, 0.68, 0.84)
    games = rng.binomial(tries, settled)
    wins = rng.binomial(games, players.skill[who])
    return Sessions(
        player=who,
        day=np.full(len(who), day),
        slot=slot,
        tries=tries,
        games=games,
        wins=wins,
        purchase=(games > 0) & (rng.random(len(who)) < players.spending[who]),
        tournament=(games > 0) & (rng.random(len(who)) < 0.08 * eagerness),
        invite=rng.random(len(who)) < 0.015 * eagerness,
    )


def _settle_day(
    players: Players,
    day: int,
    sessions: Sessions,
    interest: Floats,
    gone: Bools,
    rng: np.random.Generator,
) -> None:
    """Change each player's interest by how the day went, and let some quit for good."""
    size = len(players)
    games, wins, bonus = (
        np.bincount(sessions.player, weights=amount, minlength=size)
        for amount in (
            sessions.games,
            sessions.wins,
            0.25 * sessions.purchase + 0.1 * sessions.tournament + 0.2 * sessions.invite,
        )
    )
    played = np.bincount(sessions.player, minlength=size) > 0
    luck = np.clip(0.22 * (wins - 0.47 * games), -0.6, 0.6)
    change = luck + bonus - 0.05 + rng.normal(0, 0.1, size)
    interest += np.where(played, change, -0.004)
    np.clip(interest, -3.5, 1.2, out=interest)
    quits = 1 / (1 + np.exp(3.5 + 1.8 * interest))
    newcomer = (players.first_day == day) & (players.start_xp == 0)
    quits = np.where(newcomer, FIRST_DAY_QUITS, quits)
    gone |= played & (rng.random(size) < quits)
