r"""Pipeline parallelism: a model cut into stages, one rank each, and the order of work that keeps the ranks from
waiting.

A batch is cut into $m$ micro-batches that follow each other through $p$ ranks. At both ends of a batch ranks have
nothing to do, the *bubble*; in between the activations of unfinished micro-batches wait for their backward pass and
take memory. A schedule, which is only the order of each rank's actions, decides about both:

$$\frac{\text{idle}}{\text{work}} = \frac{p-1}{m}\ \text{(GPipe, 1F1B)}, \qquad \text{held by rank } r:\ m\
\text{(GPipe)},\ \ p - r\ \text{(1F1B)}.$$

Read in this order: `orders.py` (the schedules, written out), `simulate.py` (when each action starts), `formulas.py`
(what the papers say), `real.py` (ranks that run PyTorch's schedules, timed), `watched.py` (what they reported, and of
what their time is made), `bubble.py`, `balance.py`, `big.py` (the experiments).

Code -> paper: `ranks` -> $p$ or $d$ ("pipeline depth"), `micro` -> $m$, `chunks` -> $v$ ("virtual stages"), kinds `F`,
`I`, `W` -> $F$, $B$, $W$ of the zero-bubble paper, where $B$ is the gradient of the input only.
Left out: data and tensor parallelism around the pipeline, DualPipe, recomputation, optimizer steps that overlap the
next batch.
Source: Huang et al. 2018, arXiv:1811.06965; Narayanan et al. 2021, arXiv:2104.04473; Qi et al. 2023, arXiv:2401.10241.
"""

from core.pipeline_parallel.bubble import BubbleConfig, BubbleStep, bubble
from core.pipeline_parallel.balance import BalanceConfig, BalanceStep, balance
from core.pipeline_parallel.big import BigConfig, BigStep, big

__all__ = [
    "BalanceConfig",
    "BalanceStep",
    "BigConfig",
    "BigStep",
    "BubbleConfig",
    "BubbleStep",
    "balance",
    "big",
    "bubble",
]
