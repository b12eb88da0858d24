r"""Blends: walking between pictures, and in the direction of words.

**Between two pictures.** Embeddings are points on a sphere, so the way from one to the other is an arc. With the angle
$\Omega$ between them,

$$\mathrm{slerp}(a, b; s) = \frac{\sin((1-s)\,\Omega)}{\sin \Omega}\, a + \frac{\sin(s\,\Omega)}{\sin \Omega}\, b,$$

which is at the angle $s\,\Omega$ from $a$, and has length 1 everywhere. The straight line would cut through the sphere:
in its middle it is only $\cos(\Omega/2)$ long, and the decoder has never read so short an embedding of a picture. Every
point is decoded from the same noise. The pictures, encoded again, need not lie on the arc: the decoder can
only draw shapes it knows, and there is none halfway between circle and star.

**In the direction of words.** Two captions, "a red circle" and "a blue circle", differ by $t_2 - t_1$: what they share
cancels. Its direction $d = (t_2 - t_1)/|t_2 - t_1|$ turns a picture's embedding,
$\mathrm{slerp}(z_i, d; s)$, which is $z_i + w\,(t_2 - t_1)$ brought back to length 1, with $w$ growing from 0. The
picture keeps what the captions do not mention. The paper walks up to $s = 0.25$ or $0.5$; at $s = 1$ nothing of the
picture would be left.

Left out: the paper first finds the noise from which the decoder gives the very picture (DDIM inversion); here it is
noise from a seed, so the first picture is a variation.
Source: Ramesh et al. 2022, arXiv:2204.06125, sections 3.2 and 3.3, figures 4 and 5.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.dalle2.decoder import shipped_decoder
from core.dalle2.decoding import decoding, slerp
from core.dalle2.prior import name_vectors
from core.foundations.captioned_shapes import COLOURS, PAIRS, SHAPES, draw, render, tokens_of, words_of
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.judge import verdicts
from core.foundations.pictures import MOST_BYTES, SUFFIXES, take
from core.foundations.settings import noise_seed_field
from core.foundations.small_clip import shipped_clip

PART = 3  # pictures of a walk that take their steps together
KINDS = ("color", "shape")
HALF_ANGLE = Figure(
    "angle halfway on the arc, from the first", "degree", "theory", "half of the angle between them", "computed"
)
STRAIGHT = Figure(
    "length of the straight line's middle", "length", "theory", "cos(angle / 2)", "computed", headline=True
)
HALF_PICTURE = Figure(
    "cosine of the picture halfway, encoded again, with the first", "cosine", "baseline", "the point on the arc itself"
)
OFF_ARC = Figure("mean distance of the pictures from the arc", "cosine", None, "encoded again, against their points")
TURNED_AT = Figure(
    "point at which the judge first sees something else", "of the way", "baseline", "halfway", headline=True
)
NEW_AT = Figure("point at which the judge first sees the new {kind}", "of the way to the words", headline=True)
STAYED = Figure("pictures that keep their {kind}", "%", "limit", "the captions do not differ in it", headline=True)


@dataclass(frozen=True)
class BlendConfig(Config):
    """Two pictures and two captions."""

    colour_a: str = setting(
        "red", "First: color", choices={name: name for name in COLOURS}, help="The color of the first picture."
    )
    shape_a: str = setting(
        "circle", "First: shape", choices={name: name for name in SHAPES}, help="The shape of the first picture."
    )
    colour_b: str = setting(
        "blue", "Second: color", choices={name: name for name in COLOURS}, help="The color of the second picture."
    )
    shape_b: str = setting(
        "star", "Second: shape", choices={name: name for name in SHAPES}, help="The shape of the second picture."
    )
    words_from: str = setting(
        "a red circle", "Words: from", high=200, help="The caption that describes the first picture."
    )
    words_to: str = setting("a green circle", "Words: to", high=200, help="The caption toward which the picture moves.")
    picture_a: bytes = setting(
        b"", "Your first picture", high=MOST_BYTES, suffixes=SUFFIXES, help="Your own picture as the first one."
    )
    picture_b: bytes = setting(
        b"", "Your second one", high=MOST_BYTES, suffixes=SUFFIXES, help="Your own picture as the second one."
    )
    frames: int = setting(
        9,
        "Pictures on the way",
        low=3,
        high=17,
        more=True,
        help="More pictures on the way show it more finely; each takes time.",
    )
    farthest: float = setting(
        0.6,
        "How far toward the words",
        low=0.05,
        high=1.0,
        more=True,
        help="Higher walks further toward the words and keeps less of the picture; the paper goes to 0.25 or 0.5.",
        slider=True,
    )
    scale: float = setting(
        2.0,
        "Guidance of the decoder",
        low=0.0,
        high=20.0,
        more=True,
        help="Higher makes the pictures follow the embedding more strongly and vary less.",
    )
    steps: int = setting(
        20,
        "Steps of the decoder",
        low=1,
        high=100,
        more=True,
        help="More steps of the decoder make the pictures sharper; each takes time.",
    )
    seed: int = noise_seed_field()


@dataclass(frozen=True)
class Walk:
    """Points on the sphere, and their pictures as far as they are decoded."""

    shares: tuple[float, ...]  # how far, from 0
    vectors: np.ndarray  # (F, E)
    pixels: np.ndarray  # (F, 3, 32, 32)
    seen: tuple[tuple[str, str], ...] = ()  # what the judge sees at the end
    to_a: tuple[float, ...] = ()  # cosine of each picture, encoded again, with the start
    to_b: tuple[float, ...] = ()  # ... with the goal
    arc_a: tuple[float, ...] = ()  # cosine of each point of the walk itself
    arc_b: tuple[float, ...] = ()
    named: tuple[str, ...] = ()  # what CLIP calls each point


@dataclass(frozen=True)
class BlendStep(Step):
    """Both walks as far as they are known."""

    ends: np.ndarray | None = None  # (2, 3, 32, 32) the two pictures
    sees: tuple[tuple[str, str], ...] = ()  # what the judge sees in them
    between: Walk | None = None
    words: Walk | None = None
    weights: tuple[float, ...] = ()  # w of z + w (t2 - t1) at each point of the walk toward the words
    note: str = ""


# --- walks ------------------------------------------------------------------------------------------------------------


def toward(a: Float[Tensor, "E"], direction: Float[Tensor, "E"], shares: tuple[float, ...]) -> Float[Tensor, "F E"]:
    return torch.stack([slerp(a, direction, share) for share in shares])


def difference(old: Float[Tensor, "E"], new: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """The direction from one caption to the other, as a unit vector."""
    apart = new - old
    if float(apart.norm()) < 1e-4:
        raise ValueError("The two captions say the same: there is no direction from one to the other")
    return F.normalize(apart, dim=0)


def weight_of(a: Float[Tensor, "E"], direction: Float[Tensor, "E"], length: float, share: float) -> float:
    """w of z + w (t2 - t1) that points where slerp(z, d; share) does; |t2 - t1| = length. At share 1 it is infinite."""
    angle = float((a * direction).sum().double().clamp(-1, 1).arccos())
    along = np.sin((1 - share) * angle)
    return float(np.sin(share * angle) / along / length) if along > 1e-9 else float("inf")


def end_pictures(config: BlendConfig) -> tuple[Float[Tensor, "2 3 32 32"], str]:
    """The user's, or drawn ones: a large object in the middle, on white."""
    scenes = draw(
        np.random.default_rng(0),
        2,
        held_out=None,
        pairs=[(config.colour_a, config.shape_a), (config.colour_b, config.shape_b)],
    )
    ends = render(
        replace(
            scenes,
            radius=np.full((2, 2), 9.5),
            x=np.full((2, 2), 16.0),
            y=np.full((2, 2), 16.0),
            ground=np.array([1, 1]),
        )
    )
    notes = list[str]()
    for number, data in enumerate((config.picture_a, config.picture_b)):
        if data:
            taken = take(data)
            ends[number] = taken.pixels
            notes += [f"picture {number + 1}: {taken.note}"] if taken.note else []
    return ends, "; ".join(notes)


