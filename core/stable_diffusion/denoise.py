r"""One picture, step by step, with all the numbers.

Sampling begins with noise of the latents' size, $z_T \sim \mathcal{N}(0, 1)$. At each step the U-Net is asked twice,
without words and with them. It answers with $v$, from which noise and picture follow (Stable Diffusion 1 and 2.1 base
answer with the noise itself):

$$\hat\varepsilon = \sqrt{\bar\alpha_t}\,v + \sqrt{1-\bar\alpha_t}\,z_t, \qquad \hat z_0 = \sqrt{\bar\alpha_t}\,z_t -
\sqrt{1-\bar\alpha_t}\,v.$$

**Guidance.** The difference between the two answers is what the words ask for. It is exaggerated, $\hat\varepsilon =
\varepsilon(z_t) + w\,(\varepsilon(z_t, c) - \varepsilon(z_t))$ (this $w$ is one more than Ho and Salimans'). Mixing the
$v$ in that way gives the same, as noise and $v$ differ by a fixed part of $z_t$. The words matter most at the first
steps: while $z_t$ is nearly all noise they alone say what the picture is, and change the predicted picture $\hat z_0$
as a whole; at the end $z_t$ shows it. The same change looks small in the predicted *noise* at first, since
$\varepsilon_c - \varepsilon = -\sqrt{\bar\alpha_t / (1 - \bar\alpha_t)}\,(\hat z_{0,c} - \hat z_0)$.

**The scheduler's arithmetic** (DDIM) takes the predicted picture and the predicted noise and mixes them anew, for a
step that holds more picture: $z_s = \sqrt{\bar\alpha_s}\,\hat z_0 + \sqrt{1-\bar\alpha_s}\,\hat\varepsilon$. The panel
does it for one number of the 256 (of 16,384 in a real one), and asks diffusers' scheduler for the same. The predicted
picture is blurred at first, since it is an average over all that it could become; the layout is settled early, edges
late.

Left out: solvers that use several steps (see `schedulers`).
Source: Song et al. 2020, arXiv:2010.02502, equation 12; Ho and Salimans 2022, arXiv:2207.12598; Salimans and Ho 2022,
arXiv:2202.00512.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, SHAPES, asked_pair
from core.foundations.diffusion import Moment, both_of, leading, sampling, signal
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import shipped_judge
from core.foundations.settings import guidance_field, noise_seed_field
from core.stable_diffusion.model import SCHEDULER, Latent, ids_of
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown, thinned

OFF = Figure(
    "largest difference from diffusers' DDIMScheduler", "of a latent", "theory", "the same formula", headline=True
)
BY_HAND = Figure("followed number at the end, by hand", "of a latent", "theory", "diffusers' DDIMScheduler")
WORDS_AT = Figure("step at which the words change the predicted picture most", "step", headline=True)
PROBABILITY = Figure("the judge's probability of what was asked for", "%", "limit", "the prompt", headline=True)
RIGHT_FROM = Figure("step from which on the judge is right", "step", headline=True)
CELLS = 8  # of a side, among which one is followed: the small model's places, larger cells of a larger grid


@dataclass(frozen=True)
class DenoiseConfig(Config):
    """What to draw, in how many steps, and which number of the latents to follow."""

    prompt: str = setting(
        "a red circle",
        "Prompt",
        high=300,
        help="What to draw. The small model knows colors, shapes, sizes and places; a real one any text.",
    )
    steps: int = setting(
        25, "Steps", unit="step", low=1, high=50, help="More steps make the picture sharper; each asks the U-Net twice."
    )
    scale: float = guidance_field()
    seed: int = noise_seed_field()
    channel: int = setting(
        0,
        "Number shown: channel",
        low=0,
        high=3,
        help="The channel of the one latent number whose arithmetic is shown.",
        slider=True,
    )
    row: int = setting(
        4, "Its row", low=0, high=CELLS - 1, help="The row of that number; it does not change the picture.", slider=True
    )
    column: int = setting(
        4,
        "Its column",
        low=0,
        high=CELLS - 1,
        help="The column of that number; it does not change the picture.",
        slider=True,
    )
    eta: float = setting(
        0.0,
        "Fresh noise, eta",
        low=0.0,
        high=1.0,
        more=True,
        help="Higher adds more fresh noise at each step: 0 is DDIM, 1 is DDPM.",
        slider=True,
    )
    model: str = model_field()


@dataclass(frozen=True)
class DenoiseStep(Step):
    """One step of sampling, and one of its numbers through the formulas."""

    number: int = 0  # steps done
    of: int = 0
    t: int = 0
    next_t: int = 0  # -1: done
    kept: float = 0.0  # alpha-bar at t
    earlier: float = 0.0  # alpha-bar at the next step
    latent: np.ndarray | None = None  # (4, h, w) before the step; of a large grid every so many places
    free: np.ndarray | None = None  # predicted noise without the words
    told: np.ndarray | None = None  # ... with them
    pictures: np.ndarray | None = (
        None  # (5, 3, S, S) decoded: the latent; predicted without, with words, guided; the next latent
    )
    pull: float = 0.0  # |told - free| / |free| of the predicted noise
    change: float = 0.0  # the same of the predicted picture
    sure: float | None = None  # the judge's probability of the asked color and shape in the predicted picture
    numbers: int = 0  # of the latents
    predicts: str = "v_prediction"  # what the U-Net answers with, or "epsilon"
    sums: tuple[tuple[str, float], ...] = ()  # one number through the formulas
    off: float = 0.0  # largest difference from diffusers' scheduler so far

    @property
    def roots(self) -> tuple[float, float, float, float]:
        """sqrt(alpha-bar) and sqrt(1 - alpha-bar), at t and at the next step."""
        a, b, c, d = (math.sqrt(part) for part in (self.kept, 1 - self.kept, self.earlier, 1 - self.earlier))
        return a, b, c, d


# --- what is asked for, and whether it is there -----------------------------------------------------------------------


@torch.no_grad()
def sureness(picture: Float[Tensor, "1 3 S S"], wanted: tuple[str, str] | None) -> float | None:
    """The judge's probability of that color times that of that shape."""
    if wanted is None:
        return None
    colour, shape = shipped_judge()(picture)
    return float(colour.softmax(1)[0, tuple(COLOURS).index(wanted[0])] * shape.softmax(1)[0, SHAPES.index(wanted[1])])


