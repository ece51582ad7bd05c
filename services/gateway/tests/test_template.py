"""The grammar of path templates; the rows are after the cases of grpc-httpjson-transcoding's own parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transcoding.template import Variable, parse

GOOD = [
    ("/shelves/{shelf}/books/{book}", ["shelves", "*", "books", "*"], [("shelf", 1, 2), ("book", 3, 4)], ""),
    ("/shelves/**", ["shelves", "**"], [], ""),
    ("/**", ["**"], [], ""),
    ("/a:foo", ["a"], [], "foo"),
    ("/a/b/c:foo", ["a", "b", "c"], [], "foo"),
    ("/*/**", ["*", "**"], [], ""),
    ("/*/a/**", ["*", "a", "**"], [], ""),
    ("/a/{a.b.c}", ["a", "*"], [("a.b.c", 1, 2)], ""),
    ("/a/{a.b.c=*}", ["a", "*"], [("a.b.c", 1, 2)], ""),
    ("/a/{b=**}", ["a", "**"], [("b", 1, None)], ""),
    ("/a/{b=c/*}", ["a", "c", "*"], [("b", 1, 3)], ""),
    ("/a/{b=c/*/d}", ["a", "c", "*", "d"], [("b", 1, 4)], ""),
    ("/a/{b=c/**}", ["a", "c", "**"], [("b", 1, None)], ""),
    ("/*:verb", ["*"], [], "verb"),
    ("/**:verb", ["**"], [], "verb"),
    ("/{a}:verb", ["*"], [("a", 0, 1)], "verb"),
    ("/a/b/*:verb", ["a", "b", "*"], [], "verb"),
    ("/a/b/{a}:verb", ["a", "b", "*"], [("a", 2, 3)], "verb"),
    ("/{x.y.z=*/a/b}/c", ["*", "a", "b", "c"], [("x.y.z", 0, 3)], ""),
    ("/{x.y.z=*/*}:verb", ["*", "*"], [("x.y.z", 0, 2)], "verb"),
    ("/{x=**}:myverb", ["**"], [("x", 0, None)], "myverb"),
    ("/a/{b=*}/**:verb", ["a", "*", "**"], [("b", 1, 2)], "verb"),
    ("/v1/{parent=workspaces/*}/a-b_c.d", ["v1", "workspaces", "*", "a-b_c.d"], [("parent", 1, 3)], ""),
]

BAD = [
    *("", "/", "//", "/{}", "/a/", "/a//b", ":verb", "/:verb", "/a/:verb", ":", "/:", "/*:", "/**:", "/{var}:"),
    *("/a/b/:", "/a/b/*:", "/a/b/**:", "/a/b/{var}:", "/a/{", "/a/{var", "/a/{var.", "/a/{x=var:verb}"),
    *("a", "{x}", "{x=/a}", "{x=/a/b}", "a/b", "a/b/{x}", "a/{x}/b", "a/{x}/b:verb", "/a/{var=/b}"),
    *("/{var=a/{nested=b}}", "/a{x}", "/{x}a", "/a{x}b", "/{x}a{y}", "/a/b{x}", "/a/{x}b", "/a/b{x}c"),
    *("/a/{x}b{y}", "/a/b{x}/s", "/a/{x}b/s", "/a/b{x}c/s", "/a/{x}b{y}/s", "/a:b:c", "/{x=}", "/{x}/{x}"),
    # ** is only served at the end, where http.proto wants it.
    *("/a/{b=c/**}/d/e", "/a/{b=c/**/d}/e", "/a/**/b"),
]


@pytest.mark.parametrize(("text", "segments", "variables", "verb"), GOOD)
def test_parts(text: str, segments: list[str], variables: list[tuple[str, int, int | None]], verb: str) -> None:
    template = parse(text)
    assert list(template.segments) == segments
    assert list(template.variables) == [Variable(*variable) for variable in variables]
    assert template.verb == verb


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"template|last segment|twice"):
        parse(text)


@given(st.text(alphabet="/{}*:=.ab%", max_size=20))
def test_anything_is_parsed_or_refused(text: str) -> None:
    try:
        template = parse(text)
    except ValueError:
        return
    assert template.segments
