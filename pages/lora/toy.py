"""The picture of `toy`: what is left to learn at each rank, the learned spectrum beside the true one, decisions, two
accuracies.
"""

from typing import Any

from core.lora import ControlsStep, ToyConfig, ToyStep
from core.lora.adapter import trained_numbers
from core.lora.controls import mean_and_spread
from core.lora.tiny_network import HIDDEN
from core.lora.toy import CHARTED
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, frame_of, heat, lines, series
from pages._kit.player import player, view

LOWEST = 1e-7  # what is left below this is drawn here
LEFT = frame_of(
    {"title": {"text": "LoRA rank r; numbers it trains", "standoff": 6}, "type": "category"},
    {
        "title": {"text": "remaining error (fraction of the base's, log)"},
        "type": "log",
        "range": [-7.4, 0.6],
        "dtick": 1,
        "exponentformat": "power",
    },
    62,
    False,
)
LEFT["margin"]["b"] = 70  # the ranks' labels have two lines
SIGMA = chart(axis("direction, strongest first", "index"), axis("singular value", "no unit"), legend=True)
SIGMA["xaxis"]["dtick"] = 1
ARMS = frame_of(
    {"title": {"text": "what is changed, and how many numbers are trained", "standoff": 6}, "type": "category"},
    {"title": {"text": "right on the Gaussian inputs (%)"}, "range": [45, 102]},
    62,
    False,
)
ARMS["margin"]["b"] = 70
RIGHT = axis("right answers", "fraction")
LEARNERS = (("biases only", "biases", "c"), ("LoRA, r = 2", "lora", "b"), ("whole layer", "layer", "d"))


def toy_panels(config: ToyConfig) -> list[Panel]:
    return known_panels(config) if config.view == "known_rank" else controls_panels()


def known_panels(config: ToyConfig) -> list[Panel]:
    accuracy = [series("new", "new task", "b"), series("old", "old task", "a")]
    hint = (
        "A slice through the 16 inputs: one color is yes, the other no. If r is enough, the right picture becomes the"
        " middle one."
    )
    views = [
        view("left", "plot", "What each rank has not learned, on unseen inputs", span=7, layout=LEFT, height=340),
        view(
            "sigma",
            "plot",
            f"Singular values: the true change, and what r = {config.rank} has learned",
            span=5,
            layout=SIGMA,
            height=340,
        ),
        view(
            "maps",
            "matrix",
            "Decisions",
            span=7,
            square=True,
            signed=True,
            hint=hint,
            words="{name}: yes with probability {value}",
        ),
        lines(
            "accuracy",
            f"Accuracy of r = {config.rank} on both tasks",
            axis("optimizer step", "count", config.steps),
            RIGHT,
            accuracy,
            span=5,
            height=250,
        ),
    ]
    return [player("learning", "", views, scrub="training step", rate=6, bar_before=2)]


def controls_panels() -> list[Panel]:
    learning = [series("sphere", "base, on the sphere", "e"), series("base", "base, on Gaussian", "a")]
    learning += [series(id, label, colour) for label, id, colour in LEARNERS]
    return [
        view(
            "arms",
            "plot",
            "LoRA and its controls: mean and standard deviation, each dot a seed",
            layout=ARMS,
            height=340,
        ),
        lines(
            "curves",
            "Accuracy during training: the base learns, then three ways of adapting it",
            axis("optimizer step", "count", 5600),
            axis("right answers", "%"),
            learning,
        ),
    ]


def draw_toy(step: ToyStep | ControlsStep, sketch: Sketch) -> None:
    if isinstance(step, ControlsStep):
        draw_controls(step, sketch)
    elif step.maps is not None and not step.figures[2:]:  # the last Step tells the last look again
        draw_look(step, sketch)


