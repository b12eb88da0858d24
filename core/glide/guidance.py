r"""Guidance: making the words count for more.

**Classifier-free.** The network answers twice, without the words and with them, and the sample goes $w$ times the
difference: $\hat x_0 = x(\varnothing) + w\,(x(c) - x(\varnothing))$. $w = 0$ ignores the words, 1 follows them, more
exaggerates. Nothing but the denoiser is needed. (This is GLIDE's scale; Ho and Salimans count from there, so their $w$
is one less.)

**CLIP guidance.** The network answers without the words, and another model pulls: the sample follows the gradient of
CLIP's own score, the scaled cosine of the picture and the words,

$$\hat x_0 = x(\varnothing) + s\,\frac{\sigma_t^2}{\alpha_t}\,\nabla_{x_t} \ell(c), \qquad \ell(c) = e^{\tau}
\cos\!\big(\text{CLIP}(x(\varnothing)), \text{CLIP}(c)\big).$$

By Bayes' rule $s = 1$ would be right if $\ell$ were $\ln p(c \mid x_t)$. The gradient goes through the denoiser to
$x_t$; or, cheaper, only to the predicted picture, with $\sigma_t^2$ for how uncertain that still is.

**Who judges?** CLIP guidance is an attack on CLIP: it finds whatever raises the cosine, a shape or a pattern that only
looks like one to CLIP. So all pictures are graded twice: by CLIP (which of 48 names is nearest?) and by a
judge trained separately, a classifier of color and shape that names 100 % of 2,000 clean drawings right. Where CLIP
gives far more pictures the right name than the judge does, CLIP was fooled. How often that happens depends on the
prompt: with "a green star" in about half of the pictures, with "a blue square" hardly ever. Try several. In the paper
people preferred classifier-free guidance, although CLIP scores said otherwise.

**The price** of guidance is diversity: in what the judge looks at, shape and color, the pictures come closer to each
other. Nearly all of that is the words themselves: the large drop is from $w = 0$ to 1, where they are read at all, so
larger scales are compared with $w = 1$. From there on diversity changes little, and may rise again. At large scales the
pictures turn into caricatures, with thin arms and glaring colors, since no training picture looks like that.

Left out: a CLIP trained on noisy pictures, as in the paper (here it looks at the predicted clean one, enlarged by the
upsampler); scales that change with time.
Source: Nichol et al. 2021, arXiv:2112.10741, sections 2.3, 2.4, 5.1 and 5.2, figures 5 to 7, table 1; Ho and Salimans
2022, arXiv:2207.12598; Dhariwal and Nichol 2021, arXiv:2105.05233.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, PAIRS, SHAPES, prompt, words_of
from core.foundations.diffusion import Moment, Network, sampling, signal, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import seen, shipped_judge
from core.foundations.small_clip import Clip, shipped_clip
from core.glide.denoise import change, rms
from core.glide.model import PATCH, Glide, answer_of, picture_of, prompt_tokens, shipped_glide
from core.glide.upsampler import shipped_upsampler

WAYS = ("unguided", "classifier-free", "CLIP")
GRADIENTS = {"noisy": "through the denoiser", "clean": "of the predicted picture"}
TIMES = (0.5, 1.0, 2.0, 4.0)  # the scales of the sweep, in parts of the chosen ones
SHOWN = 4  # pictures of each way
PART = 6  # pictures in one unit of work
PLAIN = 1.0  # the scale that follows the words and no more
CLIP_JUDGE = Figure(
    "judge agrees, CLIP guidance", "% of pictures", "baseline", "what CLIP says of the same pictures", headline=True
)
FREE_JUDGE = Figure(
    "judge agrees, classifier-free guidance",
    "% of pictures",
    "baseline",
    "what CLIP says of the same pictures",
    headline=True,
)
UNGUIDED_JUDGE = Figure(
    "judge agrees, unguided", "% of pictures", "baseline", "a blind guess; no words are read", headline=True
)
BEST_SCALE = Figure("classifier-free scale that the judge likes best", "scale")
CLIP_GAIN = Figure("gain of CLIP's score by CLIP guidance", "cosine", "baseline", "by classifier-free guidance")
DIVERSITY = Figure(
    "diversity at the largest classifier-free scale",
    "in the judge's features",
    "baseline",
    "at scale 1, which follows the words and no more",
    headline=True,
)


@dataclass(frozen=True)
class GuidanceConfig(Config):
    """One prompt, and how strongly each kind of guidance acts."""

    prompt: str = setting(
        "a green star",
        "Prompt",
        high=200,
        help="What to draw; it must name a color or a shape, since the judge looks at nothing else.",
    )
    scale: float = setting(
        2.0,
        "Classifier-free scale",
        low=0,
        high=20,
        help="Higher follows the prompt more strongly: 0 ignores the words, 1 follows them and no more.",
    )
    clip_scale: float = setting(
        2.0, "CLIP's scale", low=0, high=20, help="Higher lets CLIP pull harder at the picture; 1 would be Bayes' rule."
    )
    gradient: str = setting(
        "noisy",
        "CLIP's gradient",
        choices=GRADIENTS,
        help="Through the denoiser is exact and slow; of the predicted picture alone is cheaper.",
    )
    steps: int = setting(
        10,
        "Steps",
        unit="step",
        low=1,
        high=50,
        help="More steps make the pictures sharper; each takes time for every picture.",
    )
    samples: int = setting(
        12,
        "Pictures of each way",
        unit="picture",
        low=2,
        high=24,
        more=True,
        help="More pictures make the percentages more reliable; the run takes longer.",
    )
    seed: int = setting(
        0,
        "Seed of the noise",
        low=0,
        high=2**31 - 1,
        more=True,
        help="Another seed gives another noise, and so another picture; the same seed gives the same one.",
    )

    def check(self) -> None:
        if self.samples % 2:
            raise ValueError(f"samples must be even, got {self.samples}")


@dataclass(frozen=True)
class Grades:
    """What is said of the pictures of one way at one scale."""

    way: str
    scale: float
    judge: float  # % in which the judge sees what was asked
    guide: float  # % in which CLIP's nearest name is what was asked
    score: float  # mean cosine of picture and prompt
    apart: float  # mean distance of two pictures in the judge's features
    first: Float[np.ndarray, "3 S S"]  # the first of them


@dataclass(frozen=True)
class GuidanceStep(Step):
    """A step of the three ways from one noise, or one more scale of the sweep."""

    number: int = 0
    t: int | None = None
    pixels: np.ndarray | None = (
        None  # (3, 4, 3, S, S): way, picture: what is predicted now (16 x 16), at the end enlarged
    )
    verdicts: tuple[tuple[str, ...], ...] = ()  # at the end: what the judge sees
    liked: tuple[tuple[float, ...], ...] = ()  # ... and the cosine with the prompt
    grades: tuple[Grades, ...] = ()
    told: tuple[tuple[str, float, float, float, float, float], ...] = ()  # the same as plain numbers
    firsts: np.ndarray | None = None  # (G, 3, 32, 32) the first noise's picture for each of them
    pull: tuple[
        tuple[float, float, float], ...
    ] = ()  # fraction of the picture, rms of the two directions at the chosen scales


# --- kinds of guidance ------------------------------------------------------------------------------------------------


def asked_words(text: str) -> tuple[str, str]:
    """The color and the shape that a prompt names, '' where it names none."""
    prompt_tokens(text)
    words = words_of(text)
    colour, shape = (next((word for word in words if word in known), "") for known in (COLOURS, SHAPES))
    if not colour and not shape:
        raise ValueError("The prompt must name a color or a shape: the judge looks at nothing else")
    return colour, shape


def liking(clip: Clip, x0: Float[Tensor, "N 12 8 8"], text: Float[Tensor, "1 E"]) -> Float[Tensor, "N"]:
    """Cosines of predicted pictures with a text, with their gradient, through the upsampler too."""
    pictures = shipped_upsampler()(F.pixel_shuffle(x0, PATCH) / 2 + 0.5)
    return (F.normalize(clip.model.encode_image(2 * pictures - 1), dim=-1) @ text.T)[:, 0]


def pulled(denoiser: Glide, clip: Clip, text: Float[Tensor, "1 E"], gradient: str) -> Network:
    """A network whose answer "with the words" is the one without them, gone along CLIP's gradient."""
    every = signal(denoiser.schedule)

    def told(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        kept, nothing = every[t], denoiser.nothing(len(x))
        with torch.enable_grad():
            if gradient == "noisy":
                x = x.detach().requires_grad_(True)
                free = picture_of(denoiser, x, denoiser(x, t, nothing), kept)
                score = clip.scale * liking(clip, free, text).sum()
                direction = torch.autograd.grad(score, x)[0] * (1 - kept) / kept.sqrt()
            else:
                free = picture_of(denoiser, x, denoiser(x, t, nothing), kept).detach().requires_grad_(True)
                score = clip.scale * liking(clip, free, text).sum()
                direction = torch.autograd.grad(score, free)[0] * (1 - kept)
        x, free = x.detach(), free.detach()
        return answer_of(denoiser, x, free, kept), answer_of(denoiser, x, free + direction, kept)

    return told


@cache
def name_vectors() -> Float[Tensor, "48 E"]:
    return shipped_clip().texts([prompt(*pair) for pair in PAIRS])


def graded(way: str, scale: float, pictures: Float[Tensor, "N 3 S S"], text: str) -> Grades:
    """The word of the judge and of CLIP on pictures of one way, and how far they are apart."""
    colour, shape = asked_words(text)
    clip = shipped_clip()
    vectors = clip.pictures(pictures)
    nearest = [" ".join(PAIRS[at]) for at in (vectors @ name_vectors().T).argmax(1).tolist()]

    def share(names: list[str]) -> float:
        return 100 * float(np.mean([{colour, shape} - {""} <= set(name.split()) for name in names]))

    return Grades(
        way,
        scale,
        share(seen(pictures)),
        share(nearest),
        float((vectors @ clip.texts([text]).T).mean()),
        diversity(pictures),
        pictures[0].numpy(),
    )


@torch.no_grad()
def diversity(pictures: Float[Tensor, "N 3 S S"]) -> float:
    """The mean distance of two pictures in the features from which the judge tells color and shape; place does not
    count there.
    """
    features = shipped_judge().features(2 * pictures - 1).amax((2, 3))
    return float(torch.pdist(features).mean())


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How are words made to count for more, and who is to judge that?")
def guidance(config: GuidanceConfig) -> Iterator[GuidanceStep]:
    """Three ways from the same noise, watched; then both kinds of guidance at several scales."""
    asked_words(config.prompt)
    denoiser = shipped_glide()
    start = denoiser.small(denoiser.noise(config.samples, config.seed)[:SHOWN])
    yield GuidanceStep(
        pixels=start.expand(3, -1, -1, -1, -1).numpy(), doing=f"the same {config.samples} noises for all three ways"
    )
    state, found = yield from together(denoiser, config)
    first = [graded(way, scale, pictures, config.prompt) for (way, scale), pictures in found.items()]
    state = with_grades(state, first)
    yield replace(
        state, doing="; ".join(f"{one.way}: judge {one.judge:.0f} %, CLIP {one.guide:.0f} %" for one in first)
    )
    state = yield from swept(replace(state, pixels=None), denoiser, config)
    yield replace(state, figures=figures_of(state, config), doing=conclusion(state, config))


def with_grades(state: GuidanceStep, more: list[Grades]) -> GuidanceStep:
    grades = tuple(sorted([*state.grades, *more], key=lambda one: (WAYS.index(one.way), one.scale)))
    told = tuple((one.way, one.scale, one.judge, one.guide, one.score, one.apart) for one in grades)
    return replace(state, grades=grades, told=told, firsts=np.stack([one.first for one in grades]))


def walk(denoiser: Glide, config: GuidanceConfig, way: str, scale: float, part: slice) -> Iterator[Moment]:
    """Sample a part of the pictures in one way."""
    x = denoiser.noise(config.samples, config.seed)[part]
    if way == "CLIP":
        network = pulled(denoiser, shipped_clip(), shipped_clip().texts([config.prompt]), config.gradient)
    else:
        network = denoiser.network(denoiser.states([config.prompt] * len(x)).detach())
    kinds = denoiser.schedule, denoiser.predicts
    return sampling(network, x, kinds, config.steps, scale, clip=denoiser.clip, visited=trailing(config.steps))


def parts_of(config: GuidanceConfig) -> list[slice]:
    return [slice(first, first + PART) for first in range(0, config.samples, PART)]


def together(
    denoiser: Glide, config: GuidanceConfig
) -> Generator[GuidanceStep, None, tuple[GuidanceStep, dict[tuple[str, float], Tensor]]]:
    """The three ways side by side; the first pictures are shown at each step."""
    chosen = dict(zip(WAYS, (0.0, config.scale, config.clip_scale), strict=True))
    found: dict[tuple[str, float], list[Tensor]] = {(way, scale): [] for way, scale in chosen.items()}
    state, pull = GuidanceStep(), list[tuple[float, float, float]]()
    for part in parts_of(config):
        runs = {way: walk(denoiser, config, way, scale, part) for way, scale in chosen.items()}
        last = dict[str, Moment]()
        for number in range(config.steps):
            for way, run in runs.items():
                last[way] = next(run)
                yield replace(
                    state,
                    number=number,
                    doing=(
                        f"pictures {part.start + 1} to {part.start + len(last[way].x)}, {way}, step {number + 1} of"
                        f" {config.steps}"
                    ),
                )
            if part.start == 0:
                strengths = [scale * rms(change(denoiser, last[way])) for way, scale in chosen.items()]
                pull.append((last["CLIP"].kept, strengths[1], strengths[2]))
                state = replace(state, number=number + 1, t=last["CLIP"].t, pull=tuple(pull))
                shown = torch.stack([denoiser.small(last[way].x0[:SHOWN]) for way in WAYS])
                yield replace(state, pixels=shown.numpy(), doing=f"step {number + 1}: what each way expects to draw")
        for way, scale in chosen.items():
            found[way, scale].append(denoiser.decode(last[way].after))
    ends = {key: torch.cat(pictures) for key, pictures in found.items()}
    shown = torch.stack([pictures[:SHOWN] for pictures in ends.values()])
    liked = (shipped_clip().pictures(shown.flatten(0, 1)) @ shipped_clip().texts([config.prompt]).T).view(3, -1)
    names = seen(shown.flatten(0, 1))
    each = len(shown[0])
    verdicts = tuple(tuple(names[each * row : each * row + each]) for row in range(3))
    return (
        replace(
            state,
            number=config.steps,
            t=None,
            pixels=shown.numpy(),
            verdicts=verdicts,
            liked=tuple(tuple(row) for row in liked.tolist()),
        ),
        ends,
    )


def swept(state: GuidanceStep, denoiser: Glide, config: GuidanceConfig) -> Generator[GuidanceStep, None, GuidanceStep]:
    """Both kinds of guidance at more scales, from the same noise."""
    for way, chosen in zip(WAYS[1:], (config.scale, config.clip_scale), strict=True):
        plain = {PLAIN} if way == WAYS[1] else set()
        for scale in sorted(({chosen * times for times in TIMES} | plain) - {chosen}):
            ends = []
            for part in parts_of(config):
                x = denoiser.noise(1, 0)
                for moment in walk(denoiser, config, way, scale, part):
                    x = moment.after
                    yield replace(state, doing=f"{way}, scale {scale:g}: t = {moment.t}")
                ends.append(denoiser.decode(x))
            one = graded(way, scale, torch.cat(ends), config.prompt)
            state = with_grades(state, [one])
            yield replace(
                state,
                doing=(f"{way}, scale {scale:g}: the judge agrees with {one.judge:.0f} %, CLIP with {one.guide:.0f} %"),
            )
    return state


def gap_of(state: GuidanceStep, way: str) -> Grades:
    """The scale at which CLIP gives its highest score."""
    return max((one for one in state.grades if one.way == way), key=lambda one: (one.guide, one.score))


def blind_guess(text: str) -> float:
    """% of pictures that a guess among the 48 names would get right: of color and shape, as far as they are named."""
    colour, shape = asked_words(text)
    return 100 / ((len(COLOURS) if colour else 1) * (len(SHAPES) if shape else 1))


def figures_of(state: GuidanceStep, config: GuidanceConfig) -> tuple[Result, ...]:
    """What CLIP and the judge say of each way, and what the scale costs."""
    unguided, free, clip = gap_of(state, WAYS[0]), gap_of(state, WAYS[1]), gap_of(state, WAYS[2])
    scales = [grade for grade in state.grades if grade.way == WAYS[1]]
    best = max(scales, key=lambda grade: (grade.judge, -grade.scale))
    largest, plain = max(scales, key=lambda grade: grade.scale), next(each for each in scales if each.scale == PLAIN)
    return (
        CLIP_JUDGE(clip.judge, clip.guide, source=f"{CLIP_JUDGE.source}; scale {clip.scale:g}"),
        FREE_JUDGE(free.judge, free.guide, source=f"{FREE_JUDGE.source}; scale {free.scale:g}"),
        UNGUIDED_JUDGE(unguided.judge, blind_guess(config.prompt)),
        DIVERSITY(largest.apart, plain.apart, source=f"{DIVERSITY.source}; the largest is {largest.scale:g}"),
        BEST_SCALE(best.scale, source=f"{best.judge:.0f} % of pictures"),
        CLIP_GAIN(clip.score - unguided.score, free.score - unguided.score),
    )


def conclusion(state: GuidanceStep, config: GuidanceConfig) -> str:
    clip, classifier = gap_of(state, WAYS[2]), gap_of(state, WAYS[1])
    return (
        f"where CLIP gives its highest score: it names {clip.guide:.0f} % right with CLIP guidance and the judge"
        f" {clip.judge:.0f} %; {classifier.guide:.0f} % and {classifier.judge:.0f} % classifier-free"
    )
