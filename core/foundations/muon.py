r"""Muon: an update whose matrix is made orthogonal, so that every direction of a layer moves equally far.

Adam divides each weight's gradient by its usual size. Muon looks at a layer's weights as one matrix: it averages the
gradient over time, $M$, and replaces $M = U \Sigma V^\top$ by about $U V^\top$, so that no direction is drowned by a
few large ones. Five rounds of a polynomial do that without a decomposition; all its terms are powers of $A = MM^\top$
times $M$, so the rounds are done on the small square matrix $A$ and multiplied with $M$ once.

torch.optim.Muon does the rounds in bfloat16. On a CPU without bfloat16 units that is up to 46 times slower than float32
(one step of 16 matrices of 256 x 64: 148 ms against 17), so the rounds are done in float32 here, and matrices of one
size together.

Left out: weight decay.
Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; torch.optim.Muon.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial, as published


def orthogonal(x: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """Each matrix with its singular values moved near 1."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    square = x @ x.mT
    identity = product = torch.eye(square.shape[-1], device=x.device, dtype=x.dtype)
    for _ in range(ROUNDS):
        factor = a * identity + b * square + c * square @ square
        square, product = factor @ square @ factor, factor @ product
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only, with Nesterov momentum.

    A matrix of r rows and c columns moves by sqrt(max(1, r / c)) times the rate.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(weights), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for (rows, columns), weights in alike(group["params"]).items():
                # the average of the gradients, looked at one step ahead
                ahead = []
                for weight in weights:
                    mean = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                    gradient = weight.grad
                    assert gradient is not None  # `alike` takes only those that have one
                    mean.lerp_(gradient, 1 - group["momentum"])
                    ahead.append(gradient.lerp(mean, group["momentum"]))
                # the same directions, all of the same size
                moves = orthogonal(torch.stack(ahead).float()) * max(1, rows / columns) ** 0.5
                for weight, move in zip(weights, moves, strict=True):
                    weight.sub_(move.to(weight.dtype), alpha=group["lr"])


def alike(weights: Iterable[nn.Parameter]) -> dict[tuple[int, int], list[nn.Parameter]]:
    """Matrices that have a gradient, by their sizes."""
    sizes: dict[tuple[int, int], list[nn.Parameter]] = {}
    for weight in weights:
        if weight.grad is not None:
            sizes.setdefault((weight.shape[0], weight.shape[1]), []).append(weight)
    return sizes
