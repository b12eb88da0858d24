"""The picture of `train`: samples from the same noise as they turn into shapes, the loss, the judge, the loss by noise
level.
"""

from itertools import pairwise

from core.glide.train import EDGES, TrainConfig, TrainStep
from pages._kit.charts import Panel, Sketch, axis, chart, dots, lines, picture, series
from pages._kit.player import player, view

KINDS = {"seen": "seen", "never seen": "never"}
MIDDLES = [(low + high) / 2 for low, high in pairwise(EDGES)]
PLACES = [max(-8.0, min(8.0, middle)) for middle in MIDDLES]


def train_panels(config: TrainConfig) -> list[Panel]:
    steps = axis("step", "count", config.steps)
    kinds = [series("seen", "seen pairs", "a", dots=True), series("never", "never seen", "b", dots=True)]
    by_level = chart(
        axis("log-SNR", "nats; left is noise, right is picture"), axis("loss", "squared error"), log_y=True
    )
    by_level["xaxis"] |= {"range": [-8.8, 8.8]}
    by_level["yaxis"] |= {"range": [-2.2, 0.4]}
    views = [
        view(
            "samples",
            "pictures",
            "Samples from the same noise; the lower four are of pairs it never sees",
            span=7,
            most=150,
            least=64,
        ),
        lines(
            "agrees",
            "Samples in which the judge sees what was asked",
            steps,
            axis("agreement", "%", 100),
            kinds,
            span=5,
            height=330,
        ),
    ]
    return [
        player("film", "", views, scrub="look", rate=2, bar_before=None),
        lines(
            "loss",
            "Loss",
            steps,
            axis("loss", "squared error"),
            [series("loss", "loss of the batch", "a")],
            span=6,
            height=250,
        ),
        view(
            "levels",
            "plot",
            "Loss by noise level",
            legend=[("level", "first steps"), ("a", "lately")],
            span=6,
            layout=by_level,
            height=250,
        ),
    ]


def draw_train(step: TrainStep, sketch: Sketch) -> None:
    if step.grey is not None:
        sketch.levels("loss", {"always answering 0": step.grey})
        sketch.levels("agrees", {"90 %": 90.0})
        sketch.show("levels", [dots([], [], "lately", "a")])
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
    for kind, share in step.right:
        sketch.point("agrees", KINDS[kind], step.step, 100 * share)
    if step.by_level:
        first = [value if value > 0 else None for value in step.at_first]
        now = [value if value == value else None for value in step.by_level]
        sketch.show(
            "levels", [dots(PLACES, first, "first", "level", line=True), dots(PLACES, now, "lately", "a", line=True)]
        )
    if step.pixels is not None:
        told = []
        for number, (values, asked) in enumerate(zip(step.pixels, step.asked, strict=True)):
            found = step.verdicts[number] if step.verdicts else ""
            told.append(picture(values, asked, under=found, mark="" if not found else "c" if found == asked else "b"))
        label = f"step {step.step}" if step.verdicts else "the noise"
        sketch.frame("film", label, at=step.step, samples={"columns": 4, "pictures": told})
