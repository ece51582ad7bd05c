"""Who may do what, and whose word counts."""

import time

import jwt
import pytest

from libs.kit import auth, errors

KEY = "a signing key for tests, 32 bytes or more"
ANN = auth.Caller("ann", "tusk", "editor")


def test_a_token_names_its_caller() -> None:
    signer = auth.TokenSigner(KEY)
    assert signer.verify(signer.sign(ANN)) == ANN


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "nonsense",
        auth.TokenSigner("another key that is 32 bytes or more").sign(ANN),
        jwt.encode({"sub": "ann", "workspace": "tusk", "role": "admin", "exp": time.time() - 1}, KEY, "HS256"),
        jwt.encode({"sub": "ann", "workspace": "tusk", "role": "admin"}, KEY, "HS256"),
        jwt.encode({"sub": "ann", "workspace": "tusk", "role": "admin", "exp": time.time() + 60}, "", "none"),
    ],
    ids=["absent", "empty", "nonsense", "other key", "expired", "without expiry", "unsigned"],
)
def test_nothing_else_is_believed(token: str | None) -> None:
    with pytest.raises(errors.Unauthenticated):
        auth.TokenSigner(KEY).verify(token)


@pytest.mark.parametrize(
    ("role", "permission", "allowed"),
    [
        ("viewer", "syncs.read", True),
        ("viewer", "syncs.write", False),
        ("viewer", "profiles.read", False),
        ("editor", "syncs.run", True),
        ("editor", "profiles.read", True),
        ("editor", "workspaces.admin", False),
        ("editor", "internal", False),
        ("admin", "workspaces.admin", False),
        ("admin", "syncs.write", True),
        ("admin", "internal", False),
        ("service", "internal", True),
    ],
)
def test_roles_hold_permissions(role: auth.Role, permission: str, allowed: bool) -> None:
    assert auth.Caller("x", "tusk", role).may(permission) is allowed


def test_an_administrator_of_the_installation_may_make_workspaces() -> None:
    assert auth.Caller("root", auth.EVERY_WORKSPACE, "admin").may("workspaces.admin")
    assert not auth.Caller("root", auth.EVERY_WORKSPACE, "editor").may("workspaces.admin")


def test_nobody_acts_for_a_caller_behind_the_block() -> None:
    outer, inner = auth.Caller("a", "tusk", "viewer"), auth.Caller("b", "tusk", "admin")
    with auth.acting_as(outer):
        with auth.acting_as(inner):
            assert auth.current_caller() == inner
        assert auth.current_caller() == outer
    with pytest.raises(LookupError):
        auth.current_caller()


def test_a_caller_enters_one_workspace_or_every() -> None:
    assert ANN.may_enter("tusk")
    assert not ANN.may_enter("other")
    assert auth.Caller("root", auth.EVERY_WORKSPACE, "admin").may_enter("other")
