r"""Pictures and captions, each with each: cosines, and what a softmax makes of them.

Both towers end on the unit sphere, so the product of a picture's and a caption's vector is the cosine of their angle. A
cosine alone says little: in a real CLIP a matching pair has about 0.3, and a wrong one 0.05 to 0.3. So "0.25" is not
low and not high until it is compared with other captions *of the same picture*. The histogram does that: the cosines of
600 captions that were written for other pictures. In the small CLIP here they spread from -0.7 to 0.9, so 0.25 beats
most wrong captions and still loses to every right one; in a real CLIP it can be either.

Zero-shot classification compares by a softmax over the captions, at a scale $s$ that was learned with the model:

$$p_i = \frac{e^{s \cos_i}}{\sum_j e^{s \cos_j}}, \qquad \frac{p_1}{p_2} = e^{s (\cos_1 - \cos_2)}.$$

Real CLIPs end at $s = 100$, the most that was allowed, and there a lead of 0.03 makes a caption 20 times as likely. The
softmax always adds up to 1: if all captions are wrong, one of them still wins.

A class has no one right wording, so its vector can be the mean of several templates' vectors. Radford et al. gain 3.5
points on ImageNet with 80 templates over the single template "a photo of a ...". In the small world all templates were
in training, apart from the bare name and "this is a picture of", so look what is left to gain. The test pictures are
noisy, since without noise nearly all are right.

Left out: calibration; a threshold for "none of these".
Source: Radford et al. 2021, arXiv:2103.00020, sections 2.5 and 3.1.4.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.clip.real import MODELS, Encoder, at_once, lines_of, load_clip, side_of
from core.foundations.captioned_shapes import COLOURS, GROUNDS, PAIRS, article, captions, draw, render
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.pictures import MOST_BYTES, SUFFIXES, take
from core.foundations.turns import with_pauses

CELLS = 16  # squares on a side of the brush
MOST_CAPTIONS = 8
PAPER_SCALE = 100.0
RANDOM = 600  # captions of the histogram
PART = 100  # of them in one unit of work
EDGES = np.linspace(-1, 1, 101)
TEMPLATES = (
    "{bare}",
    "{name}",
    "a picture of {name}",
    "a drawing of {name}",
    "there is {name}",
    "this is {name}",
    "this is a picture of {name}",
)
ALL = "mean of all"
NAMES = (*(template.format(bare="red star", name="a red star") for template in TEMPLATES), ALL)
SINGLE = "a picture of {name}"  # the template that the mean of all is compared with
QUARTER = 0.25  # the cosine in question
BEST = Figure(
    "cosine of the best caption, first picture",
    "cosine",
    "baseline",
    "the median of the random captions",
    headline=True,
)
BEATEN = Figure(
    "random captions that beat it", "of 1,000", "baseline", "half of them, for a caption at random", headline=True
)
BELOW_QUARTER = Figure(
    "random captions with a cosine below 0.25", "% of them", None, "captions of other pictures", headline=True
)
ODDS = Figure(
    "odds of the two best captions, where they are closest", "times", "theory", "exp(scale x difference of the cosines)"
)
MEAN_TEMPLATE = Figure(
    "unseen pictures named right by the mean of all templates",
    "%",
    "baseline",
    "the single template 'a picture of'; on ImageNet, 80 templates gain 3.5 points over one (Radford et al. 2021)",
    headline=True,
)
BARE_NAME = Figure("unseen pictures named right by the bare name", "%", "baseline", "the mean of all templates")
BEST_TEMPLATE = Figure("unseen pictures named right by the best template", "%", "baseline", "the mean of all templates")
CAPTIONS = "a red circle\na blue square\na green star\na picture of a pink cross\na drawing of a red circle"


@dataclass(frozen=True)
class MatchConfig(Config):
    """Pictures: uploaded, painted, drawn from the seed. Captions: typed."""

    captions: str = setting(
        CAPTIONS,
        "Captions, one per line",
        high=1000,
        help="Up to eight captions, one per line; every picture is compared with each of them.",
    )
    picture_1: bytes = setting(
        b"",
        "Your picture",
        high=MOST_BYTES,
        suffixes=SUFFIXES,
        help="A photograph or drawing (PNG, JPEG or WebP); it is shrunk to what the model sees.",
    )
    picture_2: bytes = setting(
        b"",
        "A second one",
        high=MOST_BYTES,
        suffixes=SUFFIXES,
        help="A second picture, compared with the same captions.",
    )
    picture_3: bytes = setting(
        b"", "A third one", high=MOST_BYTES, suffixes=SUFFIXES, help="A third picture, compared with the same captions."
    )
    colour: str = setting(
        "red",
        "Color of the brush",
        choices={name: name for name in COLOURS},
        help="The color that the brush paints with.",
    )
    ground: str = setting(
        "white",
        "Background of the painting",
        choices={name: name for name in GROUNDS},
        help="The background that you paint on.",
    )
    drawn: int = setting(
        5,
        "Pictures drawn from the seed",
        low=0,
        high=5,
        help="More drawn pictures beside yours; each is compared with all captions.",
        slider=True,
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="The models from the hub are larger and need a network once; most need a GPU.",
    )
    seed: int = setting(
        0, "Seed", low=0, high=2**31 - 1, help="Another seed draws other pictures and other random captions."
    )
    noise: float = setting(
        0.3,
        "Noise on the test pictures",
        low=0.0,
        high=1.0,
        more=True,
        help="More noise makes the test pictures harder, so that the templates differ.",
        slider=True,
    )
    painted: str = setting(
        "", "What you painted", high=CELLS**2 // 4, more=True, help="The brush below the picture writes this."
    )


@dataclass(frozen=True)
class MatchStep(Step):
    """All that is known so far; what is not known yet is empty."""

    names: tuple[str, ...] = ()  # of the pictures
    captions: tuple[str, ...] = ()
    pixels: np.ndarray | None = None  # (P, 3, S, S) from 0 to 1
    canvas: np.ndarray | None = None  # the background to paint on
    notes: tuple[str, ...] = ()
    cosines: np.ndarray | None = None  # (P, C)
    scale: float = 1.0  # the model's own
    at_paper: np.ndarray | None = None  # (P, C) softmax at scale 100
    at_own: np.ndarray | None = None  # ... at the model's own scale
    heights: np.ndarray | None = None  # (P, bins of EDGES) how many random captions have this cosine
    lower: np.ndarray | None = None  # (P, C) fraction of the random captions with a lower cosine
    templates: tuple[tuple[str, float, float], ...] = ()  # name, % right, standard error


# --- pictures ---------------------------------------------------------------------------------------------------------


def painting(painted: str, colour: str, ground: str, side: int) -> Tensor:
    """What the brush painted, as a picture. painted: a hexadecimal digit for four squares, row by row."""
    try:
        digits = [int(digit, 16) for digit in painted]
    except ValueError:
        raise ValueError("painted must be hexadecimal digits, as the brush writes them") from None
    digits += [0] * (CELLS**2 // 4 - len(digits))
    cells = torch.tensor(
        [(digit >> shift) & 1 for digit in digits for shift in (3, 2, 1, 0)], dtype=torch.float32
    ).view(1, 1, CELLS, CELLS)
    cover = F.interpolate(cells, (side, side), mode="nearest")[0]
    return GROUNDS[ground] * (1 - cover) + torch.tensor(COLOURS[colour]).view(3, 1, 1) * cover


def pictures_of(config: MatchConfig, side: int) -> tuple[list[str], Tensor, list[str]]:
    """Names, pictures, and what was done to the uploaded ones."""
    names, pictures, notes = list[str](), list[Tensor](), list[str]()
    for number, data in enumerate((config.picture_1, config.picture_2, config.picture_3), 1):
        if data:
            taken = take(data, side)
            names.append(f"yours {number}")
            pictures.append(taken.pixels)
            notes += [f"{names[-1]}: {taken.note}"] if taken.note else []
    if config.painted.strip("0"):
        names.append("painted")
        pictures.append(painting(config.painted, config.colour, config.ground, side))
    if config.drawn:
        scenes = draw(
            np.random.default_rng(config.seed),
            5,
            pairs=[("red", "circle"), ("blue", "square"), ("green", "star"), ("pink", "cross"), ("red", "diamond")],
        )
        names += [f"drawn {number}" for number in range(1, config.drawn + 1)]
        pictures += list(render(scenes[: config.drawn].at(side)))
    if not pictures:
        raise ValueError("There is no picture: upload one, paint one, or let at least 1 be drawn")
    return names, torch.stack(pictures), notes


def softmax(cosines: np.ndarray, scale: float) -> np.ndarray:
    """Over the captions (the last axis)."""
    grown = np.exp(scale * (cosines - cosines.max(-1, keepdims=True)))
    shares: np.ndarray = grown / grown.sum(-1, keepdims=True)
    return shares


def odds(names: list[str], cosines: np.ndarray, shares: np.ndarray, scale: float) -> Result:
    """The best caption against the second best, where they are closest: the formula, and the two probabilities."""
    best = np.argsort(-cosines, axis=1)[:, :2]
    leads = np.take_along_axis(cosines, best, 1) @ np.array([1.0, -1.0])
    closest = int(leads.argmin())
    one, other = (float(share) for share in shares[closest, best[closest]])
    source = f"exp({scale:.4g} x {leads[closest]:.3f}), scale x difference of the cosines; {names[closest]}"
    return ODDS(one / max(other, 1e-300), float(np.exp(scale * leads[closest])), source=source)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Which caption belongs to which picture, and is 0.25 a low cosine?")
def match(config: MatchConfig) -> Iterator[MatchStep]:
    """Matrix of cosines first, then the random captions, then the templates."""
    typed = lines_of(config.captions, MOST_CAPTIONS, "captions")
    fetching = MatchStep(captions=tuple(typed), doing="fetching the model from the hub, once")
    clip = yield from with_pauses(load_clip(config.model), fetching)
    names, pictures, notes = pictures_of(config, side_of(clip))
    seen, read = encoded(clip, pictures), clip.texts(typed)
    cosines = (seen @ read.T).double().numpy()
    canvas = np.full((3, 32, 32), GROUNDS[config.ground])
    state = MatchStep(
        names=tuple(names),
        captions=tuple(typed),
        pixels=pictures.numpy(),
        canvas=canvas,
        notes=tuple(notes),
        cosines=cosines,
        scale=clip.scale,
        at_paper=softmax(cosines, PAPER_SCALE),
        at_own=softmax(cosines, clip.scale),
    )
    assert state.at_paper is not None
    told = [f"{name}: {typed[row.argmax()]} ({row.max():.2f})" for name, row in zip(names, cosines, strict=True)]
    yield replace(
        state,
        doing="best captions: " + "; ".join(told[:3]),
        figures=(odds(names, cosines, state.at_paper, PAPER_SCALE),),
    )
    state = yield from against_random(clip, seen, state, config.seed)
    yield from templates(clip, state, config)


def encoded(clip: Encoder, pictures: Tensor) -> Tensor:
    return torch.cat([clip.pictures(part) for part in pictures.split(at_once(clip))])


def against_random(
    clip: Encoder, seen: Float[Tensor, "P E"], state: MatchStep, seed: int
) -> Generator[MatchStep, None, MatchStep]:
    """The cosines of captions that were written for other pictures; returns what is known then."""
    cosines, lower = state.cosines, np.zeros(0)
    assert cosines is not None
    rng = np.random.default_rng(seed + 1)
    written = captions(draw(rng, RANDOM, two=0.3, held_out=None), rng)
    found = np.zeros((len(seen), 0))
    for first in range(0, RANDOM, PART):
        found = np.concatenate([found, (seen @ clip.texts(written[first : first + PART]).T).double().numpy()], 1)
        heights = np.stack([np.histogram(row, EDGES)[0] for row in found])
        lower = (found[:, None, :] < cosines[:, :, None]).mean(-1)
        state = replace(
            state,
            heights=heights,
            lower=lower,
            figures=(),
            doing=f"{found.shape[1]} random captions: cosines from {found.min():.2f} to {found.max():.2f}",
        )
        yield state
    best = int(cosines[0].argmax())
    figures = (
        BEST(float(cosines[0, best]), float(np.median(found[0]))),
        BEATEN(1000 * float((found[0] > cosines[0, best]).mean()), 500.0),
        BELOW_QUARTER(100 * float((found[0] < QUARTER).mean())),
    )
    yield replace(
        state,
        figures=figures,
        doing=f"{100 * float(lower[0, best]):.1f} % of the random captions are lower than the first picture's best",
    )
    return state


# --- templates --------------------------------------------------------------------------------------------------------


def wording(template: str) -> list[str]:
    """The 48 names in a template."""
    return [template.format(bare=f"{colour} {shape}", name=article(f"{colour} {shape}")) for colour, shape in PAIRS]


def templates(clip: Encoder, state: MatchStep, config: MatchConfig) -> Iterator[MatchStep]:
    """Held-out pictures with noise, named by each template and by the mean of all."""
    n = 240 if side_of(clip) == 32 else 40
    scenes = draw(np.random.default_rng(config.seed + 2), n, held_out=True)
    rng = torch.Generator().manual_seed(config.seed)
    right = torch.tensor([PAIRS.index(scenes.pair(number)) for number in range(n)])
    parts = list[Tensor]()
    for first in range(0, n, at_once(clip)):
        pictures = render(scenes[first : first + at_once(clip)].at(side_of(clip)))
        noise = config.noise * torch.randn((len(pictures), 3, 32, 32), generator=rng)
        parts.append(clip.pictures((pictures + F.interpolate(noise, pictures.shape[-2:], mode="nearest")).clamp(0, 1)))
        yield replace(state, figures=(), doing=f"held-out pictures with noise: {first + len(pictures)} of {n}")
    seen = torch.cat(parts)
    told, vectors = list[tuple[str, float, float]](), list[Tensor]()
    for template, name in zip(TEMPLATES, NAMES[:-1], strict=True):
        vectors.append(clip.texts(wording(template)))
        told.append((name, *share_right(seen, vectors[-1], right)))
        yield replace(state, templates=tuple(told), figures=(), doing=f"'{told[-1][0]}': {told[-1][1]:.1f} % right")
    told.append((ALL, *share_right(seen, F.normalize(torch.stack(vectors).mean(0), dim=-1), right)))
    shares, mean = [share for _, share, _ in told[:-1]], told[-1][1]
    figures = (
        MEAN_TEMPLATE(mean, shares[TEMPLATES.index(SINGLE)]),
        BEST_TEMPLATE(max(shares), mean),
        BARE_NAME(shares[0], mean),
    )
    yield replace(
        state,
        templates=tuple(told),
        figures=figures,
        doing=f"mean of all templates: {told[-1][1]:.1f} % right, the bare name: {told[0][1]:.1f} %",
    )


def share_right(seen: Tensor, names: Tensor, right: Tensor) -> tuple[float, float]:
    """% of the pictures whose best name is right, and its standard error."""
    share = float(((seen @ names.T).argmax(1) == right).double().mean())
    return 100 * share, 100 * float(np.sqrt(share * (1 - share) / len(seen)))
