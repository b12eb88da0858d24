r"""What may be answered: any card the policy can write, or one of three. How both are measured, for DPO and best-of-n.

Whole cards are too many to count, so everything is estimated from samples; what a policy does to them is measured on
six prompts, each name once. Of three cards everything is known: their probabilities are the policy's own, scaled to sum
to 1, so KL and mean rewards are sums over three terms, with nothing drawn.

Rewards are counted from the reference's mean, in standard deviations of its answers: gold and proxy have other units.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.transformer import Transformer
from core.rlhf.best_of_n import Best, Pool, best_of, best_of_pool, divergence, frontier, rungs, tilted
from core.rlhf.policy import Cards, answer_mask, card_log_probs, load_policy, sample
from core.rlhf.postcards import GREETINGS, NAMES, NUMBER, START, gold_of, readable, tokens_of, words_of
from core.rlhf.reward import YOU, RewardModel

SHOWN = 4  # prompts whose cards are shown
SEEN = 16  # cards per prompt when a policy is looked at
AT_ONCE = 128  # cards in one unit of work
MOST_UNITS = 3  # per prompt: best-of-n takes its answers from the cards that these draw
THREE = ("the bus is late .", "i love the sea !", "the sea is calm !")
FURTHEST = 4.0  # nats: how far the ideal curve is drawn


@dataclass(frozen=True)
class Judges:
    """The two who judge a card: the reward model that was learned, and the hidden rule (nobody, if the user
    chooses).
    """

    model: RewardModel
    rule: str

    def proxy(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N"]:
        return self.model(tokens, answer_mask(tokens))

    def gold(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N"]:
        return gold_by(self.rule, tokens)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a reward over the reference's answers."""

    mean: float
    std: float  # never 0

    def __call__(self, reward: float) -> float:
        return (reward - self.mean) / self.std


@dataclass(frozen=True)
class Seen:
    """A policy, looked at. Rewards as the judges give them."""

    kl: float  # nats
    gold: float
    proxy: float
    text: str


@dataclass(frozen=True)
class Survey:
    """What the reference and its best-of-n are worth."""

    gold: Scale
    proxy: Scale
    best: tuple[Best, ...]
    ideal: tuple[tuple[float, float], ...]  # (KL, proxy) of the best policies there are
    chosen: tuple[str, ...]  # by each best of n


@runtime_checkable
class Answers(Protocol):
    """An answer space."""

    def written(self, policy: Transformer) -> str: ...

    def look(self, policy: Transformer, judges: Judges) -> Generator[None, None, Seen]: ...

    def survey(self, judges: Judges, most_n: int) -> Generator[None, None, Survey]: ...


# --- whole cards ------------------------------------------------------------------------------------------------------


def six_prompts() -> Int[Tensor, "P 4"]:
    """Each name once, the greetings in turn."""
    return torch.tensor(
        [[START, NUMBER[GREETINGS[i % len(GREETINGS)]], NUMBER[name], NUMBER[","]] for i, name in enumerate(NAMES)]
    )


@torch.no_grad()
def card_kl(policy: Transformer, reference: Transformer, cards: Cards) -> Float[Tensor, "N"]:
    """KL of the next word, exact over all words, summed over the places of each card: its mean over the policy's own
    cards is KL(policy || reference) in nats per card, with less noise than ln of the two probabilities of the card
    itself."""
    p, q = (F.log_softmax(model(cards.tokens[:, :-1]), -1) for model in (policy, reference))  # (N, T-1, V)
    return ((p.exp() * (p - q)).sum(-1) * cards.mask[:, 1:]).sum(1)


