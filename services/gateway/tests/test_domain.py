"""API keys: their form, and when they open."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.gateway import domain

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def key_of(text: str) -> domain.ApiKey:
    return domain.ApiKey("id", "tusk", "viewer", "", domain.digest(text), NOW)


def test_a_key_has_its_form_and_a_secret_of_256_bits() -> None:
    texts = {domain.new_key_text() for _ in range(100)}
    assert len(texts) == 100
    for text in texts:
        assert re.fullmatch(r"tm_[a-z0-9]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", text)
        assert domain.key_id_of(text) == text.split("_")[1]
    assert 62**43 > 2**256


def test_any_mistyped_character_is_noticed() -> None:
    text = domain.new_key_text()
    for position in range(len(text)):
        wrong = text[:position] + ("x" if text[position] != "x" else "y") + text[position + 1 :]
        assert domain.key_id_of(wrong) is None


@pytest.mark.parametrize("text", ["", "tm_", "Bearer", "tm_a_b_c", "tm_abcdefghijkl_" + "a" * 43 + "_000000", "é" * 64])
def test_what_is_no_key(text: str) -> None:
    assert domain.key_id_of(text) is None


def test_only_the_whole_key_opens() -> None:
    text = domain.new_key_text()
    assert key_of(text).is_of(text)
    assert not key_of(text).is_of(domain.new_key_text())
    assert not key_of(text).is_of(text[:-1])


def test_a_key_ends() -> None:
    key = key_of("k")
    assert key.is_alive(NOW)
    expiring = replace(key, expire_time=NOW)
    assert expiring.is_alive(NOW - timedelta(microseconds=1))
    assert not expiring.is_alive(NOW)
    assert not replace(key, revoke_time=NOW).is_alive(NOW)
