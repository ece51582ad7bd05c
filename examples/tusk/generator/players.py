"""The players: who they are and how they like to play, one array entry per player."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from examples.tusk.generator.world import PHONES, PLACES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

VETERAN_SHARE = 0.4
PAYER_SHARE = 0.15
REGISTERED_SHARE = 0.92
FAVOURITE_HOURS = (8.0, 13.0, 20.5, 23.5)
FAVOURITE_HOUR_SHARES = (0.14, 0.2, 0.5, 0.16)


@dataclass(frozen=True)
class Players:
    """What stays the same about each player through the history."""

    first_day: Ints
    """Day of the history on which the player is first seen, from 0."""
    start_xp: Ints
    """Experience points gathered before the history begins; 0 for newcomers."""
    appetite: Floats
    """Sessions a day of an engaged player; long-tailed."""
    skill: Floats
    """Probability of winning a game."""
    spending: Floats
    """Probability of a purchase in a session with games; 0 for most."""
    favourite_hour: Floats
    """Local hour of the day around which the player plays."""
    place: Ints
    """Index into `world.PLACES`."""
    phone: Ints
    """Index into `world.PHONES`."""
    registered: Bools
    """Whether the player has signed in, so that events carry a `user_id`."""
    clock_skew_ms: Ints
    """How far the phone's clock is ahead of true time."""

    def __len__(self) -> int:
        return len(self.first_day)


def draw_players(count: int, days: int, rng: np.random.Generator) -> Players:
    """Draw `count` players who are first seen within a history of `days` days."""
    veteran = rng.random(count) < VETERAN_SHARE
    early = np.minimum(rng.geometric(0.12, count) - 1, days - 1)
    skew = np.where(rng.random(count) < 0.02, 3_600_000.0, 1_500.0)
    return Players(
        first_day=np.where(veteran, early, rng.integers(0, days, count)),
        start_xp=np.where(veteran, rng.gamma(1.2, 1_500, count), 0).astype(np.int64),
        appetite=rng.lognormal(-1.4, 1.3, count) * np.where(veteran, 1.4, 1.0),
        skill=np.clip(rng.normal(0.45, 0.1, count), 0.1, 0.85),
        spending=np.where(rng.random(count) < PAYER_SHARE, rng.beta(1.5, 6, count), 0.0),
        favourite_hour=rng.choice(FAVOURITE_HOURS, count, p=FAVOURITE_HOUR_SHARES),
        place=_draw_index(rng, count, [place.share for place in PLACES]),
        phone=_draw_index(rng, count, [phone.share for phone in PHONES]),
        registered=rng.random(count) < REGISTERED_SHARE,
        clock_skew_ms=rng.normal(0, skew).astype(np.int64),
    )


def _draw_index(rng: np.random.Generator, count: int, shares: list[float]) -> Ints:
    weights = np.array(shares) / sum(shares)
    return rng.choice(len(shares), count, p=weights)
