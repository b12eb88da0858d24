"""The ribbon as a drawing: a row per run, a cell per step, green where all bits are those of the first row."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.deterministic_resume.ribbon import Cell, Ribbon
from pages._kit.charts import axis, chart, rounded

Trace = dict[str, Any]

EQUAL_AT = 1e-9  # where a logarithmic axis shows the difference 0
POWERS = {1e-8: "10⁻⁸", 1e-6: "10⁻⁶", 1e-4: "10⁻⁴", 1e-2: "0.01", 1.0: "1"}


def ribbon_layout(rows: Sequence[str], last: int, first: int = 0) -> dict[str, Any]:
    """Names on the left, steps below; the first row is on top."""
    layout = chart(axis("training step", "count"), axis("", ""))
    layout["yaxis"] = {
        "tickvals": [-place for place in range(len(rows))],
        "ticktext": list(rows),
        "range": [0.6 - len(rows), 0.6],
        "showgrid": False,
    }
    layout["yaxis"] |= {"title": {"text": ""}, "zeroline": False}
    layout["xaxis"] |= {"range": [first - 0.6, last + 0.6], "zeroline": False, "showgrid": False}
    layout["margin"] |= {"l": 12 + round(6.6 * max(map(len, rows))), "b": 46}
    return layout | {"barmode": "overlay"}


def legend(straight: str) -> list[tuple[str, ...]]:
    """What the colors of a ribbon mean; `straight`: its first row."""
    return [("a", straight), ("c", "the same bits"), ("b", "other bits"), ("text", "a checkpoint was saved", "ring")]


def strip(
    place: int, steps: Sequence[int], colours: Sequence[str], hints: Sequence[str], name: str, opacity: float = 1.0
) -> Trace:
    """Cells of one row."""
    told: Trace = {
        "type": "bar",
        "x": list(steps),
        "y": [0.76] * len(steps),
        "base": [-place - 0.38] * len(steps),
        "width": 0.9,
        "name": name,
    }
    return told | {"colours": list(colours), "hovertext": list(hints), "hoverinfo": "text", "opacity": opacity}


def ribbon_traces(ribbon: Ribbon, rows: Sequence[str], planned: Mapping[str, range]) -> list[Trace]:
    """What is there, and, pale, what is still to come."""
    told = dict(ribbon.rows)
    traces = []
    for place, row in enumerate(rows):
        cells = told.get(row, ())
        done = {cell.step for cell in cells}
        todo = [step for step in planned[row] if step not in done]
        traces.append(strip(place, todo, ["level"] * len(todo), ["to come"] * len(todo), f"{row}, to come", 0.18))
        if cells:
            colours = [("a" if place == 0 else "c") if cell.equal else "b" for cell in cells]
            traces.append(
                strip(place, [cell.step for cell in cells], colours, [hint(row, cell) for cell in cells], row)
            )
    return traces


def hint(row: str, cell: Cell) -> str:
    apart = "" if cell.equal else f"\nup to {cell.distance:.1e} apart\nmost in {cell.tensor}"
    return f"{row}, step {cell.step}\nSHA-256 {cell.hash}…{apart}"


def words(x: float, y: float, what: str, where: str = "middle center", colour: str = "") -> Trace:
    """A word in the drawing; with a colour a dot stands before it, as text has none."""
    told: Trace = {
        "type": "scatter",
        "mode": "markers+text" if colour else "text",
        "x": [x],
        "y": [rounded(y)],
        "text": [what],
        "name": "",
    }
    return told | {"textposition": where, "colour": colour or "text", "hoverinfo": "skip", "cliponaxis": False}


def saved(steps: Sequence[int], place: int) -> Trace:
    """A white dot in the cells after which a checkpoint was written."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(steps),
        "y": [-place] * len(steps),
        "name": "saved",
        "colour": "veil",
        "hoverinfo": "skip",
    }


def distance_layout(first: int, last: int) -> dict[str, Any]:
    """Steps, and on a logarithmic axis the largest difference of a weight; 0 stands at the bottom."""
    layout = chart(axis("training step", "count"), axis("largest difference", "of a weight"), log_y=True)
    apart = max(1, round((last - first) / 4))
    layout["xaxis"] |= {
        "range": [first - 0.5, last + 0.5 + 0.6 * (last - first)],
        "tickvals": list(range(first, last + 1, apart)),
    }
    layout["yaxis"] |= {
        "range": [-9.5, 0.8],
        "tickvals": [EQUAL_AT, *POWERS],
        "ticktext": ["0", *POWERS.values()],
        "type": "log",
    }
    layout["yaxis"].pop("dtick", None)
    return layout


def distance_traces(ribbon: Ribbon, names: Mapping[str, tuple[str, str]], first: int, last: int) -> list[Trace]:
    """A line per run with its name at the end, above what is expected of a whole checkpoint; names: row -> (short name,
    colour).
    """
    expected: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [first, last],
        "y": [EQUAL_AT] * 2,
        "name": "expected",
        "colour": "level",
    }
    traces: list[Trace] = [expected | {"line": {"dash": "dash"}}]
    ends: list[tuple[float, int, str, str]] = []
    for row, cells in ribbon.rows:
        if row in names and cells:
            short, colour = names[row]
            heights = [max(cell.distance, EQUAL_AT) for cell in cells]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [cell.step for cell in cells],
                    "y": [rounded(y) for y in heights],
                    "name": short,
                    "colour": colour,
                }
            )
            ends.append((heights[-1], cells[-1].step, short, colour))
    free = 10.0**9
    for height, step, short, colour in sorted(ends, reverse=True):  # from the top, kept apart
        free = max(min(height, free / 5), EQUAL_AT)
        traces.append(words(step, free, short, "middle right", colour))
    return (
        traces
        if ends
        else [*traces, words((first + last) / 2, EQUAL_AT, "expected if all is put back: 0", "top center")]
    )
