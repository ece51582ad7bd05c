"""What requests become of path, query and body, field by field."""

import json
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.transcoding.binding import bind
from services.gateway.transcoding.fields import MAX_DEPTH
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.problems import ProblemError


def text_of(message: Any) -> str:
    return text_format.MessageToString(message, as_one_line=True)


def refusal(method: Method, variables: dict[str, str], query: bytes, body: bytes) -> ProblemError:
    with pytest.raises(ProblemError) as refused:
        bind(method, variables, query, body)
    assert refused.value.status == 400
    return refused.value


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return {"struct": value}


JSON_TAKEN = [
    ('{"int32": 5}', "int32: 5"),
    ('{"int32": "5"}', "int32: 5"),
    ('{"int32": 1e3}', "int32: 1000"),
    ('{"int32": -0}', ""),
    ('{"int64": "9223372036854775807"}', "int64: 9223372036854775807"),
    ('{"int64": -9223372036854775808}', "int64: -9223372036854775808"),
    ('{"uint64": "18446744073709551615"}', "uint64: 18446744073709551615"),
    ('{"float": 1.5, "double": "-2.5e3"}', "float: 1.5 double: -2500.0"),
    ('{"double": 3}', "double: 3.0"),
    ('{"bool": true}', "bool: true"),
    ('{"string": "\\u00e9\\ud83d\\ude00"}', 'string: "é😀"'),
    ('{"bytes": "AQI="}', 'bytes: "\\001\\002"'),
    ('{"bytes": "_-8"}', 'bytes: "\\377\\357"'),
    ('{"genre": "GENRE_FICTION"}', "genre: GENRE_FICTION"),
    ('{"genre": 2}', "genre: GENRE_SCIENCE"),
    ('{"author": {"displayName": "A"}}', 'author { display_name: "A" }'),
    ('{"author": {"display_name": "A"}}', 'author { display_name: "A" }'),
    ('{"author": {}}', "author { }"),
    ('{"author": null, "int32": null, "repeatedInt64": null}', ""),
    ('{"timestamp": "2026-01-31T12:00:00Z"}', "timestamp { seconds: 1769860800 }"),
    ('{"timestamp": "2026-01-31T13:00:00.5+01:00"}', "timestamp { seconds: 1769860800 nanos: 500000000 }"),
    ('{"duration": "604800s"}', "duration { seconds: 604800 }"),
    ('{"duration": "1.5s"}', "duration { seconds: 1 nanos: 500000000 }"),
    (
        '{"fieldMask": "displayName,author.displayName"}',
        'field_mask { paths: "display_name" paths: "author.display_name" }',
    ),
    (
        '{"struct": {"a": [null]}}',
        'struct { fields { key: "a" value { list_value { values { null_value: NULL_VALUE } } } } }',
    ),
    ('{"value": null}', "value { null_value: NULL_VALUE }"),
    ('{"value": {}}', "value { struct_value { } }"),
    ('{"value": []}', "value { list_value { } }"),
    ('{"value": "x"}', 'value { string_value: "x" }'),
    ('{"values": [null, true]}', "values { null_value: NULL_VALUE } values { bool_value: true }"),
    ('{"listValue": [false]}', "list_value { values { bool_value: false } }"),
    ('{"wrappedInt64": "7", "wrappedBool": false}', "wrapped_int64 { value: 7 } wrapped_bool { }"),
    ('{"optionalInt32": 0}', "optional_int32: 0"),
    ('{"this": "x", "that": null}', 'this: "x"'),
    ('{"repeatedInt64": [1, "2"]}', "repeated_int64: 1 repeated_int64: 2"),
    ('{"authors": [{}, {"displayName": "A"}]}', 'authors { } authors { display_name: "A" }'),
    ('{"counts": {"a": 1}}', 'counts { key: "a" value: 1 }'),
    ('{"authorsByNumber": {"-3": {}}}', "authors_by_number { key: -3 value { } }"),
    ('{"answers": {"true": "yes"}}', 'answers { key: true value: "yes" }'),
    ('{"inner": {"inner": {"int32": 1}}}', "inner { inner { int32: 1 } }"),
    ("  {}  ", ""),
]

