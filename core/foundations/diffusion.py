r"""Diffusion, written out: how a picture becomes noise, and how noise becomes a picture.

**Forward.** At step $t$ a picture is a mix of itself and noise, $x_t = \sqrt{\bar\alpha_t}\,x_0 +
\sqrt{1-\bar\alpha_t}\,\varepsilon$, where $\bar\alpha_t = \prod_{s \le t}(1-\beta_s)$ falls from 1 to (nearly) 0.

**What a network may predict.** The noise $\varepsilon$, the picture $x_0$, or $v = \sqrt{\bar\alpha_t}\,\varepsilon -
\sqrt{1-\bar\alpha_t}\,x_0$. Each of them with $x_t$ gives the other two (`both_of`).

**Backward.** DDIM goes from $t$ to an earlier $s$ by mixing the predicted picture and the predicted noise anew; $\eta$
says how much of the noise is drawn afresh ($\eta = 1$ is DDPM):

$$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s-\sigma^2}\,\hat\varepsilon + \sigma z, \qquad
\sigma = \eta\sqrt{\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}}\sqrt{1-\tfrac{\bar\alpha_t}{\bar\alpha_s}}.$$

**Guidance** exaggerates what the words change: $\hat\varepsilon = \varepsilon(x_t) + w\,(\varepsilon(x_t, c) -
\varepsilon(x_t))$.

Left out: learned variances, continuous time. Source: Ho et al. 2020, arXiv:2006.11239; Song et al. 2020,
arXiv:2010.02502; Salimans and Ho 2022, arXiv:2202.00512 (v); Ho and Salimans 2022, arXiv:2207.12598 (guidance).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 1000  # of the forward process
KINDS = ("linear", "scaled_linear", "squaredcos_cap_v2")  # as diffusers names them: DDPM, Stable Diffusion, GLIDE


def signal(kind: str) -> Float[Tensor, "1000"]:
    r"""$\bar\alpha_t$ for each step: how much of the picture's variance is left."""
    if kind == "squaredcos_cap_v2":  # cosine, Nichol and Dhariwal 2021
        time = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
        kept = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
        beta = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    elif kind == "scaled_linear":
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64).square()
    elif kind == "linear":
        beta = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    else:
        raise ValueError(f"schedule must be one of {', '.join(KINDS)}, got {kind!r}")
    return (1 - beta).cumprod(0).float()


def noised(x0: Tensor, noise: Tensor, kept: Tensor | float) -> Tensor:
    """x_t from the picture and the noise; kept is alpha-bar at t."""
    kept = torch.as_tensor(kept)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


def velocity(x0: Tensor, noise: Tensor, kept: Tensor | float) -> Tensor:
    kept = torch.as_tensor(kept)
    return kept.sqrt() * noise - (1 - kept).sqrt() * x0


def both_of(x: Tensor, told: Tensor, kept: Tensor | float, kind: str) -> tuple[Tensor, Tensor]:
    """(predicted picture, predicted noise) from x_t and what the network told: 'epsilon', 'sample' or
    'v_prediction'.
    """
    kept = torch.as_tensor(kept)
    if kind == "epsilon":
        return (x - (1 - kept).sqrt() * told) / kept.sqrt(), told
    if kind == "sample":
        return told, (x - kept.sqrt() * told) / (1 - kept).sqrt()
    return kept.sqrt() * x - (1 - kept).sqrt() * told, kept.sqrt() * told + (1 - kept).sqrt() * x


def ddim_step(
    x0: Tensor, noise: Tensor, kept: float, earlier: float, eta: float = 0.0, fresh: Tensor | None = None
) -> Tensor:
    """x at an earlier step, from the predicted picture and noise.

    kept, earlier: alpha-bar now and then. fresh: noise for eta > 0.
    """
    sigma = eta * math.sqrt((1 - earlier) / (1 - kept)) * math.sqrt(1 - kept / earlier)
    x = math.sqrt(earlier) * x0 + math.sqrt(max(0.0, 1 - earlier - sigma**2)) * noise
    return x if fresh is None or not sigma else x + sigma * fresh


def guided(free: Tensor, told: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: scale 0 ignores the words, 1 follows them, more exaggerates them."""
    return free + scale * (told - free)


def leading(steps: int, offset: int = 0) -> list[int]:
    """The steps that a sampler with fewer of them visits, latest first: evenly spaced down to the offset, as diffusers'
    'leading'.
    """
    return [min(number * (STEPS // steps) + offset, STEPS - 1) for number in range(steps)][::-1]


def trailing(steps: int) -> list[int]:
    """Evenly spaced from the very last step of the schedule, as diffusers' 'trailing'."""
    return [round(STEPS - number * STEPS / steps) - 1 for number in range(steps)]


@dataclass(frozen=True)
class Moment:
    """One step of sampling: x before it, what the network said, and x after it."""

    t: int
    kept: float  # alpha-bar at t
    x: Tensor
    free: Tensor  # the prediction without the words
    told: Tensor  # ... with them
    x0: Tensor
    noise: Tensor
    after: Tensor


Network = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (x_t, t) -> predictions without and with the words


def sampling(
    network: Network,
    x: Tensor,
    kinds: tuple[str, str],
    steps: int,
    scale: float,
    eta: float = 0.0,
    rng: torch.Generator | None = None,
    clip: bool = False,
    offset: int = 0,
    skip: int = 0,
    visited: Sequence[int] = (),
    every: Tensor | None = None,
) -> Iterator[Moment]:
    """From noise to picture, a Moment per step. kinds: the schedule and what the network predicts.

    clip: keep the predicted picture between -1 and 1, where pixels are (the predicted noise then follows from it).
    skip: leave out so many of the first steps; x is then a picture with the noise of the first one visited. visited:
    the steps to visit, latest first, instead of `leading`; every: alpha-bar of each step, instead of the schedule's.
    """
    every = signal(kinds[0]) if every is None else every
    visited = list(visited or leading(steps, offset))[skip:]
    for t, before in zip(visited, [*visited[1:], None], strict=True):
        kept, earlier = float(every[t]), float(every[0] if before is None else every[before])
        free, told = network(x, t)
        x0, noise = both_of(x, guided(free, told, scale), kept, kinds[1])
        if clip:
            x0, noise = both_of(x, x0.clamp(-1, 1), kept, "sample")
        fresh = torch.randn(x.shape, generator=rng) if eta else None
        after = ddim_step(x0, noise, kept, earlier, eta, fresh)
        yield Moment(t, kept, x, free, told, x0, noise, after)
        x = after
