"""How things are timed: contenders take turns, so that what else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Sequence
from statistics import median

Contender = Callable[[], float]
"""Does the work once and returns what it took, or how fast it was."""


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed(work: Callable[[], object]) -> Contender:
    """The work as a contender, measured in seconds."""
    return lambda: seconds(work)


def medians(repeats: int, contenders: Sequence[Contender]) -> list[float]:
    """The median of each contender over `repeats` rounds in which each has its turn."""
    rounds = [[contender() for contender in contenders] for _ in range(repeats)]
    return [median(taken) for taken in zip(*rounds, strict=True)]
