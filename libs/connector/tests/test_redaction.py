import pytest

from traitmesh_connector.protocol import Stream, record_line
from traitmesh_connector.redaction import Redactor, secret_values

SCHEMA = {
    "properties": {
        "token": {"airbyte_secret": True},
        "url": {"airbyte_secret": True},
        "host": {},
        "auth": {"oneOf": [{"properties": {"key": {"airbyte_secret": True}}}, {"properties": {"name": {}}}]},
        "list": {"items": {"properties": {"pin": {"airbyte_secret": True}}}},
    }
}
CONFIG = {
    "token": "to/ken",
    "url": "postgresql://u:p%40ss@db/x",
    "host": "db.example.org",
    "auth": {"key": "inner", "name": "shown"},
    "list": [{"pin": "one"}, {"pin": "two"}],
}


def test_secrets_are_found_wherever_the_schema_marks_them() -> None:
    found = secret_values(CONFIG, SCHEMA)
    assert {"to/ken", "to%2Fken", "p%40ss", "p@ss", "inner", "one", "two"} <= found
    assert not {"db.example.org", "shown"} & found


def test_without_a_schema_every_string_is_secret() -> None:
    assert {"db.example.org", "shown"} <= secret_values(CONFIG, None)


def test_a_secret_within_a_secret_leaves_nothing() -> None:
    assert Redactor(["abc", "abcdef"])("x abcdef abc") == "x *** ***"


@pytest.mark.parametrize("value", ["u-123", "Ångström", 1234567])
def test_values_in_flight_are_masked_and_other_words_are_not(value: object) -> None:
    line = record_line(Stream("users", {}), {"id": value}, operation="upsert", idempotency_key="k1")
    redact = Redactor([], lambda: [line], ["users", "upsert"])
    assert redact(f"dropped id {value} of users in upsert") == "dropped id *** of users in upsert"
    assert redact(f"({value})") == "(***)"


def test_text_is_cut_and_mail_is_masked() -> None:
    assert Redactor([])("to ann@example.com now") == "to *** now"
    assert len(Redactor([])("x" * 5000)) == 1000
