"""The tutorial's commands, as they stand there."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable

from deploy.local.stack import ROOT, Stack
from tests.conftest import Company


def test_every_command_of_the_tutorial_works(stack: Stack, new_company: Callable[[str], Company]) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) > 25
    shutil.rmtree(ROOT / "build" / "arcade", ignore_errors=True)
    new_company("before-the-tutorial")  # So that the command line finds its key.
    script = "\n".join(["set -eux", "trap 'kill $SLACK 2>/dev/null || true' EXIT", "SLACK=", *commands])
    environment = os.environ | {"TRAITMESH_HOME": str(stack.folder)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "is modelRevisions/2" in done.stdout
    assert "succeeded: 0 planned" in done.stdout
