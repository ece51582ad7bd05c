"""Keeps secrets and personal values out of whatever a connector's program prints."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_MASK = "***"
_TEXT_LIMIT = 1000
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+\.[^\s@\"'<>]+")
_WORD = re.compile(r"[^\s\"'{}\[\](),;:=<>]{3,}")


class Redactor:
    """Masks, in any text of a program: its secrets, e-mail addresses, values of records in flight.

    `in_flight` returns the encoded RECORD lines that the program may currently hold; `public` are
    words that occur in them without being values (the stream's name, say).
    """

    def __init__(
        self,
        secrets: Iterable[str],
        in_flight: Callable[[], Iterable[bytes]] = tuple,
        public: Iterable[str] = (),
    ) -> None:
        # The longest first, so that a secret within a secret leaves no remains.
        self._secrets = sorted(set(secrets), key=len, reverse=True)
        self._in_flight = in_flight
        self._public = frozenset(public)

    def __call__(self, text: str) -> str:
        """Return `text` fit to be stored and shown, at most 1,000 characters of it."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        text = _EMAIL.sub(_MASK, text[:_TEXT_LIMIT])
        blob = b"\n".join(self._in_flight())
        return _WORD.sub(lambda word: self._shown(word[0], blob), text) if blob else text

    def _shown(self, word: str, blob: bytes) -> str:
        if word in self._public:
            return word
        token = word.encode(errors="replace")
        # A key is followed by a colon, so these are values only.
        shapes = (b'"%s",', b'"%s"}', b'"%s"]', b":%s,", b":%s}")
        return _MASK if any(shape % token in blob for shape in shapes) else word


def secret_values(config: object, schema: Mapping[str, Any] | None) -> set[str]:
    """Return the strings that nobody may see, in the forms in which they turn up.

    With the connector's `connectionSpecification` these are the values of its `airbyte_secret`
    fields; without one, every string of the config.
    """
    return {form for value in _strings(config, schema, secret=schema is None) for form in _forms(value)}


def _strings(config: object, schema: Any, *, secret: bool) -> Iterable[str]:
    """Walk a config beside its schema; alternatives (oneOf and the like) count all at once."""
    schema = schema if isinstance(schema, dict) else {}
    secret = secret or bool(schema.get("airbyte_secret"))
    branches = [b for word in ("oneOf", "anyOf", "allOf") for b in schema.get(word, [])]
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _strings(value, schema.get("properties", {}).get(key), secret=secret)
    elif isinstance(config, list):
        for value in config:
            yield from _strings(value, schema.get("items"), secret=secret)
    elif isinstance(config, str) and secret and config:
        yield config
    for branch in branches:
        yield from _strings(config, branch, secret=False)


def _forms(secret: str) -> Iterable[str]:
    yield secret
    yield quote(secret, safe="")
    try:
        password = urlsplit(secret).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
