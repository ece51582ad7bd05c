"""Events as Snowplow's mobile trackers and enrichment write them: one JSON object each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from examples.tusk.generator.events import HOUR_MS, Events, Kind
from examples.tusk.generator.players import Bools, Ints, Players
from examples.tusk.generator.world import PHONES, PLACES, Phone, Place

Record = dict[str, Any]

LATE_SHARE = 0.03
"""Share of events played without a network, which arrive hours or days later."""
HIGHEST_TIER = 6
PLAYER_CONTEXT = "contexts_com_tusk_player_context_1"
MOBILE_CONTEXT = "contexts_com_snowplowanalytics_snowplow_mobile_context_1"
TIMES = ("collector_tstamp", "dvce_sent_tstamp", "derived_tstamp", "etl_tstamp")
DOCUMENTATION_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
STRUCTURED: dict[int, tuple[str, str]] = {
    Kind.CHIP_SELECT: ("ChipSelect", "select"),
    Kind.GAME_START: ("game_start", "start"),
    Kind.GAME_END: ("game_end", "end"),
    Kind.AD_VIEW: ("ad_view", "rewarded"),
    Kind.PURCHASE: ("purchase", "buy"),
    Kind.INVITE: ("invite", "share"),
}
"""Category and action of the kinds sent as structured events; the others describe themselves."""


@dataclass(frozen=True)
class Arrivals:
    """How each event reached the collector; times in milliseconds since 1970, UTC."""

    offline: Bools
    sent_ms: Ints
    collector_ms: Ints
    etl_ms: Ints


def draw_arrivals(players: Players, events: Events, end_ms: int, rng: np.random.Generator) -> Arrivals:
    """Draw how long each event is under way; a late one still arrives before `end_ms`."""
    count = len(events)
    network_ms = rng.gamma(2, 150, count).astype(np.int64) + 20
    late_ms = HOUR_MS + (HOUR_MS * rng.lognormal(1.6, 1.1, count)).astype(np.int64)
    offline = (rng.random(count) < LATE_SHARE) & (events.time_ms + late_ms < end_ms)
    collector_ms = events.time_ms + network_ms + late_ms * offline
    return Arrivals(
        offline=offline,
        sent_ms=collector_ms - network_ms + players.clock_skew_ms[events.player],
        collector_ms=collector_ms,
        etl_ms=collector_ms + rng.integers(1_000, 90_000, count),
    )


class Tracker:
    """Writes records of events; the same event always gives the same record.

    All values of a personal kind are made up: addresses are of the ranges kept for documentation.
    """

    def __init__(self, players: Players, events: Events, arrivals: Arrivals, rng: np.random.Generator) -> None:
        self._events, self._arrivals = events, arrivals
        self._identities = _identities(players, rng)
        self._settings = rng.integers(0, 2, (len(players), 2)).tolist()
        self._phones = players.phone.tolist()
        self._event_ids = _uuids(len(events), rng)
        self._session_ids = _uuids(int(events.session.max()) + 1, rng)

    def records(self, chosen: Ints) -> list[Record]:
        """Return the records of the events at the indices `chosen`, in that order."""
        arrivals, events = self._arrivals, self._events.take(chosen)
        times = zip(
            _iso(arrivals.collector_ms[chosen]),
            _iso(arrivals.sent_ms[chosen]),
            _iso(events.time_ms),
            _iso(arrivals.etl_ms[chosen]),
            strict=True,
        )
        standing = np.stack((events.score, events.diamonds, events.coins, events.level, events.xp))
        rows = zip(
            chosen.tolist(),
            events.player.tolist(),
            events.session.tolist(),
            times,
            _meanings(events),
            standing.T.tolist(),
            arrivals.offline[chosen].tolist(),
            strict=True,
        )
        return [
            {
                **self._identities[player],
                "event_id": self._event_ids[index],
                "domain_sessionid": self._session_ids[session],
                **dict(zip(TIMES, moments, strict=True)),
                **meaning,
                PLAYER_CONTEXT: [self._player_context(player, state)],
                MOBILE_CONTEXT: MOBILE_CONTEXTS[offline][self._phones[player]],
            }
            for index, player, session, moments, meaning, state, offline in rows
        ]

    def _player_context(self, player: int, standing: list[int]) -> Record:
        score, diamonds, coins, level, xp = standing
        music, sound = self._settings[player]
        return {
            "score": score,
            "diamonds": diamonds,
            "coins": coins,
            "music": music,
            "tier": _tier(level),
            "level": level,
            "sound": sound,
            "name": f"Player {player}",
            "xp": xp,
            "sp": score // 100,
        }


def _meanings(events: Events) -> list[Record]:
    """Return the fields that say what happened in each event."""
    rows = zip(events.kind.tolist(), events.value.round(2).tolist(), events.level.tolist(), strict=True)
    return [_meaning(kind, value, level) for kind, value, level in rows]


def _meaning(kind: int, value: float, level: int) -> Record:
    if kind not in STRUCTURED:
        return _self_describing(Kind(kind), level)
    category, action = STRUCTURED[kind]
    fields = {"event_name": "event", "se_category": category, "se_action": action}
    if kind == Kind.GAME_END:
        return {**fields, "se_label": "win" if value > 0 else "loss", "se_value": value}
    if kind == Kind.PURCHASE:
        return {**fields, "se_label": "diamonds", "se_property": "USD", "se_value": value}
    if kind in (Kind.CHIP_SELECT, Kind.GAME_START):
        return {**fields, "se_label": f"stake_{value:.0f}", "se_value": value}
    return fields


def _self_describing(kind: Kind, level: int) -> Record:
    data = {
        Kind.APP_OPEN: {"cold_start": True},
        Kind.TOURNAMENT_JOIN: {"tier": _tier(level)},
        Kind.LEVEL_UP: {"level": level},
    }[kind]
    name = kind.name.lower()
    return {"event_name": name, f"unstruct_event_com_tusk_{name}_1": data}


def _tier(level: int) -> int:
    return min(1 + level // 4, HIGHEST_TIER)


def _identities(players: Players, rng: np.random.Generator) -> list[Record]:
    """Return the fields that are the same in all events of a player, for each player."""
    devices, networks = _uuids(len(players), rng), _uuids(len(players), rng)
    hosts = rng.integers(1, 255, len(players)).tolist()
    blocks = rng.choice(DOCUMENTATION_NETWORKS, len(players)).tolist()
    rows = zip(players.place.tolist(), players.phone.tolist(), players.registered, strict=True)
    identities = []
    for player, (place, phone, registered) in enumerate(rows):
        signed_in = {"user_id": f"tusk-{player:07d}"} if registered else {}
        identities.append(
            {
                "app_id": "tusk",
                "platform": "mob",
                **signed_in,
                "domain_userid": devices[player],
                "network_userid": networks[player],
                "user_ipaddress": f"{blocks[player]}.{hosts[player]}",
                "useragent": PHONES[phone].user_agent,
                **GEO_FIELDS[place],
            }
        )
    return identities


def _geo_fields(place: Place) -> Record:
    return {
        "geo_country": place.country,
        "geo_region": place.region,
        "geo_region_name": place.region_name,
        "geo_city": place.city,
        "geo_latitude": place.latitude,
        "geo_longitude": place.longitude,
        "geo_location": f"{place.latitude},{place.longitude}",
        "geo_timezone": place.time_zone,
        "os_timezone": place.time_zone,
    }


def _mobile_contexts(phone: Phone, network: str) -> orjson.Fragment:
    context = {
        "osType": phone.os_type,
        "osVersion": phone.os_version,
        "deviceManufacturer": phone.manufacturer,
        "deviceModel": phone.model,
        "networkType": network,
    }
    return orjson.Fragment(orjson.dumps([context]))


def _iso(time_ms: Ints) -> list[str]:
    text: list[str] = np.datetime_as_string(time_ms.astype("M8[ms]"), timezone="UTC").tolist()
    return text


def _uuids(count: int, rng: np.random.Generator) -> list[str]:
    digits = rng.bytes(16 * count).hex()
    each = (digits[start : start + 32] for start in range(0, len(digits), 32))
    return [f"{d[:8]}-{d[8:12]}-4{d[13:16]}-a{d[17:20]}-{d[20:]}" for d in each]


GEO_FIELDS = [_geo_fields(place) for place in PLACES]
MOBILE_CONTEXTS = [[_mobile_contexts(phone, network) for phone in PHONES] for network in ("wifi", "offline")]
"""Encoded once, by whether the phone is offline, then by index into `world.PHONES`."""
