r"""The modality gap: pictures and texts share a space, and may still live apart.

Training only asks that a picture's own text be *nearer* than the others. A shift that all pictures have in common
changes few of these comparisons. How far the two clouds are apart is the length of the difference of their means,

$$g = \Big| \frac{1}{N} \sum_i x_i - \frac{1}{N} \sum_i y_i \Big|.$$

It begins before training: an untrained network maps whatever it sees into a narrow cone, two networks have two cones,
and the gap is there before the first step. What training makes of it depends on the temperature of the contrastive
loss: in real CLIPs training keeps the two apart, and a wide gap is left (Liang et al. 2022, who trace it to both,
initialization and contrastive learning). In this small CLIP training closes nine tenths of it, so the clouds overlap.

A gap needs clouds that are narrow: $g \le |\bar x| + |\bar y|$, and $|\bar x|^2$ is nearly the mean cosine of two
pictures. Where training spreads the vectors over the whole sphere, the means shrink, and no room is left for a gap;
real CLIPs use only a small part of theirs (Fahim et al. 2024). Look how alike two pictures are here, before and after.

Then the pictures slide along the line between the means, $u = (\bar y - \bar x) / g$:

$$x_i(\lambda) = \frac{x_i + \lambda u}{|x_i + \lambda u|}, \qquad \text{gap} \approx |g - \lambda|,$$

where the formula would be exact if they were not put back on the sphere. $\lambda < 0$ opens the gap, $\lambda = g$
closes it. Here there is little left to close; opening the gap shows what a wide one would do to retrieval. Compare how
many captions find their picture and how many pictures find their caption. Several scenes can fit one caption, so 100 %
cannot be had.

The picture of the clouds is a projection: across, the line between the means; upward, the direction in which all
vectors vary most beside it (their first principal component).

Left out: what the gap costs or gains elsewhere (Liang et al. report both).
Source: Liang et al. 2022, arXiv:2203.02053; Fahim et al. 2024, arXiv:2405.18570.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import captions, draw, render
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.small_clip import Clip, make, shipped_clip

SHIFTS = tuple(number / 8 for number in range(-8, 5))  # -1 to 0.5
PART = 32
GAP = Figure("gap of the trained model", "distance", "baseline", "the same pairs in an untrained model", headline=True)
ROOM = Figure("gap against the most it could be", "distance", "limit", "the lengths of the two means together")
ALIKE = Figure("cosine of two pictures", "cosine", "baseline", "in the untrained model: a narrow cone", headline=True)
HALF_SHIFT = Figure(
    "gap after a shift of 0.5", "distance", "theory", "|g - 0.5|, without putting the vectors back on the sphere"
)
PICTURES_CLOSED = Figure("pictures that find their caption, gap closed", "%", "baseline", "as trained")
CAPTIONS_CLOSED = Figure("captions that find their picture, gap closed", "%", "baseline", "as trained")
PICTURES_OPENED = Figure(
    "pictures that find their caption, gap opened by 1", "%", "baseline", "as trained", headline=True
)


@dataclass(frozen=True)
class GapConfig(Config):
    """How many pairs, and how much their captions tell."""

    pairs: int = setting(
        192,
        "Pairs of picture and caption",
        low=32,
        high=384,
        help="More pairs make the clouds and the numbers more reliable; each takes time.",
    )
    told: float = setting(
        1.0,
        "Details in the captions",
        low=0.0,
        high=1.0,
        help="Higher makes the captions say more about size, place and background, so fewer pictures fit each.",
        slider=True,
    )
    two: float = setting(
        0.3,
        "Fraction with two objects",
        low=0.0,
        high=1.0,
        more=True,
        help="More scenes with two objects make the captions longer and more alike.",
        slider=True,
    )
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, help="Another seed draws other pairs.")


@dataclass(frozen=True)
class GapStep(Step):
    """One place of the slide, or the clouds as they are."""

    shift: float | None = None  # of the pictures toward the texts; None: before the slide
    pictures: np.ndarray | None = None  # (N, 2)
    texts: np.ndarray | None = None  # (N, 2)
    gap: float | None = None
    formula: float | None = None  # |g - shift|
    by_picture: float | None = None  # % of the pictures whose nearest caption is theirs
    by_text: float | None = None  # % of the captions whose nearest picture is theirs
    so_far: tuple[
        tuple[float, float, float, float, float], ...
    ] = ()  # shift, gap, formula, by_picture, by_text of the slide up to here
    untrained_pictures: np.ndarray | None = None  # (N, 2) the same pairs in an untrained model, its own directions
    untrained_texts: np.ndarray | None = None
    untrained_gap: float | None = None
    within: tuple[tuple[str, float, float], ...] = ()  # cosine of two: what, untrained, trained


# --- measures ---------------------------------------------------------------------------------------------------------


def gap_of(pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"]) -> float:
    return float((pictures.double().mean(0) - texts.double().mean(0)).norm())


def slid(pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"], shift: float) -> Float[Tensor, "N E"]:
    """The pictures moved by a distance toward the texts, on the sphere again."""
    return F.normalize(pictures + shift * F.normalize(texts.mean(0) - pictures.mean(0), dim=0), dim=-1)


def recalls(pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"], captions: list[str]) -> tuple[float, float]:
    """% of the pictures that find their caption first, and of the captions that find their picture.

    Equal captions count as one.
    """
    cosines, number = pictures @ texts.T, {caption: at for at, caption in enumerate(dict.fromkeys(captions))}
    same = torch.tensor([number[caption] for caption in captions])
    to_text, to_picture = (same[cosines.argmax(axis)] == same for axis in (1, 0))
    return 100 * float(to_text.double().mean()), 100 * float(to_picture.double().mean())


def mean_cosine(vectors: Float[Tensor, "N E"]) -> float:
    """Of two different ones: (|sum|^2 - N) / (N (N - 1)), for unit vectors."""
    n = len(vectors)
    return float((vectors.double().sum(0).square().sum() - n) / (n * (n - 1)))


class Directions:
    """Two directions to draw in: the line between the means, and the first principal component of what is left."""

    def __init__(self, pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"]) -> None:
        a, b = (part.double().numpy() for part in (pictures, texts))
        along = b.mean(0) - a.mean(0)
        along /= np.linalg.norm(along) or 1.0
        both = np.concatenate([a, b])
        self.middle = both.mean(0)
        rest = both - self.middle
        rest = rest - np.outer(rest @ along, along)
        most = np.linalg.svd(rest, full_matrices=False)[2][0]
        self.two = np.stack([along, most * (1 if most[0] >= 0 else -1)])  # a sign that does not depend on the library

    def of(self, vectors: Float[Tensor, "N E"]) -> np.ndarray:
        flat: np.ndarray = (vectors.double().numpy() - self.middle) @ self.two.T
        return flat


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Do pictures and texts live apart in their common space?")
def gap(config: GapConfig) -> Iterator[GapStep]:
    """The clouds, their slide, then an untrained model."""
    scenes = draw(np.random.default_rng(config.seed), config.pairs, two=config.two, held_out=None)
    words, pictures = captions(scenes, np.random.default_rng(config.seed + 1), config.told), render(scenes)
    clip = shipped_clip()
    x, y = clip.pictures(pictures[:PART]), clip.texts(words[:PART])
    yield clouds(x, y, f"the first {len(x)} pairs: the means are {gap_of(x, y):.2f} apart")
    for first in range(PART, config.pairs, PART):
        part = slice(first, first + PART)
        x, y = torch.cat([x, clip.pictures(pictures[part])]), torch.cat([y, clip.texts(words[part])])
        yield clouds(x, y, f"{len(x)} pairs: the means are {gap_of(x, y):.2f} apart")
    frames = list[GapStep]()
    for frame in slide(x, y, words):
        frames.append(frame)
        yield frame
    opened, now, closed = (
        frames[0],
        next(frame for frame in frames if frame.shift == 0),
        next(frame for frame in frames if frame.formula == 0),
    )
    half = next(frame for frame in frames if frame.shift == 0.5)
    yield GapStep(
        figures=(
            HALF_SHIFT(half.gap, half.formula),
            PICTURES_CLOSED(closed.by_picture, now.by_picture),
            CAPTIONS_CLOSED(closed.by_text, now.by_text),
            PICTURES_OPENED(opened.by_picture, now.by_picture),
        ),
        doing=(
            f"as trained the gap is {now.gap:.2f}; opened by 1, {opened.by_picture:.0f} % of the pictures find their"
            " caption"
        ),
    )
    yield from untrained(config, pictures, words, x, y)


def clouds(x: Tensor, y: Tensor, doing: str) -> GapStep:
    seen = Directions(x, y)
    return GapStep(pictures=seen.of(x), texts=seen.of(y), gap=gap_of(x, y), doing=doing)


def slide(x: Float[Tensor, "N E"], y: Float[Tensor, "N E"], words: list[str]) -> Iterator[GapStep]:
    """Frames of the slide, all drawn in the directions of the clouds as they were trained."""
    seen, first = Directions(x, y), gap_of(x, y)
    so_far = list[tuple[float, float, float, float, float]]()
    for shift in sorted({*SHIFTS, first}):
        moved = slid(x, y, shift)
        left, formula, (by_picture, by_text) = gap_of(moved, y), abs(first - shift), recalls(moved, y, words)
        so_far.append((shift, left, formula, by_picture, by_text))
        told = (
            f"shift {shift:.3g}: gap {left:.2f}, {by_picture:.0f} % of the pictures and {by_text:.0f} % of the captions"
            " find theirs"
        )
        yield GapStep(
            shift=shift,
            pictures=seen.of(moved),
            texts=seen.of(y),
            gap=left,
            formula=formula,
            by_picture=by_picture,
            by_text=by_text,
            so_far=tuple(so_far),
            doing=told,
        )


def untrained(config: GapConfig, pictures: Tensor, words: list[str], x: Tensor, y: Tensor) -> Iterator[GapStep]:
    """The same pairs in a model that has learned nothing."""
    yield GapStep(doing="drawing the weights of an untrained model")
    raw, n = Clip(make(torch.Generator().manual_seed(config.seed)).eval()), config.pairs
    seen, read = list[Tensor](), list[Tensor]()
    for first in range(0, n, PART):
        seen.append(raw.pictures(pictures[first : first + PART]))
        read.append(raw.texts(words[first : first + PART]))
        yield GapStep(doing=f"untrained: {min(n, first + PART)} of {n} pairs")
    a, b = torch.cat(seen), torch.cat(read)
    directions, at_first, at_last = Directions(a, b), gap_of(a, b), gap_of(x, y)
    room = float(x.mean(0).norm() + y.mean(0).norm())
    within = tuple(
        (what, mean_cosine(before), mean_cosine(after))
        for what, before, after in (("two pictures", a, x), ("two captions", b, y))
    )
    before, after = (float((left * right).sum(-1).double().mean()) for left, right in ((a, b), (x, y)))
    within = (*within, ("a pair", before, after))
    yield GapStep(
        untrained_pictures=directions.of(a),
        untrained_texts=directions.of(b),
        untrained_gap=at_first,
        within=within,
        figures=(GAP(at_last, at_first), ROOM(at_last, room), ALIKE(within[0][2], within[0][1])),
        doing=f"the gap is {at_first:.2f} before training and {at_last:.2f} after",
    )
