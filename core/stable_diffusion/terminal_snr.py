r"""The last step that is not all noise, and what it does to brightness.

A schedule should end in pure noise, for that is where sampling begins. Stable Diffusion's does not:

$$\bar\alpha_T = \prod_{t=1}^{1000} (1 - \beta_t) = 0.00466, \qquad \sqrt{\bar\alpha_T} = 0.0683, \qquad
\mathrm{SNR}_T = \frac{\bar\alpha_T}{1 - \bar\alpha_T} = 0.00468.$$

At the noisiest step of training $z_T = 0.0683\,z + 0.9977\,\varepsilon$: 6.8 % of the picture is still there. That is
little for a single number. But what *all* numbers share, like the brightness of the background, survives averaging: a
linear test that adds them up tells a black from a white background with probability

$$\Phi(d), \qquad d = \tfrac12\,\frac{\sqrt{\bar\alpha_T}}{\sqrt{1-\bar\alpha_T}}\,\lVert z_\text{white} -
z_\text{black} \rVert ,$$

and with it so can the network. It learns to trust this trace, and sampling starts from noise with mean 0, which the
network reads as neither dark nor bright: real Stable Diffusion draws pictures of medium brightness. In this small world
every background is black or white, so the network must decide; an ideal one decides by the side on which the noise
lies, so that noise with $a$ times the trace of white in it gets a white background with probability $\Phi(a\,d)$. This
is the curve; the dots are what the shipped model draws. The effect grows with the number of latents: $d$ is
proportional to the side of the grid, and 64 x 64 latents have eight times as much of it as 8 x 8.

**The fix.** Lin et al. shift and stretch $\sqrt{\bar\alpha_t}$ so that it ends at 0 and begins where it did,

$$\sqrt{\bar\alpha'_t} = \big(\sqrt{\bar\alpha_t} -
\sqrt{\bar\alpha_T}\big)\,\frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}},$$

let samplers begin at the last step (*trailing* instead of *leading*: the usual 25 steps begin at $t = 961$), and train
again with $v$, since noise predicted from pure noise says nothing; with guidance they also rescale the result. The last
row of pictures uses that schedule with a network that was not trained again, so it shows no effect: the fix needs the
training.

The dots are few noises (12 give $\pm 14$ points at 50 %) and are drawn with guidance, the curve is for a network
without.

**A real one** draws any background, so there the brightness of the background is shown, and no ideal network stands
beside it. It predicts noise: with nothing but noise before it, it cannot begin, so the rescaled schedule has no
pictures.

Left out: training with it; their rescaled guidance; offset noise. Source: Lin et al. 2023, arXiv:2305.08891.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import GROUNDS, draw, render
from core.foundations.diffusion import Network, leading, noised, sampling, signal, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import guidance_field
from core.stable_diffusion.model import Latent, ids_of
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown

LEVELS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)  # times the trace of a black (below 0) or white (above) picture
CURVE = tuple(number / 5 for number in range(-22, 23))  # the levels of the drawn curve
SCENES, PARTS = 256, 8  # pictures whose trace is measured, in so many units of work
FEW = 16  # ... with a real one
COPIES = 4  # noises for each of them
REAL_SIDE = 64  # of Stable Diffusion's latents
LEFT = Figure(
    "picture left at the last step", "of its size", "theory", "sqrt(alpha-bar_T); by regression over noised latents"
)
SNR = Figure("SNR at the last step", "ratio", "paper", "Lin et al. 2023, table 1", "computed")
READ = Figure("backgrounds read from the last step", "%", "theory", "Phi(d)", headline=True)
WHITE = Figure("white backgrounds, {noise}", "%", "theory")
BRIGHTER = Figure(
    "brightness of the background, 1 x white in the noise", "of 1", "baseline", "1 x black in the noise", headline=True
)
RESCALED_WHITE = Figure("white backgrounds, rescaled schedule", "%", "baseline", "pure noise, the schedule as it is")
NOISES = {-4.0: "4 x black in the noise", 0.0: "pure noise", 4.0: "4 x white in the noise"}


@dataclass(frozen=True)
class TerminalSnrConfig(Config):
    """What to draw, from how many noises."""

    prompt: str = setting("a red circle", "Prompt", high=300, help="What to draw, without words about the background.")
    pictures: int = setting(
        12,
        "Noises",
        low=5,
        high=16,
        help="More noises make the percentages more reliable; each takes time.",
        slider=True,
    )
    steps: int = setting(
        10, "Steps", unit="step", low=4, high=50, help="More steps make the pictures sharper; each takes time."
    )
    scale: float = guidance_field()
    seed: int = setting(
        0,
        "Seed",
        low=0,
        high=2**31 - 1,
        help="Another seed gives another noise, and so another picture; the same seed gives the same one.",
    )
    model: str = model_field()


@dataclass(frozen=True)
class TerminalSnrStep(Step):
    """All that is known so far; what is not known yet is empty."""

    left: float = 0.0  # sqrt(alpha-bar) at the last step
    snr: float = 0.0  # alpha-bar / (1 - alpha-bar) there
    measured: float = 0.0  # ... found again in noised latents
    places: int = 8  # of a side of the latents
    scenes: int = 0  # noised latents so far
    told_apart: float = 0.0  # % of them whose background a linear test names right
    expected: float = 0.0  # ... by the formula
    expected_real: float = 0.0  # ... for a grid of 64 x 64
    d: float = 0.0
    leading_t: int = 0  # where the usual spacing begins
    leading_left: float = 0.0
    times: tuple[int, ...] = ()  # of the two curves
    roots: tuple[float, ...] = ()  # sqrt(alpha-bar) at those
    rescaled: tuple[float, ...] = ()  # ... rescaled to end at 0
    ideal: tuple[
        float, ...
    ] = ()  # fraction of white backgrounds of an ideal network, at CURVE; empty where they are not black or white
    levels: tuple[
        tuple[float, float, float, float], ...
    ] = ()  # level, % white by the formula, % white drawn, mean brightness of the background
    rescales: bool = True  # whether the network can begin with nothing but noise
    rows: tuple[np.ndarray, ...] = ()  # for each level: (N, 3, S, S)
    rescaled_row: np.ndarray | None = None  # the same with the rescaled schedule
    rescaled_white: float = 0.0
    start: np.ndarray | None = None  # (N, 3, S, S) the noises, decoded
    fresh: str = ""  # what is new to draw: "all", "numbers"


def zero_terminal(every: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """alpha-bar shifted and stretched so that its root begins where it did and ends at 0."""
    root = every.double().sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square().float()


def normal_share(d: float) -> float:
    """Phi: the fraction of a standard normal distribution below d."""
    return 0.5 * (1 + math.erf(d / math.sqrt(2)))


class Grounds:
    """The latents of an all black and an all white picture, and the line between them."""

    def __init__(self, denoiser: Latent) -> None:
        flat = (
            torch.tensor(list(GROUNDS.values()), dtype=torch.float32)
            .view(2, 1, 1, 1)
            .expand(2, 3, denoiser.side, denoiser.side)
        )
        self.black, self.white = denoiser.encode(flat)
        self.middle = (self.black + self.white) / 2
        self.length = float((self.white - self.black).norm())
        self.along = (self.white - self.black) / self.length

    def side_of(self, z: Float[Tensor, "N C h w"]) -> Float[Tensor, "N"]:
        """How far along the line, from any origin."""
        return (z * self.along).sum((1, 2, 3))

    def trace(self, level: float) -> Float[Tensor, "C h w"]:
        """`level` times white, or -level times black."""
        return level * self.white if level > 0 else -level * self.black

    def white_share(self, level: float, kept: float) -> float:
        """How likely noise with this trace lies on the side of white: an ideal network without other hints draws white
        then.
        """
        shift = math.sqrt(kept) * (self.trace(level) - self.middle)
        return normal_share(float((shift * self.along).sum()) / math.sqrt(1 - kept))


def rim(pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N"]:
    """Median brightness of the outermost pixels: the background's."""
    grey = pictures.mean(1)
    return torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], 1).median(1).values


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How much picture is left in the last step, and does it matter?")
def terminal_snr(config: TerminalSnrConfig) -> Iterator[TerminalSnrStep]:
    """The schedule, its trace found again in noised latents, then pictures from noise with ever more of it."""
    denoiser = yield from denoiser_of(config.model, lambda told: TerminalSnrStep(doing=told))
    ids_of(denoiser, config.prompt)
    every, grounds = signal(denoiser.schedule), Grounds(denoiser)
    kept, noise = float(every[-1]), denoiser.noise(config.pictures, config.seed)
    state = computed(denoiser, config, every, grounds, noise)
    yield replace(state, fresh="all", doing=f"{state.left:.4f} of the picture is left at t = 999, by the schedule")
    state = yield from found_again(config, denoiser, state, kept, grounds)
    network = denoiser.network(denoiser.states([config.prompt] * config.pictures))
    real = isinstance(denoiser, Real)
    for level in LEVELS:
        x = (1 - kept) ** 0.5 * noise + kept**0.5 * grounds.trace(level)
        pictures = yield from painted(denoiser, network, config, x, every, state, f"noise and {what(level)}")
        lit = rim(pictures)
        expected = math.nan if real else 100 * grounds.white_share(level, kept)
        line = (level, expected, 100 * float((lit > 0.5).double().mean()), float(lit.mean()))
        state = replace(state, levels=(*state.levels, line), rows=(*state.rows, shown(pictures).numpy()))
        told = (
            f"brightness of the background {line[3]:.2f}"
            if real
            else f"{line[2]:.0f} % white backgrounds, {line[1]:.0f} % expected"
        )
        yield replace(state, fresh="all", doing=f"noise and {what(level)}: {told}")
    if not state.rescales:
        darkest, brightest = state.levels[0][3], state.levels[-1][3]
        told = f"brightness of the background {darkest:.2f} with 4 x black in the noise, {brightest:.2f} with 4 x white"
        yield replace(state, figures=figures_of(state, kept), doing=told)
        return
    pictures = yield from painted(
        denoiser, network, config, noise, zero_terminal(every), state, "pure noise, a schedule that ends at 0"
    )
    white = 100 * float((rim(pictures) > 0.5).double().mean())
    state = replace(state, rescaled_row=shown(pictures).numpy(), rescaled_white=white, fresh="all")
    by_level = {level: share for level, _, share, _ in state.levels}
    yield replace(
        state,
        figures=figures_of(state, kept),
        doing=(
            f"{by_level[-4.0]:.0f} % white backgrounds with 4 x black in the noise, {by_level[4.0]:.0f} % with 4 x"
            " white"
        ),
    )


