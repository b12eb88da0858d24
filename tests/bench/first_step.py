"""Seconds from pressing Run to the first Step of every experiment, with its defaults and warm. python -m
tests.bench.first_step

Goal: at most 1 s. What the server and the browser add to it is in `tests.bench.browser`.
"""

import time
from collections.abc import Callable
from statistics import median

from core.foundations.experiment import Experiment, experiments, topics
from core.foundations.turns import turns
from tests.bench.ledger import Line, in_turns, options, report

GOAL_SECONDS = 1.0


def until_first_step(one: Experiment) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        run = one.run(one.config_type())
        next(run)
        seconds = time.perf_counter() - started
        run.close()  # type: ignore[attr-defined]
        return seconds

    return measure


def main() -> None:
    arguments = options(__doc__).parse_args()
    contestants = {one.key: until_first_step(one) for topic in topics() for one in experiments(topic).values()}
    worker = turns("cpu").worker  # with the threads that runs have
    for measure in contestants.values():
        worker.submit(measure).result()  # warms
    measured = worker.submit(in_turns, 1 if arguments.quick else 5, contestants).result()
    lines = []
    for key, every in measured.items():
        seconds = median(every)
        lines.append(
            Line(
                f"first Step of {key.replace('_', ' ')}",
                "s",
                seconds,
                None,
                None,
                f"at most {GOAL_SECONDS:g} s",
                seconds <= GOAL_SECONDS,
            )
        )
    report("first_step", lines, arguments)


if __name__ == "__main__":
    main()
