"""API keys: how they are made, told apart and ended. Pure rules: nothing here reads or writes.

A key is `tm_<id>_<secret>_<checksum>`. The prefix and checksum let scanners find keys that leaked, and let the gateway
refuse a mistyped one without asking the database. Only the SHA-256 of a key is kept: its secret has 256 random bits, so
a slow hash would protect nothing and cost every call.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_BYTES = 32

#: The roles that a key can have. `services` have identities of their own.
Role = Literal["viewer", "editor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_FORM = re.compile(r"tm_([a-z0-9]{12})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept: everything but its secret."""

    id: str
    #: The one workspace that it opens; `-` opens every one.
    workspace: str
    role: Role
    display_name: str
    sha256: bytes
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    #: To the hour.
    last_use_time: datetime | None = None

    def is_alive(self, now: datetime) -> bool:
        """Whether it opens anything at that moment."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)

    def is_of(self, text: str) -> bool:
        """Whether `text` is this key; takes the same time whatever differs."""
        return hmac.compare_digest(self.sha256, digest(text))


def new_key_text() -> str:
    """A new key, to be shown once."""
    key_id = "".join(secrets.choice(ALPHABET[:10] + ALPHABET[36:]) for _ in range(12))
    body = f"tm_{key_id}_{_base62(secrets.token_bytes(SECRET_BYTES), 43)}"
    return f"{body}_{_checksum(body)}"


def key_id_of(text: str) -> str | None:
    """The id in a key; None if it is not of the form or its checksum does not fit."""
    form = _FORM.fullmatch(text)
    if form is None or _checksum(text.rpartition("_")[0]) != form[3]:
        return None
    return form[1]


def digest(text: str) -> bytes:
    """What is kept of a key: its SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()).to_bytes(4), 6)


def _base62(data: bytes, length: int) -> str:
    number = int.from_bytes(data)
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
