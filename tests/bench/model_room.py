"""How long the runs of nanoGPT that a visitor meets first take, with their defaults. python -m tests.bench.model_room

`inside`: until its first picture, its longest unit of work, the whole run. `train`: the whole run (goal: within 20 s on
two cores). Each runs in the worker that the app's runs have, alone; the browser's part is in `tests.bench.browser`.
"""

import time
from statistics import median

from core.foundations.experiment import Experiment, find
from core.foundations.turns import turns
from tests.bench.ledger import Line, options, report

GOAL_SECONDS = 20.0


def timed(one: Experiment) -> tuple[float, float, float]:
    """Seconds until the first Step, of the longest unit of work, and of the whole run."""
    began = last = time.perf_counter()
    units = []
    for _ in one.run(one.config_type()):
        now = time.perf_counter()
        units.append(now - last)
        last = now
    return units[0], max(units), last - began


def main() -> None:
    arguments = options(__doc__).parse_args()
    worker = turns("cpu").worker  # with the threads that runs have
    lines = []
    for name, goal in (("inside", None), ("train", GOAL_SECONDS)):
        one = find("nanogpt", name)
        worker.submit(timed, one).result()  # warms
        rounds = [worker.submit(timed, one).result() for _ in range(1 if arguments.quick else 5)]
        first, longest, whole = (median(column) for column in zip(*rounds, strict=True))
        lines.append(Line(f"nanogpt {name}, first Step", "s", first, None, None))
        lines.append(Line(f"nanogpt {name}, longest unit of work", "s", longest, None, None))
        told = (f"at most {goal:g} s", whole <= goal) if goal else ("", None)
        lines.append(Line(f"nanogpt {name}, the whole run", "s", whole, None, None, *told))
    report("model_room", lines, arguments)


if __name__ == "__main__":
    main()
