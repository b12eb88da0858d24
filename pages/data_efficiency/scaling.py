"""The picture of `scaling`: six runs, the law through them, the seventh; and what a large budget should be spent on."""

import math
from typing import Any

from core.data_efficiency import ScalingConfig, ScalingStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import view

COLOURS = ("a", "c", "e", "b")  # by size, the seventh last
SURFACES = {"Hoffmann's printed constants": "a", "Besiroglu's refit": "b"}
Trace = dict[str, Any]


def scaling_panels(config: ScalingConfig) -> list[Panel]:
    tokens, loss = axis("characters read by each model", "count, log scale"), axis("loss on unseen text", "nats per character")
    parameters, large = axis("parameters", "count, log scale"), axis("loss by the law", "nats per token")
    runs, lines = chart(tokens, loss, log_x=True), chart(parameters, large, log_x=True, legend=True)
    runs["margin"]["r"] = 104
    title = "Six runs, the law fitted to them (dashed), and the seventh it foretells (band: 90 % of the refits)"
    return [
        view("runs", "plot", title, span=7, height=420, layout=runs),
        view("isoflops", "plot", "What a large budget buys: along a line it is the same, the dot is the best split", span=5, height=420, layout=lines),
        text("advice", "What should I train with this budget?", span=12),
    ]


def draw_scaling(step: ScalingStep, sketch: Sketch) -> None:
    if step.isoflops:
        sketch.show("isoflops", large(step))
        sketch.text("advice", told(step))
        sketch.show("runs", planned(step))
    if step.path or step.lines:
        sketch.show("runs", runs(step))


def planned(step: ScalingStep) -> list[Trace]:
    """The start: where the runs will end, on the line of what a model knows that has learnt nothing."""
    sizes = sorted({size for size, _ in step.plan})
    return [
        dots([tokens for size, tokens in step.plan if size == own], [step.blind for size, _ in step.plan if size == own], weights(own), colour,
             names=[weights(own) if tokens == max(other for size, other in step.plan if size == own) else "" for size, tokens in step.plan if size == own])
        for own, colour in zip(sizes, COLOURS, strict=False)
    ]  # fmt: skip


def runs(step: ScalingStep) -> list[Trace]:
    sizes = sorted({size for size, _ in step.plan})
    colours = dict(zip(sizes, COLOURS, strict=False))
    traces = [trace for line in step.lines for trace in law(line, colours[line.parameters], line.parameters == sizes[-1])]
    if step.path:
        traces.append(curve([tokens for tokens, _ in step.path], [loss for _, loss in step.path], "on its way", colours[step.parameters]))
    for size in sizes:
        own = [run for run in step.runs if run.parameters == size]
        if own:
            xs, ys, errors = [run.tokens for run in own], [run.loss for run in own], [run.spread for run in own]
            traces.append(
                dots(xs, ys, weights(size), colours[size], errors=errors, names=[""] * (len(own) - 1) + [weights(size)]) | {"textposition": "top right"}
            )
    return traces


def law(line: Any, colour: str, seventh: bool) -> list[Trace]:
    """The dashed line of one size; for the seventh, the band too, with the law's number at its tokens."""
    traces = [curve(line.tokens, line.losses, f"law, {weights(line.parameters)}", colour, dash=True)]
    if seventh:
        edges = curve([*line.tokens, *reversed(line.tokens)], [*line.low, *reversed(line.high)], "90 % of the refits", colour)
        traces.append(edges | {"fill": "toself", "opacity": 0.25, "line": {"width": 0}, "hoverinfo": "skip"})
    return traces


def weights(size: int) -> str:
    return f"{size / 1000:.1f}k weights"


def large(step: ScalingStep) -> list[Trace]:
    """IsoFLOP lines by both surfaces, with their optima."""
    traces = list[Trace]()
    for who, colour in SURFACES.items():
        own = [line for line in step.isoflops if line.who == who]
        for line in own:
            traces.append(curve(line.parameters, line.losses, who, colour, dash=colour == "b") | {"showlegend": line is own[0]})
        xs, ys = [line.best[0] for line in own], [line.best[1] for line in own]
        names = [f"{line.flops / 6 / line.best[0] / line.best[0]:.3g}" for line in own]
        traces.append(dots(xs, ys, "best split: tokens per parameter", colour, names=names) | {"showlegend": False, "textposition": "bottom center"})
    return traces


def told(step: ScalingStep) -> str:
    """The answers as a small table."""
    rows = [f"{'':27}{'parameters':>12}{'tokens':>10}{'tokens per parameter':>22}"]
    for one in step.advice:
        again = f"   ({one.epochs:.1f} epochs)" if one.epochs > 1 else ""
        rows.append(f"{one.who:27}{short(one.parameters):>12}{short(one.tokens):>10}{one.ratio:>22.1f}{again}")
    return "\n".join(rows)


def short(number: float) -> str:
    """67.8 B, 1.42 T."""
    power = min(4, max(0, int(math.log10(number) // 3)))
    return f"{number / 1000**power:.3g} {('', 'k', 'M', 'B', 'T')[power]}".strip()