JSON_REFUSED = [
    ('{"int32": 2147483648}', "int32"),
    ('{"int32": 1.5}', "int32"),
    ('{"int32": true}', "int32"),
    ('{"int32": "1e3"}', "int32"),
    ('{"int32": " 1"}', "int32"),
    ('{"int32": "01"}', "int32"),
    ('{"int32": []}', "int32"),
    ('{"uint32": -1}', "uint32"),
    ('{"int64": "9223372036854775808"}', "int64"),
    ('{"int64": ' + "9" * 5000 + "}", "int64"),
    ('{"float": 3.5e38}', "float"),
    ('{"double": 1e400}', "double"),
    ('{"double": -1e400}', "double"),
    ('{"double": NaN}', "double"),
    ('{"double": "NaN"}', "double"),
    ('{"double": "Infinity"}', "double"),
    ('{"double": -Infinity}', "double"),
    ('{"double": ' + "9" * 350 + "}", "double"),
    ('{"double": true}', "double"),
    ('{"struct": {"a": NaN}}', "struct.a"),
    ('{"struct": {"a": [1, 1e400]}}', "struct.a[1]"),
    ('{"struct": {"a": ' + "9" * 350 + "}}", "struct.a"),
    ('{"struct": {"a": 1, "a": 1}}', "struct"),
    ('{"struct": []}', "struct"),
    ('{"struct": {"\\u0000": 1}}', "struct"),
    ('{"bool": "true"}', "bool"),
    ('{"bool": 1}', "bool"),
    ('{"string": 5}', "string"),
    ('{"string": "\\u0000"}', "string"),
    ('{"string": "\\ud800"}', "string"),
    ('{"bytes": "*"}', "bytes"),
    ('{"bytes": "a"}', "bytes"),
    ('{"genre": "NONE"}', "genre"),
    ('{"genre": 99}', "genre"),
    ('{"genre": true}', "genre"),
    ('{"author": []}', "author"),
    ('{"author": "A"}', "author"),
    ('{"author": {"displayname": "A"}}', "author.displayname"),
    ('{"author": {"displayName": "A", "display_name": "A"}}', "author.display_name"),
    ('{"author": {"firstBook": {"pages": "x"}}}', "author.first_book.pages"),
    ('{"author": {}, "author": {}}', ""),
    ('{"timestamp": "yesterday"}', "timestamp"),
    ('{"timestamp": 5}', "timestamp"),
    ('{"timestamp": "2026-02-30T00:00:00Z"}', "timestamp"),
    ('{"timestamps": ["2026-01-31T12:00:00Z", ""]}', "timestamps[1]"),
    ('{"duration": "5"}', "duration"),
    ('{"duration": "999999999999999s"}', "duration"),
    ('{"fieldMask": {"paths": []}}', "field_mask"),
    ('{"any": {"@type": "type.googleapis.com/google.protobuf.Empty"}}', "any"),
    ('{"this": "x", "that": {}}', "that"),
    ('{"repeatedInt64": 1}', "repeated_int64"),
    ('{"repeatedInt64": [null]}', "repeated_int64[0]"),
    ('{"authors": {}}', "authors"),
    ('{"authors": [{"x": 1}]}', "authors[0].x"),
    ('{"counts": {"a": null}}', "counts[a]"),
    ('{"counts": []}', "counts"),
    ('{"counts": {"a": 1, "a": 2}}', "counts"),
    ('{"authorsByNumber": {"x": {}}}', "authors_by_number"),
    ('{"answers": {"yes": "x"}}', "answers"),
    ('{"unknown": 1}', "unknown"),
    ('{"": 1}', ""),
    ("[]", ""),
    ("null", ""),
    ("5", ""),
    ("{} {}", "body"),
    ("{}x", "body"),
    ('{"a"}', "body"),
    ("{'int32': 1}", "body"),
    ('{"int32": 1,}', "body"),
    ('{"int32": 01}', "body"),
    ('\ufeff{"int32": 1}', "body"),
    ("[" * 100_000, "body"),
    ("   ", "body"),
]

