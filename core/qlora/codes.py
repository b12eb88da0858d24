r"""Codes: how a block of weights becomes 4-bit numbers and one constant, and comes back.

A code is a short list of levels from -1 to 1. Each block of weights is divided by its largest absolute value, every
quotient is replaced by the number of the nearest level, and the block keeps that largest value (its *absmax*):

$$c_i = \arg\min_j \left| \frac{w_i}{\max_k |w_k|} - q_j \right|, \qquad \hat w_i = q_{c_i} \max_k |w_k|.$$

The codes differ in their levels only. NormalFloat takes quantiles of the normal distribution, since trained weights are
nearly normal: the levels stand close together where weights are many. Integers are spread evenly; FP4 doubles its steps
outwards, as floating point does.

Double quantization does the same once more to the constants: their mean is taken off, and blocks of 256 of them become
8-bit numbers. Everything here gives what bitsandbytes gives on a CPU, bit by bit (tested).

Left out: shapes whose size is no multiple of the block.
Source: Dettmers et al. 2023, arXiv:2305.14314, section 3 and appendix E; the FP4 levels and the 8-bit code are those of
bitsandbytes 0.50 (`get_4bit_type`, `create_dynamic_map`; Dettmers 2015, arXiv:1511.04561).
"""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

CONSTANTS_BLOCK = 256  # constants that share one constant of their own
TABLE_PLACES = 65_536  # bitsandbytes on a CPU finds 8-bit levels by a table of so many places between -1 and 1


def normal_float(bits: int = 4) -> Tensor:
    """Quantiles of N(0, 1) at even probabilities: 2^(bits-1) - 1 below zero, zero itself, 2^(bits-1) above, scaled to
    end at 1.

    The outermost probability lies halfway between 1 - 1/32 and 1 - 1/30 for 4 bits (0.9677083 in the paper's code).
    """
    half, quantile = 2 ** (bits - 1), NormalDist().inv_cdf
    outermost = round(1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2, 7)
    above = [
        quantile(p) for p in torch.linspace(outermost, 0.5, half + 1)[:-1].tolist()
    ]  # the paper's code counts in float32
    below = [-quantile(p) for p in torch.linspace(outermost, 0.5, half)[:-1].tolist()]
    levels = torch.tensor([*below, 0.0, *reversed(above)])
    return levels / levels[-1]


def float4() -> Tensor:
    """Sign, two bits of exponent, one of mantissa: eight magnitudes, then the same with a minus, in the order of the
    bits.
    """
    magnitudes = [0.0, 0.0625] + [
        (1 + mantissa / 2) * 2 ** (4 - exponent) for exponent in (1, 2, 3) for mantissa in (0, 1)
    ]
    levels = torch.tensor(magnitudes)
    return torch.cat([levels, -levels]) / levels.max()


def integers(bits: int) -> Tensor:
    """Evenly spaced, as many below zero as above: -7/7 ... 7/7 for 4 bits."""
    most = 2 ** (bits - 1) - 1
    return torch.arange(-most, most + 1) / most


def dynamic8() -> Tensor:
    """256 levels over seven powers of ten, each with twice the levels of the next smaller one, for numbers of very
    different size.
    """
    edges = [torch.linspace(0.1, 1, 2**i + 1) for i in range(7)]
    magnitudes = [10 ** (i - 6) * (edge[:-1] + edge[1:]) / 2 for i, edge in enumerate(edges)]
    levels = torch.cat(magnitudes)
    return torch.cat([levels, -levels, torch.tensor([0.0, 1.0])]).sort().values


@dataclass(frozen=True)
class Code:
    """bits per weight, and a level for each pattern of bits.

    places: see TABLE_PLACES; None finds the nearest level exactly.
    """

    bits: int
    levels: Tensor
    places: int | None = None


@cache
def code_of(kind: str) -> Code:
    """nf4, nf3, nf2 (NormalFloat), fp4, int8, int4, or dynamic8."""
    if kind == "fp4":
        return Code(4, float4())
    if kind == "dynamic8":
        return Code(8, dynamic8(), TABLE_PLACES)
    bits = int(kind[-1])
    return Code(bits, normal_float(bits)) if kind.startswith("nf") else Code(bits, integers(bits), TABLE_PLACES)


