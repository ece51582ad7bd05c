"""Between domain values and protobuf messages: times and enumerations."""

from datetime import UTC, datetime

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
