r"""Prune: keep the half of a text that teaches most. Which half that is depends on how much text there is.

A short run with a few models reads the text once and then grades it: each window of text gets its mean loss
$\ell_{\text{after}}$, and its **learnability** $\ell_{\text{before}} - \ell_{\text{after}}$, how much the loss fell
between an early moment of that run and its end. Then a fraction of the windows is kept:

* **easiest**: the lowest $\ell_{\text{after}}$, the text as everybody would write it;
* **hardest**: the highest, names, numbers and rare words;
* **most learnable**: the largest fall, neither known at once nor never;
* **random**: the control. Pruning by a score pays only where it beats a random choice of the same size.

New models are trained on what is left, for several amounts of text and with several seeds; every model reads the same
number of characters, so a small text is read again and again.

**What theory says.** Sorscher et al. solve a perceptron that learns from a teacher: with little data the easy examples
are best, since the hard ones only teach exceptions; with plenty the hard ones are, since the easy ones say nothing new.
So the curves of "easiest" and "hardest" must cross as the text grows, and a good score beats the power law of random
data. Their score is the distance to a decision border and their networks see images. Ours is the loss of a character,
where "hard" often only means "rare", and the unseen validation text is as easy and as hard as the whole. So look
whether they cross here, rather than trust that they do: the figure says where, or that they do not. The differences are
about as large as the spread of the seeds, so two standard errors stand beside each.

Left out: scores of each token or each document; a model that has seen other text as the judge (RHO-loss); keeping a
text balanced.
Source: Sorscher et al. 2022, arXiv:2206.14486; learnability: Mindermann et al. 2022, arXiv:2206.07137, in a simpler
form.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data_efficiency.fleet import FIRST_LOSS, FLOPS_PER_SECOND, NATS, Fleet, FleetConfig, reading_order, spoken
from core.foundations.corpus import Corpus, windows_of
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result

KINDS = ("random", "easiest", "hardest", "learnable")
NAMES = {"random": "random", "easiest": "easiest", "hardest": "hardest", "learnable": "most learnable"}
GROWTH = 4  # each amount of text is four times the one before
EARLY = 8  # "before" is after an eighth of the short run
LOOK = 8192  # characters of unseen text that all models are evaluated on
WARM_SHARE = 0.05
EXAMPLES = 2
BINS = 40  # of the histogram of grades
GRADED = 256  # windows that are graded in one unit of work

KEPT = Figure("windows kept", "%", "theory", "the setting", "computed")
AGREE = Figure("early and late grades agree", "correlation", None, "Pearson, over all windows")
LOSS_LEAST = Figure("loss with the least text, {kind}", NATS, "baseline")
LOSS_MOST = Figure("loss with the most text, {kind}", NATS, "baseline")
NOISE = "two standard errors of this difference: less is noise; Sorscher et al. 2022 expect it"
AHEAD_LEAST = Figure("hardest minus easiest, least text", NATS, "baseline", f"{NOISE} above 0", headline=True)
AHEAD_MOST = Figure("hardest minus easiest, most text", NATS, "baseline", f"{NOISE} below 0", headline=True)
CROSSING = Figure("hard overtakes easy at", "characters", None, "Sorscher et al. 2022: somewhere, as the text grows")


@dataclass(frozen=True)
class PruneConfig(FleetConfig):
    """`tokens` are read by each model, whatever it has to read from."""

    corpus: str = setting(
        "reader",
        "Text to learn",
        choices=FleetConfig.__dataclass_fields__["corpus"].metadata["choices"],
        help="The text that all models read.",
    )
    keep: float = setting(
        0.5,
        "Fraction that is kept",
        low=0.1,
        high=1.0,
        help="Less leaves a smaller and more one-sided text; 1 keeps everything, so all choices are the same run.",
        slider=True,
    )
    sizes: int = setting(
        4,
        "Amounts of text",
        unit="size",
        low=2,
        high=5,
        help="Each amount is four times the one before; the largest is read about once.",
        slider=True,
    )
    grading: int = setting(
        16_384,
        "Characters of the short run",
        unit="character",
        low=512,
        high=200_000,
        more=True,
        help="A longer short run grades the text with better models.",
    )
    tokens: int = setting(
        32_768,
        "Token budget",
        unit="character",
        low=64,
        high=1_000_000,
        help="How many characters each model reads; here a token is a character. More takes longer.",
    )
    width: int = setting(
        24,
        "Width",
        unit="number",
        low=8,
        high=64,
        help="Elements per character inside a model, a multiple of 4. Wider models learn more by heart.",
    )


@dataclass(frozen=True)
class Point:
    """One amount of text: the losses of all kinds at the end, in the order of `kinds`."""

    characters: int  # kept
    epochs: float  # times the kept text was read
    losses: tuple[float, ...]
    spread: tuple[float, ...]  # standard deviation over the seeds


@dataclass(frozen=True)
class PruneStep(Step):
    """A step of the short run, some grades, or a step of the fleets; what did not happen in it is empty."""

    kinds: tuple[str, ...] = KINDS
    characters: tuple[int, ...] = ()  # on the first Step: the amounts of text that will be kept
    blind: float = 0.0  # ... and the loss before anything is learned
    grades: Float[np.ndarray, "N"] | None = None  # after grading: the loss of every window
    histogram: tuple[tuple[float, int], ...] = ()  # ... in bins: (middle, windows)
    cut: tuple[float, float] | None = None  # ... up to here a window is among the easiest, from here among the hardest
    examples: tuple[tuple[str, tuple[str, ...]], ...] = ()  # ... and the first windows of each kind
    points: tuple[Point, ...] = ()  # the fleets now or at the end
    share: float = 0.0  # of the budget that is spent


# --- grades and what is kept ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grades:
    """Losses of every window, early in the short run and at its end, mean over its models."""

    before: Float[np.ndarray, "N"]
    after: Float[np.ndarray, "N"]

    def score(self, kind: str, seed: int) -> Float[np.ndarray, "N"]:
        """The windows with the lowest score are kept."""
        if kind == "random":
            return np.random.default_rng(seed).random(len(self.after))
        return {"easiest": self.after, "hardest": -self.after, "learnable": self.after - self.before}[kind]


def kept_count(pool: int, keep: float) -> int:
    return max(1, round(keep * pool))


def kept(score: Float[np.ndarray, "N"], pool: Int[Tensor, "P"], keep: float) -> Int[Tensor, "K"]:
    """The share of the pool with the lowest scores, as windows of the text in their order; ties go by place."""
    windows = np.sort(pool.numpy())
    best = np.argsort(score[windows], kind="stable")[: kept_count(len(windows), keep)]
    return torch.from_numpy(np.sort(windows[best]))


def pool_sizes(config: PruneConfig, windows: int) -> tuple[int, ...]:
    """Windows before pruning. What is kept of the largest is read about once, if the text has so many."""
    largest = min(windows, max(1, round(config.tokens / config.context / config.keep)))
    return tuple(sorted({max(2, largest // GROWTH**power) for power in range(config.sizes)}))


def crossing(characters: Sequence[float], ahead: Sequence[float]) -> float | None:
    """Where `ahead` (loss of the hardest minus loss of the easiest) first falls from above 0 to below, over log
    characters.
    """
    for left, right, high, low in zip(characters, characters[1:], ahead, ahead[1:], strict=False):
        if high > 0 >= low:
            return float(math.exp(math.log(left) + math.log(right / left) * high / (high - low)))
    return None


# --- the experiment ---------------------------------------------------------------------------------------------------


class Judges:
    """The short run: a few models read the text once, and grade its windows early and at the end."""

    def __init__(self, config: PruneConfig, corpus: Corpus) -> None:
        self.config = config
        self.inputs, self.targets = windows_of(corpus.train_ids, config.context)
        self.steps = max(EARLY, config.grading // (config.batch * config.context))
        order = [
            reading_order(len(self.inputs), len(self.inputs), self.steps * config.batch, seed) for seed in self.seeds
        ]
        self.orders = torch.stack(order)
        self.fleet = Fleet(config.shape(corpus), self.seeds, config.learning_rate)

    @property
    def seeds(self) -> list[int]:
        """Other models than those that are trained on what is kept."""
        return [seed + 1000 for seed in self.config.every_seed[:2]]

    def read(self, first: int, last: int) -> Iterator[None]:
        batch = self.config.batch
        for step in range(first, last):
            now = self.orders[:, step * batch : (step + 1) * batch]
            for _ in self.fleet.step_in_parts(self.inputs[now], self.targets[now], schedule(step / self.steps)):
                yield None

    def grade(self) -> Iterator[Float[np.ndarray, "N"] | None]:
        """The loss of every window, mean over the judges."""
        losses = []
        for first in range(0, len(self.inputs), GRADED):
            part = slice(first, first + GRADED)
            losses.append(self.fleet.on_same(self.inputs[part], self.targets[part]).mean(0))
            yield None
        yield np.concatenate(losses)


def schedule(progress: float) -> float:
    return max(0.02, min(1.0, progress / WARM_SHARE)) * 0.5 * (1 + math.cos(math.pi * progress))


class Trials:
    """The fleet of the trial: for each amount of text and kind of choice, `seeds` models with what was kept for
    them.
    """

    def __init__(self, config: PruneConfig, corpus: Corpus, grades: Grades) -> None:
        self.config, self.corpus = config, corpus
        self.inputs, self.targets = windows_of(corpus.train_ids, config.context)
        self.pools = pool_sizes(config, len(self.inputs))
        self.steps = config.tokens // (config.batch * config.context)
        self.subsets = [
            self.subset(grades, pool, kind, seed) for pool in self.pools for kind in KINDS for seed in config.every_seed
        ]
        length, seeds = self.steps * config.batch, config.every_seed * len(KINDS) * len(self.pools)
        orders = [
            own[reading_order(len(own), len(own), length, seed)] for own, seed in zip(self.subsets, seeds, strict=True)
        ]
        self.orders = torch.stack(orders)  # (M, windows)
        self.fleet = Fleet(config.shape(corpus), seeds, config.learning_rate)

    def subset(self, grades: Grades, pool: int, kind: str, seed: int) -> Int[Tensor, "K"]:
        """What one model may read.

        The pool is drawn by the seed, the same for all kinds; a smaller one is a part of the larger.
        """
        drawn = torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(seed))[:pool]
        return kept(grades.score(kind, seed), drawn, self.config.keep)

    @property
    def kept(self) -> list[int]:
        """Windows kept, by amount of text."""
        return [kept_count(pool, self.config.keep) for pool in self.pools]

    def one_step(self) -> Iterator[Float[np.ndarray, "M"] | None]:
        at, batch = self.fleet.steps, self.config.batch
        now = self.orders[:, at * batch : (at + 1) * batch]
        yield from self.fleet.step_in_parts(self.inputs[now], self.targets[now], schedule(at / self.steps))

    def points(self, losses: Float[np.ndarray, "M"]) -> tuple[Point, ...]:
        by = losses.reshape(len(self.pools), len(KINDS), -1)
        read = self.fleet.steps * self.config.batch
        return tuple(
            Point(
                count * self.config.context,
                read / count,
                tuple(part.mean(1).tolist()),
                tuple(part.std(1, ddof=1).tolist()),
            )
            for count, part in zip(self.kept, by, strict=True)
        )


@experiment("Which half of a text should a model read?")
def prune(config: PruneConfig) -> Iterator[PruneStep]:
    """Grade all windows, then train on what each kind of choice keeps."""
    corpus = config.read()
    judges = Judges(config, corpus)
    if len(judges.inputs) < GROWTH**config.sizes:
        raise ValueError(
            f"Your text is too small for {config.sizes} amounts: it has {len(judges.inputs)} windows of"
            f" {config.context} characters to learn from and needs {GROWTH**config.sizes}"
        )
    yield opening(config, corpus, judges)
    early, taken = max(1, judges.steps // EARLY), list[Float[np.ndarray, "N"]]()
    for first, last in ((0, early), (early, judges.steps)):
        for _ in judges.read(first, last):
            yield PruneStep()
        yield PruneStep(
            doing=f"short run: {last} of {judges.steps} steps; now its models grade all {len(judges.inputs)} windows"
        )
        for graded in judges.grade():
            if graded is None:
                yield PruneStep()
            else:
                taken.append(graded)
    grades = Grades(*taken)
    yield graded_step(config, corpus, judges, grades)
    yield from trained(Trials(config, corpus, grades))


def opening(config: PruneConfig, corpus: Corpus, judges: Judges) -> PruneStep:
    """The start state: what will be trained, and the loss before anything is learned."""
    pools, fleet = pool_sizes(config, len(judges.inputs)), judges.fleet
    models = len(pools) * len(KINDS) * config.seeds
    work = (
        6 * config.tokens * models
        + 6 * config.grading * fleet.size
        + 4 * fleet.size * judges.inputs.numel()
        + 2 * 2 * LOOK * models
    )
    blind = float(fleet.alone(0).loss(*windows_of(corpus.validation_ids, config.context, 2048)))
    first = FIRST_LOSS(blind, math.log(len(corpus.symbols)))
    characters = tuple(kept_count(pool, config.keep) * config.context for pool in pools)
    told = (
        f"{models} models of {fleet.parameters} weights, after a short run that grades:"
        f" {spoken(work * fleet.parameters / FLOPS_PER_SECOND)}"
    )
    return PruneStep(characters=characters, blind=blind, figures=(first,), doing=told)


def graded_step(config: PruneConfig, corpus: Corpus, judges: Judges, grades: Grades) -> PruneStep:
    """The grades, where they are cut, and the first windows of each kind."""
    everything, context = torch.arange(len(judges.inputs)), config.context
    examples, letters = list[tuple[str, tuple[str, ...]]](), corpus.train
    for kind in KINDS:
        first = np.argsort(grades.score(kind, config.seed), kind="stable")[:EXAMPLES]
        examples.append((NAMES[kind], tuple(letters[at * context : (at + 1) * context] for at in first.tolist())))
    easy, hard = (kept(grades.score(kind, 0), everything, config.keep).numpy() for kind in ("easiest", "hardest"))
    cut = float(grades.after[easy].max()), float(grades.after[hard].min())
    alike = float(np.corrcoef(grades.after, grades.before)[0, 1])
    told = f"graded: the easiest window has a loss of {grades.after.min():.2f}, the hardest {grades.after.max():.2f}"
    figures = (KEPT(100 * len(easy) / len(everything), 100 * config.keep), AGREE(alike))
    counts, edges = np.histogram(grades.after, BINS)
    bins = tuple(zip(((edges[1:] + edges[:-1]) / 2).tolist(), counts.tolist(), strict=True))
    return PruneStep(
        grades=grades.after, histogram=bins, cut=cut, examples=tuple(examples), figures=figures, doing=told
    )


def trained(trials: Trials) -> Iterator[PruneStep]:
    """All models read, and are evaluated half way and at the end."""
    half = max(1, trials.steps // 2)
    for step in range(1, trials.steps + 1):
        for losses in trials.one_step():
            told = (
                f"step {step} of {trials.steps}: loss {losses.mean():.3f} on what is being read"
                if losses is not None and step % 8 == 0
                else ""
            )
            yield PruneStep(share=step / trials.steps, doing=told)
        if step in (half, trials.steps):
            for seen in trials.fleet.validate_in_parts(trials.corpus.validation_ids, LOOK):
                if seen is None:
                    yield PruneStep(share=step / trials.steps)
                else:
                    yield evaluated(trials, trials.points(seen), step / trials.steps)


def evaluated(trials: Trials, points: tuple[Point, ...], share: float) -> PruneStep:
    """The losses of all kinds; at the end beside those of a random choice, and where easy and hard cross."""
    if share < 1:
        return PruneStep(points=points, share=share, doing=f"half way: {summary(points)}")
    figures = list[Result]()
    for point, loss, amount in ((points[0], LOSS_LEAST, "least"), (points[-1], LOSS_MOST, "most")):
        source = f"a random choice of as much; {point.characters:,} characters kept, the {amount} text"
        for number, kind in list(enumerate(KINDS))[1:]:
            figures.append(loss.of(kind=NAMES[kind])(point.losses[number], point.losses[0], source=source))
    characters, ahead = [point.characters for point in points], [point.losses[2] - point.losses[1] for point in points]
    seeds = trials.config.seeds
    figures.append(AHEAD_LEAST(ahead[0], doubt(points[0], seeds)))
    figures.append(AHEAD_MOST(ahead[-1], doubt(points[-1], seeds)))
    figures.append(CROSSING(crossing(characters, ahead)))
    where = (
        crossing(characters, ahead)
        if ahead[0] > doubt(points[0], seeds) and -ahead[-1] > doubt(points[-1], seeds)
        else None
    )
    told = (
        f"hard overtakes easy at about {where:.0f} characters"
        if where
        else "easy and hard do not cross beyond the error bars"
    )
    return PruneStep(points=points, share=share, figures=tuple(figures), doing=f"done: {told}; {summary(points)}")


def doubt(point: Point, seeds: int) -> float:
    """Two standard errors of the difference between the hardest and the easiest."""
    return 2 * math.hypot(point.spread[1], point.spread[2]) / math.sqrt(seeds)


def summary(points: Sequence[Point]) -> str:
    last = points[-1]
    return f"{last.characters} characters kept: " + ", ".join(
        f"{NAMES[kind]} {loss:.3f}" for kind, loss in zip(KINDS, last.losses, strict=True)
    )
