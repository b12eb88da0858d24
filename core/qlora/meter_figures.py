"""The figures of the memory meter: each precision's peak against its forecast, and every kind of bytes by formula."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.qlora.budget import NOMINAL_BITS, PRECISIONS, TABLES, Load, Parts, budget
from core.qlora.memory import PLACES

PEAK = Figure(
    "peak of memory, {precision}", "MB", "theory", "sum of all kinds where the backward pass starts or ends, by formula"
)
ALLOCATOR_PEAK = Figure(
    "peak of CUDA's allocator, {precision}",
    "MB",
    "baseline",
    "bytes of live tensors; the rest is blocks of 512 bytes and what operations take inside themselves",
)
KIND = Figure("{kind}, {precision}", "MB", "theory", "the formulas of this experiment")
BITS = Figure("bits per weight, {precision}", "bits", "theory")
SAVED = Figure(
    "saved by double quantization",
    "bits per weight",
    "paper",
    "32/64 - 8/64 - 32/(64 x 256) (QLoRA, section 3); the gap is 1028 bytes of tables more per matrix, much for small"
    " ones",
)
HEADLINES = ("fp32", "nf4")


def peak_of(precision: str) -> Figure:
    """The figure of a precision's peak; two of them are headlines."""
    return replace(PEAK.of(precision=PRECISIONS[precision]), headline=precision in HEADLINES)


def peak_figures(precision: str, forecast: float, counted: float, allocator: float | None) -> tuple[Result, ...]:
    """The peak of one precision against its forecast, and on a GPU against its allocator's own record; all in bytes."""
    figures = (peak_of(precision)(counted / 1e6, forecast / 1e6),)
    if allocator is None:
        return figures
    return (*figures, ALLOCATOR_PEAK.of(precision=PRECISIONS[precision])(allocator / 1e6, counted / 1e6))


def kind_figures(parts: Parts, load: Load, most: dict[str, Float[np.ndarray, "kinds"]]) -> tuple[Result, ...]:
    """Kind by kind for the last precision that ran, and what double quantization saved."""
    last, figures = list(most)[-1], list[Result]()
    predicted = budget(parts, last, load, this_machine().device)
    for kind, place in PLACES.items():
        if predicted[kind] and kind != "passing":
            figure = KIND.of(kind=kind, precision=PRECISIONS[last])
            figures.append(figure(float(most[last][place]) / 1e6, predicted[kind] / 1e6))
    bits = {name: 8 * float(most[name][PLACES["constants"]]) / parts.linear for name in most if name in TABLES}
    for name, constants in bits.items():
        source = "4 + 32/64" if name == "nf4" else "4 + 8/64 + 32/(64 x 256)"
        figure = BITS.of(precision=PRECISIONS[name])
        figures.append(figure(4 + constants, NOMINAL_BITS[name], source=f"{source}; the gap is a table per matrix"))
    if len(bits) == 2:
        figures.append(SAVED(bits["nf4"] - bits["nf4dq"], NOMINAL_BITS["nf4"] - NOMINAL_BITS["nf4dq"]))
    return tuple(figures)
