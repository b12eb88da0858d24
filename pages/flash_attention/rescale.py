"""The picture of `rescale`: rows with and without the line, the sweep of shifts, and the table of numbers."""

import math
from typing import Any

from core.flash_attention import RescaleConfig, RescaleStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, heat, text
from pages._kit.player import player, view

FLOOR = 1e-8  # what is equal is drawn here
WIDTHS = {"textbook": 2, "safe": 11, "online": 6, "mixed": 2}  # lines that lie on each other are all seen
COLOURS = {"textbook": "b", "safe": "d", "online": "a", "mixed": "c"}
SHORT = {"textbook": "textbook", "safe": "max first", "online": "online", "mixed": "32-bit sums"}
TOP = 30.0  # what is not a number is drawn here


def rescale_panels(config: RescaleConfig) -> list[Panel]:
    length = len(config.text)
    rows = chart(axis("query", "character"), axis("error", "of the largest output, log"), log_y=True, legend=True)
    rows["xaxis"]["range"], rows["yaxis"]["range"] = [0, length + 1], [-8.4, 1.6]
    sweep = chart(
        axis("added to every score", "shift"), axis("error", "of the largest output, log"), log_y=True, legend=True
    )
    sweep["xaxis"]["range"], sweep["yaxis"]["range"] = [0, 1.02 * max(120.0, 1.2 * config.shift)], [-8.4, 2.2]
    for layout in (rows, sweep):
        layout["yaxis"]["dtick"] = 2
        layout["legend"] |= {"itemwidth": 30}
    hint = "Without the line, rows lean to what they saw first."
    views = [
        view("rows", "plot", "Error of each row after these tiles", span=7, layout=rows, height=430),
        view(
            "maps",
            "matrix",
            "The output O",
            span=5,
            signed=True,
            square=True,
            words="{name}: character {row}, element {column}",
            hint=hint,
        ),
    ]
    title = f"Error in {config.numbers} when a shift is added to all scores"
    return [
        player("tiles", "The line e^(m-m') taken out", views, scrub="tile of keys", rate=1.5),
        view("sweep", "plot", title, span=7, layout=sweep, height=330),
        text("table", f"Largest error with {config.shift:g} added", span=5, height=330),
    ]


def draw_rescale(step: RescaleStep, sketch: Sketch) -> None:
    if not step.shifts or (step.done == 1 and len(step.shifts) == 1):
        sketch.frame("tiles", f"tile {step.done} of {step.tiles}", rows=rows_of(step), maps=maps_of(step))
    if step.shifts:
        sketch.show("sweep", sweep_of(step))
    if step.table:
        sketch.text("table", table_of(step))


def rows_of(step: RescaleStep) -> list[dict[str, Any]]:
    queries = list(range(1, len(step.error_right) + 1))
    both = ((step.error_wrong, "without the line", "b"), (step.error_right, "with the line", "a"))
    return [
        dots(queries, [max(FLOOR, error) for error in errors.tolist()], name, colour) for errors, name, colour in both
    ]


def maps_of(step: RescaleStep) -> dict[str, Any]:
    reach = float(abs(step.exact).max()) or 1.0
    stacked = step.exact.reshape(1, 1, *step.exact.shape).repeat(3, axis=1)
    stacked[0, 1], stacked[0, 2] = step.right, step.wrong
    return heat(stacked, ["exact so far", "with the line", "without"], low=-reach, high=reach)


def sweep_of(step: RescaleStep) -> list[dict[str, Any]]:
    """A line per way; where not a number comes out, crosses on top; the formula's limit as an upright line."""
    traces = [
        curve([step.limit, step.limit], [FLOOR / 2, 10 * TOP], "textbook overflows, by formula", "level", dash=True)
        | {"showlegend": False}
    ]
    name = {
        "type": "scatter",
        "mode": "text",
        "x": [step.limit],
        "y": [FLOOR],
        "text": [f"{step.limit:.1f}: overflow, by formula "],
        "name": "",
        "showlegend": False,
        "colour": "text",
    }
    traces.append(name | {"textposition": "top left" if step.limit > 40 else "top right"})
    for way, errors in step.errors:
        traces.append(
            curve(
                step.shifts,
                [None if math.isnan(error) else max(FLOOR, error) for error in errors],
                SHORT[way],
                COLOURS[way],
            )
            | {"line": {"width": WIDTHS[way]}}
        )
        broken = [shift for shift, error in zip(step.shifts, errors, strict=True) if math.isnan(error)]
        if broken:
            traces.append(dots(broken, [TOP] * len(broken), "not a number", COLOURS[way]) | {"showlegend": False})
            traces.append(
                name | {"x": [broken[-1]], "y": [TOP / 4], "text": ["not a number"], "textposition": "bottom left"}
            )
    return traces


def table_of(step: RescaleStep) -> str:
    """Ways down, kinds of number across."""
    lines = [f"{'':<11}" + "".join(f"{kind:>7}" for kind in ("fp32", "fp16", "bf16"))]
    table = dict(step.table)
    for way, name in (("textbook", "textbook"), ("safe", "max first"), ("online", "online"), ("mixed", "32-bit sums")):
        errors = table.get(way, ())
        cells = [("NaN" if math.isnan(error) else f"{error:.0e}") for error in errors] + ["?"] * (3 - len(errors))
        lines.append(f"{name:<11}" + "".join(f"{cell:>7}" for cell in cells))
    notes = (
        "textbook: e^s / sum e^s",
        "max first: needs the whole row before",
        "  its first e^s",
        "online: needs one tile",
        "32-bit sums: inputs in that kind of",
        "  number, all else in float32",
        "NaN: not a number",
        "fp32, fp16, bf16: float32, float16,",
        "  bfloat16",
    )
    return "\n".join([*lines, "", *notes])
