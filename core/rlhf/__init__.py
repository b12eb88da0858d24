r"""RLHF: a language model is tuned to what people like, from nothing but their choices.

A pretrained model imitates its texts, the good ones and the bad. Nobody can write down the points that a good answer
deserves, but everybody can say which of two is better. From such choices a policy $\pi$ learns in three steps, those of
InstructGPT:

1. *Supervised fine-tuning* (`sft`): the model learns to answer at all. Here it is shown on questions and answers; for
   the cards of the other experiments it was done beforehand (`policy.py`). What a model writes then is the reference.
2. *Reward model* (`preferences`): two answers of the reference, one click. A reward model $r$ learns to predict the
   clicks, $p(\text{won}) = \sigma\big(r(\text{won}) - r(\text{lost})\big)$.
3. *Policy* (`ppo`): it answers, the reward model scores, and what scored well becomes more probable, less what it costs
   to move away from the reference: $\max_\pi \; \mathbb{E}\,[r] - \beta\, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})$.

What can go wrong is *reward hacking* (`hacking`): the reward model is not the taste itself, only a copy made from a few
choices. A policy trained on that copy finds its mistakes, and the learned reward goes on rising while the true one
falls.

Where a program can check an answer, neither clicks nor a reward model are needed: *GRPO* (`grpo`) compares a group of
answers to the same prompt with each other.

*Best of n* (`best`) trains no policy at all: the reference writes many answers, and the reward model keeps the best.

*DPO* (`dpo`) reaches the same goal without a reward model: the optimum of step 3 can be solved for $r$, and then the
choices train the policy directly.

All of it happens here on postcards (`core/rlhf/postcards.py`), a world so small that every step takes seconds, with
policies of about 100,000 parameters (`policy.py`). The taste is yours, by clicks, or that of a hidden rule; only with a
rule there is a true reward to compare with. Your clicks go with you from one experiment to the next.

Read in this order: `postcards.py`, `policy.py`, `reward.py`, `preferences.py`, `questions.py`, `sft.py`, `ppo.py`,
`hacking.py`, `grpo.py`, `best_of_n.py`, `answers.py`, `best.py`, `dpo.py`.

Code -> paper: `RewardModel` -> $r_\theta$, `Choices` -> the pairs $(y_w, y_l)$, `load_policy` -> $\pi^\text{SFT}$, the
reference.
Left out: large models, several people with different tastes, safety: what is learned here is one person's taste in
postcards.
Source: Christiano et al. 2017, arXiv:1706.03741; Stiennon et al. 2020, arXiv:2009.01325; Ouyang et al. 2022
(InstructGPT), arXiv:2203.02155; Rafailov et al. 2023 (DPO), arXiv:2305.18290; Gao et al. 2022 (over-optimization),
arXiv:2210.10760; Shao et al. 2024 (GRPO), arXiv:2402.03300; Zhou et al. 2023 (LIMA), arXiv:2305.11206.
"""

from core.rlhf.preferences import PreferencesConfig, PreferencesStep, preferences
from core.rlhf.sft import SftConfig, SftStep, sft
from core.rlhf.ppo import PpoConfig, PpoStep, ppo
from core.rlhf.hacking import HackingConfig, HackingStep, hacking
from core.rlhf.grpo import GrpoConfig, GrpoStep, grpo
from core.rlhf.best import BestConfig, BestStep, best
from core.rlhf.dpo import DpoConfig, DpoStep, dpo

__all__ = [
    "BestConfig",
    "BestStep",
    "DpoConfig",
    "DpoStep",
    "GrpoConfig",
    "GrpoStep",
    "HackingConfig",
    "HackingStep",
    "PpoConfig",
    "PpoStep",
    "PreferencesConfig",
    "PreferencesStep",
    "SftConfig",
    "SftStep",
    "best",
    "dpo",
    "grpo",
    "hacking",
    "ppo",
    "preferences",
    "sft",
]
