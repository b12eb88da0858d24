r"""Data efficiency: what a token is worth.

Text runs out before computers do, so the question turns around: not how many tokens a model needs, but how much it
learns from each. Five experiments ask it with fleets of tiny models that are trained side by side, several seeds each,
so that every number comes with its spread: `repeat` (read the same text again), `dedup` (throw copies away), `prune`
(keep the tokens that teach most), `curriculum` (the same tokens in another order, or with less work) and `scaling` (how
loss falls with weights and tokens, and how to split a budget between them).

The tokens are characters, so losses are nats per character. What is true of models a million times larger is quoted
with its paper, never assumed: each experiment predicts a number from a paper's law and measures it here, and the gap is
shown.

Code -> paper: `tokens` -> D, `unique` -> U, `epochs` -> R_D + 1, `parameters` -> N, `effective_tokens` -> D', `flops`
-> C = 6 N D.
Left out: sub-word tokens; mixing in other data (code, other languages); filtering by quality; data that models write.
Source: Hoffmann et al. 2022, arXiv:2203.15556 (how to split a budget); Muennighoff et al. 2023, arXiv:2305.16264
(repeated data); the others with their experiments.
"""

from core.data_efficiency.repeat import RepeatConfig, RepeatStep, repeat
from core.data_efficiency.dedup import DedupConfig, DedupStep, dedup
from core.data_efficiency.scaling import ScalingConfig, ScalingStep, scaling
from core.data_efficiency.prune import PruneConfig, PruneStep, prune
from core.data_efficiency.curriculum import CurriculumConfig, CurriculumStep, curriculum

__all__ = [
    "CurriculumConfig",
    "CurriculumStep",
    "DedupConfig",
    "DedupStep",
    "PruneConfig",
    "PruneStep",
    "RepeatConfig",
    "RepeatStep",
    "ScalingConfig",
    "ScalingStep",
    "curriculum",
    "dedup",
    "prune",
    "repeat",
    "scaling",
]
