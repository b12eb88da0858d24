"""NF4 round trip, ours and bitsandbytes', the same tensor: quantise in blocks of 64, and back. python -m
tests.bench.nf4

Before a time is taken both must give the same bytes and the same weights. On a CPU bitsandbytes quantises with torch's
own operations and reads back with a routine in C++; on a GPU both of its halves are CUDA kernels. Ours is written to be
read.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from core.foundations.machine import this_machine
from core.qlora.codes import Quantised, dequantise, packed, quantise
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

SHAPES = {
    "192 x 576 (the shipped base)": (192, 576),
    "1024 x 1024": (1024, 1024),
    "4096 x 4096 (Llama-2-7B)": (4096, 4096),
}


def check(weight: Tensor) -> tuple[Quantised, Tensor, object]:
    """The same numbers, packed, and the same weights back; else there is nothing to compare."""
    import bitsandbytes.functional as library

    ours = quantise(weight, "nf4")
    theirs, state = library.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    if not torch.equal(packed(ours.numbers), theirs.flatten()) or not torch.equal(
        dequantise(ours), library.dequantize_4bit(theirs, state)
    ):
        sys.exit("the two do not store the same, so their speeds are not compared")
    return ours, theirs, state


def compare(shape: tuple[int, int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each way, by part: storing, reading back, and both."""
    import bitsandbytes.functional as library

    device = this_machine().device
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device) * 0.02
    ours, theirs, state = check(weight)
    parts: dict[str, dict[str, Callable[[], object]]] = {
        "store": {
            "ours": lambda: packed(quantise(weight, "nf4").numbers),
            "bitsandbytes": lambda: library.quantize_4bit(weight, quant_type="nf4"),
        },
        "read back": {"ours": lambda: dequantise(ours), "bitsandbytes": lambda: library.dequantize_4bit(theirs, state)},
        "round trip": {
            "ours": lambda: dequantise(quantise(weight, "nf4")),
            "bitsandbytes": lambda: library.dequantize_4bit(*library.quantize_4bit(weight, quant_type="nf4")),
        },
    }
    measured = {}
    for part, ways in parts.items():
        contestants = {name: timed(way, device) for name, way in ways.items()}
        in_turns(2, contestants)  # warm
        measured[part] = in_turns(rounds, contestants)
    return measured


def timed(way: Callable[[], object], device: str) -> Callable[[], float]:
    def measure() -> float:
        wait(device)
        started = time.perf_counter()
        way()
        wait(device)
        return time.perf_counter() - started

    return measure


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    arguments = with_threads(options(__doc__))
    lines, rounds = [], 3 if arguments.quick else 21
    for name, shape in list(SHAPES.items())[: 1 if arguments.quick else None]:
        for part, measured in compare(shape, rounds).items():
            speeds = {
                way: [shape[0] * shape[1] / seconds / 1e6 for seconds in times] for way, times in measured.items()
            }
            times = ratio(speeds["ours"], speeds["bitsandbytes"])
            lines.append(
                Line(
                    f"NF4 {part}, {name}", "M weights/s", median(speeds["ours"]), median(speeds["bitsandbytes"]), times
                )
            )
    report("nf4", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
