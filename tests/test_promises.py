"""The promises name tests that exist."""

import re

from deploy.local.stack import ROOT


def test_each_promise_names_a_test() -> None:
    page = (ROOT / "docs" / "behaviour" / "README.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 25
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert missing == []
