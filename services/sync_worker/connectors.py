"""The connectors that are installed, what they say of themselves, and which parts of a configuration are secret.

A connector is installed when `<connectors_dir>/<id>/bin/<id>` is there: the folder is the list of what may run.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import structlog

from libs.kit import errors, names
from services.sync_worker.domain import Mode, offered_modes
from traitmesh_connector import runner
from traitmesh_connector.errors import ConfigError, ConnectorError, TransientError
from traitmesh_connector.protocol import Guarantee

PREFIX = "destination-"
MASK = "********"
DEFAULT_BATCH_SIZE = 1000

log = structlog.get_logger()

ConfigPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Connector:
    """An installed destination connector, by its own word."""

    id: str
    display_name: str
    program: runner.Program
    config_schema: Mapping[str, Any]
    modes: tuple[Mode, ...]
    guarantee: str
    batch_size: int


class Connectors:
    """The installed connectors. What one says of itself is asked once for each version of its program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, Connector]] = {}

    def ids(self) -> list[str]:
        """The ids of the installed destination connectors."""
        candidates = sorted(path.name for path in self._folder.glob(f"{PREFIX}*"))
        return [name for name in candidates if self._program(name).is_file()]

    def working(self) -> list[Connector]:
        """The installed connectors but those that cannot tell what they are."""
        found = []
        for connector in self.ids():
            try:
                found.append(self.get(connector))
            except errors.Fault as fault:
                log.warning("a connector does not work", connector=connector, reason=fault.message)
        return found

    def get(self, connector: str, field: str = "connector") -> Connector:
        """One connector. Raises InvalidArgument, naming `field`, if it is not installed; ConnectorRefused."""
        program = self._program(connector)
        if not (names.ID.fullmatch(connector) and connector.startswith(PREFIX) and program.is_file()):
            installed = ", ".join(self.ids()) or "none"
            raise errors.invalid(field, f"must be an installed connector; there are {installed}")
        version = program.stat().st_mtime_ns
        known = self._known.get(connector)
        # Two threads may ask at once: better than one hung program holding up all others.
        if known is None or known[0] != version:
            known = self._known[connector] = version, _ask(connector, program)
        return known[1]

    def _program(self, connector: str) -> Path:
        return self._folder / connector / "bin" / connector


def _ask(connector: str, program: Path) -> Connector:
    command = (str(program),)
    try:
        spec = runner.spec(runner.Program(command))
    except ConnectorError as error:
        raise fault_of(error, connector) from None
    schema = spec.get("connectionSpecification") or {}
    ours = spec.get("traitmesh") or {}
    return Connector(
        id=connector,
        display_name=str(schema.get("title") or connector),
        program=runner.Program(command, config_schema=schema),
        config_schema=schema,
        modes=offered_modes(spec.get("supported_destination_sync_modes") or ()),
        guarantee=str(ours.get("guarantee") or Guarantee.AT_LEAST_ONCE),
        batch_size=int(ours.get("batch_size") or DEFAULT_BATCH_SIZE),
    )


def fault_of(error: ConnectorError, connector: str) -> errors.Fault:
    """The fault that the failure of a spec or check is to a caller: wait, or have somebody act."""
    if isinstance(error, TransientError):
        return errors.Unavailable(error.message, part=connector)
    return errors.ConnectorRefused(error.message, connector=connector)


def check_config(connector: Connector, config: Mapping[str, Any], field: str) -> None:
    """Checks a configuration by the connector's schema, then by its own check against the tool.

    Raises InvalidArgument naming each wrong path below `field`, ConnectorRefused with the tool's answer, Unavailable.
    """
    validator = jsonschema_rs.validator_for(dict(connector.config_schema), mask="the value")
    violations = [
        errors.Violation(".".join((field, *map(str, error.instance_path))), error.message)
        for error in validator.iter_errors(config)
    ]
    if violations:
        raise errors.InvalidArgument(*violations)
    try:
        status = runner.check(connector.program, config)
    except ConfigError as error:
        raise errors.ConnectorRefused(error.message, connector=connector.id) from None
    except ConnectorError as error:
        raise fault_of(error, connector.id) from None
    if not status.succeeded:
        raise errors.ConnectorRefused(status.message or "the tool refuses", connector=connector.id)


def masked(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with each secret as "********"."""
    shown = copy.deepcopy(dict(config))
    for path in _secret_paths(config, schema):
        _set(shown, path, MASK)
    return shown


def unmasked(
    config: Mapping[str, Any], previous: Mapping[str, Any], schema: Mapping[str, Any], field: str
) -> dict[str, Any]:
    """The configuration with each secret that was sent back as "********" as it was before.

    Raises InvalidArgument if there was none at that place.
    """
    whole = copy.deepcopy(dict(config))
    before = dict(_secret_paths(previous, schema))
    for path, secret in _secret_paths(config, schema).items():
        if secret != MASK:
            continue
        if path not in before:
            raise errors.invalid(".".join((field, *map(str, path))), "has no earlier value that could stay; give it")
        _set(whole, path, before[path])
    return whole


def _secret_paths(config: object, schema: Mapping[str, Any]) -> dict[ConfigPath, object]:
    return dict(_walk(config, schema, ()))


def _walk(value: object, schema: object, path: ConfigPath) -> Iterator[tuple[ConfigPath, object]]:
    """Every secret and its path. Alternatives (oneOf and the like) count all at once."""
    if not isinstance(schema, Mapping):
        return
    if schema.get("airbyte_secret"):
        yield path, value
        return
    if isinstance(value, Mapping):
        for name, below in (schema.get("properties") or {}).items():
            if name in value:
                yield from _walk(value[name], below, (*path, name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _walk(item, schema.get("items"), (*path, index))
    for word in ("oneOf", "anyOf", "allOf"):
        for branch in schema.get(word) or ():
            yield from _walk(value, branch, path)


def _set(config: Any, path: ConfigPath, value: object) -> None:
    for part in path[:-1]:
        config = config[part]
    config[path[-1]] = value
