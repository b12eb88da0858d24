"""The picture of `scale`: bytes of a rank over the number of ranks, and what a moment of a step needs beyond the
states.
"""

import math
from typing import Any

from core.zero import ScaleConfig, ScaleStep
from core.zero.count import GROUPS, Count
from core.zero.formulas import MIXED, STAGES, gigabytes, parts
from pages._kit.charts import Panel, Sketch, axis, bars, chart, columns, curve, dots, ranking, rounded
from pages._kit.player import player, view

KINDS = (("weights", "a"), ("gradients", "b"), ("optimizer", "c"))
COLOURS = dict(zip(STAGES, "dbac", strict=True))
RANK_TICKS = {"tickvals": [1, 4, 16, 64, 256, 1024], "ticktext": ["1", "4", "16", "64", "256", "1,024"], "dtick": None}
GB_TICKS = {
    "tickvals": [10.0**power for power in range(-4, 6)],
    "ticktext": ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100", "1,000", "10,000", "100,000"],
}
GB_TICKS |= {"dtick": None}
MERGED = (  # what is stacked, from the bottom, and its colour
    ("own slices", ("weights, own slice", "gradients, own slice", "optimizer, own slice"), "c"),
    ("gathered weights", ("gathered weights", "buffers of all-gather"), "a"),
    ("whole gradients", ("whole gradients", "buffers of reduce-scatter"), "b"),
    ("activations, rest", ("activations and the rest",), "level"),
)


def scale_panels(config: ScaleConfig) -> list[Panel]:
    over = chart(axis("ranks", "count"), axis("states of one rank", "GB"), log_x=True, log_y=True)
    top, bottom = gigabytes(config.billions * 1e9, 0, 1), gigabytes(config.billions * 1e9, 3, 1024)
    over["xaxis"] |= RANK_TICKS | {"range": [-0.08, math.log10(1024) + 0.75]}
    over["yaxis"] |= GB_TICKS | {"range": [math.log10(bottom) - 0.2, math.log10(top) + 0.25]}
    peak = chart(axis("ranks", "count"), axis("one rank at the peak", "GB"), stacked=True, legend=True)
    peak["xaxis"] |= {"type": "category"}
    peak["legend"] |= {"traceorder": "normal"}
    now = ranking(axis("counted", "GB"), axis("", ""), left=172)
    now["yaxis"] |= {"title": None}
    layers = f"{config.n_layer} layer{'s' * (config.n_layer > 1)} of width {config.width:,}, {config.ranks:,} ranks"
    split = chart(axis("", ""), axis("one rank", "GB"), stacked=True)
    split["xaxis"] = {"title": None, "type": "category"}
    split["yaxis"] |= {"range": [0, 1.13 * top]}
    split["margin"] |= {"b": 30}
    views = [
        view(
            "over",
            "plot",
            "One rank: lines are the formula, ● measured, ○ counted, ■ the paper",
            span=8,
            layout=over,
            height=330,
        ),
        view(
            "split",
            "plot",
            "Formula (and found)",
            legend=[("a", "weights"), ("b", "gradients"), ("c", "optimizer states")],
            span=4,
            layout=split,
            height=330,
        ),
    ]
    return [
        player("slider", f"{config.billions:g} billion weights, mixed precision", views, scrub="ranks", rate=1.5),
        view("peak", "plot", "FSDP2, 7.5 billion: the peak, counted and kept", span=6, layout=peak, height=300),
        view("now", "plot", f"FSDP2 now: {layers}", span=6, layout=now, height=300),
    ]


def draw_scale(step: ScaleStep, sketch: Sketch) -> None:
    if not step.curves:
        return
    if step.at:
        sketch.frame("slider", f"{step.at:,} rank{'s' * (step.at > 1)}", over=over_of(step), split=split_of(step))
    if step.at or step.now:
        sketch.show("peak", peak_of([one for one in step.kept if one.stage == 3]))
        sketch.show("now", now_of(step))


