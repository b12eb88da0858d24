"""What a CLIP can learn here: pictures with captions, the names it chooses from, and unseen pictures to ask about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.foundations import captioned_shapes as shapes
from core.foundations.captioned_shapes import GREY, Scenes, draw, pair_codes, render

CURRICULUM = 600  # steps until twins, two objects and words on place and size are as frequent as they will be


@dataclass(frozen=True)
class Lot:
    """N pictures and their captions."""

    pictures: Float[Tensor, "N 3 32 32"]  # from 0 to 1
    captions: tuple[str, ...]
    tokens: Int[Tensor, "N L"]
    said: Int[Tensor, "N L"]  # the tokens without "there is", "a picture of" and the like


@dataclass(frozen=True)
class Quiz:
    """Unseen pictures, and which of the world's names is right for each."""

    pictures: Float[Tensor, "N 3 32 32"]
    answers: Int[np.ndarray, "N"]


@runtime_checkable
class World(Protocol):
    """What both worlds offer."""

    @property
    def names(self) -> tuple[str, ...]: ...  # to choose from
    @property
    def words(self) -> tuple[str, ...]: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def quizzes(self) -> tuple[str, ...]: ...  # kinds of unseen pictures

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "N L"]: ...
    def lot(self, rng: np.random.Generator, n: int, step: int) -> Lot: ...
    def probe(self, n: int) -> Lot: ...
    def quiz(self, kind: str, n: int, seed: int) -> Quiz: ...


def equal_captions(said: Int[Tensor, "N L"]) -> Bool[Tensor, "N N"]:
    """True where the captions of two different pictures say the same."""
    return (said[:, None] == said[None]).all(-1).fill_diagonal_(False)


# --- captioned shapes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shapes:
    """48 pairs of color and shape, eight of them never shown in training."""

    twins: bool = True
    grey: float = 0.25
    two: float = 0.35  # of the pictures, at the end of the curriculum

    names = tuple(shapes.prompt(*pair) for pair in shapes.PAIRS)
    words = shapes.WORDS
    vocabulary = shapes.VOCABULARY
    quizzes = ("seen pairs", "never seen pairs")

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "N L"]:
        return shapes.tokens_of(texts)

    def lot(self, rng: np.random.Generator, n: int, step: int) -> Lot:
        """Scenes to learn from.

        First one object and its name; then more and more twins, pairs of scenes that differ in one thing, and two
        objects.
        """
        grown = min(1.0, step / CURRICULUM)
        twins = round(n / 2 * grown) if self.twins else 0
        scenes = draw(rng, n - twins, two=self.two * grown, grey=self.grey)
        if twins:
            scenes = joined(scenes, twins_of(scenes[:twins], rng, grown))
        return shapes_lot(scenes, shapes.captions(scenes, rng, 0.1 + 0.4 * grown))

    def probe(self, n: int) -> Lot:
        """Unseen pictures of any pair, sorted by shape and color, with bare captions, so that some are equal."""
        rng = np.random.default_rng(3)
        pairs = sorted(
            (shapes.SHAPES.index(pair[1]), pair)
            for pair in (shapes.PAIRS[at] for at in rng.integers(len(shapes.PAIRS), size=n))
        )
        scenes = draw(rng, n, pairs=[pair for _, pair in pairs])
        return shapes_lot(scenes, [shapes.prompt(*pair) for _, pair in pairs])

    def quiz(self, kind: str, n: int, seed: int) -> Quiz:
        """Single objects of pairs that training shows, or of those it never shows."""
        scenes = draw(np.random.default_rng(seed), n, held_out=kind == self.quizzes[1])
        return Quiz(render(scenes), scenes.colour[:, 0] * len(shapes.SHAPES) + scenes.shape[:, 0])


def shapes_lot(scenes: Scenes, captions: Sequence[str]) -> Lot:
    bare = [
        caption.removeprefix(next(one for one in shapes.BEGINNINGS[::-1] if caption.startswith(one)))
        for caption in captions
    ]
    return Lot(render(scenes), tuple(captions), shapes.tokens_of(captions), shapes.tokens_of(bare))


