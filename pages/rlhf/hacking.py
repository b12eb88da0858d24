"""The picture of `hacking`: proxy and gold of your run, gold against distance for three betas, and how it cheats, in
words.
"""

from typing import Any

from core.rlhf import HackingConfig, HackingStep
from core.rlhf.hacking import Point
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series, text
from pages._kit.player import view
from pages.rlhf.ppo import listed

REWARD = axis("reward", "standard deviations")
FLOOR, TOP = -4.0, 3.0  # of the chart over distance: gold without a penalty falls far below


def hacking_panels(config: HackingConfig) -> list[Panel]:
    steps = axis("step", "rounds of answers and updates", config.steps)
    known = config.rule != "you"
    mine = [series("proxy", "proxy", "b")] + ([series("gold", "gold", "a")] if known else [])
    runs = [series(f"{beta:g}", f"beta {beta:g}", colour_of(beta, config.beta)) for beta in config.betas]
    what = "gold" if known else "proxy"
    distance = chart(
        axis("d, the root of the KL to the reference", "√nats"),
        axis(f"{what} reward", "standard deviations"),
        legend=True,
    )
    distance["xaxis"] |= {"rangemode": "tozero"}
    distance["yaxis"] |= {"range": [FLOOR, TOP]} if known else {}
    cards = [text("reference", "The reference's cards", span=4)]
    cards += [text("peak", "Your run when gold was highest", span=4)] if known else []
    charts = [lines("proxies", "Proxy, all betas", steps, REWARD, runs, span=6, height=240)]
    charts += [lines("golds", "Gold, all betas", steps, REWARD, runs, span=6, height=240)] if known else []
    return [
        lines(
            "mine",
            f"Your run, beta {config.beta:g}: what it is paid for" + (" and what was meant" if known else ""),
            steps,
            REWARD,
            mine,
        ),
        view(
            "frontier",
            "plot",
            f"{what.capitalize()} against distance from the reference",
            span=6,
            layout=distance,
            height=250,
        ),
        text("story", "What happened, and how it cheats", span=6, height=250),
        *cards,
        text("now", "Your run now", span=4 if known else 8),
        *charts,
    ]


def colour_of(beta: float, yours: float) -> str:
    return "a" if beta == yours else "d" if beta < yours else "c"


def draw_hacking(step: HackingStep, sketch: Sketch) -> None:
    for beta, points in step.curves if step.step == 0 else ():  # the first Step: all runs begin at the reference
        draw_point(sketch, points[0], beta, step.yours)
    if step.proxy is not None:
        draw_point(sketch, (step.step, 0.0, step.proxy, step.gold), step.beta, step.yours)
    if step.reference:
        sketch.text("reference", listed(step.reference))
        sketch.text("now", "Before training your run is the reference.")
        sketch.text("story", "Press Run: the policy is paid by the reward model, and by nobody else.")
        sketch.text("peak", "Known once it runs.")
    if step.now:
        sketch.text("now", listed(step.now))
    if step.peak is not None:
        sketch.text("peak", f"(step {step.peak})\n" + listed(step.at_peak))
        sketch.marks("mine", {"gold's peak": step.peak})
    if step.curves:
        sketch.show("frontier", frontier(step))
    if step.story:
        sketch.text("story", "\n".join([step.story[0], *(f"· {sentence}" for sentence in step.story[1:])]))


def draw_point(sketch: Sketch, point: Point, beta: float, yours: float) -> None:
    at, _, proxy, gold = point
    for panel, member, y in (("proxies", "proxy", proxy), ("golds", "gold", gold)):
        if y is not None:
            sketch.point(panel, f"{beta:g}", at, y)
            if beta == yours:
                sketch.point("mine", member, at, y)


def frontier(step: HackingStep) -> list[dict[str, Any]]:
    """Every round of every run as a point; your run in front, with the curves that were fitted to it."""
    traces = []
    for beta, points in sorted(step.curves, key=lambda one: one[0] == step.yours):
        heights = [proxy if gold is None else gold for _, _, proxy, gold in points]
        traces.append(dots([round(d, 3) for _, d, _, _ in points], heights, f"β {beta:g}", colour_of(beta, step.yours)))
    for (form, fit), colour, height in zip(step.fits, ("b", "e"), (-1.0, -2.5), strict=False):
        traces.append(
            curve([round(d, 3) for d, _ in fit], [gold for _, gold in fit], form, colour, dash=True)
            | {"showlegend": False}
        )
        d, gold = next((point for point in fit if point[0] > 1 and point[1] < height), fit[-1])  # named where it falls
        traces.append(
            dots([d], [gold], form, colour, names=[form])
            | {"mode": "text", "textposition": "middle right", "showlegend": False}
        )
    return traces
