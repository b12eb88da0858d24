r"""Reward hacking: the learned reward keeps rising while what it stands for has long turned over.

The reward model has seen cards of the reference only. PPO looks for what it likes, anywhere, and finds cards that no
pair ever showed it and that it likes for the wrong reason: "when a measure becomes a target, it ceases to be a good
measure" (Goodhart's law). The learned reward is the *proxy*; here the rule behind the clicks is known, so the *gold*
reward can be measured next to it. Both are told in standard deviations of the reference's own cards.

The same PPO runs with three betas, turn by turn, from the same seed: 0, yours, and a large one. Against the distance
$d = \sqrt{\mathrm{KL}(\pi\|\pi_{ref})}$ Gao et al. found for the gold reward of RL

$$R(d) = d\,(\alpha - \beta_{RL} \ln d),$$

which rises, turns at $d^* = e^{\alpha/\beta_{RL} - 1}$ with the height $\beta_{RL}\,d^*$, and falls. Its two numbers
are fitted here to the run without a penalty (least squares), then asked about the others. (Best-of-n has another form,
$d\,(\alpha - \beta d)$; their $\beta_{RL}$ is no KL penalty.)

How the policy cheats is counted, not told beforehand: words per card, missing ends, words said over and over, how many
cards are different, all against the reference's cards.

Left out: several seeds; a new reward model trained on the policy's new cards, which is what repairs this in practice.
Source: Gao, Schulman, Hilton 2022, arXiv:2210.10760, section 1 (the form) and 3.6 (KL penalty); Stiennon et al. 2020,
arXiv:2009.01325, figure 5 (the first such curve).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from core.foundations.experiment import Compared, Step, experiment, setting
from core.rlhf.policy import load_policy
from core.rlhf.postcards import LENGTH, MARKS, WORDS, Judge, words_of
from core.rlhf.ppo import JUDGED, Answer, Ppo, PpoConfig, Round, answers, gold_judge, judged_by, mean_of, same_draw
