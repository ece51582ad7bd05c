"""The figures that need no stack, at sizes that take seconds: they run, and what they compare is equal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import machine, worlds
from bench.bench import Bench
from bench.figure import Figure, Gate
from bench.figures import load, plan, questions, shipping
from bench.measuring import medians


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(events=1_200, users=100, repeats=1) as made:
        yield made


def test_a_figure_is_written_with_all_that_it_depends_on(tmp_path: Path) -> None:
    figure = Figure("rows", 20.0, "rows/s", machine.versions("duckdb"), "peer", 8.0, Gate(2.0, at_least=True))
    figure.save(tmp_path, machine.describe())
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [*written] == ["name", "value", "unit", "peer", "peer_value", "ratio", "machine", "versions"]
    assert written["ratio"] == 2.5
    assert {"cpu", "cores", "memory_gib", "load"} == set(written["machine"])
    assert {"python", "duckdb"} == set(written["versions"])


@pytest.mark.parametrize(("gate", "ratio", "met"), [(Gate(2), 2.1, False), (Gate(2, at_least=True), 2.1, True)])
def test_a_gate_is_a_bound_on_one_side(gate: Gate, ratio: float, met: bool) -> None:
    assert gate.met(ratio) is met


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, value: float) -> float:
        turns.append(name)
        return value

    assert medians(3, [lambda: contender("a", 1), lambda: contender("b", 2)]) == [1, 2]
    assert turns == ["a", "b"] * 3


def test_plan(bench: Bench) -> None:
    figure = plan.measure(bench, 2_000)
    assert figure.ratio is not None
    assert figure.ratio > 0


def test_shipping() -> None:
    batches = shipping.make_batches(5 * shipping.BATCH)
    assert shipping.rate(shipping.send(shipping.sdk_program(), batches)) > 0
    assert shipping.rate(shipping.send_bare(batches)) > 0


def test_questions_have_the_same_answer_on_both_kinds_of_storage(bench: Bench) -> None:
    with questions.Ours(worlds.synthetic(bench, 20_000)) as ours:
        for question in ("funnel", "segment"):
            answers = [sorted(ours.asking(question, storage)()) for storage in ("sorted", "parquet")]
            assert answers[0] == answers[1]
            assert sum(row[-1] for row in answers[0]) > 0


def test_the_bare_reading_of_events(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text('{"event_id": "a"}\nnot json\n{"event_id": "b", "contexts_x": [{"level": 1}]}\n')
    assert load.read_bare([file]) in {2, 3}
