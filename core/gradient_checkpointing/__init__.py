r"""Gradient checkpointing: keep less of the forward pass, and compute it again when the backward pass needs it.

A gradient needs what the forward pass worked on. So autograd keeps it, from the moment it is made until the backward
pass has come by: every layer of a big model at once, and for a large batch far more than the weights. A checkpoint
keeps only what goes into a layer. When the backward pass arrives, the layer's forward pass runs again, and what it
keeps lives for that moment.

$$\text{kept: } n\,A \;\to\; n\,e + A, \qquad \text{computed: } 3 \;\to\; 4 \text{ forward passes,}$$

for $n$ layers that keep $A$ bytes each and take $e$ bytes in. A step costs three forward passes, since a backward pass
is about two; the fourth is the price, a third more. It can be had for less: *selective* recomputation drops only what
is large and cheap to compute again, the core of attention.

Read in this order: `trick.py` (the ten lines), `block.py` (the layer), `foundations/activation_bytes.py` (what it
keeps), `ledger.py` and `kept.py` (what it really keeps), `live.py`, `strategies.py`, `bench.py` and `tradeoff.py`
(memory against time), `big.py` (GPT-3 and larger).

Code -> paper: `s, b, h, a` -> s, b, h, a; `ranks` -> t; `n_layer` -> L, and n of Chen et al.; `k` -> k.
Left out: offloading to another memory, compilers that choose what to keep.
Source: Chen et al. 2016, arXiv:1604.06174; Korthikanti et al. 2022, arXiv:2205.05198.
"""

from core.gradient_checkpointing.kept import KeptConfig, KeptStep, kept
from core.gradient_checkpointing.tradeoff import TradeoffConfig, TradeoffStep, tradeoff
from core.gradient_checkpointing.big import BigConfig, BigStep, big

__all__ = [
    "BigConfig",
    "BigStep",
    "KeptConfig",
    "KeptStep",
    "TradeoffConfig",
    "TradeoffStep",
    "big",
    "kept",
    "tradeoff",
]
