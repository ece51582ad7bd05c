"""Names: what is accepted, and what is said about the rest."""

import pytest

from libs.kit import errors, names

TRAIT = "workspaces/{workspace}/traits/{trait}"


def test_a_name_gives_its_parts() -> None:
    assert names.parse(TRAIT, "workspaces/tusk/traits/ltv") == ("tusk", "ltv")


@pytest.mark.parametrize("name", ["", "workspaces/tusk", "workspaces//traits/x", "workspaces/a/traits/b/c"])
def test_another_form_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"sync\.trait: must be of the form"):
        names.parse(TRAIT, name, "sync.trait")


@pytest.mark.parametrize("number", ["0", "-1", "01", "x", "9999999999"])
def test_only_a_positive_number_can_be_found(number: str) -> None:
    with pytest.raises(errors.NotFound, match="workspaces/w/builds"):
        names.number(number, f"workspaces/w/builds/{number}")


def test_ids_say_which_characters_they_may_have() -> None:
    assert names.check_id("eu-payers", "audience_id") == "eu-payers"
    with pytest.raises(errors.InvalidArgument, match="lower-case letters, digits and underscores, starting"):
        names.check_id("eu-payers", "audience_id", names.COLUMN_ID)
