"""Fixtures that every suite may use, and how the suites are shared out among pytest's workers."""

from pathlib import Path

import pytest

pytest_plugins = ["libs.kit.testing"]

ROOT = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each file's tests to one worker, since they share servers.

    Those of a whole stack share one, and come first, as they take longest.
    """
    for item in items:
        place = item.path.relative_to(ROOT)
        item.add_marker(pytest.mark.xdist_group("stack" if place.parts[0] == "tests" else str(place)))
    items.sort(key=lambda item: item.path.relative_to(ROOT).parts[0] != "tests")
