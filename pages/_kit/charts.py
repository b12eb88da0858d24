"""The whole chart vocabulary: what a tab's main picture can be made of, and how Steps add to it.

A picture is a list of panels, each a plain dict that assets/viz.js and assets/player.js draw in the browser. Axis
titles come with units, both required. Colours are names (a, b, c ... are colour-blind safe), so that light and dark
each have their own.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

Panel = dict[str, Any]

MOST_POINTS = 1000  # of a line in the last message of a run, which tells everything again


def axis(title: str, unit: str, high: float | None = None) -> dict[str, Any]:
    """An axis with its unit, if it has one; `high` is how far it reaches before there is data."""
    return {"title": f"{title} ({unit})" if unit else title, "high": high}


def series(id: str, label: str, colour: str, *, dots: bool = False, faint: bool = False) -> dict[str, Any]:
    return {"id": id, "label": label, "colour": colour, "dots": dots, "faint": faint}


def lines(
    id: str,
    title: str,
    x: dict[str, Any],
    y: dict[str, Any],
    members: Sequence[dict[str, Any]],
    *,
    span: int = 12,
    height: int = 300,
) -> Panel:
    """A live line chart.

    `Sketch.point` adds to it, `Sketch.levels` draws horizontal lines, `Sketch.marks` vertical ones.
    """
    return {
        "id": id,
        "type": "lines",
        "title": title,
        "x": x,
        "y": y,
        "series": list(members),
        "span": span,
        "height": height,
    }


def text(id: str, title: str, *, span: int = 12, height: int | None = None) -> Panel:
    """A text that `Sketch.text` replaces."""
    return {"id": id, "type": "text", "title": title, "span": span, "height": height}


def heat(
    values: Any,
    names: Sequence[str],
    *,
    left: Sequence[str] = (),
    below: str = "",
    top: str = "",
    low: float = 0.0,
    high: float = 1.0,
) -> dict[str, Any]:
    """Heat maps for one frame of a `matrix` view. values: array (rows, columns, height, width) of numbers from low to
    high.

    left: a label per line of a map; below: a character per column; top: the characters of a square map, for hovering.
    """
    scaled = ((values - low) / ((high - low) or 1.0)).clip(0, 1) * 255
    told: dict[str, Any] = {
        "shape": list(values.shape),
        "bytes": base64.b64encode(scaled.astype("uint8").tobytes()).decode(),
        "names": list(names),
    }
    told |= {"low": low, "high": high} if (low, high) != (0.0, 1.0) else {}
    return told | {name: value for name, value in (("left", list(left)), ("below", below), ("top", top)) if value}


def numbers(values: Any, *, coarse: bool = False) -> dict[str, Any]:
    """An array of numbers for the browser, as steps of its largest one: 16 bits each, or 8 where nobody computes with
    them (assets/js/anatomy/model.js reads it).
    """
    most, steps = float(abs(values).max()) or 1.0, 127 if coarse else 32767
    counted = (values / most * steps).round().astype("i1" if coarse else "<i2")
    text = base64.b64encode(counted.tobytes()).decode()
    return {"shape": list(values.shape), "bytes": text, "most": most, "steps": steps}


def picture(values: Any, name: str = "", *, under: str = "", mark: str = "") -> dict[str, Any]:
    """One of the small pictures of a `pictures` view. values: array (3, height, width) from 0 to 1.

    name: stands above it; under: below it; mark: the colour of its frame.
    """
    told = {"wide": values.shape[2], "high": values.shape[1], "name": name, "under": under, "mark": mark}
    pixels = (values.clip(0, 1) * 255).round().astype("uint8").transpose(1, 2, 0)
    return {key: value for key, value in told.items() if value} | {"bytes": base64.b64encode(pixels.tobytes()).decode()}


# --- Plotly charts: a layout, and traces as the data of a frame ---


def chart(
    x: dict[str, Any],
    y: dict[str, Any],
    *,
    log_x: bool = False,
    log_y: bool = False,
    stacked: bool = False,
    legend: bool = False,
) -> dict[str, Any]:
    """The layout of a `plot` view with numbers on both axes. stacked: bars stand on each other."""
    named: list[dict[str, Any]] = [
        {"title": {"text": one["title"]}} | ({"range": [0, one["high"]]} if one["high"] else {}) for one in (x, y)
    ]
    for one, log in zip(named, (log_x, log_y), strict=True):
        one |= {"type": "log", "dtick": 1, "exponentformat": "power"} if log else {}
    return frame_of(named[0], named[1], 62, legend) | ({"barmode": "stack"} if stacked else {})


def ranking(
    x: dict[str, Any], y: dict[str, Any], *, stacked: bool = False, legend: bool = False, left: int = 104
) -> dict[str, Any]:
    """The layout of a `plot` view with a name per line and horizontal bars, the first on top."""
    across = {"title": {"text": x["title"]}, "range": [0, x["high"]] if x["high"] else None}
    down = {"title": {"text": y["title"]}, "autorange": "reversed", "type": "category", "dtick": 1}
    return frame_of(across, down, left, legend) | ({"barmode": "stack"} if stacked else {})


def frame_of(x: dict[str, Any], y: dict[str, Any], left: int, legend: bool) -> dict[str, Any]:
    margin = {"l": left, "r": 12, "t": 30 if legend else 6, "b": 52}
    return {
        "xaxis": x,
        "yaxis": y,
        "margin": margin,
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        "transition": {"duration": 0},
    }


def bars(
    labels: Sequence[str], lengths: Sequence[float], marked: str = "", *, label: str = "", colour: str = ""
) -> list[dict[str, Any]]:
    """Horizontal bars for a `ranking`, the first one on top; one of them may be marked."""
    colours = [colour or ("b" if label == marked else "a") for label in labels]
    return [
        {
            "type": "bar",
            "orientation": "h",
            "x": [rounded(length) for length in lengths],
            "y": list(labels),
            "colours": colours,
            "name": label,
        }
    ]


def columns(
    xs: Sequence[float | str], heights: Sequence[float], label: str, colour: str, *, width: float | None = None
) -> dict[str, Any]:
    """Upright bars: a histogram, or kinds that stack."""
    told = {"type": "bar", "x": list(xs), "y": [rounded(height) for height in heights], "name": label, "colour": colour}
    return told | ({"width": width} if width else {})


def dots(
    xs: Sequence[Any],
    ys: Sequence[Any],
    label: str,
    colour: str,
    *,
    line: bool = False,
    errors: Sequence[float] = (),
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Points, with error bars and a name each where they are given; `line` joins them."""
    mode = "+".join(["markers"] + (["lines"] if line else []) + (["text"] if names else []))
    told: dict[str, Any] = {
        "type": "scatter",
        "mode": mode,
        "x": list(xs),
        "y": [None if y is None else rounded(y) for y in ys],
        "name": label,
        "colour": colour,
    }
    if errors:
        told["error_y"] = {"type": "data", "array": [rounded(error) for error in errors], "visible": True}
    return told | ({"text": list(names), "textposition": "top center"} if names else {})


