"""Ways to compute attention: written out, by each of PyTorch's kernels, and in our own tiles; which one ran, and what
it held.

`scaled_dot_product_attention` has several backends and picks one by device, dtype and shape. `sdpa_kernel` forces one;
`ran` listens to the operations that are called, so it names the one that did the work, not the one that was asked for.
"""

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from core.flash_attention.tiling import Blocks, SlowMemory, attend_in_tiles
from core.foundations.live_storages import LiveStorages
from core.foundations.machine import this_machine

WAYS = {
    "naive": "naive",
    "math": "SDPA math",
    "efficient": "SDPA memory-efficient",
    "flash": "SDPA flash",
    "cudnn": "SDPA cuDNN",
    "tiled": "our tiles",
}
BACKENDS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
KERNELS = {  # operation -> what it is
    "_scaled_dot_product_flash_attention_for_cpu": "flash kernel for CPUs",
    "_scaled_dot_product_flash_attention": "FlashAttention-2 kernel for CUDA",
    "_scaled_dot_product_efficient_attention": "memory-efficient kernel for CUDA",
    "_scaled_dot_product_cudnn_attention": "cuDNN's kernel",
    "_scaled_dot_product_fused_attention_overrideable": "this device's own kernel",
}
SEPARATE = "separate operations: matmul, softmax, matmul"
OUR_BLOCKS = Blocks(256, 256)


@dataclass(frozen=True)
class Work:
    """One attention: the sizes of Q, K and V."""

    heads: int
    length: int
    width: int
    causal: bool

    @property
    def pairs(self) -> int:
        """Query-key pairs that count."""
        return self.heads * (self.length * (self.length + 1) // 2 if self.causal else self.length**2)

    @property
    def numbers(self) -> int:
        """Of one of Q, K, V, O."""
        return self.heads * self.length * self.width

    def flops(self, backward: bool) -> float:
        """Two matmuls of 2d per pair forward; four more backward if P was saved (five if it is computed again)."""
        return 4.0 * self.width * self.pairs * (3 if backward else 1)

    def least_bytes(self, backward: bool, size: int) -> float:
        """Q, K, V in and O out; backward these and dO in, dQ, dK, dV out."""
        return float((4 + (8 if backward else 0)) * self.numbers * size)


@dataclass(frozen=True)
class Inputs:
    q: Tensor
    k: Tensor
    v: Tensor
    gradient: Tensor  # of the output, for the backward pass


def number_type() -> torch.dtype:
    return getattr(torch, this_machine().fast_dtype)  # type: ignore[no-any-return]


def inputs_of(work: Work, seed: int) -> Inputs:
    """Normal numbers, as queries and keys are after normalisation; the way they are computed does not depend on
    them.
    """
    rng, shape = torch.Generator().manual_seed(seed), (1, work.heads, work.length, work.width)
    parts = [torch.randn(shape, generator=rng).to(this_machine().device, number_type()) for _ in range(4)]
    q, k, v = (part.requires_grad_() for part in parts[:3])
    return Inputs(q, k, v, parts[3])


def naive(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"], causal: bool
) -> Float[Tensor, "B H T D"]:
    """The formula as it stands in the textbook."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (T, D) @ (D, T) -> (T, T)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
        scores = scores.masked_fill(future, -math.inf)
    return torch.softmax(scores, -1) @ v


def in_tiles(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Our own loop over tiles, queries outside; forward only."""
    memory = SlowMemory(Q=q, K=k, V=v)
    for _ in attend_in_tiles(memory, OUR_BLOCKS, causal, "queries"):
        pass
    return memory.tensors["O"]


def attend(way: str, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The same output, whichever way; RuntimeError where PyTorch has no such backend for this device and shape."""
    if way == "naive":
        return naive(q, k, v, causal)
    if way == "tiled":
        with torch.no_grad():
            return in_tiles(q, k, v, causal)
    with forced(way):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def forced(way: str) -> AbstractContextManager[object]:
    return nullcontext() if way == "free" else sdpa_kernel(BACKENDS[way])


# --- listening: which operations ran, and which bytes lived -----------------------------------------------------------


class Names(TorchDispatchMode):
    """The names of all operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def ran(way: str, work: Work) -> str | None:
    """What really computes this attention if `way` is asked for ("free": PyTorch's own choice); None: it cannot be had
    here.
    """
    given, listening = inputs_of(Work(work.heads, min(work.length, 64), work.width, work.causal), 0), Names()
    try:
        with warnings.catch_warnings(), listening:
            warnings.simplefilter("ignore")  # on a GPU, one warning per reason
            attend(way, given.q, given.k, given.v, work.causal)
    except RuntimeError:
        return None
    fused = [told for name, told in KERNELS.items() if name in listening.names]
    return fused[0] if fused else SEPARATE


class PeakBytes(LiveStorages):
    """The most bytes of tensors that were alive at once; scratch inside a kernel is not seen."""

    def __init__(self, *held: Tensor) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}  # by address
        self.now = self.peak = 0
        for tensor in held:
            self.see(tensor)

    def born(self, address: int, tensor: Tensor, nbytes: int) -> None:
        self.sizes[address] = nbytes
        self.now += nbytes
        self.peak = max(self.peak, self.now)

    def gone(self, address: int) -> None:
        self.now -= self.sizes.pop(address)


# --- what must be held, by formula ------------------------------------------------------------------------------------


def peak_bytes(way: str, work: Work, backward: bool, size: int) -> int:
    """Bytes at the peak, numbers of `size` bytes, with Q, K, V and dO there from the start.

    Tables of H N^2 numbers: scores and weights forward; P, dP and dS backward; the mask is N^2 bytes, or numbers
    (math). In 16 bits PyTorch's math way works on copies in 32 bits. Fused kernels: rows of Q, K, V, dO, O, then dQ,
    dK, dV, and the logsumexp of each row in 32 bits.
    """
    row, table, mask = work.numbers * size, work.heads * work.length**2 * size, work.length**2 if work.causal else 0
    sums = 4 * work.heads * work.length
    if way == "naive":
        return 3 * table + mask + 7 * row if backward else 2 * table + mask + 6 * row
    if way == "math" and size == 2:
        return 6 * table + 11 * row if backward else 4 * table + 4 * mask + 14 * row
    if way == "math":
        return 3 * table + 8 * row if backward else 2 * table + size * mask + 6 * row
    if way == "tiled":
        block = min(work.length, OUR_BLOCKS.rows)
        return 5 * row + 3 * work.heads * size * (work.length + block**2)  # m, l, L and three tables of one tile
    return (8 if backward else 5) * row + sums


def longest(way: str, work: Work, nbytes: float, size: int) -> int:
    """The largest N whose forward and backward pass fits into so many bytes."""
    low, high = 1, 2**30
    while high - low > 1:
        middle = (low + high) // 2
        fits = peak_bytes(way, replace(work, length=middle), True, size) <= nbytes
        low, high = (middle, high) if fits else (low, middle)
    return low