QUERY_TAKEN = [
    ("", ""),
    ("int32=5&string=a+b%20c", 'int32: 5 string: "a b c"'),
    ("repeatedInt64=1&repeated_int64=2", "repeated_int64: 1 repeated_int64: 2"),
    ("genre=GENRE_FICTION", "genre: GENRE_FICTION"),
    ("genre=2", "genre: GENRE_SCIENCE"),
    ("bool=true&wrappedBool=false", "bool: true wrapped_bool { }"),
    ("author.displayName=A", 'author { display_name: "A" }'),
    ("author.firstBook.copies=3", "author { first_book { copies: 3 } }"),
    ("author%2EdisplayName=A", 'author { display_name: "A" }'),
    ("timestamp=2026-01-31T12:00:00Z", "timestamp { seconds: 1769860800 }"),
    ("duration=90s", "duration { seconds: 90 }"),
    ("fieldMask=displayName,author.displayName", 'field_mask { paths: "display_name" paths: "author.display_name" }'),
    (
        "timestamps=2026-01-31T12:00:00Z&timestamps=1970-01-01T00:00:01Z",
        "timestamps { seconds: 1769860800 } timestamps { seconds: 1 }",
    ),
    ("double=1.5&float=-2", "float: -2.0 double: 1.5"),
    ("bytes=AQI", 'bytes: "\\001\\002"'),
    ("string=", ""),
    ("optionalInt32=0", "optional_int32: 0"),
    ("&&int32=1&", "int32: 1"),
    ("string=a=b", 'string: "a=b"'),
]

QUERY_REFUSED = [
    ("unknown=1", "unknown"),
    ("int32=", "int32"),
    ("int32=x", "int32"),
    ("int32=1,2", "int32"),
    ("int32", "int32"),
    ("int32=1&int32=1", "int32"),
    ("optionalInt32=1&optional_int32=1", "optional_int32"),
    ("repeatedInt64=1,2", "repeated_int64"),
    ("bool=1", "bool"),
    ("bool=True", "bool"),
    ("genre=9", "genre"),
    ("genre=fiction", "genre"),
    ("double=nan", "double"),
    ("double=1e400", "double"),
    ("author=A", "author"),
    ("author.unknown=A", "author.unknown"),
    ("author.display_name.x=A", "author.display_name.x"),
    ("authors.displayName=A", "authors.displayName"),
    ("authors=A", "authors"),
    ("counts=1", "counts"),
    ("counts.a=1", "counts.a"),
    ("struct.a=1", "struct.a"),
    ("struct.fields=1", "struct.fields"),
    ("value=1", "value"),
    ("value.stringValue=1", "value.stringValue"),
    ("any=1", "any"),
    ("fieldMask.paths=a", "fieldMask.paths"),
    ("timestamp.seconds=1", "timestamp.seconds"),
    ("timestamp=now", "timestamp"),
    ("string=%00", "string"),
    ("string=%ff", "query"),
    ("%ff=1", "query"),
    ("this=a&that.displayName=b", "that"),
    (".=1", "."),
    ("author..displayName=1", "author..displayName"),
]


@pytest.mark.parametrize(("body", "message"), JSON_TAKEN)
def test_json_that_is_taken(methods: dict[str, Method], body: str, message: str) -> None:
    assert text_of(bind(methods["Echo"], {}, b"", body.encode())).strip() == message


@pytest.mark.parametrize(("body", "field"), JSON_REFUSED, ids=lambda value: value[:40])
def test_json_that_is_refused(methods: dict[str, Method], body: str, field: str) -> None:
    problem = refusal(methods["Echo"], {}, b"", body.encode())
    assert [violation.field for violation in problem.violations] == [field]


@pytest.mark.parametrize(("query", "message"), QUERY_TAKEN)
def test_query_that_is_taken(methods: dict[str, Method], query: str, message: str) -> None:
    assert text_of(bind(methods["GetEverything"], {}, query.encode(), b"")).strip() == message


@pytest.mark.parametrize(("query", "field"), QUERY_REFUSED)
def test_query_that_is_refused(methods: dict[str, Method], query: str, field: str) -> None:
    problem = refusal(methods["GetEverything"], {}, query.encode(), b"")
    assert [violation.field for violation in problem.violations] == [field]


def test_depth_ends_where_protobuf_can_still_read_it(methods: dict[str, Method]) -> None:
    deepest = json.dumps(nested(MAX_DEPTH - 1)).encode()
    message = bind(methods["Echo"], {}, b"", deepest)
    assert type(message).FromString(message.SerializeToString()) == message
    problem = refusal(methods["Echo"], {}, b"", json.dumps(nested(MAX_DEPTH)).encode())
    assert "deeper" in problem.detail


def test_invalid_utf8_is_refused(methods: dict[str, Method]) -> None:
    assert refusal(methods["Echo"], {}, b"", b'{"string": "\xff"}').violations[0].field == "body"


