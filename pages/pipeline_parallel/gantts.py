"""Charts of work over time: what the three pictures of this tab share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLOURS = {"F": "a", "B": "b", "I": "b", "W": "c"}  # by the letters of watched.KINDS: "FBIW"
WAITING = ("grid", "waiting")
LEGEND = [("a", "forward"), ("b", "backward"), WAITING]
SPLIT = [("a", "forward"), ("b", "backward, for the inputs"), ("c", "backward, for the weights"), WAITING]
ALL = [
    ("a", "forward"),
    ("b", "backward (where split: for the inputs)"),
    ("c", "backward, for the weights"),
    ("a", "a rank's later stages", "pale"),
    WAITING,
]
NOT_YET = ("a", "not run yet", "pale")
LATER, PALE = 0.65, 0.22  # how strong a rank's second and later stages are, and what has not run yet
CELLS = {letter: [COLOURS[letter.upper()], 1 if letter.islower() else LATER] for letter in "fbiwFBIW"}
FRAMES = 48


def legend(schedule: str) -> list[tuple[str, ...]]:
    """What the colors of a schedule mean."""
    meanings = SPLIT if schedule in ("split", "zbv") else LEGEND
    later = schedule in ("interleaved", "split", "zbv")
    return [*meanings, *([("a", "a rank's later stages", "pale")] if later else [])]


def work(chart: Any, span: float, unit: str, *, pale: bool = False) -> dict[str, Any]:
    """Data of a gantt view from arrays (start, length, kind, micro-batch, which stage of the rank)."""
    rows = []
    for rank, told in enumerate(chart):
        bars = [
            [
                round(float(start), 2),
                round(float(length), 2),
                COLOURS["FBIW"[int(kind)]],
                str(int(micro)),
                PALE if pale else LATER if own else 1,
            ]
            for start, length, kind, micro, own in told
        ]
        rows.append({"name": f"rank {rank}", "bars": bars})
    return {"rows": rows, "span": span, "end": 0 if pale else end_of(chart), "unit": unit}


def sampled(cells: Sequence[str], span: float, end: float, unit: str) -> dict[str, Any]:
    """The same for many actions: a letter per moment."""
    return {
        "rows": [{"name": f"rank {rank}", "cells": row} for rank, row in enumerate(cells)],
        "keys": CELLS,
        "span": span,
        "end": end,
        "unit": unit,
    }


def end_of(chart: Any) -> float:
    return max((float(row[-1][0] + row[-1][1]) for row in chart), default=0.0)


def film(views: Mapping[str, dict[str, Any]], span: float, unit: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first frame has the charts, every frame a time: the browser draws what is in between."""
    for frame in range(FRAMES + 1):
        now = span * frame / FRAMES
        yield (
            f"{now:,.0f} {unit}",
            {name: (data if frame == 0 else {}) | {"at": round(now, 2)} for name, data in views.items()},
        )
