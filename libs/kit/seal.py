"""Secrets at rest: AES-256-GCM, bound to the place that the secret belongs to.

A sealed value that is copied to another resource or field does not open.
"""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.kit import errors

NONCE_BYTES = 12


class Seal:
    """Seals and opens with a key derived from one that the services share."""

    def __init__(self, key: str) -> None:
        self._cipher = AESGCM(hashlib.sha256(b"traitmesh seal" + key.encode()).digest())

    def close(self, value: bytes, place: str) -> bytes:
        """The sealed form of `value`, which opens only for the same `place`, such as a resource's name."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The value; raises Internal if it was changed, moved, or sealed with another key."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except InvalidTag as error:
            raise errors.Internal(f"the secret of {place} does not open with this key") from error
