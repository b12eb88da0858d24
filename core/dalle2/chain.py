r"""The whole chain: caption, CLIP's text embedding, prior, image embedding, decoder, picture.

**Why a prior?** CLIP puts a caption near the pictures that fit it, but a caption is one point, where the pictures that
fit it are many: it leaves place, size and background open. The decoder was trained on picture embeddings and has never
seen a text embedding.

Here the three ways stand side by side, and each is decoded from the same noise:

1. the diffusion prior: noise becomes an embedding in a few steps, guided by $z_t$;
2. the autoregressive prior: the embedding is written, one principal component after the other;
3. no prior: $z_t$ goes straight into the decoder.

**How to measure.** A set of real pictures that fit the caption is drawn and encoded. An imagined embedding is good if
it could be one of them: its cosine with the *nearest* of them should be what a real one has with the nearest other. And
the imagined ones should differ among themselves as much as the real ones do. A mean of all pictures would have a good
cosine with each of them and still be none: the first guesses of the diffusion prior, when all it sees is noise, are
such means.

The figure of the clouds is a projection: to the right, from the caption to the middle of the real pictures; upward, the
direction in which these differ most, which often is the background.

Not every caption goes wrong without a prior: "a yellow triangle" is one of the worst of all 48 names, since the decoder
takes its embedding for another color, and "a blue star" comes out right. So in the end all 48 names are drawn quickly,
once without a prior and once with the diffusion prior, from the same noise. (The paper says, too, that the text
embedding put in directly gives reasonable results: FID 16.55 against 7.99.)

Left out: the caption as a second condition of the decoder, and the upsamplers of the paper; this decoder paints
latents.
Source: Ramesh et al. 2022, arXiv:2204.06125, figure 2, sections 2.2 and 5.1 (the prior's worth), figure 8 (the text
embedding put in directly).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.dalle2.decoder import shipped_decoder
from core.dalle2.decoding import decoding, mean_cosine
from core.dalle2.prior import KEPT, shipped_autoregressive, shipped_prior
from core.dalle2.real import MODELS, real_chain
from core.dalle2.real import WAYS as REAL_WAYS
from core.foundations.captioned_shapes import (
    COLOURS,
    GROUNDS,
    PAIRS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scenes,
    asked_pair,
    captions,
    draw,
    prompt,
    render,
    tokens_of,
    words_of,
)
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import verdicts
from core.foundations.small_clip import shipped_clip

WAYS = ("diffusion prior", "autoregressive prior", "no prior")
REAL, FEWEST = 192, 32  # real pictures that fit the caption: at most, at least
SAMPLES = 32  # embeddings that each prior imagines
QUICK = 4  # steps of the decoder over all names
NEAREST = Figure(
    "cosine with the nearest real picture, {way}", "cosine", "baseline", "a real one's with the nearest other one"
)
TWO = Figure("cosine of two embeddings for one caption, {way}", "cosine", "baseline", "two real pictures that fit")
AS_ASKED = Figure("pictures as asked, {way}", "%", "limit", "every picture follows the caption")
AGAIN = Figure("picture encoded again, {way}", "cosine", "limit", "all of the embedding is in the picture")
ALL_NAMES = Figure(
    "all 48 names: pictures as asked, {way}",
    "%",
    "baseline",
    f"{QUICK} steps of the decoder, one noise each",
    headline=True,
)
REAL_LENGTH = Figure(
    "length of an imagined embedding", "length", "baseline", "the embedding of a blank picture", headline=True
)
REAL_CAPTION = Figure(
    "cosine of an imagined embedding with the caption", "cosine", "limit", "1: the caption's own", headline=True
)
REAL_TWO = Figure("cosine of two embeddings for one caption", "cosine", "limit", "1: without a prior all are one")
PART = 16  # names drawn in one unit of work
POOL = 2400  # scenes among which the fitting ones are looked for
TELLING = frozenset({*COLOURS, *SHAPES, *SIZES, *GROUNDS, "left", "right", "top", "bottom", "middle", "above", "below"})


@dataclass(frozen=True)
class ChainConfig(Config):
    """A caption and how it becomes pictures."""

    prompt: str = setting(
        "a yellow triangle",
        "Caption",
        high=200,
        help="A caption in words that the model knows: a color, a shape, a size, a place.",
    )
    pictures: int = setting(
        4,
        "Pictures for each way",
        low=1,
        high=8,
        help="More pictures per way show how much they vary; each takes time.",
        slider=True,
    )
    scale: float = setting(
        2.0,
        "Guidance of the decoder",
        low=0.0,
        high=20.0,
        help="Higher makes the picture follow the embedding more strongly; 0 ignores it, 1 follows it and no more.",
    )
    steps: int = setting(
        25,
        "Steps of the decoder",
        low=1,
        high=100,
        help="More steps of the decoder make the pictures sharper; each takes time.",
    )
    prior_steps: int = setting(
        20,
        "Steps of the diffusion prior",
        low=1,
        high=100,
        help="More steps of the prior imagine the embedding more exactly; they are quick.",
    )
    prior_scale: float = setting(
        1.0,
        "Guidance of the diffusion prior",
        low=0.0,
        high=20.0,
        more=True,
        help="Higher makes the imagined embedding follow the caption more strongly and vary less.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="Kandinsky 2.2 is an open model of the same build; it needs a network once and a GPU.",
    )
    seed: int = setting(
        0,
        "Seed",
        low=0,
        high=2**31 - 1,
        help="Another seed gives another noise, and so another picture; the same seed gives the same one.",
    )


@dataclass(frozen=True)
class ChainStep(Step):
    """All that is known so far; what is not known yet is None or empty."""

    stage: str = ""  # of the film: "prior" or "decoder"
    number: int = 0  # the step of that stage
    words: tuple[str, ...] = ()
    ways: tuple[str, ...] = WAYS
    maps: np.ndarray | None = (
        None  # (M, E) vectors that are drawn: caption, diffusion's x_t and guess, autoregressive so far, a real one
    )
    map_names: tuple[str, ...] = ()
    pixels: np.ndarray | None = None  # (ways, N, 3, 32, 32)
    seen: tuple[tuple[tuple[str, str], ...], ...] = ()  # what the judge sees: per way and picture (color, shape)
    asked: tuple[str, str] | None = None  # color and shape, if the caption names one of each
    real: np.ndarray | None = None  # (R, 2) the real pictures that fit, projected
    grounds: tuple[tuple[str, float, float], ...] = ()  # where the middle of those on each background is
    text: np.ndarray | None = None  # (2,)
    imagined: tuple[np.ndarray, ...] = ()  # (S, 2) of each prior
    nearest: tuple[tuple[str, float], ...] = ()  # cosine to the nearest real picture: who, mean
    spread: tuple[tuple[str, float], ...] = ()  # cosine of two of one kind
    note: str = ""


# --- real pictures that fit -------------------------------------------------------------------------------------------


def asked_words(prompt: str) -> list[str]:
    return [word for word in words_of(prompt) if word in TELLING]


def fitting(prompt: str, n: int, seed: int) -> tuple[Scenes, int]:
    """At most n scenes whose whole description has the telling words of a caption, and how many have all; if hardly
    any, also those with most.
    """
    words, rng = asked_words(prompt), np.random.default_rng(seed)
    colours, shapes = [word for word in words if word in COLOURS], [word for word in words if word in SHAPES]
    some, other = colours[:1] or list(COLOURS), shapes[:1] or list(SHAPES)
    first = [(some[rng.integers(len(some))], other[rng.integers(len(other))]) for _ in range(POOL)]
    two = 1.0 if len(shapes) > 1 or any(relation.split()[0] in words for relation in RELATIONS[2:]) else 0.0
    scenes = draw(rng, POOL, two=two, held_out=None, pairs=first)
    told = [set(caption.split()) for caption in captions(scenes, rng, told=1.0)]
    hits = np.array([sum(word in caption for word in words) for caption in told])
    whole = int((hits == len(words)).sum())
    best = np.argsort(-hits, kind="stable")[: min(n, max(FEWEST, whole))]
    return scenes[best], min(whole, len(best))  # type: ignore[index]


class Plane:
    """Two directions to draw in: from the caption to the middle of the real pictures, and where these differ most
    beside that.
    """

    def __init__(self, real: Float[Tensor, "R E"], text: Float[Tensor, "E"]) -> None:
        middle = real.mean(0)
        along = F.normalize(middle - text, dim=0)
        rest = real - middle
        rest = rest - (rest @ along)[:, None] * along
        most = torch.linalg.svd(rest.double(), full_matrices=False).Vh[0].float()
        self.middle, self.two = middle, torch.stack([along, most * most[most.abs().argmax()].sign()])

    def of(self, vectors: Float[Tensor, "N E"]) -> np.ndarray:
        flat: np.ndarray = ((vectors - self.middle) @ self.two.T).double().numpy()
        return flat


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How does a caption become a picture, and what does the prior add?")
def chain(config: ChainConfig) -> Iterator[ChainStep]:
    """Encode the caption, imagine embeddings in two ways, decode them and the caption's own."""
    if config.model != "shipped":
        yield from real(config)
        return
    tokens_of([config.prompt])  # refuses unknown words, and none at all
    text, decoder = shipped_clip().texts([config.prompt])[0], shipped_decoder()
    noise = decoder.noise(config.pictures, config.seed)
    blank = np.repeat(decoder.decode(noise).numpy()[None], len(WAYS), 0)
    start = torch.randn(SAMPLES, len(text), generator=torch.Generator().manual_seed(config.seed))[0] / len(text) ** 0.5
    scenes, whole = fitting(config.prompt, REAL, config.seed)
    fits = shipped_clip().pictures(render(scenes))
    plane = Plane(fits, text)
    points = plane.of(fits)
    told = f"only {whole} of {len(scenes)} drawings have all words of the caption; the others have most of them"
    state = ChainStep(
        words=tuple(config.prompt.split()),
        asked=asked_pair(config.prompt),
        pixels=blank,
        stage="prior",
        maps=torch.stack([text, start]).numpy(),
        map_names=("caption z_t", "noise x_T"),
        real=points,
        text=plane.of(text[None])[0],
        grounds=middles(points, scenes),
        note="" if whole == len(scenes) else told,
    )
    state = compared(state, fits, {"real pictures": fits, WAYS[2]: text[None]})
    yield replace(
        state, doing=f"the caption is one vector of {len(text)} numbers; the prior and the decoder begin with noise"
    )
    state, imagined = yield from prior_stage(config, text, fits, plane, state)
    yield from decoder_stage(config, text, imagined, state)


