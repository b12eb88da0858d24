"""The experiment `dpo`: reward against distance from the reference, for DPO's path and for best-of-n; the formula of
its KL.
"""

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
    distance = chart(
        axis("n, answers to choose from", "count"), axis("KL to the reference", "nats"), log_x=True, legend=True
    )
    reward["xaxis"] |= {"rangemode": "tozero"}
    reward["yaxis"] |= {"rangemode": "tozero"}
    others = "other pairs" if config.answers == "cards" else "its three pairs"
    points = "" if config.rule == "you" else " (in front: the rule's points)"
    views = [
        view(
            "frontier",
            "plot",
            "How much reward for how much distance from the reference?",
            span=7,
            layout=reward,
            height=300,
        ),
        view("kls", "plot", "How far is best of n? Formula and fact", span=5, layout=distance, height=300),
        view("before", "text", f"The reference{points}", span=4, height=220),
        view("after", "text", "DPO: same prompts and random numbers", span=4, height=220),
        view("chosen", "text", f"Best of {config.most_n} by the reward model", span=4, height=220),
    ]
    return [
        player("rewind", "", views, scrub="DPO step", rate=3, bar_before=2),
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
    if step.kls and not step.best:  # the first Step: what theory says of all that comes
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
    if step.kls:
        kl = step.path[-1][1] if step.path else 0.0
        chosen = step.chosen or "(the reward model has yet to learn)"
        label = f"step {step.step}: KL {kl:.2f}" if step.best else "the start"
        sketch.frame(
            "rewind",
            label,
            frontier=methods(step),
            kls=distances(step),
            before=step.before,
            after=step.after,
            chosen=chosen,
        )


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


def distances(step: DpoStep) -> list[dict[str, Any]]:
    """The formula, and what is measured and enumerated, against n."""
    n, formula, cards, three = zip(*step.kls, strict=True)
    traces = [curve(n, formula, "ln n − (n−1)/n", "level", dash=True)]
    if not math.isnan(cards[-1]):
        traces.append(dots(n, cards, "whole cards, measured", "a"))
    if not math.isnan(three[-1]):
        traces.append(dots(n, three, "three answers, exact", "b", line=True))
    if step.cap is not None:
        traces.append(curve([n[0], n[-1]], [step.cap, step.cap], "their limit, −ln p_best", "b", dash=True))
    return traces