def label(x: float, y: float, words: str, where: str, colour: str = "text") -> dict[str, Any]:
    return dots([x], [y], "", colour, names=[words]) | {"mode": "text", "textposition": where, "cliponaxis": False}


def signs(points: list[tuple[int, float]], sign: str, colour: str) -> dict[str, Any]:
    """Points as letters, so that what was measured, counted and printed can be told apart."""
    told = dots([x for x, _ in points], [y for _, y in points], sign, colour, names=[sign] * len(points))
    return told | {"mode": "text", "textposition": "middle center", "text": [sign] * len(points)}


def over_of(step: ScaleStep) -> list[dict[str, Any]]:
    """Lines by formula, and all that was measured, counted and printed."""
    traces = [
        curve([1, 1024], [step.card, step.card], "memory", "level", dash=True),
        label(1024, step.card, f" {step.card:g} GB", "middle right", "level"),
    ]
    traces.append(curve([step.at, step.at], [1e-6, 1e9], "ranks", "level") | {"line": {"dash": "dot", "width": 1}})
    for stage, points in step.curves:
        colour = COLOURS[stage]
        traces.append(curve([ranks for ranks, _ in points], [size for _, size in points], f"stage {stage}", colour))
        traces.append(label(1024, points[-1][1], f" stage {stage}", "middle right", colour))
        for rows, sign in ((step.counted, "○"), (step.measured, "●")):
            here = [(ranks, size) for other, ranks, size in rows if other == stage]
            traces.append(signs(here, sign, colour))
    for _, printed in step.paper:
        traces.append(signs([(64, printed)], "■", "text"))
        traces.append(label(64, printed, f"{printed:g}", "top right"))
    return traces


def split_of(step: ScaleStep) -> list[dict[str, Any]]:
    """The four stages on this many ranks, and what was found beside the formula."""
    found = {stage: size for stage, ranks, size in (*step.counted, *step.measured) if ranks == step.at}
    names = [f"stage {stage}" for stage in STAGES]
    rows = [[part * step.billions for part in parts(stage, step.at, MIXED)] for stage in STAGES]
    traces = [columns(names, [row[kind] for row in rows], name, colour) for kind, (name, colour) in enumerate(KINDS)]
    for name, stage, row in zip(names, STAGES, rows, strict=True):
        told = f"{sum(row):.3g}" + (f"\n({found[stage]:.3g})" if stage in found else "")
        traces.append(
            {
                "type": "scatter",
                "mode": "text",
                "x": [name],
                "y": [rounded(sum(row))],
                "text": [told],
                "textposition": "top center",
                "colour": "text",
            }
        )
    return traces


def peak_of(counts: list[Count]) -> list[dict[str, Any]]:
    """Stacked by what the bytes are for; the formula beside it as a line."""
    xs, traces = [f"{one.ranks:,}" for one in counts], list[dict[str, Any]]()
    for name, kinds, colour in MERGED:
        heights = [sum(size for kind, size in one.peak if kind in kinds) / 1e9 for one in counts]
        traces.append(columns(xs, heights, name, colour))
    formula = [rounded(16 * one.weights / one.ranks / 1e9) for one in counts]
    traces.append({"type": "scatter", "mode": "markers", "x": xs, "y": formula, "name": "16P/N", "colour": "text"})
    return traces


def now_of(step: ScaleStep) -> list[dict[str, Any]]:
    """What this rank count needs, kind by kind; before it is counted, the slices by formula."""
    names = list(GROUPS)
    sizes = [0.0] * len(names) if step.now is None else [size / 1e9 for _, size in step.now.peak]
    traces = bars(names, sizes, label="counted", colour="a")
    traces.append(label(1.3 * max(sizes) or 1.0, 0.0, "", "middle right") | {"y": [names[0]]})  # room for the numbers
    for name, size in zip(names, sizes, strict=True):
        traces.append(
            dots([size], [0.0], "", "text", names=[f" {size:.3g}" if step.now else " ?"])
            | {"y": [name], "mode": "text", "textposition": "middle right", "cliponaxis": False}
        )
    return traces
