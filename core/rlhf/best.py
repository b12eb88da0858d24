r"""Best of n: draw n answers, keep the one that the reward model likes best. No training at all.

It is the simplest way to use a reward model, and a yardstick for the others: how much reward, for how much distance
from the reference? Its distance is known by formula, whatever the reward is,

$$\mathrm{KL}(\pi_n \| \pi_\mathrm{ref}) = \ln n - \frac{n-1}{n},$$

as long as no two answers have the same reward (`best_of_n.py` derives it). So each doubling of n moves the answers
about $\ln 2 = 0.69$ nats further, and costs twice the computing. Where there are few answers, the formula is only an
upper bound: with three, no choice can be further from the reference than $-\ln p$ of the best of them.

The learned reward is the one that chooses, so it can only rise with n. The true one need not: among many answers there
is always one that the reward model is wrong about. That is reward hacking without training (Gao et al. 2022).

Measured on cards: $n$ up to 128 of a pool of the reference's answers to six prompts. Both rewards are counted from the
reference's mean, in standard deviations of its cards.

Left out: best of n as a teacher (the policy is trained to write what was chosen), a search word by word.
Source: Stiennon et al. 2020, arXiv:2009.01325; Gao et al. 2022, arXiv:2210.10760, section 2 and figure 1a.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.turns import with_pauses
from core.rlhf.answers import Judges, Survey, ThreeCards, WholeCards
from core.rlhf.best_of_n import kl_formula, rungs
from core.rlhf.policy import load_policy
from core.rlhf.reward import YOU, TasteConfig, choosing, reward_from

MEAN = "the reference's mean"
PROXY = Figure("learned reward of the best", "standard deviations", "baseline", MEAN, headline=True)
GOLD = Figure("true reward of the best", "standard deviations", "baseline", MEAN, headline=True)
BEST_KL = Figure("KL of best of n, whole cards", "nats", "theory", "ln n - (n-1)/n, Gao et al. 2022", headline=True)
BEST_KL_THREE = Figure(
    "KL of best of n, three answers",
    "nats",
    "limit",
    "ln n - (n-1)/n, Gao et al. 2022: only an upper bound here",
    "computed",
)
CAP = Figure(
    "largest KL that best of three answers can reach", "nats", None, "-ln p of the best of the three", "computed"
)


@dataclass(frozen=True)
class BestConfig(TasteConfig):
    """Whose choices the reward model learns from, and among how many answers it chooses."""

    pairs_used: int = setting(
        200,
        "Preference pairs",
        unit="pair",
        low=2,
        high=1000,
        help="More pairs make the reward model a better copy of the taste. Of your own clicks, all there are.",
    )
    most_n: int = setting(
        64,
        "Best of up to",
        unit="answer",
        low=1,
        high=128,
        help="More answers to choose from: more reward, further from the reference, and so many times the computing.",
    )


@dataclass(frozen=True)
class BestStep(Step):
    """Best of one more n; what is not known yet is empty. Rewards in standard deviations above the reference's mean."""

    n: int = 0
    formula: tuple[tuple[int, float], ...] = ()  # (n, KL by the formula in nats), for all n
    kls: tuple[tuple[int, float, float], ...] = ()  # (n, KL on whole cards, KL with three answers)
    rewards: tuple[tuple[int, float, float], ...] = ()  # (n, gold, proxy)
    cap: float | None = None  # -ln p of the best of the three answers
    before: str = ""
    chosen: str = ""


@experiment("What does choosing the best of many answers buy, and how far does it move?")
def best(config: BestConfig) -> Iterator[BestStep]:
    """A reward model learns from the choices; then it chooses among more and more answers."""
    space, three = WholeCards(config.rule, config.seed), ThreeCards(config.rule)
    formula, before = tuple((n, kl_formula(n)) for n in rungs(config.most_n)), space.written(load_policy())
    yield BestStep(formula=formula, before=before, chosen=before, doing="best of 1 is the reference itself")
    chosen = yield from with_pauses(choosing(config, config.pairs_used), BestStep())
    model = yield from with_pauses(reward_from(chosen, config.seed), BestStep())
    judges = Judges(model, config.rule)
    yield BestStep(doing=f"a reward model has learned from {len(chosen)} choices; drawing from the reference")
    survey = yield from with_pauses(space.survey(judges, config.most_n), BestStep())
    few = three.kl_of_best(judges, [one.n for one in survey.best])
    kls = tuple((one.n, one.kl, of_three) for one, of_three in zip(survey.best, few, strict=True))
    rewards = tuple((one.n, survey.gold(one.gold), survey.proxy(one.proxy)) for one in survey.best)
    for place, (n, gold, proxy) in enumerate(rewards, 1):
        told = "" if math.isnan(gold) else f", true reward {gold:+.2f}"
        yield BestStep(
            n,
            formula,
            kls[:place],
            rewards[:place],
            three.cap(judges),
            before,
            survey.chosen[place - 1],
            figures=figures(config, survey, kls, rewards, three.cap(judges)) if place == len(rewards) else (),
            doing=f"best of {n}: learned reward {proxy:+.2f}{told} standard deviations",
        )


def figures(
    config: BestConfig,
    survey: Survey,
    kls: tuple[tuple[int, float, float], ...],
    rewards: tuple[tuple[int, float, float], ...],
    cap: float,
) -> tuple[Result, ...]:
    """The most answers: their reward, and the formula against the distance in a large and in a tiny answer space."""
    (n, many, few), (_, gold, proxy) = kls[-1], rewards[-1]
    return (
        PROXY(proxy, 0.0),
        *(() if config.rule == YOU else (GOLD(gold, 0.0),)),
        BEST_KL(many, kl_formula(n), source=f"{BEST_KL.source}; n = {n}"),
        BEST_KL_THREE(few, kl_formula(n), source=f"{BEST_KL_THREE.source}; n = {n}"),
        CAP(cap),
    )