def started(
    vectors: Float[Tensor, "F E"],
    shares: tuple[float, ...],
    start: Float[Tensor, "E"],
    goal: Float[Tensor, "E"],
    noise: Tensor,
) -> Walk:
    """A walk before anything is decoded."""
    blank = shipped_decoder().decode(noise).expand(len(vectors), -1, -1, -1).numpy()
    names = tuple(" ".join(PAIRS[at]) for at in (vectors @ name_vectors().T).argmax(1).tolist())
    arcs = [tuple(float(cosine) for cosine in vectors @ end) for end in (start, goal)]
    return Walk(shares, vectors.numpy(), blank, arc_a=arcs[0], arc_b=arcs[1], named=names)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What lies between two pictures, and in the direction of a word?")
def blend(config: BlendConfig) -> Iterator[BlendStep]:
    """The walk between the pictures, then the walk of the first one toward the words."""
    tokens_of([config.words_from, config.words_to])
    ends, note = end_pictures(config)
    (a, b), clip = shipped_clip().pictures(ends), shipped_clip()
    old, new = clip.texts([config.words_from, config.words_to])
    direction, noise = difference(old, new), shipped_decoder().noise(1, config.seed)
    shares = tuple(number / (config.frames - 1) for number in range(config.frames))
    between = started(toward(a, b, shares), shares, a, b, noise)
    steps = tuple(config.farthest * share for share in shares)
    words = started(toward(a, direction, steps), steps, a, direction, noise)
    weights = tuple(weight_of(a, direction, float((new - old).norm()), share) for share in steps)
    angle = float((a * b).sum().double().clamp(-1, 1).arccos())
    state = BlendStep(ends=ends.numpy(), sees=verdicts(ends), between=between, words=words, weights=weights, note=note)
    straight, half = (a + b) / 2, slerp(a, b, 0.5)
    figures = (
        HALF_ANGLE(degrees(half, a), float(np.degrees(angle) / 2)),
        STRAIGHT(float(straight.norm()), float(np.cos(angle / 2))),
    )
    yield replace(
        state,
        figures=figures,
        doing=(
            f"the two pictures are {np.degrees(angle):.0f} degrees apart; every point of the way is decoded from the"
            " same noise"
        ),
    )
    for name in ("between", "words"):
        state = yield from walked(config, state, name, noise)
    yield from told(config, replace(state, doing=""))


