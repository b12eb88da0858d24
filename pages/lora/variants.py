"""The picture of `variants`: the loss of each on the new text, and what each learned and forgot."""

from typing import Any

from core.lora.variants import VARIANTS, VariantsConfig, VariantsStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, ranking, series
from pages._kit.player import view

COLOURS = {"lora": "b", "rslora": "c", "plus": "d", "dora": "e", "pissa": "a", "full": "level"}


def variants_panels(config: VariantsConfig) -> list[Panel]:
    both = chart(axis("loss on the new text", "nats per token"), axis("loss on the old text", "nats per token"))
    weights = ranking(axis("trained weights", "thousands"), axis("", ""), left=130)
    return [
        lines(
            "loss",
            "Learning: the loss on the new text",
            axis("optimizer step", "count", config.steps),
            axis("loss", "nats per token"),
            [series(name, label, COLOURS[name]) for name, label in VARIANTS.items()],
            span=6,
            height=330,
        ),
        view(
            "both",
            "plot",
            "Learned and forgotten: further left is learned more, further up is forgotten more",
            legend=[("text", "the base, and its loss on the old text", "dashed")],
            span=6,
            layout=both,
            height=330,
        ),
        view("weights", "plot", "What is trained", span=12, layout=weights, height=240),
    ]


def draw_variants(step: VariantsStep, sketch: Sketch) -> None:
    if step.base[0]:
        sketch.show("both", [*base_of(step.base), *limits(step.base), *points(step)])
    if step.new is not None:
        sketch.point("loss", step.variant, step.step, step.new)
    if step.ended:
        names = [VARIANTS[one.variant] for one in step.ended]
        counts = [one.trained / 1000 for one in step.ended]
        sketch.show(
            "weights",
            [
                {"type": "bar", "orientation": "h", "x": counts, "y": names, "name": "",
                 "colours": [COLOURS[one.variant] for one in step.ended]},
            ],
        )  # fmt: skip


def base_of(base: tuple[float, float]) -> list[dict[str, Any]]:
    return [dots([base[0]], [base[1]], "the base", "text", names=["base"]) | {"textposition": "bottom left"}]


def limits(base: tuple[float, float]) -> list[dict[str, Any]]:
    """Where nothing is forgotten."""
    return [curve([base[0] - 1.3, base[0] + 0.1], [base[1], base[1]], "nothing forgotten", "text", dash=True)]


def points(step: VariantsStep) -> list[dict[str, Any]]:
    told = []
    for one in step.ended:
        name = VARIANTS[one.variant]
        told.append(
            dots([one.new], [one.old], name, COLOURS[one.variant], names=[name]) | {"textposition": "top right"}
        )
    return told
