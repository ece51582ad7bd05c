"""Lineage as a graph: what a value is made of, and a picture of it.

Edges are those of the REST API: `{"input": {"dataset", "field"}, "output": {...}, "influence", "job"}`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from traitmesh.client import Json

#: A column, as (dataset, field).
Node = tuple[str, str]
#: Where an arrow stops in a layer: a node, or (source, target, layer) where it only passes.
Stop = tuple[Any, ...]

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 40, 70, 16, 24
SWEEPS = 12


def made_of(edges: Sequence[Json], root: Node) -> list[Json]:
    """The edges along which the value of `root` comes about.

    A value is followed along what it is made from. Where that is nothing but rows, such as in a count, it is followed
    along what decides which rows count.
    """
    into: dict[Node, dict[bool, list[Json]]] = defaultdict(lambda: {True: [], False: []})
    for edge in edges:
        into[_node(edge["output"])][edge.get("influence") == "INFLUENCE_DIRECT"].append(edge)
    followed: list[Json] = []
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        ways = into[node][True] or into[node][False]
        followed += ways
        inputs = {_node(edge["input"]) for edge in ways} - seen
        waiting += inputs
        seen |= inputs
    return followed


def sources_of(edges: Sequence[Json], root: Node) -> list[str]:
    """The columns that `root` is made of and that nothing else flows into, as `schema.table.column`, in order."""
    followed = made_of(edges, root)
    outputs = {_node(edge["output"]) for edge in followed}
    return sorted({_label(node) for edge in followed if (node := _node(edge["input"])) not in outputs})


def tree(edges: Sequence[Json], root: Node, depth: int = 0, seen: frozenset[Node] = frozenset()) -> Iterable[str]:
    """Lines of an indented tree from `root` to its sources."""
    yield "  " * depth + _label(root)
    if root in seen:
        return
    for source in sorted({_node(edge["input"]) for edge in edges if _node(edge["output"]) == root}):
        yield from tree(edges, source, depth + 1, seen | {root})


def draw(edges: Sequence[Json], root: Node) -> str:
    """An SVG picture of the graph: sources at the left, one column of boxes for each step, arrows between.

    Layers by longest path, order within a layer by barycentres (Sugiyama, Tagawa and Toda 1981); a long arrow has a
    place of its own in each layer that it passes, so that it hides behind no box. Dashed arrows are inputs that decide
    which rows count, not what the value is.
    """
    arrows = {(_node(edge["input"]), _node(edge["output"])): edge for edge in edges}
    level = _levels(list(arrows)) or {root: 0}
    routes = {arrow: _route(arrow, level) for arrow in arrows}
    place = _places(level, list(routes.values()))
    width = 2 * MARGIN + (max(level.values()) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = max(y for _, y in place.values()) + BOX_HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        f'font-family="sans-serif" font-size="12" role="img" aria-label="Lineage of {escape(_label(root))}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    parts += [_arrow([place[stop] for stop in route], arrows[arrow]) for arrow, route in routes.items()]
    parts += [_box(node, place[node], node == root) for node in level]
    return "\n".join([*parts, "</svg>"])


def _levels(arrows: list[tuple[Node, Node]]) -> dict[Node, int]:
    """How many arrows lead to each node at the most; in a circle, as far as the number of nodes allows."""
    level = dict.fromkeys((node for arrow in arrows for node in arrow), 0)
    for _ in level:
        moved = [
            (source, target) for source, target in arrows if level[source] < len(level) > level[target] <= level[source]
        ]
        for source, target in moved:
            level[target] = max(level[target], min(level[source] + 1, len(level) - 1))
        if not moved:
            break
    return level


def _route(arrow: tuple[Node, Node], level: dict[Node, int]) -> list[Stop]:
    """The nodes of an arrow, and between them a stop in each layer that it passes."""
    source, target = arrow
    passed = [(source, target, between) for between in range(level[source] + 1, level[target])]
    return [source, *passed, target]


def _places(level: dict[Node, int], routes: list[list[Stop]]) -> dict[Stop, tuple[int, int]]:
    """Where the top left corner of each stop is."""
    layers: dict[int, list[Stop]] = defaultdict(list)
    inputs: dict[Stop, set[Stop]] = defaultdict(set)
    outputs: dict[Stop, set[Stop]] = defaultdict(set)
    for node in sorted(level):
        layers[level[node]].append(node)
    for route in routes:
        for before, after in pairwise(route):
            inputs[after].add(before)
            outputs[before].add(after)
        for stop in route[1:-1]:
            layers[int(stop[2])].append(stop)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        rank = {stop: float(row) for layer in layers.values() for row, stop in enumerate(layer)}
        for number in sorted(layers, reverse=not forwards):
            layer = layers[number]
            neighbours = inputs if forwards else outputs
            layer.sort(key=lambda stop: _barycentre(neighbours[stop], rank, rank[stop]))
            rank |= {stop: float(row) for row, stop in enumerate(layer)}
    tallest = max(map(len, layers.values()))
    place = {}
    for number, layer in layers.items():
        top = MARGIN + (tallest - len(layer)) * (BOX_HEIGHT + GAP_Y) // 2
        for row, stop in enumerate(layer):
            place[stop] = (MARGIN + number * (BOX_WIDTH + GAP_X), top + row * (BOX_HEIGHT + GAP_Y))
    return place


def _barycentre(neighbours: set[Stop], rank: dict[Stop, float], own: float) -> float:
    return sum(rank[stop] for stop in neighbours) / len(neighbours) if neighbours else own


def _arrow(places: list[tuple[int, int]], edge: Json) -> str:
    """A curve from the right side of the first place to the left side of the last, straight through those between."""
    (x, y), middle = places[0], BOX_HEIGHT // 2
    path = [f"M{x + BOX_WIDTH} {y + middle}"]
    at = x + BOX_WIDTH
    for x_next, y_next in places[1:]:
        bend = (x_next - at) // 2
        path.append(f"C{at + bend} {y + middle} {x_next - bend} {y_next + middle} {x_next} {y_next + middle}")
        if (x_next, y_next) != places[-1]:
            path.append(f"H{x_next + BOX_WIDTH}")
        at, y = x_next + BOX_WIDTH, y_next
    dashed = "" if edge.get("influence") == "INFLUENCE_DIRECT" else ' stroke-dasharray="4 3"'
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="#64748b"{dashed} marker-end="url(#tip)">'
        f"<title>{escape(edge.get('job', ''))}</title></path>"
    )


def _box(node: Node, place: tuple[int, int], is_root: bool) -> str:
    (dataset, field), (x, y) = node, place
    fill, stroke = ("#fef3c7", "#d97706") if is_root else ("#f1f5f9", "#94a3b8")
    return (
        f'<g><rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}"/>'
        f'<text x="{x + 10}" y="{y + 16}" fill="#64748b" font-size="10">{escape(_clip(dataset))}</text>'
        f'<text x="{x + 10}" y="{y + 31}" fill="#0f172a">{escape(_clip(field or "(whole table)"))}</text></g>'
    )


def _clip(text: str) -> str:
    return text if len(text) <= 30 else text[:29] + "…"


def _node(column: Json) -> Node:
    return column.get("dataset", ""), column.get("field", "")


def _label(node: Node) -> str:
    return ".".join(part for part in node if part)
