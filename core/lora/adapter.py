r"""The trick written out: a frozen layer with a trained change of low rank beside it.

$$h = W x + \frac{\alpha}{r} B A x, \qquad A \in \mathbb{R}^{r \times d_{in}},\quad B \in \mathbb{R}^{d_{out} \times
r}.$$

$A$ begins at random and $B$ at zero, so the first output is exactly the base's. Only $A$ and $B$ get gradients:
$r(d_{in} + d_{out})$ numbers instead of $d_{in} d_{out}$. For use, the change can be added to the weight
($W + \frac{\alpha}{r} B A$, "merged"): one matrix again, no extra time. The same numbers as peft's layer (tested).

Left out: dropout before $A$; layers other than `nn.Linear`; taking a merged weight apart again is exact only up to
rounding.
Source: Hu et al. 2021, arXiv:2106.09685, section 4.1, equation 3; the initial $A$ is the one of the authors' code and
of peft.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def trained_numbers(rank: int, d_in: int, d_out: int) -> int:
    """How many numbers LoRA trains for one matrix: A has r rows of d_in, B has d_out rows of r."""
    return rank * (d_in + d_out)


def initial_a(rank: int, d_in: int, rng: torch.Generator) -> Float[Tensor, "R I"]:
    """Uniform between -1/sqrt(d_in) and 1/sqrt(d_in), as `nn.Linear` begins (Kaiming with a = sqrt(5))."""
    return (torch.rand(rank, d_in, generator=rng) * 2 - 1) / math.sqrt(d_in)


class LoRALinear(nn.Module):
    """`base` with a low-rank change beside it. `base` itself is kept and frozen, its bias included."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rng: torch.Generator) -> None:
        super().__init__()
        most = min(base.in_features, base.out_features)
        if not 1 <= rank <= most:
            raise ValueError(
                f"rank must be from 1 to {most}, the smaller side of a layer of {base.in_features} x"
                f" {base.out_features}, got {rank}"
            )
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(initial_a(rank, base.in_features, rng).to(base.weight))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))
        self.scale = alpha / rank
        self.merged = False

    def change(self) -> Float[Tensor, "O I"]:
        """What the adapter adds to the weight."""
        return self.scale * self.B @ self.A  # (O, R) @ (R, I) -> (O, I)

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        h: Tensor = self.base(x)
        return (
            h if self.merged else h + self.scale * F.linear(F.linear(x, self.A), self.B)
        )  # two thin products, never a full matrix

    @torch.no_grad()
    def merge(self) -> None:
        """Put the change into the weight, once."""
        if not self.merged:
            self.base.weight += self.change()
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take it out again."""
        if self.merged:
            self.base.weight -= self.change()
            self.merged = False
