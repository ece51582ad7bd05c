"""What sources and destinations share: the command line, the config, the way out to stdout."""

import abc
import argparse
import gc
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from traitmesh_connector.errors import ConfigError, ConnectorError, trace_error
from traitmesh_connector.protocol import encode, now_ms, read_document


class Output:
    """The protocol's side of stdout; anything else that prints is sent to stderr instead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take_over_stdout(cls) -> "Output":
        """Keep stdout for messages, so that a library's `print` cannot break a line."""
        sys.stdout.flush()
        output = cls(os.dup(1))
        os.dup2(2, 1)
        return output

    def emit(self, kind: str, body: Mapping[str, Any]) -> None:
        """Write one message at once."""
        self.write(encode(kind, body))

    def write(self, lines: bytes) -> None:
        """Write encoded lines at once."""
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]


class Connector(abc.ABC):
    """A program with the commands spec, check, discover and its `moving_command` (read or write).

    `config_schema` is JSON Schema in Airbyte's `connectionSpecification` form, secrets marked
    `airbyte_secret`. One instance serves one command; its `config` is valid by the schema, defaults
    filled in.
    """

    moving_command: ClassVar[str]
    name: ClassVar[str]
    config_schema: ClassVar[dict[str, Any]]

    def __init__(self, config: dict[str, Any], output: Output) -> None:
        self.config = config
        self.output = output

    @abc.abstractmethod
    def check(self) -> None:
        """Reach the other side with this config; `ConfigError` says what a person must change."""

    @abc.abstractmethod
    def run(self, arguments: argparse.Namespace) -> None:
        """Do the command that moves data."""

    @abc.abstractmethod
    def catalog_message(self) -> tuple[str, dict[str, Any]]:
        """Return the type and body that answer `discover`."""

    @classmethod
    @abc.abstractmethod
    def specification(cls) -> dict[str, Any]:
        """Return the body that answers `spec`."""

    def log(self, level: str, text: str) -> None:
        """Send a LOG message (DEBUG, INFO, WARN, ERROR); never a secret, never a record's value."""
        self.output.emit("LOG", {"level": level, "message": text})

    @staticmethod
    def trace_headers() -> dict[str, str]:
        """Return the HTTP headers that carry the host's trace on, none without a trace."""
        traceparent = os.environ.get("TRACEPARENT")
        return {"traceparent": traceparent} if traceparent else {}

    @classmethod
    def main(cls) -> None:
        """Run the program by its command line and exit."""
        output = Output.take_over_stdout()
        try:
            cls._serve(_arguments(cls.name, cls.moving_command), output)
        except ConnectorError as error:
            _emit_failure(output, trace_error(error))
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - the last resort: a bug must become a message
            _emit_failure(output, _unexpected(error))
            sys.exit(1)

    @classmethod
    def _serve(cls, arguments: argparse.Namespace, output: Output) -> None:
        if arguments.command == "spec":
            output.emit("SPEC", cls.specification())
            return
        config = read_document(arguments.config, "config")
        if arguments.command == "check":
            output.emit("CONNECTION_STATUS", cls._check(config, output))
            return
        connector = cls(valid_config(config, cls.config_schema), output)
        if arguments.command == "discover":
            output.emit(*connector.catalog_message())
        else:
            # Records are many small objects without cycles; looking through them costs half the speed.
            gc.set_threshold(200_000, 50, 50)
            connector.run(arguments)

    @classmethod
    def _check(cls, config: object, output: Output) -> dict[str, str]:
        try:
            cls(valid_config(config, cls.config_schema), output).check()
        except ConfigError as error:
            return {"status": "FAILED", "message": error.message}
        return {"status": "SUCCEEDED"}


def _arguments(name: str, moving_command: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("spec")
    for command in ("check", "discover", moving_command):
        commands.add_parser(command).add_argument("--config", required=True)
    commands.choices[moving_command].add_argument("--catalog", required=True)
    commands.choices[moving_command].add_argument("--state")
    return parser.parse_args()


def _emit_failure(output: Output, error: Mapping[str, Any]) -> None:
    output.emit("TRACE", {"type": "ERROR", "emitted_at": now_ms(), "error": error})


def _unexpected(error: Exception) -> dict[str, Any]:
    """Describe a bug by its type and place; its own text may quote a row or a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames]
    return {
        "message": f"unexpected {type(error).__name__} at {places[-1]}",
        "failure_type": "system_error",
        "stack_trace": "\n".join(places),
    }


def valid_config(config: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with the schema's top-level defaults; `ConfigError` names each wrong field."""
    # Only this function needs the validator, and `spec` is answered sooner without it.
    import jsonschema_rs  # noqa: PLC0415

    validator = jsonschema_rs.validator_for(dict(schema), mask="the value")
    wrong = [
        f"config.{'.'.join(map(str, e.instance_path))}: {e.message}" if e.instance_path else f"config: {e.message}"
        for e in validator.iter_errors(config)
    ]
    if wrong or not isinstance(config, dict):
        raise ConfigError("; ".join(wrong) or "config: must be an object")
    return {k: v["default"] for k, v in _properties(schema) if "default" in v} | config


def _properties(schema: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return list(schema.get("properties", {}).items())
