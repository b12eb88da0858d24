"""The player: frames computed once, sent once, played in the browser (assets/player.js).

A player is a panel with views that share one timeline. `Sketch.frame(player, label, view_id=data, ...)` adds a frame.
Without a timeline a view stands as a panel of its own, and `Sketch.show(view_id, data)` replaces what it shows.

| view | data of a frame |
|---|---|
| lines | none: `charts.lines(...)`, fed by `Sketch.point`; a cursor stands at the frame's `at` |
| text | the text |
| reader | {"text", "shade"}: what this frame adds to the text and how strongly it is shaded, 0 to 1 |
| chips | {"chips": [[text, new], ...]}: a text in pieces, side by side in changing colours; new ones have a frame |
| matrix | `charts.heat(...)` |
| pictures | {"columns", "pictures": [`charts.picture(...)`, ...]}: small pictures in rows, every pixel a square |
| anatomy | {"place", "layer", "head", "give"}: an opened transformer as a map to fly over; see pages/nanogpt/inside.py
| brush | {"picture": `charts.picture(...)`, "field", "cells"}: a picture to paint on; the setting `field` (text) holds what is painted, row by
  row, a hexadecimal digit for each four of the cells x cells squares. Not in a player |
| draw | shapes [{"id", "kind": text, circle, rect or line, "x", "y", "w", "h", "text", "fill"}]; equal ids move smoothly |
| gantt | {"span", "end", "unit", "rows": [{"name", "bars": [[start, length, colour, text, strong], ...]}, ...]}: a row per worker, what it
  does over time (`strong` is from 0 to 1). A row of very many has {"cells": "aab.."}, a letter per moment, with
  {"keys": {letter: [colour, strong]}} beside the rows. A frame {"at": time} shows the latest rows up to that time |
| plot | Plotly traces: a list of `charts.dots(...)`, `charts.columns(...)`, `charts.curve(...)` ..., or `charts.bars(...)` |
| pairs | {"pairs": [[text, text], ...], "field", "chooser", "me", "picks", "who", "fewest"}: two texts to choose from; a click puts "a" or "b" into
  the setting `field` and `me` into the setting `chooser`, and runs; `picks` are the choices of `who` else chooses;
  `fewest` clicks are needed to run |
"""  # noqa: E501 (a table)

from collections.abc import Sequence
from typing import Any, Literal

View = dict[str, Any]


SIGNS = [("a", "below 0"), ("b", "above 0")]  # the legend of a signed matrix


def view(
    id: str,
    kind: Literal[
        "anatomy", "lines", "text", "reader", "chips", "matrix", "pictures", "brush", "draw", "gantt", "plot", "pairs"
    ],
    title: str,
    *,
    span: int = 12,
    **options: Any,
) -> View:
    """options: hint, square, signed, words (matrix); aspect, height, x (draw); layout, height, steady (plot: the bars
    of all frames on one axis); height, narrow, prose (text: the second is the height on a phone; prose is a sentence of
    the page, in its letters); row, most (gantt: the height of a row, and of all rows at most); least, most (pictures:
    the side of one); most, radius (brush).

    signed: the middle of the range has the colour of nothing, the ends two colours. words: what pointing at a cell
    says, with {name}, {from} or {row}, {to} or {column}, {value}.
    """
    return {"id": id, "type": kind, "title": title, "span": span} | options


def player(
    id: str, title: str, views: Sequence[View], *, scrub: str, rate: float = 4.0, bar_before: int | None = None
) -> dict[str, Any]:
    """scrub: what the slider moves through ("training step"); rate: frames per second at speed 1.

    bar_before: index of the view that the buttons and the slider stand before; None puts them last.
    """
    return {
        "id": id,
        "type": "player",
        "title": title,
        "views": list(views),
        "scrub": scrub,
        "rate": rate,
        "bar_before": bar_before,
    }
