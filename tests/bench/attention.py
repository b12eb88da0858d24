"""Attention: PyTorch's SDPA against the naive formula, and our tiles against SDPA. python -m tests.bench.attention

Same Q, K and V, four causal heads of 32 in float32 (16 bits on a GPU), 256 to 4,096 tokens; the outputs must agree
first. "ours" of a line is the first named. Our tiles are a loop in Python, forward only: they are for reading, and
their slowness is told here.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from core.flash_attention.ways import Inputs, Work, attend, inputs_of, ran
from core.foundations.machine import this_machine
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

LENGTHS = (256, 512, 1024, 2048, 4096)
HEADS, WIDTH = 4, 32


def output(way: str, given: Inputs) -> torch.Tensor:
    if way == "SDPA":
        return F.scaled_dot_product_attention(given.q, given.k, given.v, is_causal=True)
    return attend({"naive": "naive", "our tiles": "tiled"}[way], given.q, given.k, given.v, True)


def check(given: Inputs) -> None:
    """The same numbers by all three, but for rounding; else there is nothing to compare."""
    allowed = 1e-4 if given.q.dtype == torch.float32 else 2e-2
    with torch.no_grad():
        wanted = output("SDPA", given)
        if max(float((output(way, given) - wanted).abs().max()) for way in ("naive", "our tiles")) > allowed:
            sys.exit("the outputs differ, so their speeds are not compared")


def timed(way: str, given: Inputs, backward: bool) -> Callable[[], float]:
    def wait() -> None:
        if this_machine().gpu:
            torch.cuda.synchronize()

    def measure() -> float:
        wait()
        started = time.perf_counter()
        out = output(way, given)
        if backward:
            torch.autograd.grad(out, (given.q, given.k, given.v), given.gradient)
        wait()
        return time.perf_counter() - started

    return measure


def compare(length: int, ways: tuple[str, str], rounds: int, backward: bool) -> Line:
    """Tokens a second of two ways, taken in turns."""
    given = inputs_of(Work(HEADS, length, WIDTH, True), 0)
    check(given)
    contestants = {way: timed(way, given, backward) for way in ways}
    in_turns(1, contestants)  # warm
    speeds = {way: [length / seconds for seconds in times] for way, times in in_turns(rounds, contestants).items()}
    a, b = (speeds[way] for way in ways)
    kind = "forward and backward" if backward else "forward"
    return Line(f"{ways[0]} against {ways[1]}, {kind}, {length} tokens", "tokens/s", median(a), median(b), ratio(a, b))


def main() -> None:
    arguments = with_threads(options(__doc__))
    rounds = 1 if arguments.quick else 7
    print(f"SDPA runs here as: {ran('free', Work(HEADS, 256, WIDTH, True))}")
    lines = []
    for length in LENGTHS[: 1 if arguments.quick else None]:
        lines.append(compare(length, ("SDPA", "naive"), rounds, False))
        lines.append(compare(length, ("SDPA", "naive"), rounds, True))
        lines.append(compare(length, ("our tiles", "SDPA"), rounds, False))
    report("attention", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
