"""Finds or makes Helm, for the tests of the chart.

In this order: `TRAITMESH_HELM_BINARY`, `helm` on PATH, one kept from before, and a build by Go from the module proxy.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VERSION = "4.3.1"

BUILD_SECONDS = 1200


class HelmMissingError(RuntimeError):
    """No Helm, and no way to get one here."""


def find_or_make(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of a `helm` program; raises HelmMissingError with what to do."""
    given = environment.get("TRAITMESH_HELM_BINARY")
    on_path = shutil.which("helm", path=environment.get("PATH"))
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "traitmesh"
    kept = cache / f"helm-{VERSION}"
    for candidate in (given, on_path, kept):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    cache.mkdir(parents=True, exist_ok=True)
    _build(kept, environment)
    return kept


def _build(target: Path, environment: Mapping[str, str]) -> None:
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        raise HelmMissingError(
            "the chart's tests need Helm: install it from https://helm.sh/docs/intro/install, "
            "or install Go 1.26 or newer and run this again"
        )
    print(f"  building Helm {VERSION} with Go, which takes a few minutes once ...", file=sys.stderr)
    folder = target.parent / "go-bin-helm"
    built = subprocess.run(
        [go, "install", "-ldflags=-s -w", f"helm.sh/helm/v4/cmd/helm@v{VERSION}"],
        env={**environment, "GOBIN": str(folder), "CGO_ENABLED": "0"},
        timeout=BUILD_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise HelmMissingError(f"Helm could not be built with Go: {built.stderr.strip().splitlines()[-1:]}")
    (folder / "helm").replace(target)
    shutil.rmtree(folder)


if __name__ == "__main__":
    try:
        print(find_or_make())
    except HelmMissingError as error:
        sys.exit(str(error))
