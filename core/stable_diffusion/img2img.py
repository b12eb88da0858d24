r"""Image to image: begin with a picture instead of noise.

Encode the picture, add noise up to a step $t$ in the middle of the schedule, and denoise from there with a prompt:

$$z_t = \sqrt{\bar\alpha_t}\,\mathcal{E}(x) + \sqrt{1-\bar\alpha_t}\,\varepsilon, \qquad t \approx \text{strength}
\times 1000.$$

*Strength* says how far back to go: of $n$ steps the last $\lfloor n \cdot \text{strength} \rfloor$ are done, the first
are left out. With little noise the layout and the colors of the picture stay, since they are still there to see; with
much noise only the prompt is left to go by. Coarse things (where the object lies, its color) outlast more noise than
fine ones (its corners).

**Strength 1 is not pure noise.** At the first of the steps $\sqrt{\bar\alpha_t}$ is not 0, so a trace of the picture is
left, and the trained network knows to look for it. The run draws the same noise without that trace beside it.

Many tutorials start at step 20 of 30 (10 steps are done: strength 1/3), but leave diffusers' `clip_sample=True` on,
which cuts the predicted latents to [-1, 1]; here they are not cut.

Left out: other schedulers, a noise of the sampler's own (eta), inpainting.
Source: Meng et al. 2021, arXiv:2108.01073 (SDEdit); diffusers' StableDiffusionImg2ImgPipeline.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, GROUNDS, SHAPES, article, asked_pair, draw, render
from core.foundations.diffusion import Moment, leading, noised, sampling, signal
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import verdicts
from core.foundations.pictures import take
from core.foundations.settings import guidance_field, picture_field
from core.stable_diffusion.autoencoder import psnr
from core.stable_diffusion.model import Latent, ids_of
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the sweep
FAR = Figure(
    "noisy latents from the picture's",
    "root mean square",
    "theory",
    "sqrt((1 - sqrt(a))^2 z^2 + 1 - a), a is alpha-bar",
)
STAYS = Figure("PSNR at the smallest strength", "dB", "limit", "the autoencoder's copy: strength 0", headline=True)
GONE = Figure("PSNR at strength 1", "dB", "baseline", "pictures from the same noises alone")
TRACE = Figure(
    "difference of a pixel at strength 1 from pictures of the noise alone",
    "root mean square",
    "baseline",
    "0, if nothing of the picture were left",
    headline=True,
)
NEW_SEEN = Figure(
    "judge sees the prompt's object at strength 1", "%", "baseline", "pictures from the same noises alone"
)
WINS_AT = Figure(
    "smallest strength at which the prompt wins", "strength", None, "in half of the pictures or more", headline=True
)


@dataclass(frozen=True)
class Img2imgConfig(Config):
    """A picture, what to make of it, and how far."""

    prompt: str = setting("a green square on white", "Prompt", high=200, help="What to make of the picture.")
    strength: float = setting(
        0.6,
        "Strength",
        low=0.02,
        high=1.0,
        help="Higher adds more noise to the picture first: less of it stays, and the prompt decides more.",
        slider=True,
    )
    picture: bytes = picture_field()
    colour: str = setting(
        "red", "Color of the drawn one", choices={name: name for name in COLOURS}, help="The color of the drawn object."
    )
    shape: str = setting(
        "circle", "Its shape", choices={name: name for name in SHAPES}, help="The shape of the drawn object."
    )
    steps: int = setting(
        25,
        "Steps of the whole schedule",
        unit="step",
        low=1,
        high=100,
        help="More steps of the whole schedule make the picture sharper; only the last part is done.",
    )
    scale: float = guidance_field(1.5)
    seed: int = setting(
        0,
        "Seed of picture and noise",
        low=0,
        high=2**31 - 1,
        help="Another seed gives another drawn picture and another noise.",
    )
    rounds: int = setting(
        6,
        "Noises in the sweep",
        unit="noise",
        low=1,
        high=20,
        more=True,
        help="More noises make the percentages more reliable; each takes time.",
    )
    model: str = model_field()

    def check(self) -> None:
        if int(self.steps * self.strength) < 1:
            raise ValueError(
                f"strength must be at least 1 / steps, so that one step is done: {1 / self.steps:.3g} with {self.steps}"
                f" steps, got {self.strength:g}"
            )


@dataclass(frozen=True)
class Img2imgStep(Step):
    """What is known so far; pictures as they are shown."""

    prompt: str = ""
    note: str = ""  # what was done to the user's picture
    step: int = 0  # of the whole schedule, those left out included
    t: int = 0
    start: int = 0  # t of the first step that is done
    kept: tuple[float, ...] = ()  # sqrt(alpha-bar) over t, every 20th
    given: np.ndarray | None = None  # (2, 3, S, S) the picture and the autoencoder's copy
    now: np.ndarray | None = None  # (2, 3, S, S) the noisy latents decoded, and the predicted picture
    sweep: tuple[tuple[float, float, float, float], ...] = ()  # strength, PSNR in dB, % old seen, % new seen
    row: np.ndarray | None = (
        None  # (N, 3, S, S) the first noise's picture at strength 0 and each one so far; None: the sweep has not begun
    )
    fresh: bool = True  # the row of pictures may be new
    ceiling: float = 0.0  # PSNR of the autoencoder's copy, in dB


def left_out(steps: int, strength: float) -> int:
    """How many of the steps are not done, as diffusers counts them."""
    return max(steps - min(int(steps * strength), steps), 0)


def changing(
    denoiser: Latent, config: Img2imgConfig, latents: Tensor, noise: Tensor, strength: float
) -> Iterator[Moment]:
    """From a picture's latents, with noise up to the strength, to new ones; a row per noise."""
    skip = left_out(config.steps, strength)
    first = leading(config.steps, denoiser.offset)[skip]
    x = noised(latents, noise, float(signal(denoiser.schedule)[first]))
    return denoised(denoiser, config, x, skip)