# --- the arithmetic of one number -------------------------------------------------------------------------------------


def by_hand(
    x: float,
    said_free: float,
    said_told: float,
    kept: float,
    earlier: float,
    scale: float,
    predicts: str = "v_prediction",
) -> tuple[tuple[str, float], ...]:
    """One number of the latents through a step of DDIM, with eta 0, in plain arithmetic; said: v, or the noise."""
    picture, noise = math.sqrt(kept), math.sqrt(1 - kept)
    free, told = (said if predicts == "epsilon" else picture * said + noise * x for said in (said_free, said_told))
    mixed = free + scale * (told - free)
    x0 = (x - noise * mixed) / picture
    after = math.sqrt(earlier) * x0 + math.sqrt(1 - earlier) * mixed
    return (
        ("x", x),
        ("said free", said_free),
        ("said told", said_told),
        ("free", free),
        ("told", told),
        ("guided", mixed),
        ("x0", x0),
        ("after", after),
    )


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What happens in one step of Stable Diffusion?")
def denoise(config: DenoiseConfig) -> Iterator[DenoiseStep]:
    """Step after step, each of them beside diffusers' own."""
    denoiser = yield from denoiser_of(config.model, lambda told: DenoiseStep(doing=told))
    ids_of(denoiser, config.prompt)
    wanted = None if isinstance(denoiser, Real) else asked_pair(config.prompt)
    network = denoiser.network(denoiser.states([config.prompt]))
    kinds = (denoiser.schedule, denoiser.predicts)
    rng, twin = (torch.Generator().manual_seed(config.seed + 1) for _ in range(2))
    theirs, off, done = diffusers_ddim(denoiser, config.steps), 0.0, list[DenoiseStep]()
    x = denoiser.noise(1, config.seed)
    for moment in sampling(network, x, kinds, config.steps, config.scale, config.eta, rng, offset=denoiser.offset):
        mixed = moment.free + config.scale * (moment.told - moment.free)
        also = theirs.step(mixed, moment.t, moment.x, eta=config.eta, generator=twin).prev_sample
        off = max(off, float((also - moment.after).abs().max()))
        step = told_step(denoiser, config, moment, len(done) + 1, wanted)
        step = replace(step, off=off, sums=(*step.sums, ("theirs", float(also[followed(denoiser, config)]))))
        done.append(step)
        yield step
    yield replace(done[-1], figures=figures_of(config, done), doing=ended(config, done))


