r"""Captioned shapes: an endless world of small pictures with captions, drawn from a seed.

A scene is one object (or two, with a relation) on a black or a white ground: a colour, a shape, a size, a place. It is
drawn with anti-aliasing: a pixel whose centre lies $d$ pixels outside a shape's outline (its signed distance) is
covered by $\min(1, \max(0, \tfrac12 - d))$.

**What is never shown.** Eight of the 48 pairs of colour and shape are held out: no training picture and no training
caption has them. A model that has learned "red" and "diamond" can still know a red diamond; one that has learned pairs
by heart cannot. So that "red is never a diamond" cannot be learned as a shortcut, some training pictures are grey and
their captions name no colour.

**What captions leave out.** Size, place and ground are told only now and then, so a picture knows more than its
caption.

Left out: overlapping objects, rotation, texture, perspective.
Source: signed distances of polygons: Inigo Quilez, iquilezles.org/articles/distfunctions2d.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

COLOURS = {
    "red": (0.88, 0.13, 0.13), "orange": (0.98, 0.55, 0.05), "yellow": (0.93, 0.85, 0.10), "green": (0.10, 0.62, 0.20),
    "cyan": (0.10, 0.78, 0.85), "blue": (0.13, 0.25, 0.90), "purple": (0.52, 0.15, 0.72), "pink": (0.98, 0.50, 0.75),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
GREY = len(COLOURS)  # the colour of colourless training pictures
TINTS = (*COLOURS.values(), (0.5, 0.5, 0.5))
GROUNDS = {"black": 0.04, "white": 0.97}
SIZES = {"small": (6.0, 7.5), "large": (9.0, 11.0)}  # radius in pixels of one object, 32 x 32
TWO_RADIUS = (5.0, 7.0)
LARGE_16 = (4.5, 6.0)  # of the one large object in a 16 x 16 picture
PLACES = ("in the middle", "on the left", "on the right", "at the top", "at the bottom")
RELATIONS = ("left of", "right of", "above", "below")
HELD_OUT = frozenset({("red", "diamond"), ("orange", "circle"), ("yellow", "star"), ("green", "square"),
                      ("cyan", "triangle"), ("blue", "cross"), ("purple", "circle"), ("pink", "square")})  # fmt: skip
BEGINNINGS = ("", "a picture of ", "there is ", "this is ", "a drawing of ")
CONTEXT = 24  # tokens of a caption, start and end included

PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


@dataclass(frozen=True)
class Scenes:
    """N scenes of up to two objects; places and radii in pixels."""

    side: int
    count: Int[np.ndarray, "N"]  # 1 or 2 objects
    colour: Int[np.ndarray, "N 2"]  # index into COLOURS, or GREY
    shape: Int[np.ndarray, "N 2"]  # index into SHAPES
    radius: Float[np.ndarray, "N 2"]
    x: Float[np.ndarray, "N 2"]
    y: Float[np.ndarray, "N 2"]
    ground: Int[np.ndarray, "N"]  # index into GROUNDS

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, chosen: slice | np.ndarray) -> "Scenes":
        arrays: dict[str, Any] = {name: value[chosen] for name, value in vars(self).items() if name != "side"}
        return replace(self, **arrays)

    def at(self, side: int) -> "Scenes":
        """The same scenes on a canvas of another size."""
        times = side / self.side
        return replace(self, side=side, radius=self.radius * times, x=self.x * times, y=self.y * times)

    def pair(self, number: int, thing: int = 0) -> tuple[str, str]:
        """(colour, shape) of an object; the colour of a grey one is ''."""
        colour = int(self.colour[number, thing])
        return ("" if colour == GREY else tuple(COLOURS)[colour]), SHAPES[self.shape[number, thing]]


# --- drawing lots -----------------------------------------------------------------------------------------------------


@cache
def pair_codes(held_out: bool | None) -> Int[np.ndarray, "P 2"]:
    """(colour, shape) as indices: the held-out pairs, the others, or (None) all."""
    chosen = PAIRS if held_out is None else [pair for pair in PAIRS if (pair in HELD_OUT) == held_out]
    return np.array([(tuple(COLOURS).index(colour), SHAPES.index(shape)) for colour, shape in chosen])


def draw(
    rng: np.random.Generator,
    n: int,
    *,
    two: float = 0.0,
    grey: float = 0.0,
    held_out: bool | None = False,
    pairs: Sequence[tuple[str, str]] = (),
    side: int = 32,
) -> Scenes:
    """n scenes. two: share with two objects; grey: share without colour; held_out: only those pairs, only the others,
    or (None) any.

    pairs: the colour and shape of each scene's object, where they are not left to chance. side 16: one large object.
    """
    codes = pair_codes(held_out)[rng.integers(len(pair_codes(held_out)), size=(n, 2))]
    if pairs:
        codes[:, 0] = [(tuple(COLOURS).index(colour), SHAPES.index(shape)) for colour, shape in pairs]
    count = np.where(rng.random(n) < two, 2, 1)
    colour, shape = codes[..., 0].copy(), codes[..., 1]
    colour[rng.random(n) < grey] = GREY
    if side == 16:
        radius = rng.uniform(*LARGE_16, size=(n, 2))
    else:
        low, high = size_bounds(rng, n)
        radius = np.where(count == 1, rng.uniform(low, high), 0.0)[:, None] + np.where(count == 2, 1, 0)[
            :, None
        ] * rng.uniform(*TWO_RADIUS, size=(n, 2))
    x, y = (rng.uniform(radius + 0.5, side - radius - 0.5) for _ in range(2))
    pairs_apart(rng, count, radius, x, y, side)
    return Scenes(side, count, colour, shape, radius, x, y, rng.integers(len(GROUNDS), size=n))


def size_bounds(rng: np.random.Generator, n: int) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    bounds = np.array(list(SIZES.values()))[rng.integers(len(SIZES), size=n)]
    return bounds[:, 0], bounds[:, 1]


def pairs_apart(
    rng: np.random.Generator, count: np.ndarray, radius: np.ndarray, x: np.ndarray, y: np.ndarray, side: int
) -> None:
    """Two objects go to two halves of the picture, side by side or one above the other, in place."""
    n = len(count)
    along = rng.integers(2, size=n)  # 0: side by side, 1: one above the other
    first = rng.integers(2, size=n)  # which of the two is left, or above
    for thing in range(2):
        low = (first == thing).astype(int)  # 1: in the first half
        centre = np.where(low == 1, side / 4, 3 * side / 4) + rng.uniform(-1, 1, size=n)
        centre = centre.clip(radius[:, thing] + 0.5, side - radius[:, thing] - 0.5)
        x[:, thing] = np.where((count == 2) & (along == 0), centre, x[:, thing])
        y[:, thing] = np.where((count == 2) & (along == 1), centre, y[:, thing])


# --- pictures ---------------------------------------------------------------------------------------------------------


def polygon(corners: Sequence[tuple[float, float]], px: Tensor, py: Tensor) -> Tensor:
    """Signed distance to a polygon given for radius 1, negative inside. px, py: any shape."""
    nearest = torch.full_like(px, math.inf)
    inside = torch.zeros_like(px, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = px - ax, py - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (wx - ex * along).square() + (wy - ey * along).square())
        if ey:
            crosses = ((ay > py) != (by > py)) & (px < ex * (py - ay) / ey + ax)
            inside ^= crosses
    return torch.where(inside, -1.0, 1.0) * nearest.sqrt()


def ring(radii: Sequence[float], turn: float) -> list[tuple[float, float]]:
    """Corners around the centre, at the given radii in turn."""
    return [
        (r * math.sin(turn + 2 * math.pi * i / len(radii)), -r * math.cos(turn + 2 * math.pi * i / len(radii)))
        for i, r in enumerate(radii)
    ]


ARM = 0.34  # half the width of a cross's arms
CORNERS = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0.0, -0.95), (1.0, 0.78), (-1.0, 0.78)],
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "star": ring([1.05, 0.42] * 5, 0.0),
    "cross": [
        (-ARM, -1),
        (ARM, -1),
        (ARM, -ARM),
        (1, -ARM),
        (1, ARM),
        (ARM, ARM),
        (ARM, 1),
        (-ARM, 1),
        (-ARM, ARM),
        (-1, ARM),
        (-1, -ARM),
        (-ARM, -ARM),
    ],
}  # of radius 1, y downwards


def distance(shape: str, px: Tensor, py: Tensor) -> Tensor:
    """Signed distance in units of the radius."""
    return (px.square() + py.square()).sqrt() - 1 if shape == "circle" else polygon(CORNERS[shape], px, py)


def render(scenes: Scenes) -> Float[Tensor, "N 3 H W"]:
    """The pictures, values from 0 to 1."""
    n, side = len(scenes), scenes.side
    picture = (
        torch.tensor(list(GROUNDS.values()), dtype=torch.float32)[torch.from_numpy(scenes.ground)]
        .view(n, 1, 1, 1)
        .repeat(1, 3, side, side)
    )
    centres = torch.arange(side) + 0.5
    tints = torch.tensor(TINTS, dtype=torch.float32)
    for thing in range(2):
        there = scenes.count > thing
        for code, shape in enumerate(SHAPES):
            own = np.flatnonzero(there & (scenes.shape[:, thing] == code))
            if not len(own):
                continue
            radius, x, y = (
                torch.from_numpy(part[own, thing]).float().view(-1, 1, 1)
                for part in (scenes.radius, scenes.x, scenes.y)
            )
            px = ((centres.view(1, 1, -1) - x) / radius).expand(-1, side, side)
            py = ((centres.view(1, -1, 1) - y) / radius).expand(-1, side, side)
            cover = (0.5 - distance(shape, px, py) * radius).clamp(0, 1)[:, None]  # (n, 1, H, W)
            tint = tints[torch.from_numpy(scenes.colour[own, thing])].view(-1, 3, 1, 1)
            picture[own] = picture[own] * (1 - cover) + tint * cover
    return picture


# --- captions ---------------------------------------------------------------------------------------------------------


def place_of(x: float, y: float, side: int) -> str:
    dx, dy = x - side / 2, y - side / 2
    if max(abs(dx), abs(dy)) < side / 12:
        return PLACES[0]
    return PLACES[1 + (dx > 0)] if abs(dx) >= abs(dy) else PLACES[3 + (dy > 0)]


def relation_of(scenes: Scenes, number: int) -> str:
    """How the first object lies to the second."""
    dx, dy = (float(part[number, 0] - part[number, 1]) for part in (scenes.x, scenes.y))
    return RELATIONS[dx > 0] if abs(dx) >= abs(dy) else RELATIONS[2 + (dy > 0)]


def noun(scenes: Scenes, number: int, thing: int, size: bool = False) -> str:
    colour, shape = scenes.pair(number, thing)
    radius = scenes.radius[number, thing]
    large = next(name for name, (_, high) in SIZES.items() if radius <= high + 1e-6)
    words = " ".join(word for word in (large if size else "", colour, shape) if word)
    return article(words)


def article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def caption(scenes: Scenes, number: int, rng: np.random.Generator, told: float = 0.4) -> str:
    """Words for a scene. told: how often size, place and ground are each mentioned."""
    mentions = rng.random(3) < told
    if scenes.count[number] == 2:
        first, second = noun(scenes, number, 0), noun(scenes, number, 1)
        words = f"{first} {relation_of(scenes, number)} {second}"
    else:
        words = noun(scenes, number, 0, bool(mentions[0]) and scenes.side == 32)
        words += f" {place_of(scenes.x[number, 0], scenes.y[number, 0], scenes.side)}" if mentions[1] else ""
    words = BEGINNINGS[rng.integers(len(BEGINNINGS))] + words
    return words + (f" on {tuple(GROUNDS)[scenes.ground[number]]}" if mentions[2] else "")


def captions(scenes: Scenes, rng: np.random.Generator, told: float = 0.4) -> list[str]:
    return [caption(scenes, number, rng, told) for number in range(len(scenes))]


def prompt(colour: str, shape: str) -> str:
    return article(f"{colour} {shape}")


# --- tokens -----------------------------------------------------------------------------------------------------------

LITTLE = ("a", "an", "of", "picture", "drawing", "there", "is", "this", "in", "on", "at", "the")
WORDS = (*COLOURS, *SHAPES, *SIZES, *GROUNDS, *LITTLE, "left", "right", "above", "below", "top", "bottom", "middle")
PAD, START, END = (
    0,
    len(WORDS) + 1,
    len(WORDS) + 2,
)  # the end has the largest number: CLIP reads its state at the largest token
VOCABULARY = END + 1
NUMBERS = {word: number + 1 for number, word in enumerate(WORDS)}


def words_of(text: str) -> list[str]:
    """Its words in small letters, without commas and full stops."""
    return text.lower().replace(",", " ").replace(".", " ").split()


def asked_pair(text: str) -> tuple[str, str] | None:
    """(colour, shape) that a text asks for; None if it does not name exactly one of each."""
    words = words_of(text)
    colours, shapes = [word for word in words if word in COLOURS], [word for word in words if word in SHAPES]
    return (colours[0], shapes[0]) if len(colours) == len(shapes) == 1 else None


def tokens_of(texts: Sequence[str]) -> Int[Tensor, "N 24"]:
    """Words as numbers, start and end around them; a ValueError that names the words this world does not know."""
    rows = torch.full((len(texts), CONTEXT), PAD, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        words = words_of(text)
        unknown = list(dict.fromkeys(word for word in words if word not in NUMBERS))
        if unknown:
            known = ", ".join(word for word in WORDS if word not in LITTLE)
            raise ValueError(
                f"This small world does not know {', '.join(repr(word[:12]) for word in unknown[:2])}; it knows:"
                f" {known}, and little words like 'on the'"
            )
        if not words:
            raise ValueError(
                "The prompt is empty: write some of the words that this small world knows, like 'a red circle on the"
                " left'"
            )
        if len(words) > CONTEXT - 2:
            raise ValueError(f"A prompt may have at most {CONTEXT - 2} words, got {len(words)}")
        row[: len(words) + 2] = torch.tensor([START, *(NUMBERS[word] for word in words), END])
    return rows
