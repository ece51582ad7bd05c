"""Tables as a pipe and as a narrow terminal get them."""

import os
import subprocess
import sys

FILE = "a-file-with-a-name-that-is-longer-than-the-terminal-is-wide.ndjson.gz"
ROW = [FILE, 1234567, "not [json] at all"]
SHOW = f"from traitmesh.cli.display import table; table(['file', 'rows', 'why'], [{ROW}])"


def shown(**environment: str) -> list[str]:
    """The lines of a table in 40 columns, without styles."""
    variables = os.environ | {"COLUMNS": "40", "NO_COLOR": "1"} | environment
    done = subprocess.run([sys.executable, "-c", SHOW], env=variables, capture_output=True, text=True, check=True)
    return [line.rstrip() for line in done.stdout.replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()]


def test_a_pipe_gets_each_row_whole() -> None:
    _, row = shown()
    assert row.split(maxsplit=2) == [FILE, "1,234,567", "not [json] at all"]


def test_a_terminal_folds_text_and_loses_nothing() -> None:
    lines = shown(FORCE_COLOR="1")
    assert max(map(len, lines)) <= 40
    assert any("1,234,567" in line for line in lines)
    assert "".join(line.split()[0] for line in lines[1:]).startswith(FILE)
