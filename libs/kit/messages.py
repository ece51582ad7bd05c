"""Between domain values and protobuf messages: times, enumerations and free-form values."""

from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The message of an aware datetime; None, which leaves a field unset, of None."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def moment(message: Timestamp) -> datetime:
    """The UTC datetime of a message."""
    return message.ToDatetime(tzinfo=UTC)


def enum_value(proto_name: str, prefix: str) -> str:
    """What a proto value is called in the domain: `boolean` for TRAIT_TYPE_BOOLEAN of the prefix TRAIT_TYPE."""
    return proto_name.removeprefix(f"{prefix}_").lower()


def plain(struct: Struct) -> dict[str, Any]:
    """The values of a Struct as JSON has them: a Struct knows only doubles, so 5.0 is the integer 5 again."""
    values: dict[str, Any] = _plain(json_format.MessageToDict(struct))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(below) for name, below in value.items()}
    if isinstance(value, list):
        return [_plain(below) for below in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
