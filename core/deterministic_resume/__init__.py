r"""Checkpointing and deterministic training: how a run survives its machine, and why it may still not be the same run.

A long run meets failures: Llama 3 405B had 419 unexpected interruptions in 54 days. What survives is what lies on a
disk, so the state $s_t$ is saved now and then, and training is a function of it,

$$s_{t+1} = f(s_t), \qquad s = (\text{weights, optimizer, schedule, random numbers, place in the data}).$$

If all of $s$ is put back and $f$ is the same function, bit for bit, the resumed run *is* the run. Forget a part of $s$,
and it becomes another run, often without a trace in the loss. $f$ is less of a function than it looks: floating-point
sums depend on their order, and the order on threads, ranks and kernels.

Here the processes are real: they are killed with SIGKILL, they write real files, and every state is identified by the
SHA-256 of all its weights. Read in this order: `checkpoint.py` (files that are whole or not there), `training.py` (the
five parts of a state), `processes.py` and `unplug.py` (kill and resume), `operations.py` and `chaos.py` (order and last
digits), `reshard.py` (another number of ranks), `interval.py` (how often to save).

Code -> paper: `mean_gap` -> M, `save_seconds` -> C (Daly's delta), `restart_seconds` -> R, `interval` -> tau.
Left out: GPUs that fail without a word, asynchronous saving, and clusters: all that is measured here is measured on one
machine.
Source: Daly 2006, doi.org/10.1016/j.future.2004.11.016; PyTorch documentation, "Reproducibility"; Llama 3,
arXiv:2407.21783.
"""

from core.deterministic_resume.unplug import UnplugConfig, UnplugStep, unplug
from core.deterministic_resume.chaos import ChaosConfig, ChaosStep, chaos
from core.deterministic_resume.reshard import ReshardConfig, ReshardStep, reshard
from core.deterministic_resume.interval import IntervalConfig, IntervalStep, interval

__all__ = [
    "ChaosConfig",
    "ChaosStep",
    "IntervalConfig",
    "IntervalStep",
    "ReshardConfig",
    "ReshardStep",
    "UnplugConfig",
    "UnplugStep",
    "chaos",
    "interval",
    "reshard",
    "unplug",
]
