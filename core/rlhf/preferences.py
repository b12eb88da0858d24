r"""Preferences: you are the human, and a model learns what you like.

Two cards, the same prompt, and one question: which do you like better? Each click is a row of the training set. A
reward model gives every card a number $r$, and its loss is its surprisal at the choices (Bradley and Terry's model):

$$\mathcal{L} = -\frac1N \sum_{(\text{won},\, \text{lost})} \ln \sigma\big(r(\text{won}) - r(\text{lost})\big).$$

Here $r$ adds up what each word is worth (`core/rlhf/reward.py`). It starts at 0 for every card, so the first loss is
$\ln 2$: it would toss a coin. Then it learns, all choices at every step, and what counts is whether it agrees with
choices it has *not* seen:

* where a rule chooses, it is asked about 200 fresh pairs;
* where you choose there are no others, so each of your choices is predicted by a model that has learned from all the
  others (leave one out). Where a rule chooses, both are measured, which says how far that estimate can be trusted.

A second model learns beside it that knows no language, only which word is which. The gap between the two is what
pretraining is worth: the policy knows which words keep company, so a choice that was made for *sunny* speaks for
*bright* too.

The ranking shows what was learned: how much the reward changes when a word is written into a card, in standard
deviations of the rewards of the reference's cards.

Left out: several people who disagree, and choices between more than two (InstructGPT's people ranked 4 to 9). A rule
chooses without noise, and pairs that it likes equally are thrown away; real labelers agree on about 73 % of the pairs,
so they need many more choices.
Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.5 (the loss, rankings); leave-one-out: Stone 1974,
doi.org/10.1111/j.2517-6161.1974.tb00994.x.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.turns import with_pauses
from core.rlhf.policy import Cards
from core.rlhf.postcards import PROMPT, RULES, SPECIAL, WORDS, gold_of
from core.rlhf.reward import (
    PAIRS,
    RATE,
    STEPS,
    YOU,
    Choices,
    RewardModel,
    TasteConfig,
    check_enough,
    choosing,
    joined,
    pairs,
    picked,
    reference_cards,
    text_of,
    train_reward,
)

FRESH = 200  # pairs that the rule decides for the held-out agreement
CARDS = 200  # of the reference, whose rewards are shown
EXTREME = 2  # of these cards that are shown at either end
TRIED = 25  # of these cards, into which each word is written
FAR = 1_000_003  # from the seed of one list of pairs to that of another; a generator takes 32 bits of a seed
LOOKS = 10  # how often a run shows words and rewards
FIRST_LOSS = Figure("first loss", "nats per choice", "theory", "ln 2: every card is worth the same")
NEW = Figure("agreement on choices it has not seen", "%", "baseline", "chance: tossing a coin", headline=True)
UNREAD = Figure(
    "agreement of a model that knows no language",
    "%",
    "baseline",
    "the model with the policy's word vectors, on the same choices",
    headline=True,
)
SEEN = Figure("agreement on the choices it learned from", "%")
ONE_OUT = Figure("leave-one-out estimate of the agreement", "%", "baseline", "agreement on fresh pairs")
CORRELATION = Figure(
    "correlation of the learned reward and the rule", "of 1", "limit", "1: a perfect copy of the rule", headline=True
)


@dataclass(frozen=True)
class PreferencesConfig(TasteConfig):
    """Whose taste, how many choices, and how the reward model learns."""

    asked: int = setting(
        PAIRS,
        "Choices",
        unit="choice",
        low=2,
        high=200,
        help="More choices teach the reward model more of the taste. This is for a rule; yours are as many as you "
        "click.",
    )
    steps: int = setting(
        STEPS,
        "Steps",
        unit="step",
        low=1,
        high=2000,
        more=True,
        help="More training steps fit the choices more closely, up to learning them by heart.",
    )
    learning_rate: float = setting(
        RATE, "Learning rate", low=1e-5, high=1.0, more=True, help="Higher makes each step of the reward model larger."
    )


@dataclass(frozen=True)
class Look:
    """What the reward model likes, at one moment; rewards in standard deviations from the reference's mean."""

    words: tuple[str, ...]
    effects: tuple[float, ...]  # change of a card's reward when the word is written into it
    compared: tuple[bool, ...]  # whether the word stood in any of the pairs that were learned from
    rewards: Float[np.ndarray, "N"]
    best: tuple[tuple[float, str], ...]  # cards and their rewards, the best one first
    worst: tuple[tuple[float, str], ...]  # ... the worst one last


