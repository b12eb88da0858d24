r"""Reward hacking: the learned reward keeps rising long after the true reward has started to fall.

The reward model has seen cards of the reference only. PPO looks for what it likes, anywhere, and finds cards that no
pair ever showed it and that it likes for the wrong reason: "when a measure becomes a target, it ceases to be a good
measure" (Goodhart's law). The learned reward is the *proxy*; here the rule behind the choices is known, so the *gold*
reward can be measured beside it. Both are told in standard deviations of the reference's own cards, from their mean.

The same PPO runs with three betas, turn by turn, from the same seed: 0, yours, and a large one. Against the distance
$d = \sqrt{\mathrm{KL}(\pi\|\pi_{ref})}$ Gao et al. found for the gold reward of RL and of best-of-n

$$R_{RL}(d) = d\,(\alpha - \gamma \ln d), \qquad R_{bon}(d) = d\,(\alpha - \gamma d).$$

Both rise, turn and fall; they turn at the heights $\gamma\, e^{\alpha/\gamma - 1}$ and $\alpha^2 / 4\gamma$. Their two
numbers are fitted here to your run (least squares). Neither form fits well in so small a world: points lie 0.3 to 1.2
off a peak of about 1. Gao's gold falls because the proxy is a learned model of limited data. Here it falls because the
rule takes points off for repetition and for cards that do not end (`postcards.py`), while the reward model only adds up
words (`reward.py`) and cannot express that.

Gao et al. also found that a KL penalty gains nothing over stopping early: at the same distance the gold is the same;
they call this sensitive to hyperparameters. The run with the large beta tests it. Here it usually is not the same,
because the comparison is unequal: a policy that has settled (its learning rate has fallen to 0) against the first
moment at which a fast run passes that distance.

How the policy cheats is counted: words per card, missing ends, words said over and over, how many
cards are different, each beside the reference's cards. With your own clicks there is no gold: nobody but you could say
what a card is worth, so only the proxy is drawn, and it looks like success.

Code -> paper: `gold`, `proxy` -> gold and proxy RM score, `FORMS` -> R_RL and R_bon; gamma is their beta, which is no
KL penalty.
Left out: several seeds; judging new cards and training the reward model again, which is what repairs this in practice.
Source: Gao, Schulman, Hilton 2022, arXiv:2210.10760, section 1 (both forms); Stiennon et
al. 2020, arXiv:2009.01325, figure 5 (people's judgement of an over-optimized policy).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.turns import with_pauses
from core.rlhf.policy import load_policy
from core.rlhf.postcards import LENGTH, MARKS, Judge, words_of
from core.rlhf.ppo import (
    EVALUATED,
    SHOWN,
    Answer,
    Ppo,
    PpoConfig,
    Round,
    answers,
    gold_judge,
    mean_of,
    proxy_judge,
    same_draw,
)

END_KL = Figure(
    "KL to the reference at the end, sampled", "nats per card", "theory", "exact, over the whole vocabulary"
)
GOLD_END = Figure("true reward at the end", "standard deviations", "baseline", "its peak", headline=True)
PROXY_END = Figure(
    "learned reward at the end", "standard deviations", "baseline", "where the true reward peaked", headline=True
)
FIT = Figure("peak of the true reward; form {form}", "standard deviations", "theory", "the curve fitted to your run")
LARGE_BETA = Figure(
    "true reward with beta {beta} at its end",
    "standard deviations",
    "baseline",
    "the run with the smallest beta when it first was as far away",
    headline=True,
)
SMOOTH = 3  # rounds that a peak and an end are averaged over
TURNED = 0.3  # standard deviations that gold must lose from its peak to be called turned over


@dataclass(frozen=True)
class HackingConfig(PpoConfig):
    """PPO's own settings with a smaller penalty, and the large one to compare with."""

    steps: int = setting(
        24,
        "Steps",
        unit="step",
        low=1,
        high=1000,
        help="More rounds let the policy find more mistakes of the reward model; three runs take them in turn.",
    )
    beta: float = setting(
        0.01,
        "Your beta (KL penalty)",
        low=0.0,
        high=2.0,
        help="Higher keeps your run closer to the reference; near 0 it may exploit the reward model freely.",
        slider=True,
    )
    batch: int = setting(
        40,
        "Answers per step",
        unit="answer",
        low=2,
        high=256,
        more=True,
        help="More answers per round make the updates steadier; each round takes longer.",
    )
    large_beta: float = setting(
        0.3,
        "The large beta",
        low=0.0,
        high=10.0,
        more=True,
        help="The penalty of the run that yours is compared with: higher holds it closer to the reference.",
        slider=True,
    )

    @property
    def betas(self) -> tuple[float, ...]:
        """The penalties of the runs: 0, the user's and the large one, each once."""
        return tuple(sorted({0.0, self.beta, self.large_beta}))


