"""Sealed secrets open in their own place only."""

import pytest

from libs.kit import errors
from libs.kit.seal import Seal

SECRET = b"xoxb-canary"
PLACE = "workspaces/tusk/destinations/slack"


def test_a_secret_comes_back() -> None:
    seal = Seal("key")
    sealed = seal.close(SECRET, PLACE)
    assert SECRET not in sealed
    assert seal.open(sealed, PLACE) == SECRET
    assert seal.close(SECRET, PLACE) != sealed


def test_a_secret_that_was_moved_or_changed_stays_shut() -> None:
    sealed = Seal("key").close(SECRET, PLACE)
    with pytest.raises(errors.Internal):
        Seal("key").open(sealed, "workspaces/other/destinations/slack")
    with pytest.raises(errors.Internal):
        Seal("key").open(sealed[:-1] + bytes([sealed[-1] ^ 1]), PLACE)
    with pytest.raises(errors.Internal):
        Seal("another key").open(sealed, PLACE)