def denoised(denoiser: Latent, config: Img2imgConfig, x: Tensor, skip: int) -> Iterator[Moment]:
    """Draw on from a noised picture: the first `skip` steps are left out."""
    network = denoiser.network(denoiser.states([config.prompt] * len(x)).detach())
    return sampling(
        network,
        x,
        (denoiser.schedule, denoiser.predicts),
        config.steps,
        config.scale,
        clip=denoiser.clip,
        offset=denoiser.offset,
        skip=skip,
    )


def given_picture(config: Img2imgConfig, denoiser: Latent) -> tuple[Float[Tensor, "1 3 S S"], str]:
    """The user's picture, or one drawn from the seed: a large object on white."""
    side = denoiser.side
    if config.picture:
        taken = take(config.picture, side)
        return taken.pixels[None], taken.note
    scene = draw(np.random.default_rng(config.seed), 1, pairs=[(config.colour, config.shape)])
    x, y = (12 + 8 * place / 32 for place in (scene.x, scene.y))  # not too near the rim
    scene = replace(scene, radius=np.full((1, 2), 9.0), x=x, y=y, ground=np.array([tuple(GROUNDS).index("white")]))
    return render(scene.at(side)), ""


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How much of a picture stays when it is drawn again from noise?")
def img2img(config: Img2imgConfig) -> Iterator[Img2imgStep]:
    """One run at the chosen strength, step by step; then every strength with several noises."""
    denoiser = yield from denoiser_of(config.model, lambda told: Img2imgStep(prompt=config.prompt, doing=told))
    ids_of(denoiser, config.prompt)
    picture, note = given_picture(config, denoiser)
    latents = denoiser.encode(picture)
    copy, every = denoiser.decode(latents), signal(denoiser.schedule)
    noise = denoiser.noise(config.rounds, config.seed)
    start = leading(config.steps, denoiser.offset)[left_out(config.steps, config.strength)]
    x = noised(latents, noise[:1], float(every[start]))
    state = Img2imgStep(
        config.prompt,
        note,
        left_out(config.steps, config.strength),
        start,
        start,
        tuple(float(kept) for kept in every.sqrt()[::20]),
        shown(torch.cat([picture, copy])).numpy(),
        shown(denoiser.decode(torch.cat([x, latents]))).numpy(),
        ceiling=psnr(copy, picture),
    )
    left = float(every[start].sqrt())
    yield replace(
        state,
        doing=(
            f"encoded, and noise added up to t = {start}: the latents are {left:.2f} x the picture +"
            f" {math.sqrt(1 - left**2):.2f} x noise"
        ),
    )
    for moment in changing(denoiser, config, latents, noise[:1], config.strength):
        last = state.step + 1 == config.steps
        now = denoiser.decode(torch.cat([moment.after, moment.after if last else moment.x0]))
        state = replace(state, step=state.step + 1, t=moment.t, now=shown(now).numpy())
        yield replace(
            state,
            doing=(
                f"step {state.step} of {config.steps}, t = {moment.t}: PSNR to the original"
                f" {psnr(now[1:], picture):.1f} dB"
            ),
        )
    yield from sweep(denoiser, config, picture, latents, noise, state)


