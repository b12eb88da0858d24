"""The picture of `plan`: a GPU's memory by item, the step by part, the map of plans, and the checks below them."""

from collections.abc import Sequence
from typing import Any

from core.planner import PlanConfig, PlanStep
from core.planner.memory import ITEMS
from core.planner.papers import KORTHIKANTI
from core.planner.timing import PARTS
from pages._kit.charts import Panel, Sketch, axis, curve, dots, ranking, rounded, text
from pages._kit.player import view

MEMORY_COLOURS = {**dict(zip(ITEMS, "abcde", strict=False)), ITEMS[-1]: "level"}
DRAWN = {  # the parts of a step as they are drawn: colour, and what is added up
    "matmuls": ("c", ("matmuls",)),
    "again": ("e", ("recomputation",)),
    "other": ("a", ("other operations", "optimizer")),
    "tensor": ("b", ("tensor communication",)),
    "data": ("d", ("data communication", "pipeline communication")),
    "bubble": ("level", ("bubble",)),
}
LETTER = 0.025  # of the chart's width: a piece shorter than its name has no room for it


HELD = [
    ("a", "weights"),
    ("b", "gradients"),
    ("c", "optimizer states"),
    ("d", "activations"),
    ("e", "logits"),
    ("level", "a unit in work"),
    ("text", "the card, and what may be filled", "line"),
]
SPENT = [
    ("c", "matmuls"),
    ("e", "computed again"),
    ("a", "other operations"),
    ("b", "tensor communication"),
    ("d", "data and pipeline communication"),
    ("level", "bubble"),
]


def plan_panels(config: PlanConfig) -> list[Panel]:
    held = ranking(axis("one GPU", "GB"), axis("", ""), stacked=True, left=78)
    spent = ranking(axis("one step", "s"), axis("", ""), stacked=True, left=78)
    true = ranking(axis("per GPU", "TFLOP/s"), axis("", ""), left=62)
    for layout in (held, spent, true):
        layout["yaxis"] |= {"title": None}
        layout["xaxis"] |= {"rangemode": "nonnegative"}
    return [
        text("verdict", "This plan", height=108),
        view("memory", "plot", "Memory of a GPU", legend=HELD, span=7, layout=held, height=260),
        view("step", "plot", "Time of a training step", legend=SPENT, span=5, layout=spent, height=260),
        view(
            "map",
            "draw",
            "The best plan of each t x p, MFU in %",
            legend=[("c", "fits"), ("level", "does not (its GB)"), ("a", "the fastest"), ("b", "yours", "frame")],
            span=7,
            aspect=0.62,
            height=270,
        ),
        text("best", "The best plans found", span=5, height=270),
        view(
            "true",
            "plot",
            "Published runs and this planner; the first one calibrated it",
            legend=[("b", "published", "dot"), ("level", "this planner")],
            span=7,
            layout=true,
            height=390,
        ),
        text("checked", "Seconds published, and bytes weighed here", span=5, height=390),
        text("others", "What other calculators print for this plan, and why", height=330),
        text("formulas", "Every number with its formula", height=420),
    ]


def draw_plan(step: PlanStep, sketch: Sketch) -> None:
    if not step.memory:
        return
    sketch.text("verdict", step.verdict)
    sketch.show("memory", memory_of(step))
    sketch.show("step", times_of(step))
    sketch.show("map", map_of(step))
    sketch.text("best", best_of(step))
    sketch.show("true", true_of(step))
    sketch.text("checked", checked_of(step))
    sketch.text("others", others_of(step))
    sketch.text("formulas", formulas_of(step))


def stacked(
    rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], colours: dict[str, str], reach: float
) -> list[dict[str, Any]]:
    """Pieces one after the other, each with its name inside where there is room."""
    labels, traces = [label for label, _ in rows], list[dict[str, Any]]()
    for place, name in enumerate(names):
        sizes = [pieces[place] for _, pieces in rows]
        words = [f"{name}\n{short(size)}" if size > LETTER * len(name) * reach else "" for size in sizes]
        inside = {
            "text": words,
            "textposition": "inside",
            "insidetextanchor": "middle",
            "textangle": 0,
            "constraintext": "none",
        }
        edge = {
            "type": "bar",
            "orientation": "h",
            "x": [rounded(size) for size in sizes],
            "y": labels,
            "name": name,
            "colour": colours[name],
        }
        traces.append(edge | inside)
    return traces