def test_messages_never_quote_what_was_sent(methods: dict[str, Method]) -> None:
    secret = "s3cret-value"
    kinds = (
        "int32",
        "genre",
        "timestamp",
        "duration",
        "fieldMask",
        "bytes",
        "bool",
        "double",
        "author",
        "struct",
        "any",
    )
    for kind in kinds:
        problem = refusal(methods["Echo"], {}, b"", json.dumps({kind: secret + "*"}).encode())
        assert secret not in problem.body().decode()
    assert secret not in refusal(methods["Echo"], {}, b"", b'{"string": s3cret-value}').body().decode()


def test_path_query_and_body_make_one_request(methods: dict[str, Method]) -> None:
    request = bind(methods["CreateBook"], {"parent": "shelves/s"}, b"bookId=b&validate_only=true", b'{"copies": "2"}')
    assert text_of(request) == 'parent: "shelves/s" book_id: "b" book { copies: 2 } validate_only: true'


@pytest.mark.parametrize("query", ["parent=shelves/t", "parent=shelves/s"])
def test_query_cannot_repeat_the_path(methods: dict[str, Method], query: str) -> None:
    problem = refusal(methods["CreateBook"], {"parent": "shelves/s"}, query.encode(), b"{}")
    assert problem.violations[0].field == "parent"


@pytest.mark.parametrize("query", ["book.copies=2", "book.displayName=x"])
def test_query_cannot_reach_into_the_body(methods: dict[str, Method], query: str) -> None:
    problem = refusal(methods["CreateBook"], {"parent": "shelves/s"}, query.encode(), b"{}")
    assert problem.violations[0].field.startswith("book.")


def test_no_query_beside_a_body_that_is_everything(methods: dict[str, Method]) -> None:
    assert refusal(methods["PromoteBook"], {"name": "shelves/s/books/b"}, b"x=1", b"{}").violations[0].field == "x"


def test_a_body_may_repeat_the_path_and_not_contradict_it(methods: dict[str, Method]) -> None:
    update, path = methods["UpdateBook"], {"book.name": "shelves/s/books/b"}
    for body in (b"", b"{}", b'{"name": ""}', b'{"name": "shelves/s/books/b"}'):
        assert bind(update, path, b"", body).book.name == "shelves/s/books/b"
    problem = refusal(update, path, b"", b'{"name": "shelves/s/books/c"}')
    assert problem.violations[0].field == "book.name"
    problem = refusal(methods["PromoteBook"], {"name": "shelves/s/books/b"}, b"", b'{"name": "shelves/s/books/c"}')
    assert problem.violations[0].field == "name"


def test_patch_takes_what_is_given(methods: dict[str, Method]) -> None:
    request = bind(methods["UpdateBook"], {"book.name": "shelves/s/books/b"}, b"updateMask=pages", b'{"pages": 0}')
    assert text_of(request) == 'book { name: "shelves/s/books/b" pages: 0 } update_mask { paths: "pages" }'


def test_what_is_output_only_is_checked_and_left_out(methods: dict[str, Method]) -> None:
    path = {"book.name": "shelves/s/books/b"}
    assert bind(methods["UpdateBook"], path, b"", b'{"etag": "x"}').book.etag == ""
    assert refusal(methods["UpdateBook"], path, b"", b'{"etag": 5}').violations[0].field == "book.etag"


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(methods: dict[str, Method], body: bytes) -> None:
    try:
        bind(methods["Echo"], {}, b"", body)
    except ProblemError as error:
        problem: ProblemError | None = error
    else:
        problem = None
    assert problem is None or problem.status == 400


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELD_NAMES = [
    *("int32", "uint64", "float", "double", "bool", "string", "bytes", "genre", "author", "timestamp", "duration"),
    *(
        "fieldMask",
        "struct",
        "value",
        "listValue",
        "wrappedInt64",
        "any",
        "repeatedInt64",
        "authors",
        "counts",
        "answers",
    ),
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(FIELD_NAMES), JSON_VALUES, max_size=4))
def test_what_is_taken_is_what_protobuf_takes(
    methods: dict[str, Method], pool: DescriptorPool, value: dict[str, Any]
) -> None:
    """Stricter than protobuf's own parser, and otherwise equal to it; and everything taken can be answered."""
    text = json.dumps(value)
    try:
        message = bind(methods["Echo"], {}, b"", text.encode())
    except ProblemError:
        return
    theirs = GetMessageClass(pool.FindMessageTypeByName("library.v1.Everything"))()
    assert message == json_format.Parse(text, theirs)
    assert bind(methods["Echo"], {}, b"", json_format.MessageToJson(message).encode()) == message
