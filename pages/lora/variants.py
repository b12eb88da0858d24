"""The picture of `variants`: the loss of each on the new text, and what each learned and forgot."""

from typing import Any

from core.lora.variants import VARIANTS, VariantsConfig, VariantsStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, lines, ranking, series
from pages._kit.player import view

LEFT = ("dora", "full")  # whose names stand left of their points: neighbors would cover each other
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
        sketch.show("both", trade(step))
    if step.new is not None:
        sketch.point("loss", step.variant, step.step, step.new)
    if step.ended:
        counts = [one.trained / 1000 for one in step.ended]
        sketch.show("weights", bars([VARIANTS[one.variant] for one in step.ended], counts))


def trade(step: VariantsStep) -> list[dict[str, Any]]:
    """The base, the line on which nothing is forgotten, and each variant that has ended."""
    new, old = step.base
    ends = [min([new - 0.1, *(one.new - 0.4 for one in step.ended)]), new + 0.1]
    traces = [
        dots([new], [old], "the base", "text", names=["base"]) | {"textposition": "bottom left"},
        curve(ends, [old, old], "nothing forgotten", "text", dash=True),
    ]
    for one in step.ended:
        name = VARIANTS[one.variant]
        trace = dots([one.new], [one.old], name, COLOURS[one.variant], names=[name])
        traces.append(trace | {"textposition": "middle left" if one.variant in LEFT else "middle right"})
    return traces
