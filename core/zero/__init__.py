r"""ZeRO: one model spread over many memories, without needless copies.

A rank is a process, usually with one GPU. Plain data parallelism copies everything to every rank: the weights, their
gradients, and the optimizer states, 16 bytes per weight with Adam. But a rank needs the optimizer states only for the
weights it updates, and a layer's weights only while it computes with that layer. ZeRO gives each rank $1/N$ of each,
and fetches the rest when its time comes. Stage 3 is also called FSDP full shard. With $P$ weights on $N$ ranks:

| stage | partitioned | bytes on a rank, 32 bits | mixed, as in the paper | sent per step |
|---|---|---|---|---|
| 0 | nothing | 16P | 16P | 2P |
| 1 | the optimizer states | 8P + 8P/N | 4P + 12P/N | 2P |
| 2 | and the gradients | 4P + 12P/N | 2P + 14P/N | 2P |
| 3 | and the weights | 16P/N | 16P/N | 3P |

The price is small because a sum over all ranks (all-reduce, $2P$) is two things one after the other: a reduce-scatter
($P$), in which each rank receives the finished sum of its slice, and an all-gather ($P$), in which each rank receives
every slice. ZeRO does something in between, with $1/N$ of the work:

$$\text{all-reduce} = \text{reduce-scatter} + \text{all-gather}, \qquad \text{each sends } \tfrac{N-1}{N} P \text{
numbers per rank in a ring.}$$

Stage 3 gathers weights a second time, for the backward pass: $3P$. Here the ranks are real processes, the bytes are
those of their storages, and the elements sent are those that went through `torch.distributed`.

Read in this order: `formulas.py`, `written.py` (the trick, with nothing but two collectives), `library.py` (PyTorch's
stages, and how they differ), `order.py` (why bits differ), `watch.py` (a step under observation), `shards.py`,
`lose.py`, `count.py` and `scale.py` (a thousand ranks).

Code -> paper: `ranks` -> N_d; P -> Psi; `FULL`, `MIXED` -> 4 + 4 + 8 and 2 + 2 + K with K = 12.
Left out: partitioned activations (P_a), offloading to other memory, overlap of sending with computing.
Source: Rajbhandari et al. 2019, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277.
"""

from core.zero.shards import ShardsConfig, ShardsStep, shards
from core.zero.lose import LoseConfig, LoseStep, lose
from core.zero.scale import ScaleConfig, ScaleStep, scale

__all__ = [
    "LoseConfig",
    "LoseStep",
    "ScaleConfig",
    "ScaleStep",
    "ShardsConfig",
    "ShardsStep",
    "lose",
    "scale",
    "shards",
]
