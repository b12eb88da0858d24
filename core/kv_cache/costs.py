r"""What a pass through the model must cost at least: operations, bytes, and from both the floor of its time.

A pass over $T$ new tokens of each of $B$ texts, of which $S$ tokens have been seen before, with $W$ weights in
matrices:

$$F = B \left( 2WT + 4 L H D \sum_{t=1}^{T} (S + t) \right), \qquad Q = b \left( W + 2 L G D \, B (S + T) \right).$$

The first part of $F$ are the matrices, 2 operations per weight and token, the second is attention. $Q$ are bytes: every
weight is read once, whatever the batch, and every text's rows of keys and values. Without a cache $S = 0$ and $T$ is
the whole text. Decoding has $T = 1$: few operations per byte, so the memory sets the floor; reading a prompt has many.

Left out: norms, softmax, rotations, and the numbers between the layers, which a fused kernel need not write to memory.
Source: Williams et al. 2009, doi.org/10.1145/1498765.1498785; Pope et al. 2022, arXiv:2211.05102, section 2.
"""

from dataclasses import dataclass

from core.foundations.roofline import roofline
from core.kv_cache.llama import Llama


def bytes_per_token(layers: int, heads: int, head_width: int, number_bytes: float) -> float:
    """2 L G D b: a key and a value in every layer, for every head that keeps them."""
    return 2 * layers * heads * head_width * number_bytes


def model_bytes_per_token(model: Llama) -> int:
    return int(bytes_per_token(len(model.layers), model.kept_heads, model.head_width, model.embed.element_size()))


@dataclass(frozen=True)
class Work:
    """A pass over some new tokens of some texts."""

    flops: float
    nbytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.nbytes

    @property
    def floor_seconds(self) -> float:
        """No faster on this machine."""
        return roofline().floor_seconds(self.flops, self.nbytes)


def work(model: Llama, new: int, seen: int = 0, batch: int = 1) -> Work:
    """What `new` tokens of each of `batch` texts cost, `seen` tokens being in the cache."""
    looked_at = new * seen + new * (new + 1) // 2  # the sum of all tokens' views
    attention = 4 * len(model.layers) * model.heads * model.head_width * looked_at
    rows = model_bytes_per_token(model) * (seen + new)
    return Work(
        batch * (2 * model.matrices * new + attention), model.matrices * model.embed.element_size() + batch * rows
    )
