r"""Does it know which color belongs to which shape?

"A red circle left of a blue square" and "a blue circle left of a red square" have the same words. A model that hears
only *which* words occur cannot tell them apart, and its chance to pick the right one is 50 %. Yuksekgonul et al. 2022
found large CLIPs to be near that: contrastive training seldom asks for more, because in a batch of unlike pictures the
words alone find the pair.

Each scene is shown with its right caption and one wrong caption that changes one thing; the right one must have the
larger cosine. *New color* is the control: its wrong caption has a word for something that is not there.

The wrong captions *colours swapped*, *shapes swapped* and *objects exchanged* have exactly the words of the right one;
*relation* turns one word into its opposite.

Our picture tower has two readings of the same features: a global maximum, which says *whether* something is there, and
a coarse map, which says *where*. Leave the map out, and what remains is a bag of features. Both are measured here, and
on the word-order kinds both are near the coin's 50 %: the map helps nothing. The fault lies in the *text* tower: to it
the two captions are nearly one vector (their cosine is above 0.99, and 0.64 where a color is new), so no picture tower
could tell them apart.

This small CLIP had *twins* in its batches, scenes with one thing changed, but a twin never exchanges two colors or two
shapes: a bag of words solves them. Only the relation was asked for more often than in a real CLIP's training.

The error bars are $\sqrt{p (1 - p) / N}$.

Left out: word order tests with real photographs (ARO, Winoground).
Source: Yuksekgonul et al. 2022, arXiv:2210.01936.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.foundations.captioned_shapes import (
    COLOURS,
    PAIRS,
    PLACES,
    SIZES,
    Scenes,
    article,
    draw,
    noun,
    place_of,
    prompt,
    relation_of,
    render,
)
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.small_clip import Clip, shipped_clip

PART = 32  # scenes in one unit of work
EXAMPLES = 6
WINS = Figure("right caption wins, {kind}", "%", "baseline", "chance")
WINS_MAXIMUM = Figure("right caption wins without the map of places, {kind}", "%", "baseline", "chance")
ONE_OBJECT = Figure(
    "one object named right among 48, pairs it never saw", "%", "baseline", "chance, 1 of 48", headline=True
)
SAME_VECTOR = Figure(
    "cosine of right and wrong caption, colours swapped",
    "cosine",
    "baseline",
    "the same where a color is new",
    headline=True,
)
HEADLINES = ("new colour", "colours swapped")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
ACROSS = {
    "on the left": "on the right",
    "on the right": "on the left",
    "at the top": "at the bottom",
    "at the bottom": "at the top",
}


@dataclass(frozen=True)
class BindingConfig(Config):
    """How many scenes per kind."""

    scenes: int = setting(
        192,
        "Scenes per kind",
        low=16,
        high=1024,
        help="More scenes per kind make the error bars smaller; the run takes longer.",
    )
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, help="Another seed draws other scenes.")


@dataclass(frozen=True)
class Kind:
    """One way to be wrong.

    wrong: the words of scene `number` -> right and wrong caption, or None where it does not apply.
    """

    name: str
    two: bool
    captions: Callable[[Scenes, int, np.random.Generator], tuple[str, str] | None]
    same_words: bool = False  # both captions have the same words: a bag of words must guess


@dataclass(frozen=True)
class BindingStep(Step):
    """What is known so far, kind by kind."""

    rows: tuple[
        tuple[str, float, float, float, float], ...
    ] = ()  # kind, % right, its error, % with the maximum only, its error
    same_words: tuple[str, ...] = ()  # the kinds a bag of words must guess
    kind: str = ""  # of these examples
    pixels: np.ndarray | None = None  # (K, 3, 32, 32)
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    cosines: np.ndarray | None = None  # (K, 2) with the right and the wrong caption


# --- ways to be wrong -------------------------------------------------------------------------------------------------


def two_objects(scenes: Scenes, number: int) -> tuple[tuple[str, str], tuple[str, str], str]:
    return scenes.pair(number, 0), scenes.pair(number, 1), relation_of(scenes, number)


def said(first: tuple[str, str], relation: str, second: tuple[str, str]) -> str:
    return f"{prompt(*first)} {relation} {prompt(*second)}"


def new_colour(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str]:
    first, second, relation = two_objects(scenes, number)
    other = [colour for colour in COLOURS if colour not in (first[0], second[0])]
    return said(first, relation, second), said((other[rng.integers(len(other))], first[1]), relation, second)


def colours_swapped(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str] | None:
    (a, b), (c, d), relation = two_objects(scenes, number)
    return None if a == c or b == d else (said((a, b), relation, (c, d)), said((c, b), relation, (a, d)))


def shapes_swapped(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str] | None:
    (a, b), (c, d), relation = two_objects(scenes, number)
    return None if a == c or b == d else (said((a, b), relation, (c, d)), said((a, d), relation, (c, b)))


def relation_turned(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str] | None:
    first, second, relation = two_objects(scenes, number)
    return None if first == second else (said(first, relation, second), said(first, OPPOSITE[relation], second))


def objects_exchanged(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str] | None:
    first, second, relation = two_objects(scenes, number)
    return None if first == second else (said(first, relation, second), said(second, relation, first))


def size_changed(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str]:
    large, name = noun(scenes, number, 0, size=True).split()[1], " ".join(scenes.pair(number))
    return article(f"{large} {name}"), article(f"{next(size for size in SIZES if size != large)} {name}")


def place_changed(scenes: Scenes, number: int, rng: np.random.Generator) -> tuple[str, str] | None:
    place, name = place_of(scenes.x[number, 0], scenes.y[number, 0], scenes.side), noun(scenes, number, 0)
    return None if place == PLACES[0] else (f"{name} {place}", f"{name} {ACROSS[place]}")


KINDS = (
    Kind("new colour", True, new_colour),
    Kind("size", False, size_changed),
    Kind("place", False, place_changed),
    Kind("colours swapped", True, colours_swapped, same_words=True),
    Kind("shapes swapped", True, shapes_swapped, same_words=True),
    Kind("objects exchanged", True, objects_exchanged, same_words=True),
    Kind("relation", True, relation_turned),
)


def scenes_for(kind: Kind, n: int, rng: np.random.Generator) -> tuple[Scenes, list[str], list[str]]:
    """n scenes to which a kind applies, each with its right and its wrong caption."""
    pool = draw(rng, 3 * n + 40, two=float(kind.two))
    told = [kind.captions(pool, number, rng) for number in range(len(pool))]
    fit = [number for number, pair in enumerate(told) if pair is not None][:n]
    chosen = replace(pool, **{name: value[fit] for name, value in vars(pool).items() if name != "side"})
    pairs = [pair for number in fit if (pair := told[number]) is not None]
    return chosen, [right for right, _ in pairs], [wrong for _, wrong in pairs]


# --- two readings -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def only_maximum(clip: Clip, pictures: Tensor) -> Tensor:
    """Picture vectors without the map of places: what is anywhere in the picture, and no more."""
    tower: Any = clip.model.visual
    return F.normalize(tower.whether(tower.features(2 * pictures - 1).amax((2, 3))), dim=-1)


def share(hits: list[bool]) -> tuple[float, float]:
    """% and its standard error."""
    p = float(np.mean(hits))
    return 100 * p, 100 * float(np.sqrt(p * (1 - p) / len(hits)))


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Does it know which color belongs to which shape, or only which words occur?")
def binding(config: BindingConfig) -> Iterator[BindingStep]:
    """Kind by kind: examples at once, then shares that settle as the scenes go by."""
    clip, rng = shipped_clip(), np.random.default_rng(config.seed)
    same = tuple(kind.name for kind in KINDS if kind.same_words)
    rows, alike = dict[str, tuple[str, float, float, float, float]](), dict[str, float]()
    for kind in KINDS:
        scenes, right, wrong = scenes_for(kind, config.scenes, rng)
        whole, bag, nearness = list[bool](), list[bool](), list[float]()
        for first in range(0, len(scenes), PART):
            part = slice(first, first + PART)
            pictures, truths, lies = render(scenes[part]), clip.texts(right[part]), clip.texts(wrong[part])
            seen = clip.pictures(pictures)
            cosines = torch.stack([(seen * truths).sum(-1), (seen * lies).sum(-1)], 1)
            maxima = only_maximum(clip, pictures)
            whole += (cosines[:, 0] > cosines[:, 1]).tolist()
            bag += ((maxima * truths).sum(-1) > (maxima * lies).sum(-1)).tolist()
            nearness += (truths * lies).sum(-1).tolist()
            rows[kind.name] = (kind.name, *share(whole), *share(bag))
            told = (
                f"{kind.name}: the right caption wins in {rows[kind.name][1]:.0f} % of {len(whole)} scenes,"
                f" {rows[kind.name][3]:.0f} % with the maximum only"
            )
            step = BindingStep(rows=tuple(rows.values()), same_words=same, kind=kind.name, doing=told)
            if not first:
                step = replace(
                    step,
                    pixels=pictures[:EXAMPLES].numpy(),
                    right=tuple(right[:EXAMPLES]),
                    wrong=tuple(wrong[:EXAMPLES]),
                    cosines=cosines[:EXAMPLES].double().numpy(),
                )
            yield step
        alike[kind.name] = float(np.mean(nearness))
    named = list[bool]()
    for step in names_of_one(clip, config, named):
        yield replace(step, rows=tuple(rows.values()), same_words=same)
    yield BindingStep(
        rows=tuple(rows.values()),
        same_words=same,
        figures=figures_of(rows, alike, share(named)[0]),
        doing=summary(rows),
    )


def names_of_one(clip: Clip, config: BindingConfig, named: list[bool]) -> Iterator[BindingStep]:
    """For comparison: one object, all 48 names, the held-out pairs. Fills `named`."""
    scenes = draw(np.random.default_rng(config.seed + 1), min(config.scenes, 192), held_out=True)
    names = clip.texts([prompt(*pair) for pair in PAIRS])
    for first in range(0, len(scenes), PART):
        found = (clip.pictures(render(scenes[first : first + PART])) @ names.T).argmax(1).tolist()
        named += [PAIRS[at] == scenes.pair(first + number) for number, at in enumerate(found)]
        yield BindingStep(doing=f"one object among 48 names: {sum(named)} of {len(named)} right")


def figures_of(
    rows: Mapping[str, tuple[str, float, float, float, float]], alike: Mapping[str, float], named: float
) -> tuple[Result, ...]:
    """Each kind beside chance, and the control."""
    kinds = [
        wins(name)(row[1], 50.0, source="chance; all a bag of words could do" if kind_of(name).same_words else None)
        for name, row in rows.items()
    ]
    maximum = [WINS_MAXIMUM.of(kind=name)(rows[name][3], 50.0) for name in ("colours swapped", "relation")]
    single = ONE_OBJECT(named, 100 / len(PAIRS))
    return (*kinds, *maximum, single, SAME_VECTOR(alike["colours swapped"], alike["new colour"]))


def wins(kind: str) -> Figure:
    """The figure of a kind of wrong caption; two of them are headlines."""
    return replace(WINS.of(kind=kind), headline=kind in HEADLINES)


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def summary(rows: Mapping[str, tuple[str, float, float, float, float]]) -> str:
    """The easiest and the hardest kind, as they were measured."""
    easy, hard = max(rows.values(), key=lambda row: row[1]), min(rows.values(), key=lambda row: row[1])
    return f"easiest: {easy[0]}, {easy[1]:.0f} %; hardest: {hard[0]}, {hard[1]:.0f} %; guessing gets 50 %"
