"""The picture of `sweep`: loss and memory over rank in a player, and the spectrum that explains the curve."""

from typing import Any

from core.lora.spectrum import LAYERS, RANKS, Spectrum
from core.lora.sweep import FULL, SweepConfig, SweepStep
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, frame_of
from pages._kit.player import player, view

LOSS = chart(axis("trained weights", "count, log scale"), axis("validation loss", "nats per token"), log_x=True)
BYTES = frame_of(
    {"title": {"text": "rank"}, "type": "category"}, {"title": {"text": "memory (MB, 1e6 bytes)"}}, 62, True
) | {"barmode": "stack"}
SIGMA = chart(axis("direction, largest first", "index"), axis("singular value", "log scale"), log_y=True)
SHARE = frame_of(
    {"title": {"text": "cut to rank"}, "type": "category"},
    {"title": {"text": "remaining (%)"}, "range": [0, 105]},
    62,
    False,
)
KINDS = (
    ("weights", "weights", "a"),
    ("adapters", "adapter", "b"),
    ("gradients", "gradients", "c"),
    ("optimizer", "optimizer", "d"),
)
NAMES = [str(rank) for rank in RANKS]


def sweep_panels(config: SweepConfig) -> list[Panel]:
    views = [
        view(
            "loss",
            "plot",
            "What each rank buys: loss over trained weights",
            legend=[("d", "the base model", "dashed")],
            span=7,
            layout=LOSS,
            height=340,
        ),
        view(
            "memory",
            "plot",
            "What training keeps in memory",
            legend=[("text", "by formula", "dot")],
            span=5,
            layout=BYTES,
            height=340,
        ),
    ]
    return [
        player("sweep", "", views, scrub="training step", rate=1.0),
        view(
            "sigma", "plot", f"The spectrum: {LAYERS[config.layer]}, and its change", span=6, layout=SIGMA, height=290
        ),
        view(
            "share",
            "plot",
            "What remains of full fine-tuning's change when it is cut to rank r",
            span=6,
            layout=SHARE,
            height=290,
        ),
    ]


def draw_sweep(step: SweepStep, sketch: Sketch) -> None:
    if step.dots:
        label = "before training" if step.step == 0 else f"after {step.step} steps"
        sketch.frame("sweep", label, loss=loss_dots(step), memory=memory_bars(step))
    if step.spectrum is not None:
        sketch.show("sigma", singular_values(step.spectrum))
        sketch.show("share", shares(step.spectrum))


def loss_dots(step: SweepStep) -> list[dict[str, Any]]:
    """Adapters on one line, full fine-tuning apart, the base as a level."""
    lora, full = [dot for dot in step.dots if dot.rank != FULL], [dot for dot in step.dots if dot.rank == FULL]
    ends = [min(dot.parameters for dot in step.dots), max(dot.parameters for dot in step.dots)]
    told = [curve(ends, [step.base_loss, step.base_loss], "base", "d", dash=True)]
    for members, label, colour, names, place in (
        (lora, "LoRA", "b", [f"r={dot.rank}" for dot in lora], "top right"),
        (full, "full", "a", ["full"], "top left"),
    ):
        xs, ys, errors = ([getattr(dot, name) for dot in members] for name in ("parameters", "loss", "spread"))
        told.append(dots(xs, ys, label, colour, line=True, errors=errors, names=names) | {"textposition": place})
    return told


def memory_bars(step: SweepStep) -> list[dict[str, Any]]:
    """One column per rank, its kinds on each other; what the formula says as a mark."""
    ranks = ["full" if one.rank == FULL else str(one.rank) for one in step.weighed]
    stacked = [
        columns(ranks, [getattr(one.held, kind) / 1e6 for one in step.weighed], label, colour)
        for kind, label, colour in KINDS
    ]
    return [*stacked, dots(ranks, [one.by_formula / 1e6 for one in step.weighed], "by formula", "text")]


def singular_values(spectrum: Spectrum) -> list[dict[str, Any]]:
    """The matrix' own spectrum and, after the runs, that of its change, with the ranks of the sweep marked on it."""
    order, own = list(range(1, len(spectrum.own) + 1)), spectrum.own.tolist()
    traces = [
        curve(order, own, "the matrix", "c", dash=True),
        note(2 * len(own) // 3, own[2 * len(own) // 3], "the matrix itself", "bottom left"),
    ]
    if spectrum.change is not None:
        values = spectrum.change.tolist()
        traces += [
            curve(order, values, "its change", "a"),
            dots(list(RANKS), [values[rank - 1] for rank in RANKS], "ranks of the sweep", "b"),
        ]
        traces.append(note(RANKS[-1], values[RANKS[-1] - 1], "its change; dots: the ranks", "top right"))
    return traces


def note(x: float | str, y: float, words: str, place: str) -> dict[str, Any]:
    """A name beside a line, on the side where it is free."""
    return dots([x], [y], "", "text", names=[words]) | {"mode": "text", "textposition": place}


def shares(spectrum: Spectrum) -> list[dict[str, Any]]:
    """What a cut keeps of the change's size and of its gain, beside what it would keep of a change without
    structure.
    """
    told = [(spectrum.random_held, "size, if random", "c", 3, "bottom right")]
    if spectrum.change is not None:
        told.append((spectrum.held, "its size (this layer)", "a", 4, "top left"))
        told.append((spectrum.kept, "its gain in loss (all layers)", "b", 1, "bottom right"))
    traces = []
    for found, label, colour, at, place in told:
        percent = [100 * share for share in found]
        traces += [dots(NAMES, percent, label, colour, line=True), note(NAMES[at], percent[at], label, place)]
    return traces
