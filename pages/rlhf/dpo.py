"""The picture of `dpo`: reward against distance from the reference, for DPO's path and for best-of-n."""

import math
from functools import partial
from typing import Any

from core.rlhf import DpoConfig, DpoStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series
from pages._kit.player import player, view


def dpo_panels(config: DpoConfig) -> list[Panel]:
    steps = axis("DPO step", "count", config.steps)
    reward = chart(
        axis("KL to the reference", "nats per answer"), axis("reward gained", "standard deviations"), legend=True
    )
    reward["xaxis"] |= {"rangemode": "tozero"}
    reward["yaxis"] |= {"rangemode": "tozero"}
    others = "other pairs" if config.answers == "cards" else "its three pairs"
    points = "" if config.rule == "you" else " (in front: the rule's points)"
    views = [
        view(
            "frontier", "plot", "How much reward for how much distance from the reference?", layout=reward, height=320
        ),
        view("before", "text", f"The reference{points}", span=6, height=150),
        view("after", "text", "DPO: same prompts and random numbers", span=6, height=150),
    ]
    return [
        player("rewind", "", views, scrub="DPO step", rate=3, bar_before=1),
        small(
            "loss",
            "DPO loss",
            steps,
            axis("loss", "nats"),
            [series("train", "trained on", "a", faint=True), series("held_out", others, "b", dots=True)],
        ),
        small(
            "rewards",
            "Implicit rewards",
            steps,
            axis("β ln π/π_ref", "nats"),
            [series("chosen", "chosen", "a"), series("rejected", "rejected", "b")],
        ),
        small(
            "accuracy",
            f"{others.capitalize()}, the right way round",
            steps,
            axis("accuracy", "fraction"),
            [series("accuracy", "right", "c", dots=True)],
        ),
    ]


small = partial(lines, span=4, height=210)


def draw_dpo(step: DpoStep, sketch: Sketch) -> None:
    if step.path and not step.best:  # the first Step: what theory says of all that comes
        sketch.levels("loss", {"ln 2": math.log(2)})
        sketch.levels("accuracy", {"a guess": 0.5})
    for panel, member, y in (
        ("loss", "train", step.loss),
        ("loss", "held_out", step.held_out),
        ("rewards", "chosen", step.chosen_reward),
        ("rewards", "rejected", step.rejected_reward),
        ("accuracy", "accuracy", step.accuracy),
    ):
        if y is not None:
            sketch.point(panel, member, step.step, y)
    if step.before:
        kl = step.path[-1][1] if step.path else 0.0
        label = f"step {step.step}: KL {kl:.2f}" if step.best else "the start"
        sketch.frame("rewind", label, frontier=methods(step), before=step.before, after=step.after)


def methods(step: DpoStep) -> list[dict[str, Any]]:
    """Full lines with dots: what the hidden rule says. Dashed: what the reward model says."""
    traces = []
    if step.ideal:
        traces.append(
            curve([kl for kl, _ in step.ideal], [proxy for _, proxy in step.ideal], "ceiling of the proxy", "level")
        )
    for name, rows, colour in (("best of n", step.best, "a"), ("DPO", step.path, "b")):
        if len(rows) < 2:
            continue
        marks, kl, gold, proxy = zip(*rows, strict=True)
        names = [f"n={n}" if n > 1 else "" for n in marks] if name == "best of n" else []
        where = ["bottom right"] * (len(rows) - 1) + ["bottom left"]  # under the line, the last one inside the frame
        if math.isnan(gold[-1]):  # a user's own taste: nobody knows the gold
            traces.append(dots(kl, proxy, f"{name}, proxy", colour, line=True, names=names) | {"textposition": where})
        else:
            traces.append(curve(kl, proxy, f"{name}, proxy", colour, dash=True))
            traces.append(
                dots(kl, gold, f"{name}, gold", colour, line=True, names=names)
                | {"textposition": where, "cliponaxis": False}
            )
    start = dots([0.0], [0.0], "the reference", "text", names=[] if traces else ["the reference"])
    return [*traces, start | {"textposition": "top right", "showlegend": False, "cliponaxis": False}]
