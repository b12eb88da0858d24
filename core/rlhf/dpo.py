r"""DPO: the clicks go straight into the policy, without a reward model and without sampling.

Of all policies, the one with the most reward $r$ for its distance from the reference is known in closed form, $\pi^*
\propto \pi_{ref}\, e^{r/\beta}$. Turned around, every policy is the best one for some reward, up to a constant per
prompt: its *implicit reward*

$$\hat r(y) = \beta \ln \frac{\pi_\theta(y)}{\pi_{ref}(y)}.$$

Put that into the Bradley-Terry loss of a reward model and the reward model is gone. For the chosen card $y_w$ and the
rejected one $y_l$ of the pair:

$$\mathcal{L} = -\ln \sigma\!\left(\beta \ln \frac{\pi_\theta(y_w)}{\pi_{ref}(y_w)} - \beta \ln
\frac{\pi_\theta(y_l)}{\pi_{ref}(y_l)}\right)$$

At the start policy and reference are the same, so both implicit rewards are 0 and the loss is $\ln 2$. Its gradient
raises $\ln \pi_\theta(y_w)$ and lowers $\ln \pi_\theta(y_l)$ by $\beta\,\sigma(\hat r(y_l) - \hat r(y_w))$: much where
the policy still has the pair the wrong way round, little where it is right.

The chart asks of every method the same: how much reward for how much KL to the reference? Both rewards are counted from
the reference's mean, in standard deviations of its cards: the *gold* reward is the hidden rule's own, the *proxy* that
of the reward model learned from the same clicks. Nothing in the DPO loss sees what the policy would write now: it can
raise the margin of a pair by making both of its cards improbable, and words that stand in neither take their place.
Where the path jumps to the right, a few cards of the sample have left the grammar, and each costs ten nats or more. A
small beta or few pairs let you watch that.

With three answers only, everything is exact: the learned reward says how often each wins, and DPO must end at $\pi^*$.

Code -> paper: chosen -> y_w, rejected -> y_l, `log_ratios` -> ln of pi_theta over pi_ref, `tilted` -> pi_r (eq. 4).
Left out: pairs drawn anew from the policy (online DPO), label smoothing, a loss averaged over words.
Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 4 and 7 and the gradient below it; what goes wrong far from the
reference: Rafailov et al. 2024, arXiv:2406.02900.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses
from core.rlhf.answers import Answers, Judges, Survey, ThreeCards, WholeCards
from core.rlhf.policy import Cards, card_log_probs, load_policy
from core.rlhf.reward import YOU, Choices, TasteConfig, choosing, picked, reward_from

FIRST_LOSS = Figure(
    "DPO loss at the start", "nats", "theory", "ln 2: policy and reference are the same, so all margins are 0"
)
PROXY = Figure(
    "learned reward of DPO",
    "standard deviations",
    "baseline",
    "best of n at the same KL, between its points",
    headline=True,
)
GOLD = Figure(
    "true reward of DPO",
    "standard deviations",
    "baseline",
    "best of n at the same KL, between its points",
    headline=True,
)
ACCURACY = Figure("accuracy on pairs it has not seen", "%", "baseline", "a guess", headline=True)
TARGET_KL = Figure(
    "KL of DPO, three answers", "nats", "theory", "pi* at this beta, Rafailov et al. 2023, eq. 4", headline=True
)
BATCH = 32  # pairs in a step of DPO
WARM_UP = 20  # steps
LOOKS = 12  # at the policy, in a run
FAR = 1_000_003  # from the seed of the pairs that are trained on to that of others
HELD_OUT = 64  # pairs of the rule's that nothing is trained on; of a user's clicks, one in five


@dataclass(frozen=True)
class DpoConfig(TasteConfig):
    """The settings of DPO, and how far best-of-n goes beside it."""

    beta: float = setting(
        0.5,
        "Beta (KL penalty)",
        low=0.01,
        high=10.0,
        help="Higher keeps the policy closer to the reference; lower lets it go further for the same choices.",
        slider=True,
    )
    steps: int = setting(
        60,
        "Steps",
        unit="step",
        low=1,
        high=1000,
        help="More steps fit the pairs more closely and move the policy further.",
    )
    pairs_used: int = setting(
        200,
        "Preference pairs",
        unit="pair",
        low=2,
        high=1000,
        help="More pairs teach DPO and the reward model more. Of your own clicks, all there are.",
    )
    most_n: int = setting(
        64,
        "Best of up to",
        unit="answer",
        low=1,
        high=128,
        more=True,
        help="How far the best of n is drawn, to compare with.",
    )
    answers: str = setting(
        "cards",
        "Possible answers",
        choices={"cards": "whole cards", "three": "three cards, no others"},
        help="Whole cards are many; with three cards only, everything can be computed exactly.",
    )
    learning_rate: float = setting(
        0.001,
        "Learning rate",
        low=1e-6,
        high=0.1,
        more=True,
        help="Higher makes each step larger: faster, until the weights blow up.",
    )


@dataclass(frozen=True)
class DpoStep(Step):
    """One step of DPO, or what was found out before and after; what did not happen in it is None or empty.

    In `path`, `best` and `ideal` rewards are counted from the reference's mean in standard deviations of its answers.
    """

    step: int
    loss: float | None = None  # nats
    chosen_reward: float | None = None  # mean implicit reward of the chosen cards of the batch
    rejected_reward: float | None = None
    held_out: float | None = None  # loss on pairs that are not trained on
    accuracy: float | None = None  # fraction of those pairs that the implicit reward has the right way round
    path: tuple[tuple[int, float, float, float], ...] = ()  # (step, KL, gold, proxy) of the policy so far
    best: tuple[tuple[int, float, float, float], ...] = ()  # (n, KL, gold, proxy) of best-of-n
    ideal: tuple[tuple[float, float], ...] = ()  # (KL, proxy): no policy has more
    before: str = ""
    after: str = ""


# --- the loss ---------------------------------------------------------------------------------------------------------


def dpo_loss(log_ratios: Float[Tensor, "M 2"], beta: float, sure: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Equation 7, pair by pair. log_ratios: ln of pi/pi_ref, of the chosen card and of the rejected one.

    sure: how often the first is chosen. For a click that is 1; if it is less, this is the mean over both outcomes.
    """
    margin = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    return -(sure * F.logsigmoid(margin) + (1 - sure) * F.logsigmoid(-margin))


