r"""Solvers: many ways from the same noise to a picture, and how many steps each needs.

Without fresh noise, sampling follows a curve $z(\sigma)$ from noise to picture, in the variables $\bar z = z /
\sqrt{\bar\alpha}$ and $\sigma = \sqrt{(1-\bar\alpha)/\bar\alpha}$:

$$\frac{d \bar z}{d \sigma} = \hat\varepsilon(z).$$

All that a solver knows of it are the network's answers at the steps it visits.

| solver | how it goes on |
|---|---|
| DDIM | along the tangent: first order, an error like $1/n$ |
| Euler | the same tangent in the other variables, so the same curve: up to rounding, it *is* DDIM |
| DPM-Solver++ (2M) | bends by the answer before: second order, an error like $1/n^2$ at best |
| DDPM | throws away a part of the noise at each step and draws it anew: no curve, so its picture is another one |

**Converged** is taken to be DPM-Solver++ with twice as many steps as the most that are tried here. The distance is the
mean difference of all pixels. More steps than a solver needs change nothing but the bill: each step asks the network
twice, and all else is small beside that.

**Where they look** is a setting of its own. *Trailing* begins at the last step, 999; *leading*, as Stable Diffusion is
shipped, begins lower (at 751 with 4 steps) and tells the network that there is a picture in pure noise; `terminal_snr`
has more on that.

**A common mistake**: `DDIMScheduler(beta_start, beta_end, beta_schedule)` and nothing else leaves the rest at its
defaults: `clip_sample` keeps the predicted latent between -1 and 1, as if it were pixels; `set_alpha_to_one` and
`steps_offset = 0` differ, too, from what the model was made for. Latents have a deviation of about 1: of a normal
distribution 32 % lies outside.

A real model draws the first prompt only, and no judge knows what is in its pictures.

Left out: ancestral Euler, Heun, UniPC; Karras' spacing of $\sigma$.
Source: Ho et al. 2020, arXiv:2006.11239; Song et al. 2020, arXiv:2010.02502; Karras et al. 2022, arXiv:2206.00364; Lu
et al. 2022, arXiv:2211.01095; huggingface/diffusers.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.foundations.captioned_shapes import asked_pair, draw, prompt
from core.foundations.diffusion import Network, guided, leading, sampling, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import verdicts
from core.foundations.settings import guidance_field, noise_seed_field
from core.stable_diffusion.denoise import settings_of
from core.stable_diffusion.model import SCHEDULER, Latent, ids_of
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown

SOLVERS = ("DDPM", "DDIM", "Euler", "DPM-Solver++")
COUNTS = (1, 2, 4, 8, 15, 25, 50)
REFERENCE = 4  # steps with which the orders of the solvers are compared
SHARED = {
    name: SCHEDULER[name] for name in ("beta_schedule", "beta_start", "beta_end", "prediction_type", "steps_offset")
}
SPACINGS = {"trailing": "trailing: from the last step down", "leading": "leading: as Stable Diffusion is shipped"}
SETS = {
    "the shipped settings": "DDIM",
    "diffusers' defaults": "script",
    "defaults without clip_sample": "script without clip_sample",
}
WRITTEN_OUT = Figure("DDIM written out against diffusers'", "of a latent", "theory", "the same formula")
EULER = Figure(
    f"Euler against DDIM, {REFERENCE} steps",
    "of a latent",
    "theory",
    "the same tangent in other variables",
    headline=True,
)
DDIM_AWAY = Figure("DDIM's distance from the converged picture, most steps", "% of a pixel", "theory")
SECOND_AWAY = Figure("DPM-Solver++'s distance from the converged picture, most steps", "% of a pixel", "theory")
DDPM_AWAY = Figure(
    "DDPM's distance from the converged picture, most steps", "% of a pixel", "baseline", "DDIM's", headline=True
)
FEWEST = Figure(
    "fewest steps with which {solver} is as right as at the end",
    "steps",
    None,
    "by the judge, over all prompts",
    headline=True,
)
OUTSIDE = Figure("latents outside of -1 to 1", "%", "theory", "a normal distribution of deviation 1")
DEFAULTS_CHANGE = Figure(
    "change of a pixel by diffusers' default settings", "% of its range", None, "against the model's own settings"
)
DEFAULTS_RIGHT = Figure("judge agrees, diffusers' default settings", "%", "baseline", "the model's own settings")
TWICE = 2  # as many steps for what counts as converged


@dataclass(frozen=True)
class SchedulersConfig(Config):
    """What to draw, from which noise, in how many steps at most."""

    prompt: str = setting("a red circle", "Prompt of the pictures", high=300, help="What the shown pictures are of.")
    others: int = setting(
        3,
        "Other prompts, for the judge",
        low=1,
        high=15,
        help="More prompts make the judge's percentages more reliable; each takes time. Only with the small model.",
        slider=True,
    )
    steps: int = setting(
        25,
        "Steps, at most",
        unit="step",
        low=4,
        high=50,
        help="Solvers are tried with up to this many steps; more take longer.",
    )
    scale: float = guidance_field()
    spacing: str = setting(
        "trailing",
        "Which steps are visited",
        choices=SPACINGS,
        more=True,
        help="Trailing begins with the very last step; leading begins lower and takes pure noise for a picture.",
    )
    seed: int = noise_seed_field()
    model: str = model_field()


@dataclass(frozen=True)
class SchedulersStep(Step):
    """The grid as far as it is filled."""

    counts: tuple[int, ...] = ()
    table: tuple[
        tuple[str, int, float, float, float], ...
    ] = ()  # solver, steps, % right, seconds, % of distance from the converged
    pictures: tuple[np.ndarray, ...] = ()  # of each line of the table: (N, 3, S, S)
    prompts: tuple[str, ...] = ()
    noise: np.ndarray | None = None  # (3, S, S) the common noise of the first picture, decoded
    script: tuple[
        np.ndarray, ...
    ] = ()  # (N, 3, S, S) each: the model's own settings; diffusers' defaults; the defaults without clip_sample
    script_right: tuple[float, ...] = ()  # % right of those
    fresh: bool = False  # whether there is anything new to draw


def scheduler_of(name: str, spacing: str = "leading", told: Mapping[str, Any] = SHARED) -> Any:
    """A scheduler of diffusers with a model's settings; `script` leaves all but the schedule as DDIMScheduler comes:
    clip_sample, no offset.
    """
    import diffusers

    shared = dict(told) | {"timestep_spacing": spacing}
    script = {key: value for key, value in told.items() if key != "steps_offset"}
    if name == "DDPM":
        return diffusers.DDPMScheduler(**shared, clip_sample=False)
    if name == "DDIM":
        return diffusers.DDIMScheduler(**SCHEDULER | shared)
    if name == "Euler":
        return diffusers.EulerDiscreteScheduler(**shared)
    if name == "script":
        return diffusers.DDIMScheduler(**script)
    if name == "script without clip_sample":
        return diffusers.DDIMScheduler(**script, clip_sample=False)
    return diffusers.DPMSolverMultistepScheduler(**shared)


@dataclass
class Walk:
    """One solver on its way: where it is, what it predicted last, and the seconds it took."""

    x: Tensor
    x0: Tensor | None = None
    seconds: float = 0.0


def walk(
    name: str, network: Network, noise: Tensor, steps: int, scale: float, seed: int, spacing: str = "leading",
    told: Mapping[str, Any] = SHARED, clock: Callable[[], float] = time.process_time,
) -> Iterator[Walk]:  # fmt: skip
    """From the noise to latents with a scheduler of diffusers; a Walk per step, the same object."""
    scheduler, rng = scheduler_of(name, spacing, told), torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    scaled = (
        float(scheduler.sigmas[0].square() + 1) ** 0.5 if name == "Euler" else 1.0
    )  # in its variables noise of deviation 1 is that loud
    here = Walk(noise * scaled)
    for t in scheduler.timesteps:
        started = clock()
        free, words = network(scheduler.scale_model_input(here.x, t), int(t))
        out = scheduler.step(guided(free, words, scale), t, here.x, generator=rng)
        here.x, here.x0 = out.prev_sample, getattr(out, "pred_original_sample", None)
        here.seconds += clock() - started
        yield here


# --- measures ---------------------------------------------------------------------------------------------------------


def share_right(pictures: Tensor, prompts: tuple[str, ...]) -> float:
    """% of the pictures whose prompt names one color and one shape in which the judge sees both; NaN if there is
    none.
    """
    told = [
        found == wanted for found, one in zip(verdicts(pictures), prompts, strict=True) if (wanted := asked_pair(one))
    ]
    return 100 * float(np.mean(told)) if told else math.nan


def apart(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    """Mean difference of two sets of pictures, in % of the range of a pixel."""
    return 100 * float(np.abs(np.asarray(a) - np.asarray(b)).mean())


def prompts_of(config: SchedulersConfig, denoiser: Latent) -> tuple[str, ...]:
    """The user's prompt, then others that training has seen; with a real model the user's alone."""
    ids_of(denoiser, config.prompt)
    if isinstance(denoiser, Real):
        return (config.prompt,)
    scenes = draw(np.random.default_rng(config.seed + 1), config.others)
    return (config.prompt, *(prompt(*scenes.pair(number)) for number in range(config.others)))


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How many steps does each solver need?")
def schedulers(config: SchedulersConfig) -> Iterator[SchedulersStep]:
    """The grid of solvers and step counts from the same noise, then diffusers' defaults beside the model's settings."""
    denoiser = yield from denoiser_of(config.model, lambda told: SchedulersStep(doing=told))
    prompts = prompts_of(config, denoiser)
    counts = tuple(sorted({*(count for count in COUNTS if count < config.steps), config.steps}))
    network, noise = denoiser.network(denoiser.states(prompts)), denoiser.noise(len(prompts), config.seed)
    run = Solving(
        denoiser,
        network,
        noise,
        config,
        SchedulersStep(counts=counts, prompts=prompts, noise=shown(denoiser.decode(noise[:1]))[0].numpy()),
    )
    yield replace(run.state, fresh=True, doing=f"one noise for all; prompts: {', '.join(prompts)[:150]}")
    yield from run.solved("converged", "DPM-Solver++", TWICE * counts[-1])
    for count in counts:
        for solver in SOLVERS:
            yield from run.solved(solver, solver, count)
            run.keep(solver, count)
            yield replace(run.state, fresh=True, doing=run.told())
    for name, solver in SETS.items():
        yield from run.solved(name, solver, counts[-1], "leading")
    yield from run.written_out(REFERENCE)
    sets = [run.pictures[name, counts[-1]] for name in SETS]
    state = replace(
        run.state,
        script=tuple(shown(one).numpy() for one in sets),
        script_right=tuple(run.right(one) for one in sets),
        fresh=True,
    )
    away, without = (apart(sets[0], one) for one in sets[1:])
    yield replace(
        state,
        figures=run.figures(state),
        doing=f"diffusers' default settings change a pixel by {away:.1f} %, without clip_sample by {without:.1f} %",
    )


class Solving:
    """The runs of one grid: pictures and latents by what they are and how many steps they took."""

    def __init__(
        self, denoiser: Latent, network: Network, noise: Tensor, config: SchedulersConfig, state: SchedulersStep
    ) -> None:
        self.denoiser, self.network, self.noise, self.config, self.state = denoiser, network, noise, config, state
        self.pictures, self.walks = dict[tuple[str, int], Tensor](), dict[tuple[str, int], Walk]()
        self.real = isinstance(denoiser, Real)
        self.at_once = 1 if self.real else max(1, 12 // len(noise))  # steps in one unit of work
        self.clock = time.perf_counter if self.real else time.process_time  # a GPU's work is not the process's
        self.settings = SHARED | settings_of(denoiser)
        self.difference = 0.0

    def solved(self, name: str, solver: str, count: int, spacing: str = "") -> Iterator[SchedulersStep]:
        """Run a solver in `count` steps and keep what it drew under a name."""
        config = self.config
        steps = walk(
            solver,
            self.network,
            self.noise,
            count,
            config.scale,
            config.seed,
            spacing or config.spacing,
            self.settings,
            self.clock,
        )
        for number, told in enumerate(steps, 1):
            self.walks[name, count] = told
            if number % self.at_once == 0:
                yield replace(self.state, doing=f"{name}, step {number} of {count}")
        self.pictures[name, count] = self.denoiser.decode(self.walks[name, count].x)

    def keep(self, solver: str, count: int) -> None:
        """Add a line to the table."""
        pictures, best = self.pictures[solver, count], self.pictures["converged", TWICE * self.state.counts[-1]]
        line = (solver, count, self.right(pictures), self.walks[solver, count].seconds, apart(pictures, best))
        self.state = replace(
            self.state, table=(*self.state.table, line), pictures=(*self.state.pictures, shown(pictures).numpy())
        )

    def right(self, pictures: Tensor) -> float:
        return math.nan if self.real else share_right(pictures, self.state.prompts)

    def told(self) -> str:
        solver, count, right, _, away = self.state.table[-1]
        seen = "" if math.isnan(right) else f"the judge agrees with {right:.0f} %, "
        return f"{solver}, {count} steps: {seen}{away:.1f} % away from the converged pictures"

    def written_out(self, count: int) -> Iterator[SchedulersStep]:
        """DDIM as `core/foundations/diffusion.py` writes it out, beside diffusers' in as many steps."""
        denoiser, x = self.denoiser, self.noise
        visited = trailing(count) if self.config.spacing == "trailing" else leading(count, denoiser.offset)
        for moment in sampling(
            self.network, x, (denoiser.schedule, denoiser.predicts), count, self.config.scale, visited=visited
        ):
            x = moment.after
            yield replace(self.state, doing=f"DDIM written out, t = {moment.t}")
        self.difference = float((x - self.walks["DDIM", count].x).abs().max())

    def figures(self, state: SchedulersStep) -> tuple[Result, ...]:
        first, last = REFERENCE, state.counts[-1]
        ddim, euler = self.walks["DDIM", first], self.walks["Euler", first]
        assert ddim.x0 is not None
        right = {(solver, count): share for solver, count, share, _, _ in state.table}
        away = {(solver, count): distance for solver, count, _, _, distance in state.table}
        outside = 100 * float((self.walks["DDIM", last].x.abs() > 1).double().mean())
        own, defaults = (self.pictures[name, last] for name in list(SETS)[:2])
        figures = [
            WRITTEN_OUT(self.difference, 0.0),
            EULER(float((euler.x - ddim.x0).abs().max()), 0.0),
            DDIM_AWAY(
                away["DDIM", last],
                away["DDIM", first] * first / last,
                source=f"first order: that of {first} steps, times {first} / {last}",
            ),
            SECOND_AWAY(
                away["DPM-Solver++", last],
                away["DPM-Solver++", first] * (first / last) ** 2,
                source=f"second order: that of {first} steps, times ({first} / {last})^2",
            ),
            DDPM_AWAY(away["DDPM", last], away["DDIM", last]),
            OUTSIDE(outside, 100 * (1 - math.erf(1 / math.sqrt(2)))),
            DEFAULTS_CHANGE(apart(own, defaults)),
        ]
        if not math.isnan(state.script_right[0]):
            figures.append(DEFAULTS_RIGHT(state.script_right[1], state.script_right[0]))
            for solver in ("DDIM", "DPM-Solver++"):
                fewest = next(count for count in state.counts if right[solver, count] >= right[solver, last])
                figures.append(FEWEST.of(solver=solver)(float(fewest)))
        return tuple(figures)
