"""The picture of `text`: two losses, the same prompt before and after, and the alpha dial as a player."""

from typing import Any

from core.lora.text import USUAL, TextConfig, TextStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series, text
from pages._kit.player import player, view

NATS = axis("loss", "nats per token")
DIAL = chart(axis("alpha, times", "1 = as trained"), NATS)
DIAL["xaxis"] |= {"range": [USUAL.stops[0] - 0.1, USUAL.stops[-1] + 0.1], "dtick": 0.5}


def text_panels(config: TextConfig) -> list[Panel]:
    learned, unseen = series("loss", "batch", "a", faint=True), series("validation", "validation", "b", dots=True)
    looks, heading = config.adapter == "file", "Loss while only the adapter learns"
    steps = axis("optimizer step", "count", 1 if looks else config.steps or 1)
    dial = [
        view("dial_loss", "plot", "Validation loss; the mark is the stop shown", span=5, layout=DIAL, height=250),
        view("dial_text", "text", "What it writes at this stop, from the same seed", span=7),
    ]
    return [
        lines(
            "loss",
            "Loss without and with the adapter (nothing is trained)" if looks else heading,
            steps,
            NATS,
            [learned, unseen],
            span=6,
        ),
        text("before", "Before: the base", span=3),
        text("after", "After, from the same seed", span=3),
        player(
            "dial",
            "The alpha dial, turned after training: 0 is the base, 1 what was trained",
            dial,
            scrub="alpha",
            rate=1.5,
        ),
    ]


def draw_text(step: TextStep, sketch: Sketch) -> None:
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
    if step.validation_loss is not None:
        sketch.point("loss", "validation", step.step, step.validation_loss)
    if step.before is not None:
        sketch.text("before", step.before)
        sketch.text("after", "…")
    if step.after is not None:
        sketch.text("after", step.after)
    if step.times is not None:
        draw_stop(step, sketch)


def draw_stop(step: TextStep, sketch: Sketch) -> None:
    """The first visit has one frame, the base; the dial's own frames begin anew."""
    if step.times == USUAL.stops[0]:
        sketch.updates.append(("dial", {"frames": [], "whole": True}))
    meaning = {0.0: ": the base", 1.0: ": as trained", -1.0: ": against what it learned"}.get(step.times or 0.0, "")
    sketch.frame("dial", f"alpha × {step.times:g}{meaning}", dial_loss=dial_loss(step), dial_text=step.dial_text)


def dial_loss(step: TextStep) -> list[dict[str, Any]]:
    xs, ys = [times for times, _ in step.dial_losses], [loss for _, loss in step.dial_losses]
    here = dict(step.dial_losses)[step.times or 0.0]
    return [curve(xs, ys, "validation loss", "a"), dots([step.times or 0.0], [here], "this stop", "b")]
