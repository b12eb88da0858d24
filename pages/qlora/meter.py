"""The picture of `meter`: memory over time by kind, the peak of each precision, its ledger, and the bars of big
models.
"""

from collections.abc import Sequence
from typing import Any

from core.qlora.budget import CARDS, PRECISIONS
from core.qlora.memory import KINDS
from core.qlora.meter import ADAPTING, LOADING, TRAINING, MeterConfig, MeterStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, ranking, rounded, text
from pages._kit.player import player, view

Row = tuple[str, Sequence[float]]

SHORT = PRECISIONS | {"nf4dq": "NF4+DQ"}
NAMES = dict(
    zip(
        KINDS, ("weights", "constants", "adapters", "gradients", "optimizer", "activations", "short-lived"), strict=True
    )
)
COLOURS = dict(zip(KINDS, ("a", "text", "c", "d", "e", "b", "level"), strict=True))
MB, GB = 1e6, 1e9


def meter_panels(config: MeterConfig) -> list[Panel]:
    timeline = chart(axis("", ""), axis("live bytes", "MB"), legend=True)
    timeline["xaxis"] = time_axis(config)
    timeline["yaxis"] |= {"rangemode": "tozero"}
    timeline["legend"] |= {"itemwidth": 30, "traceorder": "normal"}
    peaks = ranking(axis("live bytes at the peak", "MB"), axis("", ""), stacked=True, left=128)
    big = ranking(axis("at the peak", "GB"), axis("", ""), stacked=True, left=96)
    for layout in (peaks, big):
        layout["yaxis"] |= {"title": None}
        layout["xaxis"] |= {"rangemode": "nonnegative"}
    cards = ", ".join(str(size) for size in CARDS.values())
    views = [
        view("peaks", "plot", "What is there at the peak, by kind: by formula, and measured", layout=peaks, height=270),
        view("ledger", "text", "The most of each kind, in bytes", span=6, height=200),
        view("items", "text", "Its weights and constants, from the rule of thumb", span=6, height=200),
    ]
    return [
        view(
            "timeline",
            "plot",
            "Memory over time, by kind, measured",
            legend=[("text", "the peak by formula", "dashed")],
            layout=timeline,
            height=300,
        ),
        player("precisions", "", views, scrub="precision", rate=1.0, bar_before=1),
        view(
            "big",
            "plot",
            f"LLaMA {config.big}, computed: {config.batch} x {config.big_context} tokens",
            legend=[("level", f"cards of {cards} GB", "dashed")],
            span=7,
            layout=big,
            height=330,
        ),
        text("fits", "Peak in GB and the card that holds it, computed", span=5),
    ]


def time_axis(config: MeterConfig) -> dict[str, Any]:
    """Precisions side by side; of one alone, its phases."""
    names, title = config.precisions, "time: load, adapt, train"
    if len(names) > 1:
        places, words = [number + 0.5 for number in range(len(names))], [SHORT[name] for name in names]
    else:
        start, each = LOADING + ADAPTING, TRAINING / config.steps
        shown = range(0, config.steps, 1 + config.steps // 6)
        places, words = (
            [LOADING / 2, *(start + each * (step + 0.5) for step in shown)],
            ["load", *(f"step {step + 1}" for step in shown)],
        )
    return {
        "title": {"text": title},
        "tickvals": places,
        "ticktext": words,
        "range": [0, len(names)],
        "showgrid": False,
        "zeroline": False,
    }


def draw_meter(step: MeterStep, sketch: Sketch) -> None:
    if step.forecast:
        sketch.show("timeline", timeline_of(step))
    if step.phase == "free":
        sketch.frame(
            "precisions", PRECISIONS[step.precision], peaks=peaks_of(step), ledger=ledger_of(step), items=items_of(step)
        )
    if step.bars:
        if step.forecast:
            sketch.frame("precisions", "by formula", peaks=peaks_of(step), ledger=ledger_of(step), items=items_of(step))
        sketch.show("big", big_of(step.bars))
        sketch.text("fits", fits_of(step.totals))


def short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def timeline_of(step: MeterStep) -> list[dict[str, Any]]:
    """Areas that stand on each other, under the dashed forecast."""
    traces: list[dict[str, Any]] = []
    if step.moments is not None and step.live is not None:
        xs = [round(x, 4) for x in step.moments.tolist()]
        for place, kind in enumerate(KINDS):
            traces.append(
                curve(xs, (step.live[:, place] / MB).tolist(), NAMES[kind], COLOURS[kind], filled=True)
                | {"line": {"width": 0.5}}
            )
    peaks = [sum(kinds) / MB for _, kinds in step.forecast]
    ends = [x for number in range(len(peaks)) for x in (number + 0.04, number + 0.96, None)]
    heights = [y for peak in peaks for y in (peak, peak, None)]
    middle = [number + 0.5 for number in range(len(peaks))]
    labels = dots(middle, peaks, "", "text", names=[short(peak) for peak in peaks]) | {
        "mode": "text",
        "showlegend": False,
    }
    return [*traces, curve(ends, heights, "peak by formula", "text", dash=True) | {"showlegend": False}, labels]


def stacked(rows: Sequence[tuple[str, Sequence[float]]], unit: float) -> list[dict[str, Any]]:
    """Horizontal bars of kinds on each other, and their sum at the end of each."""
    labels = [label for label, _ in rows]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [rounded(kinds[place] / unit) for _, kinds in rows],
            "y": labels,
            "name": NAMES[kind],
            "colour": COLOURS[kind],
        }
        for place, kind in enumerate(KINDS)
    ]
    sums = [sum(kinds) / unit for _, kinds in rows]
    told = {"type": "scatter", "mode": "text", "name": "", "colour": "text", "textposition": "middle right"}
    ends = told | {
        "x": [rounded(one) for one in sums],
        "y": labels,
        "text": [f" {short(one)}" if one else "" for one in sums],
    }
    return [
        *traces,
        ends,
        told | {"x": [rounded(1.18 * max(sums))], "y": labels[:1], "text": [""]},
    ]  # the last one makes room


