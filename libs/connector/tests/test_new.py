import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

LIBRARY = Path(__file__).parents[1]


def new(*arguments: str) -> "subprocess.CompletedProcess[str]":
    code = "from traitmesh_connector.new import main; main()"
    command = [sys.executable, "-c", code, "new", *arguments]
    return subprocess.run(command, cwd=LIBRARY, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that borrows the libraries of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n{LIBRARY}\n"
    (site / "borrowed.pth").write_text(borrowed)
    return folder / "bin"


def test_a_new_connector_installs_and_passes_the_suite(tmp_path: Path, environment: Any) -> None:
    folder = tmp_path / "destination-crm-lite"
    written = new("destination-crm-lite", str(folder))
    assert written.returncode == 0, written.stderr
    assert len((folder / "destination_crm_lite.py").read_text().splitlines()) <= 100
    assert not [path for path in folder.rglob("*.*") if "template" in path.read_text().lower()]

    python = str(environment / "python")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([python, "-m", "pip", "install", *offline, str(folder)], check=True)
    suite = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder / "tests")]
    ran = subprocess.run(suite, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


@pytest.mark.parametrize("name", ["crm", "destination-", "destination-CRM", "destination-a/../b", "source-crm"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    refused = new(name, str(tmp_path / "x"))
    assert refused.returncode == 2
    assert "must look like destination-crm" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    assert "is there already" in new("destination-crm", str(tmp_path)).stderr
    assert list(tmp_path.iterdir()) == []
