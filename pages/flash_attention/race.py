"""The picture of `race`: memory and time over the length of the text, formulas as lines, runs as dots."""

import math
from typing import Any

from core.flash_attention import RaceConfig, RaceStep
from core.flash_attention.race import PAPER_MS, README_MEMORY
from core.flash_attention.ways import WAYS
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import view

COLOURS = {"naive": "b", "math": "d", "efficient": "e", "flash": "a", "cudnn": "text", "tiled": "c"}
SHORT = {
    "naive": "naive",
    "math": "math",
    "efficient": "efficient",
    "flash": "flash",
    "cudnn": "cuDNN",
    "tiled": "our tiles",
}
FORWARD_SECONDS, BOTH_SECONDS, FORWARD_BYTES, BOTH_BYTES = 2, 3, 4, 5  # places in a result
TICKS = {128: "128", 512: "512", 2048: "2K", 8192: "8K", 32768: "32K", 131072: "131K"}
MB, MS, GB = 1e6, 1e3, 1e9
TEXT = {"type": "scatter", "mode": "text", "name": "", "colour": "text"}


def race_panels(config: RaceConfig) -> list[Panel]:
    layouts = [
        chart(axis("tokens", "N, log"), axis(*what), log_y=True, legend=legend)
        for what, legend in (
            (("peak", "MB, log"), False),
            (("time", "ms, log"), True),
            (("time", "ms, log"), True),
            (("naive / fused", "times, log"), False),
        )
    ]
    for layout, reach in zip(layouts, (5.2, 4.3, 4.3, 4.3), strict=True):
        start = min(100, config.sizes[0] * 0.8)
        far = max(reach, 0.15 + math.log10(config.most_n))
        layout["xaxis"] |= {
            "type": "log",
            "range": [math.log10(start), far],
            "tickvals": list(TICKS),
            "ticktext": list(TICKS.values()),
        }
        layout["legend"] |= {"itemwidth": 30}
    layouts[0]["yaxis"]["range"], layouts[3]["yaxis"]["range"] = [-0.6, 5.4], [-0.3, 2.7]
    ratio = "Naive over fused, memory and time; ◆ GPUs: time 5.7x, memory 10x and 20x"
    return [
        view(
            "memory",
            "plot",
            "Peak memory, forward and backward: formulas and counted",
            span=6,
            layout=layouts[0],
            height=380,
        ),
        view(
            "both",
            "plot",
            "Time forward and backward, and the floor of this machine",
            span=6,
            layout=layouts[1],
            height=380,
        ),
        view("forward", "plot", "Time forward only, with our own tiles", span=6, layout=layouts[2], height=300),
        view("ratio", "plot", ratio, span=6, layout=layouts[3], height=300),
        text("kernels", "What really ran, and what was not started", height=230),
    ]


def draw_race(step: RaceStep, sketch: Sketch) -> None:
    sketch.show("memory", memory_of(step))
    sketch.show("both", times_of(step, BOTH_SECONDS))
    sketch.show("forward", times_of(step, FORWARD_SECONDS))
    sketch.show("ratio", ratios_of(step))
    sketch.text("kernels", kernels_of(step))


def found(step: RaceStep, way: str, place: int) -> tuple[list[int], list[float]]:
    """Sizes and what was measured there."""
    pairs = [(one[1], one[place]) for one in step.results if one[0] == way and one[place] is not None]
    return [n for n, _ in pairs], [value for _, value in pairs]  # type: ignore[misc]


