"""The diagram of a topic: the figure of its paper, alive. A small vocabulary; assets/js/diagram.js draws it.

A topic's `pages/<topic>/diagram.py` has `diagram(config) -> Diagram`; sizes come from the Config. A shape with a `part`
lights up while a Step says that this part did the work, and shows the run's number in place of its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Shape = dict[str, Any]


@dataclass(frozen=True)
class Diagram:
    """shapes in the order in which they are drawn; width and height in units of about a pixel; alt: the picture in
    words.
    """

    shapes: Sequence[Shape]
    width: int
    height: int
    alt: str
    caption: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "shapes": list(self.shapes),
            "size": [self.width, self.height],
            "alt": self.alt,
            "caption": self.caption,
        }


def box(
    x: int, y: int, w: int, h: int, title: str, size: str = "", *, part: str = "", color: str = "a", kind: str = "box"
) -> Shape:
    """A part that computes. size: a second line, its shape or its number of weights."""
    return {"kind": kind, "x": x, "y": y, "w": w, "h": h, "title": title, "size": size, "part": part, "color": color}


def matrix(x: int, y: int, w: int, h: int, title: str, size: str = "", *, part: str = "", color: str = "a") -> Shape:
    """Weights or activations, with lines like squared paper."""
    return box(x, y, w, h, title, size, part=part, color=color, kind="matrix")


def stack(
    x: int, y: int, w: int, h: int, count: int, title: str, size: str = "", *, part: str = "", color: str = "a"
) -> Shape:
    """Several of the same behind each other: layers, heads, ranks."""
    return box(x, y, w, h, title, size, part=part, color=color, kind="stack") | {"count": max(1, min(count, 6))}


def group(x: int, y: int, w: int, h: int, title: str, *, color: str = "level") -> Shape:
    """A frame around parts that belong together, its title on top."""
    return box(x, y, w, h, title, color=color, kind="group")


def label(x: int, y: int, text: str, *, color: str = "text", part: str = "") -> Shape:
    """Words without a frame."""
    return {"kind": "label", "x": x, "y": y, "w": 0, "h": 0, "title": text, "part": part, "color": color}


def arrow(*points: tuple[int, int]) -> Shape:
    """Where data flows: through these points, with a tip at the last."""
    return {"kind": "arrow", "points": [list(point) for point in points]}
