"""The picture of `big`: every schedule's chart, idle time over the number of micro-batches, activations per rank, both
zeros.
"""

import math
from typing import Any

from core.pipeline_parallel import BigConfig, BigStep
from core.pipeline_parallel.orders import NAMES, SHORT
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import player, view
from pages.pipeline_parallel.gantts import ALL, sampled, work

COLOURS = {"gpipe": "level", "1f1b": "a", "interleaved": "d", "split": "e", "zbv": "c"}


def big_panels(config: BigConfig) -> list[Panel]:
    idle = chart(axis("micro-batches", "count"), axis("idle time over work", "share"), log_x=True, log_y=True)
    left = math.log10(0.8 * config.ranks)
    idle["xaxis"] |= {
        "range": [left, 2.71 + 0.5 * (2.71 - left)],
        "tickvals": [2**power for power in range(1, 10)],
        "ticktext": [str(2**power) for power in range(1, 10)],
    }
    idle["yaxis"] |= {"tickformat": ".2~%", "dtick": None, "exponentformat": None}
    held = chart(axis("rank", "number"), axis("held at most", "micro-batches"))
    held["yaxis"] |= {"rangemode": "tozero"}
    return [
        player(
            "charts",
            "",
            [
                view(
                    "work",
                    "gantt",
                    "The work of every rank, over time",
                    legend=ALL,
                    rows=config.ranks,
                    row=24,
                    most=400,
                )
            ],
            scrub="schedule",
            rate=0.7,
        ),
        view("idle", "plot", "Idle time: formula (lines), simulated (dots)", span=7, layout=idle, height=360),
        text("table", f"{config.micro} micro-batches, {config.ranks} ranks", span=5, height=340),
        view(
            "held",
            "plot",
            "Activations a rank holds: formula (lines), simulated (dots)",
            span=7,
            layout=held,
            height=320,
        ),
        text("zero", "What is zero in “zero bubble”?", span=5, height=300),
    ]


def draw_big(step: BigStep, sketch: Sketch) -> None:
    if step.chart is not None:
        schedule, makespan, cells, bars = step.chart
        data = work(bars, makespan, "ms") if bars else sampled(cells, makespan, makespan, "ms")
        sketch.frame("charts", f"{NAMES[schedule]}: {makespan:,.6g} ms", work=data)
    if step.rows:
        sketch.show("idle", idle_of(step))
        sketch.show("held", held_of(step))
        sketch.text("table", table_of(step))
        sketch.text("zero", zero_of(step))


def idle_of(step: BigStep) -> list[dict[str, Any]]:
    """Lines that end in their names; GPipe and 1F1B lie on each other."""
    traces, named = list[dict[str, Any]](), set[float]()
    for schedule, theory, found in step.curves:
        above = [(micro, value) for micro, value in theory if value > 0]
        if not above:
            continue
        traces.append(
            curve([micro for micro, _ in above], [value for _, value in above], SHORT[schedule], COLOURS[schedule])
        )
        traces.append(
            dots(
                [micro for micro, _ in found],
                [max(value, 1e-6) for _, value in found],
                f"{SHORT[schedule]}, simulated",
                COLOURS[schedule],
            )
        )
        names = " = ".join(SHORT[one] for one, others, _ in step.curves if others == theory)
        if above[-1][1] not in named:
            named.add(above[-1][1])
            label = dots([above[-1][0]], [above[-1][1]], "", "text", names=[f" {names}"])
            traces.append(label | {"mode": "text", "textposition": "middle right", "cliponaxis": False})
    return traces


def held_of(step: BigStep) -> list[dict[str, Any]]:
    traces, highest = list[dict[str, Any]](), 0.0
    for row in step.rows:
        ranks = list(range(len(row.held)))
        traces.append(curve(ranks, row.held, SHORT[row.schedule], COLOURS[row.schedule]))
        if row.peaks:
            traces.append(dots(ranks, row.peaks, f"{SHORT[row.schedule]}, simulated", COLOURS[row.schedule]))
        place = 0 if row.schedule in ("interleaved", "gpipe") else len(ranks) - 1
        same = [other.schedule for other in step.rows if other.held == row.held]
        if same[0] == row.schedule:
            words = " = ".join(SHORT[name] for name in same)
            label = dots([place], [row.held[place]], "", "text", names=[words])
            traces.append(
                label | {"mode": "text", "textposition": "top right" if place == 0 else "top left", "cliponaxis": False}
            )
        highest = max(highest, *row.held)
    return [*traces, dots([0], [1.12 * highest], "", "text", names=[""]) | {"mode": "text"}]


def table_of(step: BigStep) -> str:
    lines = [f"{'':<12}{'makespan':>9}{'idle':>8}{'own':>7}"]
    for row in step.rows:
        if row.makespan is None or row.bubble is None:
            lines.append(f"{SHORT[row.schedule]:<12}{'–':>9}{'–':>8}{'–':>7}")
        else:
            lines.append(f"{SHORT[row.schedule]:<12}{row.makespan:>9,.5g}{row.bubble:>8.2%}{max(row.own_idle):>7.3g}")
    missing = [SHORT[schedule] for schedule in NAMES if schedule not in {row.schedule for row in step.rows}]
    lines += [
        "",
        f"The work of a rank: {step.ideal:,.6g} ms.",
        "idle: of the work. own: the most that a rank waits between its own first start and last end.",
    ]
    if missing:
        lines += ["", f"Not possible with these numbers: {', '.join(missing)}."]
    return "\n".join(lines)


def zero_of(step: BigStep) -> str:
    """The chosen schedule in both definitions."""
    row = next(row for row in step.rows if row.schedule == step.chosen)
    if row.makespan is None or row.bubble is None:
        return f"{NAMES[row.schedule]}: simulated when you press Run."
    most, lost = max(row.own_idle), row.makespan - step.ideal
    lines = [f"{NAMES[row.schedule]} takes {row.makespan:,.6g} ms, {lost:,.4g} more than the work of a rank."]
    lines.append(f"Between its own first start and its own last end a rank waits {most:,.4g} ms at most.")
    if row.schedule != "zbv":
        lines.append("Choose ZBV, and this becomes zero if F = I = W.")
    elif most < 1e-9 * step.ideal:
        lines.append(
            "That is the zero. The corners where ranks wait are still there: the last rank can only begin when a"
            " micro-batch has come down to it."
        )
    else:
        lines.append(
            "Not zero: its order is made for F = I = W. With other times ranks wait for gradients also within their own"
            " span."
        )
    return "\n\n".join(lines)
