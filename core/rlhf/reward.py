r"""The reward model: a number for every card, learned from choices between two.

Nobody can say how many points a card is worth, but anybody can say which of two they like better. Bradley and Terry's
model ties the two together: the chance that card $w$ is preferred to card $l$ is the sigmoid of the difference of
their rewards, so the loss of a choice is its surprisal,

$$\mathcal{L} = -\frac1N \sum_{(w,\,l)} \ln \sigma\big(r(w) - r(l)\big), \qquad \mathcal{L} = \ln 2 \text{ where } r(w)
= r(l).$$

Only differences count: any constant may be added to $r$. Afterwards it is shifted and scaled to mean 0 and standard
deviation 1 on the reference's cards, so that a reward of 2 means the same whoever chose.

The model reads words as the policy does (its vector for each word, frozen), values each and adds the values up.
Words that keep company have similar vectors, so a word that was never compared gets a fraction of its neighbors' value.
A sum has no end: a word said ten times counts ten times. No pair of ordinary cards shows that to be wrong; a policy
that is paid by this model finds it out (`hacking`).

Left out: the transformer's layers, on which InstructGPT's reward model stands (tried: with 40 choices they agree less
with new ones than this does), an ensemble of models, noise in the choices.
Source: Bradley and Terry 1952, doi.org/10.2307/2334029; Christiano et al. 2017, arXiv:1706.03741; Stiennon et al. 2020,
arXiv:2009.01325, section 3.4 (loss, normalization); Ouyang et al. 2022, arXiv:2203.02155, equation 1.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.foundations.experiment import Config, setting
from core.foundations.settings import seed_field
from core.foundations.turns import without_pauses
from core.rlhf.policy import Cards, load_policy, prompts, sample
from core.rlhf.postcards import RULES, WORDS, gold_of, readable, words_of

PAIRS = 40  # that are shown to the user, and that a rule decides
FEWEST = 2  # clicks that can be learned from
STEPS = 100  # of the reward model's training
RATE = 0.003
OWN = 3.0  # how fast a word's own number learns beside what the policy knows of the word
YOU = "you"


@dataclass(frozen=True)
class TasteConfig(Config):
    """Whose taste it is: what all experiments of this topic share."""

    rule: str = setting(
        "cheerful",
        "Who chooses",
        choices={YOU: "you: your own clicks"} | {name: rule.what for name, rule in RULES.items()},
        help="A simulated person with a taste chooses between the cards, or you do by clicking.",
    )
    clicks: str = setting(
        "",
        "Your clicks",
        high=PAIRS,
        when=("rule", YOU),
        help="One letter, a or b, for each pair shown in preferences, in order; clicking writes them.",
    )
    seed: int = seed_field(
        help="Another seed gives other cards; the same seed gives the same run, bit for bit.", high=2**32 - 1
    )

    def check(self) -> None:
        wrong = sorted(set(self.clicks) - set("ab"))
        if wrong:
            raise ValueError(f"clicks must be letters a and b only, one for each pair, got {wrong[0]!r}")


# --- pairs and choices ------------------------------------------------------------------------------------------------


def pairs(count: int, seed: int, temperature: float = 1.0) -> tuple[Cards, Cards]:
    """Two answers of the reference policy to each of `count` prompts, never the same text twice in a pair.

    A longer list begins with the shorter one.
    """
    drawn, first, second = blocks(seed, temperature), list[Cards](), list[Cards]()
    while sum(map(len, first)) < count:
        one, other = next(drawn)
        first.append(one)
        second.append(other)
    return picked(joined(first), slice(count)), picked(joined(second), slice(count))


def blocks(seed: int, temperature: float = 1.0) -> Iterator[tuple[Cards, Cards]]:
    """The list of pairs that belongs to a seed, without end, about `PAIRS` at a time."""
    model, rng = load_policy(), torch.Generator().manual_seed(seed)
    while True:
        asked = prompts(PAIRS, rng)
        one, other = sample(model, asked, rng, temperature), sample(model, asked, rng, temperature)
        differ = (one.tokens != other.tokens).any(1)
        if not differ.any():
            raise ValueError(f"temperature must be higher: at {temperature:g} both answers of every pair are the same")
        yield picked(one, differ), picked(other, differ)


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


def choosing(config: TasteConfig, count: int = PAIRS, seed: int | None = None) -> Generator[None, None, Choices]:
    """What there is to learn from: your clicks, or the first `count` pairs of the same list that the rule can decide.

    Yields between its units of work. With another seed it is what the rule says of other pairs.
    """
    if config.rule == YOU:
        check_enough(len(config.clicks))
        first, second = pairs(PAIRS, config.seed)
        wins = labels(config, first, second)
        return of(picked(first, slice(len(wins))), picked(second, slice(len(wins))), wins)
    found: list[tuple[Cards, Cards]] = []
    for one, other in blocks(config.seed if seed is None else seed):
        found.append(decided(config.rule, one, other, count))
        yield
        if sum(len(cards) for cards, _ in found) >= count:
            break
    first, second = (picked(joined([part[k] for part in found]), slice(count)) for k in (0, 1))
    return of(first, second, labels(config, first, second))


def choices(config: TasteConfig, count: int = PAIRS) -> Choices:
    """`choosing`, all at once."""
    return without_pauses(choosing(config, count))


def decided(rule: str, first: Cards, second: Cards, count: int) -> tuple[Cards, Cards]:
    """The first `count` pairs of which the rule likes one better."""
    which = (gold_of(first.tokens, rule) != gold_of(second.tokens, rule)).nonzero()[:count, 0]
    return picked(first, which), picked(second, which)


def of(first: Cards, second: Cards, first_wins: Bool[Tensor, "N"]) -> Choices:
    """Pairs and who won as choices, unless nothing can be learned from them."""
    pick = first_wins[:, None]
    won = Cards(torch.where(pick, first.tokens, second.tokens), torch.where(pick, first.mask, second.mask))
    lost = Cards(torch.where(pick, second.tokens, first.tokens), torch.where(pick, second.mask, first.mask))
    told = {(tuple(one), tuple(other)) for one, other in zip(won.tokens.tolist(), lost.tokens.tolist(), strict=True)}
    check_enough(len(first_wins))
    if all((loser, winner) in told for winner, loser in told):
        raise ValueError(
            "The choices contradict each other, each pair was decided both ways, so there is nothing to learn from them"
        )
    return Choices(won, lost)


def check_enough(count: int) -> None:
    if count < FEWEST:
        got = ("none", "one")[count]
        raise ValueError(
            f"At least {FEWEST} choices are needed to learn from, there is {got}: click the better card of more pairs"
            " in preferences"
        )


def text_of(row: Int[Tensor, "T"]) -> str:
    return readable(words_of(row))


# --- the model and its training ---------------------------------------------------------------------------------------


class RewardModel(nn.Module):
    """A card in, a number out: the value of each word of the answer, added up. All rewards are 0 before training.

    A word is described by its vector in the policy's embedding, and by a number of its own for what only the choices
    tell; one weight for each of these is all that is learned. `pretrained` off leaves out the vectors: a model that
    starts from nothing, to compare with.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        vectors = load_policy().embed.weight.detach()  # (V, C)
        known = [F.layer_norm(vectors, vectors.shape[1:])] if pretrained else []
        self.words: Tensor
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("words", torch.cat([*known, OWN * torch.eye(len(WORDS))], 1))  # (V, C + V)
        self.taste = nn.Parameter(torch.zeros(self.words.shape[1]))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def values(self) -> Float[Tensor, "V"]:
        """What the model pays for each word, before normalization."""
        return self.words @ self.taste  # (V, C + V) @ (C + V,)

    def forward(self, tokens: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]) -> Float[Tensor, "N"]:
        return ((self.values()[tokens] * mask).sum(1) - self.shift) / self.scale

    @torch.no_grad()
    def normalise(self, cards: Cards) -> None:
        """From now on: mean 0 and standard deviation 1 on these cards."""
        rewards = self(cards.tokens, cards.mask) * self.scale + self.shift
        self.shift, self.scale = rewards.mean(), rewards.std().clamp_min(1e-6)


