r"""From noise to a picture, step by step.

At each step the denoiser looks at $x_t$ twice: with the words and without. It says which clean picture $\hat x_0$ it
expects; with $x_t$ that also says which noise $\hat\varepsilon$ is in it. The difference of its two answers is the
**direction of guidance**: what the words change.

$$\hat x_0 = x(\varnothing) + w\,\big(x(c) - x(\varnothing)\big), \qquad
x_s = \alpha_s\,\hat x_0 + \sqrt{\sigma_s^2 - \eta^2 v}\;\hat\varepsilon + \eta \sqrt{v}\, z, \qquad
v = \frac{\sigma_s^2}{\sigma_t^2} \Big(1 - \frac{\alpha_t^2}{\alpha_s^2}\Big).$$

**DDIM** ($\eta = 0$) mixes the two answers anew, with less noise: the same noise always gives the same picture, and
with more steps it comes nearer to one path, the solution of a differential equation. Its error falls about as 1 /
steps, so each doubling of the steps roughly halves the distance to that path's end. **DDPM** ($\eta = 1$) throws part
of the noise away and draws new noise $z$, so each run ends elsewhere. Few steps are worse with it, since much is drawn
at once.

Early steps decide on place and color while $x_t$ still looks like noise; late ones only sharpen. The first $\hat x_0$
is a mean over all pictures that fit: with a single step that blurred mean is all there is.

Of the schedule's 1,000 steps only a few are visited, evenly spaced and beginning with the very last, where $x_t$ is
pure noise. (A sampler that begins earlier hands pure noise to a network that takes part of it for a picture; the tab
Stable Diffusion shows what that does.)

Left out: samplers of higher order (see Stable Diffusion), learned variances.
Source: Ho et al. 2020, arXiv:2006.11239, algorithm 2; Song et al. 2020, arXiv:2010.02502, eq. 12; Ho and Salimans 2022,
arXiv:2207.12598.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.foundations.diffusion import Moment, sampling, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import seen
from core.foundations.settings import noise_seed_field
from core.glide.model import Glide, picture_of, prompt_tokens, shipped_glide

COUNTS = (2, 4, 8, 16, 32)  # steps of the comparison
NOISES = 4  # of the comparison
ETAS = (0.0, 1.0)
NAMES = ("DDIM", "DDPM")
DDIM_CHANGE = Figure(
    "change of DDIM's pictures from 16 to 32 steps", "rms of pixels", "baseline", "from 8 to 16 steps", headline=True
)
DDPM_CHANGE = Figure(
    "change of DDPM's pictures from 16 to 32 steps",
    "rms of pixels",
    "baseline",
    "DDIM's, from the same first noise",
    headline=True,
)
SIZE = Figure("size of x_t halfway", "rms", "theory", "the mix of picture and noise, arXiv:2006.11239, eq. 4")
WORDS_AT = Figure("step at which the words change the predicted picture most", "step", headline=True)


@dataclass(frozen=True)
class DenoiseConfig(Config):
    """What to draw, and how it is sampled."""

    prompt: str = setting(
        "a red star on the left",
        "Prompt",
        high=200,
        help="What to draw, in words that the model knows: a color, a shape, a place.",
    )
    steps: int = setting(
        25,
        "Steps",
        unit="step",
        low=1,
        high=100,
        help="More steps make the picture sharper; each asks the network twice.",
    )
    scale: float = setting(
        2.0,
        "Guidance scale",
        low=0,
        high=20,
        help="Higher makes the picture follow the prompt more strongly and vary less; 0 ignores the prompt, 1 "
        "follows it and no more.",
    )
    eta: float = setting(
        1.0,
        "Fresh noise of the second row",
        low=0,
        high=1,
        help="Higher adds more fresh noise at each step of the second row: 0 is DDIM, 1 is DDPM.",
        slider=True,
    )
    seed: int = noise_seed_field()


@dataclass(frozen=True)
class DenoiseStep(Step):
    """A step of both samplers, or one more column of the comparison. Index 0: DDIM, 1: with fresh noise."""

    number: int = 0  # steps done
    t: int | None = None
    views: np.ndarray | None = (
        None  # (2, 4, 3, 16, 16): x_t, predicted noise, predicted picture, direction of guidance (doubled)
    )
    whole: np.ndarray | None = None  # (2, 3, 32, 32) the predicted picture, enlarged
    sizes: tuple[
        tuple[float, float, float], ...
    ] = ()  # per sampler: rms of x_t, of the direction, fraction of the picture in x_t
    path: tuple[
        tuple[float, float, float, float], ...
    ] = ()  # fraction of the picture's variance, rms of x_t, rms by the formula, rms of the direction; of DDIM
    finals: np.ndarray | None = None  # (2, C, 3, 32, 32) the first noise's pictures by number of steps
    counts: tuple[int, ...] = ()  # numbers of steps so far
    apart: tuple[
        tuple[float, float], ...
    ] = ()  # per number of steps: mean distance to the pictures of half as many, DDIM and DDPM
    verdicts: tuple[tuple[str, str], ...] = ()  # what the judge says of each final


# --- one step, to look at ---------------------------------------------------------------------------------------------


def shown(denoiser: Glide, moment: Moment) -> tuple[np.ndarray, tuple[float, float, float]]:
    """x_t, noise, picture and direction of the first sample as pictures, and their sizes."""
    direction = change(denoiser, moment)
    parts = torch.cat([moment.x[:1], moment.noise[:1], moment.x0[:1], 2 * direction[:1]])
    return denoiser.small(parts).numpy(), (rms(moment.x), rms(direction), moment.kept)


def change(denoiser: Glide, moment: Moment) -> Tensor:
    """What the words change in the predicted picture."""
    told, free = (picture_of(denoiser, moment.x, answer, moment.kept) for answer in (moment.told, moment.free))
    return told - free


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def sampler(
    denoiser: Glide, states: Tensor, noise: Tensor, steps: int, scale: float, eta: float, seed: int
) -> Iterator[Moment]:
    """Our loop with the denoiser's own schedule."""
    rng = torch.Generator().manual_seed(seed)
    return sampling(
        denoiser.network(states),
        noise,
        (denoiser.schedule, denoiser.predicts),
        steps,
        scale,
        eta,
        rng,
        clip=denoiser.clip,
        visited=trailing(steps),  # from the very last step: pure noise is treated as pure noise
    )


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What happens between noise and picture?")
def denoise(config: DenoiseConfig) -> Iterator[DenoiseStep]:
    """Two samplers from one noise, watched at every step; then both with more and more steps."""
    prompt_tokens(config.prompt)
    denoiser = shipped_glide()
    states = denoiser.states([config.prompt]).detach()
    start = denoiser.noise(1, config.seed)
    runs = [
        sampler(denoiser, states, start, config.steps, config.scale, eta, config.seed + 1) for eta in (0.0, config.eta)
    ]
    path, last = list[tuple[float, float, float, float]](), list[Moment]()
    for number in range(config.steps):
        last = [next(run) for run in runs]
        told = [shown(denoiser, moment) for moment in last]
        path.append((last[0].kept, rms(last[0].x), expected(last[0]), rms(change(denoiser, last[0]))))
        doing = (
            f"step {number + 1} of {config.steps}: t = {last[0].t}, {100 * last[0].kept:.1f} % of the variance is"
            " picture"
        )
        whole = denoiser.decode(torch.cat([moment.x0 for moment in last])).numpy()
        yield DenoiseStep(
            number,
            last[0].t,
            np.stack([views for views, _ in told]),
            whole,
            tuple(sizes for _, sizes in told),
            tuple(path),
            doing=doing,
        )
    ends = [denoiser.decode(moment.after) for moment in last]
    names = [seen(end)[0] for end in ends]
    views = np.stack(
        [
            np.concatenate([denoiser.small(moment.after).numpy(), before[1:]])
            for moment, (before, _) in zip(last, told, strict=True)
        ]
    )
    done = DenoiseStep(
        config.steps,
        None,
        views,
        torch.cat(ends).numpy(),
        path=tuple(path),
        doing=f"the judge sees: {names[0]} (DDIM), {names[1]} (eta {config.eta:g})",
    )
    yield done
    yield from compared(replace(done, views=None, whole=None), denoiser, config)