def middles(real: Float[np.ndarray, "R 2"], scenes: Scenes) -> tuple[tuple[str, float, float], ...]:
    """The name of each background, and where the real pictures on it are in the figure."""
    there = [(name, real[scenes.ground == number]) for number, name in enumerate(GROUNDS)]
    return tuple(
        (name, float(points[:, 0].mean()), float(points[:, 1].mean())) for name, points in there if len(points)
    )


def prior_stage(
    config: ChainConfig, text: Float[Tensor, "E"], real: Float[Tensor, "R E"], plane: Plane, state: ChainStep
) -> Generator[ChainStep, None, tuple[ChainStep, list[Float[Tensor, "S E"]]]]:
    """Both priors at once: a step of the diffusion, and as large a fraction of the codes."""
    texts, steps = text.expand(SAMPLES, -1), config.prior_steps
    writing, autoregressive = shipped_autoregressive().written(texts, config.seed), shipped_autoregressive()
    codes = torch.zeros(SAMPLES, 0, dtype=torch.int64)
    guess = written = texts
    for number, moment in enumerate(shipped_prior().moments(texts, config.seed, steps, config.prior_scale), 1):
        while codes.shape[1] < KEPT * number / steps:
            codes, _ = next(writing)
            if codes.shape[1] % 8 == 0 and codes.shape[1] + 1 < KEPT * number / steps:
                yield replace(state, doing=f"the autoregressive prior writes component {codes.shape[1]} of {KEPT}")
        last = number == steps
        guess = F.normalize(moment.after if last else moment.x0, dim=-1)
        written = autoregressive.vectors(codes)
        nearest = real[(real @ guess[0]).argmax()]
        maps = torch.stack([text, moment.after[0] / len(text) ** 0.5, guess[0], written[0], nearest])
        names = ("caption z_t", f"x_t, t = {moment.t}", "guess of z_i", f"{codes.shape[1]}/{KEPT} codes", "real z_i")
        state = replace(
            state, number=number, maps=maps.numpy(), map_names=names, imagined=(plane.of(guess), plane.of(written))
        )
        state = compared(state, real, {"real pictures": real, WAYS[0]: guess, WAYS[1]: written, WAYS[2]: text[None]})
        if not last:
            yield replace(
                state,
                doing=(
                    f"prior, step {number} of {steps}: {moment.kept:.1%} of the variance it sees is signal, the rest"
                    " noise"
                ),
            )
    yield replace(
        state,
        figures=told_cosines(state),
        doing="cosine to the nearest real picture: " + ", ".join(f"{n} {v:.2f}" for n, v in state.nearest),
    )
    return state, [guess, written]