def sweep(
    denoiser: Latent, config: Img2imgConfig, picture: Tensor, latents: Tensor, noise: Tensor, state: Img2imgStep
) -> Iterator[Img2imgStep]:
    """All strengths from the same noises, and at the end the noises alone."""
    rounds = 1 if isinstance(denoiser, Real) else config.rounds
    noise, rows, pictures = noise[:rounds], list[tuple[float, float, float, float]](), list[np.ndarray]()
    far = (float("nan"), float("nan"))
    assert state.given is not None
    copied = state.given[1:]
    state = replace(state, row=copied)
    done = Tensor()
    for strength in strengths(config):
        for moment in changing(denoiser, config, latents, noise, strength):
            done = moment.after
            if moment.t > denoiser.offset:
                yield replace(state, fresh=False, doing=f"strength {strength:g}: t = {moment.t}")
            if strength == config.strength and math.isnan(far[0]):
                far = distances(moment.x, latents, moment.kept)
        made = denoiser.decode(done)
        old, new = seen_in(denoiser, config, made)
        rows.append((strength, psnr(made, picture), old, new))
        pictures.append(shown(made[:1]).numpy())
        state = replace(state, sweep=tuple(rows), row=np.concatenate([copied, *pictures]))
        yield replace(
            state,
            doing=f"strength {strength:g}: PSNR {rows[-1][1]:.1f} dB"
            + ("" if math.isnan(new) else f", the judge sees the prompt's in {new:.0f} %"),
        )
    for moment in denoised(denoiser, config, noise, 0):
        if moment.t > denoiser.offset:
            yield replace(state, fresh=False, doing=f"the same noises without a picture: t = {moment.t}")
    alone = denoiser.decode(moment.after)
    yield replace(
        state,
        figures=figures(state, far, made, alone, picture, seen_in(denoiser, config, alone)[1]),
        doing="all strengths are drawn",
    )


def strengths(config: Img2imgConfig) -> list[float]:
    """Those of the sweep that do a step at least, and the chosen one."""
    return sorted({strength for strength in (*STRENGTHS, config.strength) if int(config.steps * strength) >= 1})


def distances(x: Tensor, latents: Tensor, kept: float) -> tuple[float, float]:
    """How far the noisy latents are from the picture's (root mean square): by the formula, and measured."""
    expected = (1 - math.sqrt(kept)) ** 2 * float(latents.square().mean()) + (1 - kept)
    return math.sqrt(expected), float((x - latents).square().mean().sqrt())


def seen_in(denoiser: Latent, config: Img2imgConfig, pictures: Tensor) -> tuple[float, float]:
    """% in which the judge sees what was drawn, and what the prompt asks for; not a number where nothing of that kind
    is known.
    """
    if isinstance(denoiser, Real):
        return float("nan"), float("nan")
    found, old = verdicts(pictures), None if config.picture else (config.colour, config.shape)
    shares = [
        float("nan") if pair is None else 100 * float(np.mean([one == pair for one in found]))
        for pair in (old, asked_pair(config.prompt))
    ]
    return shares[0], shares[1]


def figures(
    state: Img2imgStep, far: tuple[float, float], made: Tensor, alone: Tensor, picture: Tensor, new: float
) -> tuple[Result, ...]:
    """made: the pictures at strength 1; alone: those from the same noises and no picture; new: % of the latter in which
    the prompt's is seen.
    """
    least, most, rms = state.sweep[0], state.sweep[-1], math.sqrt(F.mse_loss(made, alone).item())
    results = [
        FAR(far[1], far[0]),
        STAYS(least[1], state.ceiling, source=f"{STAYS.source}; here {least[0]:g}"),
        GONE(most[1], psnr(alone, picture)),
        TRACE(rms, 0.0),
    ]
    if not math.isnan(new):
        half = next((strength for strength, *_, share in state.sweep if share >= 50), None)
        results += [NEW_SEEN(most[3], new), WINS_AT(half)]
    return tuple(results)


def words_of(config: Img2imgConfig) -> str:
    """What stands above the given picture."""
    return "your picture" if config.picture else article(f"{config.colour} {config.shape}")
