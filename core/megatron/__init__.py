r"""Megatron tensor parallelism: one layer computed by several devices together.

A layer that is too large or too slow for one device is cut through its matrices. For the MLP, with $A$ in columns and
$B$ in rows,

$$Z = \mathrm{GeLU}(XA)\,B = \sum_{i=1}^{t} \mathrm{GeLU}(X A_i)\, B_i,$$

so that $t$ ranks (processes, usually with one GPU each) compute one term each and one all-reduce adds them. Attention
is cut by heads in the same way. Every rank holds $1/t$ of the layer's matrices, does $1/t$ of its multiplications, and
takes part in two all-reduces per layer in the forward pass and two in the backward pass. Also called intra-layer model
parallelism.

What it costs does not shrink with $t$: the numbers that each rank sends for a layer are $8bsh\,(t-1)/t$, and all others
wait for them. That is why tensor parallelism stays inside a server, where links are fast, while pipelines and data
parallelism go across.

How large such models are: a GPT of $l$ layers of width $h$, with $V$ tokens in the vocabulary and $s$ positions, has
$P = 12lh^2\left(1 + \frac{13}{12h} + \frac{V+s}{12lh}\right)$ weights.

The ranks here are real processes that speak through gloo; with as many GPUs as ranks the same job runs on those with
NCCL (`torchrun --nproc-per-node 2 -m core megatron split --ranks 2`). Read in this order: `operators.py` (f and g, the
trick), `layer.py` (whole and split), `split.py` (is it the same, and what is sent), `speedup.py` (is it faster),
`plan.py` (torch's own way).

Code -> paper: `f` -> f, `g` -> g, `gather` and `scatter` -> $g$ and $\bar g$ of Korthikanti et al., `up` -> A, `down`
-> B, `Sizes` -> l, h, a, s, b, `ranks` -> t.
Left out: embedding and output layer split by vocabulary, overlapping of sending and computing, splitting across several
servers.
Source: Shoeybi et al. 2019, arXiv:1909.08053; Narayanan et al. 2021, arXiv:2104.04473; Korthikanti et al. 2022,
arXiv:2205.05198.
"""

from core.megatron.split import SplitConfig, SplitStep, split
from core.megatron.speedup import SpeedupConfig, SpeedupStep, speedup

__all__ = ["SpeedupConfig", "SpeedupStep", "SplitConfig", "SplitStep", "speedup", "split"]
