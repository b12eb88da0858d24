"""Seconds from asking for a group of ranks to the first word of each number of them, the nursery warm. python -m
tests.bench.ranks

The peer is torchrun with the same job. Goal: at most 1 s in 95 of 100 cases.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles

from core.foundations.ranks import Group, warm
from tests.bench.ledger import ROOT, Line, in_turns, options, ratio, report

GOAL_SECONDS = 1.0


def job(rank: int, ranks: int) -> Iterator[float]:
    """The sum of all ranks' numbers."""
    import torch
    import torch.distributed as dist

    number = torch.tensor([float(rank)])
    dist.all_reduce(number)
    yield float(number)


def group_of(ranks: int) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        with Group(job, ranks, gloo=True) as group:
            next(said for said in group.listen() if said is not None)
            return time.perf_counter() - started

    return measure


ALONE = (
    "from core.foundations.ranks import under_torchrun; from tests.bench.ranks import job; print(*under_torchrun(job),"
    " flush=True)"
)


def torchrun_of(ranks: int) -> Callable[[], float]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        "--no-python",
        sys.executable,
        "-c",
        ALONE,
    ]

    def measure() -> float:
        started = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as run:
            assert run.stdout is not None
            assert run.stdout.readline(), "torchrun ended without a word"
            return time.perf_counter() - started

    return measure


def main() -> None:
    arguments = options(__doc__).parse_args()
    warm()
    lines = []
    for ranks in (2, 4):
        ours = group_of(ranks)
        ours()
        peer = in_turns(1 if arguments.quick else 3, {"ours": ours, "torchrun": torchrun_of(ranks)})
        every = [ours() for _ in range(3 if arguments.quick else 40)]
        late = quantiles(every, n=20)[-1]
        lines.append(
            Line(
                f"first word of {ranks} ranks, median",
                "s",
                median(every),
                median(peer["torchrun"]),
                ratio(peer["ours"], peer["torchrun"]),
            )
        )
        lines.append(
            Line(
                f"first word of {ranks} ranks, 95 % of all within",
                "s",
                late,
                None,
                None,
                f"at most {GOAL_SECONDS:g} s",
                late <= GOAL_SECONDS,
            )
        )
    report("ranks", lines, arguments)


if __name__ == "__main__":
    from tests.bench.ranks import main as start  # jobs are found by their module's name

    start()