def degrees(one: Float[Tensor, "E"], other: Float[Tensor, "E"]) -> float:
    return float(np.degrees((one.double() * other.double()).sum().clamp(-1, 1).arccos()))


def walked(config: BlendConfig, state: BlendStep, name: str, noise: Tensor) -> Generator[BlendStep, None, BlendStep]:
    """All points of one walk decoded, a few at a time."""
    walk: Walk = getattr(state, name)
    vectors = torch.from_numpy(walk.vectors)
    sets = list(vectors.split(PART))
    what = "between the pictures" if name == "between" else f"toward '{config.words_to[:40]}'"
    for step, part, shown in decoding(
        shipped_decoder(), sets, noise.expand(PART, -1, -1, -1), config.steps, config.scale
    ):
        if part == len(sets) - 1:
            walk = replace(walk, pixels=torch.cat(shown).numpy())
            state = put(state, name, walk)
        if part % 2 or part == len(sets) - 1:
            yield replace(state, doing=f"{what}: step {step + 1} of {config.steps}")
    pictures = torch.from_numpy(walk.pixels)
    again, goal = shipped_clip().pictures(pictures), vectors[-1] if name == "between" else direction_of(config)
    cosines = [tuple(float(cosine) for cosine in again @ end) for end in (vectors[0], goal)]
    walk = replace(walk, seen=verdicts(pictures), to_a=cosines[0], to_b=cosines[1])
    state = put(state, name, walk)
    yield replace(state, doing=f"{what}: the judge sees {changes(walk.seen)}")
    return state


def put(state: BlendStep, name: str, walk: Walk) -> BlendStep:
    return replace(state, figures=(), between=walk) if name == "between" else replace(state, figures=(), words=walk)


def direction_of(config: BlendConfig) -> Float[Tensor, "E"]:
    old, new = shipped_clip().texts([config.words_from, config.words_to])
    return difference(old, new)


def changes(seen: tuple[tuple[str, str], ...]) -> str:
    """What is seen along a walk, equal neighbors once."""
    names = [" ".join(one) for one in seen]
    return " → ".join(name for number, name in enumerate(names) if number == 0 or name != names[number - 1])


def told(config: BlendConfig, state: BlendStep) -> Iterator[BlendStep]:
    """The figures of both walks."""
    between, words = state.between, state.words
    assert between is not None and words is not None
    gaps = [abs(decoded - arc) for decoded, arc in zip(between.to_a, between.arc_a, strict=True)]
    figures = [
        HALF_PICTURE(between.to_a[config.frames // 2], between.arc_a[config.frames // 2]),
        OFF_ARC(float(np.mean(gaps))),
    ]
    if between.seen[0] != between.seen[-1]:
        left = next(share for share, seen in zip(between.shares, between.seen, strict=True) if seen != between.seen[0])
        figures.append(TURNED_AT(left, 0.5))
    wanted = changed(config)
    if wanted:
        kind, word = wanted
        have = [seen[kind] == word for seen in words.seen]
        other = [seen[1 - kind] == words.seen[0][1 - kind] for seen in words.seen]
        reached = next((share for share, there in zip(words.shares, have, strict=True) if there), None)
        figures += [
            NEW_AT.of(kind=KINDS[kind])(reached),
            STAYED.of(kind=KINDS[1 - kind])(100 * float(np.mean(other)), 100.0),
        ]
    yield replace(
        state,
        figures=tuple(figures),
        doing=f"the judge sees {changes(between.seen)}; toward the words {changes(words.seen)}",
    )


def changed(config: BlendConfig) -> tuple[int, str] | None:
    """(0, color) or (1, shape) that the second caption brings, if it changes just one of them."""
    old, new = (set(words_of(text)) for text in (config.words_from, config.words_to))
    told = [(kind, word) for kind, every in enumerate((COLOURS, SHAPES)) for word in every if word in new - old]
    return told[0] if len(told) == 1 else None
