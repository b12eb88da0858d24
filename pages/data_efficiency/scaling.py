"""The picture of `scaling`: six runs, the law through them, the seventh; and what a large budget should be spent on."""

import math
from collections.abc import Sequence
from typing import Any

from core.data_efficiency import ScalingConfig, ScalingStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import view
from pages.data_efficiency.repeat import ticks

COLOURS = ("a", "c", "e")  # by size; the seventh is b
SURFACES = {"Hoffmann's printed constants": ("a", "bottom left"), "Besiroglu's refit": ("b", "top center")}
Trace = dict[str, Any]


def scaling_panels(config: ScalingConfig) -> list[Panel]:
    tokens, loss = axis("characters read", "count, log scale"), axis("loss on unseen text", "nats per character")
    parameters, large = axis("parameters", "count, log scale"), axis("loss by the law", "nats per token")
    runs, lines = chart(tokens, loss, log_x=True), chart(parameters, large, log_x=True, legend=True)
    runs["xaxis"] |= ticks(100, config.tokens) | {
        "range": [math.log10(config.tokens / 13), math.log10(config.tokens * 1.55)]
    }
    runs["margin"]["r"] = 92
    return [
        view(
            "runs",
            "plot",
            "Six runs, and the seventh predicted (band: 90 %)",
            legend=[("text", "law for N weights", "dashed")],
            span=7,
            height=420,
            layout=runs,
        ),
        view(
            "isoflops",
            "plot",
            f"Best splits for C = {config.flops:.3g}: tokens per parameter",
            span=5,
            height=420,
            layout=lines,
        ),
        text("advice", f"What should I train with {config.flops:.3g} FLOPs?", span=12),
    ]


def draw_scaling(step: ScalingStep, sketch: Sketch) -> None:
    if step.isoflops:
        sketch.show("isoflops", large(step))
        sketch.text("advice", told(step))
    if step.isoflops and step.blind is not None:
        sketch.show("runs", planned(step.plan, step.blind))
    elif step.path or step.lines:
        sketch.show("runs", runs(step))


def planned(plan: Sequence[tuple[int, int]], blind: float) -> list[Trace]:
    """The start: how far the runs will read, at the loss of a model that has learned nothing."""
    lengths = sorted({tokens for _, tokens in plan})
    words = [f"{sum(tokens == length for _, tokens in plan[:-1])} sizes" for length in lengths[:-1]] + ["the seventh"]
    return [
        dots([length], [blind], word, colour, names=[word])
        for length, word, colour in zip(lengths, words, ("text", "text", "b"), strict=False)
    ]


def runs(step: ScalingStep) -> list[Trace]:
    """The ends of the runs with the spread of their seeds, the law once there is one, and the run that is on."""
    sizes = sorted({size for size, _ in step.plan})
    seventh = step.plan[-1][0]
    colours = dict(zip([size for size in sizes if size != seventh], COLOURS, strict=False)) | {seventh: "b"}
    traces = [trace for line in step.lines for trace in law(line, colours[line.parameters], line.parameters == seventh)]
    if step.path and len(step.runs) < len(step.plan):
        traces.append(
            curve(
                [tokens for tokens, _ in step.path],
                [loss for _, loss in step.path],
                "on its way",
                colours[step.parameters],
            )
        )
    for size in sizes:
        own = [run for run in step.runs if run.parameters == size]
        if own:
            traces.append(
                dots(
                    [run.tokens for run in own],
                    [run.loss for run in own],
                    weights(size),
                    colours[size],
                    errors=[run.spread for run in own],
                )
            )
    return [*traces, names(step)]


def names(step: ScalingStep) -> Trace:
    """Each size at the right end of its line (before there is a line: at its last dot), moved apart."""
    if step.lines:
        seventh = step.plan[-1][0]
        ends = [
            (line.losses[-1], line.tokens[-1], f" {weights(line.parameters)}{', 7th' * (line.parameters == seventh)}")
            for line in step.lines
        ]
    else:
        last = {run.parameters: run for run in step.runs}
        ends = [(run.loss, run.tokens, f" {weights(size)}") for size, run in last.items()]
    ends.sort(reverse=True)
    heights, gap = (
        list[float](),
        0.045 * (max((run.loss for run in step.runs), default=1.0) - min((loss for loss, _, _ in ends), default=0.0)),
    )
    for loss, _, _ in ends:
        heights.append(min(loss, heights[-1] - gap) if heights else loss)
    told = dots([tokens for _, tokens, _ in ends], heights, "", "text", names=[word for _, _, word in ends])
    return told | {"mode": "text", "textposition": "middle right", "cliponaxis": False, "hoverinfo": "skip"}


def law(line: Any, colour: str, seventh: bool) -> list[Trace]:
    """The dashed line of one size; for the seventh, the band too, with the law's number at its tokens."""
    traces = [curve(line.tokens, line.losses, f"law, {weights(line.parameters)}", colour, dash=True)]
    if seventh:
        edges = curve(
            [*line.tokens, *reversed(line.tokens)], [*line.low, *reversed(line.high)], "90 % of the refits", colour
        )
        traces.append(edges | {"fill": "toself", "opacity": 0.25, "line": {"width": 0}, "hoverinfo": "skip"})
    return traces


def weights(size: int) -> str:
    return f"N {size / 1000:.1f}k"


def large(step: ScalingStep) -> list[Trace]:
    """IsoFLOP lines by both surfaces, with their optima; the budget at the end of the line."""
    traces = list[Trace]()
    for who, (colour, side) in SURFACES.items():
        own = [line for line in step.isoflops if line.who == who]
        for line in own:
            traces.append(
                curve(line.parameters, line.losses, who, colour, dash=colour == "b") | {"showlegend": line is own[0]}
            )
        xs, ys = [line.best[0] for line in own], [line.best[1] for line in own]
        ratios = [f"{line.tokens_per_parameter:.3g}" for line in own]
        traces.append(
            dots(xs, ys, "best split: tokens per parameter", colour, names=ratios)
            | {"showlegend": False, "textposition": side}
        )
    first = [line for line in step.isoflops if line.who == step.isoflops[0].who]
    ends = [line.parameters[-1] for line in first], [line.losses[-1] for line in first]
    budgets = dots(*ends, "", "text", names=["C/100", "C", "100 C"])
    return [*traces, budgets | {"mode": "text", "textposition": "top left", "showlegend": False, "hoverinfo": "skip"}]


def told(step: ScalingStep) -> str:
    """The answers, one below the other."""
    answers = [
        f"{one.who}:\n  {short(one.parameters)} parameters, {short(one.tokens)} tokens: {one.ratio:.3g} per parameter"
        + (f", the text read {one.epochs:.1f} times" if one.epochs > 1 else "")
        for one in step.advice
    ]
    rule = "A budget of FLOPs = 6 x parameters x tokens. Who is asked decides how it is split:"
    return "\n".join(
        [rule, *answers, "With little text: give it under More, and one more answer says how often to read it."]
    )


def short(number: float) -> str:
    """67.8 B, 1.42 T."""
    power = min(4, max(0, int(math.log10(number) // 3)))
    return f"{number / 1000**power:.3g} {('', 'k', 'M', 'B', 'T')[power]}".strip()
