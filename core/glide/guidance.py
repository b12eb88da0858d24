r"""Guidance: making the words count for more.

**Classifier-free.** The network answers twice, without the words and with them, and the sample goes $w$ times the difference:
$\hat x_0 = x(\varnothing) + w\,(x(c) - x(\varnothing))$.
$w = 0$ ignores the words, 1 follows them, more exaggerates. Nothing but the denoiser is needed.

**CLIP guidance.** The network answers without the words, and another model pulls: the sample goes up the gradient of CLIP's
own score, the scaled cosine of the picture and the words,

$$\hat x_0 = x(\varnothing) + s\,\frac{\sigma_t^2}{\alpha_t}\,\nabla_{x_t} \ell(c), \qquad \ell(c) = e^{\tau}
\cos\!\big(\text{CLIP}(x(\varnothing)), \text{CLIP}(c)\big).$$

By Bayes' rule $s = 1$ would be right if $\ell$ were $\ln p(c \mid x_t)$. The gradient goes through the denoiser to $x_t$;
or, cheaper, only to the predicted picture, with $\sigma_t^2$ for how uncertain that still is.

**Who judges?** CLIP guidance is an attack on CLIP: it finds whatever raises the cosine, a shape or a pattern that only
looks like one to the guide. So all pictures are graded twice: by the guide (which of 48 names is nearest?) and by a judge
trained apart. With classifier-free guidance both agree. Where the guide is far more content than the judge, it was fooled.
In the paper people preferred classifier-free guidance, although CLIP scores said otherwise.

**The price** of a larger scale is diversity: in what the judge looks at, shape and colour, the pictures come closer to each other. At
large scales they turn into caricatures, with thin arms and glaring colours, since no training picture looks like that.

Left out: a CLIP trained on noisy pictures, as in the paper (here it looks at the predicted clean one, enlarged by the upsampler);
scales that change with time.
Source: Nichol et al. 2021, arXiv:2112.10741, sections 2.3, 2.4 and 4.1, figures 5 and 6; Ho and Salimans 2022,
arXiv:2207.12598; Dhariwal and Nichol 2021, arXiv:2105.05233.
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
from core.foundations.diffusion import Moment, Network, sampling, signal
from core.foundations.experiment import Compared, Config, Step, experiment, setting
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


@dataclass(frozen=True)
class GuidanceConfig(Config):
    """One prompt, two guides."""

    prompt: str = setting("a green star", "Prompt", high=200)
    scale: float = setting(2.0, "Classifier-free scale", low=0, high=20, help="w: 0 ignores the words, 1 follows them")
    clip_scale: float = setting(2.0, "CLIP's scale", low=0, high=20, help="s: 1 would be Bayes' rule")
    gradient: str = setting("noisy", "CLIP's gradient", choices=GRADIENTS)
    steps: int = setting(10, "Steps", unit="step", low=1, high=50)
    samples: int = setting(12, "Pictures of each way", unit="picture", low=2, high=24, more=True)
    seed: int = setting(0, "Seed of the noise", low=0, high=2**31 - 1, more=True)

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
    pixels: np.ndarray | None = None  # (3, 4, 3, S, S): way, picture: what is predicted now (16 x 16), at the end enlarged
    verdicts: tuple[tuple[str, ...], ...] = ()  # at the end: what the judge sees
    liked: tuple[tuple[float, ...], ...] = ()  # ... and the cosine with the prompt
    grades: tuple[Grades, ...] = ()
    told: tuple[tuple[str, float, float, float, float, float], ...] = ()  # the same as plain numbers
    firsts: np.ndarray | None = None  # (G, 3, 32, 32) the first noise's picture for each of them
    pull: tuple[tuple[float, float, float], ...] = ()  # share of the picture, rms of the two directions at the chosen scales


# --- guides -----------------------------------------------------------------------------------------------------------


def asked_words(text: str) -> tuple[str, str]:
    """The colour and the shape that a prompt names, '' where it names none."""
    prompt_tokens(text)
    words = words_of(text)
    colour, shape = (next((word for word in words if word in known), "") for known in (COLOURS, SHAPES))
    if not colour and not shape:
        raise ValueError("The prompt must name a colour or a shape: the judge looks at nothing else")
    return colour, shape


def liking(clip: Clip, x0: Float[Tensor, "N 12 8 8"], text: Float[Tensor, "1 E"]) -> Float[Tensor, "N"]:
    """Cosines of predicted pictures with a text, with their gradient, through the upsampler too."""
    pictures = shipped_upsampler()(F.pixel_shuffle(x0, PATCH) / 2 + 0.5)
    return (F.normalize(clip.model.encode_image(2 * pictures - 1), dim=-1) @ text.T)[:, 0]


def pulled(painter: Glide, clip: Clip, text: Float[Tensor, "1 E"], gradient: str) -> Network:
    """A network whose answer "with the words" is the one without them, gone along CLIP's gradient."""
    every = signal(painter.schedule)

    def told(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        kept, nothing = every[t], painter.nothing(len(x))
        with torch.enable_grad():
            if gradient == "noisy":
                x = x.detach().requires_grad_(True)
                free = picture_of(painter, x, painter(x, t, nothing), kept)
                score = clip.scale * liking(clip, free, text).sum()
                direction = torch.autograd.grad(score, x)[0] * (1 - kept) / kept.sqrt()
            else:
                free = picture_of(painter, x, painter(x, t, nothing), kept).detach().requires_grad_(True)
                score = clip.scale * liking(clip, free, text).sum()
                direction = torch.autograd.grad(score, free)[0] * (1 - kept)
        x, free = x.detach(), free.detach()
        return answer_of(painter, x, free, kept), answer_of(painter, x, free + direction, kept)

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

    return Grades(way, scale, share(seen(pictures)), share(nearest), float((vectors @ clip.texts([text]).T).mean()), diversity(pictures), pictures[0].numpy())


@torch.no_grad()
def diversity(pictures: Float[Tensor, "N 3 S S"]) -> float:
    """The mean distance of two pictures in the features from which the judge tells colour and shape; place does not count there."""
    features = shipped_judge().features(2 * pictures - 1).amax((2, 3))
    return float(torch.pdist(features).mean())


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How are words made to count for more, and who is to judge that?")
def guidance(config: GuidanceConfig) -> Iterator[GuidanceStep]:
    """Three ways from the same noise, watched; then both guides at four scales."""
    asked_words(config.prompt)
    painter = shipped_glide()
    start = painter.small(painter.noise(config.samples, config.seed)[:SHOWN])
    yield GuidanceStep(pixels=start.expand(3, -1, -1, -1, -1).numpy(), doing=f"the same {config.samples} noises for all three ways")
    state, found = yield from together(painter, config)
    first = [graded(way, scale, pictures, config.prompt) for (way, scale), pictures in found.items()]
    state = with_grades(state, first)
    yield replace(state, doing="; ".join(f"{one.way}: judge {one.judge:.0f} %, guide {one.guide:.0f} %" for one in first))
    state = yield from swept(replace(state, pixels=None), painter, config)
    yield replace(state, figures=figures_of(state, config), doing=conclusion(state, config))


def with_grades(state: GuidanceStep, more: list[Grades]) -> GuidanceStep:
    grades = tuple(sorted([*state.grades, *more], key=lambda one: (WAYS.index(one.way), one.scale)))
    told = tuple((one.way, one.scale, one.judge, one.guide, one.score, one.apart) for one in grades)
    return replace(state, grades=grades, told=told, firsts=np.stack([one.first for one in grades]))


def walk(painter: Glide, config: GuidanceConfig, way: str, scale: float, part: slice) -> Iterator[Moment]:
    """Sample a part of the pictures in one way."""
    x = painter.noise(config.samples, config.seed)[part]
    if way == "CLIP":
        network = pulled(painter, shipped_clip(), shipped_clip().texts([config.prompt]), config.gradient)
    else:
        network = painter.network(painter.states([config.prompt] * len(x)).detach())
    return sampling(network, x, (painter.schedule, painter.predicts), config.steps, scale, clip=painter.clip)


def parts_of(config: GuidanceConfig) -> list[slice]:
    return [slice(first, first + PART) for first in range(0, config.samples, PART)]


def together(painter: Glide, config: GuidanceConfig) -> Generator[GuidanceStep, None, tuple[GuidanceStep, dict[tuple[str, float], Tensor]]]:
    """The three ways side by side; the first pictures are shown at each step."""
    chosen = dict(zip(WAYS, (0.0, config.scale, config.clip_scale), strict=True))
    found: dict[tuple[str, float], list[Tensor]] = {(way, scale): [] for way, scale in chosen.items()}
    state, pull = GuidanceStep(), list[tuple[float, float, float]]()
    for part in parts_of(config):
        runs = {way: walk(painter, config, way, scale, part) for way, scale in chosen.items()}
        last = dict[str, Moment]()
        for number in range(config.steps):
            for way, run in runs.items():
                last[way] = next(run)
                yield replace(
                    state, number=number, doing=f"pictures {part.start + 1} to {part.start + len(last[way].x)}, {way}, step {number + 1} of {config.steps}"
                )
            if part.start == 0:
                strengths = [scale * rms(change(painter, last[way])) for way, scale in chosen.items()]
                pull.append((last["CLIP"].kept, strengths[1], strengths[2]))
                state = replace(state, number=number + 1, t=last["CLIP"].t, pull=tuple(pull))
                shown = torch.stack([painter.small(last[way].x0[:SHOWN]) for way in WAYS])
                yield replace(state, pixels=shown.numpy(), doing=f"step {number + 1}: what each way expects to draw")
        for way, scale in chosen.items():
            found[way, scale].append(painter.decode(last[way].after))
    ends = {key: torch.cat(pictures) for key, pictures in found.items()}
    shown = torch.stack([pictures[:SHOWN] for pictures in ends.values()])
    liked = (shipped_clip().pictures(shown.flatten(0, 1)) @ shipped_clip().texts([config.prompt]).T).view(3, -1)
    names = seen(shown.flatten(0, 1))
    each = len(shown[0])
    verdicts = tuple(tuple(names[each * row : each * row + each]) for row in range(3))
    return replace(state, number=config.steps, t=None, pixels=shown.numpy(), verdicts=verdicts, liked=tuple(tuple(row) for row in liked.tolist())), ends


def swept(state: GuidanceStep, painter: Glide, config: GuidanceConfig) -> Generator[GuidanceStep, None, GuidanceStep]:
    """Both guides at more scales, from the same noise."""
    for way, chosen in zip(WAYS[1:], (config.scale, config.clip_scale), strict=True):
        for scale in sorted({chosen * times for times in TIMES} - {chosen}):
            ends = []
            for part in parts_of(config):
                x = painter.noise(1, 0)
                for moment in walk(painter, config, way, scale, part):
                    x = moment.after
                    yield replace(state, doing=f"{way}, scale {scale:g}: t = {moment.t}")
                ends.append(painter.decode(x))
            one = graded(way, scale, torch.cat(ends), config.prompt)
            state = with_grades(state, [one])
            yield replace(state, doing=f"{way}, scale {scale:g}: the judge agrees with {one.judge:.0f} %, the guide with {one.guide:.0f} %")
    return state


def gap_of(state: GuidanceStep, way: str) -> Grades:
    """The scale at which the guide is most content."""
    return max((one for one in state.grades if one.way == way), key=lambda one: (one.guide, one.score))


def figures_of(state: GuidanceStep, config: GuidanceConfig) -> tuple[Compared, ...]:
    """What guide and judge say of each way, and what the scale costs."""
    free, classifier, clip = gap_of(state, WAYS[0]), gap_of(state, WAYS[1]), gap_of(state, WAYS[2])
    best = max((one for one in state.grades if one.way == WAYS[1]), key=lambda one: (one.judge, -one.scale))
    largest = max((one for one in state.grades if one.way == WAYS[1]), key=lambda one: one.scale)
    told = "predicted: what the guide says of the same pictures"
    return (
        Compared(f"CLIP guidance, scale {clip.scale:g}: judge agrees", "% of pictures", clip.guide, clip.judge, told),
        Compared(f"classifier-free, scale {classifier.scale:g}: judge agrees", "% of pictures", classifier.guide, classifier.judge, told),
        Compared("best scale for the judge, classifier-free", "scale", None, best.scale, f"{best.judge:.0f} % of pictures"),
        Compared("unguided: judge agrees", "% of pictures", None, free.judge, f"no words are read; a blind guess: {100 / len(PAIRS):.0f} %"),
        Compared("gain of the guide's score by CLIP guidance", "cosine", classifier.score - free.score, clip.score - free.score, "classifier-free"),
        Compared(f"diversity at classifier-free scale {largest.scale:g}", "in the judge's features", free.apart, largest.apart, "predicted: unguided"),
    )  # fmt: skip


def conclusion(state: GuidanceStep, config: GuidanceConfig) -> str:
    clip, classifier = gap_of(state, WAYS[2]), gap_of(state, WAYS[1])
    return (
        f"where the guide is most content: it names {clip.guide:.0f} % right with CLIP guidance and the judge {clip.judge:.0f} %; "
        f"{classifier.guide:.0f} % and {classifier.judge:.0f} % classifier-free"
    )