def short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def note(x: float, y: Any, words: str, where: str = "middle right") -> dict[str, Any]:
    return dots([x], [0.0], "", "text", names=[words]) | {
        "y": [y],
        "mode": "text",
        "textposition": where,
        "cliponaxis": False,
    }


def memory_of(step: PlanStep) -> list[dict[str, Any]]:
    """Bars of this plan's stages and of the best plan, and the card as lines."""
    most = max(sum(items) for _, items in step.memory)
    reach = max(1.15 * step.card, min(1.12 * most, 4 * step.card))
    rows = [(label, cut(items, reach)) for label, items in step.memory]
    top, bottom = " ", rows[-1][0]
    traces = [note(1.13 * reach, top, ""), *stacked(rows, ITEMS, MEMORY_COLOURS, reach)]
    for size, dash in ((step.card, False), (step.limit, True)):
        traces.append(curve([size, size], [0.0, 0.0], "card", "text", dash=dash) | {"y": [top, bottom]})
    traces.append(note(step.card, top, f" {step.card:g} GB"))
    traces.append(note(step.limit, top, f"{step.limit:.3g} ", "middle left"))
    for label, items in step.memory:
        whole = sum(items)
        traces.append(note(min(whole, reach), label, f" {short(whole)}" + (" →" if whole > reach else "")))
    return traces


def cut(items: Sequence[float], reach: float) -> list[float]:
    """A bar that is too long ends where the chart does."""
    left, pieces = reach, list[float]()
    for size in items:
        pieces.append(min(size, left))
        left -= pieces[-1]
    return pieces


def times_of(step: PlanStep) -> list[dict[str, Any]]:
    """This plan and the best one, part by part."""
    sums = [sum(parts) for _, parts in step.times]
    reach = max(sums)
    told = [(label, dict(zip(PARTS, parts, strict=True))) for label, parts in step.times]
    rows = [(label, [sum(parts[part] for part in added) for _, added in DRAWN.values()]) for label, parts in told]
    traces = stacked(rows, list(DRAWN), {name: colour for name, (colour, _) in DRAWN.items()}, 1.5 * reach)
    for (label, _), whole, mfu in zip(step.times, sums, step.mfus, strict=True):
        traces.append(note(whole, label, f" {short(whole)} s\n MFU {mfu:.0%}"))
    traces.append(note(1.3 * reach, step.times[0][0], ""))
    return traces


def map_of(step: PlanStep) -> list[dict[str, Any]]:
    """A field per t and p; the one that was asked for has a frame."""
    rows, columns = step.grid
    places = {(t, p): (len(rows) - 1 - rows.index(t), columns.index(p)) for t in rows for p in columns}
    shapes: list[dict[str, Any]] = [
        {"id": f"t{t}", "kind": "text", "x": -0.55, "y": len(rows) - 0.5 - rows.index(t), "text": f"t {t}"}
        for t in rows
    ]
    shapes += [
        {
            "id": f"p{p}",
            "kind": "text",
            "x": columns.index(p) + 0.5,
            "y": -0.35,
            "text": f"p {p}" if len(columns) < 9 else f"{p}",
        }
        for p in columns
    ]
    room = {"kind": "rect", "w": 0.88, "h": 0.84, "fill": "grid"}
    shapes += [room | {"id": f"{t} {p} room", "x": x + 0.06, "y": y + 0.08} for (t, p), (y, x) in places.items()]
    if step.wish in places:
        y, x = places[step.wish]
        shapes.append({"id": "wish", "kind": "rect", "x": x, "y": y, "w": 1, "h": 1, "fill": "b"})
    for t, p, fits, mfu, gigabytes, _ in step.cells:
        y, x = places[t, p]
        fill = "a" if fits and step.best[0][1:3] == (t, p) else "c" if fits else "level"
        least = f"{gigabytes:.0f}" if gigabytes < 1000 else f"{gigabytes / 1000:.0f}k"
        words = f"{100 * mfu:.0f}" if fits else least if len(columns) < 10 else ""
        shapes.append(
            {
                "id": f"{t} {p}",
                "kind": "rect",
                "x": x + 0.06,
                "y": y + 0.08,
                "w": 0.88,
                "h": 0.84,
                "fill": fill,
                "text": words,
            }
        )
    return shapes


