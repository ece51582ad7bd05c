"""Who sends a request: from the key in its header to the caller that the services are told."""

import asyncio
import time
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from libs.kit import auth, errors
from services.gateway import domain, store

#: How long a key is believed without asking the database again, and so how long one lives on that was revoked.
BELIEF_SECONDS = 4.0
#: How many keys are remembered at most.
MAX_REMEMBERED = 10_000


class Authenticator:
    """Tells callers by their API keys, which it remembers for a moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: By the digest of the whole key, with the moment until which it is believed.
        self._remembered: dict[bytes, tuple[float, domain.ApiKey]] = {}

    async def caller(self, authorization: str | None) -> auth.Caller:
        """The caller that an Authorization header names; raises Unauthenticated, or Unavailable without a database."""
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise errors.Unauthenticated("the call needs an API key, as `Authorization: Bearer tm_...`")
        key = await self._key(text.strip())
        if key is None or not key.is_alive(datetime.now(UTC)):
            raise errors.Unauthenticated("the API key is not known, has expired or was revoked")
        return auth.Caller(f"key:{key.id}", key.workspace, key.role)

    async def _key(self, text: str) -> domain.ApiKey | None:
        sha256 = domain.digest(text)
        believed_until, key = self._remembered.get(sha256, (0.0, None))
        if time.monotonic() < believed_until:
            return key
        key_id = domain.key_id_of(text)
        key = await asyncio.to_thread(self._find, key_id, text) if key_id else None
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        if key is not None:
            self._remembered[sha256] = (time.monotonic() + BELIEF_SECONDS, key)
        return key

    def _find(self, key_id: str, text: str) -> domain.ApiKey | None:
        try:
            with self._engine.begin() as tx:
                key = store.find_key(tx, key_id)
                if key is None or not key.is_of(text):
                    return None
                if key.is_alive(datetime.now(UTC)):
                    store.note_use(tx, key_id)
                return key
        except OperationalError as error:
            raise errors.Unavailable("the database does not answer; try again", part="database") from error
