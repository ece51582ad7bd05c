"""Logs hold what happened and where, and no value."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from libs.kit import logs

CANARY = "ann@example.com"


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Iterator[structlog.stdlib.BoundLogger]:
    handlers, level = logging.root.handlers[:], logging.root.level
    logs.configure("test", "info")
    yield structlog.get_logger()
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    text = capfd.readouterr().err
    assert CANARY not in text
    return [json.loads(line) for line in text.splitlines()]


def test_an_exception_is_told_by_type_and_place(
    log: structlog.stdlib.BoundLogger, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        int(CANARY)
    except ValueError:
        log.error("failed", exc_info=True)
    (line,) = lines(capfd)
    assert (line["event"], line["error_type"], line["service"]) == ("failed", "ValueError", "test")
    assert "test_an_exception_is_told" in line["stack"]


def test_libraries_log_in_the_same_form_without_what_they_fill_in(
    log: structlog.stdlib.BoundLogger, capfd: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("some.library")
    try:
        int(CANARY)
    except ValueError:
        library.warning("cannot read %s", CANARY, exc_info=True)
    (line,) = lines(capfd)
    assert (line["event"], line["logger"], line["level"]) == ("cannot read %s", "some.library", "warning")
    assert line["error_type"] == "ValueError"
