"""Lineage as a tree and as a picture."""

import xml.etree.ElementTree as ET

from traitmesh.client import Json
from traitmesh.graph import draw, made_of, sources_of, tree


def edge(source: str, target: str, influence: str = "INFLUENCE_DIRECT") -> Json:
    def column(path: str) -> Json:
        dataset, _, field = path.rpartition(".")
        return {"dataset": dataset, "field": field}

    return {"input": column(source), "output": column(target), "influence": influence, "job": "j"}


EDGES = [
    edge("traitmesh.events.se_value", "dbt.stg_events.amount"),
    edge("traitmesh.events.name", "dbt.stg_events.amount", "INFLUENCE_INDIRECT"),
    edge("dbt.stg_events.amount", "dbt.user_traits.ltv"),
    edge("dbt.user_traits.ltv", "traitmesh.user_model.ltv"),
]
ROOT = ("traitmesh.user_model", "ltv")


def test_sources_are_what_nothing_flows_into() -> None:
    assert sources_of(EDGES, ROOT) == ["traitmesh.events.se_value"]


def test_a_count_comes_from_what_decides_which_rows_count() -> None:
    counted = [edge("traitmesh.events.name", "dbt.user_traits.games", "INFLUENCE_INDIRECT")]
    counted.append(edge("dbt.user_traits.games", "traitmesh.user_model.games"))
    games = ("traitmesh.user_model", "games")
    assert sources_of(counted, games) == ["traitmesh.events.name"]
    assert made_of([*counted, *EDGES], games) == counted[::-1]


def test_what_only_decides_is_left_out_where_there_is_a_value() -> None:
    assert made_of(EDGES, ROOT) == [EDGES[3], EDGES[2], EDGES[0]]


def test_a_tree_goes_from_the_value_to_its_sources() -> None:
    assert list(tree(EDGES[:1] + EDGES[2:], ROOT)) == [
        "traitmesh.user_model.ltv",
        "  dbt.user_traits.ltv",
        "    dbt.stg_events.amount",
        "      traitmesh.events.se_value",
    ]


def test_a_circle_does_not_hold_it_up() -> None:
    circle = [edge("a.b.x", "a.b.y"), edge("a.b.y", "a.b.x")]
    assert list(tree(circle, ("a.b", "x"))) == ["a.b.x", "  a.b.y", "    a.b.x"]
    assert draw(circle, ("a.b", "x")).startswith("<svg")


def test_the_picture_is_svg_with_a_box_for_each_column_and_an_arrow_for_each_edge() -> None:
    hostile = edge('a.<script>."x"', "dbt.stg_events.amount")
    picture = ET.fromstring(draw([*EDGES, hostile], ROOT))
    svg = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{svg}g")) == 6
    arrows = picture.findall(f"{svg}path")
    assert len(arrows) == 5
    assert sum("stroke-dasharray" in arrow.attrib for arrow in arrows) == 1
    left = {text.text: float(text.attrib["x"]) for text in picture.iter(f"{svg}text") if text.text}
    assert left["se_value"] < left["amount"]


def test_nothing_known_is_a_box_of_its_own() -> None:
    assert draw([], ROOT).count("<g>") == 1