Point = tuple[int, float, float, float | None]  # step, d, proxy, gold


@dataclass(frozen=True)
class HackingStep(Step):
    """One part of a round of one of the runs; what did not happen in it is None or empty."""

    step: int
    yours: float  # the user's beta
    beta: float  # of the run that this is about
    proxy: float | None = None
    gold: float | None = None
    kl: float | None = None  # nats per card
    curves: tuple[tuple[float, tuple[Point, ...]], ...] = ()  # all runs so far: beta, points
    fits: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = ()  # (form, points (d, gold)) of the fitted curves
    story: tuple[str, ...] = ()  # what happened, in sentences
    reference: tuple[Answer, ...] = ()  # cards, here and below
    peak: int | None = None  # the step at which your run's gold was highest so far
    at_peak: tuple[Answer, ...] = ()
    now: tuple[Answer, ...] = ()


@dataclass
class Course:
    """One of the runs, and what it has measured."""

    beta: float
    trainer: Ppo
    rounds: list[Round] = field(default_factory=list)
    gold: list[float | None] = field(default_factory=list)

    @property
    def points(self) -> tuple[Point, ...]:
        """From the reference on, where all is 0.

        d is the root of the KL, summed over all words that could have come: never negative.
        """
        start = (0, 0.0, 0.0, None if None in self.gold else 0.0)
        rounds = enumerate(zip(self.rounds, self.gold, strict=True), 1)
        return (start, *((step, max(0.0, each.kl_exact) ** 0.5, each.proxy, gold) for step, (each, gold) in rounds))

    @property
    def proxies(self) -> list[float]:
        return smoothed([each.proxy for each in self.rounds])

    @property
    def scores(self) -> list[float]:
        """Gold, smoothed; empty where nobody knows it."""
        return smoothed([score for score in self.gold if score is not None])

    @property
    def peak(self) -> int | None:
        """The round where gold was highest, counted from 0."""
        return int(np.argmax(self.scores)) if self.scores else None


# --- the curve of Gao et al. ------------------------------------------------------------------------------------------


Basis = Callable[[Float[np.ndarray, "K"]], Float[np.ndarray, "K 2"]]

FORMS: dict[str, Basis] = {  # R(d) = alpha times the first column plus gamma times the second
    "d (α − γ ln d)": lambda d: np.stack([d, -d * np.log(np.maximum(d, 1e-12))], 1),
    "d (α − γ d)": lambda d: np.stack([d, -d * d], 1),
}


