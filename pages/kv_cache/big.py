"""The picture of `big`: memory over context against a ruler of cards as the batch doubles, bytes per token, steps, what
fits.
"""

import math
from typing import Any

from core.kv_cache import BigConfig, BigStep
from core.kv_cache.published import MODELS, RULER
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, ranking, rounded, text
from pages._kit.player import player, view

TICKS = {
    "tickvals": [10**power for power in range(-1, 7)],
    "ticktext": ["0.1", "1", "10", "100", "1,000", "10,000", "100,000", "1 M"],
}
TABLE = {"T4": 5, "H100": 6, "H200": 6, "8 H100": 7}  # columns and their widths
REACH = 700.0  # GB: where the bars end
CONTEXTS = {"tickvals": [128, 1024, 8192, 65_536, 1_048_576], "ticktext": ["128", "1 k", "8 k", "64 k", "1 M"]}


def big_panels(config: BigConfig) -> list[Panel]:
    name = MODELS[config.model].name
    grows = chart(axis("tokens of each text", "count"), axis("weights and caches", "GB"), log_x=True, log_y=True)
    grows["xaxis"] |= CONTEXTS
    weights = config.weight_bytes(MODELS[config.model]) / 1e9
    grows["yaxis"] |= TICKS | {"range": [math.log10(min(weights * 0.4, 8.0)), 4.6]}
    held = ranking(axis("weights, caches", "GB"), axis("", ""), stacked=True, left=150)
    each = ranking(axis("left by a token", "bytes, log"), axis("", ""), left=150)
    each["xaxis"] |= {"type": "log", "dtick": 1, "exponentformat": "power", "range": [3.4, 8.6]}
    for layout in (held, each):
        layout["yaxis"] |= {"title": None}
    steps = chart(axis("texts at once", "count"), axis("a step of all texts, at least", "ms"), log_x=True, log_y=True)
    steps["xaxis"] |= {"tickvals": [1, 8, 64, 512], "ticktext": ["1", "8", "64", "512"]}
    views = [
        view(
            "grows",
            "plot",
            f"{name} over the length of the texts, and cards that hold it",
            span=7,
            layout=grows,
            height=280,
        ),
        view(
            "held",
            "plot",
            f"{config.context:,} tokens each",
            span=5,
            layout=held,
            height=280,
            legend=[("c", "what 1 and 8 H100 hold", "line")],
        ),
    ]
    cards = f"{config.cards} × {config.card.upper()}"
    return [
        player("batch", "", views, scrub="texts at once", rate=1.5, bar_before=None),
        view(
            "each",
            "plot",
            "Bytes per token, 16 bits",
            legend=[("level", "formula"), ("b", "weighed", "dot")],
            span=7,
            layout=each,
            height=280,
        ),
        text("fits", f"Texts of {config.context:,} tokens that fit beside the weights", span=5, height=260),
        view("steps", "plot", f"{name} on {cards}: the time to read weights and caches", layout=steps, height=320),
    ]


def draw_big(step: BigStep, sketch: Sketch) -> None:
    if step.curves:
        for (batch, points), (_, rows) in zip(step.curves, step.bars, strict=True):
            words = f"{batch} text{'s' * (batch > 1)} at once"
            sketch.frame("batch", words, grows=grows_of(step, points, batch), held=held_of(rows))
        sketch.show("steps", steps_of(step))
        sketch.text("fits", fits_of(step))
    if step.per_token:
        sketch.show("each", each_of(step))


def label(x: Any, y: Any, words: str, where: str) -> dict[str, Any]:
    return dots([x], [0.0], "", "text", names=[words]) | {
        "y": [y],
        "mode": "text",
        "textposition": where,
        "cliponaxis": False,
    }


def grows_of(step: BigStep, points: Any, batch: int) -> list[dict[str, Any]]:
    """The curve rises from the weights as the caches take over; cards are levels."""
    contexts = [context for context, _ in points]
    ends = [contexts[0], contexts[-1]]
    traces = list[dict[str, Any]]()
    for place, (name, size) in enumerate(RULER):
        traces.append(curve(ends, [size, size], name, "level", dash=True) | {"line": {"dash": "dot", "width": 1}})
        traces.append(label(contexts[6 * (place % 2)], size, f"{name}, {size:,.0f}", "top right"))
    here, _, weights, memory = step.here
    traces.append(curve(ends, [memory, memory], "your cards", "c"))
    traces.append(curve(ends, [weights, weights], "weights", "a", dash=True))
    traces.append(label(contexts[-1], weights, f"weights {weights:,.1f}", "bottom left"))
    traces.append(curve(contexts, [total for _, total in points], f"{batch} texts", "b"))
    near = min(points, key=lambda point: abs(point[0] - here))
    traces.append(dots([near[0]], [near[1]], "your length", "b"))
    traces.append(label(near[0], near[1], f"  {near[1]:,.0f} GB", "bottom right"))
    return traces


