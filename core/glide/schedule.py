r"""Schedules: log-SNR over time, three fixed or learned ways of it, and what a way costs.

See `noise.py` for the formulas.
Source: Kingma et al. 2021, arXiv:2107.00630, sections 4 and 5.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.diffusion import signal

KINDS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
NAMES = (*KINDS, "learned")
LEVELS = np.linspace(-10.0, 14.0, 25)  # log-SNR at which the denoiser and the judge are measured
TIMES = np.linspace(0.0, 1.0, 101)
FINE = np.linspace(0.0, 1.0, 2001)  # where an integral is taken
PIECES = 24  # of the learned way
START = (-6.0, 9.0)  # the ends before learning

# --- schedules --------------------------------------------------------------------------------------------------------


def log_snr(kept: Tensor) -> Tensor:
    return (kept.double() / (1 - kept.double())).log()


def kept_at(level: Tensor | float) -> Tensor:
    """alpha squared at a log-SNR."""
    return torch.as_tensor(level, dtype=torch.float64).sigmoid().float()


def known_way(name: str) -> Float[np.ndarray, "1000"]:
    """log-SNR of the steps of a fixed schedule."""
    return log_snr(signal(KINDS[name])).numpy()


def between(way: Float[np.ndarray, "T"], ends: tuple[float, float]) -> Float[np.ndarray, "2001"]:
    """A way cut off at two ends that it reaches, its time from 0 to 1 again: the same shape, for a fair comparison."""
    low, high = ends
    times = np.linspace(0, 1, len(way))
    first, last = (float(np.interp(-level, -way, times)) for level in (high, low))
    cut = np.interp(first + (last - first) * FINE, times, way)
    cut[0], cut[-1] = high, low
    return cut


class Way:
    """A falling log-SNR: two ends, and positive increments between them that add up to 1."""

    def __init__(self) -> None:
        self.ends = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        self.parts = torch.zeros(PIECES, dtype=torch.float64, requires_grad=True)

    def at(self, times: Float[Tensor, "T"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        """log-SNR and how fast it falls."""
        shares = self.parts.softmax(0)
        place = (times * PIECES).clamp(max=PIECES - 1e-9)
        whole = place.long()
        done = torch.cat([shares.new_zeros(1), shares.cumsum(0)])[whole] + shares[whole] * (place - whole)
        reach = self.ends[1] - self.ends[0]
        return self.ends[1] - reach * done, reach * PIECES * shares[whole]

    @torch.no_grad()
    def curve(self) -> Float[np.ndarray, "101"]:
        return self.at(torch.from_numpy(TIMES))[0].numpy()

    @property
    def both(self) -> tuple[float, float]:
        low, high = self.ends.tolist()
        return low, high


# --- the bound --------------------------------------------------------------------------------------------------------


def interpolated(table: Float[Tensor, "K *N"], levels: Float[Tensor, "T"], rows: Tensor | None = None) -> Tensor:
    """A table over `LEVELS`, linear between them; rows: the column that each level is for."""
    place = ((levels - LEVELS[0]) / (LEVELS[1] - LEVELS[0])).clamp(0, len(LEVELS) - 1 - 1e-9)
    whole = place.detach().long()
    low, high = (table[at] if rows is None else table[at, rows] for at in (whole, whole + 1))
    part = (place - whole).view(-1, *[1] * (low.dim() - 1))
    return low + (high - low) * part


def grey_cost() -> Float[Tensor, "K"]:
    r"""$R$ at each level: nats to tell which of the 256 gray levels a number was, from its last noise."""
    count = 128
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    costs = []
    for level in LEVELS:
        grid = 2 / 255 * math.exp(level / 2) * torch.arange(-128, 128, dtype=torch.float64)
        costs.append(float((normal.square() / 2 + torch.logsumexp(-(normal[:, None] - grid).square() / 2, 1)).mean()))
    return torch.tensor(costs, dtype=torch.float64)


def prior_cost(power: float) -> Float[Tensor, "K"]:
    """D at each level: nats between what is left of the picture and pure noise. power: mean square of a number."""
    kept = torch.from_numpy(LEVELS).sigmoid()
    return 0.5 * (kept * power - kept - (1 - kept).log())


def bound(ends: Tensor, estimate: Tensor, costs: tuple[Tensor, Tensor]) -> Tensor:
    """L in nats per number, from an estimate of its integral."""
    return interpolated(costs[0], ends[1:]).sum() + estimate + interpolated(costs[1], ends[:1]).sum()


def spread(way: Float[np.ndarray, "T"], errors: Float[np.ndarray, "K N"]) -> tuple[float, float]:
    """Of the estimate X at a random time and picture: its mean, and its standard deviation in parts of the mean."""
    way = np.interp(FINE, np.linspace(0, 1, len(way)), way)
    fall = -np.diff(way) * (len(way) - 1)
    there = interpolated(torch.from_numpy(errors), torch.from_numpy((way[1:] + way[:-1]) / 2)).numpy()  # (2000, N)
    estimate = 0.5 * fall[:, None] * there
    return float(estimate.mean()), float(estimate.std() / estimate.mean())


def least(ends: tuple[float, float], errors: Float[np.ndarray, "K N"]) -> tuple[Float[np.ndarray, "101"], float]:
    """The way with the least variance between two ends, and its spread."""
    fine = np.linspace(*ends, 2001)
    root = np.sqrt((interpolated(torch.from_numpy(errors), torch.from_numpy(fine)).numpy() ** 2).mean(1))
    passed = np.concatenate([[0], np.cumsum((root[1:] + root[:-1]) / 2)])
    way = np.interp(1 - TIMES, passed / passed[-1], fine)
    mean = spread(way, errors)[0]
    return way, math.sqrt(max(0.0, (0.5 * passed[-1] * (fine[1] - fine[0]) / mean) ** 2 - 1))