def best_of(step: PlanStep) -> str:
    """A line per plan; the columns are the letters of the lesson."""
    if not step.best:
        return f"{step.tried:,} plans tried, none of them fits."
    lines = [f"{'d':>5}{'t':>2}{'p':>4}{'v':>2} Z r{'b':>3}{'s':>6}{'%':>3}{'GB':>4}"]
    for d, t, p, v, zero, recompute, b, seconds, mfu, gigabytes in step.best:
        lines.append(
            f"{d:>5}{t:>2}{p:>4}{v:>2} {zero} {recompute[0]}{b:>3}{short(seconds):>6}{100 * mfu:>3.0f}{gigabytes:>4.0f}"
        )
    legend = "Z: ZeRO stage; r: recompute nothing, selectively, fully; s: seconds per step; %: MFU"
    return "\n".join([*lines, "", legend, "", f"{step.tried:,} plans tried; here the best of each t x p."])


def true_of(step: PlanStep) -> list[dict[str, Any]]:
    """Narayanan's table 1: TFLOP/s per GPU, published as dots."""
    rows = [(name, told, found) for paper, name, told, found in step.published if paper != KORTHIKANTI]
    names = [name for name, *_ in rows]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [rounded(found) for *_, found in rows],
            "y": names,
            "name": "planner",
            "colour": "level",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [told for _, told, _ in rows],
            "y": names,
            "name": "published",
            "colour": "b",
        },
    ]
    for name, told, found in rows:
        traces.append(note(max(told, found), name, f"  {round(100 * (found / told - 1)):+d} %"))
    traces.append(note(200, names[0], ""))
    return traces


def checked_of(step: PlanStep) -> str:
    """Korthikanti's table 5, then what this machine weighed and counted."""
    lines = [f"{'step, seconds':<14}{'paper':>6}{'here':>6}{'gap':>6}"]
    for paper, name, told, found in step.published:
        if paper == KORTHIKANTI:
            short_name = name.replace("GPT-3, ", "").replace(", theirs", " sel+SP")
            lines.append(f"{short_name:<14}{told:>6.1f}{found:>6.1f}{100 * (found / told - 1):>+5.0f}%")
    lines += ["Korthikanti 2022, table 5", "", f"{'small GPT':<11}{'formula':>8}{'weighed':>8}{'gap':>5}"]
    for kind, told, weighed in step.weighed:
        end = f"{weighed / 1e6:>8.3f}{100 * (weighed / told - 1):>4.1f}%" if weighed is not None else f"{'?':>8}"
        lines.append(f"{kind:<11}{told / 1e6:>8.3f}{end}")
    lines.append("in MB, trained here, two steps")
    if step.counted is not None:
        done, of, weights, formula = step.counted
        lines += [
            "",
            f"{weights:,} weights counted",
            f"{formula:,} by formula" if done == of else f"in {done} of {of} layers",
        ]
    return "\n".join(lines)


def others_of(step: PlanStep) -> str:
    """Ours first; what a calculator does differently stands under its line."""
    lines = [f"{'GB per GPU':<19}{'states':>6}{'activ.':>7}"]
    for name, states, activations, why in step.others:
        cells = [f"{'–' if one is None else short(one)}" for one in (states, activations)]
        lines += [f"{name:<19}{cells[0]:>6}{cells[1]:>7}", f"  {why}"]
    return "\n".join([*lines, "states: weights, gradients, optimizer; – : not told"])


def formulas_of(step: PlanStep) -> str:
    """Two lines a number."""
    told = []
    for name, letters, numbers, value, source in step.formulas:
        told.append(f"{name} = {value}   [{source}]\n   {letters}\n   = {numbers}")
    return "\n".join(told)
