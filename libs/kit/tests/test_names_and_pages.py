"""Names and page tokens: what is accepted, and what is said about the rest."""

from dataclasses import dataclass

import pytest

from libs.kit import errors, names, paging

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


@dataclass
class ListRequest:
    page_size: int = 0
    page_token: str = ""


def test_pages_follow_each_other_to_the_end() -> None:
    items = [f"t{n}" for n in range(5)]
    token = ""
    seen: list[str] = []
    for _ in range(3):
        page = paging.page(ListRequest(2, token), "workspaces/w/traits")
        rest = [item for item in items if page.after is None or item > page.after]
        shown, token = page.split(rest[: page.size + 1], str)
        seen += shown
    assert seen == items
    assert token == ""


def test_a_token_is_for_its_own_list() -> None:
    _, token = paging.Page(1, None, "workspaces/a/traits").split(["x", "y"], str)
    with pytest.raises(errors.InvalidArgument, match="page_token"):
        paging.page(ListRequest(1, token), "workspaces/b/traits")


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_has_bounds(size: int) -> None:
    with pytest.raises(errors.InvalidArgument, match="page_size"):
        paging.page(ListRequest(size), "x")
