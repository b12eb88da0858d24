r"""What one layer keeps for the backward pass, tensor by tensor, as the paper counts it.

With $s$ tokens, $b$ texts, $h$ numbers per token and $a$ heads, everything is counted in units of $sbh$ bytes. A tensor
of 16-bit numbers as large as the layer's input is 2 of them; a dropout mask is 1 where a mask takes one byte per number
(a GPU) and 2 where it is stored like the numbers (a CPU); a tensor with a number per head and pair of tokens is $as/h$
times as large.

| kept by | what | $sbh$ bytes |
|---|---|---|
| two LayerNorms | their inputs | 4 |
| attention | its input 2; Q, K and V 6; input of the output product 2; mask 1 | 11 |
| attention, core | softmax 2, its mask 1, what dropout left of it 2 | $5as/h$ |
| MLP | its input 2, input of GELU 8, input of the second product 8, mask 1 | 19 |

Together $34 + 5as/h$. Over $t$ ranks of tensor parallelism the inputs of both halves, of the norms and the two masks
(10) stay whole, the rest (24 and the core) is divided by $t$; sequence parallelism divides the 10 as well.
"""

from dataclasses import dataclass
from typing import Literal

QKV, SOFTMAX, MAP_MASK, DROPPED = "Q, K, V", "softmax", "softmax mask", "after drop"
NORM_1, IN_QKV, IN_OUT, MASK_1 = "norm 1 input", "QKV input", "out input", "mask 1"
NORM_2, IN_UP, IN_GELU, IN_DOWN, MASK_2 = "norm 2 input", "up input", "GELU input", "down input", "mask 2"
LOG_SUMS, INPUT = "log-sum-exp", "layer input"
IN_GATE, GATE, UP = "gate input", "gate", "up"


@dataclass(frozen=True)
class Layer:
    """One transformer layer in the paper's letters."""

    s: int  # tokens
    b: int  # texts
    h: int  # width
    a: int  # heads
    fused: bool = False  # attention in one operation (FlashAttention and its kin), which keeps no s x s tensor
    dropout: bool = True
    number: int = 2  # bytes of an activation
    mask: int = 1  # bytes of one place of a dropout mask
    dialect: Literal["gpt", "llama"] = "gpt"
    mlp: int = 0  # width inside the MLP; 0: 4 h
    key_heads: int = 0  # heads of keys and values; 0: a

    @property
    def sbh(self) -> int:
        return self.s * self.b * self.h

    @property
    def inner(self) -> int:
        return self.mlp or 4 * self.h

    @property
    def square(self) -> float:
        """as/h: how many times larger than the input a tensor of one number per head and pair of tokens is."""
        return self.a * self.s / self.h


@dataclass(frozen=True)
class Part:
    """A tensor, or two, that a layer keeps."""

    name: str
    per_sbh: float  # bytes over s b h
    whole: bool  # tensor parallelism leaves it whole on every rank
    core: bool  # in the core of attention, which selective recomputation drops


def parts(layer: Layer) -> tuple[Part, ...]:
    """All that a layer keeps, in the order in which it is made."""
    return llama_parts(layer) if layer.dialect == "llama" else gpt_parts(layer)


def gpt_parts(layer: Layer) -> tuple[Part, ...]:
    """The paper's list. Without dropout there are no masks, and what follows the softmax is the softmax itself."""
    number, mask, wide = layer.number, layer.mask if layer.dropout else 0, layer.number * layer.inner / layer.h
    told = [
        Part(NORM_1, number, True, False),
        Part(IN_QKV, number, True, False),
        Part(QKV, 3 * number, False, False),
        *core_parts(layer),
        Part(IN_OUT, number, False, False),
        Part(MASK_1, mask, True, False),
        Part(NORM_2, number, True, False),
        Part(IN_UP, number, True, False),
        Part(IN_GELU, wide, False, False),
        Part(IN_DOWN, wide, False, False),
        Part(MASK_2, mask, True, False),
    ]
    return tuple(part for part in told if part.per_sbh)


def core_parts(layer: Layer) -> list[Part]:
    """What lies between Q, K, V and the output of attention."""
    if layer.fused:
        return [Part(LOG_SUMS, 4 * layer.a / layer.h, False, True)]  # one 32-bit number per head and token
    told = [Part(SOFTMAX, layer.number * layer.square, False, True)]
    if layer.dropout:
        told += [
            Part(MAP_MASK, layer.mask * layer.square, False, True),
            Part(DROPPED, layer.number * layer.square, False, True),
        ]
    return told


def llama_parts(layer: Layer) -> tuple[Part, ...]:
    """The same way of counting for Llama's layer: no dropout, fewer heads for K and V, an MLP with a gate (three
    products).
    """
    number, keys, wide = layer.number, (layer.key_heads or layer.a) / layer.a, layer.number * layer.inner / layer.h
    return (
        Part(NORM_1, number, True, False),
        Part(IN_QKV, number, True, False),
        Part(QKV, number * (1 + 2 * keys), False, False),
        *core_parts(layer),
        Part(IN_OUT, number, False, False),
        Part(NORM_2, number, True, False),
        Part(IN_GATE, number, True, False),
        Part(GATE, 2 * wide, False, False),  # before and after the SiLU
        Part(UP, wide, False, False),
        Part(IN_DOWN, wide, False, False),
    )


Recompute = Literal["none", "selective", "full"]


def per_sbh(layer: Layer, recompute: Recompute = "none", ranks: int = 1, sequence: bool = False) -> float:
    """Bytes that one rank keeps of one layer, over s b h."""
    if recompute == "full":  # only the layer's input, whole on every rank unless the sequence is divided as well
        return layer.number / (ranks if sequence else 1)
    kept = [part for part in parts(layer) if recompute == "none" or not part.core]
    return sum(part.per_sbh / (1 if part.whole and not sequence else ranks) for part in kept)


def kept_bytes(layer: Layer, recompute: Recompute = "none", ranks: int = 1, sequence: bool = False) -> float:
    return layer.sbh * per_sbh(layer, recompute, ranks, sequence)


def head_bytes(layer: Layer, vocabulary: int) -> float:
    """What follows the last layer keeps: the input of the last norm and of the output product, and log-probabilities in
    32 bits.
    """
    return layer.sbh * 2 * layer.number + 4 * layer.s * layer.b * vocabulary


def forward_flops(layer: Layer) -> float:
    """Products of one layer, forward: 24 b s h^2 with the weights, 4 b s^2 h in the core of attention."""
    return 24 * layer.b * layer.s * layer.h**2 + core_flops(layer)


def core_flops(layer: Layer) -> float:
    return 4 * layer.b * layer.s**2 * layer.h