def gold_by(rule: str, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N"]:
    """The hidden rule's points; a user's are not known."""
    return torch.full((len(tokens),), math.nan) if rule == YOU else gold_of(tokens, rule)


def listed(tokens: Int[Tensor, "N T"], rule: str) -> str:
    """One card a line, with the rule's points where there is a rule."""
    cards, points = [readable(words_of(row)) for row in tokens], gold_by(rule, tokens).tolist()
    return "\n".join(
        card if rule == YOU else f"{point:+.1f}  {card}" for card, point in zip(cards, points, strict=True)
    )


class WholeCards:
    """All that can be written, measured by drawing."""

    def __init__(self, rule: str, seed: int) -> None:
        self.rule, self.seed, self.reference, self.asked = rule, seed, load_policy(), six_prompts()

    def drawn(self, policy: Transformer) -> Cards:
        """Always the same prompts and random numbers, so that policies that are equal write equal cards."""
        return sample(policy, self.asked.repeat_interleave(SEEN, 0), torch.Generator().manual_seed(self.seed))

    def written(self, policy: Transformer) -> str:
        return self.shown(self.drawn(policy))

    def shown(self, cards: Cards) -> str:
        return listed(cards.tokens[::SEEN][:SHOWN], self.rule)

    def look(self, policy: Transformer, judges: Judges) -> Generator[None, None, Seen]:
        cards = self.drawn(policy)
        yield
        kl = float(card_kl(policy, self.reference, cards).mean())
        gold, proxy = (float(judge(cards.tokens).mean()) for judge in (judges.gold, judges.proxy))
        return Seen(kl, gold, proxy, self.shown(cards))

    def survey(self, judges: Judges, most_n: int) -> Generator[None, None, Survey]:
        """A pool of the reference's answers to each prompt, and what best-of-n makes of it."""
        rng, tokens = torch.Generator().manual_seed(self.seed + 1), list[Tensor]()
        units = min(
            MOST_UNITS, math.ceil(6 * most_n / AT_ONCE)
        )  # each half of the pool holds 3 n answers, if time allows
        for asked in self.asked:
            for _ in range(units):
                tokens.append(sample(self.reference, asked.expand(AT_ONCE, -1), rng).tokens)
                yield
        flat = torch.cat(tokens)
        proxy, gold = (judge(flat).view(len(self.asked), -1) for judge in (judges.proxy, judges.gold))
        yield
        best = tuple(best_of_pool(Pool(proxy, gold), n) for n in rungs(most_n))
        ideal = frontier(torch.full_like(proxy, 1 / proxy.shape[1]), proxy, FURTHEST)
        rows = list(zip(flat.view(*proxy.shape, -1), proxy, strict=True))[:SHOWN]  # of each prompt
        chosen = [torch.stack([cards[points[:n].argmax()] for cards, points in rows]) for n in rungs(most_n)]
        texts = tuple(listed(cards, self.rule) for cards in chosen)
        return Survey(scale_of(gold), scale_of(proxy), best, ideal, texts)


def scale_of(rewards: Tensor) -> Scale:
    """Of answers drawn from the reference."""
    return Scale(float(rewards.mean()), float(rewards.std()) or 1.0)


# --- three cards ------------------------------------------------------------------------------------------------------


class ThreeCards:
    """Three answers to `dear anna,`: everything is known."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.tokens = tokens_of([["<start>", "dear", "anna", ",", *card.split(), "<end>"] for card in THREE])
        self.mask = answer_mask(self.tokens)
        self.p = self.chances(load_policy())

    @torch.no_grad()
    def chances(self, policy: Transformer) -> Float[Tensor, "A"]:
        """The policy's probabilities, if it may give these answers only."""
        return torch.softmax(card_log_probs(policy, Cards(self.tokens, self.mask)).double(), 0)

    def written(self, policy: Transformer) -> str:
        return self.told(self.chances(policy))

    def told(self, q: Float[Tensor, "A"]) -> str:
        lines = zip(q.tolist(), listed(self.tokens, self.rule).split("\n"), strict=True)
        return "\n".join(f"{chance:6.1%}  {line}" for chance, line in lines)

    def look(self, policy: Transformer, judges: Judges) -> Generator[None, None, Seen]:
        yield
        return self.seen(self.chances(policy), judges)

    def seen(self, q: Float[Tensor, "A"], judges: Judges) -> Seen:
        gold, proxy = (float(q @ judge(self.tokens).double()) for judge in (judges.gold, judges.proxy))
        return Seen(float(divergence(q, self.p)), gold, proxy, self.told(q))

    def survey(self, judges: Judges, most_n: int) -> Generator[None, None, Survey]:
        yield
        gold, proxy = judges.gold(self.tokens).double(), judges.proxy(self.tokens)
        found = [(n, self.seen(best_of(self.p, proxy, n), judges)) for n in rungs(most_n)]
        best = tuple(Best(n, seen.kl, 0.0, seen.proxy, seen.gold) for n, seen in found)
        ideal = frontier(self.p[None], proxy.double()[None], FURTHEST)
        return Survey(self.scale(gold), self.scale(proxy.double()), best, ideal, tuple(seen.text for _, seen in found))

    def scale(self, rewards: Float[Tensor, "A"]) -> Scale:
        mean = float(self.p @ rewards)
        return Scale(mean, math.sqrt(float(self.p @ (rewards - mean) ** 2)) or 1.0)

    def target(self, judges: Judges, beta: float) -> Seen:
        """The policy that DPO must end at."""
        return self.seen(tilted(self.p, judges.proxy(self.tokens), beta), judges)

    def kl_of_best(self, judges: Judges, ns: Sequence[int]) -> list[float]:
        proxy = judges.proxy(self.tokens)
        return [float(divergence(best_of(self.p, proxy, n), self.p)) for n in ns]

    def cap(self, judges: Judges) -> float:
        """-ln p of the best answer: KL cannot pass it."""
        return -math.log(float(self.p[judges.proxy(self.tokens).argmax()]))