@dataclass(frozen=True)
class Fit:
    """A form with its two numbers, fitted to the points of a run."""

    form: str
    numbers: Float[np.ndarray, "2"]
    error: float  # root of the mean squared distance of the points

    def at(self, d: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        return FORMS[self.form](d) @ self.numbers

    @property
    def height(self) -> float:
        """Where it turns; no number for a curve that only rises."""
        alpha, gamma = self.numbers
        if gamma <= 0 or alpha <= 0:
            return math.nan
        return (
            float(gamma * math.exp(min(50.0, alpha / gamma - 1)))
            if "ln" in self.form
            else float(alpha**2 / (4 * gamma))
        )


def fitted(points: Sequence[Point]) -> tuple[Fit, ...]:
    """Both forms by least squares; none without gold, or with fewer than three points away from the reference."""
    far = [(d, gold) for _, d, _, gold in points if gold is not None and d > 0.1]
    if len(far) < 3:
        return ()
    d, gold = np.array(far).T
    told = []
    for form, basis in FORMS.items():
        numbers = np.linalg.lstsq(basis(d), gold, rcond=None)[0]
        told.append(Fit(form, numbers, float(np.sqrt(np.mean((basis(d) @ numbers - gold) ** 2)))))
    return tuple(told)


def gold_at(d: float, points: Sequence[Point]) -> float | None:
    """A run's gold when it first was that far from the reference, on the line between two rounds; None if it never
    was.
    """
    for (_, d0, _, gold0), (_, d1, _, gold1) in pairwise(points):
        if d0 <= d <= d1 and gold0 is not None and gold1 is not None:
            return gold0 + (gold1 - gold0) * (d - d0) / max(1e-9, d1 - d0)
    return None


def smoothed(values: Sequence[float]) -> list[float]:
    """Each with its neighbors: the mean of up to `SMOOTH` rounds."""
    half = SMOOTH // 2
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


# --- what it does differently, in words -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habits:
    """How a set of cards is written. Everything per card."""

    words: float
    no_end: float  # fraction of the cards
    in_a_row: float  # words that repeat the one before them
    third_time: float  # words said for the third time or more
    different: float  # fraction of the cards that are not copies
    said: Mapping[str, float]  # how often each word stands on a card


def habits(tokens: Int[Tensor, "N T"]) -> Habits:
    """Counted from the answers (the greeting is the prompt's). Marks and "the" are no words that anybody counts."""
    cards = [words_of(row)[3:] for row in tokens]
    plain = [[word for word in card if word not in MARKS and word != "the"] for card in cards]
    count = len(cards)
    said = Counter(word for card in plain for word in card)
    return Habits(
        sum(map(len, plain)) / count,
        sum(not card or card[-1] not in (".", "!") or len(card) + 3 >= LENGTH - 1 for card in cards) / count,
        sum(one == other for card in cards for one, other in pairwise(card)) / count,
        sum(max(0, times - 2) for card in plain for times in Counter(card).values()) / count,
        len({tuple(card) for card in cards}) / count,
        {word: times / count for word, times in said.items()},
    )


def named(before: Habits, after: Habits) -> list[str]:
    """What changed most between two sets of cards of equal size, as sentences. The first is the word that rose most."""
    rise = {word: times - before.said.get(word, 0.0) for word, times in after.said.items()}
    told = []
    for word in sorted(rise, key=lambda word: -rise[word])[:3]:
        if rise[word] > 0.25:
            told.append(
                f"“{word}” {after.said[word]:.1f} times a card, {before.said.get(word, 0.0):.1f} in the reference's."
            )
    changes = (
        (
            after.in_a_row - before.in_a_row > 0.2,
            f"The same word twice in a row: {after.in_a_row:.1f} times a card, was {before.in_a_row:.1f}.",
        ),
        (
            after.third_time - before.third_time > 0.3,
            f"Words said for the third time or more: {after.third_time:.1f} a card, was {before.third_time:.1f}.",
        ),
        (after.no_end - before.no_end > 0.1, f"{after.no_end:.0%} of the cards do not end, was {before.no_end:.0%}."),
        (
            abs(after.words / max(1e-9, before.words) - 1) > 0.25,
            f"A card has {after.words:.0f} words, was {before.words:.0f}.",
        ),
        (
            after.different < 0.8 * before.different,
            f"Only {after.different:.0%} of the cards are different, was {before.different:.0%}.",
        ),
    )
    return told + [sentence for found, sentence in changes if found]


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What does the policy do when the reward it is paid for is not quite what you meant?")
def hacking(config: HackingConfig) -> Iterator[HackingStep]:
    """A reward model; PPO against it with three betas in turn; where gold peaked, and what the policy had found."""
    blank = HackingStep(0, config.beta, config.beta)
    start, shown = same_draw(load_policy(), EVALUATED, config, 1), same_draw(load_policy(), SHOWN, config, 2)
    gold = gold_judge(config.rule, start.tokens)
    still = tuple((beta, ((0, 0.0, 0.0, None if gold is None else 0.0),)) for beta in config.betas)
    yield replace(blank, curves=still, reference=answers(shown.tokens, None, gold))
    proxy = yield from with_pauses(
        proxy_judge(config, start), replace(blank, doing="training the reward model on the choices")
    )
    yield replace(blank, reference=answers(shown.tokens, proxy, gold))
    courses = [Course(beta, Ppo(replace(config, beta=beta), proxy)) for beta in config.betas]
    mine = next(course for course in courses if course.beta == config.beta)
    for step in range(1, config.steps + 1):
        for course in courses:
            yield from go_on(course, replace(blank, step=step, beta=course.beta), gold)
            if not course.trainer.sound:
                told = (
                    f"step {step}: the run with beta {course.beta:g} broke, its weights are no numbers any more; lower"
                    " the learning rate"
                )
                yield replace(blank, step=step, beta=course.beta, diverged=True, doing=told)
                return
        if step % max(1, config.steps // 12) == 0:
            yield snapshot(replace(blank, step=step), courses, mine, proxy, gold)
    yield from verdict(replace(blank, step=config.steps), config, courses, mine, habits(start.tokens), proxy, gold)


def go_on(course: Course, blank: HackingStep, gold: Judge | None) -> Iterator[HackingStep]:
    """One round of one of the runs."""
    for part in course.trainer.one_step(blank.step):
        if part is None:
            yield blank
            continue
        score = mean_of(gold, part.tokens)
        course.rounds.append(part)
        course.gold.append(score)
        shown = "" if score is None else f", gold {score:+.2f}"
        told = (
            f"step {blank.step}, beta {course.beta:g}: proxy {part.proxy:+.2f}{shown}, KL {part.kl_exact:.1f} nats per"
            " card"
        )
        yield replace(blank, proxy=part.proxy, gold=score, kl=part.kl_exact, doing=told)


def snapshot(blank: HackingStep, courses: list[Course], mine: Course, proxy: Judge, gold: Judge | None) -> HackingStep:
    """All runs so far, and cards of the user's: when gold was best, and now."""
    shown = replace(
        blank,
        curves=tuple((course.beta, course.points) for course in courses),
        now=answers(mine.rounds[-1].tokens[:SHOWN], proxy, gold),
    )
    if mine.peak is None:
        return shown
    return replace(shown, peak=mine.peak + 1, at_peak=answers(mine.rounds[mine.peak].tokens[:SHOWN], proxy, gold))


def verdict(
    blank: HackingStep,
    config: HackingConfig,
    courses: list[Course],
    mine: Course,
    before: Habits,
    proxy: Judge,
    gold: Judge | None,
) -> Iterator[HackingStep]:
    """What the user's run has come to: in sentences, beside the fitted curves, and in figures."""
    end = same_draw(mine.trainer.actor.policy, EVALUATED, config, 1)
    yield replace(blank, doing="reading the cards of the end")
    changes = named(before, habits(end.tokens)) or ["Nothing stands out: the cards are written as the reference's are."]
    fits = fitted(mine.points)
    d = np.linspace(0, max(at for _, at, _, _ in mine.points), 60)
    yield replace(
        snapshot(blank, courses, mine, proxy, gold),
        fits=tuple((fit.form, tuple(zip(d.tolist(), fit.at(d).tolist(), strict=True))) for fit in fits),
        story=(told_by(mine), *changes),
        figures=figures(courses, mine, fits),
        doing="done: " + told_by(mine),
    )


def told_by(mine: Course) -> str:
    """The run in one sentence."""
    proxies, scores, peak = mine.proxies, mine.scores, mine.peak
    if peak is None:
        return (
            f"The proxy went from {proxies[0]:+.1f} to {proxies[-1]:+.1f}. Whether the cards are better, only you can"
            " judge."
        )
    if scores[peak] - scores[-1] > TURNED:
        turned = f"Gold peaked at step {peak + 1} with {scores[peak]:+.2f} and ended at {scores[-1]:+.2f}"
        return f"{turned}; the proxy went on from {proxies[peak]:+.1f} to {proxies[-1]:+.1f}."
    return (
        f"Gold did not turn over: {scores[-1]:+.2f} at the end, {scores[peak]:+.2f} at its best; the proxy ended at"
        f" {proxies[-1]:+.1f}."
    )


def figures(courses: list[Course], mine: Course, fits: Sequence[Fit]) -> tuple[Result, ...]:
    """The end beside the peak; the peak beside the fitted curves; the large penalty beside stopping early."""
    last, proxies, scores, peak = mine.rounds[-1], mine.proxies, mine.scores, mine.peak
    kl = END_KL(last.kl, last.kl_exact)
    if peak is None:
        return PROXY_END(proxies[-1], proxies[0], source="the first step"), kl
    results = [
        GOLD_END(scores[-1], scores[peak], source=f"{GOLD_END.source}, at step {peak + 1}"),
        PROXY_END(proxies[-1], proxies[peak]),
        kl,
    ]
    for fit in fits:
        source = f"{FIT.source}; its points lie {fit.error:.2f} off (root mean square)"
        results.append(FIT.of(form=fit.form)(scores[peak], fit.height, source=source))
    large, smallest = courses[-1], courses[0]
    if large is not smallest:
        d = large.points[-1][1]
        source = f"the run with beta {smallest.beta:g} when it first was as far away, d = {d:.2f}; Gao et al.: the same"
        figure = LARGE_BETA.of(beta=f"{large.beta:g}")
        results.append(figure(large.scores[-1], gold_at(d, smallest.points), source=source))
    return tuple(results)