def expected(moment: Moment) -> float:
    """rms of x_t if it is the mix of a picture and of noise of size 1 that the schedule says."""
    return math.sqrt(moment.kept * rms(moment.x0) ** 2 + 1 - moment.kept)


def compared(state: DenoiseStep, denoiser: Glide, config: DenoiseConfig) -> Iterator[DenoiseStep]:
    """The same four noises with 2 to 32 steps, with both samplers."""
    states, start = denoiser.states([config.prompt] * NOISES).detach(), denoiser.noise(NOISES, config.seed)
    finals, verdicts, apart = list[np.ndarray](), list[tuple[str, str]](), list[tuple[float, float]]()
    before: list[Tensor] = []
    for steps in COUNTS:
        ends = []
        for name, eta in zip(NAMES, ETAS, strict=True):
            x = yield from walked(
                state,
                denoiser,
                (states, start),
                (steps, config.scale, eta, config.seed + 1),
                f"{name} with {steps} steps",
            )
            ends.append(x)
        finals.append(np.stack([end[0].numpy() for end in ends]))
        verdicts.append((seen(ends[0][:1])[0], seen(ends[1][:1])[0]))
        apart.append((distance(ends[0], before[0]), distance(ends[1], before[1])) if before else (math.nan, math.nan))
        before = ends
        state = replace(
            state,
            finals=np.stack(finals, 1),
            counts=COUNTS[: len(finals)],
            apart=tuple(apart),
            verdicts=tuple(verdicts),
        )
        yield replace(
            state, doing=f"{steps} steps: the judge sees {verdicts[-1][0]} (DDIM) and {verdicts[-1][1]} (DDPM)"
        )
    yield replace(
        state, figures=figures_of(state, config), doing="done: both samplers with 2 to 32 steps, from the same noise"
    )


def walked(
    state: DenoiseStep, denoiser: Glide, start: tuple[Tensor, Tensor], how: tuple[int, float, float, int], doing: str
) -> Generator[DenoiseStep, None, Tensor]:
    """Sample to the end, a unit of work per step."""
    (states, x), (steps, scale, eta, seed) = start, how
    for moment in sampler(denoiser, states, x, steps, scale, eta, seed):
        x = moment.after
        yield replace(state, doing=doing)
    return denoiser.decode(x)


def distance(a: Tensor, b: Tensor) -> float:
    """Root of the mean squared difference of the pixels, from 0 to 1, mean over the pictures."""
    return float((a - b).square().mean((1, 2, 3)).sqrt().mean())


def figures_of(state: DenoiseStep, config: DenoiseConfig) -> tuple[Result, ...]:
    """The halving of DDIM's distance, DDPM's, and the size of x_t on the way."""
    change, half = dict(zip(state.counts, state.apart, strict=True)), len(state.path) // 2
    return (
        DDIM_CHANGE(change[32][0], change[16][0]),
        DDPM_CHANGE(change[32][1], change[32][0]),
        WORDS_AT(1 + int(np.argmax([values[3] for values in state.path])), source=f"of {config.steps} steps"),
        SIZE(state.path[half][1], state.path[half][2]),
    )
