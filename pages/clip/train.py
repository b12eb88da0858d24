"""The picture of `train`: the table turning diagonal, the loss on its way down from ln N, names for unseen pictures."""

from typing import Any

from core.clip import TrainConfig, TrainStep
from pages._kit.charts import Panel, Sketch, axis, heat, lines, picture, series
from pages._kit.player import player, view

WORDS = "{name}: the picture of “{from}” with the caption “{to}”: {value}"
KINDS = {"seen pairs": ("seen", "a"), "never seen pairs": ("never", "b"), "unseen digits": ("digits", "a")}


def train_panels(config: TrainConfig) -> list[Panel]:
    steps = axis("step", "count", config.steps)
    loss = [series("loss", "loss of the batch", "a")]
    drawn = config.world == "shapes"
    kinds = (
        [series("seen", "seen pairs", "a", dots=True), series("never", "never seen", "b", dots=True)]
        if drawn
        else [series("digits", "new digits", "a", dots=True)]
    )
    order = "shape, then color" if drawn else "digit"
    hint = (
        f"Rows: pictures, columns: captions, both sorted by {order}. Off the diagonal, equal captions are as bright:"
        " ghosts. Point at a cell."
    )
    below = "What it calls eight new pictures" + ("; the last four are of pairs it never saw" if drawn else "")
    views = [
        view("table", "matrix", "24 pictures against 24 captions", span=7, square=True, words=WORDS, hint=hint),
        lines("loss", "Loss", steps, axis("loss", "nats"), loss, span=5, height=250),
        view("names", "pictures", below, span=7, most=110),
        lines("named", "New pictures named right", steps, axis("named right", "%", 100), kinds, span=5, height=250),
    ]
    scale = lines(
        "scale",
        "The learned scale of the cosines",
        steps,
        axis("logit scale", "factor"),
        [series("scale", "scale", "c")],
        span=12,
        height=190,
    )
    return [player("film", "", views, scrub="step", rate=4, bar_before=2), scale]


def draw_train(step: TrainStep, sketch: Sketch) -> None:
    if step.levels:
        sketch.levels("loss", dict(step.levels))
        sketch.levels("named", {"a blind guess": 100 * step.chance})
        sketch.levels("scale", {"at the start": step.scale or 0.0})
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
        sketch.point("scale", "scale", step.step, step.scale or 0.0)
    for kind, share in step.named:
        sketch.point("named", KINDS[kind][0], step.step, 100 * share)
    if step.look is not None:
        draw_look(step.look, sketch)


def draw_look(look: Any, sketch: Sketch) -> None:
    """A frame: the table as cosines and as probabilities, and the names it found."""
    table = heat(look.tables, ["cosine", "probability of each caption"]) | {
        "top": [bare(caption) for caption in look.captions]
    }
    shown = []
    for values, truth, found, sure in zip(look.shown, look.truths, look.found, look.sure, strict=True):
        shown.append(
            picture(values, bare(truth), under=f"{bare(found)} {sure:.0%}", mark="c" if found == truth else "b")
        )
    sketch.frame("film", f"step {look.step}", at=look.step, table=table, names={"columns": 4, "pictures": shown})


def bare(caption: str) -> str:
    """Without the article, and of a digit's caption only its name."""
    return caption.removeprefix("a handwritten number ").removeprefix("an ").removeprefix("a ")
