import sys
from pathlib import Path

import pytest

from traitmesh_connector.conformance import DestinationConformance, DestinationSubject
from traitmesh_connector.protocol import Stream
from traitmesh_connector.runner import Program


class TestConformance(DestinationConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> DestinationSubject:
        def written() -> int:
            return sum(len(file.read_bytes().splitlines()) for file in tmp_path.glob("*/*.jsonl"))

        return DestinationSubject(
            program=Program((str(Path(sys.executable).with_name("destination-template")),)),
            config={"folder": str(tmp_path)},
            bad_configs=[{"folder": str(tmp_path / "absent")}],
            stream=Stream("users", {"type": "object"}, "append", ("id",), "vip"),
            record=lambda number: {"id": number, "name": f"Ann {number}"},
            written=written,
            text_field="name",
            bad_record=lambda number: {"id": None, "name": f"Ann {number}"},
        )
