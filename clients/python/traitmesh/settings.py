"""Where the gateway is and which key opens it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

FILES = (Path(".traitmesh/client.json"), Path.home() / ".config" / "traitmesh" / "client.json")


class SettingsError(Exception):
    """Address or key are not known; the message says how to give them."""


@dataclass(frozen=True)
class Settings:
    """How to reach Traitmesh, and in which workspace commands work."""

    url: str
    api_key: str
    workspace: str


def read_settings(url: str | None = None, api_key: str | None = None, workspace: str | None = None) -> Settings:
    """What was given, else the variables TRAITMESH_URL, _API_KEY and _WORKSPACE, else the first client.json found.

    Raises SettingsError if no address or key is found.
    """
    kept = _kept()
    url = url or os.environ.get("TRAITMESH_URL") or kept.get("url")
    api_key = api_key or os.environ.get("TRAITMESH_API_KEY") or kept.get("api_key")
    workspace = workspace or os.environ.get("TRAITMESH_WORKSPACE") or kept.get("workspace") or "default"
    if not url or not api_key:
        raise SettingsError(
            "no address or API key: set TRAITMESH_URL and TRAITMESH_API_KEY, or run `make up`, which makes a key for "
            "this machine"
        )
    return Settings(url.rstrip("/"), api_key, workspace)


def _kept() -> dict[str, str]:
    home = os.environ.get("TRAITMESH_HOME")
    files = (Path(home) / "client.json", *FILES) if home else FILES
    for path in files:
        if path.is_file():
            content: dict[str, str] = json.loads(path.read_text())
            return content
    return {}