@dataclass(frozen=True)
class PreferencesStep(Step):
    """A step of training, or what there is before it; what did not happen in it is None."""

    step: int
    loss: float | None = None  # nats per choice
    agreement: float | None = None  # fraction of the choices learned from
    held_out: float | None = None  # fraction of choices not learned from
    unread: float | None = None  # the same, of the model that knows no language
    pairs: tuple[tuple[str, str], ...] = ()  # on the first Step
    picks: str = ""  # which of each pair the rule likes better: a, b, or - for neither; "" where you choose
    whose: str = ""
    look: Look | None = None


# --- how good is it? --------------------------------------------------------------------------------------------------


def share_right(margins: Float[Tensor, "N"]) -> float:
    """The fraction of choices that a model makes the same way; without a preference it is right half the time."""
    return float((torch.sign(margins) + 1).mean() / 2)


@torch.no_grad()
def agreement(model: RewardModel, chosen: Choices) -> float:
    return share_right(model(chosen.won.tokens, chosen.won.mask) - model(chosen.lost.tokens, chosen.lost.mask))


def left_out(model: RewardModel, chosen: Choices, steps: int, learning_rate: float) -> Iterator[float]:
    """Leave one out: as many models as choices, each trained without one choice and asked about it; after each step,
    how often they are right. All side by side: model i is row i of `tastes`, and its loss leaves out choice i.
    """
    difference = (counts(chosen.won) - counts(chosen.lost)) @ model.words  # (N, V) @ (V, F)
    tastes = torch.zeros_like(difference).requires_grad_()  # (N, F)
    others = 1 - torch.eye(len(chosen))
    optimizer = torch.optim.Adam([tastes], learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        surprise = -F.logsigmoid(difference @ tastes.T)  # (N, F) @ (F, N): choice by model
        loss = (surprise * others).sum() / (len(chosen) - 1)  # the sum over models: each has its own gradient
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield share_right((difference * tastes.detach()).sum(1))


def counts(cards: Cards) -> Float[Tensor, "N V"]:
    """How often each word stands in each answer."""
    return torch.zeros(len(cards), len(WORDS)).scatter_add_(1, cards.tokens, cards.mask.float())


# --- what does it like? -----------------------------------------------------------------------------------------------


@torch.no_grad()
def look_at(model: RewardModel, cards: Cards, chosen: Choices | None) -> Look:
    """The rewards of these cards, and what each word of theirs does to a reward."""
    rewards = model(cards.tokens, cards.mask)
    spread = rewards.std().clamp_min(1e-6)
    scores = (rewards - rewards.mean()) / spread
    order = scores.argsort(descending=True, stable=True)
    best, worst = (
        tuple((float(scores[i]), text_of(cards.tokens[i])) for i in some)
        for some in (order[:EXTREME], order[-EXTREME:])
    )
    said = (counts(cards).sum(0) > 0) & torch.tensor([word not in SPECIAL for word in WORDS])
    words = said.nonzero()[:, 0]
    learned = counts(joined([chosen.won, chosen.lost])).sum(0) > 0 if chosen else said
    effects = effects_of(model, picked(cards, slice(TRIED)), words) / spread
    return Look(
        words=tuple(WORDS[int(word)] for word in words),
        effects=tuple(effects.tolist()),
        compared=tuple(learned[words].tolist()),
        rewards=scores.numpy(),
        best=best,
        worst=worst,
    )


def effects_of(model: RewardModel, cards: Cards, words: Int[Tensor, "W"]) -> Float[Tensor, "W"]:
    """How much the reward rises when a word is written into a card, as the first of the answer: mean over the cards."""
    before = model(cards.tokens, cards.mask)
    rows, marks = cards.tokens.repeat(len(words), 1), cards.mask.repeat(len(words), 1)  # (W N, T)
    longer = torch.cat([rows[:, :PROMPT], words.repeat_interleave(len(cards))[:, None], rows[:, PROMPT:]], 1)
    mask = torch.cat([marks[:, :PROMPT], torch.ones_like(marks[:, :1]), marks[:, PROMPT:]], 1)
    return (model(longer, mask).view(len(words), len(cards)) - before).mean(1)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Can a model learn your taste from a few clicks?")
def preferences(config: PreferencesConfig) -> Iterator[PreferencesStep]:
    """The pairs; the choices; training, with a look now and then; how often it is right about what it has not seen."""
    yield (start := opening(config))
    if config.rule == YOU:
        check_enough(len(config.clicks))
    chosen = yield from with_pauses(choosing(config, config.asked), PreferencesStep(0, doing="choosing"))
    fresh = None
    if config.rule != YOU:
        others = choosing(config, FRESH, config.seed + FAR)
        fresh = yield from with_pauses(
            others, PreferencesStep(0, doing=f"choosing between {FRESH} fresh pairs, to judge by")
        )
    cards = reference_cards(CARDS, config.seed + FAR)
    yield PreferencesStep(0)
    model, unread = RewardModel(), RewardModel(pretrained=False)
    first = PreferencesStep(
        0, agreement=agreement(model, chosen), held_out=0.5, unread=0.5, look=look_at(model, cards, chosen)
    )
    yield replace(first, doing=f"{len(chosen)} choices by {start.whose}; before training every card is worth 0")
    last = yield from learn(config, chosen, fresh, model, unread, cards)
    model.normalise(cards)
    yield PreferencesStep(
        config.steps,
        figures=evaluated(config, last, model, cards),
        look=look_at(model, cards, chosen),
        doing=told(last),
    )


def opening(config: PreferencesConfig) -> PreferencesStep:
    """The start state: the pairs, who chooses, and a model to which all cards are worth the same."""
    first, second = pairs(PAIRS, config.seed)
    texts = tuple((text_of(one), text_of(other)) for one, other in zip(first.tokens, second.tokens, strict=True))
    look = look_at(RewardModel(), joined([first, second]), None)
    if config.rule == YOU:
        doing = f"{len(config.clicks)} of {PAIRS} pairs chosen so far: click the card that you like better"
        return PreferencesStep(0, pairs=texts, whose="you", look=look, doing=doing)
    liked = (gold_of(first.tokens, config.rule) - gold_of(second.tokens, config.rule)).sign().int().tolist()
    picks = "".join("-ab"[sign] for sign in liked)  # -1 is the last letter
    return PreferencesStep(0, pairs=texts, picks=picks, whose=RULES[config.rule].what, look=look)


@dataclass(frozen=True)
class Ends:
    """The last numbers of a run."""

    first_loss: float
    loss: float
    agreement: float
    one_out: float  # leave-one-out agreement
    unread_out: float  # ... of the model that knows no language
    fresh: float | None  # agreement on fresh pairs, where a rule chooses
    unread_fresh: float | None


def learn(config: PreferencesConfig, chosen: Choices, fresh: Choices | None, model: RewardModel, unread: RewardModel,
          cards: Cards) -> Generator[PreferencesStep, None, Ends]:  # fmt: skip
    """All steps of training: the model, its twin without language, and their leave-one-out models."""
    jobs = [
        job
        for one in (model, unread)
        for job in (
            train_reward(one, chosen, config.steps, config.learning_rate),
            left_out(one, chosen, config.steps, config.learning_rate),
        )
    ]
    every, ends = max(1, config.steps // LOOKS), None
    for step, (loss, one_out, _, unread_out) in enumerate(zip(*jobs, strict=True), 1):
        right = [agreement(one, fresh) for one in (model, unread)] if fresh else [None, None]
        ends = Ends(
            ends.first_loss if ends else loss, loss, agreement(model, chosen), one_out, unread_out, right[0], right[1]
        )
        held_out = (one_out, unread_out) if fresh is None else right
        look = look_at(model, cards, chosen) if step % every == 0 and step < config.steps else None
        line = (
            f"step {step}: loss {loss:.3f} nats, agreement on choices not learned from {held_out[0]:.0%}"
            if look
            else ""
        )
        yield PreferencesStep(step, loss, ends.agreement, *held_out, look=look, doing=line)
    assert ends is not None
    return ends


def evaluated(config: PreferencesConfig, last: Ends, model: RewardModel, cards: Cards) -> tuple[Result, ...]:
    """The figures of a whole run."""
    held_out, unread = (last.one_out, last.unread_out) if last.fresh is None else (last.fresh, last.unread_fresh or 0.0)
    figures = (
        FIRST_LOSS(last.first_loss, math.log(2)),
        NEW(100 * held_out, 50.0),
        UNREAD(100 * unread, 100 * held_out),
        SEEN(100 * last.agreement),
    )
    if last.fresh is None:
        return figures
    gold, reward = gold_of(cards.tokens, config.rule), model(cards.tokens, cards.mask).detach()
    correlation = torch.nan_to_num(torch.corrcoef(torch.stack([gold, reward]))[0, 1])
    return (*figures, ONE_OUT(100 * last.one_out, 100 * last.fresh), CORRELATION(float(correlation), 1.0))


def told(last: Ends) -> str:
    what = (
        f"{last.one_out:.0%} of the choices when left out"
        if last.fresh is None
        else f"{last.fresh:.0%} of {FRESH} fresh pairs"
    )
    return f"done: right about {last.agreement:.0%} of what it learned and {what}"