def draw_look(step: ToyStep, sketch: Sketch) -> None:
    sketch.point("accuracy", "new", step.step, step.accuracy_new or 0.0)
    sketch.point("accuracy", "old", step.step, step.accuracy_old or 0.0)
    sketch.levels("accuracy", {"old, adapter off": step.accuracy_off or 0.0})
    maps = step.maps
    assert maps is not None
    shown = heat(maps[None], ["base", "second task", "base + LoRA"])
    sketch.frame(
        "learning", f"step {step.step}", at=step.step, left=left_by_rank(step), sigma=spectra(step), maps=shown
    )


def left_by_rank(step: ToyStep) -> list[dict[str, Any]]:
    """Every rank, the chosen one marked, the true one as an upright line, the controls as levels.

    Rank 0 is the base.
    """
    ranks = [0, *step.ranks]
    names = [f"{rank}\n{trained_numbers(rank, HIDDEN, HIDDEN):,}" for rank in ranks]
    left = [1.0, *step.left]
    ys = [max(share, LOWEST) for share in left]
    chosen, true = ranks.index(step.chosen), ranks.index(len(step.true))
    told = [dots(names, ys, "LoRA", "a", line=True)]
    told.append(curve([names[true]] * 2, [LOWEST, 1.5], "the true rank", "level", dash=True))
    told.append(label(names[true], 2.2, f"true rank k = {len(step.true)}", "middle center"))
    for height, words, colour, where in (
        (step.left_biases, "32 biases alone", "c", "bottom left"),
        (step.left_layer, "whole layer (1,056)", "d", "top left"),
    ):
        if step.step and height is not None:  # at the start all are at 1
            told += [
                curve(names, [height] * len(names), words, colour, dash=True),
                label(names[-1], height, words, where),
            ]
    told.append(dots([names[chosen]], [ys[chosen]], f"r = {step.chosen}", "b"))
    told.append(label(names[chosen], ys[chosen], f"  r = {step.chosen}: {left[chosen]:.1g}", "bottom right"))
    return told


def label(x: Any, y: float, words: str, where: str) -> dict[str, Any]:
    """Words at a place of a plot."""
    return dots([x], [y], "", "text", names=[words]) | {"mode": "text", "textposition": where, "cliponaxis": False}


def spectra(step: ToyStep) -> list[dict[str, Any]]:
    most = max(CHARTED)
    pad = [0.0] * most
    order = list(range(1, most + 1))
    return [
        columns(order, [*step.true, *pad][:most], "true change", "c"),
        columns(order, [*step.learned, *pad][:most], "learned", "b"),
    ]


def draw_controls(step: ControlsStep, sketch: Sketch) -> None:
    if step.sphere is not None:
        sketch.point("curves", "sphere", step.step, 100 * step.sphere)
    if not step.arms:
        return
    mean = {name: 100 * mean_and_spread(each)[0] for name, _, each in step.arms}
    if step.step <= step.steps:
        sketch.point("curves", "base", step.step, mean["as it is"])
    else:
        sketch.marks("curves", {"adapting begins": step.steps})
        for name, id, _ in LEARNERS:
            sketch.point("curves", id, step.step, mean[name])
    sketch.show("arms", arms(step))


def arms(step: ControlsStep) -> list[dict[str, Any]]:
    """Every seed as a dot, and beside it the mean with its spread."""
    names = [f"{name}\n{numbers:,}" for name, numbers, _ in step.arms]
    spread = [mean_and_spread(each) for _, _, each in step.arms]
    each = [(name, 100 * value) for name, (_, _, values) in zip(names, step.arms, strict=True) for value in values]
    seeds = dots([name for name, _ in each], [value for _, value in each], "one seed", "level")
    means = dots(names, [100 * mean for mean, _ in spread], "mean", "b", errors=[100 * one for _, one in spread])
    tops = [
        label(name, 100 * mean, f"    {100 * mean:.1f}", "middle right")
        for name, (mean, _) in zip(names, spread, strict=True)
    ]
    return [seeds, means, *tops]
