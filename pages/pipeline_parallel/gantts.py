"""Charts of work over time: what the three pictures of this tab share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLOURS = {"F": "a", "B": "b", "I": "b", "W": "c"}  # by the letters of watched.KINDS: "FBIW"
LEGEND = "blue: forward, orange: backward, grey: waiting"
SPLIT = "blue: forward, orange: input gradient, green: weight gradient, grey: waiting"
ALL = "Blue: forward, orange: backward (only of inputs where split), green: of weights, paler: later stages, grey: waiting"
LATER, PALE = 0.65, 0.22  # how strong a rank's second and later stages are, and what has not run yet
CELLS = {letter: [COLOURS[letter.upper()], 1 if letter.islower() else LATER] for letter in "fbiwFBIW"}
FRAMES = 48


def legend(schedule: str) -> str:
    words = SPLIT if schedule in ("split", "zbv") else LEGEND
    return words + (", paler: later stages" if schedule in ("interleaved", "split", "zbv") else "")


def work(chart: Any, span: float, unit: str, *, pale: bool = False) -> dict[str, Any]:
    """Data of a gantt view from arrays (start, length, kind, micro-batch, which stage of the rank)."""
    rows = []
    for rank, told in enumerate(chart):
        bars = [
            [round(float(start), 2), round(float(length), 2), COLOURS["FBIW"[int(kind)]], str(int(micro)), PALE if pale else LATER if own else 1]
            for start, length, kind, micro, own in told
        ]
        rows.append({"name": f"rank {rank}", "bars": bars})
    return {"rows": rows, "span": span, "end": 0 if pale else end_of(chart), "unit": unit}


def sampled(cells: Sequence[str], span: float, end: float, unit: str) -> dict[str, Any]:
    """The same for many actions: a letter per moment."""
    return {"rows": [{"name": f"rank {rank}", "cells": row} for rank, row in enumerate(cells)], "keys": CELLS, "span": span, "end": end, "unit": unit}


def end_of(chart: Any) -> float:
    return max((float(row[-1][0] + row[-1][1]) for row in chart), default=0.0)


def film(views: Mapping[str, dict[str, Any]], span: float, unit: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first frame has the charts, every frame a time: the browser draws what is in between."""
    for frame in range(FRAMES + 1):
        now = span * frame / FRAMES
        yield f"{now:,.0f} {unit}", {name: (data if frame == 0 else {}) | {"at": round(now, 2)} for name, data in views.items()}