def what(level: float) -> str:
    return "no trace" if not level else f"{abs(level):g} x the trace of {'white' if level > 0 else 'black'}"


@torch.no_grad()
def computed(
    denoiser: Latent, config: TerminalSnrConfig, every: Tensor, grounds: Grounds, noise: Tensor
) -> TerminalSnrStep:
    """What follows from the schedule and from the latents of two flat pictures."""
    kept, first = float(every[-1]), leading(config.steps, denoiser.offset)[0]
    times = (*range(0, 1000, 25), 999)
    d = 0.5 * math.sqrt(kept / (1 - kept)) * grounds.length
    rescaled = zero_terminal(every)
    return TerminalSnrStep(
        left=kept**0.5,
        snr=kept / (1 - kept),
        d=d,
        expected=100 * normal_share(d),
        expected_real=100 * normal_share(d * REAL_SIDE / denoiser.places[-1]),
        leading_t=first,
        leading_left=float(every[first]) ** 0.5,
        times=times,
        roots=tuple(float(every[t]) ** 0.5 for t in times),
        rescaled=tuple(float(rescaled[t]) ** 0.5 for t in times),
        start=shown(denoiser.decode(noise)).numpy(),
        places=denoiser.places[-1],
        ideal=() if isinstance(denoiser, Real) else tuple(grounds.white_share(level, kept) for level in CURVE),
        rescales=denoiser.predicts != "epsilon",
    )