def bradley_terry_loss(won: Float[Tensor, "N"], lost: Float[Tensor, "N"]) -> Tensor:
    """Mean surprisal at the choices, in nats: ln 2 where both rewards are equal."""
    return -F.logsigmoid(won - lost).mean()


def train_reward(
    model: RewardModel, chosen: Choices, steps: int = STEPS, learning_rate: float = RATE
) -> Iterator[float]:
    """Learn from the choices, all of them at every step; yields each step's loss in nats, before its update."""
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        loss = bradley_terry_loss(
            model(chosen.won.tokens, chosen.won.mask), model(chosen.lost.tokens, chosen.lost.mask)
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())


def trained_reward(config: TasteConfig) -> Generator[None, None, RewardModel]:
    """The reward model of this taste: yields between its units of work, then returns it."""
    return (yield from reward_from((yield from choosing(config)), config.seed))


def reward_from(chosen: Choices, seed: int) -> Generator[None, None, RewardModel]:
    """The reward model of these choices, normalized on the reference's cards."""
    model = RewardModel()
    for _ in train_reward(model, chosen):
        yield
    cards = reference_cards(200, seed + 1)
    yield
    model.normalise(cards)
    return model.requires_grad_(False).eval()


def reference_cards(count: int, seed: int) -> Cards:
    """What the reference policy writes."""
    rng = torch.Generator().manual_seed(seed)
    return sample(load_policy(), prompts(count, rng), rng)
