"""That Helm is found, or that it is said what is missing."""

from pathlib import Path

import pytest

from deploy.helm.find_helm import VERSION, HelmMissingError, find_or_make


def test_the_one_given_comes_before_the_one_on_path(tmp_path: Path) -> None:
    given, on_path = tmp_path / "mine", tmp_path / "bin" / "helm"
    on_path.parent.mkdir()
    for program in (given, on_path):
        program.touch(mode=0o755)
    environment = {"PATH": str(on_path.parent), "XDG_CACHE_HOME": str(tmp_path)}
    assert find_or_make(environment) == on_path
    assert find_or_make({**environment, "TRAITMESH_HELM_BINARY": str(given)}) == given


def test_one_made_before_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "traitmesh" / f"helm-{VERSION}"
    kept.parent.mkdir()
    kept.touch()
    assert find_or_make({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}) == kept


def test_without_helm_and_go_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(HelmMissingError, match=r"install it from https://helm.sh.* or install Go"):
        find_or_make({"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
