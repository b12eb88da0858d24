r"""The spectrum of a matrix' change: its singular values, and what its best copies of each rank hold.

*Why so little rank is enough.* Full fine-tuning changes a matrix by $\Delta W = \sum_i \sigma_i u_i v_i^\top$. The best
rank-r copy of it keeps the r largest $\sigma_i$ and with them the share $\sum_{i \le r} \sigma_i^2 / \sum_i \sigma_i^2$
of its squared size. Two things are drawn: this share, which is small (the tail of the spectrum is long), and the share
of the *gain in loss* that is kept when every layer's change is cut to rank r, which is much larger. What matters for
the text lies in few directions. A likely reason for the long tail: AdamW moves every weight by about its rate, whether
it matters or not.

Source: Eckart and Young 1936.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.base_model import Base

LAYERS = {
    "layers.1.mlp.down_proj": "layer 2, MLP down",
    "layers.1.mlp.up_proj": "layer 2, MLP up",
    "layers.1.self_attn.q_proj": "layer 2, attention q",
    "layers.1.self_attn.v_proj": "layer 2, attention v",
    "layers.3.mlp.down_proj": "layer 4, MLP down",
    "layers.3.self_attn.o_proj": "layer 4, attention o",
}
RANKS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Spectrum:
    """One layer's matrix, then full fine-tuning's change of it, and what the best copy of each rank holds."""

    layer: str
    own: Float[np.ndarray, "R"]  # singular values of the matrix itself, largest first
    random_held: tuple[
        float, ...
    ]  # fraction of its squared size that ranks 1, 2, 4 ... hold of a random matrix of its shape
    change: Float[np.ndarray, "R"] | None = None  # singular values of the change; None before the runs
    held: tuple[float, ...] = ()  # fraction of its squared size
    cut_loss: tuple[float, ...] = ()  # nats per token with the change of all layers cut to these ranks
    layers_loss: float = float("nan")  # ... and uncut
    base_loss: float = float("nan")

    @property
    def kept(self) -> tuple[float, ...]:
        """Fraction of the gain in loss that is left after cutting; 0 where there was no gain."""
        gain = self.base_loss - self.layers_loss
        return tuple((self.base_loss - loss) / gain if gain > 0 else 0.0 for loss in self.cut_loss)


def looked_into(layer: str, seed: int, base: Base) -> Spectrum:
    """One matrix before any run, and a random one of its shape to compare with."""
    weight = dict(base.model.named_parameters())[f"model.{layer}.weight"]
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    own, structureless = (singular_parts(matrix)[1].cpu().numpy() for matrix in (weight, random))
    return Spectrum(LAYERS[layer], own, held_by(structureless))


@torch.inference_mode()
def singular_parts(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, sigma, V), the largest sigma first."""
    return torch.linalg.svd(matrix, full_matrices=False)


def held_by(values: Float[np.ndarray, "R"]) -> tuple[float, ...]:
    """The fraction of a matrix' squared size that its best copies of rank 1, 2, 4 ... hold."""
    squares = np.square(values.astype(np.float64))
    return tuple(float(squares[:rank].sum() / max(squares.sum(), 1e-30)) for rank in RANKS)


@torch.no_grad()
def put_cut(model: Any, before: dict[str, Tensor], parts: dict[str, tuple[Tensor, Tensor, Tensor]], rank: int) -> None:
    """Each matrix as it was plus the best rank-r copy of its change."""
    weights = dict(model.named_parameters())
    for name, (u, sigma, v) in parts.items():
        weights[name].copy_(before[name] + (u[:, :rank] * sigma[:rank]) @ v[:rank])