def compared(state: ChainStep, real: Float[Tensor, "R E"], kinds: dict[str, Float[Tensor, "N E"]]) -> ChainStep:
    """Cosines to the nearest real picture and among themselves."""
    nearest, spread = list[tuple[str, float]](), list[tuple[str, float]]()
    for name, vectors in kinds.items():
        cosines = vectors @ real.T
        if vectors is real:
            cosines = cosines.fill_diagonal_(-1)  # the nearest other one
        nearest.append((name, float(cosines.amax(1).double().mean())))
        spread.append((name, mean_cosine(vectors) if len(vectors) > 1 else 1.0))
    return replace(state, nearest=tuple(nearest), spread=tuple(spread))


def headline(family: Figure, way: str) -> Figure:
    """The member of a family; that of the diffusion prior and that of no prior are headlines."""
    return replace(family.of(way=way), headline=way != WAYS[1])


def told_cosines(state: ChainStep) -> tuple[Result, ...]:
    """What the priors imagined against what is real."""
    (_, best), *near = state.nearest
    (_, apart), *among = state.spread
    nearest = [headline(NEAREST, name)(value, best) for name, value in near]
    two = [TWO.of(way=name)(value, apart) for name, value in among if name != WAYS[2]]  # without a prior all are one
    return (*nearest, *two)


