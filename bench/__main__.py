"""Every figure, with its peers in the same run: `python -m bench [NAME ...]`, which `make bench` calls.

Figures are made one after another; what several need (a running stack, Tusk's events) is made once. Each is written
to `bench/results/<name>.json` as soon as it is there, and a table of all is printed at the end.
"""

import signal
import sys
from pathlib import Path

import click

from bench import machine
from bench.bench import Bench
from bench.figure import Figure, show
from bench.figures import build, latency, load, plan, profile, questions, shipping

#: In this order: building comes last, since it adds a notebook to the company that the others read.
FIGURES = {
    "load": load.run,
    "plan": plan.run,
    "questions": questions.run,
    "shipping": shipping.run,
    "profile": profile.run,
    "latency": latency.run,
    "build": build.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*FIGURES]))
@click.option("--events", default=1_000_000, show_default=True, help="Tusk's events.")
@click.option("--users", default=50_000, show_default=True, help="Tusk's users.")
@click.option("--repeats", default=5, show_default=True, help="Rounds that medians are taken over.")
@click.option("--results", default=Path("bench/results"), show_default=True, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], events: int, users: int, repeats: int, results: Path) -> None:
    """Measures the figures of NAMES, or all of them."""
    found: list[Figure] = []
    described = machine.describe()
    if described["load"] > machine.QUIET_LOAD:
        print(f"warning: the load is {described['load']}; figures are true on a quiet machine only", file=sys.stderr)
    # Being told to end must end the stack, too, whose processes outlive their parent.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with Bench(events, users, repeats) as bench:
        for name in (name for name in FIGURES if name in names or not names):
            print(name, file=sys.stderr)
            for figure in FIGURES[name](bench):
                figure.save(results, described)
                found.append(figure)
    show(found)


if __name__ == "__main__":
    main()
