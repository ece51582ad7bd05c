"""Lineage as a graph: what a value is made of, and a picture of it.

Edges are those of the REST API: `{"input": {"dataset", "field"}, "output": {...}, "influence", "job"}`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from traitmesh.client import Json

Node = tuple[str, str]

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 40, 70, 16, 24
SWEEPS = 12


def sources_of(edges: Sequence[Json], root: Node) -> list[str]:
    """The columns that `root` is made of and that nothing else flows into, as `schema.table.column`, in order.

    A value is followed along what it is made from. Where that is nothing but rows, such as in a count, it is followed
    along what decides which rows count.
    """
    inputs: dict[Node, dict[bool, set[Node]]] = defaultdict(lambda: {True: set(), False: set()})
    for edge in edges:
        direct = edge.get("influence") == "INFLUENCE_DIRECT"
        inputs[_node(edge["output"])][direct].add(_node(edge["input"]))
    sources, seen, waiting = set(), {root}, [root]
    while waiting:
        node = waiting.pop()
        ways = inputs[node][True] or inputs[node][False]
        if not ways and node != root:
            sources.add(_label(node))
        waiting += ways - seen
        seen |= ways
    return sorted(sources)


def tree(edges: Sequence[Json], root: Node, depth: int = 0, seen: frozenset[Node] = frozenset()) -> Iterable[str]:
    """Lines of an indented tree from `root` to its sources."""
    yield "  " * depth + _label(root)
    if root in seen:
        return
    for source in sorted({_node(edge["input"]) for edge in edges if _node(edge["output"]) == root}):
        yield from tree(edges, source, depth + 1, seen | {root})


def draw(edges: Sequence[Json], root: Node) -> str:
    """An SVG picture of the graph: sources at the left, one column of boxes for each step, arrows between.

    Layers by longest path, order within a layer by barycentres (Sugiyama, Tagawa and Toda 1981). Dashed arrows are
    inputs that decide which rows count, not what the value is.
    """
    arrows = {(_node(edge["input"]), _node(edge["output"])): edge for edge in edges}
    layers = _layers(list(arrows)) or [[root]]
    place = {
        node: (MARGIN + index * (BOX_WIDTH + GAP_X), MARGIN + row * (BOX_HEIGHT + GAP_Y))
        for index, layer in enumerate(layers)
        for row, node in enumerate(layer)
    }
    width = 2 * MARGIN + len(layers) * (BOX_WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(len(layer) for layer in layers) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        f'font-family="sans-serif" font-size="12" role="img" aria-label="Lineage of {escape(_label(root))}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    parts += [_arrow(place[a], place[b], edge) for (a, b), edge in arrows.items()]
    parts += [_box(node, place[node], node == root) for node in place]
    return "\n".join([*parts, "</svg>"])


def _layers(arrows: list[tuple[Node, Node]]) -> list[list[Node]]:
    inputs: dict[Node, set[Node]] = defaultdict(set)
    outputs: dict[Node, set[Node]] = defaultdict(set)
    for source, target in arrows:
        inputs[target].add(source)
        outputs[source].add(target)
    nodes = inputs.keys() | outputs.keys()
    level = dict.fromkeys(nodes, 0)
    for _ in nodes:  # As many rounds as the longest path can have; a cycle ends there, too.
        moved = False
        for source, target in arrows:
            if level[target] < level[source] + 1 <= len(nodes):
                level[target] = level[source] + 1
                moved = True
        if not moved:
            break
    layers = [sorted(node for node in nodes if level[node] == n) for n in range(max(level.values(), default=-1) + 1)]
    for sweep in range(SWEEPS):
        neighbours = inputs if sweep % 2 == 0 else outputs
        rank = {node: row for layer in layers for row, node in enumerate(layer)}
        for layer in layers:
            layer.sort(key=lambda node: _barycentre(neighbours[node], rank, rank[node]))
            rank |= {node: row for row, node in enumerate(layer)}
    return layers


def _barycentre(neighbours: set[Node], rank: dict[Node, int], own: int) -> float:
    return sum(rank[node] for node in neighbours) / len(neighbours) if neighbours else own


def _arrow(start: tuple[int, int], end: tuple[int, int], edge: Json) -> str:
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT // 2
    bend = max(GAP_X // 2, (x2 - x1) // 2)
    dashed = "" if edge.get("influence") == "INFLUENCE_DIRECT" else ' stroke-dasharray="4 3"'
    return (
        f'<path d="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" stroke="#64748b"{dashed} '
        f'marker-end="url(#tip)"><title>{escape(edge.get("job", ""))}</title></path>'
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