def nearest(x: Tensor, code: Code) -> Tensor:
    """The number of the level nearest to each x in [-1, 1]; exactly halfway it is the lower one."""
    if code.places is not None:
        half = (code.places - 1) / 2
        x = torch.floor((x + 1) * half + 0.5) / half - 1
    levels = code.levels.to(x.device)
    order = torch.argsort(levels)
    middles = (levels[order[:-1]] + levels[order[1:]]) / 2
    if len(levels) > 16:
        return torch.bucketize(x, middles, out_int32=True).to(torch.uint8)  # these codes are in order
    numbers = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
    for middle in middles:  # the number of a level is how many middles lie below
        numbers += x > middle
    return (
        numbers
        if torch.equal(levels[order], levels)
        else order.to(torch.uint8).index_select(0, numbers.flatten().int()).view(x.shape)
    )


@dataclass(frozen=True)
class Quantised:
    """What is stored of a tensor: a number per weight, a constant per block."""

    numbers: Tensor  # (N,) uint8, which level
    absmax: Tensor  # (N / block,) float32
    code: Code
    block: int
    shape: tuple[int, ...]


def quantise(weight: Tensor, kind: str, block: int = 64) -> Quantised:
    """Blocks along the rows, each divided by its largest absolute value, each quotient replaced by its nearest
    level.
    """
    if weight.numel() % block:
        raise ValueError(f"block must divide the number of weights, got {block} for {weight.numel()} weights")
    code, rows = code_of(kind), weight.detach().float().reshape(-1, block)
    absmax = rows.abs().amax(1)
    scaled = (rows * (1 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    return Quantised(nearest(scaled, code).flatten(), absmax, code, block, tuple(weight.shape))


def dequantise(stored: Quantised, absmax: Tensor | None = None) -> Tensor:
    """Level times constant. absmax: constants to use instead of the stored ones, after double quantization."""
    levels = stored.code.levels.to(stored.numbers.device).index_select(0, stored.numbers.int())  # (N,)
    return levels.view(-1, stored.block).mul_((stored.absmax if absmax is None else absmax)[:, None]).view(stored.shape)


@dataclass(frozen=True)
class QuantisedConstants:
    """The absmax of all blocks, quantized themselves."""

    numbers: Tensor  # (blocks,) uint8
    absmax: Tensor  # (blocks / 256,) float32, the last one perhaps for fewer
    mean: Tensor  # () float32


def quantise_constants(absmax: Tensor) -> QuantisedConstants:
    """Double quantization: the constants are all positive, so their mean goes first; then 8 bits each."""
    mean = absmax.mean()
    padded = F.pad(absmax - mean, (0, -len(absmax) % CONSTANTS_BLOCK))
    stored = quantise(padded, "dynamic8", CONSTANTS_BLOCK)
    return QuantisedConstants(stored.numbers[: len(absmax)], stored.absmax, mean)


def dequantise_constants(stored: QuantisedConstants) -> Tensor:
    levels = code_of("dynamic8").levels.to(stored.numbers.device)[stored.numbers.long()]
    return levels * stored.absmax.repeat_interleave(CONSTANTS_BLOCK)[: len(levels)] + stored.mean


def round_trip(weight: Tensor, kind: str, block: int = 64) -> Tensor:
    """What is left of the weights after quantizing and coming back, in float32."""
    return dequantise(quantise(weight, kind, block))


def packed(numbers: Tensor) -> Tensor:
    """Two 4-bit numbers to a byte, the first in the upper half."""
    pairs = numbers.view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1]


def unpacked(bytes_: Tensor) -> Tensor:
    flat = bytes_.flatten()
    return torch.stack([flat >> 4, flat & 15], 1).flatten()


def formula_bits(kind: str, block: int, double: bool) -> float:
    """Bits per weight by the paper's count: the number, and its fraction of the constants. Tables of levels are not
    counted.
    """
    return code_of(kind).bits + (8 / block + 32 / (block * CONSTANTS_BLOCK) if double else 32 / block)
