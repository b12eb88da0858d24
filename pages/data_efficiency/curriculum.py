"""The picture of `curriculum`: the same curves over characters and over seconds, and what the layers get to see."""

from typing import Any

from core.data_efficiency import CurriculumConfig, CurriculumStep
from pages._kit.charts import Panel, Sketch, axis, chart, dots, heat
from pages._kit.player import view

NAMES = ("baseline", "short sequences first", "random token dropping")
SHORT = ("baseline", "short first", "dropping")
COLOURS = ("text", "a", "b")
ROOM = 0.5  # nats above the last losses that are drawn: before, all three fall steeply
WORDS = "{name}: {from}, position {column}"
Trace = dict[str, Any]


def curriculum_panels(config: CurriculumConfig) -> list[Panel]:
    loss = axis("loss on unseen text", "nats per character")
    layouts = [chart(axis("characters read", "count", 1.02 * config.tokens), loss)]
    layouts.append(chart(axis("time of the computing thread", "seconds"), loss))
    for layout in layouts:
        layout["margin"]["r"] = 112
        layout["xaxis"]["rangemode"] = "tozero"
    return [
        view("tokens", "plot", "Loss over the characters read ...", span=6, height=340, layout=layouts[0]),
        view("seconds", "plot", "... and over the time it took", span=6, height=340, layout=layouts[1]),
        view(
            "seen",
            "matrix",
            "Which positions of the sequence each layer sees (filled), from the start downwards",
            signed=True,
            words=WORDS,
        ),
    ]


def draw_curriculum(step: CurriculumStep, sketch: Sketch) -> None:
    if step.seen is not None and step.blind is not None:
        layers = [f"layer {layer + 1}" for layer in range(step.seen.shape[2])]
        titles = [f"{name}, {100 * moment:.0f} %" for moment in step.moments for name in NAMES]
        sketch.show("seen", heat(-step.seen, titles, left=layers, low=-1.0, high=1.0))
        for panel in ("tokens", "seconds"):
            sketch.show(
                panel,
                [
                    dots([0], [step.blind], "untrained", "text", names=["all three, untrained"])
                    | {"textposition": "middle right"}
                ],
            )
    if step.curves:
        sketch.show("tokens", lines(step, 0))
        sketch.show("seconds", lines(step, 1))


def lines(step: CurriculumStep, column: int) -> list[Trace]:
    """The three curves over the characters (column 0) or the seconds (column 1), with their names at the right edge."""
    curves = [points for points in step.curves if points]
    top = max(points[-1][2] for points in curves) + ROOM
    traces = list[Trace]()
    for points, name, colour in zip(step.curves, NAMES, COLOURS, strict=True):
        kept = [point for point in points if point[2] <= top]
        if kept:
            traces.append(
                dots([point[column] for point in kept], [point[2] for point in kept], name, colour, line=True)
            )
    ends = sorted(
        ((points[-1][2], name) for points, name in zip(step.curves, SHORT, strict=True) if points), reverse=True
    )
    gap, heights = 0.09 * (top - ends[-1][0]), list[float]()
    for loss, _ in ends:
        heights.append(min(loss, heights[-1] - gap) if heights else loss)
    edge = max(points[-1][column] for points in curves)
    told = dots([edge] * len(ends), heights, "", "text", names=[f"  {name} {loss:.3f}" for loss, name in ends])
    return [*traces, told | {"mode": "text", "textposition": "middle right", "cliponaxis": False, "hoverinfo": "skip"}]