def twins_of(scenes: Scenes, rng: np.random.Generator, grown: float = 1.0) -> Scenes:
    """The same scenes with one thing changed each: a color or a shape, and (grown) the objects' places or background.

    Never a held-out pair.
    """
    n = len(scenes)
    kind = np.where(rng.random(n) < grown, rng.integers(4, size=n), rng.integers(2, size=n))
    thing, rows = rng.integers(scenes.count), np.arange(n)
    colour, shape, ground, x, y = (
        scenes.colour.copy(),
        scenes.shape.copy(),
        scenes.ground.copy(),
        scenes.x.copy(),
        scenes.y.copy(),
    )
    other = pair_codes(False)[rng.integers(len(pair_codes(False)), size=(n, 40))]  # (n, 40, 2) pairs that may be shown
    same_shape = other[..., 1] == shape[rows, thing][:, None]
    same_colour = other[..., 0] == colour[rows, thing][:, None]
    for number, mask, part, column in ((0, same_shape, colour, 0), (1, same_colour, shape, 1)):
        fits = (kind == number) & mask.any(1) & (colour[rows, thing] != GREY)
        part[rows[fits], thing[fits]] = other[rows[fits], mask.argmax(1)[fits], column]
    moved = kind == 2
    x[moved], y[moved] = scenes.side - x[moved], scenes.side - y[moved]
    ground[kind == 3] = 1 - ground[kind == 3]
    return replace(scenes, colour=colour, shape=shape, ground=ground, x=x, y=y)


def joined(a: Scenes, b: Scenes) -> Scenes:
    arrays: dict[str, Any] = {
        name: np.concatenate([value, getattr(b, name)]) for name, value in vars(a).items() if name != "side"
    }
    return replace(a, **arrays)


# --- handwritten digits -----------------------------------------------------------------------------------------------

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits:
    """Scikit-learn's 1,797 real handwritten digits with the seed's captions.

    Every class is shown in training; 297 pictures are kept for the test.
    """

    names = tuple(f"a handwritten number {name}" for name in DIGITS)
    words = ("a", "handwritten", "number", *DIGITS)
    vocabulary = len(words) + 3
    quizzes = ("unseen digits",)
    test = 297

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "N L"]:
        """Padding 0, then the words, the start, and the end with the largest number."""
        numbers = {word: number + 1 for number, word in enumerate(self.words)}
        rows = [[self.vocabulary - 2, *(numbers[word] for word in text.split()), self.vocabulary - 1] for text in texts]
        return torch.tensor([row + [0] * (6 - len(row)) for row in rows])

    def lot(self, rng: np.random.Generator, n: int, step: int) -> Lot:
        return self.chosen(rng.integers(self.test, len(scanned()[1]), size=n))

    def chosen(self, places: Int[np.ndarray, "N"]) -> Lot:
        pictures, labels = scanned()
        captions = tuple(self.names[label] for label in labels[places])
        tokens = self.tokens(captions)
        return Lot(pictures[torch.from_numpy(places)], captions, tokens, tokens)

    def probe(self, n: int) -> Lot:
        places = np.arange(n) % self.test
        return self.chosen(places[np.argsort(scanned()[1][places], kind="stable")])

    def quiz(self, kind: str, n: int, seed: int) -> Quiz:
        pictures, labels = scanned()
        places = np.random.default_rng(seed).permutation(self.test)[:n]
        return Quiz(pictures[torch.from_numpy(places)], labels[places])


@cache
def scanned() -> tuple[Float[Tensor, "N 3 32 32"], Int[np.ndarray, "N"]]:
    """The digits in an order of their own, 8 x 8 scans made 32 x 32, from 0 to 1, and what they are."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    small = torch.from_numpy(scans[order]).float().view(-1, 1, 8, 8) / 16
    return F.interpolate(small, scale_factor=4, mode="bilinear").repeat(1, 3, 1, 1), labels[order]
