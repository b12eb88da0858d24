r"""Attention twice: with the whole score matrix, and tile by tile. Written to be read; nothing here is fast.

`SlowMemory` stands for a GPU's large memory: whatever an algorithm needs it must read from there, whatever it wants to
keep it must write there, and every number that passes is counted.

`absorb` is the heart. Some queries have seen some keys; of those they keep the largest score $m$, the sum $\ell$ of
$e^{s-m}$ and the sum `out` of $e^{s-m}\,v$. New keys come with scores $s_j$ and values $v_j$:

$$m' = \max(m, \max_j s_j), \quad \ell' = e^{m-m'}\ell + \sum_j e^{s_j-m'}, \quad out' = e^{m-m'}\,out + \sum_j
e^{s_j-m'} v_j .$$

$out'/\ell'$ is the exact softmax answer over all keys seen, whatever the order and the size of the tiles.

Source: Dao et al. 2022, arXiv:2205.14135, Algorithms 0 and 1; Milakov and Gimelshein 2018, arXiv:1805.02867 (one-pass
softmax); Dao 2023, arXiv:2307.08691, Algorithm 1 (queries outside).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ORDERS = {"keys": "keys outside (FlashAttention, 2022)", "queries": "queries outside (FlashAttention-2, 2023)"}


@dataclass(frozen=True)
class Blocks:
    """A tile of the score table: queries down, keys across."""

    rows: int  # B_r
    keys: int  # B_c


@dataclass(frozen=True)
class Tile:
    rows: slice
    keys: slice


def blocks_by_rule(numbers: int, width: int) -> Blocks:
    """The paper's rule for a fast memory of M numbers: B_c = ceil(M / 4d), B_r = min(B_c, d). Four blocks then fill it:
    Q, K, V, O.
    """
    keys = math.ceil(numbers / (4 * width))
    return Blocks(min(keys, width), keys)


def pieces(length: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def tiles_of(length: int, blocks: Blocks, causal: bool, order: str = "keys") -> list[Tile]:
    """The tiles in the order of the two loops. With a causal mask, those that lie wholly in the future are left out."""
    rows, keys = pieces(length, blocks.rows), pieces(length, blocks.keys)
    pairs = ((i, j) for j in keys for i in rows) if order == "keys" else ((i, j) for i in rows for j in keys)
    return [Tile(i, j) for i, j in pairs if not causal or j.start < i.stop]


# --- the two memories -------------------------------------------------------------------------------------------------


class SlowMemory:
    """Tensors (..., T, D) by name. Reading and writing rows of them is counted, in numbers."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors, self.moved = dict(tensors), 0

    def read(self, name: str, part: slice = slice(None)) -> Tensor:
        found = self.tensors[name][..., part, :]
        self.moved += found.numel()
        return found

    def write(self, name: str, value: Tensor, part: slice = slice(None)) -> None:
        if name not in self.tensors:
            queries = self.tensors["Q"]
            self.tensors[name] = queries.new_empty((*queries.shape[:-1], value.shape[-1]))
        self.tensors[name][..., part, :] = value
        self.moved += value.numel()


@dataclass(frozen=True)
class Running:
    """What some queries know of the keys seen so far."""

    row_max: Float[Tensor, "*H R 1"]  # m
    row_sum: Float[Tensor, "*H R 1"]  # l
    out: Float[Tensor, "*H R D"]  # not yet divided by l


def nothing_seen(q: Float[Tensor, "*H R D"]) -> Running:
    one = q[..., :1]
    return Running(torch.full_like(one, -math.inf), torch.zeros_like(one), torch.zeros_like(q))


def absorb(
    running: Running, scores: Float[Tensor, "*H R K"], v: Float[Tensor, "*H K D"], rescaling: bool = True
) -> Running:
    """The same queries after one more tile of keys. Without `rescaling`, the line that makes it right is taken out."""
    new_max = torch.maximum(running.row_max, scores.amax(-1, keepdim=True))  # (R, 1)
    weights = torch.exp(scores - new_max)  # (R, K)
    rescale = torch.exp(running.row_max - new_max) if rescaling else torch.ones_like(new_max)  # e^{m - m'}
    row_sum = rescale * running.row_sum + weights.sum(-1, keepdim=True)
    return Running(new_max, row_sum, rescale * running.out + weights @ v)  # (R, K) @ (K, D) -> (R, D)


# --- the two algorithms -----------------------------------------------------------------------------------------------


