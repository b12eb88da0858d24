"""Idle time of real pipelines against the simulation, and our ranks against torchrun with the same job. python -m
tests.bench.pipeline

Four ranks, eight micro-batches, F = I = W = 80 ms of a rank's layers, padded. In the first lines the peer is the
simulation with nominal times; in the last ones it is torchrun: one batch of 1F1B, padded and raw.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median

from core.foundations.ranks import Group, warm
from core.pipeline_parallel.bubble import BubbleConfig, timeline_with
from core.pipeline_parallel.orders import ORDERS, SHORT
from core.pipeline_parallel.real import play
from core.pipeline_parallel.watched import Watched
from tests.bench.ledger import ROOT, Line, in_turns, options, ratio, report

RANKS, NEAR = 4, 0.04  # how near the simulation a measured share should come


def job(rank: int, ranks: int, schedule: str, nominal: float, padded: int, raw: int) -> Iterator[tuple[object, ...]]:
    yield from play(rank, BubbleConfig(schedule=schedule, nominal=nominal).plan(schedule), padded, raw)


def gathered(said: Iterator[tuple[int, tuple[object, ...]]]) -> tuple[Watched, Watched]:
    """The padded and the raw rounds of a job."""
    rounds = {True: Watched(RANKS), False: Watched(RANKS)}
    for rank, value in said:
        if value[0] == "chunks":
            _, _, padded, number, chunks = value
            rounds[padded].add(number, rank, [tuple(chunk) for chunk in chunks])
    return rounds[True], rounds[False]


def with_group(*arguments: object) -> tuple[Watched, Watched]:
    with Group(job, RANKS, arguments, gloo=True) as group:
        return gathered((said.rank, said.value) for said in group.listen() if said is not None)


ALONE = """
import json, os, sys
from core.foundations.ranks import under_torchrun
from tests.bench.pipeline import job
for value in under_torchrun(job, *json.loads(sys.argv[1])):
    sys.stdout.write(json.dumps([int(os.environ["RANK"]), value]) + chr(10))
"""


def with_torchrun(*arguments: object) -> tuple[Watched, Watched]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(RANKS),
        "--no-python",
    ]
    command += [sys.executable, "-c", ALONE, json.dumps(arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    return gathered(tuple(json.loads(line)) for line in done.stdout.splitlines())


def milliseconds(way: Callable[..., tuple[Watched, Watched]], padded: bool, rounds: int) -> Callable[[], float]:
    """The median batch of 1F1B."""

    def measure() -> float:
        nominal = (40.0, rounds, 0) if padded else (40.0, 0, 3 * rounds)
        return 1e3 * way("1f1b", *nominal)[0 if padded else 1].timeline().makespan

    return measure


def main() -> None:
    arguments = options(__doc__).parse_args()
    warm()
    nominal, rounds, turns, lines = (4.0, 1, 1, []) if arguments.quick else (80.0, 5, 5, [])
    for schedule in ORDERS:
        plan = BubbleConfig(schedule=schedule, nominal=nominal).plan(schedule)
        simulated = timeline_with(plan, plan.seconds)
        real = with_group(schedule, nominal, rounds, 0)[0].timeline()
        share = 1 - sum(simulated.busy) / (RANKS * real.makespan)
        near = None if arguments.quick else share - simulated.idle_share <= NEAR
        lines.append(
            Line(
                f"idle share of all time, {SHORT[schedule]}; simulated",
                "",
                share,
                simulated.idle_share,
                None,
                f"at most {NEAR:g} more",
                near,
            )
        )
    for padded in (True, False):
        ways = {
            "ours": milliseconds(with_group, padded, rounds),
            "torchrun": milliseconds(with_torchrun, padded, rounds),
        }
        times = in_turns(turns, ways)
        words = "padded" if padded else "raw"
        lines.append(
            Line(
                f"a batch of 1F1B, {words}, against torchrun",
                "ms",
                median(times["ours"]),
                median(times["torchrun"]),
                ratio(times["ours"], times["torchrun"]),
            )
        )
    report("pipeline", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    from tests.bench.pipeline import main as start  # jobs are found by their module's name

    start()
