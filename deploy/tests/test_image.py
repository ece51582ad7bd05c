"""That the images are built as their page says: checked packages only, and nothing left to fetch or to write."""

import re
import shutil
import subprocess
from pathlib import Path

from deploy.tests.rendering import CONTAINERFILE, DEPLOY

ROOT = DEPLOY.parent
TEXT = CONTAINERFILE.read_text().replace("\\\n", " ")


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    assert program, "hadolint is not installed: it comes with requirements/dev.lock"
    result = subprocess.run([program, CONTAINERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout


def test_packages_are_installed_by_hash_or_made_here() -> None:
    installs = [line for line in re.split(r"\n|&&", TEXT) if re.search(r"\bpip\b.* install ", line)]
    assert len(installs) == 7
    for line in installs:
        assert "--require-hashes" in line or "--no-index --no-deps" in line


def test_what_a_lock_names_is_installed_as_it_stands() -> None:
    # Resolving anew, pip refuses what another package asks for with an extra, since locks have no extras.
    options = re.findall(r"install (.*?)-r /build/\w+\.lock", TEXT)
    assert len(options) == 4
    assert all("--no-deps --require-hashes" in each for each in options)


def test_the_tools_that_make_code_are_in_the_lock() -> None:
    found = re.search(r'tools="([^"]+)"', TEXT)
    assert found
    lock = (ROOT / "requirements" / "dev.lock").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if line[:1].islower()}
    assert set(found[1].split()) <= locked


def test_what_is_copied_exists_and_is_not_kept_out() -> None:
    copies = [line.split()[1:-1] for line in TEXT.splitlines() if line.startswith("COPY ") and "--from" not in line]
    sources = {source for copy in copies for source in copy}
    assert {str(path) for path in map(Path, sources) if not (ROOT / path).exists()} == set()
    assert _ignore_lines()[0] == "*"
    kept = [line[1:] for line in _ignore_lines() if line.startswith("!")]
    assert {source for source in sources if not _matches_any(Path(source), kept)} == set()


def test_programs_are_where_the_settings_say() -> None:
    made = set(re.findall(r"--from=\S+ (/opt/traitmesh/\S+)", TEXT))
    settings = dict(re.findall(r"(TRAITMESH_\w+)=(\S+)", TEXT))
    assert settings.keys() == {"TRAITMESH_DBT", "TRAITMESH_NOTEBOOK_PYTHON", "TRAITMESH_CONNECTORS_DIR"}
    for path in settings.values():
        assert any(path == folder or path.startswith(f"{folder}/bin/") for folder in made)


def _matches_any(path: Path, patterns: list[str]) -> bool:
    return any(part.match(pattern) for part in (path, *path.parents) for pattern in patterns)


def _ignore_lines() -> list[str]:
    text = CONTAINERFILE.with_suffix(".dockerignore").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]
