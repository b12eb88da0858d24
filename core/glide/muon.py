r"""Muon: an optimizer step whose matrix is made orthogonal, so that every direction of a layer moves equally far.

Adam divides each number's gradient by its usual size. Muon looks at a layer's weight as one matrix $G$ (a convolution's
with its inputs side by side), averages it over time and replaces $U \Sigma V^\top$ by about $U V^\top$: no direction is
drowned by a few large ones. Five rounds of a polynomial do that without a decomposition; since all its terms are powers
of $A = GG^\top$ times $G$, the rounds are done on the small square matrix $A$ and multiplied with $G$ once. Times $0.2
\sqrt{\max(\text{rows}, \text{columns})}$ its numbers are as large as Adam's, so both use one rate.

Everything that is no matrix (biases, norms) or too thin is left to Adam.

Kept: Nesterov momentum. Left out: weight decay.
Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982 (the factor);
torch.optim.Muon (matrices only).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from core.foundations.muon import orthogonal

THINNEST = 16  # fewer rows or columns than this are left to Adam
MOMENTUM = 0.9


def rows_of(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight[0].numel()


class Muon(torch.optim.Optimizer):
    """Matrices and convolutions by Muon, all others by Adam, at one rate."""

    def __init__(self, weights: Iterable[nn.Parameter], rate: float) -> None:
        super().__init__(list(weights), {"lr": rate})
        own: list[nn.Parameter] = self.param_groups[0]["params"]
        wide = [weight for weight in own if weight.dim() > 1 and min(rows_of(weight)) >= THINNEST]
        self.others = torch.optim.Adam(
            [weight for weight in own if not any(weight is other for other in wide)],
            rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.alike: dict[tuple[int, int], list[nn.Parameter]] = {}  # same sizes are made orthogonal together
        for weight in wide:
            self.alike.setdefault(rows_of(weight), []).append(weight)
        self.means = {size: torch.zeros(len(weights), *size) for size, weights in self.alike.items()}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        rate = self.param_groups[0]["lr"]
        for group in self.others.param_groups:
            group["lr"] = rate
        self.others.step()
        for size, weights in self.alike.items():
            gradient = torch.stack(
                [torch.zeros(size) if weight.grad is None else weight.grad.reshape(size) for weight in weights]
            )
            mean = self.means[size]
            mean.lerp_(gradient, 1 - MOMENTUM)
            moves = orthogonal(gradient.lerp(mean, MOMENTUM)) * (0.2 * max(size) ** 0.5)
            for weight, move in zip(weights, moves, strict=True):
                weight.sub_(move.reshape(weight.shape), alpha=rate)
