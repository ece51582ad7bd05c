"""How declared traits become a model: pure rules."""

from dataclasses import replace

import pytest

from services.trait_registry import domain
from services.trait_registry.domain import Change, TraitChange, TraitRevision

DEFINITION = domain.Definition(
    display_name="",
    description="",
    kind=domain.TraitKind.COMPUTED,
    type=domain.TraitType.CONTINUOUS,
    unit="",
    origin="project",
    column="",
)


def test_traits_keep_their_place_and_new_ones_go_to_the_end() -> None:
    current = [TraitRevision(name, 1, DEFINITION) for name in ("b", "a")]
    traits, changes = domain.next_model(
        current, "project", {"a": DEFINITION, "b": DEFINITION, "0": DEFINITION}, {"a": 1, "b": 1}
    )
    assert [revision.trait for revision in traits] == ["b", "a", "0"]
    assert changes == (TraitChange("0", Change.ADDED),)


def test_a_trait_that_comes_back_goes_on_counting() -> None:
    traits, changes = domain.next_model([], "project", {"a": DEFINITION}, {"a": 3})
    assert traits == (TraitRevision("a", 4, DEFINITION),)
    assert changes == (TraitChange("a", Change.ADDED),)


def test_other_origins_are_left_alone() -> None:
    theirs = TraitRevision("a", 1, replace(DEFINITION, origin="notebook"))
    traits, changes = domain.next_model([theirs], "project", {}, {"a": 1})
    assert traits == (theirs,)
    assert changes == ()
    with pytest.raises(domain.OwnedByAnotherOriginError, match="made by notebook"):
        domain.next_model([theirs], "project", {"a": DEFINITION}, {"a": 1})


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("traits/ltv", domain.Column("warehouse", "traitmesh.user_model", "ltv")),
        ("dbt.user_traits.ltv", domain.Column("warehouse", "dbt.user_traits", "ltv")),
        ("dbt.user_traits", None),
        ("", None),
    ],
)
def test_lineage_starts_at_a_trait_or_a_column(root: str, expected: domain.Column | None) -> None:
    assert domain.lineage_root(root) == expected
