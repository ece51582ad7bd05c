"""Finds or makes the Temporal command line, whose dev server is the real server with its web UI.

In this order: `TRAITMESH_TEMPORAL_BINARY`, `temporal` on PATH, one kept from before, the official release by
checksum, and a build by Go from the module proxy.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import httpx

VERSION = "1.5.1"

#: The last release that `go install` can build; its checksum as package managers list it.
RELEASE = f"https://github.com/temporalio/cli/releases/download/v{VERSION}/temporal_cli_{VERSION}_linux_amd64.tar.gz"
RELEASE_SHA256 = "ddc95e08b0b076efd4ea9733a3f488eb7d2be875f8834e616cd2a37358b4852d"

DOWNLOAD_SECONDS = 120
CONNECT_SECONDS = 10
BUILD_SECONDS = 1200


class TemporalMissingError(RuntimeError):
    """No Temporal command line, and no way to get one here."""


def find_or_make(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of a `temporal` program; raises TemporalMissingError with what to do."""
    given = environment.get("TRAITMESH_TEMPORAL_BINARY")
    on_path = shutil.which("temporal")
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "traitmesh"
    kept = cache / f"temporal-{VERSION}"
    for candidate in (given, on_path, kept):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    cache.mkdir(parents=True, exist_ok=True)
    if _download(kept) or _build(kept):
        return kept
    raise TemporalMissingError(
        "Traitmesh needs the Temporal command line: install it from https://docs.temporal.io/cli, "
        "or install Go 1.24 or newer and run this again"
    )


def _download(target: Path) -> bool:
    """Downloads the official release if this is the system that it is for; False if that cannot be."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False
    print(f"  downloading Temporal {VERSION} ...", file=sys.stderr)
    timeout = httpx.Timeout(DOWNLOAD_SECONDS, connect=CONNECT_SECONDS)
    try:
        answer = httpx.get(RELEASE, follow_redirects=True, timeout=timeout)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        print(f"  no download ({type(error).__name__})", file=sys.stderr)
        return False
    if hashlib.sha256(answer.content).hexdigest() != RELEASE_SHA256:
        print("  the download has another checksum than the release; it is not used", file=sys.stderr)
        return False
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        program = archive.extractfile("temporal")
        assert program is not None
        _place(program.read(), target)
    return True


def _build(target: Path) -> bool:
    """Builds it with Go; False if there is no Go or the build fails."""
    go = shutil.which("go")
    if go is None:
        return False
    print(f"  building Temporal {VERSION} with Go, which takes a few minutes once ...", file=sys.stderr)
    folder = target.parent / "go-bin"
    command = [go, "install", f"github.com/temporalio/cli/cmd/temporal@v{VERSION}"]
    built = subprocess.run(
        command,
        env=os.environ | {"GOBIN": str(folder)},
        timeout=BUILD_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        print(f"  go install failed: {built.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return False
    _place((folder / "temporal").read_bytes(), target)
    shutil.rmtree(folder)
    return True


def _place(program: bytes, target: Path) -> None:
    """Puts the program there whole or not at all, since another process may be looking."""
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(target)


if __name__ == "__main__":
    try:
        print(find_or_make())
    except TemporalMissingError as error:
        sys.exit(str(error))
