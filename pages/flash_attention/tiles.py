"""The picture of `tiles`: the grid with its present tile, O beside the exact one, m and l, two errors, two
odometers.
"""

import base64
from typing import Any

from core.flash_attention import TilesConfig, TilesStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, heat, ranking, rounded, visible
from pages._kit.player import player, view

BLUE = (60, 140, 210)  # visible on light and on dark
SHADES = ((0.0, 0.0), (0.03, 0.22), (0.15, 0.5), (0.5, 0.8), (1.0, 1.0))  # small weights are seen, too
MOST_TICKS = 26  # characters named on an axis
TEXT = {"type": "scatter", "mode": "text", "name": "", "colour": "text", "hoverinfo": "skip", "showlegend": False}


def tiles_panels(config: TilesConfig) -> list[Panel]:
    length, rows, keys = len(config.text), config.tile.rows, config.tile.keys
    error = chart(axis("tiles done", "count"), axis("distance", "of the output's size"), legend=True)
    error["yaxis"]["range"] = [-0.15, 1.6]
    state = chart(axis("query", "character"), axis("m and ln l", "nats"), legend=True)
    state["xaxis"]["range"], state["yaxis"]["range"] = [0, length + 1], [-4.5, 7]
    moved = ranking(axis("moved so far", "elements"), axis("", ""), stacked=True, left=84)
    moved["yaxis"] |= {"title": None}
    views = [
        view(
            "grid",
            "plot",
            f"The score matrix: tiles of {rows} x {keys}, the present one framed",
            span=7,
            layout=grid_layout(config.text),
            height=380,
        ),
        view(
            "output",
            "matrix",
            "The output O: a row per character, a column per element",
            span=5,
            signed=True,
            square=True,
            words="{name}: character {row}, element {column}",
            hint="The left map becomes the middle one; the right one empties.",
        ),
        view(
            "errors",
            "plot",
            "Distance of O to the final output, and to the exact answer so far",
            span=6,
            layout=error,
            height=215,
        ),
        view(
            "state",
            "plot",
            "Stored per row: m, the max so far, and ln l; and where they end",
            span=6,
            layout=state,
            height=215,
        ),
        view("moved", "plot", "Elements moved between slow and fast memory", span=7, layout=moved, height=140),
        view("told", "text", "", span=5, height=160),
    ]
    return [player("film", "", views, scrub="tile", rate=3, bar_before=2)]


def grid_layout(text: str) -> dict[str, Any]:
    """Keys across, queries down, both named by their characters."""
    length, each = len(text), 1 + (len(text) - 1) // MOST_TICKS
    places = list(range(1, length + 1, each))
    across = {
        "range": [0.5, length + 0.5],
        "tickvals": places,
        "ticktext": [visible(text[at - 1]) for at in places],
        "showgrid": False,
    }
    layout = chart(
        axis("keys", f"every {each} characters" if each > 1 else "characters"), axis("queries", "characters")
    )
    layout["xaxis"] |= across | {"tickangle": 0, "zeroline": False}
    layout["yaxis"] |= across | {"range": [length + 0.5, 0.5], "zeroline": False}
    layout["margin"] |= {"l": 46}
    return layout


def draw_tiles(step: TilesStep, sketch: Sketch) -> None:
    if step.done and step.figures:  # the last Step tells the last frame again
        return
    sketch.frame(
        "film",
        label_of(step),
        grid=grid_of(step),
        output=output_of(step),
        errors=errors_of(step),
        state=state_of(step),
        moved=moved_of(step),
        told=told_of(step),
    )


def label_of(step: TilesStep) -> str:
    return f"tile {step.done} of {step.tiles}"


def grid_of(step: TilesStep) -> list[dict[str, Any]]:
    """Weights relative to the largest seen in their row, borders of the tiles, and the frame of the present one."""
    length = len(step.weights)
    places = list(range(1, length + 1))
    shades = [[at, f"rgba({', '.join(map(str, BLUE))}, {alpha})"] for at, alpha in SHADES]
    packed = {
        "dtype": "u1",
        "shape": f"{length}, {length}",
        "bdata": base64.b64encode((255 * step.weights).astype("uint8").tobytes()).decode(),
    }
    weights = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": packed,
        "zmin": 0,
        "zmax": 255,
        "colorscale": shades,
        "showscale": False,
        "name": "weights",
        "hovertemplate": "query %{y} looks at key %{x}<extra></extra>",
    }
    traces = [weights, borders_of(length, *step.tile, step.causal)]
    if step.causal:
        traces.append(TEXT | {"x": [0.7 * length], "y": [0.22 * length], "text": ["future: never computed"]})
    if step.done:
        (top, bottom), (left, right) = ((first + 0.5, last + 0.5) for first, last in (step.rows, step.keys))
        traces.append(
            curve([left, right, right, left, left], [top, top, bottom, bottom, top], "present tile", "b")
            | {"line": {"width": 3}}
        )
    return traces


