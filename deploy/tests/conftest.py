"""Helm, and the chart rendered once for all tests that only look at it."""

import pytest

from deploy.helm.find_helm import find_or_make
from deploy.tests.rendering import Helm, Release


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(find_or_make())


@pytest.fixture(scope="session")
def minimal(helm: Helm) -> Release:
    """With what must be given, and every default."""
    return helm.release("minimal")


@pytest.fixture(scope="session")
def everything(helm: Helm) -> Release:
    """With every option used, and odd names."""
    return helm.release("everything")
