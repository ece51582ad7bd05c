"""The command `traitmesh-connector new NAME FOLDER`: a connector that passes the suite at once."""

import argparse
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_NAME = re.compile(r"destination(-[a-z][a-z0-9]*)+")


def main() -> None:
    """Write a new connector, or say why not."""
    parser = argparse.ArgumentParser(prog="traitmesh-connector", description=__doc__)
    new = parser.add_subparsers(dest="command", required=True).add_parser("new")
    new.add_argument("name", help="such as destination-crm")
    new.add_argument("folder", type=Path, help="the folder to make")
    arguments = parser.parse_args()
    if not _NAME.fullmatch(arguments.name):
        parser.error(f"NAME {arguments.name!r} must look like destination-crm")
    if arguments.folder.exists():
        parser.error(f"FOLDER {arguments.folder} is there already")
    for path in write_connector(arguments.name, arguments.folder):
        print(path)


def write_connector(name: str, folder: Path) -> list[Path]:
    """Write the template under another name into `folder`, and return its files."""
    words = {
        "destination-template": name,
        "destination_template": name.replace("-", "_"),
        "DestinationTemplate": name.title().replace("-", ""),
        '"Template"': f'"{name.partition("-")[2].replace("-", " ").title()}"',
        # Named so that the template's own suite is not taken for one of the library's tests.
        "suite_of_": "test_",
    }
    return [_write(found, folder, words) for found in _files(files("traitmesh_connector") / "template", "")]


def _files(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    """Return (relative name, content) of every file of the template."""
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found += _files(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            found.append((prefix + entry.name, entry.read_text()))
    return found


def _write(found: tuple[str, str], folder: Path, words: dict[str, str]) -> Path:
    name, content = (_replaced(part, words) for part in found)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def _replaced(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text
