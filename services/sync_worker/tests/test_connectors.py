"""Which connectors there are, and what of a configuration is secret."""

from pathlib import Path

import pytest

from libs.kit import errors
from services.sync_worker.connectors import Connectors, masked, unmasked
from services.sync_worker.domain import Mode

SCHEMA = {
    "properties": {
        "token": {"airbyte_secret": True},
        "logins": {"items": {"oneOf": [{"properties": {"pin": {"airbyte_secret": True}, "user": {}}}]}},
        "host": {},
    }
}
CONFIG = {"token": "t", "host": "h", "logins": [{"pin": "1", "user": "u"}, {"pin": "2"}]}
MASKED = {"token": "********", "host": "h", "logins": [{"pin": "********", "user": "u"}, {"pin": "********"}]}


def test_secrets_are_masked_wherever_the_schema_has_them() -> None:
    assert masked(CONFIG, SCHEMA) == MASKED
    assert CONFIG["token"] == "t"


def test_a_masked_secret_that_comes_back_stays_as_it_was() -> None:
    changed = MASKED | {"host": "other", "token": "new"}
    assert unmasked(changed, CONFIG, SCHEMA, "config") == CONFIG | {"host": "other", "token": "new"}


def test_a_mask_without_an_earlier_secret_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"config\.logins\.1\.pin: has no earlier value"):
        unmasked(
            MASKED, {"logins": [{"pin": "1"}]}, {"properties": {"logins": SCHEMA["properties"]["logins"]}}, "config"
        )


def test_the_folder_is_the_list_of_what_may_run(connectors_dir: Path, tmp_path: Path) -> None:
    connectors = Connectors(connectors_dir)
    assert "destination-moody" in connectors.ids()
    moody = connectors.get("destination-moody")
    assert (moody.display_name, moody.batch_size) == ("Moody", 10)
    assert moody.modes == (Mode.UPSERT, Mode.INSERT, Mode.MIRROR)
    assert moody.guarantee == "exactly once"
    assert Connectors(tmp_path).ids() == []
    for name in ("destination-none", "../destination-moody", "destination-moody/bin", "", "source-moody"):
        with pytest.raises(errors.InvalidArgument, match="must be an installed connector; there are destination-"):
            connectors.get(name)


def test_a_connector_that_does_not_work_hides_no_other(connectors_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "destination-moody").symlink_to(connectors_dir / "destination-moody")
    program = tmp_path / "destination-broken" / "bin" / "destination-broken"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    connectors = Connectors(tmp_path)
    assert connectors.ids() == ["destination-broken", "destination-moody"]
    assert [connector.id for connector in connectors.working()] == ["destination-moody"]
    with pytest.raises(errors.ConnectorRefused, match="exited with code 3"):
        connectors.get("destination-broken")


def test_a_new_version_of_a_program_is_asked_again(tmp_path: Path) -> None:
    program = tmp_path / "destination-x" / "bin" / "destination-x"
    program.parent.mkdir(parents=True)
    answer = '{"type":"SPEC","spec":{"connectionSpecification":{"title":"%s"}}}'
    connectors = Connectors(tmp_path)
    for title in ("One", "Two"):
        program.write_text(f"#!/bin/sh\necho '{answer % title}'\n")
        program.chmod(0o755)
        assert connectors.get("destination-x").display_name == title