def memory_of(step: RaceStep) -> list[dict[str, Any]]:
    """Naive's line ends where it meets the free memory; flash's goes on."""
    traces = [
        curve([step.lengths[0] / 2, 4 * step.lengths[-1]], [step.free / MB] * 2, "free memory", "level", dash=True)
    ]
    for way, formula in step.peaks:
        shown = [
            peak / MB if n <= step.limit or way != "naive" else None
            for n, peak in zip(step.lengths, formula, strict=True)
        ]
        lengths = list(step.lengths)
        if way == "naive":  # up to the mark, exactly
            shown, lengths = (
                [*[one for one in shown if one is not None], step.free / MB],
                [*[n for n in lengths if n <= step.limit], step.limit],
            )
        traces.append(curve(lengths, shown, f"{SHORT[way]}, by formula", COLOURS[way]))
    for way in COLOURS:
        sizes, peaks = found(step, way, FORWARD_BYTES if way == "tiled" else BOTH_BYTES)
        if sizes and way != "tiled":
            traces.append(dots(sizes, [peak / MB for peak in peaks], SHORT[way], COLOURS[way]))
    traces.append(TEXT | {"x": [step.limit], "y": [step.free / MB], "text": ["✕"]})
    (_, naive), (_, flash) = step.peaks
    at = min(3, len(naive) - 1)
    labels = [
        (step.limit, 2.6 * step.free / MB, f"naive ends at {step.limit:,} ", "middle left"),
        (step.lengths[at], naive[at] / MB, "naive, math ", "top left"),
        (step.lengths[at], flash[at] / MB * 0.6, " flash", "bottom right"),
        (step.lengths[0], 0.55 * step.free / MB, f"{step.free / GB:.0f} GB free here", "middle right"),
    ]
    return [
        *traces,
        *(TEXT | {"x": [x], "y": [y], "text": [told], "textposition": place} for x, y, told, place in labels),
    ]


def times_of(step: RaceStep, place: int) -> list[dict[str, Any]]:
    floor = [seconds * MS for seconds in step.floors[place - FORWARD_SECONDS]]
    traces = [curve(step.lengths, floor, "floor", "level", dash=True)]
    for way in COLOURS:
        sizes, seconds = found(step, way, place)
        if sizes:
            traces.append(dots(sizes, [one * MS for one in seconds], SHORT[way], COLOURS[way], line=True))
    return traces


def ratios_of(step: RaceStep) -> list[dict[str, Any]]:
    """Naive over the fused kernel: formula, counted, timed; and what was published."""
    (_, naive), (_, flash) = step.peaks
    traces = [curve(step.lengths, [a / b for a, b in zip(naive, flash, strict=True)], "memory, by formula", "a")]
    fused = next((way for way in ("flash", "efficient", "cudnn") if dict(step.kernels).get(way)), "flash")
    for place, name, colour in ((BOTH_BYTES, "memory", "a"), (BOTH_SECONDS, "time", "b")):
        (sizes, ours), theirs = found(step, "naive", place), dict(zip(*found(step, fused, place), strict=True))
        common = [(n, value / theirs[n]) for n, value in zip(sizes, ours, strict=True) if n in theirs]
        if common:
            traces.append(
                dots([n for n, _ in common], [ratio for _, ratio in common], name, colour, line=place == BOTH_SECONDS)
            )
    for n, times in [*README_MEMORY.items(), (1024, PAPER_MS["naive"] / PAPER_MS["flash"])]:
        traces.append(TEXT | {"x": [n], "y": [times], "text": [f"◆ {times:.2g}x"], "textposition": "middle right"})
    return traces


def kernels_of(step: RaceStep) -> str:
    names = dict(step.kernels)
    names |= {"tiled": "a loop over tiles in Python, forward only"} if names.get("tiled") else {}
    lines = [f"{WAYS[way]}: {kernel or 'not on this device'}" for way, kernel in names.items() if way != "free"]
    lines.append(f"plain SDPA picks: {names.get('free', '')}")
    for way in dict.fromkeys(one[0] for one in step.left):
        _, length, why, need = next(one for one in step.left if one[0] == way)
        told = (
            f"it needs {need / GB:.1f} GB"
            if why == "memory"
            else f"a pass would take about {need:.2g} s, more than the patience"
        )
        lines.append(f"not started: {WAYS[way]} from {length:,} tokens on: {told}")
    return "\n".join(lines)
