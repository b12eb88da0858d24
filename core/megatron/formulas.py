r"""The papers' formulas, with their letters: l layers, h width, a heads, s tokens, b batch, t ranks, V vocabulary.

A layer has $12h^2$ weights in matrices, which are split, $7h$ numbers in biases that are split with them, and $6h$ that
every rank has.
Source: Narayanan et al. 2021, arXiv:2104.04473, sections 2.3, 3.2, 5.1 and appendix; Shoeybi et al. 2019,
arXiv:1909.08053, section 5.
"""

from core.megatron.layer import Sizes

# Published efficiencies in percent, by ranks that share a layer. Weak scaling: the model grows with the ranks (1.2B on
# 1 to 8.3B on 8).
# Strong scaling: 1.2B weights on 1 to 8 ranks, batch 8. V100 cards, NVSwitch within a server.
WEAK_PERCENT = {1: 100.0, 2: 96.0, 4: 82.0, 8: 77.0}
STRONG_SPEEDUP = {1: 1.0, 2: 1.64, 4: 2.34, 8: 2.98}
GPT3 = Sizes(l=96, h=12288, a=96, s=2048, b=1)


def layer_parameters(h: int) -> int:
    return 12 * h**2 + 13 * h


def held_parameters(h: int, t: int) -> float:
    """Of a layer, by one of t ranks."""
    return (12 * h**2 + 7 * h) / t + 6 * h


def parameters(l: int, h: int, vocabulary: int = 51_200, s: int = 2048) -> float:  # noqa: E741
    """P = 12 l h^2 (1 + 13/(12h) + (V + s)/(12 l h)): layers, embedding and positions."""
    return 12 * l * h**2 * (1 + 13 / (12 * h) + (vocabulary + s) / (12 * l * h))


def training_flops(l: int, h: int, batch: int, s: int = 2048, vocabulary: int = 51_200) -> float:  # noqa: E741
    """F = 96 B s l h^2 (1 + s/(6h) + V/(16 l h)) of one step, with every layer's forward pass done twice
    (recomputation).
    """
    return 96 * batch * s * l * h**2 * (1 + s / (6 * h) + vocabulary / (16 * l * h))


def training_days(tokens: float, weights: float, cards: int, flops_per_second: float) -> float:
    """8 T P / (n X): T tokens, n cards of X FLOP/s each."""
    return 8 * tokens * weights / (cards * flops_per_second) / 86_400


def sent_per_layer(sizes: Sizes, t: int) -> float:
    """Numbers that each rank sends for a layer, forward and backward: 8bsh (t-1)/t, four all-reduces of bsh numbers."""
    return 8 * sizes.b * sizes.s * sizes.h * (t - 1) / t


def layer_flops(sizes: Sizes) -> float:
    """Forward and backward, nothing done twice; causal attention needs half of its square."""
    b, s, h = sizes.b, sizes.s, sizes.h
    return 72 * b * s * h**2 + 6 * b * s**2 * h


def norm_bytes(sizes: Sizes, number_bytes: int) -> float:
    """Kept outside of the split part: two inputs of LayerNorm, its mean and deviation (32 bits each), two dropout
    masks of a byte.
    """
    positions = sizes.b * sizes.s
    return 2 * positions * sizes.h * (number_bytes + 1) + 2 * positions * 2 * 4


def entered_bytes(sizes: Sizes, number_bytes: int) -> float:
    """The inputs of the two split parts. They are whole on every rank."""
    return 2 * sizes.b * sizes.s * sizes.h * number_bytes
