"""The picture of `repeat`: loss curves that part where a text begins again, and what a repeated token is worth."""

import math
from collections.abc import Sequence
from typing import Any

from core.data_efficiency import RepeatConfig, RepeatStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots
from pages._kit.player import view

COLOURS = ("text", "a", "c", "e", "d", "b", "level")  # fresh text first, then more and more epochs
ROOM = 1.2  # nats above the fresh runs' loss that are drawn; what is above is named at the edge
Trace = dict[str, Any]


def repeat_panels(config: RepeatConfig) -> list[Panel]:
    tokens, loss = axis("characters read", "count, log scale"), axis("loss on unseen text", "nats per character")
    epochs, worth = axis("times each token is read", "epochs, log scale"), axis("worth of a token", "% of a fresh one")
    curves, worths = chart(tokens, loss, log_x=True), chart(epochs, worth, log_x=True)
    curves["xaxis"] |= ticks(100, config.tokens)
    curves["margin"]["r"] = 76
    worths["xaxis"] |= {
        "tickvals": list(config.kinds),
        "ticktext": [str(kind) for kind in config.kinds],
        "range": [-0.08, math.log10(config.epochs) + 0.3],
    }
    worths["yaxis"] |= {"range": [-6, 130]}
    return [
        view(
            "curves",
            "plot",
            "Fresh text (1×) or the same again",
            legend=[("text", "the same text again from there", "dot"), ("text", "law", "dashed")],
            span=7,
            height=420,
            layout=curves,
        ),
        view("worth", "plot", "What the average token of each run was worth", span=5, height=420, layout=worths),
    ]


def ticks(low: float, high: float) -> dict[str, Any]:
    """1, 2 and 5 times the powers of ten, for an axis of tokens."""
    values = [step * 10**power for power in range(7) for step in (1, 2, 5) if low <= step * 10**power <= 3 * high]
    return {"tickvals": values, "ticktext": [f"{value // 1000}k" if value >= 1000 else str(value) for value in values]}


def draw_repeat(step: RepeatStep, sketch: Sketch) -> None:
    if step.law_worth:
        sketch.show("worth", worths(step))
    if step.looks:
        sketch.show("curves", curves(step))
    elif step.law_worth:
        blind = step.figures[0].measured or 0.0
        sketch.show("curves", [
            dots([x], [blind], f"the text of {counted(kind)} ends here", colour, names=[f"{kind}×"])
            for x, kind, colour in zip(step.unique, step.epochs, COLOURS, strict=False)
        ])  # fmt: skip


def curves(step: RepeatStep) -> list[Trace]:
    """A line per kind of run, what the law says of it, and where its text begins again; the names at the ends."""
    xs, traces, top = [look.tokens for look in step.looks], list[Trace](), step.looks[-1].losses[0] + ROOM
    late = [look for look in step.looks if look.law]
    for number, colour in zip(range(len(step.epochs)), COLOURS, strict=False):
        ys = [look.losses[number] for look in step.looks]
        traces.append(curve(*below(xs, ys, top), counted(step.epochs[number]), colour))
        begins = step.unique[number]
        if number and late:
            law = below([look.tokens for look in late], [look.law[number] for look in late], top)
            traces.append(curve(*law, f"law, {counted(step.epochs[number])}", colour, dash=True))
        if number and xs[0] <= begins <= xs[-1] and between(xs, ys, begins) <= top:
            traces.append(dots([begins], [between(xs, ys, begins)], "its text begins again", colour))
    return traces + [names(step, top)]


def below(xs: Sequence[float], ys: Sequence[float], top: float) -> tuple[list[float | None], list[float | None]]:
    """A line cut off at `top`, so that what matters below keeps its room."""
    cut: list[tuple[float | None, float | None]] = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if i and (y > top) != (ys[i - 1] > top):
            share = (top - ys[i - 1]) / (y - ys[i - 1])
            cut.append((xs[i - 1] * (x / xs[i - 1]) ** share, top))
        cut.append((x, y) if y <= top else (None, None))
    return [x for x, _ in cut], [y for _, y in cut]


def names(step: RepeatStep, top: float) -> Trace:
    """The kinds' names and losses to the right of the ends of their lines, moved apart where they would cover each
    other.
    """
    ends = sorted(zip(step.looks[-1].losses, step.epochs, strict=True), reverse=True)
    gap, heights = 0.052 * (top - ends[-1][0]), list[float]()
    for loss, _ in ends:
        heights.append(min(loss, top, heights[-1] - gap) if heights else min(loss, top))
    words = [f" {kind}× {loss:.2f}" + (" ↑" if loss > top else "") for loss, kind in ends]
    told = dots([step.looks[-1].tokens] * len(ends), heights, "", "text", names=words)
    return told | {"mode": "text", "textposition": "middle right", "cliponaxis": False, "hoverinfo": "skip"}


def between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The height of a line at x, straight between its points."""
    for left, right, low, high in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if left <= x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return ys[-1]


def worths(step: RepeatStep) -> list[Trace]:
    law = curve([x for x, _ in step.law_worth], [y for _, y in step.law_worth], "Muennighoff's law", "level", dash=True)
    x, y = step.law_worth[4 * len(step.law_worth) // 5]
    traces = [
        law,
        dots([x], [y], "", "level", names=["  the law"])
        | {"mode": "text", "textposition": "top right", "hoverinfo": "skip"},
    ]
    for kind, colour, share, spread in zip(
        step.epochs, COLOURS, step.worth or (), step.worth_spread or (), strict=False
    ):
        if share is not None:
            traces.append(
                dots([kind], [share], counted(kind), colour, errors=[spread or 0.0], names=[f"{share:.0f} %"])
                | {"textposition": "middle right"}
            )
    return traces


def counted(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"
