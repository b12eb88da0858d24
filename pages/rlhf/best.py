"""The picture of `best`: reward and distance of the best of n, and the cards that were chosen."""

import math
from typing import Any

from core.rlhf import BestConfig, BestStep
from core.rlhf.best_of_n import rungs
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots
from pages._kit.player import player, view

AMONG = axis("n, answers to choose from", "count")


def best_panels(config: BestConfig) -> list[Panel]:
    reward = chart(AMONG, axis("reward gained", "standard deviations"), log_x=True, legend=True)
    distance = chart(AMONG, axis("KL to the reference", "nats"), log_x=True, legend=True)
    for layout in (reward, distance):
        ns = rungs(config.most_n)
        layout["xaxis"] |= {"tickmode": "array", "tickvals": ns, "ticktext": [str(n) for n in ns]}
    points = "" if config.rule == "you" else " (in front: the rule's points)"
    views = [
        view("before", "text", f"The reference{points}", span=6, height=150),
        view("chosen", "text", "The best by the reward model: same prompts", span=6, height=150),
        view("reward", "plot", "What choosing buys", span=6, layout=reward, height=300),
        view(
            "kls", "plot", "How far that is from the reference: formula and fact", span=6, layout=distance, height=300
        ),
    ]
    return [player("choosing", "", views, scrub="n", rate=1.5, bar_before=2)]


def draw_best(step: BestStep, sketch: Sketch) -> None:
    if step.formula:
        label = f"the best of {step.n}" if step.n else "one answer to each prompt"
        sketch.frame(
            "choosing", label, before=step.before, chosen=step.chosen, reward=rewards_of(step), kls=distances(step)
        )


def rewards_of(step: BestStep) -> list[dict[str, Any]]:
    """The learned reward chooses; the rule's is the true one, and nobody knows yours."""
    if not step.rewards:
        return [dots([1], [0.0], "the reference", "text")]
    n, gold, proxy = zip(*step.rewards, strict=True)
    learned = dots(n, proxy, "learned reward, which chooses", "b", line=True)
    if math.isnan(gold[-1]):
        return [learned]
    return [learned, dots(n, gold, "true reward, the rule's", "a", line=True)]


def distances(step: BestStep) -> list[dict[str, Any]]:
    """The formula, and what is measured and enumerated, against n."""
    n, formula = zip(*step.formula, strict=True)
    traces = [curve(n, formula, "ln n − (n−1)/n", "level", dash=True)]
    if step.kls:
        so_far, cards, three = zip(*step.kls, strict=True)
        traces.append(dots(so_far, cards, "whole cards, measured", "a"))
        traces.append(dots(so_far, three, "three answers, exact", "b", line=True))
    if step.cap is not None:
        traces.append(curve([n[0], n[-1]], [step.cap, step.cap], "their limit, −ln p_best", "b", dash=True))
    return traces
