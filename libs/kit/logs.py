"""Logs: one JSON object a line on standard error, with the trace id, and never a value of a record.

An exception is logged by type and place. Its message is left out, since messages of databases and parsers quote values.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from opentelemetry import trace

#: How many of the innermost calls a logged exception shows.
STACK_DEPTH = 12


def configure(service: str, level: str) -> None:
    """Sets up logging for this process; call once, first."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            lambda _logger, _method, event: {**event, "service": service},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            _describe_exception,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


class _FromLibraries(logging.Handler):
    """Logs of libraries in the same form: the text as it was written in their code, without what was filled in."""

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one record on."""
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, str(record.msg), exc_info=record.exc_info)


def _add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event


def _describe_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given else None
    if error is not None:
        event["error_type"] = type(error).__qualname__
        event["stack"] = "".join(traceback.format_tb(error.__traceback__, -STACK_DEPTH))
    return event
