r"""ZeRO: a model too big for one memory, on many, and never twice what need not be there twice.

Plain data parallelism copies everything to every rank: the weights, their gradients, and the optimizer's memory, 16 bytes per weight with Adam. But
a rank needs the optimizer's memory only for the weights it updates, and a layer's weights only while it computes with that layer. ZeRO
shares out $1/N$ of each to every rank, and fetches the rest when its time comes. With $P$ weights on $N$ ranks:

| stage | shared out | bytes on a rank, 32 bits | mixed, as in the paper | sent per step |
|---|---|---|---|---|
| 0 | nothing | 16P | 16P | 2P |
| 1 | the optimizer's memory | 8P + 8P/N | 4P + 12P/N | 2P |
| 2 | and the gradients | 4P + 12P/N | 2P + 14P/N | 2P |
| 3 | and the weights | 16P/N | 16P/N | 3P |

The price is small because a sum over all ranks (all-reduce, $2P$) is two things one after the other: everybody gets the sum of its own piece
(reduce-scatter, $P$), and then everybody gets all pieces (all-gather, $P$). ZeRO does something in between, with $1/N$ of the work:

$$\text{all-reduce} = \text{reduce-scatter} + \text{all-gather}, \qquad \text{each sends } \tfrac{N-1}{N} P \text{ numbers per rank in a ring.}$$

Stage 3 gathers weights a second time, for the backward pass: $3P$. Here the ranks are real processes, the bytes are those of their storages,
and the numbers sent are those that went through `torch.distributed`.

Read in this order: `formulas.py`, `written.py` (the trick, with nothing but two collectives), `library.py` (PyTorch's stages, and how they
differ), `order.py` (why bits differ), `watch.py` (a step under observation), `shards.py`, `lose.py`, `count.py` and `scale.py` (a thousand ranks).

Code -> paper: `ranks` -> N_d; P -> Psi; `FULL`, `MIXED` -> 4 + 4 + 8 and 2 + 2 + K with K = 12.
Left out: sharing out activations (P_a), offloading to other memory, overlap of sending with computing.
Source: Rajbhandari et al. 2019, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277.
"""

from core.zero.shards import ShardsConfig, ShardsStep, shards  # noqa: I001 (the order is the order of the tab)
from core.zero.lose import LoseConfig, LoseStep, lose
from core.zero.scale import ScaleConfig, ScaleStep, scale
from core.zero.predictions import PREDICTIONS

__all__ = [
    "PREDICTIONS",
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
