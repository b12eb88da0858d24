"""The picture of `big`: what one GPU keeps, way by way and over the context; all models; a small layer that was
weighed.
"""

from collections.abc import Sequence
from typing import Any

from core.gradient_checkpointing import BigConfig, BigStep
from core.gradient_checkpointing.big import BIG, CARD
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, ranking, rounded, text
from pages._kit.player import view

GB = 1e9
COLOURS = {
    "none": "level",
    "tensor": "a",
    "tensor + sequence": "d",
    "tensor + selective": "b",
    "all three": "c",
    "full": "e",
}


def big_panels(config: BigConfig) -> list[Panel]:
    one = BIG[config.model].name
    across = ranking(axis("kept by one GPU", "GB"), axis("", ""), left=140)
    small = ranking(axis("one layer", "bytes per s b h"), axis("", ""), left=140)
    for layout in (across, small):
        layout["yaxis"] |= {"title": None}
    over = chart(axis("context", "tokens"), axis("kept by one GPU", "GB"), log_x=True, log_y=True)
    ticks = {512: "512", 4096: "4k", 32768: "32k", 131072: "131k"}
    over["xaxis"] |= {
        "dtick": None,
        "exponentformat": None,
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "range": [2.6, 5.95],
    }
    told = f"{one}: {config.batch} x {config.context:,} tokens, t = {config.ranks}"
    card = [("level", f"{CARD} GB", "dashed")]
    return [
        view("bars", "plot", told, span=7, layout=across, height=320, legend=card),
        view(
            "small",
            "plot",
            "A small layer",
            legend=[("level", "the paper"), ("b", "with this device's masks"), ("a", "measured")],
            span=5,
            layout=small,
            height=320,
        ),
        view("over", "plot", "The same over the context", span=5, layout=over, height=330, legend=card),
        text(
            "table",
            f"GB kept by one GPU, {config.batch} x {config.context:,} tokens, t = {config.ranks}; L2, L3: Llama",
            span=7,
            height=230,
        ),
    ]


def draw_big(step: BigStep, sketch: Sketch) -> None:
    if step.bars:
        sketch.show("bars", bars_of(step.bars))
        sketch.show("over", over_of(step))
        sketch.text("table", table_of(step))
    sketch.show("small", small_of(step.measured, step.formula))


def short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def ends(labels: Sequence[str], lengths: Sequence[float], words: Sequence[str]) -> dict[str, Any]:
    told = {
        "type": "scatter",
        "mode": "text",
        "name": "",
        "colour": "text",
        "textposition": "middle right",
        "cliponaxis": False,
    }
    return told | {"x": [rounded(one) for one in lengths], "y": list(labels), "text": [f" {word}" for word in words]}


def bars_of(rows: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """A bar per way, its length at its end; the memory of a GPU as a dotted line, if a bar reaches that far."""
    labels, sizes = [way for way, _ in rows], [size / GB for _, size in rows]
    traces = bars(labels, sizes, colour="a") + [ends(labels, sizes, [short(size) for size in sizes])]
    if max(sizes) >= CARD:
        line = {
            "x": [CARD, CARD],
            "y": [labels[0], labels[-1]],
            "name": f"{CARD} GB",
            "colour": "level",
            "line": {"dash": "dot"},
        }
        traces.append({"type": "scatter", "mode": "lines", **line})
    return [*traces, ends(labels[:1], [1.17 * max(sizes)], [""])]  # makes room for the longest label


def over_of(step: BigStep) -> list[dict[str, Any]]:
    """One line per way, named at its right end, as far as they lie apart."""
    traces: list[dict[str, Any]] = [
        curve(step.contexts, [CARD] * len(step.contexts), f"{CARD} GB", "level") | {"line": {"dash": "dot", "width": 1}}
    ]
    for way, sizes in step.curves:
        if way in ("none", "tensor", "all three", "full"):
            traces.append(curve(step.contexts, [size / GB for size in sizes], way, COLOURS[way]))
            name = ends([], [step.contexts[-1]], [way]) | {
                "y": [rounded(sizes[-1] / GB)],
                "textposition": "bottom right" if way == "full" else "middle right",
            }
            traces.append(name)
    return traces


def small_of(
    measured: Sequence[tuple[str, float]], formula: Sequence[tuple[str, float, float]]
) -> list[dict[str, Any]]:
    """Three bars per way, the paper's first."""
    labels = [way for way, _, _ in formula]
    traces = bars(labels, [paper for _, paper, _ in formula], label="paper", colour="level")
    traces += bars(labels, [here for _, _, here in formula], label="this device's masks", colour="b")
    found = dict(measured)
    traces += bars(labels, [found.get(way, 0.0) for way in labels], label="measured", colour="a")
    longest = {way: max(paper, here) for way, paper, here in formula}
    names = ends(list(found), [longest[way] for way in found], [f"{size:.4g}" for size in found.values()])
    return [*traces, names, ends(labels[:1], [1.2 * max(longest.values())], [""])]


def table_of(step: BigStep) -> str:
    """A model per line, a way per column, narrow enough for a phone."""
    lines = [f"{'':<6}" + "".join(f"{head:>5}" for head in ("none", "tens", "+seq", "+sel", "all3", "full"))]
    return "\n".join(
        [*lines, *(f"{name:<6}" + "".join(f"{tiny(size / GB):>5}" for size in sizes) for name, sizes in step.table)]
    )


def tiny(number: float) -> str:
    """At most four characters up to a million GB."""
    return (
        f"{number / 1000:.0f}k"
        if number >= 9999.5
        else f"{number:.0f}"
        if number >= 99.95
        else f"{number:.1f}"
        if number >= 0.95
        else f"{number:.2f}"[1:]
    )
