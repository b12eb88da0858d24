"""The picture of `speedup`: the formula's curves with the measured dots, where the time goes, and Megatron's own
numbers.
"""

from typing import Any

from core.megatron import SpeedupConfig, SpeedupStep
from core.megatron.formulas import STRONG_SPEEDUP, WEAK_PERCENT
from core.megatron.speedup import COUNTS, FURTHEST, Times
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, text
from pages._kit.player import view

COLOURS = {"NVLink": "c", "10 Gb/s": "a", "1 Gb/s": "d", "100 Mb/s": "e"}
LABELS = {1: "1 rank", 2: "2 ranks", 4: "4 ranks"}


def speedup_panels(config: SpeedupConfig) -> list[Panel]:
    gain = chart(axis("ranks", "count"), axis("speed-up", "times one rank"))
    gain["xaxis"] |= {"range": [0.7, 10.6], "tickvals": [1, 2, 4, 8]}
    gain["yaxis"] |= {"range": [0, 8.3]}
    parts = chart(axis("", ""), axis("one step, each rank", "ms"), stacked=True, legend=True)
    parts["xaxis"] = {"type": "category", "title": {"text": ""}}
    share = chart(axis("ranks", "count"), axis("efficiency", "%"))
    share["xaxis"] |= {
        "type": "log",
        "range": [-0.08, 1.28],
        "tickvals": [1, 2, 4, 8],
        "ticktext": ["1", "2", "4", "8"],
    }
    share["xaxis"].pop("dtick", None)
    share["yaxis"] |= {"range": [0, 108]}
    return [
        view(
            "gain", "plot", "Speed-up: lines by formula, dots measured with this link", span=7, layout=gain, height=400
        ),
        view("parts", "plot", "Where the time goes", span=5, layout=parts, height=400),
        view(
            "share",
            "plot",
            "Efficiency here, and Megatron's weak and strong scaling (V100)",
            span=7,
            layout=share,
            height=410,
        ),
        text("scale", "How fast must a link be?", span=5, height=410),
    ]


def draw_speedup(step: SpeedupStep, sketch: Sketch) -> None:
    if not step.curves:
        return
    sketch.show("gain", gain_of(step))
    sketch.show("parts", parts_of(step))
    sketch.show("share", share_of(step))
    sketch.text("scale", scale_of(step))


def name_at(x: float, y: float, words: str, colour: str, where: str = "middle right") -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "text",
        "x": [x],
        "y": [y],
        "text": [words],
        "textposition": where,
        "colour": colour,
        "name": "",
        "cliponaxis": False,
    }


def gain_of(step: SpeedupStep) -> list[dict[str, Any]]:
    """A line per link with its name at the right end, kept apart."""
    ranks = list(range(1, FURTHEST + 1))
    traces = [curve(ranks, ranks, "ideal", "grid", dash=True)]
    ends = [(float(FURTHEST), "ideal", "text")]
    for name, speeds in step.curves:
        colour = COLOURS.get(name, "b")
        traces.append(curve(ranks, list(speeds), name, colour))
        ends.append((speeds[-1], name.replace(": ", ":\n"), colour))
    found = gains(step)
    if found:
        traces.append(dots([ranks for ranks, _ in found], [gain for _, gain in found], "measured", "b"))
    low = -1.0
    for height, name, colour in sorted(ends):
        low = max(height, low + (0.72 if "\n" in name else 0.48))
        traces.append(name_at(FURTHEST + 0.1, low, name, colour))
    return traces


def gains(step: SpeedupStep) -> list[tuple[int, float]]:
    alone = next((times.seconds for times in step.measured if times.ranks == 1), None)
    return [(times.ranks, alone / times.seconds) for times in step.measured] if alone else []


def parts_of(step: SpeedupStep) -> list[dict[str, Any]]:
    """Stacked where it is measured, else by formula; a dot is the formula's sum."""
    told = {times.ranks: times for times in step.formula} | {times.ranks: times for times in step.measured}
    labels = [LABELS[ranks] for ranks in COUNTS]
    kinds = (("split part", "split", "a"), ("rest", "whole", "c"), ("link", "link", "b"))
    bars = [
        columns(labels, [1e3 * getattr(told[ranks], part) for ranks in COUNTS], name, colour)
        for name, part, colour in kinds
    ]
    return [*bars, dots(labels, [1e3 * times.seconds for times in step.formula], "formula", "text")]


def share_of(step: SpeedupStep) -> list[dict[str, Any]]:
    weak, strong = list(WEAK_PERCENT.items()), [(ranks, 100 * gain / ranks) for ranks, gain in STRONG_SPEEDUP.items()]
    here = [(times.ranks, 100 * step.formula[0].seconds / times.seconds / times.ranks) for times in step.formula]
    traces = []
    for points, name, colour in ((weak, "weak", "d"), (strong, "strong", "c"), (here, "here", "b")):
        xs, ys = [ranks for ranks, _ in points], [y for _, y in points]
        traces.append(dots(xs, ys, name, colour, line=True) if name != "here" else curve(xs, ys, name, colour))
        traces.append(name_at(xs[-1] * 1.05, ys[-1], name, colour))
    found = gains(step)
    return [
        *traces,
        dots([ranks for ranks, _ in found], [100 * gain / ranks for ranks, gain in found], "here, measured", "b"),
    ]


def gloo_of(measured: tuple[Times, ...]) -> str:
    told = [f"{1e3 * times.gloo:.0f} ms on {times.ranks} ranks" for times in measured if times.ranks > 1]
    return f"Not in the bars: gloo itself, between processes that share two cores: {', '.join(told)}." if told else ""


def scale_of(step: SpeedupStep) -> str:
    """What the curves start from, and the same link beside a card."""
    speed, slower, equal = step.scaled
    lines = [f"The formula starts from {1e3 * step.formula[0].seconds:.0f} ms, {step.basis}.", ""]
    lines += [
        f"A rank computes {speed / 1e9:.0f} GFLOP/s here. An A100 in Megatron does 140,000, {slower:,.0f} times as"
        " many."
    ]
    lines += [f"NVLink's 300 GB/s beside an A100 are like {1e3 * equal:.0f} MB/s beside this core.", ""]
    lines += ["Twice the width: four times the arithmetic, twice the bytes.", ""]
    lines += [
        "Megatron (Shoeybi et al. 2019): weak scaling from 1.2B to 8.3B weights, strong scaling of 1.2B, batch 8, 1 to"
        " 8 cards of a server."
    ]
    return "\n".join([*lines, "", gloo_of(step.measured)]).strip()
