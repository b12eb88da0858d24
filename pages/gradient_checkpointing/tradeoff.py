"""The picture of `tradeoff`: the sawtooth of one step, way by way; memory against time, memory against k; the
tables.
"""

from collections.abc import Sequence
from typing import Any

from core.foundations.activation_bytes import head_bytes
from core.gradient_checkpointing import TradeoffConfig, TradeoffStep
from core.gradient_checkpointing.tradeoff import BARE
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, text
from pages._kit.player import player, view

MB = 1e6
MOST_FRAMES = 26  # of one step


def tradeoff_panels(config: TradeoffConfig) -> list[Panel]:
    costs = config.costs(70)  # about as many characters as the text has: only for how far the axes reach
    high, tallest = (
        1.12 * costs.peak(config.ways[0]) / MB,
        1.15 * max(costs.layer_bytes, head_bytes(costs.layer, 70)) / MB,
    )
    saw = chart(axis("work done", "forward passes", 4.1), axis("live bytes", "MB", high), legend=True)
    layers = chart(axis("layer", "number, then the head"), axis("live bytes", "MB", tallest), stacked=True, legend=True)
    layers["xaxis"] |= {
        "range": [0.4, config.n_layer + 1.6],
        "tickvals": list(range(1, config.n_layer + 1, 1 + config.n_layer // 12)),
    }
    pareto = chart(axis("time of a step", "× without checkpoints"), axis("peak", "MB"), legend=True)
    sizes = chart(axis("layers in a segment", "k"), axis("peak", "MB"), legend=True)
    saw["legend"] |= {"itemwidth": 30}
    for layout in (pareto, sizes):
        layout["yaxis"] |= {"rangemode": "tozero"}
    film = [
        view(
            "saw",
            "plot",
            "Live bytes in one step: measured, by formula, without checkpoints",
            span=7,
            layout=saw,
            height=330,
        ),
        view("layers", "plot", "Where they are: saved, or computed again", span=5, layout=layers, height=330),
    ]
    return [
        player("film", "", film, scrub="moment of the step", rate=8),
        view("pareto", "plot", "Memory against time: by formula and measured", span=7, layout=pareto, height=320),
        view("sizes", "plot", "One input saved for k layers: formula and measured", span=5, layout=sizes, height=320),
        text("costs", "Peak in MB, by rule and measured; time of a step", span=6, height=190),
        text("work", "FLOPs in forward passes, stopped early and whole; gradients", span=6, height=190),
    ]


def draw_tradeoff(step: TradeoffStep, sketch: Sketch) -> None:
    weighing = ("formula", "forward", "loss", "backward")
    if step.phase in weighing and kept_frame(step):
        sketch.frame(
            "film",
            step.way if step.phase == "formula" else f"{step.way}: {step.phase}",
            saw=saw_of(step),
            layers=layers_of(step),
        )
    if step.curves:
        sketch.frame("film", "all ways", saw=all_of(step), layers=layers_of(step))
    if step.names:
        sketch.show("pareto", pareto_of(step))
        sketch.show("sizes", sizes_of(step))
        sketch.text("costs", costs_of(step))
        sketch.text("work", work_of(step))


def kept_frame(step: TradeoffStep) -> bool:
    """Of a deep network not every unit is a frame; the loss, where most is kept, always is."""
    return step.phase in ("formula", "loss") or step.unit % (1 + 2 * step.n_layer // MOST_FRAMES) == 0


def saw_of(step: TradeoffStep) -> list[dict[str, Any]]:
    traces = (
        [
            curve([x for x, _ in step.bare], [y / MB for _, y in step.bare], "without checkpoints", "level")
            | {"line": {"width": 1}}
        ]
        if step.bare
        else []
    )
    traces.append(
        curve([round(x, 3) for x, _ in step.teeth], [y / MB for _, y in step.teeth], "formula", "text", dash=True)
        | {"line": {"width": 1, "dash": "dot"}}
    )
    if step.curve:
        traces.append(curve([x for x, _ in step.curve], [y / MB for _, y in step.curve], step.way, "a"))
        traces.append(dots([step.curve[-1][0]], [step.curve[-1][1] / MB], "now", "b"))
    return traces


def all_of(step: TradeoffStep) -> list[dict[str, Any]]:
    """The steps of all ways over each other, each named at its top."""
    traces, colours = list[dict[str, Any]](), ["level", "b", "a", "c", "d", "e"]
    for (name, points), colour in zip(step.curves, colours, strict=False):
        traces.append(
            curve([x for x, _ in points], [y / MB for _, y in points], name, colour)
            | {"line": {"width": 1.5}, "showlegend": False}
        )
    for name, points in step.curves:
        x, y = max(points, key=lambda point: point[1])
        told = {"x": [x], "y": [y / MB], "text": [name], "textposition": "top right", "name": "", "colour": "text"}
        traces.append({"type": "scatter", "mode": "text", "showlegend": False, **told})
    return traces


def layers_of(step: TradeoffStep) -> list[dict[str, Any]]:
    numbers = list(range(1, len(step.kept) + 1))
    kept = columns(numbers, [size / MB for size in step.kept], "saved", "a")
    again = columns(numbers[: len(step.again)], [size / MB for size in step.again], "computed again", "b")
    return [kept, again]


def pareto_of(step: TradeoffStep) -> list[dict[str, Any]]:
    """Grey where the formulas expect each way, blue where it is; the front joined."""
    peaks, seconds = dict(step.peaks), dict(step.seconds)
    names = () if seconds else step.names
    room: dict[str, Any] = {
        "type": "scatter",
        "mode": "text",
        "x": [2.0],
        "y": [0],
        "text": [""],
        "name": "",
        "colour": "text",
    }
    room |= {"showlegend": False}
    traces = [
        room,
        named([time for time, _ in step.forecast], [size / MB for _, size in step.forecast], names, "formula", "level"),
    ]
    if "none" in seconds:
        points = {name: (took / seconds["none"], peaks[name] / MB) for name, took in seconds.items()}
        front = [points[name] for name in step.front if name in points]
        traces.append(curve([x for x, _ in front], [y for _, y in front], "front", "a") | {"line": {"width": 1}})
        traces.append(
            named([x for x, _ in points.values()], [y for _, y in points.values()], list(points), "measured", "a")
        )
    return traces


def named(xs: Sequence[float], ys: Sequence[float], names: Sequence[str], label: str, colour: str) -> dict[str, Any]:
    """Dots with a name on the side where there is room."""
    trace = dots(xs, ys, label, colour, names=names)
    middle = (min(xs) + max(xs)) / 2
    return trace | (
        {
            "textposition": ["middle right" if x <= middle else "middle left" for x in xs],
            "text": [f" {name} " for name in names],
        }
        if names
        else {}
    )


def sizes_of(step: TradeoffStep) -> list[dict[str, Any]]:
    peaks, sizes = dict(step.peaks), dict(zip(step.names, step.sizes, strict=True))
    traces = [curve([k for k, _ in step.formula], [size / MB for _, size in step.formula], "formula", "level")]
    found = [(sizes[name], size / MB) for name, size in peaks.items() if sizes[name]]
    return [*traces, dots([k for k, _ in found], [size for _, size in found], "measured", "a")]


def costs_of(step: TradeoffStep) -> str:
    peaks, seconds = dict(step.peaks), dict(step.seconds)
    lines = [f"{'':<15}{'rule':>7}{'MB':>7}{'ms':>7}"]
    for name, (_, size) in zip(step.names, step.forecast, strict=True):
        measured = f"{peaks[name] / MB:>7.2f}" if name in peaks else f"{'?':>7}"
        took = f"{1e3 * seconds[name]:>7.1f}" if name in seconds else f"{'?':>7}"
        lines.append(f"{name:<15}{size / MB:>7.2f}{measured}{took}")
    return "\n".join(lines)


def work_of(step: TradeoffStep) -> str:
    """With and without stopping early, and the stamp on the gradients."""
    apart, flops = dict(step.apart), {name: numbers for name, *numbers in step.flops}
    lines = [f"{'':<15}{'early':>6}{'whole':>6} grads"]
    for name in (*step.names, BARE):
        counted = f"{flops[name][0]:>6.3f}{flops[name][2]:>6.3f}" if name in flops else f"{'?':>6}{'?':>6}"
        stamp = (
            ("" if name == BARE else "?")
            if name not in apart
            else (
                "equal"
                if not apart[name]
                else f"off {apart[name]:.0%}"
                if apart[name] >= 0.01
                else f"off {apart[name]:.1e}"
            )
        )
        lines.append(f"{name:<15}{counted} {stamp}".rstrip())
    return "\n".join(lines)
