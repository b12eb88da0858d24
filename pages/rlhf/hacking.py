"""The picture of `hacking`: proxy and gold of your run, gold against distance for three betas, and how it cheats, in words."""

from typing import Any

from core.rlhf import HackingConfig, HackingStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series, text
from pages._kit.player import view
from pages.rlhf.ppo import listed

REWARD = axis("reward above the reference's mean", "standard deviations")
FLOOR, TOP = -4.0, 3.0  # of the chart over distance: gold without a penalty falls far below


def hacking_panels(config: HackingConfig) -> list[Panel]:
    steps = axis("step", "rounds of answers and updates", config.steps)
    known = config.rule != "you"
    mine = [series("proxy", "proxy: what it is paid for", "b")] + ([series("gold", "gold: what was meant", "a")] if known else [])
    runs = [series(f"{beta:g}", f"beta {beta:g}", colour_of(beta, config.beta)) for beta in config.betas]
    what = "gold" if known else "proxy"
    distance = chart(axis("d, the root of the KL to the reference", "√nats"), axis(f"{what} reward", "standard deviations"), legend=True)
    distance["xaxis"] |= {"rangemode": "tozero"}
    distance["yaxis"] |= {"range": [FLOOR, TOP]} if known else {}
    cards = [text("reference", "The reference's cards", span=4)]
    cards += [text("peak", "Your run when gold was highest", span=4)] if known else []
    charts = [lines("proxies", "Proxy, all betas", steps, REWARD, runs, span=6, height=240)]
    charts += [lines("golds", "Gold, all betas", steps, REWARD, runs, span=6, height=240)] if known else []
    return [
        lines("mine", f"Your run, beta {config.beta:g}", steps, REWARD, mine, span=7, height=360),
        view("frontier", "plot", f"{what.capitalize()} against distance from the reference", span=5, layout=distance, height=360),
        text("story", "What happened, and how it cheats"),
        *cards,
        text("now", "Your run now", span=4 if known else 8),
        *charts,
    ]


def colour_of(beta: float, yours: float) -> str:
    return "a" if beta == yours else "d" if beta < yours else "c"


def draw_hacking(step: HackingStep, sketch: Sketch) -> None:
    for panel, each, y in (("proxies", "proxy", step.proxy), ("golds", "gold", step.gold)):
        if y is None:
            continue
        sketch.point(panel, f"{step.beta:g}", step.step, y)
        if step.beta == step.yours:
            sketch.point("mine", each, step.step, y)
    if step.reference:
        sketch.text("reference", listed(step.reference))
        sketch.text("now", "Before training your run is the reference.")
        sketch.text("story", "Run it: the policy is paid by the reward model, and only that.")
        sketch.show("frontier", [dots([0.0], [0.0], "the reference", "text", names=["the reference"])])
    if step.now:
        sketch.text("now", listed(step.now))
    if step.peak is not None:
        sketch.text("peak", f"(step {step.peak})\n" + listed(step.at_peak))
        sketch.marks("mine", {"gold's peak": step.peak})
    if step.curves:
        sketch.show("frontier", frontier(step))
    if step.story:
        sketch.text("story", "\n".join([step.story[0], *(f"· {sentence}" for sentence in step.story[1:])]))


def frontier(step: HackingStep) -> list[dict[str, Any]]:
    """Every round of every run as a point; your run in front, with the curves that were fitted to it."""
    traces = []
    for beta, points in sorted(step.curves, key=lambda one: one[0] == step.yours):
        heights = [proxy if gold is None else gold for _, _, proxy, gold in points]
        traces.append(dots([round(d, 3) for _, d, _, _ in points], heights, f"beta {beta:g}", colour_of(beta, step.yours)))
    for (form, points), colour in zip(step.fits, ("b", "level"), strict=False):
        traces.append(curve([round(d, 3) for d, _ in points], [gold for _, gold in points], form, colour, dash=True))
    return traces