@dataclass(frozen=True)
class Preferences:
    """Pairs of cards, the chosen one first, with what the reference makes of them."""

    tokens: Int[Tensor, "M 2 T"]
    mask: Bool[Tensor, "M 2 T"]
    reference: Float[Tensor, "M 2"]  # ln pi_ref of each card
    sure: Float[Tensor, "M"]

    def __len__(self) -> int:
        return len(self.tokens)


def pair_log_probs(
    policy: Transformer, tokens: Int[Tensor, "M 2 T"], mask: Bool[Tensor, "M 2 T"]
) -> Float[Tensor, "M 2"]:
    """ln of the probability of each card of each pair."""
    return card_log_probs(policy, Cards(tokens.flatten(0, 1), mask.flatten(0, 1))).view(-1, 2)


class Learner:
    """A policy that learns from pairs."""

    def __init__(self, config: DpoConfig, preferences: Preferences) -> None:
        self.config, self.preferences = config, preferences
        self.policy, self.rng = load_policy(), torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.learning_rate, betas=(0.9, 0.98))
        self.steps = 0

    def log_ratios(self, pairs: Preferences, rows: Int[Tensor, "m"]) -> Float[Tensor, "m 2"]:
        return pair_log_probs(self.policy, pairs.tokens[rows], pairs.mask[rows]) - pairs.reference[rows]

    def learn(self) -> tuple[float, float, float]:
        """One step on some of the pairs: the loss and both mean implicit rewards, before its update."""
        self.steps += 1
        rows = torch.randperm(len(self.preferences), generator=self.rng)[:BATCH]
        ratios = self.log_ratios(self.preferences, rows)
        loss = dpo_loss(ratios, self.config.beta, self.preferences.sure[rows]).mean()
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * min(1.0, self.steps / WARM_UP)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        chosen, rejected = (self.config.beta * ratios.detach().mean(0)).tolist()
        return float(loss.detach()), chosen, rejected

    @torch.no_grad()
    def evaluated(self, held_out: Preferences) -> tuple[float, float]:
        """Loss on pairs that were not trained on, and the fraction of them with a positive margin; a margin of 0 counts
        half.
        """
        ratios = self.log_ratios(held_out, torch.arange(len(held_out)))
        right = torch.sign(ratios[:, 0] - ratios[:, 1]) * torch.sign(held_out.sure - 0.5)
        return float(dpo_loss(ratios, self.config.beta, held_out.sure).mean()), float((1 + right).mean() / 2)

    @property
    def sound(self) -> bool:
        return all(bool(weight.isfinite().all()) for weight in self.policy.parameters())


