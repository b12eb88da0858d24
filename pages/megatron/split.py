"""The picture of `split`: the parts of the matrices, what each rank has computed, errors, collectives, numbers."""

from typing import Any

from core.megatron import SplitConfig, SplitStep
from core.megatron.film import TWO
from core.megatron.kept import ENTERED, INSIDE, NORMS
from core.megatron.split import ERRORS
from pages._kit.charts import Panel, Sketch, axis, bars, curve, heat, ranking, text
from pages._kit.player import SIGNS, player, view
from pages.megatron.cutting import cutting

HINT = "Some tokens (down) and some columns of the first text."
ROUNDING = 6e-8  # half a step of float32
NOTHING = 1e-9  # where a logarithmic axis shows the error 0
LINES = {
    "weights held": "weights held",
    "sent for a layer": "sent, a layer",
    "through the sockets": "socket bytes",
    f"kept: {NORMS}": "kept: norms",
    f"kept: {ENTERED}": "kept: inputs",
    f"kept: {INSIDE}": "kept: split part",
}
SHORT = {
    "all layers": "all layers",
    "gradient of X": "gradient of X",
    "gradients of weights": "weights' gradients",
    "torch's own plan": "torch's plan",
    TWO: TWO,
}


def split_panels(config: SplitConfig) -> list[Panel]:
    ranks = int(config.ranks)
    errors = ranking(axis("error", "share of the size"), axis("", ""), left=128)
    errors["xaxis"] |= {
        "type": "log",
        "range": [-9.3, 0.6],
        "tickvals": [NOTHING, 1e-7, 1e-5, 1e-3, 0.1],
        "ticktext": ["0", "10⁻⁷", "10⁻⁵", "0.001", "0.1"],
    }
    errors["yaxis"] |= {
        "title": None,
        "categoryorder": "array",
        "categoryarray": [SHORT.get(name, name) for name in ERRORS],
    }
    kinds = 4 if config.sequence else 2
    counts = ranking(axis("calls", "count", 1.25 * max(1, 2 * config.n_layer * (ranks > 1))), axis("", ""), left=150)
    counts["yaxis"] |= {"title": None}
    tall = 84 + 52 * ranks
    views = [
        view(
            "parts",
            "draw",
            "Who holds what: each rank has its color",
            legend=[("level", "whole, the same on all ranks")],
            height=tall,
            aspect=0.95,
        ),
        view("tiles", "matrix", "What each rank has", legend=SIGNS, signed=True, words="{name}: {value}", hint=HINT),
    ]
    return [
        player("film", "", views, scrub="stage of the layer", rate=0.9),
        view("errors", "plot", "How far from the unsplit layers", span=6, layout=errors, height=300),
        view(
            "counts",
            "plot",
            "Collectives of a training step",
            legend=[("level", "formula"), ("a", "counted")],
            span=6,
            layout=counts,
            height=150 + 45 * kinds,
        ),
        text("ledger", "One rank: formula and measured", height=300),
    ]


def draw_split(step: SplitStep, sketch: Sketch) -> None:
    if step.tiles is not None:
        stage = step.film[step.stage] if step.stage is not None else None
        label = f"{stage.block}: {stage.caption}" if stage else "before: every matrix in one piece"
        error = dict(step.errors).get("" if stage is None else TWO if stage.block == TWO else stage.block)
        sequence = any(one.key == "entered" for one in step.film)
        tiles = heat(step.tiles[None], step.names, low=-step.reach, high=step.reach)
        sketch.frame(
            "film", label, parts=cutting(step.ranks, sequence, stage, error is None or error < 1e-4), tiles=tiles
        )
    if step.errors:
        sketch.show("errors", errors_of(step))
        sketch.show("counts", counts_of(step))
        sketch.text("ledger", ledger_of(step))


def errors_of(step: SplitStep) -> list[dict[str, Any]]:
    """A dot per comparison. The dashed line is what float32 cannot do better than."""
    names = [SHORT.get(name, name) for name, _ in step.errors]
    traces = [curve([ROUNDING, ROUNDING], [], "rounding of float32", "level", dash=True) | {"y": [names[0], names[-1]]}]
    known = [
        (name, max(error, NOTHING)) for (_, error), name in zip(step.errors, names, strict=True) if error is not None
    ]
    told: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": [error for _, error in known],
        "y": [name for name, _ in known],
        "name": "measured",
    }
    return [*traces, told | {"colours": ["b" if error > 1e-4 else "a" for _, error in known]}]


def counts_of(step: SplitStep) -> list[dict[str, Any]]:
    names = [name for name, *_ in step.counts]
    traces = bars(names, [formula for _, formula, _ in step.counts], label="formula", colour="level")
    if all(counted is not None for *_, counted in step.counts):
        traces += bars(names, [counted for *_, counted in step.counts], label="counted", colour="a")
    return traces


def ledger_of(step: SplitStep) -> str:
    """Rows of formula and measurement, then the same cut of a large model."""
    lines = [f"{'':<16}{'formula':>9}{'measured':>9}"]
    for what, _, formula, measured in step.ledger:
        lines.append(f"{LINES[what]:<16}{formula:>9,.0f}{'?' if measured is None else format(measured, ',.0f'):>9}")
    weights, held, sent, days, all_terms = step.gpt3
    words = (
        "Sent: numbers, forward and backward. Sockets: all layers. Kept: bytes of one layer for the backward pass, by"
        " norms and dropout, as inputs"
    )
    big = (
        f"By the same formulas GPT-3 ({weights / 1e9:.1f}e9 weights) on 8 ranks: {held / 1e9:.1f}e9 weights each, and"
        f" {sent / 1e9:.1f}e9 elements sent"
    )
    time = (
        f"Training it on 1,024 A100 at 140 TFLOP/s: {days:.0f} days for 300e9 tokens by 8TP/(nX), {all_terms:.0f} with"
        " all terms"
    )
    return "\n".join(
        [*lines, "", f"{words} of the split parts, and inside them.", "", f"{big} for a text of 2,048 tokens. {time}."]
    )
