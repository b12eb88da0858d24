r"""From a picture to noise: three schedules, and what a schedule is for.

At time $t$ a picture is a mix of itself and noise, $x_t = \alpha_t x_0 + \sigma_t \varepsilon$ with $\alpha_t^2 +
\sigma_t^2 = 1$. All that matters of $t$ is the *log-SNR*, $\lambda_t = \ln(\alpha_t^2 / \sigma_t^2)$: 0 means equal
parts of picture and noise. A schedule fixes $\lambda$ for every time $t$.

**One jump or a thousand steps.** $x_s = \sqrt{1-\beta_s}\,x_{s-1} + \sqrt{\beta_s}\,z_s$, a thousand times, is the same
as one mix with $\alpha_t^2 = \prod_{s \le t} (1-\beta_s)$, since a sum of normal noises is normal. So training needs no
chain.

**A schedule that is learned** (variational diffusion models). The bound on what a picture costs, in nats per number, is

$$L = \underbrace{R(\lambda_\text{max})}_{\text{the 256 grey levels from } x_0\text{'s last noise}} + \tfrac12
\int_{\lambda_\text{min}}^{\lambda_\text{max}} e(\lambda)\,d\lambda
+ \underbrace{D(\lambda_\text{min})}_{\text{what is left of the picture at the end}},$$

$e(\lambda)$ is the denoiser's squared error of the noise. It depends only on the two *ends*, not on the path between
them.
So the ends are learned by making $L$ small: $\lambda_\text{max}$ stops where $e$ nears 1, since from there on the 256
gray levels alone say more about the noise than the denoiser does. And the way is learned by making the *variance* small
of the estimate that training uses, $X = \tfrac12
|\lambda'_t|\,e(\lambda_t)$ at a random $t$. Its minimum is known: $|\lambda'_t| \propto 1/\sqrt{\mathbb
E\,e^2(\lambda_t)}$, slow where errors are large.

What is learned here is the schedule alone: two ends and 24 positive increments. The denoiser is the shipped one,
frozen, and its errors are measured at 25 levels beforehand; the paper trains both together, with a small monotone
network for $\lambda_t$.

**What it is good for.** Most of a picture's bits are in its finest detail, so the learned schedule spends nearly all
its time on noise that the eye hardly sees. That makes the bound cheap to estimate, not the pictures good: GLIDE's base
model keeps to the cosine schedule and to the squared error, with the bound only as a small second term that teaches it
its variances (after Nichol and Dhariwal).

The pictures are those of the shipped model, 16 x 16 pixels with one large object. In a larger picture more pixels say
the same, and it takes more noise to hide it.

Left out: training for the finest noise, which the denoiser hardly ever saw (it is measured there all the same); the
paper's Fourier features.
Source: Ho et al. 2020, arXiv:2006.11239, eq. 4; Nichol and Dhariwal 2021, arXiv:2102.09672 (cosine); Kingma et al.
2021, arXiv:2107.00630, sections 4 and 5, appendices H (monotone schedule), I.1 and I.2 (times and variance).
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, GROUNDS, SHAPES, Scenes, draw, prompt, render
from core.foundations.diffusion import STEPS, noised, signal
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import seen
from core.foundations.pictures import take
from core.foundations.settings import picture_field, seed_field
from core.foundations.small_diffusion import agreement
from core.glide.model import PIXELS, picture_of, shipped_glide
from core.glide.schedule import (
    KINDS,
    LEVELS,
    NAMES,
    TIMES,
    Way,
    between,
    bound,
    grey_cost,
    interpolated,
    kept_at,
    known_way,
    least,
    prior_cost,
    spread,
)

FRAMES = 21  # of the film
SCENES = 192  # that the judge sees at each level
PART = 16  # pictures in one unit of work
RATE = 0.2
SAMPLES = 256  # times of one optimizer step
ONE_JUMP = Figure("one jump against 1,000 steps", "largest difference", "theory", "arXiv:2006.11239, eq. 4")
NOISE_SIZE = Figure(
    "size of the noise that 1,000 steps add up to", "standard deviation", "theory", "a sum of normal noises is normal"
)
SPREAD = Figure(
    "spread of the loss estimate, learned schedule",
    "of its mean",
    "limit",
    "the least there is: 1/sqrt(E e^2)",
    headline=True,
)
COSINE_SPREAD = Figure(
    "spread of the loss estimate, cosine schedule", "of its mean", "baseline", "the learned schedule"
)
BOUND = Figure(
    "bound with the learned schedule",
    "bits per number",
    "theory",
    "the cosine one's between the same ends: it depends only on the ends",
    "computed",
)
LARGEST = Figure("largest log-SNR", "nats", "theory", "the minimum of the bound")
HALF_NAMED = Figure(
    "step at which the judge still names half of the pictures, {name} schedule", "step of 1,000", headline=True
)
HALF_CHECK = Figure(
    "pictures named at that noise, with new pictures", "%", "theory", "half: the same log-SNR, whatever the schedule"
)


@dataclass(frozen=True)
class NoiseConfig(Config):
    """A picture, and how the schedule is learned."""

    colour: str = setting(
        "red", "Color", choices={name: name for name in COLOURS}, help="The color of the drawn object."
    )
    shape: str = setting(
        "star", "Shape", choices={name: name for name in SHAPES}, help="The shape of the drawn object."
    )
    ground: str = setting(
        "white", "Background", choices={name: name for name in GROUNDS}, help="The background of the drawn picture."
    )
    picture: bytes = picture_field()
    steps: int = setting(
        300,
        "Steps of the learned schedule",
        unit="step",
        low=1,
        high=2000,
        help="More steps bring the learned schedule closer to the best there is.",
    )
    batch: int = setting(
        32,
        "Pictures to measure the denoiser on",
        unit="picture",
        low=2,
        high=64,
        more=True,
        help="More pictures make the denoiser's measured errors more reliable; measuring takes longer.",
    )
    seed: int = seed_field()


@dataclass(frozen=True)
class NoiseStep(Step):
    """All that is known so far; what is not known yet is empty."""

    pixels: np.ndarray | None = None  # (21, 3, 3, 16, 16): time, schedule, picture; only when it changes
    verdicts: tuple[tuple[str, ...], ...] = ()  # what the judge says of each
    curves: np.ndarray | None = None  # (3, 101) log-SNR over time
    known: np.ndarray | None = None  # (25,) % of pictures the judge names right at each level; NaN: not yet
    lost: tuple[float, ...] = ()  # per schedule: the step of 1,000 at which it names half
    errors: np.ndarray | None = None  # (25,) mean squared error of the noise at each level; NaN: not yet
    best: np.ndarray | None = None  # (101,) log-SNR of the way with the least variance, between the learned ends
    learning: tuple[
        tuple[float, float, float, float], ...
    ] = ()  # step, spread of the estimate, bits per number, largest log-SNR
    spreads: tuple[
        tuple[str, float], ...
    ] = ()  # of the loss estimate, in parts of its mean: per schedule, and the least
    note: str = ""


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How does a picture become noise, and how fast should it?")
def noise(config: NoiseConfig) -> Iterator[NoiseStep]:
    """The picture under three schedules; one jump against many steps; the judge, the denoiser's errors, and a schedule
    learned from them.
    """
    if config.picture:
        taken = take(config.picture, PIXELS)
        picture, note = taken.pixels, taken.note
    else:
        scene = draw(
            np.random.default_rng(config.seed), 1, held_out=None, pairs=[(config.colour, config.shape)], side=PIXELS
        )
        picture, note = render(replace(scene, ground=np.array([tuple(GROUNDS).index(config.ground)])))[0], ""
    way = Way()
    state = NoiseStep(
        curves=curves_of(way), known=np.full(len(LEVELS), np.nan), errors=np.full(len(LEVELS), np.nan), note=note
    )
    yield filmed(
        state, picture, config.seed, "one picture, the same noise, three schedules; the third is still a straight line"
    )
    yield from chained(state, picture, config.seed)
    state = yield from asked(state, config)
    state, errors, power = yield from measured(state, config)
    state = yield from learned(state, config, way, errors, power)
    yield from lost(filmed(replace(state, curves=curves_of(way)), picture, config.seed, ""), config)


def curves_of(way: Way) -> Float[np.ndarray, "3 101"]:
    fixed = [np.interp(TIMES, np.linspace(0, 1, STEPS), known_way(name)) for name in KINDS]
    return np.stack([*fixed, way.curve()])


def filmed(state: NoiseStep, picture: Tensor, seed: int, doing: str) -> NoiseStep:
    """The picture at 21 times under each schedule, and what the judge says of it."""
    assert state.curves is not None
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(picture.shape, generator=rng)
    every = np.linspace(0, len(TIMES) - 1, FRAMES).round().astype(int)
    levels = torch.from_numpy(state.curves[:, every].T.copy())  # (21, 3)
    x = (noised(2 * picture - 1, own, kept_at(levels)[..., None, None, None]) / 2 + 0.5).clamp(0, 1)
    said = seen(x.flatten(0, 1))
    verdicts = tuple(tuple(said[3 * frame : 3 * frame + 3]) for frame in range(FRAMES))
    return replace(state, pixels=x.numpy(), verdicts=verdicts, doing=doing)


def chained(state: NoiseStep, picture: Tensor, seed: int) -> Iterator[NoiseStep]:
    """A thousand small steps beside the one jump with the noise that they add up to."""
    rng, kept = torch.Generator().manual_seed(seed + 1), signal("linear")
    beta = 1 - kept.double() / torch.cat([torch.ones(1), kept[:-1]]).double()
    start = (2 * picture - 1).double()
    x, gathered, worst = start, torch.zeros_like(start), 0.0
    for step in range(STEPS):
        fresh = torch.randn(picture.shape, generator=rng).double()
        x = (1 - beta[step]).sqrt() * x + beta[step].sqrt() * fresh
        gathered = (1 - beta[step]).sqrt() * gathered + beta[step].sqrt() * fresh
        one = gathered / (1 - kept[step].double()).sqrt()
        worst = max(worst, float((noised(start, one, kept[step].double()) - x).abs().max()))
        if step % 250 == 249:
            told = f"{step + 1} small steps against one jump: they differ by {worst:.1e} at most"
            figures = (ONE_JUMP(worst, 0.0), NOISE_SIZE(float(one.std()), 1.0)) if step == STEPS - 1 else ()
            yield replace(state, figures=figures, doing=told)


def asked(state: NoiseStep, config: NoiseConfig) -> Generator[NoiseStep, None, NoiseStep]:
    """At each level of noise: how many pictures the judge still names right."""
    scenes = draw(np.random.default_rng(config.seed + 2), SCENES, held_out=None, side=PIXELS)
    x0, rng = 2 * render(scenes) - 1, torch.Generator().manual_seed(config.seed + 2)
    own = torch.randn(x0.shape, generator=rng)
    for number in range(len(LEVELS))[::-1]:
        share = named_right(scenes, x0, own, kept_at(LEVELS[number]))
        known = np.array(state.known)
        known[number] = share
        state = replace(state, known=known)
        yield replace(state, doing=f"log-SNR {LEVELS[number]:+.0f}: the judge names {share:.0f} % right")
    return state


def named_right(scenes: Scenes, x0: Tensor, own: Tensor, kept: Tensor) -> float:
    return 100 * agreement((noised(x0, own, kept) / 2 + 0.5).clamp(0, 1), scenes)


def measured(
    state: NoiseStep, config: NoiseConfig
) -> Generator[NoiseStep, None, tuple[NoiseStep, Float[np.ndarray, "K N"], float]]:
    """The shipped denoiser's squared error of the noise, for each level and picture; and the mean square of a picture's
    numbers.
    """
    denoiser, rng = shipped_glide(), torch.Generator().manual_seed(config.seed + 3)
    scenes = denoiser.scenes(np.random.default_rng(config.seed + 3), config.batch)
    states = denoiser.states([prompt(*scenes.pair(number)) for number in range(config.batch)]).detach()
    x0, way = (
        (denoiser.encode(render(scenes)) * 127.5 + 127.5).round() / 127.5 - 1,
        known_way("cosine"),
    )  # 256 gray levels, as the bound counts
    table = np.full((len(LEVELS), config.batch), np.nan)
    for number in range(len(LEVELS))[::-1]:
        t = int(np.abs(way - LEVELS[number]).argmin())  # the step of the schedule it was trained with
        kept = kept_at(LEVELS[number])
        own = torch.randn(x0.shape, generator=rng)
        for first in range(0, config.batch, PART):
            part = slice(first, first + PART)
            with torch.no_grad():
                x = noised(x0[part], own[part], kept)
                told = picture_of(denoiser, x, denoiser(x, t, states[part]), kept).clamp(-1, 1)
            table[number, part] = math.exp(LEVELS[number]) * (told - x0[part]).square().mean((1, 2, 3)).double().numpy()
            yield replace(state, doing=f"log-SNR {LEVELS[number]:+.0f}: the shipped denoiser's error of the noise")
        errors = np.array(state.errors)
        errors[number] = table[number].mean()
        state = replace(state, errors=errors)
    return state, table, float(x0.square().mean())


def learned(
    state: NoiseStep, config: NoiseConfig, way: Way, errors: Float[np.ndarray, "K N"], power: float
) -> Generator[NoiseStep, None, NoiseStep]:
    """Ends by the bound, the way between them by the variance of its estimate."""
    table, costs = torch.from_numpy(errors), (grey_cost(), prior_cost(power))
    rng, adam = torch.Generator().manual_seed(config.seed + 4), torch.optim.Adam([way.ends, way.parts], RATE)
    told = list[tuple[float, float, float, float]]()
    for step in range(config.steps):
        for group in adam.param_groups:
            group["lr"] = RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))
        times = (
            torch.rand(1, generator=rng, dtype=torch.float64) + torch.arange(SAMPLES) / SAMPLES
        ) % 1  # evenly spread: the paper's low-discrepancy times
        rows = torch.randint(0, table.shape[1], (SAMPLES,), generator=rng)
        level, fall = way.at(times)
        estimate = 0.5 * fall * interpolated(table, level, rows)
        whole = bound(way.ends, estimate.mean(), costs)
        (way.ends.grad,) = torch.autograd.grad(whole, way.ends, retain_graph=True)
        (way.parts.grad,) = torch.autograd.grad((estimate / estimate.detach().mean()).square().mean(), way.parts)
        adam.step()
        with torch.no_grad():
            way.ends.clamp_(LEVELS[0], LEVELS[-1])
        if step % 10 == 9 or step == config.steps - 1:
            told.append((step + 1.0, spread(way.curve(), errors)[1], whole.item() / math.log(2), way.both[1]))
            best, _ = least(way.both, errors)
            state = replace(
                state, curves=curves_of(way), best=best, learning=tuple(told), spreads=spreads_of(way, errors)
            )
            yield replace(
                state, doing=f"step {step + 1}: the estimate of the loss spreads by {told[-1][1]:.2f} of its mean"
            )
    return replace(state, figures=ended(way, errors, costs))


def spreads_of(way: Way, errors: Float[np.ndarray, "K N"]) -> tuple[tuple[str, float], ...]:
    ends, ways = shared(way), {name: known_way(name) for name in KINDS} | {"learned": way.curve()}
    return (
        *((name, spread(between(one, ends), errors)[1]) for name, one in ways.items()),
        ("least", least(ends, errors)[1]),
    )


def shared(way: Way) -> tuple[float, float]:
    """The ends that all three schedules reach."""
    every = [way.curve(), *(known_way(name) for name in KINDS)]
    return float(max(one[-1] for one in every)), float(min(one[0] for one in every))


def ended(way: Way, errors: Float[np.ndarray, "K N"], costs: tuple[Tensor, Tensor]) -> tuple[Result, ...]:
    """The ends against the bound's own minimum, the spread against the least, and the bound under another way."""
    ends = shared(way)
    mean, reached = spread(between(way.curve(), ends), errors)
    cosine, wide = spread(between(known_way("cosine"), ends), errors)
    bits = [float(bound(torch.tensor(ends), torch.tensor(part), costs)) / math.log(2) for part in (cosine, mean)]
    fine = torch.linspace(-2.0, float(LEVELS[-1]), 1201, dtype=torch.float64)
    cut = 0.5 * interpolated(torch.from_numpy(errors.mean(1)), fine)
    total = interpolated(costs[0], fine) + torch.cat(
        [cut.new_zeros(1), ((cut[1:] + cut[:-1]) / 2 * (fine[1] - fine[0])).cumsum(0)]
    )
    return (
        SPREAD(reached, least(ends, errors)[1]),
        COSINE_SPREAD(wide, reached, source=f"{COSINE_SPREAD.source}, between {ends[0]:.1f} and {ends[1]:.1f}"),
        BOUND(bits[1], bits[0]),
        LARGEST(way.both[1], float(fine[total.argmin()])),
    )