def peaks_of(step: MeterStep) -> list[dict[str, Any]]:
    """Two bars per precision: what the formulas say, and what was measured."""
    measured, rows = dict(step.peaks), list[Row]()
    for name, kinds in step.forecast:
        rows.append((f"{SHORT[name]}, formula", kinds))
        rows.append((f"{SHORT[name]}, measured", measured.get(name, (0.0,) * len(KINDS))))
    return stacked(rows, MB)


def ledger_of(step: MeterStep) -> str:
    """The kinds, each at its own largest, and all together at the peak; before the run, by formula alone."""
    forecast, peak = sum(dict(step.forecast)[step.precision]), sum(dict(step.peaks).get(step.precision, ()))
    sums = [sum(pair[side] for pair in step.ledger) for side in (0, 1)]
    rows = [*zip(NAMES.values(), step.ledger, strict=True), ("sum", sums), ("peak", (forecast, peak))]
    lines = [PRECISIONS[step.precision], f"{'':<12}{'formula':>11}{'measured':>12}"]
    lines += [
        f"{name:<12}{predicted:>11,.0f}" + (f"{most:>12,.0f}" if peak else f"{'?':>12}")
        for name, (predicted, most) in rows
    ]
    return "\n".join([*lines, "", "The peak is less than the sum:", "not all are there at the same time."])


def items_of(step: MeterStep) -> str:
    """What stands between the rule of thumb and what was weighed."""
    lines = [PRECISIONS[step.precision], *(f"{size:>10,} {what}" for what, size in step.items)]
    weighed = sum(most for kind, (_, most) in zip(KINDS, step.ledger, strict=True) if kind in ("weights", "constants"))
    told = [f"{weighed:>10,.0f} weighed"] if weighed else []
    return "\n".join([*lines, f"{sum(size for _, size in step.items):>10,} in all", *told])


def big_of(bars: Sequence[Row]) -> list[dict[str, Any]]:
    """The ways to fine-tune a big model, and common cards as lines.

    The bar of all weights ends where the chart does: its label says how long it is.
    """
    (_, whole), *adapted = bars
    reach = max(1.15 * max(sum(kinds) for _, kinds in adapted), 95 * GB)
    labels = ["card", f"all weights\n{sum(whole) / GB:,.0f} GB", *(SHORT[name] for name, _ in adapted)]
    left, cut = reach, list[float]()
    for size in whole:
        cut.append(min(size, left))
        left -= cut[-1]
    *traces, ends, _ = stacked(
        list(zip(labels, ([0.0] * len(KINDS), cut, *(kinds for _, kinds in adapted)), strict=True)), GB
    )
    ends["text"][1] = " →" if sum(whole) > reach else ""  # its length stands on the left
    cards = [size for size in CARDS.values() if size * GB <= reach]
    for size in cards:
        line = {
            "x": [size, size],
            "y": [labels[0], labels[-1]],
            "name": f"card of {size} GB",
            "colour": "level",
            "line": {"dash": "dot"},
        }
        traces.append({"type": "scatter", "mode": "lines", **line})
    first, *others = cards
    names = ends | {
        "x": [first / 2, *others, reach / GB * 1.06],
        "y": [labels[0]] * (len(cards) + 1),
        "text": [f"{first}", *(f" {size}" for size in others), ""],
    }
    names |= {"textposition": ["middle center", *["middle right"] * len(cards)][: len(cards) + 1], "cliponaxis": False}
    return [*traces, ends, names]


def fits_of(totals: Sequence[Row]) -> str:
    """A table: ways to fine-tune below each other, models side by side, in GB; a letter for the smallest card that
    holds it.
    """
    letters = dict(zip(CARDS, "abc", strict=True))
    lines = [f"{'LLaMA':<7}" + "".join(f"{name:>6} " for name, _ in totals)]
    for number, way in enumerate(["all", *(SHORT[name] for name in PRECISIONS)]):
        sums = [row[number] / GB for _, row in totals]
        cards = [next((letters[card] for card, size in CARDS.items() if one <= size), " ") for one in sums]
        lines.append(f"{way:<7}" + "".join(f"{one:>6.1f}{card}" for one, card in zip(sums, cards, strict=True)))
    return "\n".join(
        [
            *lines,
            "smallest card that holds it:",
            ", ".join(f"{letter} {CARDS[card]} GB" for card, letter in letters.items()),
        ]
    )
