r"""The reward model: a number for every card, learnt from choices between two.

Nobody can say how many points a card is worth, but anybody can say which of two they like better. Bradley and Terry's
model ties the two together: the chance that card $w$ is preferred to card $l$ is the sigmoid of the difference of
their rewards, so the loss of a choice is its surprise,

$$\mathcal{L} = -\frac1N \sum_{(w,\,l)} \ln \sigma\big(r(w) - r(l)\big), \qquad \mathcal{L} = \ln 2 \text{ where } r(w) = r(l).$$

Only differences count: any constant may be added to $r$. Afterwards it is shifted and scaled to mean 0 and standard
deviation 1 on the reference's cards, so that a reward of 2 means the same whoever chose.

The model reads the words as the policy does (its embedding of each word, frozen), values each and adds the values up.
Words that keep company lie close together there, so a word that was never judged gets a share of its neighbours' value.
A sum has no end: a word said ten times counts ten times. No pair of ordinary cards shows that to be wrong; a policy
that is paid by this model finds it out (`hacking`).

Left out: the transformer's layers (with a few dozen choices they only remember the cards), an ensemble, noise in the choices.
Source: Bradley and Terry 1952, doi.org/10.2307/2334029; Christiano et al. 2017, arXiv:1706.03741; Stiennon et al. 2020,
arXiv:2009.01325, section 3.4 (loss, normalisation); Ouyang et al. 2022, arXiv:2203.02155, equation 1.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.foundations.experiment import Config, Step, setting
from core.rlhf.policy import Cards, load_policy, prompts, sample
from core.rlhf.postcards import RULES, gold_of, readable, words_of

PAIRS = 40  # that are shown to the user, and that a rule decides
FEWEST = 2  # clicks that can be learnt from
STEPS = 100  # of the reward model's training
YOU = "you"

T = TypeVar("T")
S = TypeVar("S", bound=Step)


@dataclass(frozen=True)
class TasteConfig(Config):
    """Whose taste it is: what all experiments of this topic share."""

    rule: str = setting("cheerful", "Who chooses", choices={YOU: "you: your own clicks"} | {name: rule.what for name, rule in RULES.items()})
    clicks: str = setting("", "Your clicks", high=PAIRS, when=("rule", YOU), help="a or b for each pair shown in preferences, in order")
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="other cards; the same seed gives the same run, bit for bit")

    def check(self) -> None:
        wrong = sorted(set(self.clicks) - set("ab"))
        if wrong:
            raise ValueError(f"clicks must be letters a and b only, one for each pair, got {wrong[0]!r}")


# --- pairs and choices ------------------------------------------------------------------------------------------------


def pairs(count: int, seed: int, temperature: float = 1.0) -> tuple[Cards, Cards]:
    """Two answers of the reference policy to each of `count` prompts, never the same text twice in a pair.

    A longer list begins with the shorter one.
    """
    model, dice = load_policy(), torch.Generator().manual_seed(seed)
    first, second = list[Cards](), list[Cards]()
    while sum(map(len, first)) < count:
        asked = prompts(PAIRS, dice)
        one, other = sample(model, asked, dice, temperature), sample(model, asked, dice, temperature)
        differ = (one.tokens != other.tokens).any(1)
        if not differ.any():
            raise ValueError(f"temperature must be higher: at {temperature:g} both answers of every pair are the same")
        first.append(picked(one, differ))
        second.append(picked(other, differ))
    return picked(joined(first), slice(count)), picked(joined(second), slice(count))


def picked(cards: Cards, which: Tensor | slice) -> Cards:
    return Cards(cards.tokens[which], cards.mask[which])


def joined(parts: list[Cards]) -> Cards:
    return Cards(torch.cat([part.tokens for part in parts]), torch.cat([part.mask for part in parts]))


def labels(config: TasteConfig, first: Cards, second: Cards) -> Bool[Tensor, "N"]:
    """Which of each pair is preferred: True where it is the first. Without noise.

    With the rule "you" it is as many as there are clicks. Where a rule likes both the same, this says the second;
    `choices` leaves such pairs out.
    """
    if config.rule == YOU:
        return torch.tensor([letter == "a" for letter in config.clicks[: len(first)]], dtype=torch.bool)
    return gold_of(first.tokens, config.rule) > gold_of(second.tokens, config.rule)


@dataclass(frozen=True)
class Choices:
    """Cards that were preferred, row by row beside the ones they were preferred to."""

    won: Cards
    lost: Cards

    def __len__(self) -> int:
        return len(self.won)


def choices(config: TasteConfig, count: int = PAIRS) -> Choices:
    """What there is to learn from: your clicks, or the first `count` pairs of the same list that the rule can decide."""
    if config.rule == YOU:
        first, second = pairs(PAIRS, config.seed)
        if len(config.clicks) < FEWEST:
            raise ValueError(f"At least {FEWEST} choices are needed to learn from, got {len(config.clicks)}: choose between more pairs in preferences")
    else:
        first, second = decided(config.rule, *pairs(count * 5 // 2, config.seed), count)
    wins = labels(config, first, second)
    return of(picked(first, slice(len(wins))), picked(second, slice(len(wins))), wins)


def decided(rule: str, first: Cards, second: Cards, count: int) -> tuple[Cards, Cards]:
    """The first `count` pairs of which the rule likes one better."""
    which = (gold_of(first.tokens, rule) != gold_of(second.tokens, rule)).nonzero()[:count, 0]
    return picked(first, which), picked(second, which)


def of(first: Cards, second: Cards, first_wins: Bool[Tensor, "N"]) -> Choices:
    """Pairs and who won as choices, unless nothing can be learnt from them."""
    pick = first_wins[:, None]
    won = Cards(torch.where(pick, first.tokens, second.tokens), torch.where(pick, first.mask, second.mask))
    lost = Cards(torch.where(pick, second.tokens, first.tokens), torch.where(pick, second.mask, first.mask))
    told = {(text_of(one), text_of(other)) for one, other in zip(won.tokens, lost.tokens, strict=True)}
    if len(first_wins) < FEWEST:
        raise ValueError(f"At least {FEWEST} choices are needed to learn from, got {len(first_wins)}: choose between more pairs in preferences")
    if all((loser, winner) in told for winner, loser in told):
        raise ValueError("The choices contradict each other, each pair was decided both ways, so there is nothing to learn from them")
    return Choices(won, lost)


def text_of(row: Int[Tensor, "T"]) -> str:
    return readable(words_of(row))


# --- the model and its training ---------------------------------------------------------------------------------------


class RewardModel(nn.Module):
    """A card in, a number out: the value of each word of the answer, added up. All rewards are 0 before training."""

    def __init__(self) -> None:
        super().__init__()
        self.embed: Tensor
        words = load_policy().embed.weight.detach()
        self.register_buffer("embed", F.layer_norm(words, words.shape[1:]))  # (V, C), frozen
        self.taste = nn.Parameter(torch.zeros(words.shape[1]))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def values(self) -> Float[Tensor, "V"]:
        """What the model pays for each word, before normalisation."""
        return self.embed @ self.taste  # (V, C) @ (C,)

    def forward(self, tokens: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
        return ((self.values()[tokens] * mask).sum(1) - self.shift) / self.scale

    @torch.no_grad()
    def normalise(self, cards: Cards) -> None:
        """From now on: mean 0 and standard deviation 1 on these cards."""
        rewards = self(cards.tokens, cards.mask) * self.scale + self.shift
        self.shift, self.scale = rewards.mean(), rewards.std().clamp_min(1e-6)


def bradley_terry_loss(won: Float[Tensor, "N"], lost: Float[Tensor, "N"]) -> Tensor:
    """Mean surprise at the choices, in nats: ln 2 where both rewards are equal."""
    return -F.logsigmoid(won - lost).mean()


def train_reward(model: RewardModel, chosen: Choices, steps: int = STEPS, learning_rate: float = 0.03) -> Iterator[float]:
    """Learn from the choices, all of them at every step; yields each step's loss in nats, before its correction."""
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        loss = bradley_terry_loss(model(chosen.won.tokens, chosen.won.mask), model(chosen.lost.tokens, chosen.lost.mask))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def trained_reward(config: TasteConfig) -> Generator[None, None, RewardModel]:
    """The reward model of this taste, normalised: yields between its units of work, then returns it (see `meanwhile`)."""
    chosen = choices(config)
    yield
    model = RewardModel()
    for _ in train_reward(model, chosen):
        yield
    model.normalise(reference_cards(200, config.seed + 1))
    return model.requires_grad_(False).eval()


def meanwhile(job: Generator[Any, None, T], pause: S) -> Generator[S, None, T]:
    """`result = yield from meanwhile(trained_reward(config), MyStep(...))`: the Step goes out between the job's units."""
    while True:
        try:
            next(job)
        except StopIteration as done:
            return done.value
        yield pause


def reference_cards(count: int, seed: int) -> Cards:
    """What the reference policy writes."""
    dice = torch.Generator().manual_seed(seed)
    return sample(load_policy(), prompts(count, dice), dice)
