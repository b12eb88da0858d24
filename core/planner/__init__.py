r"""Planning a training run: the model, the GPUs, and how to divide the one over the other.

A model of 100 billion weights needs 1.6 TB of weights, gradients and optimizer, and its activations on top. Four ways
divide that, and each divides something else: data parallelism with ZeRO the states over copies, tensor parallelism
every layer, pipeline parallelism the layers, recomputation the activations over time. This tab puts their formulas
together, itemises a GPU's memory, estimates the time of a step, tries all plans, and holds the formulas against
published runs and against a model that is trained here.

Read in this order: `job.py` (the letters), `request.py` (the settings), `memory.py`, `timing.py`, `search.py`;
`papers.py` and `weigh.py` (is it true?), `others.py` (other calculators), `lines.py` (every number with its formula),
`report.py` (a plan and all that follows), `plan.py` (the experiment).

Code -> paper: `tensor` -> t, `pipeline` -> p, `data` -> d, `interleave` -> v, `micro_batch` -> b, `global_batch` -> B,
`sequence` -> s.
Left out: expert and context parallelism, offloading, latency; workspace, of which a share of the memory is kept free.
Source: Narayanan et al. 2021, arXiv:2104.04473; Korthikanti et al. 2022, arXiv:2205.05198; Rajbhandari et al. 2019,
arXiv:1910.02054; Shoeybi et al. 2019, arXiv:1909.08053; data sheets of the GPUs (`cards.py`).
"""

from core.planner.request import PlanConfig
from core.planner.report import PlanStep
from core.planner.plan import plan

__all__ = ["PlanConfig", "PlanStep", "plan"]
