r"""Tile by tile: one head of the shipped GPT reads your sentence, and no score matrix is ever stored.

A fast memory of $M$ numbers holds a block of queries, of keys, of values and of outputs, so the paper takes blocks of
$B_c = \lceil M/4d \rceil$ keys and $B_r = \min(B_c, d)$ queries. In the film the present tile has a frame. The color
is $e^{s-m}$: a weight relative to the largest that its row has seen. When a row meets a larger score its earlier
weights fade: they are gone from every memory, and one factor $e^{m-m'}$ corrects all that was made of them.

Look at the two curves. The distance to the final output wanders, may even grow, and is zero only at the end. The
distance to the exact answer *for the keys seen so far* is at rounding level all the time: a partial answer is never
approximate, it is the right answer to a smaller question. After the last tile the two questions are the same.

The odometers count every number that passes between slow and fast memory. The standard way moves $4Nd + 4N^2$ (it
writes and reads the $N \times N$ scores and weights). Tiles move $2Nd + T_c(3Nd + 4N)$ with $T_c = N/B_c$: more fast
memory, fewer trips. Tiny tiles can move *more* than the standard way. With queries outside, as in FlashAttention-2, a
block's output stays in fast memory until it is done: $2Nd + N + 2Nd\,T_r$. A causal mask leaves out tiles that lie
wholly in the future; the standard way computes and moves them all the same.

The rule counts four blocks. The tile of scores itself comes on top, up to $M/4$: see the figure of the fast memory.

Left out: dropout, the backward pass (which computes the tiles again from $m + \ln \ell$), several heads at once.
Source: Dao et al. 2022, arXiv:2205.14135, section 3.1, Algorithm 1, Theorem 2; Dao 2023, arXiv:2307.08691, section 3.1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.flash_attention.sentence import (
    MOST_TOKENS,
    SENTENCE,
    WIDTH,
    Head,
    check_text,
    head_field,
    head_of,
    layer_field,
)
from core.flash_attention.tiling import (
    ORDERS,
    Blocks,
    Running,
    SlowMemory,
    Tile,
    attend_in_full,
    attend_in_tiles,
    blocks_by_rule,
    fast_numbers,
    full_traffic,
    scores_of,
    tiled_traffic,
    tiles_of,
)  # fmt: skip
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result

NUMBERS_PER_KIB = 256  # of float32
MOST_FRAMES = 72  # of the film; with more tiles a frame shows several

LARGEST = "of the largest output"
ERROR = Figure(
    "largest error of the output",
    LARGEST,
    "theory",
    "nothing is approximated: only float32's rounding, 6e-8 of a number, in another order",
    headline=True,
)
ERROR_FLOAT64 = Figure("error against float64", LARGEST, "baseline", "torch's own attention kernel in float32")
PARTIAL_ERROR = Figure(
    "largest error of any partial output",
    LARGEST,
    "theory",
    "after every tile, O is the exact answer for the keys seen so far",
)
LOGSUMEXP_ERROR = Figure("largest error of m + ln l", "nats", "theory", "torch.logsumexp of each row of scores")
RESCALED = Figure(
    "times a row was rescaled", "rows", None, "its tile held a larger score than all before", headline=True
)
MOVED_TILES = Figure("elements moved by the tiles", "elements", "theory")
MOVED_STANDARD = Figure("elements moved by the standard way", "elements", "theory", "4Nd + 4N^2")
TRAFFIC_RATIO = Figure(
    "traffic of the standard way over the tiles",
    "times",
    None,
    "the two counts; below 1 the tiles move more",
    headline=True,
)
FAST_MEMORY = Figure(
    "most elements in fast memory at once",
    "elements",
    "baseline",
    "M, which the paper's rule fills with blocks of Q, K, V and O; the tile of scores, m and l come on top",
)
GPU_RATIO = Figure(
    "the same ratio at a GPU's size",
    "times",
    None,
    "the formulas for N = 1,024, d = 64, 100 KiB in 16 bits, forward only, no mask",
    "computed",
)


@dataclass(frozen=True)
class TilesConfig(Config):
    """Whose attention, and how much fast memory there is."""

    text: str = setting(
        SENTENCE,
        "Your sentence",
        high=MOST_TOKENS,
        help="Up to 128 characters. A longer text makes a larger score matrix; a token is a character.",
    )
    sram: int = setting(
        8,
        "Fast memory (SRAM) in KiB",
        low=1,
        high=16,
        help="More fast memory makes larger tiles by the paper's rule, so less has to be moved.",
        slider=True,
    )
    causal: bool = setting(
        True, "Causal mask", help="Ticked, a token sees only itself and the past, so half of the scores are left out."
    )
    order: str = setting(
        "keys",
        "Outer loop",
        choices=ORDERS,
        help="Which of the two loops is the outer one decides what has to travel again and again.",
    )
    blocks: str = setting(
        "rule",
        "Tile size",
        choices={"rule": "by the paper's rule", "own": "my own"},
        more=True,
        help="By the rule, the fast memory decides the size of a tile; or you set it yourself.",
    )
    tile_rows: int = setting(
        16,
        "Queries per tile",
        unit="query",
        low=1,
        high=MOST_TOKENS,
        more=True,
        when=("blocks", "own"),
        help="Taller tiles mean fewer trips of keys and values, and more fast memory.",
    )
    tile_keys: int = setting(
        16,
        "Keys per tile",
        unit="key",
        low=1,
        high=MOST_TOKENS,
        more=True,
        when=("blocks", "own"),
        help="Wider tiles mean fewer trips of queries and outputs, and more fast memory.",
    )
    layer: int = layer_field()
    head: int = head_field()

    def check(self) -> None:
        check_text(self.text)
        for name in ("tile_rows", "tile_keys"):
            if self.blocks == "own" and getattr(self, name) > len(self.text):
                raise ValueError(
                    f"{name} must be at most the text's {len(self.text)} characters, got {getattr(self, name)}"
                )

    @property
    def fast(self) -> int:
        """M, in numbers."""
        return self.sram * NUMBERS_PER_KIB

    @property
    def tile(self) -> Blocks:
        """A tile cannot be larger than the text, whatever the rule says."""
        if self.blocks == "own":
            return Blocks(self.tile_rows, self.tile_keys)
        rule = blocks_by_rule(self.fast, WIDTH)
        return Blocks(min(rule.rows, len(self.text)), min(rule.keys, len(self.text)))


@dataclass(frozen=True)
class TilesStep(Step):
    """The state after some tiles. Arrays have a row per query; rows that have seen nothing yet are 0 or NaN."""

    causal: bool
    tile: tuple[int, int]  # queries, keys
    done: int  # tiles so far
    tiles: int
    rows: tuple[int, int]  # of the last tile: first query and the one after the last
    keys: tuple[int, int]
    weights: np.ndarray  # (N, N) e^(s-m) of the pairs seen, under the present m
    out: np.ndarray  # (N, d)
    exact: np.ndarray  # (N, d) by scaled_dot_product_attention
    row_max: np.ndarray  # m
    log_sum: np.ndarray  # ln l
    last_max: np.ndarray  # m and ln l as they will be
    last_log_sum: np.ndarray
    rescaled: int  # rows of the last tile whose max rose
    factor: float  # the smallest e^(m-m') among them
    moved: int  # numbers between slow and fast memory so far
    moved_full: int  # the standard way's, at the same share of its way
    predicted: tuple[int, int]  # all of it by formula: tiled, standard
    fast: tuple[int, int]  # numbers in fast memory at most, and M
    to_last: tuple[
        float, ...
    ]  # after each frame: root mean square of O less the final output, as a share of that of the output
    to_seen: tuple[
        float, ...
    ]  # largest distance of O to the exact answer for the keys seen so far, as a share of the largest output


class Film:
    """Runs the tiles and keeps, for the eye alone, what no memory of the algorithm holds: the whole table."""

    def __init__(self, config: TilesConfig, head: Head) -> None:
        self.config, self.head, length = config, head, len(head.q)
        self.scores = scores_of(head.q, head.k, Tile(slice(0, length), slice(0, length)), config.causal)
        self.exact = F.scaled_dot_product_attention(head.q, head.k, head.v, is_causal=config.causal)
        self.last_max = self.scores.amax(1)
        self.last_log_sum = self.scores.logsumexp(1) - self.last_max
        self.memory, full = (SlowMemory(Q=head.q, K=head.k, V=head.v) for _ in range(2))
        attend_in_full(full, config.causal)
        self.full_moved, self.full_out = full.moved, full.tensors["O"]
        self.seen = torch.zeros(length, length, dtype=torch.bool)
        self.out, self.row_max, self.row_sum = (
            torch.zeros_like(head.q),
            torch.full((length, 1), -math.inf),
            torch.zeros(length, 1),
        )
        self.predicted = (
            tiled_traffic(length, WIDTH, config.tile, config.causal, config.order),
            full_traffic(length, WIDTH),
        )
        self.tiles = len(tiles_of(length, config.tile, config.causal, config.order))
        self.done = self.rescaled = self.rises = 0
        self.factor = 1.0
        self.largest = float(self.exact.abs().max())
        self.to_last, self.to_seen = [1.0], [0.0]

    def take(self, tile: Tile, running: Running) -> None:
        """Note what the queries of this tile know now."""
        known = torch.isfinite(self.row_max[tile.rows])
        factors = torch.exp(self.row_max[tile.rows] - running.row_max)[known]
        self.rescaled, self.factor = int((factors < 1).sum()), float(factors.min()) if len(factors) else 1.0
        self.rises += self.rescaled
        self.row_max[tile.rows], self.row_sum[tile.rows] = running.row_max, running.row_sum
        self.out[tile.rows] = running.out / running.row_sum
        self.seen[tile.rows, tile.keys] = True
        self.done += 1

    def measure(self) -> None:
        """How far O is from the final output, and from the exact answer for the keys seen."""
        rows = self.seen.any(1)
        seen = F.scaled_dot_product_attention(
            self.head.q[rows], self.head.k, self.head.v, attn_mask=(self.seen & torch.isfinite(self.scores))[rows]
        )
        self.to_last.append(float((self.out - self.exact).square().mean().sqrt() / self.exact.square().mean().sqrt()))
        self.to_seen.append(distance(self.out[rows], seen) / self.largest)

    def off(self, out: Tensor) -> float:
        """Error of an output against attention in float64."""
        q, k, v = (part.double() for part in (self.head.q, self.head.k, self.head.v))
        return (
            distance(out.double(), F.scaled_dot_product_attention(q, k, v, is_causal=self.config.causal)) / self.largest
        )

    def step(self, tile: Tile | None, figures: tuple[Result, ...] = (), doing: str = "") -> TilesStep:
        weights = torch.where(self.seen, torch.exp(self.scores - self.row_max), 0.0)
        rows, keys = (
            ((0, 0), (0, 0)) if tile is None else ((tile.rows.start, tile.rows.stop), (tile.keys.start, tile.keys.stop))
        )
        return TilesStep(
            self.config.causal,
            (self.config.tile.rows, self.config.tile.keys),
            self.done,
            self.tiles,
            rows,
            keys,
            weights.numpy(),
            self.out.numpy().copy(),
            self.exact.numpy(),
            self.row_max[:, 0].numpy().copy(),
            self.row_sum[:, 0].log().numpy(),
            self.last_max.numpy(),
            self.last_log_sum.numpy(),
            self.rescaled,
            self.factor,
            self.memory.moved,
            round(self.full_moved * self.done / self.tiles),
            self.predicted,
            (fast_numbers(self.config.tile, len(self.out), WIDTH), self.config.fast),
            tuple(self.to_last),
            tuple(self.to_seen),
            figures=figures,
            doing=doing,
        )


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@experiment("Can attention be exact without ever holding the whole score matrix?")
def tiles(config: TilesConfig) -> Iterator[TilesStep]:
    """The start, then a frame per tile (or per few, if there are many), then the figures."""
    film = Film(config, head_of(config.text, config.layer, config.head))
    length, tile = len(config.text), config.tile
    yield film.step(None, doing=f"{length} characters, {film.tiles} tiles of {tile.rows} queries x {tile.keys} keys")
    each, last = math.ceil(film.tiles / MOST_FRAMES), Tile(slice(0, 0), slice(0, 0))
    for last, running in attend_in_tiles(film.memory, tile, config.causal, config.order):
        film.take(last, running)
        if film.done % each == 0 or film.done == film.tiles:
            film.measure()
            yield film.step(last, doing=told(film, last))
    error = distance(film.out, film.exact) / film.largest
    yield film.step(
        last,
        figures_of(config, film),
        f"{film.tiles} tiles: largest error {error:.1e}; {film.memory.moved:,} elements moved, not {film.full_moved:,}",
    )


def told(film: Film, tile: Tile) -> str:
    who = (
        f"tile {film.done} of {film.tiles}: queries {tile.rows.start + 1} to {tile.rows.stop} meet keys"
        f" {tile.keys.start + 1} to {tile.keys.stop}"
    )
    return who + (f"; {film.rescaled} rows rescaled, the smallest factor {film.factor:.2g}" if film.rescaled else "")


def figures_of(config: TilesConfig, film: Film) -> tuple[Result, ...]:
    """Exactness, traffic and fast memory; the last one is the size of the paper's own example."""
    tile, logsumexp = config.tile, film.last_max + film.last_log_sum
    log_sums = (film.row_max + film.row_sum.log())[:, 0]
    formula = "2Nd + T_c (3Nd + 4N)" if config.order == "keys" else "2Nd + N + 2Nd T_r"
    left_out = ", less the tiles in the future" if config.causal else ""
    paper = blocks_by_rule(51_200, 64)
    return (
        ERROR(distance(film.out, film.exact) / film.largest, 0.0),
        ERROR_FLOAT64(film.off(film.out), film.off(film.exact)),
        PARTIAL_ERROR(max(film.to_seen), 0.0),
        LOGSUMEXP_ERROR(distance(log_sums, logsumexp), 0.0),
        RESCALED(float(film.rises)),
        MOVED_TILES(float(film.memory.moved), float(film.predicted[0]), source=formula + left_out),
        MOVED_STANDARD(float(film.full_moved), float(film.predicted[1])),
        TRAFFIC_RATIO(film.full_moved / film.memory.moved),
        FAST_MEMORY(float(fast_numbers(tile, len(config.text), WIDTH)), float(config.fast)),
        GPU_RATIO(full_traffic(1024, 64) / tiled_traffic(1024, 64, paper, False)),
    )
