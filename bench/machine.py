"""What was measured on: the machine, and the versions of what runs on it."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

QUIET_LOAD = 1.0
"""Load of the last minute above which others take part of the processors."""


def describe() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and the load of the last minute."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str, environment: Path | None = None) -> dict[str, str]:
    """The versions of Python and of packages, installed here or in another virtual environment."""
    if environment is None:
        return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    found = {name: next(iter(metadata.distributions(name=name, path=folders))) for name in packages}
    return {name: distribution.version for name, distribution in found.items()}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
