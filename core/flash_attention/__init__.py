r"""FlashAttention: exact attention that never stores the score matrix.

Attention over $N$ tokens compares every query with every key:

$$S = \frac{QK^\top}{\sqrt d}, \qquad P = \mathrm{softmax}(S), \qquad O = PV .$$

The standard way writes $S$ and $P$, $N \times N$ numbers each, to the GPU's large memory and reads them back. At 4,096
tokens and 16 bits that is 34 MB per table, per head, per layer, for an output of half a megabyte. The arithmetic units
wait for memory most of that time.

FlashAttention cuts the matrix into tiles that fit into the small fast memory beside the arithmetic units (SRAM: 64 KiB
per multiprocessor on a T4, 164 on an A100, 228 on an H100) and never puts a tile back. Softmax seems to forbid it,
since every weight is divided by a sum over the whole row. The way out is to keep, per row, the largest score so far
$m$, the sum so far $\ell$ and the output so far, and to correct all of it by one factor $e^{m-m'}$ when a larger score
turns up. Nothing is approximated.

The same multiplications are done (a few more, in the backward pass, where tiles are computed again). What is saved is
traffic, and memory: $O(N)$ in place of $O(N^2)$.

Read in this order: `tiling.py` (the algorithm), `tiles.py` (watch it on your sentence), `rescale.py` (break it),
`ways.py` (naive attention and PyTorch's kernels), `race.py` (time and memory).

Code -> paper: `row_max` -> $m$, `row_sum` -> $\ell$, `out` -> $O$ times $\ell$, `Blocks.rows` -> $B_r$, `Blocks.keys`
-> $B_c$, `fast` -> $M$, `SlowMemory` -> HBM.
Left out: our own backward pass and GPU kernel (PyTorch's are raced), dropout, FlashAttention-3 and 4.
Source: Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691; Milakov and Gimelshein 2018, arXiv:1805.02867.
"""

from core.flash_attention.tiles import TilesConfig, TilesStep, tiles
from core.flash_attention.rescale import RescaleConfig, RescaleStep, rescale
from core.flash_attention.race import RaceConfig, RaceStep, race

__all__ = [
    "RaceConfig",
    "RaceStep",
    "RescaleConfig",
    "RescaleStep",
    "TilesConfig",
    "TilesStep",
    "race",
    "rescale",
    "tiles",
]
