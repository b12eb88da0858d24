"""The picture of `inside`: the pass as a film of maps, what it would write after each layer, and which parts matter."""

from collections.abc import Mapping
from typing import Any

from core.nanogpt.inside import InsideConfig, InsideStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, dots, heat, ranking, visible
from pages._kit.player import SIGNS, player, view

MOST_BARS = 6  # next tokens shown: each has its name


def inside_panels(config: InsideConfig) -> list[Panel]:
    next_token = ranking(
        axis("probability", "of 1", 1.0), axis("next token", "symbol"), legend=config.knock != "nothing"
    )
    lens = chart(axis("layers passed", "count"), axis("probability", "%", 112.0), legend=True)
    film = [
        view("says", "text", "What happens here", span=4, height=200),
        view(
            "tensor",
            "matrix",
            "The numbers, a line for each token",
            span=8,
            signed=True,
            legend=SIGNS,
            words="{name}: {from}, column {column}: {value}",
            hint="Point at a cell to read its number.",
        ),
    ]
    return [
        player("pass", "", film, scrub="stage", rate=0.4, bar_before=0),
        view("next", "plot", "The next token", span=6, layout=next_token, height=265),
        view("lens", "plot", "If it stopped after this layer", span=6, layout=lens, height=265),
        view(
            "matters",
            "matrix",
            "How much the prediction changes when one part is knocked out",
            span=12,
            words="{from}, {name}: {value} nats",
            hint="A line is a layer, a column a head; the last column is the MLP. Point at a cell.",
        ),
    ]


def draw_inside(step: InsideStep, sketch: Sketch) -> None:
    if step.values is not None:
        sketch.frame("pass", step.stage, says=step.says, tensor=maps_of(step))
        sketch.show("next", next_of(step))
    if step.lens:
        sketch.show("lens", lens_of(step))
    if step.matters is not None:
        layers, parts = step.matters.shape
        names = [f"head {number + 1}" for number in range(parts - 1)] + ["MLP"]
        columns = step.matters.T.reshape(1, parts, layers, 1)
        left = [f"layer {number + 1}" for number in range(layers)]
        sketch.show("matters", heat(columns, names, left=left, high=float(step.matters.max()) or 1.0))


def maps_of(step: InsideStep) -> dict[str, Any]:
    """The maps of a stage beside each other, one color scale for all."""
    assert step.values is not None
    most = float(abs(step.values).max()) or 1.0
    below = "".join(step.columns) if all(len(token) == 1 for token in step.columns) else ""
    return heat(
        step.values[None], step.titles, left=[visible(token) for token in step.rows], below=below, low=-most, high=most
    )


def next_of(step: InsideStep) -> list[dict[str, Any]]:
    """The likeliest next tokens, and their probabilities with a part knocked out beside them."""
    shown = step.candidates[:MOST_BARS]
    names = [visible(token) for token, _ in shown]
    drawn = bars(names, [p for _, p in shown], label="whole model", colour="a")
    return drawn + (bars(names, step.without[:MOST_BARS], label="without it", colour="b") if step.without else [])


def lens_of(step: InsideStep) -> list[dict[str, Any]]:
    """After each layer: the likeliest token then, and how likely the final one was."""
    layers = list(range(len(step.lens)))
    final = visible(step.lens[-1][0])
    return [
        dots(layers, [100 * p for _, _, p in step.lens], f"“{final}”, written in the end", "a", line=True),
        dots(
            layers,
            [100 * p for _, p, _ in step.lens],
            "likeliest then",
            "b",
            names=[visible(token) for token, _, _ in step.lens],
        ),
    ]


def lit_inside(step: InsideStep) -> Mapping[str, str]:
    return {step.part: ""} if step.part else {}