def decoder_stage(
    config: ChainConfig, text: Float[Tensor, "E"], imagined: list[Float[Tensor, "S E"]], state: ChainStep
) -> Iterator[ChainStep]:
    """Three rows of pictures from the same noise."""
    decoder, n = shipped_decoder(), config.pictures
    sets, shown = [imagined[0][:n], imagined[1][:n], text.expand(n, -1)], list[Tensor]()
    state = replace(state, stage="decoder", number=0)
    for step, way, shown in decoding(decoder, sets, decoder.noise(n, config.seed), config.steps, config.scale):
        told = f"decoder, step {step + 1} of {config.steps}: {WAYS[way]}"
        if way == len(WAYS) - 1 and step < config.steps - 1:
            state = replace(state, number=step + 1, pixels=torch.stack(shown).numpy())
            yield replace(state, doing=told)
        elif step < config.steps - 1 or way < len(WAYS) - 1:
            yield replace(state, pixels=None, doing=told)
    seen = tuple(verdicts(pictures) for pictures in shown)
    state = replace(state, number=config.steps, pixels=torch.stack(shown).numpy(), seen=seen)
    figures, told = (
        list[Result](),
        "the judge sees: " + "; ".join(f"{way}: {' '.join(row[0])}" for way, row in zip(WAYS, seen, strict=True)),
    )
    if state.asked:
        right = [100 * sum(found == state.asked for found in row) / n for row in seen]
        figures = [AS_ASKED.of(way=way)(share, 100.0) for way, share in zip(WAYS, right, strict=True)]
        told = "as the judge sees it, right are " + ", ".join(
            f"{share:.0f} % ({way})" for way, share in zip(WAYS, right, strict=True)
        )
    again = [
        float((shipped_clip().pictures(pictures) * vectors).sum(-1).mean())
        for pictures, vectors in zip(shown, sets, strict=True)
    ]
    figures += [AGAIN.of(way=way)(value, 1.0) for way, value in zip(WAYS, again, strict=True)]
    state = replace(state, figures=tuple(figures), doing=told)
    yield state
    yield from all_names(config, state)