def found_again(
    config: TerminalSnrConfig, denoiser: Latent, state: TerminalSnrStep, kept: float, grounds: Grounds
) -> Generator[TerminalSnrStep, None, TerminalSnrStep]:
    """Latents noised to the last step: how much of them a regression finds, and how often a linear test names the
    background.
    """
    total = FEW if isinstance(denoiser, Real) else SCENES
    scenes, rng = (
        draw(np.random.default_rng(config.seed + 1), total, held_out=None).at(denoiser.side),
        torch.Generator().manual_seed(config.seed + 2),
    )
    across, length, hits = 0.0, 0.0, list[bool]()
    for first in range(0, total, total // PARTS):
        part = scenes[first : first + total // PARTS]
        z = denoiser.encode(render(part)).repeat(COPIES, 1, 1, 1)
        noisy = noised(z, torch.randn(z.shape, generator=rng), kept)
        across, length = across + float((noisy * z).sum()), length + float(z.square().sum())
        white = grounds.side_of(noisy - kept**0.5 * grounds.middle) > 0
        hits += (white.numpy() == np.tile(part.ground == 1, COPIES)).tolist()
        state = replace(state, measured=across / length, scenes=len(hits), told_apart=100 * float(np.mean(hits)))
        yield replace(
            state,
            fresh="numbers",
            doing=(
                f"{len(hits)} latents at t = 999: {state.measured:.4f} of them is left, {state.told_apart:.0f} % of the"
                " backgrounds read"
            ),
        )
    return state


def painted(
    denoiser: Latent,
    network: Network,
    config: TerminalSnrConfig,
    x: Tensor,
    every: Tensor,
    state: TerminalSnrStep,
    doing: str,
) -> Generator[TerminalSnrStep, None, Tensor]:
    """Pictures from x, which is taken to be at the last step of the schedule. The generator's result."""
    kinds = (denoiser.schedule, denoiser.predicts)
    for moment in sampling(network, x, kinds, config.steps, config.scale, visited=trailing(config.steps), every=every):
        x = moment.after
        yield replace(state, doing=f"{doing}, t = {moment.t}")
    return denoiser.decode(x)


def white_of(level: float) -> Figure:
    """The figure of a trace in the noise; those of the two strong ones are headlines."""
    return replace(WHITE.of(noise=NOISES[level]), headline=bool(level))


def figures_of(state: TerminalSnrStep, kept: float) -> tuple[Result, ...]:
    """What is left of the picture at the last step, and what that does to the background."""
    by_level = {level: values for level, *values in state.levels}
    figures = [
        LEFT(state.measured, state.left),
        SNR(kept / (1 - kept), 0.004682),
        READ(state.told_apart, state.expected),
    ]
    if state.ideal:
        source = (
            "an ideal network without guidance and without words about the background: Phi of the side on which the"
            f" noise lies; {len(state.rows[0])} noises"
        )
        figures += [white_of(level)(by_level[level][1], by_level[level][0], source=source) for level in NOISES]
    figures.append(BRIGHTER(by_level[1.0][2], by_level[-1.0][2]))
    if state.rescales:
        figures.append(RESCALED_WHITE(state.rescaled_white, by_level[0.0][1]))
    return tuple(figures)