def diffusers_ddim(denoiser: Latent, steps: int) -> Any:
    """diffusers' scheduler, with the settings of the model."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULER | settings_of(denoiser))
    scheduler.set_timesteps(steps)
    return scheduler


def settings_of(denoiser: Latent) -> dict[str, Any]:
    """In what the schedulers of the models differ."""
    return {"beta_schedule": denoiser.schedule, "prediction_type": denoiser.predicts, "steps_offset": denoiser.offset}


def followed(denoiser: Latent, config: DenoiseConfig) -> tuple[int, int, int, int]:
    """Where in a batch of latents the followed number is."""
    high, wide = denoiser.places[1:]
    return 0, config.channel, config.row * high // CELLS, config.column * wide // CELLS


@torch.no_grad()
def told_step(
    denoiser: Latent, config: DenoiseConfig, moment: Moment, number: int, wanted: tuple[str, str] | None
) -> DenoiseStep:
    """A moment of sampling as plain numbers and pictures."""
    visited = leading(config.steps, denoiser.offset)
    next_t = visited[number] if number < config.steps else -1
    earlier = float(signal(denoiser.schedule)[max(0, next_t)])
    (free_x0, free), (told_x0, told) = (
        both_of(moment.x, said, moment.kept, denoiser.predicts) for said in (moment.free, moment.told)
    )
    pictures = denoiser.decode(torch.cat([moment.x, free_x0, told_x0, moment.x0, moment.after]))
    one = followed(denoiser, config)
    sums = by_hand(
        float(moment.x[one]),
        float(moment.free[one]),
        float(moment.told[one]),
        moment.kept,
        earlier,
        config.scale,
        denoiser.predicts,
    )
    sure = sureness(pictures[3:4], wanted)
    pull = float((told - free).norm() / free.norm())
    change = float((told_x0 - free_x0).norm() / free_x0.norm())
    seen = "" if sure is None else f"; the judge sees what was asked for with {sure:.0%}"
    return DenoiseStep(
        number=number,
        of=config.steps,
        t=moment.t,
        next_t=next_t,
        kept=moment.kept,
        earlier=earlier,
        latent=thinned(moment.x[0]).numpy(),
        free=thinned(free[0]).numpy(),
        told=thinned(told[0]).numpy(),
        pictures=shown(pictures).numpy(),
        pull=pull,
        change=change,
        sure=sure,
        numbers=moment.x.numel(),
        predicts=denoiser.predicts,
        sums=sums,
        doing=(
            f"step {number} of {config.steps}, t = {moment.t}: the words change the predicted picture by"
            f" {change:.0%}{seen}"
        ),
    )


def right_from(done: list[DenoiseStep]) -> int:
    """The first step from which on the judge is more sure than not, to the end; one more than there are: never."""
    wrong = [step.number for step in done if step.sure is None or step.sure < 0.5]
    return 1 + max(wrong, default=0)


def figures_of(config: DenoiseConfig, done: list[DenoiseStep]) -> tuple[Result, ...]:
    """The loop against diffusers' scheduler, and what the words and the judge say on the way."""
    last, sums = done[-1], dict(done[-1].sums)
    strongest = max(done, key=lambda step: step.change)
    figures = [
        OFF(last.off, 0.0),
        WORDS_AT(float(strongest.number), source=f"of {config.steps} steps; by {strongest.change:.0%} there"),
    ]
    if not config.eta:
        figures.append(BY_HAND(sums["after"], sums["theirs"]))
    if last.sure is not None:
        never = f"{config.steps + 1} would be never"
        figures += [PROBABILITY(100 * last.sure, 100.0), RIGHT_FROM(float(right_from(done)), source=never)]
    return tuple(figures)


def ended(config: DenoiseConfig, done: list[DenoiseStep]) -> str:
    """The status line at the end: how far from diffusers' own loop, and from which step on the judge is right."""
    told = f"'{config.prompt[:60]}' in {config.steps} steps, none more than {done[-1].off:.0e} away from diffusers'"
    if done[-1].sure is None:
        return told
    first = right_from(done)
    return told + (
        f"; the judge is right from step {first} on"
        if first <= config.steps
        else "; the judge does not see it at the end"
    )