def lost(state: NoiseStep, config: NoiseConfig) -> Iterator[NoiseStep]:
    """Where the judge names half of the pictures, on each schedule's own clock; checked with new pictures and new
    noise.
    """
    assert state.known is not None and state.curves is not None
    rng = torch.Generator().manual_seed(config.seed + 5)
    scenes = draw(np.random.default_rng(config.seed + 5), SCENES, held_out=None, side=PIXELS)
    x0 = 2 * render(scenes) - 1
    yield replace(state, doing="the same picture again, now with the learned schedule")
    half = float(np.interp(50.0, np.maximum.accumulate(state.known), LEVELS))
    steps, checks, figures = list[float](), list[float](), list(state.figures)
    for name, curve in zip(NAMES, state.curves, strict=True):
        t = float(np.interp(-half, -curve, TIMES))
        share = named_right(
            scenes, x0, torch.randn(x0.shape, generator=rng), kept_at(float(np.interp(t, TIMES, curve)))
        )
        steps.append(1000 * t)
        checks.append(share)
        source = f"at log-SNR {half:.2f}, measured with {SCENES} pictures"
        figures.append(HALF_NAMED.of(name=name)(1000 * t, source=source))
        yield replace(state, pixels=None, figures=())
    figures.append(HALF_CHECK(float(np.mean(checks)), 50.0))
    told = ", ".join(f"{step:.0f} ({name})" for name, step in zip(NAMES, steps, strict=True))
    yield replace(
        state,
        pixels=None,
        lost=tuple(steps),
        figures=tuple(figures),
        doing=f"of 1,000 steps the judge names half at {told}",
    )
