r"""The roofline: no program on this machine is faster than its memory and its arithmetic allow.

A piece of work that does $F$ floating-point operations and moves $Q$ bytes takes at least

$$t \ge \max\!\left(\frac{F}{\text{FLOP/s}},\; \frac{Q}{\text{bytes/s}}\right).$$

Both rates are measured here once, with the threads that runs have: the arithmetic as a product of two matrices in
float32, the memory as a copy of a tensor far larger than the caches (read and write both count). A measured time beside
this floor says how much of a delay is the machine's and how much is the program's.

Source: Williams et al. 2009, "Roofline: an insightful visual performance model", doi.org/10.1145/1498765.1498785.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from core.foundations.machine import this_machine

COPIED_BYTES = 64 * 2**20
MATRIX = 512


@dataclass(frozen=True)
class Roofline:
    """The best rates of this device, measured."""

    flops_per_second: float  # float32
    bytes_per_second: float  # read plus written

    def floor_seconds(self, flops: float, nbytes: float) -> float:
        """No faster than this can the work be done."""
        return max(flops / self.flops_per_second, nbytes / self.bytes_per_second)

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which arithmetic is the limit, below which memory is."""
        return self.flops_per_second / self.bytes_per_second


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of some repetitions: disturbances only ever slow things down."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if this_machine().gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


@cache
def roofline() -> Roofline:
    """Measured at the first call, in about a fifth of a second; the app makes that call in the background when it
    starts.
    """
    device = this_machine().device
    a, b = torch.ones(MATRIX, MATRIX, device=device), torch.ones(MATRIX, MATRIX, device=device)
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    flops = 2 * MATRIX**3 / best_seconds(lambda: a @ b, 20)
    return Roofline(flops, 2 * COPIED_BYTES / best_seconds(lambda: target.copy_(source), 6))
