"""Between domain values and messages."""

from datetime import UTC, datetime

from google.protobuf.struct_pb2 import Struct

from libs.kit.messages import enum_value, moment, plain, timestamp


def test_integers_come_back_from_a_struct_as_integers() -> None:
    struct = Struct()
    struct.update({"size": 5, "share": 0.5, "list": [1, {"deep": 2}], "flag": True, "none": None})
    values = plain(struct)
    assert values == {"size": 5, "share": 0.5, "list": [1, {"deep": 2}], "flag": True, "none": None}
    assert isinstance(values["size"], int)
    assert isinstance(values["list"][1]["deep"], int)
    assert values["flag"] is True


def test_times_and_names_go_both_ways() -> None:
    now = datetime(2026, 6, 30, 14, 13, 2, 776_000, tzinfo=UTC)
    message = timestamp(now)
    assert message is not None
    assert moment(message) == now
    assert timestamp(None) is None
    assert enum_value("TRAIT_TYPE_BOOLEAN", "TRAIT_TYPE") == "boolean"