def borders_of(length: int, rows: int, keys: int, causal: bool) -> dict[str, Any]:
    """The outlines of all tiles that will be computed; of very many, none."""
    xs, ys = list[float | None](), list[float | None]()
    if max(length / rows, length / keys) <= 20:
        for left in range(0, length, keys):
            for top in range(0, length, rows):
                right, bottom = min(left + keys, length) + 0.5, min(top + rows, length) + 0.5
                if not causal or left + 0.5 < bottom:
                    xs += [left + 0.5, right, right, left + 0.5, left + 0.5, None]
                    ys += [top + 0.5, top + 0.5, bottom, bottom, top + 0.5, None]
    return curve(xs, ys, "tiles", "grid") | {"line": {"width": 1}, "hoverinfo": "skip"}


def output_of(step: TilesStep) -> dict[str, Any]:
    reach = float(abs(step.exact).max())
    maps = [step.out, step.exact, step.exact - step.out]
    stacked = step.out.reshape(1, 1, *step.out.shape).repeat(3, axis=1)
    for place, one in enumerate(maps):
        stacked[0, place] = one
    return heat(stacked, ["O so far", "exact", "still missing"], low=-reach, high=reach)


def errors_of(step: TilesStep) -> list[dict[str, Any]]:
    """The distance to the final output ends on that to the exact answer so far, which is at zero all the time."""
    each = step.done / max(1, len(step.to_last) - 1)
    xs = [round(each * frame, 2) for frame in range(len(step.to_last))]
    ends = [
        dots(xs[-1:], errors[-1:], "", colour) | {"showlegend": False}
        for errors, colour in ((step.to_last, "b"), (step.to_seen, "a"))
    ]
    named = TEXT | {
        "x": [0.5 * step.tiles],
        "y": [0.09],
        "text": [f"exact so far: error {step.to_seen[-1]:.0e}" if step.done else "nothing seen yet"],
    }
    reach = TEXT | {"x": [step.tiles], "y": [0.5], "text": [""]}  # the axis reaches to the end from the start
    return [
        curve(xs, step.to_last, "to the final output", "b"),
        curve(xs, step.to_seen, "to the exact answer so far", "a"),
        *ends,
        named,
        reach,
    ]


def state_of(step: TilesStep) -> list[dict[str, Any]]:
    """m and ln l of every row; a row that has seen nothing has none."""
    queries = list(range(1, len(step.row_max) + 1))
    traces = [
        curve(queries, values.tolist(), name, "level") | {"line": {"width": 1}}
        for values, name in ((step.last_max, "last m"), (step.last_log_sum, "last ln l"))
    ]
    for values, name, colour in ((step.row_max, "m", "b"), (step.log_sum, "ln l", "a")):
        known = [value if abs(value) < 1e30 else None for value in values.tolist()]
        traces.append(dots(queries, known, name, colour) | {"marker": None})
    return traces


def moved_of(step: TilesStep) -> list[dict[str, Any]]:
    """What has been moved, and, pale, what will have been."""
    labels, now, end = ["standard", "tiles"], [step.moved_full, step.moved], [step.predicted[1], step.predicted[0]]
    told = {"type": "bar", "orientation": "h", "y": labels}
    gone = told | {"x": now, "name": "moved", "colours": ["b", "a"]}
    rest = told | {
        "x": [max(0, whole - part) for whole, part in zip(end, now, strict=True)],
        "name": "to come",
        "colours": ["grid", "grid"],
    }
    words = [f" {part:,} of {whole:,}" for part, whole in zip(now, end, strict=True)]
    beside = TEXT | {"x": end, "y": labels, "text": words, "textposition": "middle right"}
    room = TEXT | {"x": [rounded(2.3 * max(end))], "y": labels[:1], "text": [""]}
    return [gone, rest, beside, room]


def told_of(step: TilesStep) -> str:
    """What happens in this frame, in words."""
    fast = f"fast memory: at most {step.fast[0]:,} elements"
    if not step.done:
        return (
            f"nothing seen yet: O = 0, m = -inf, l = 0\n{step.tiles} tiles to come\n{fast}\nthe matrix would be"
            f" {len(step.weights) ** 2:,}"
        )
    found = (
        f"{step.rescaled} rows found a larger score:\n  times e^(m-m'), at least {step.factor:.2g}"
        if step.rescaled
        else "no row found a larger score\n  (or it had seen none before)"
    )
    rows, keys = (f"{first + 1}-{last}" for first, last in (step.rows, step.keys))
    error = f"from the exact answer so far: {step.to_seen[-1]:.0e}\nfrom the final output: {step.to_last[-1]:.0e}"
    return f"queries {rows} meet keys {keys}\n{found}\n{error}\n{fast}\nthe matrix would be {len(step.weights) ** 2:,}"
