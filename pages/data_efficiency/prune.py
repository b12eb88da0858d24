"""The picture of `prune`: loss against the amount of text for each kind of choice, as the distance to a random
choice.
"""

import math
from typing import Any

from core.data_efficiency.prune import KINDS, NAMES, PruneConfig, PruneStep
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, text
from pages._kit.player import view

COLOURS = {"random": "text", "easiest": "a", "hardest": "b", "learnable": "c"}
Trace = dict[str, Any]


def prune_panels(config: PruneConfig) -> list[Panel]:
    kept, gap = (
        axis("characters kept to learn from", "count, log scale"),
        axis("loss minus random choice's", "nats per character"),
    )
    grade, windows = axis("loss after the short run", "nats"), axis("windows", "count")
    trial, grades = chart(kept, gap, log_x=True), chart(grade, windows)
    trial["margin"] |= {"r": 118, "t": 24}
    share = f"{100 * config.keep:g} %"
    title = f"Which {share} to keep: below 0 beats chance (bars: seeds; top: times read)"
    return [
        view("trial", "plot", title, span=8, height=420, layout=trial),
        view("grades", "plot", "The grades of all windows", span=4, height=420, layout=grades),
        text("examples", "The first windows of each choice", span=12, height=150),
    ]


def draw_prune(step: PruneStep, sketch: Sketch) -> None:
    if step.characters:
        sketch.show("trial", flat(step))
        sketch.show("grades", [])
        sketch.text("examples", "The short run has not graded anything yet.")
    if step.cut:
        sketch.show("grades", histogram(step.histogram, step.cut))
        sketch.text(
            "examples",
            "\n".join(
                f"{name:15}" + "   ".join(f"«{shown(window)}»" for window in some) for name, some in step.examples
            ),
        )
    if step.points:
        sketch.show("trial", trial(step))


def flat(step: PruneStep) -> list[Trace]:
    """The start: the amounts of text, on the line of a random choice."""
    names = [f"{characters:,}" for characters in step.characters]
    return [dots(step.characters, [0.0] * len(names), "will be kept", "text", line=True, names=names)]


def histogram(bins: tuple[tuple[float, int], ...], cut: tuple[float, float]) -> list[Trace]:
    """How many windows have which loss; easy and hard in their colours, what is in both or in none in grey."""
    width, top, traces = bins[1][0] - bins[0][0], max(count for _, count in bins), list[Trace]()
    sides = {"easiest": [], "hardest": [], "": []}  # type: dict[str, list[tuple[float, int]]]
    for middle, count in bins:
        easy, hard = middle <= cut[0], middle >= cut[1]
        sides["" if easy == hard else "easiest" if easy else "hardest"].append((middle, count))
    for kind, own in sides.items():
        if own:
            traces.append(
                columns(
                    [x for x, _ in own],
                    [y for _, y in own],
                    kind or "in both or in none",
                    COLOURS.get(kind, "level"),
                    width=width,
                )
            )
    for kind, height in (("easiest", 0.93), ("hardest", 0.85)):
        name = dots([bins[len(bins) // 2][0]], [height * top], "", COLOURS[kind], names=[f"the {NAMES[kind]}"])
        traces.append(name | {"mode": "text", "textposition": "middle right", "hoverinfo": "skip"})
    return traces


def trial(step: PruneStep) -> list[Trace]:
    """Each kind's loss minus the random choice's, with its name at the end, moved apart where names would cover each
    other.
    """
    points, traces = step.points, list[Trace]()
    xs = [point.characters for point in points]
    for number, kind in enumerate(step.kinds):
        ys = [point.losses[number] - point.losses[0] for point in points]
        shifted = [x * 1.05 ** (number - 1.5) for x in xs]  # side by side, so that the error bars can be told apart
        traces.append(
            dots(shifted, ys, NAMES[kind], COLOURS[kind], line=True, errors=[point.spread[number] for point in points])
        )
    last, values = points[-1], [value for point in points for value in span(point.losses, point.spread)]
    step_up, heights = 0.055 * (max(values) - min(values)), list[float]()
    order = sorted(range(len(KINDS)), key=lambda number: last.losses[number])
    for number in order:
        height = last.losses[number] - last.losses[0]
        heights.append(max(height, heights[-1] + step_up) if heights else height - step_up)
    names = dots(
        [xs[-1] * 1.12] * len(order),
        heights,
        "",
        "text",
        names=[f"{NAMES[KINDS[n]]} {last.losses[n]:.2f}" for n in order],
    )
    traces.append(names | {"mode": "text", "textposition": "middle right", "cliponaxis": False, "hoverinfo": "skip"})
    top = max(values)
    above = dots(xs, [top] * len(xs), "", "level", names=[times(point.epochs) for point in points])
    return [
        curve([xs[0] * 0.8, xs[-1] * 1.2], [0.0, 0.0], "", "level", dash=True),
        *traces,
        above | {"mode": "text", "hoverinfo": "skip"},
    ]


def span(losses: tuple[float, ...], spread: tuple[float, ...]) -> list[float]:
    return [loss - losses[0] + sign * one for loss, one in zip(losses, spread, strict=True) for sign in (-1, 1)]


def times(epochs: float) -> str:
    return f"{epochs:.0f}×" if epochs >= 1.5 or math.isclose(epochs, 1, abs_tol=0.1) else f"{epochs:.1f}×"


def shown(window: str) -> str:
    return window.replace("\n", "↵")
