"""Which route a raw path leads to, and what its variables are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transcoding.problems import ProblemError
from services.gateway.transcoding.routes import Routes
from services.gateway.transcoding.template import parse

TEMPLATES = [
    *("/a/**", "/b/*", "/c/*/d/**", "/c/*/d/e", "/c/f/d/e"),
    *("/g/{x}/c/d/e", "/{x=h/*}/b/{y=*}/c", "/i/{x=b/*}/{y=d/**}", "/j/b/{x=*}", "/j/b/c/{x=**}"),
    *("/person", "/person/{id=*}", "/person/{id=*}:verb", "/{x=q/**}:verb", "/k/{y=*}:verb", "/k/{y=d/**}:verb"),
    "/v1/{name=workspaces/*/traits/*}",
    "/v1/{parent=workspaces/*}/traits",
    "/v1/{name=workspaces/*/traits/*}:promote",
]


@pytest.fixture(scope="module")
def routes() -> Routes[str]:
    routes: Routes[str] = Routes()
    for template in TEMPLATES:
        routes.add("GET", parse(template), template)
    routes.add("POST", parse("/b/*"), "POST /b/*")
    routes.add("PUT", parse("/b/c"), "PUT /b/c")
    return routes


FOUND = [
    ("/a/b", "/a/**", {}),
    ("/a/b/c", "/a/**", {}),
    ("/a", "/a/**", {}),
    ("/b/c", "/b/*", {}),  # the literal /b/c has no GET
    ("/c/u/d/v", "/c/*/d/**", {}),
    ("/c/v/d/w/x", "/c/*/d/**", {}),
    ("/c/x/d/e", "/c/*/d/e", {}),
    ("/c/f/d/e", "/c/f/d/e", {}),
    ("/g/book/c/d/e", "/g/{x}/c/d/e", {"x": "book"}),
    ("/h/hello/b/world/c", "/{x=h/*}/b/{y=*}/c", {"x": "h/hello", "y": "world"}),
    ("/i/b/zoo/d/animal/tiger", "/i/{x=b/*}/{y=d/**}", {"x": "b/zoo", "y": "d/animal/tiger"}),
    ("/i/b/zoo/d", "/i/{x=b/*}/{y=d/**}", {"x": "b/zoo", "y": "d"}),
    ("/j/b/foo", "/j/b/{x=*}", {"x": "foo"}),
    ("/j/b/c/foo/bar/baz", "/j/b/c/{x=**}", {"x": "foo/bar/baz"}),
    ("/j/b/c", "/j/b/c/{x=**}", {"x": ""}),
    ("/person", "/person", {}),
    ("/person/jason", "/person/{id=*}", {"id": "jason"}),
    ("/person/jason:verb", "/person/{id=*}:verb", {"id": "jason"}),
    ("/person/a:b:verb", "/person/{id=*}:verb", {"id": "a:b"}),
    ("/q/jason:verb", "/{x=q/**}:verb", {"x": "q/jason"}),
    ("/q:verb", "/{x=q/**}:verb", {"x": "q"}),
    ("/k/world:verb", "/k/{y=*}:verb", {"y": "world"}),
    ("/k/d/animal/tiger:verb", "/k/{y=d/**}:verb", {"y": "d/animal/tiger"}),
    ("/g/p%20q/c/d/e", "/g/{x}/c/d/e", {"x": "p q"}),
    ("/g/p+q/c/d/e", "/g/{x}/c/d/e", {"x": "p+q"}),
    ("/g/a:b/c/d/e", "/g/{x}/c/d/e", {"x": "a:b"}),
    ("/g/%C3%A9/c/d/e", "/g/{x}/c/d/e", {"x": "é"}),
    ("/g/.../c/d/e", "/g/{x}/c/d/e", {"x": "..."}),
    ("/j/b/c/foo%20foo/bar%2Fbar", "/j/b/c/{x=**}", {"x": "foo foo/bar%2Fbar"}),
    (
        "/v1/workspaces/w/traits/t%3Apromote",
        "/v1/{name=workspaces/*/traits/*}",
        {"name": "workspaces/w/traits/t:promote"},
    ),
    (
        "/v1/workspaces/w/traits/t:promote",
        "/v1/{name=workspaces/*/traits/*}:promote",
        {"name": "workspaces/w/traits/t"},
    ),
]

NOT_FOUND = [
    *("/", "//", "", "b/c/d", "/b", "/b/", "/b//", "/b/c/", "/c/x/y/d/z", "/c//v/d/w/x", "/a/", "/a//b", "/g//c/d/e"),
    *("/person:other", "/person/jason:other", "/person/jason:", "/person/:verb", "/person:verb", "/q:other", "/animal"),
    *(
        "/v1/workspaces//traits",
        "/v1/workspaces/w/traits:promote",
        "/v1/workspaces%2Fw/traits/t",
        "/V1/workspaces/w/traits",
    ),
    *("/%76%31/workspaces/w/traits", "/v1/workspaces/w%2Ftraits%2Ft", "/v1//workspaces/w/traits"),
]

REFUSED = [
    *("/g/p%2Fq/c/d/e", "/g/p%2fq/c/d/e", "/g/%00/c/d/e", "/g/%ff/c/d/e", "/g/%C3/c/d/e", "/g/%/c/d/e", "/g/%4/c/d/e"),
    *("/g/%zz/c/d/e", "/g/./c/d/e", "/g/../c/d/e", "/g/%2e%2e/c/d/e", "/g/%2E/c/d/e"),
    *("/j/b/c/x/../y", "/j/b/c/x/%2e%2e/y", "/j/b/c/..%2Fy", "/j/b/c/%00", "/h/%2e%2e/b/w/c"),
]


@pytest.mark.parametrize(("path", "template", "variables"), FOUND)
def test_found(routes: Routes[str], path: str, template: str, variables: dict[str, str]) -> None:
    route, segments = routes.find("GET", path.encode())
    assert (route.target, route.variables(segments)) == (template, variables)


@pytest.mark.parametrize("path", NOT_FOUND)
def test_not_found(routes: Routes[str], path: str) -> None:
    with pytest.raises(ProblemError) as refused:
        routes.find("GET", path.encode())
    assert refused.value.status == 404


@pytest.mark.parametrize("path", REFUSED)
def test_hostile_segments(routes: Routes[str], path: str) -> None:
    route, segments = routes.find("GET", path.encode())
    with pytest.raises(ProblemError) as refused:
        route.variables(segments)
    assert refused.value.status == 400
    assert refused.value.violations[0].field in {"x", "y"}


def test_raw_bytes_are_refused(routes: Routes[str]) -> None:
    with pytest.raises(ProblemError) as refused:
        routes.find("GET", "/g/é/c/d/e".encode())
    assert refused.value.status == 400


def test_other_methods_are_told(routes: Routes[str]) -> None:
    with pytest.raises(ProblemError) as refused:
        routes.find("DELETE", b"/b/c")
    assert refused.value.status == 405
    assert refused.value.headers == {"Allow": "GET, HEAD, OPTIONS, POST, PUT"}


def test_two_methods_cannot_have_one_route() -> None:
    routes: Routes[str] = Routes()
    routes.add("GET", parse("/a/{x}"), "one")
    with pytest.raises(ValueError, match="two methods"):
        routes.add("GET", parse("/a/{y=*}"), "other")


@given(st.text(alphabet="/%2fF.e0:abcgijk*", max_size=40))
def test_any_path_is_found_or_refused(routes: Routes[str], path: str) -> None:
    try:
        route, segments = routes.find("GET", path.encode())
        variables = route.variables(segments)
    except ProblemError:
        return
    assert all("\0" not in value and ".." not in value.split("/") for value in variables.values())
