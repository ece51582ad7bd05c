"""What a sync sends: modes, operations, mappings, and the states of runs and batches. Pure rules."""

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

#: The model's column that identifies a user, and the source that every sync maps.
KEY = "user_id"
MODEL_TABLE = "traitmesh.user_model"

MAX_FIELD_LENGTH = 200


class Mode(StrEnum):
    """Which differences between the source and what the destination has confirmed are sent."""

    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"
    MIRROR = "mirror"


class Change(StrEnum):
    """How a row of the source differs from what the destination has confirmed."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


class Operation(StrEnum):
    """What the destination is told to do with a record."""

    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


#: The operation for each change that a mode sends; changes that are absent are not sent.
OPERATIONS: dict[Mode, dict[Change, Operation]] = {
    Mode.UPSERT: {Change.ADDED: Operation.UPSERT, Change.CHANGED: Operation.UPSERT},
    Mode.INSERT: {Change.ADDED: Operation.INSERT},
    # A row that was never confirmed is an update too: the destination may know the user from elsewhere.
    Mode.UPDATE: {Change.ADDED: Operation.UPDATE, Change.CHANGED: Operation.UPDATE},
    Mode.MIRROR: {
        Change.ADDED: Operation.UPSERT,
        Change.CHANGED: Operation.UPSERT,
        Change.DELETED: Operation.DELETE,
    },
}

#: What each mode is in the Airbyte protocol (destination_sync_mode).
AIRBYTE_MODES: dict[Mode, str] = {
    Mode.UPSERT: "append_dedup",
    Mode.INSERT: "append",
    Mode.UPDATE: "update",
    Mode.MIRROR: "append_dedup",
}


def offered_modes(airbyte_modes: Collection[str]) -> tuple[Mode, ...]:
    """The modes that a connector with these destination_sync_modes can write in."""
    return tuple(mode for mode in Mode if AIRBYTE_MODES[mode] in airbyte_modes)


class RunState(StrEnum):
    """Where a run is. A parked run (needs_attention) goes back to what it was doing when it is retried."""

    PLANNING = "planning"
    SENDING = "sending"
    NEEDS_ATTENTION = "needs_attention"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"

    @property
    def is_over(self) -> bool:
        """Whether the run has ended for good."""
        return self in (RunState.SUCCEEDED, RunState.ABORTED)


class BatchState(StrEnum):
    """What is known of a batch: unknown is one that was sent by an attempt that died before the answer."""

    PLANNED = "planned"
    SENT = "sent"
    UNKNOWN = "unknown"
    CONFIRMED = "confirmed"


@dataclass(frozen=True)
class Mapping:
    """One field of the destination's record: the key or a trait, and what the destination calls it."""

    source: str
    destination: str


@dataclass(frozen=True)
class Sync:
    """A standing order. `audience` is the trait whose true rows are sent; empty for every user."""

    workspace: str
    sync: str
    audience: str
    destination: str
    object: str
    mode: Mode
    mappings: tuple[Mapping, ...]

    @property
    def name(self) -> str:
        """The resource name."""
        return f"workspaces/{self.workspace}/syncs/{self.sync}"

    @property
    def destination_name(self) -> str:
        """The destination's resource name."""
        return f"workspaces/{self.workspace}/destinations/{self.destination}"

    @property
    def key_field(self) -> str:
        """The destination's field that holds the key."""
        return next(mapping.destination for mapping in self.mappings if mapping.source == KEY)


class RunName(NamedTuple):
    """Which run: also the workflow's id, as text."""

    workspace: str
    sync: str
    number: int

    def __str__(self) -> str:
        return f"workspaces/{self.workspace}/syncs/{self.sync}/runs/{self.number}"

    @classmethod
    def parse(cls, name: str) -> "RunName":
        """The run of a workflow's id; ValueError if it is none."""
        match = re.fullmatch(r"workspaces/([^/]+)/syncs/([^/]+)/runs/(\d+)", name)
        if match is None:
            raise ValueError("not the name of a run")
        return cls(match[1], match[2], int(match[3]))


class Problem(NamedTuple):
    """A field of a sync that is wrong, and what would be right."""

    field: str
    description: str


def sync_problems(sync: Sync, traits: Collection[str], audiences: Collection[str]) -> list[Problem]:
    """What keeps a sync from being made on a model of these traits, some of which are audiences."""
    problems = _mapping_problems(sync.mappings, traits)
    if sync.audience and sync.audience not in audiences:
        problems.append(Problem("audience", _unknown("audience", sync.audience, audiences)))
    if not sync.object or len(sync.object) > MAX_FIELD_LENGTH:
        problems.append(Problem("object", f"must have 1 to {MAX_FIELD_LENGTH} characters"))
    return problems


def _mapping_problems(mappings: Sequence[Mapping], traits: Collection[str]) -> list[Problem]:
    problems = []
    seen: set[str] = set()
    for index, mapping in enumerate(mappings):
        field = f"mappings[{index}]"
        if mapping.source != KEY and mapping.source not in traits:
            problems.append(Problem(f"{field}.source", _unknown("trait", mapping.source, (KEY, *traits))))
        if not mapping.destination or len(mapping.destination) > MAX_FIELD_LENGTH:
            problems.append(Problem(f"{field}.destination", f"must have 1 to {MAX_FIELD_LENGTH} characters"))
        elif mapping.destination in seen:
            problems.append(Problem(f"{field}.destination", f"{mapping.destination} is written twice"))
        seen.add(mapping.destination)
    if all(mapping.source != KEY for mapping in mappings):
        problems.append(Problem("mappings", f"one must have the source {KEY}: it is the record's key"))
    return problems


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known)[:20]) or 'none'}"
    return f"there is no {kind} {name} in the model{hint}"