def scores_of(
    q: Float[Tensor, "*H R D"], k: Float[Tensor, "*H K D"], tile: Tile, causal: bool
) -> Float[Tensor, "*H R K"]:
    """Scaled scores of one tile; the future is -inf."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (R, D) @ (D, K) -> (R, K)
    if not causal or tile.keys.stop - 1 <= tile.rows.start:
        return scores
    at = torch.arange(tile.rows.start, tile.rows.stop, device=q.device)[:, None]
    return scores.masked_fill(torch.arange(tile.keys.start, tile.keys.stop, device=q.device) > at, -math.inf)


def attend_in_full(memory: SlowMemory, causal: bool) -> None:
    """The standard way, three trips: scores out, scores in and weights out, weights in. Leaves O in the memory."""
    q, k = memory.read("Q"), memory.read("K")
    length = q.shape[-2]
    memory.write("S", scores_of(q, k, Tile(slice(0, length), slice(0, length)), causal))
    memory.write("P", torch.softmax(memory.read("S"), -1))
    memory.write("O", memory.read("P") @ memory.read("V"))


def attend_in_tiles(
    memory: SlowMemory, blocks: Blocks, causal: bool, order: str = "keys"
) -> Iterator[tuple[Tile, Running]]:
    """One tile after the other, each with what its queries know now.

    Leaves O, m and l in the memory; S is never there.
    """
    by_keys = order == "keys"
    tiles = tiles_of(memory.tensors["Q"].shape[-2], blocks, causal, order)
    memory.tensors |= dict(zip(("m", "l", "O"), state_tensors(memory.tensors["Q"]), strict=True))
    before: Tile | None = None
    for place, tile in enumerate(tiles):
        if not by_keys or before is None or before.keys != tile.keys:  # the inner loop's blocks change with every tile
            k, v = memory.read("K", tile.keys), memory.read("V", tile.keys)
        if by_keys:  # fetch what these queries know; O lies there divided by l
            q, row_max, row_sum = (memory.read(name, tile.rows) for name in ("Q", "m", "l"))
            running = Running(row_max, row_sum, memory.read("O", tile.rows) * row_sum)
        elif before is None or before.rows != tile.rows:
            q = memory.read("Q", tile.rows)
            running = nothing_seen(q)
        running = absorb(running, scores_of(q, k, tile, causal), v)
        if by_keys:
            memory.write("O", running.out / running.row_sum, tile.rows)
            memory.write("m", running.row_max, tile.rows)
            memory.write("l", running.row_sum, tile.rows)
        elif place + 1 == len(tiles) or tiles[place + 1].rows != tile.rows:  # these queries have seen all their keys
            memory.write("O", running.out / running.row_sum, tile.rows)
            memory.write("L", running.row_max + running.row_sum.log(), tile.rows)  # all that the backward pass needs
        before = tile
        yield tile, running


def state_tensors(q: Float[Tensor, "*H T D"]) -> tuple[Tensor, Tensor, Tensor]:
    empty = nothing_seen(q)
    return empty.row_max, empty.row_sum, empty.out


# --- what must be moved, by formula -----------------------------------------------------------------------------------


def full_traffic(length: int, width: int) -> int:
    """4Nd + 4N^2: Q, K in, S out, S in, P out, P and V in, O out."""
    return 4 * length * width + 4 * length**2


def tiled_traffic(length: int, width: int, blocks: Blocks, causal: bool, order: str = "keys") -> int:
    """2Nd + T_c (3Nd + 4N) for keys outside, 2Nd + N + 2Nd T_r for queries outside; a causal mask leaves tiles out."""
    if not causal:
        times = math.ceil(length / (blocks.keys if order == "keys" else blocks.rows))
        return 2 * length * width + (
            times * (3 * length * width + 4 * length) if order == "keys" else length + times * 2 * length * width
        )
    if order == "keys":  # a block of keys is met by the queries from the row block of its first key on
        met = sum(length - j.start // blocks.rows * blocks.rows for j in pieces(length, blocks.keys))
        return 2 * length * width + met * (3 * width + 4)
    met = sum(min(length, math.ceil(i.stop / blocks.keys) * blocks.keys) for i in pieces(length, blocks.rows))
    return 2 * length * width + length + met * 2 * width


def fast_numbers(blocks: Blocks, length: int, width: int) -> int:
    """Numbers in the fast memory while a tile is worked on: blocks of Q, K, V and O, the tile of scores, m and l."""
    rows, keys = min(blocks.rows, length), min(blocks.keys, length)
    return 2 * rows * width + 2 * keys * width + rows * keys + 2 * rows