# --- what is learned from
# ----------------------------------------------------------------------------------------------


def what_was_chosen(config: DpoConfig) -> Generator[None, None, tuple[Choices, Choices]]:
    """The choices to learn from, and others to judge by."""
    if config.rule != YOU:
        chosen = yield from choosing(config, config.pairs_used)
        yield
        return chosen, (yield from choosing(config, HELD_OUT, config.seed + FAR))
    clicked = yield from choosing(config)
    kept = max(1, len(clicked) // 5)
    last = Choices(picked(clicked.won, slice(-kept, None)), picked(clicked.lost, slice(-kept, None)))
    return Choices(picked(clicked.won, slice(-kept)), picked(clicked.lost, slice(-kept))), last


def with_reference(reference: Transformer, chosen: Choices) -> Generator[None, None, Preferences]:
    """Pairs with what the reference gives them, computed once."""
    tokens, mask = (
        torch.stack([chosen.won.tokens, chosen.lost.tokens], 1),
        torch.stack([chosen.won.mask, chosen.lost.mask], 1),
    )
    found = []
    for part, its_mask in zip(tokens.split(BATCH), mask.split(BATCH), strict=True):
        with torch.no_grad():
            found.append(pair_log_probs(reference, part, its_mask))
        yield
    return Preferences(tokens, mask, torch.cat(found), torch.ones(len(tokens)))


def among_three(three: ThreeCards, judges: Judges) -> Generator[None, None, Preferences]:
    """Every pair of the three answers; the learned reward says how often the first is chosen."""
    cards, proxy = Cards(three.tokens, three.mask), judges.proxy(three.tokens)
    order = proxy.argsort(descending=True)
    first, second = order[torch.tensor([[0, 0, 1], [1, 2, 2]])]  # the better one of each pair first
    made = yield from with_reference(load_policy(), Choices(picked(cards, first), picked(cards, second)))
    return replace(made, sure=torch.sigmoid(proxy[first] - proxy[second]))


# --- the run ----------------------------------------------------------------------------------------------------------


@experiment("Do the clicks need a reward model, or can the policy learn from them directly?")
def dpo(config: DpoConfig) -> Iterator[DpoStep]:
    """A reward model and its best-of-n first, then DPO on the same choices: reward against distance from the
    reference.
    """
    space: Answers = ThreeCards(config.rule) if config.answers == "three" else WholeCards(config.rule, config.seed)
    before = space.written(load_policy())
    yield DpoStep(
        0,
        chosen_reward=0.0,
        rejected_reward=0.0,
        path=((0, 0.0, 0.0, 0.0),),
        before=before,
        after=before,
        doing="at the start the policy is the reference: both implicit rewards are 0",
    )
    chosen, others = yield from with_pauses(what_was_chosen(config), DpoStep(0))
    model = yield from with_pauses(reward_from(chosen, config.seed), DpoStep(0))
    judges, three = Judges(model, config.rule), ThreeCards(config.rule)
    yield DpoStep(
        0, doing=f"a reward model has learned from {len(chosen)} choices; drawing from the reference for best of n"
    )
    survey = yield from with_pauses(space.survey(judges, config.most_n), DpoStep(0))
    told = replace(told_best(config, survey), before=before, after=before)
    yield told
    if config.answers == "three":
        train = held_out = yield from with_pauses(among_three(three, judges), DpoStep(0))
    else:
        train = yield from with_pauses(with_reference(load_policy(), chosen), DpoStep(0))
        held_out = yield from with_pauses(with_reference(load_policy(), others), DpoStep(0))
    learner = Learner(config, train)
    end = yield from trained(learner, held_out, space, judges, survey, told)
    words = (
        f"done: KL {end.kl:.2f} nats, {told_gain(end)}"
        if learner.sound
        else "the weights grew beyond all numbers: a smaller learning rate helps"
    )
    yield DpoStep(
        learner.steps, figures=dpo_figures(config, told, end, three, judges), diverged=not learner.sound, doing=words
    )


@dataclass(frozen=True)
class End:
    """The last look at the policy. Rewards in standard deviations above the reference's."""

    kl: float
    gold: float
    proxy: float
    accuracy: float


def trained(
    learner: Learner, held_out: Preferences, space: Answers, judges: Judges, survey: Survey, told: DpoStep
) -> Generator[DpoStep, None, End]:
    """DPO, with a look at the policy now and then, which tells again what is known of best-of-n."""
    steps, path, start, end = learner.config.steps, list[tuple[int, float, float, float]](), None, None
    every = max(1, steps // LOOKS)
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            seen = yield from with_pauses(space.look(learner.policy, judges), DpoStep(step))
            yield DpoStep(step)
            loss, accuracy = learner.evaluated(held_out)
            start = start or seen  # gains are counted from it: the same prompts and random numbers
            end = End(
                seen.kl,
                (seen.gold - start.gold) / survey.gold.std,
                (seen.proxy - start.proxy) / survey.proxy.std,
                accuracy,
            )
            path.append((step, end.kl, end.gold, end.proxy))
            first = FIRST_LOSS(loss, math.log(2))
            yield replace(
                told,
                step=step,
                held_out=loss,
                accuracy=accuracy,
                path=tuple(path),
                after=seen.text,
                figures=(first,) if step == 0 else (),
                doing=f"step {step}: KL {end.kl:.2f} nats, {told_gain(end)}",
            )
        if step < steps:
            loss, chosen, rejected = learner.learn()
            yield DpoStep(step, loss=loss, chosen_reward=chosen, rejected_reward=rejected)
            if not learner.sound:
                break
    assert end is not None
    return end


def told_gain(end: End) -> str:
    gold = "" if math.isnan(end.gold) else f", gold reward {end.gold:+.2f}"
    return f"proxy reward {end.proxy:+.2f}{gold} standard deviations"


def told_best(config: DpoConfig, survey: Survey) -> DpoStep:
    """Best-of-n as a Step: its rewards over its KL."""
    best = tuple((one.n, one.kl, survey.gold(one.gold), survey.proxy(one.proxy)) for one in survey.best)
    ideal = tuple((kl, survey.proxy(proxy)) for kl, proxy in survey.ideal)
    return DpoStep(0, best=best, ideal=ideal, doing=f"best of up to {config.most_n} is known")


# --- figures ----------------------------------------------------------------------------------------------------------


def dpo_figures(config: DpoConfig, told: DpoStep, end: End, three: ThreeCards, judges: Judges) -> tuple[Result, ...]:
    """DPO against best-of-n at the same KL; with three answers, against the policy it must become."""
    at_same = f"best of n at a KL of {min(end.kl, told.best[-1][1]):.2f} nats, between its points"
    figures = [PROXY(end.proxy, between(told, 3, end.kl), source=at_same)]
    if config.rule != YOU:
        figures.append(GOLD(end.gold, between(told, 2, end.kl), source=at_same))
    if config.answers == "cards":
        figures.append(ACCURACY(100 * end.accuracy, 50.0))
    else:
        figures.append(TARGET_KL(end.kl, three.target(judges, config.beta).kl))
    return tuple(figures)


def between(told: DpoStep, column: int, kl: float) -> float:
    """Best-of-n's reward at a KL, on straight lines between its points; beyond the last point, that of the last."""
    return float(np.interp(kl, [row[1] for row in told.best], [row[column] for row in told.best]))
