"""Every reason can be raised, and arrives as it was sent."""

from google.rpc import error_details_pb2
from traitmesh_proto.api.v1.error_reason_pb2 import ErrorReason

from libs.kit import errors


def _subclasses(kind: type[errors.Fault]) -> set[type[errors.Fault]]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def test_each_reason_has_a_type() -> None:
    raised = {kind.reason for kind in _subclasses(errors.Fault)}
    assert raised == set(ErrorReason.values()) - {ErrorReason.ERROR_REASON_UNSPECIFIED}


def test_a_wrong_field_is_named_with_what_would_be_right() -> None:
    fault = errors.InvalidArgument(errors.Violation("a.b", "must be 1"), errors.Violation("c", "must be 2"))
    status = fault.status()
    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert [(v.field, v.description) for v in bad_request.field_violations] == [
        ("a.b", "must be 1"),
        ("c", "must be 2"),
    ]
    assert status.message == "a.b: must be 1; c: must be 2"


def test_a_fault_of_another_service_is_passed_on_as_it_is() -> None:
    original = errors.NotFound("workspaces/tusk/traits/ltv")
    passed = errors.Remote(original.status())
    assert passed.status() == original.status()
    assert (passed.code, passed.reason, passed.metadata) == (original.code, original.reason, original.metadata)
    assert not passed.retriable
    assert errors.Remote(errors.Unavailable("later").status()).retriable