def curve(
    xs: Sequence[Any], ys: Sequence[Any], label: str, colour: str, *, dash: bool = False, filled: bool = False
) -> dict[str, Any]:
    """A line without points. filled: an area that stands on the filled curve before it."""
    told: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": list(xs),
        "y": [None if y is None else rounded(y) for y in ys],
        "name": label,
        "colour": colour,
    }
    return told | ({"line": {"dash": "dash"}} if dash else {}) | ({"stackgroup": "one"} if filled else {})


def spikes(xs: Sequence[float], height: float, label: str, colour: str) -> dict[str, Any]:
    """Upright lines from 0 to `height`: the levels of a code, the places of something."""
    return curve(
        [part for x in xs for part in (x, x, None)], [part for _ in xs for part in (0.0, height, None)], label, colour
    )


def visible(text: str) -> str:
    """White space as signs one can see."""
    return text.replace("\n", "↵").replace(" ", "␣")


def rounded(value: float) -> float | None:
    """Five digits are more than a screen shows; JSON has no NaN and no infinity."""
    return float(f"{value:.5g}") if abs(value) < 1e300 else None


class Sketch:
    """Collects what Steps add to a picture, until the next message to the browser takes it."""

    def __init__(self) -> None:
        self.points: dict[
            str, dict[str, tuple[list[float], list[float | None]]]
        ] = {}  # all so far, by panel and series
        self.sent: dict[tuple[str, str], int] = {}
        self.updates: list[tuple[str, dict[str, Any]]] = []
        self.symbols = ""  # the alphabet of the run, once a Step has told it
        self.written = ""  # the text so far, where a run writes one

    def point(self, panel: str, member: str, x: float, y: float) -> None:
        xs, ys = self.points.setdefault(panel, {}).setdefault(member, ([], []))
        xs.append(x)
        ys.append(y if abs(y) < 1e30 else None)  # NaN and infinity are gaps in a line: JSON has neither

    def levels(self, panel: str, heights: Mapping[str, float]) -> None:
        self.updates.append((panel, {"levels": [{"label": label, "y": y} for label, y in heights.items()]}))

    def marks(self, panel: str, places: Mapping[str, float]) -> None:
        self.updates.append((panel, {"marks": [{"label": label, "x": x} for label, x in places.items()]}))

    def text(self, panel: str, words: str, marks: Sequence[tuple[int, int]] = ()) -> None:
        """marks: parts of the text to mark, as (first, end) in characters."""
        self.updates.append((panel, {"text": words} | ({"marks": [list(mark) for mark in marks]} if marks else {})))

    def show(self, panel: str, data: Any) -> None:
        """Replace what a `view` shows that stands as a panel of its own: traces, a heat map, shapes."""
        self.updates = [
            (other, told) for other, told in self.updates if other != panel or "shown" not in told
        ]  # only the latest is sent
        self.updates.append((panel, {"shown": data}))

    def frame(self, panel: str, label: str, **views: Any) -> None:
        self.updates.append((panel, {"frames": [{"label": label} | views]}))

    def film(self, panel: str, frames: Sequence[tuple[str, Mapping[str, Any]]], opens: int | None = None) -> None:
        """Replace all frames of a player: (label, data of each view). opens: the frame to show before anybody has moved
        it; None is the last.
        """
        self.updates = [(other, told) for other, told in self.updates if other != panel]
        self.updates.append(
            (
                panel,
                {"frames": [{"label": label} | dict(views) for label, views in frames], "whole": True, "opens": opens},
            )
        )

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """What is new since the last message."""
        new = [(panel, {"add": added}) for panel in self.points if (added := self.unsent(panel))]
        taken, self.updates = self.updates, []
        return taken + new

    def unsent(self, panel: str) -> dict[str, tuple[list[float], list[float | None]]]:
        added = {}
        for member, (xs, ys) in self.points[panel].items():
            first = self.sent.get((panel, member), 0)
            if first < len(xs):
                added[member] = (xs[first:], ys[first:])
                self.sent[panel, member] = len(xs)
        return added

    def take_whole(self) -> list[tuple[str, dict[str, Any]]]:
        """The last message of a run: what is new, and every line again with at most `MOST_POINTS` points."""
        taken, self.updates = self.updates, []
        whole = []
        for panel, members in self.points.items():
            thin = {member: (thinned(xs), thinned(ys)) for member, (xs, ys) in members.items()}
            whole.append((panel, {"add": thin, "whole": True}))
        return taken + whole


def thinned(values: list[Any]) -> list[Any]:
    """At most `MOST_POINTS` of the values, evenly spread, the last one included."""
    if len(values) <= MOST_POINTS:
        return values
    last = len(values) - 1
    return [values[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
