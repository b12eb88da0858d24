"""The picture of `sweep`: loss and memory over rank in a player."""

from typing import Any

from core.lora.sweep import FULL, SweepConfig, SweepStep
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, frame_of
from pages._kit.player import player, view

LOSS = chart(axis("trained weights", "count, log scale"), axis("validation loss", "nats per token"), log_x=True)
BYTES = frame_of(
    {"title": {"text": "rank"}, "type": "category"}, {"title": {"text": "memory (MB, 1e6 bytes)"}}, 62, True
) | {"barmode": "stack"}
KINDS = (
    ("weights", "weights", "a"),
    ("adapters", "adapter", "b"),
    ("gradients", "gradients", "c"),
    ("optimizer", "optimizer", "d"),
)


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
    return [player("sweep", "", views, scrub="training step", rate=1.0)]


def draw_sweep(step: SweepStep, sketch: Sketch) -> None:
    if step.dots:
        label = "before training" if step.step == 0 else f"after {step.step} steps"
        sketch.frame("sweep", label, loss=loss_dots(step), memory=memory_bars(step))


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
