"""Who calls: the caller's identity, signed between services, and what its role may do.

The gateway checks a person's or program's credential and signs a short-lived token; services trust the signature
alone. A service that calls another signs a token of its own, limited to the workspace that it works for.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import jwt

from libs.kit import errors

METADATA_KEY = "x-traitmesh-caller"
ALGORITHM = "HS256"
TOKEN_SECONDS = 300

#: The workspace of a caller that may enter every workspace.
EVERY_WORKSPACE = "-"

Role = Literal["viewer", "editor", "admin", "service"]

#: What a viewer may do. An editor may do everything in its workspace; `internal` is for services.
VIEWER_PERMISSIONS = frozenset(
    {
        "workspaces.read",
        "traits.read",
        "lineage.read",
        "events.read",
        "builds.read",
        "audiences.read",
        "destinations.read",
        "syncs.read",
    }
)


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: who it is, the one workspace it may enter, and its role there."""

    subject: str
    workspace: str
    role: Role

    def may(self, permission: str) -> bool:
        """Whether the role holds a permission such as "syncs.write"."""
        if self.role == "service":
            return True
        if permission == "internal":
            return False
        if permission.endswith(".admin"):
            # What concerns the installation is for its own administrators, not for those of one workspace.
            return self.role == "admin" and self.workspace == EVERY_WORKSPACE
        if self.role in ("admin", "editor"):
            return True
        return permission in VIEWER_PERMISSIONS

    def may_enter(self, workspace: str) -> bool:
        """Whether the caller belongs to a workspace, given by id."""
        return self.workspace in (EVERY_WORKSPACE, workspace)


_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """The caller on whose behalf this thread or task works; raises LookupError outside of `acting_as`."""
    return _caller.get()


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Makes `caller` the one that `current_caller` answers within the block."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def acting_in(workspace: str) -> AbstractContextManager[None]:
    """Within the block, a worker works for one workspace without anybody having called it."""
    return acting_as(Caller(subject="worker", workspace=workspace, role="service"))


class TokenSigner:
    """Signs and checks caller tokens with a key that all services share."""

    def __init__(self, key: str) -> None:
        self._key = key

    def sign(self, caller: Caller) -> str:
        """A token that outlives a call with all its retries."""
        claims = {
            "sub": caller.subject,
            "workspace": caller.workspace,
            "role": caller.role,
            "exp": int(time.time()) + TOKEN_SECONDS,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def verify(self, token: str | None) -> Caller:
        """The caller that a token names; raises Unauthenticated if it is absent, forged or old."""
        if not token:
            raise errors.Unauthenticated("the call carries no caller identity")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                options={"require": ["exp", "sub", "workspace", "role"]},
            )
        except jwt.InvalidTokenError as error:
            raise errors.Unauthenticated("the caller identity is forged or has expired") from error
        return Caller(claims["sub"], claims["workspace"], claims["role"])
