r"""DPO: the clicks go straight into the policy, without a reward model and without sampling.

Of all policies, the one with the most reward $r$ for its distance from the reference is known in closed form,
$\pi^* \propto \pi_{ref}\, e^{r/\beta}$. Turned around, every policy is the best one for some reward, up to a constant per
prompt: its *implicit reward*

$$\hat r(y) = \beta \ln \frac{\pi_\theta(y)}{\pi_{ref}(y)}.$$

Put that into the Bradley-Terry loss of a reward model and the reward model is gone. For a preferred card $y_w$ and the
other one $y_l$ of the pair:

$$\mathcal{L} = -\ln \sigma\!\left(\beta \ln \frac{\pi_\theta(y_w)}{\pi_{ref}(y_w)} - \beta \ln \frac{\pi_\theta(y_l)}{\pi_{ref}(y_l)}\right)$$

At the start policy and reference are the same, so both implicit rewards are 0 and the loss is $\ln 2$. Its gradient
raises $\ln \pi_\theta(y_w)$ and lowers $\ln \pi_\theta(y_l)$ by $\beta\,\sigma(\hat r(y_l) - \hat r(y_w))$: much where the
policy still has the pair the wrong way round, little where it is right.

The chart asks of every method the same: how much reward for how much KL to the reference? Both rewards are counted
from the reference's mean, in standard deviations of its cards: the *gold* reward is the hidden rule's own, the *proxy* that
of the reward model learnt from the same clicks. Nothing in the DPO loss sees what the policy would write now: it can raise
the margin of a pair by making both of its cards improbable, and words that stand in neither take their place. That is
what a small beta or few pairs let you watch.

With three answers only, everything is exact: the learned reward says how often each wins, and DPO must end at $\pi^*$.

Code -> paper: `preferred` -> y_w, `other` -> y_l, `log_ratios` -> ln of pi_theta over pi_ref, `tilted` -> pi_r (eq. 4).
Left out: pairs drawn anew from the policy (online DPO), label smoothing, a loss averaged over words.
Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 4 and 7 and the gradient below it; what goes wrong far from the
reference: Rafailov et al. 2024, arXiv:2406.02900.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.experiment import Compared, Step, experiment, setting
from core.foundations.transformer import Transformer
from core.rlhf.best_of_n import Best, Pool, best_of, best_of_pool, divergence, frontier, kl_formula, rungs, tilted
from core.rlhf.policy import Cards, answer_mask, card_log_probs, load_policy, log_probs, sample
from core.rlhf.postcards import GREETINGS, NAMES, NUMBER, START, Judge, gold_of, readable, tokens_of, words_of
from core.rlhf.reward import TasteConfig

BATCH = 32  # pairs in a step
LOOKS = 12  # at the policy, in a run
SEEN = 16  # cards per prompt in a look
POOL = 384  # cards per prompt to take the best from
THREE = ("the bus is late .", "we saw the sea . thank you for everything .", "the sea is calm !")


@dataclass(frozen=True)
class DpoConfig(TasteConfig):
    """The knobs of DPO, and how far best-of-n goes beside it."""

    beta: float = setting(0.3, "Beta (KL penalty)", low=0.01, high=10.0, help="small: far from the reference")
    steps: int = setting(60, "Steps", unit="step", low=1, high=1000)
    pairs: int = setting(512, "Preference pairs", unit="pair", low=2, high=2048)
    most_n: int = setting(64, "Best of up to", unit="answer", low=1, high=128)
    answers: str = setting("cards", "Answers", choices={"cards": "whole cards", "three": "three cards, no others"})
    learning_rate: float = setting(0.001, "Learning rate", low=1e-6, high=0.1, more=True)


@dataclass(frozen=True)
class Point:
    """Where a policy stands: its KL to the reference and what its answers are worth."""

    step: int
    kl: float  # nats
    gold: float
    proxy: float


@dataclass(frozen=True)
class DpoStep(Step):
    """One step of DPO, or what was found out before and after; what did not happen in it is None or empty."""

    step: int
    loss: float | None = None  # nats
    preferred: float | None = None  # mean implicit reward of the preferred cards of the batch
    other: float | None = None
    held_out: float | None = None  # loss on pairs that are not trained on
    accuracy: float | None = None  # share of those pairs that the implicit reward has the right way round
    path: tuple[tuple[float, float, float], ...] = ()  # (KL, gold, proxy) of the policy so far; rewards in standard deviations
    best: tuple[tuple[float, float, float, float], ...] = ()  # (n, KL, gold, proxy) of best-of-n
    ideal: tuple[tuple[float, float], ...] = ()  # (KL, proxy): no policy has more
    kls: tuple[tuple[int, float, float, float, float], ...] = ()  # (n, formula, KL on cards, its error, KL with three answers)
    cap: float | None = None  # -ln of the best of the three answers
    before: str = ""
    after: str = ""
    chosen: str = ""  # by best-of-n


# --- the loss ---------------------------------------------------------------------------------------------------------


def dpo_loss(log_ratios: Float[Tensor, "M 2"], beta: float, sure: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Equation 7, pair by pair. log_ratios: ln pi/pi_ref of the preferred card and of the other one.

    sure: how often the first is preferred: 1 for a click; if it is less, the loss is the mean over both outcomes.
    """
    margin = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    return -(sure * F.logsigmoid(margin) + (1 - sure) * F.logsigmoid(-margin))


@dataclass(frozen=True)
class Preferences:
    """Pairs of cards, the preferred one first, with what the reference makes of them."""

    tokens: Int[Tensor, "M 2 T"]
    sure: Float[Tensor, "M"]
    reference: Float[Tensor, "M 2"]  # ln pi_ref of each card

    def __len__(self) -> int:
        return len(self.tokens)


def pair_log_probs(policy: Transformer, tokens: Int[Tensor, "M 2 T"]) -> Float[Tensor, "M 2"]:
    """ln of the probability of each card of each pair."""
    flat = tokens.flatten(0, 1)
    return card_log_probs(policy, Cards(flat, answer_mask(flat))).view(-1, 2)


def log_ratios(policy: Transformer, pairs: Preferences, rows: Int[Tensor, "m"]) -> Float[Tensor, "m 2"]:
    return pair_log_probs(policy, pairs.tokens[rows]) - pairs.reference[rows]