def held_of(rows: Any) -> list[dict[str, Any]]:
    """Stacked bars that end where the chart does; how long they are stands beside them."""
    names = [name for name, *_ in rows]
    weights = [min(size, REACH) for _, size, _ in rows]
    caches = [min(size, REACH - shown) for (_, _, size), shown in zip(rows, weights, strict=True)]
    told = {"type": "bar", "orientation": "h", "y": names}
    traces: list[dict[str, Any]] = [
        told | {"x": [rounded(size) for size in weights], "name": "weights", "colour": "level"}
    ]
    traces.append(told | {"x": [rounded(size) for size in caches], "name": "caches", "colour": "b"})
    for (name, size, cache), shown, more in zip(rows, weights, caches, strict=True):
        end, total = shown + more, size + cache
        traces.append(label(end, name, f" {short(total)}" + (" →" if total > REACH else ""), "middle right"))
    traces.append(curve([80, 80], [0.0, 0.0], "H100", "c") | {"y": [names[0], names[-1]]})
    traces.append(curve([640, 640], [0.0, 0.0], "8 H100", "c") | {"y": [names[0], names[-1]]})
    traces.append(label(REACH * 1.28, names[0], "", "middle right"))
    return traces


def short(gigabytes: float) -> str:
    return f"{gigabytes:,.0f}" if gigabytes >= 10 else f"{gigabytes:.2g}"


def each_of(step: BigStep) -> list[dict[str, Any]]:
    """By formula as bars, by transformers' own cache as dots."""
    names = [f"{name} {kind}" for name, kind, *_ in step.per_token]
    traces = bars(names, [nbytes for *_, nbytes, _ in step.per_token], label="formula", colour="level")
    held = [(name, found) for name, (*_, found) in zip(names, step.per_token, strict=True) if found is not None]
    if held:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [rounded(found) for _, found in held],
                "y": [name for name, _ in held],
                "name": "weighed",
                "colour": "b",
            }
        )
    for name, (*_, nbytes, _) in zip(names, step.per_token, strict=True):
        traces.append(label(nbytes, name, f"  {nbytes:,.0f}", "middle right"))
    return traces


def steps_of(step: BigStep) -> list[dict[str, Any]]:
    """The least time of a step; what does not fit is grey."""
    fitting = [row for row in step.steps if row[3]]
    traces = [curve([batch for batch, *_ in step.steps], [ms for _, ms, *_ in step.steps], "floor", "level", dash=True)]
    traces.append(dots([batch for batch, *_ in fitting], [ms for _, ms, *_ in fitting], "fits", "b"))
    too_many = [row for row in step.steps if not row[3]]
    traces.append(dots([batch for batch, *_ in too_many], [ms for _, ms, *_ in too_many], "does not fit", "level"))
    for batch, ms, rate, fits in (step.steps[0], step.steps[4], step.steps[-1]):
        told = f"{rate:,.0f} tokens/s" if fits else "does not fit"
        traces.append(label(batch, ms, told, "bottom right" if batch < 512 else "bottom left"))
    traces += [label(step.steps[0][0], ms, "", "top center") for ms in (step.steps[0][1] / 2, step.steps[-1][1] * 2)]
    return traces


def fits_of(step: BigStep) -> str:
    """Models below each other, cards side by side."""
    shown = [place for place, (name, _) in enumerate(RULER) if name in TABLE]
    lines = [f"{'':<12}" + "".join(f"{RULER[place][0]:>{TABLE[RULER[place][0]]}}" for place in shown)]
    lines.append(f"{'GB':<12}" + "".join(f"{RULER[place][1]:>{TABLE[RULER[place][0]]},.0f}" for place in shown))
    for name, counts in step.texts:
        cells = [("–" if counts[place] is None else f"{counts[place]}", TABLE[RULER[place][0]]) for place in shown]
        lines.append(
            f"{name.replace('Llama-3.1', 'L-3.1').removesuffix(' v0.1'):<12}"
            + "".join(f"{cell:>{wide}}" for cell, wide in cells)
        )
    return "\n".join([*lines, "", "– the weights alone are too large"])