def all_names(config: ChainConfig, state: ChainStep) -> Iterator[ChainStep]:
    """Every name of a color and a shape, drawn once with the diffusion prior and once without, from the same noise."""
    decoder, texts = shipped_decoder(), shipped_clip().texts([prompt(*pair) for pair in PAIRS])
    yield replace(state, figures=(), pixels=None, doing=f"all {len(PAIRS)} names: imagining their embeddings")
    imagined = shipped_prior().imagine(texts, config.seed, config.prior_steps, config.prior_scale)
    noise, right = decoder.noise(len(PAIRS), config.seed), {WAYS[0]: 0, WAYS[2]: 0}
    for first in range(0, len(PAIRS), PART):
        part = slice(first, first + PART)
        shown = list[Tensor]()
        pause = replace(state, figures=(), pixels=None, doing=f"all names: {first} of {len(PAIRS)} drawn")
        for *_, pictures_so_far in decoding(decoder, [imagined[part], texts[part]], noise[part], QUICK, config.scale):
            shown = pictures_so_far
            yield pause
        for way, pictures in zip(right, shown, strict=True):
            right[way] += sum(a == b for a, b in zip(verdicts(pictures), PAIRS[part], strict=True))
    percent = {way: 100 * count / len(PAIRS) for way, count in right.items()}
    prior, none = WAYS[0], WAYS[2]
    yield replace(
        state,
        pixels=None,
        figures=(
            ALL_NAMES.of(way=none)(percent[none], percent[prior], source=f"{prior}; {ALL_NAMES.source}"),
            ALL_NAMES.of(way=prior)(percent[prior], percent[none], source=f"{none}; {ALL_NAMES.source}"),
        ),
        doing=f"{state.doing}; over all names {percent[none]:.0f} % ({none}) and {percent[prior]:.0f} % ({prior})",
    )


def real(config: ChainConfig) -> Iterator[ChainStep]:
    """The same chain in Kandinsky 2.2; there is no other prior, and no judge that knows the world."""
    state = ChainStep(words=tuple(config.prompt.split()), ways=REAL_WAYS)
    steps, scales = (config.prior_steps, config.steps), (config.prior_scale, config.scale)
    for moment in real_chain(config.prompt, config.pictures, steps, scales, config.seed):
        told = list(moment.vectors.items())
        maps = torch.stack([F.normalize(vector, dim=0) for _, vector in told]).numpy() if told else None
        figures: tuple[Result, ...] = ()
        if moment.lengths and moment.cosines:
            blank, length = moment.lengths
            caption, two = moment.cosines
            figures = (REAL_LENGTH(length, blank), REAL_CAPTION(caption, 1.0), REAL_TWO(two, 1.0))
        pixels = None if moment.pictures is None else moment.pictures.numpy()
        yield replace(
            state,
            stage=moment.stage,
            number=moment.number,
            maps=maps,
            map_names=tuple(name for name, _ in told),
            pixels=pixels,
            figures=figures,
            doing=moment.doing,
        )
