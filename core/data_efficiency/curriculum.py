r"""Curriculum: short sequences first, and layers that skip tokens. The same tokens, in another order or with less work.

Three fleets read the same budget of tokens with the same seeds:

* **baseline**: every sequence has the full length $T$, every layer sees every token.
* **short sequences first** (sequence-length warm-up): the length grows from $s\,T$ to $T$ over the first part of the
  tokens. Short sequences have little to look back at, so what is near is learned first; and a batch of short sequences
  holds fewer tokens, so the same budget buys more optimizer steps. In the paper it lets GPT-2 train stably with 8 times
  the batch and 4 times the learning rate, and reach the same quality with up to 2.2 times fewer tokens.
* **random token dropping** (random-LTD): the first and the last layer see every token; each layer between them sees
  only
  a random part, new in each step, and passes the others on unchanged. The part grows from $s$ to all. In the paper it
  saves 33.3 % of the computation and 25.6 % of the time of a 1.3-billion GPT-3 at similar quality.

**What is predicted.** A token costs $6$ FLOPs per weight that it meets (2 forward, 4 backward) and $6\,T C$ more per
layer for causal attention over $T$ positions. Counting them over a run gives its work against the baseline's. If time
were work, that would be the ratio of seconds too; the gap is what small steps and moved tokens cost on a real machine.
The predicted loss is the baseline's: both papers promise the same quality for less, and the fleets' seeds say what "the
same" means here. Seconds are seconds of the computing thread, so other people's runs do not count.

Left out: larger batches and learning rates (the paper's main use of short sequences); dropping other tokens in each row
of a batch (here a layer drops the same positions in all rows of a model's batch); curricula that order texts by
difficulty.
Source: Li, Zhang & He 2022, arXiv:2108.06084; Yao et al. 2022, arXiv:2211.11586; DeepSpeed's Data Efficiency library.
"""

import itertools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.data_efficiency.fleet import FIRST_LOSS, NATS, Fleet, FleetConfig, blown_up, expected_seconds, spoken
from core.foundations.corpus import Corpus, batch_of, windows_of
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.transformer import Shape, Transformer

KINDS = ("baseline", "short", "drop")
NAMES = {"baseline": "baseline", "short": "short sequences first", "drop": "random token dropping"}
LOOK, LOOKS = 2048, 12  # characters of unseen text all are evaluated on, and how often
SHORTEST = 4  # characters of the first windows, at least
WARM_SHARE = 0.05  # of the tokens, for the learning rate to climb

LOSS = Figure(
    "loss, {trick}", NATS, "baseline", "full sequences, all layers; the papers promise the same quality", headline=True
)
SECONDS = Figure(
    "time, {trick}",
    "% of the baseline's seconds",
    "theory",
    "FLOPs of all steps, counted, against the baseline's",
    headline=True,
)
NEEDED = Figure("characters until the baseline's last loss, {trick}", "characters", "baseline", "the baseline itself")
LAYER_TOKENS = Figure(
    "layer-tokens, random token dropping", "% of the baseline's", "theory", "area under the planned line", "computed"
)
NOISE = Figure("spread of the baseline's loss", NATS, None, "standard deviation over the seeds")

Curve = tuple[tuple[int, float, float], ...]  # tokens, seconds, loss on unseen text


class Skipping(Transformer):
    """A transformer whose layers between the first and the last see only the positions that `kept` names for them."""

    def forward(self, tokens: Int[Tensor, "B T"], kept: Int[Tensor, "L K"] | None = None) -> Float[Tensor, "B T V"]:  # type: ignore[override]
        x, turns = self.embed(tokens), self.turns[: tokens.shape[1]]
        for layer, block in enumerate(self.blocks):
            if kept is None or layer in (0, len(self.blocks) - 1):
                x = block(x, turns, None, None)
            else:
                at = kept[
                    layer - 1
                ]  # in order, so the causal mask still hides the future; each keeps its own rotary turn
                x = x.index_copy(1, at, block(x[:, at], turns[at], None, None))  # (B, K, C) back into (B, T, C)
        return F.linear(self.norm(x), self.head.weight)  # type: ignore[union-attr]


@dataclass(frozen=True)
class CurriculumConfig(FleetConfig):
    """`context` is the full length of a sequence, `start` and `until` say how both tricks begin and when they end."""

    tokens: int = setting(
        40_960,
        "Token budget",
        unit="character",
        low=64,
        high=1_000_000,
        help="How many characters each model reads; here a token is a character. More takes longer.",
    )
    start: float = setting(
        0.25,
        "Length at the start (fraction)",
        low=0.05,
        high=1.0,
        help="Of the length, or of the tokens in the middle layers. Smaller saves more work; 1 is the baseline.",
        slider=True,
    )
    until: float = setting(
        0.7,
        "Full length after (fraction of the budget)",
        low=0.05,
        high=1.0,
        help="Later saves more work, and leaves less of the budget for full sequences.",
        slider=True,
    )
    width: int = setting(
        24,
        "Width",
        unit="number",
        low=8,
        high=64,
        help="Elements per character inside a model, a multiple of 4. Wider models learn more by heart.",
    )
    n_layer: int = setting(
        4,
        "Layers",
        unit="layer",
        low=1,
        high=6,
        help="All but the first and the last may skip tokens, so more layers save more work.",
        slider=True,
    )
    context: int = setting(
        64,
        "Context",
        unit="character",
        low=8,
        high=64,
        help="The full length of a sequence; longer ones have more to gain from a short start.",
    )

    @property
    def middle(self) -> int:
        """Layers between the first and the last."""
        return max(0, self.n_layer - 2)

    def part(self, progress: float) -> float:
        """How much of the whole is used when `progress` of the budget is spent: a straight line from `start` to 1."""
        return min(1.0, self.start + (1 - self.start) * progress / self.until)


@dataclass(frozen=True)
class CurriculumStep(Step):
    """One optimizer step of one of the fleets, or a look at it; what did not happen in it is None."""

    kind: str  # baseline, short or drop
    tokens: int  # read so far by each model of this fleet
    steps: int
    seconds: float  # of the computing thread, spent on this fleet's steps so far
    length: int  # of the sequences now
    kept: int  # tokens per sequence that the middle layers see now
    validation: float | None = None  # nats per character on unseen text, mean over the seeds
    spread: float | None = None  # standard deviation over the seeds, at the end
    curves: tuple[Curve, ...] = ()  # with a look: those of all three fleets so far
    blind: float | None = None  # on the first Step: the loss before anything is learned
    moments: tuple[float, ...] = ()  # on the first Step: shares of the budget, and for each ...
    seen: Float[np.ndarray, "S K L T"] | None = (
        None  # ... and each kind: 1 where a layer sees a position of the sequence
    )


class Course:
    """One fleet on its way through the budget."""

    def __init__(self, kind: str, config: CurriculumConfig, corpus: Corpus) -> None:
        self.kind, self.config, self.corpus = kind, config, corpus
        self.fleet = Fleet(config.shape(corpus), config.every_seed, config.learning_rate, make=Skipping)
        self.rng = [torch.Generator().manual_seed(seed) for seed in config.every_seed]
        self.tokens, self.looks, self.seconds, self.work, self.layer_tokens = 0, 0, 0.0, 0.0, 0
        self.curve: list[tuple[int, float, float]] = []

    def now(self) -> tuple[int, int]:
        """Length of the sequences and tokens kept by the middle layers, at this point of the budget."""
        return planned(self.config, self.kind, self.tokens / self.config.tokens)

    def one_step(self) -> Iterator[None]:
        """Yields between parts; only the fleet's own work is timed."""
        config, (length, kept) = self.config, self.now()
        pairs = [batch_of(self.corpus.train_ids, length, config.batch, rng) for rng in self.rng]
        inputs, targets = (torch.stack(part) for part in zip(*pairs, strict=True))  # (M, B, T)
        extra: tuple[Tensor, ...] = ()
        if kept < length and config.middle:
            extra = (torch.stack([chosen(config.middle, length, kept, rng) for rng in self.rng]),)  # (M, L, K)
        progress = self.tokens / config.tokens
        scale = max(0.02, min(1.0, progress / WARM_SHARE)) * 0.5 * (1 + math.cos(math.pi * progress))
        parts, done = self.fleet.step_in_parts(inputs, targets, scale, extra), False
        while not done:
            started = time.thread_time()
            done = next(parts) is not None
            self.seconds += time.thread_time() - started
            if not done:
                yield None
        self.tokens += config.batch * length
        self.work += config.batch * work_of(self.fleet.shape, length, kept)
        self.layer_tokens += config.batch * (config.n_layer * length - config.middle * (length - kept))

    def step(self, **more: Any) -> CurriculumStep:
        return CurriculumStep(self.kind, self.tokens, self.fleet.steps, self.seconds, *self.now(), **more)


def chosen(layers: int, length: int, kept: int, rng: torch.Generator) -> Int[Tensor, "L K"]:
    """Which positions each middle layer sees, in order."""
    return torch.rand(layers, length, generator=rng).argsort()[:, :kept].sort().values


def seen(config: CurriculumConfig, kind: str, progress: float) -> Float[np.ndarray, "L T"]:
    """1 where a layer sees a position, when `progress` of the budget is spent."""
    length, kept = planned(config, kind, progress)
    picture = np.zeros((config.n_layer, config.context), dtype=np.float32)
    picture[:, :length] = 1
    if kept < length and config.middle:
        picture[1:-1] = 0
        np.put_along_axis(
            picture[1:-1],
            chosen(config.middle, length, kept, torch.Generator().manual_seed(config.seed)).numpy(),
            1,
            axis=1,
        )
    return picture


def planned(config: CurriculumConfig, kind: str, progress: float) -> tuple[int, int]:
    """(length of the sequences, tokens kept by the middle layers) when `progress` of the budget is spent."""
    part = max(min(SHORTEST, config.context), round(config.part(progress) * config.context))
    return (part, part) if kind == "short" else (config.context, part if kind == "drop" else config.context)


def work_of(shape: Shape, length: int, kept: int) -> float:
    """FLOPs of one window, forward and backward: 6 per weight and token, and 6 T C per token and layer for attention
    over its past.
    """
    whole, middle = (shape.n_layer, 0) if shape.n_layer < 3 else (2, shape.n_layer - 2)
    layers = sum(
        count * (72 * shape.width**2 + 6 * seen * shape.width) * seen
        for count, seen in ((whole, length), (middle, kept))
    )
    return layers + 6 * shape.vocabulary * shape.width * length


@experiment("Does it pay to start with short texts, or to let layers skip tokens?")
def curriculum(config: CurriculumConfig) -> Iterator[CurriculumStep]:
    """Three fleets, always the one that has read least next."""
    corpus = config.read()
    courses = [Course(kind, config, corpus) for kind in KINDS]
    yield opening(courses)
    while any(course.tokens < config.tokens for course in courses):
        course = min(courses, key=lambda one: one.tokens)
        for _ in course.one_step():
            yield course.step()  # a place to take turns
        yield course.step()
        if course.tokens * LOOKS >= (course.looks + 1) * config.tokens or course.tokens >= config.tokens:
            course.looks = course.tokens * LOOKS // config.tokens
            if (yield from look(course, courses)):
                return
    yield from evaluated(courses)


def opening(courses: list[Course]) -> CurriculumStep:
    """The start state: the loss before anything is learned, and what the layers will see first."""
    config, fleet, corpus = courses[0].config, courses[0].fleet, courses[0].corpus
    blind = float(fleet.alone(0).loss(*windows_of(corpus.validation_ids, config.context, LOOK)))
    first = FIRST_LOSS(blind, math.log(len(corpus.symbols)))
    steps = config.tokens // (config.batch * config.context)
    seconds = len(KINDS) * expected_seconds(
        fleet.shape, fleet.parameters, fleet.size, steps, config.tokens, (LOOKS + 4) * LOOK
    )
    told = (
        f"{len(KINDS)} fleets of {fleet.size} models with {fleet.parameters} weights: {spoken(seconds)} on one thread"
    )
    moments = (0.0, config.until / 2, config.until)
    pictures = np.stack([np.stack([seen(config, kind, moment) for kind in KINDS]) for moment in moments])
    return courses[0].step(blind=blind, moments=moments, seen=pictures, figures=(first,), doing=told)


def look(course: Course, courses: list[Course]) -> Generator[CurriculumStep, None, bool]:
    """Judge a fleet on unseen text; with all tokens and the full length, as it would be used. True: the run must end
    here.
    """
    blown = ""
    for losses in course.fleet.validate_in_parts(course.corpus.validation_ids, LOOK):
        if losses is None:
            yield course.step()
        elif blown := blown_up(losses):
            yield course.step(validation=float(losses.mean()), diverged=True, doing=blown)
        else:
            course.curve.append((course.tokens, course.seconds, float(losses.mean())))
            told = (
                f"{NAMES[course.kind]}: loss {float(losses.mean()):.3f} after {course.tokens} characters and"
                f" {course.seconds:.2f} s"
            )
            yield course.step(
                validation=float(losses.mean()), curves=tuple(tuple(one.curve) for one in courses), doing=told
            )
    return bool(blown)


def evaluated(courses: list[Course]) -> Iterator[CurriculumStep]:
    """The end: each fleet on more unseen text, then both tricks against the baseline."""
    ends = list[Float[np.ndarray, "S"]]()
    for course in courses:
        for losses in course.fleet.validate_in_parts(course.corpus.validation_ids, 4 * LOOK):
            if losses is None:
                yield course.step(doing="judging on more unseen text")
            else:
                ends.append(losses)
    baseline, figures = courses[0], list[Result]()
    for course, losses in list(zip(courses, ends, strict=True))[1:]:
        name = NAMES[course.kind]
        figures.append(LOSS.of(trick=name)(float(losses.mean()), float(ends[0].mean())))
        work, seconds = 100 * course.work / baseline.work, 100 * course.seconds / baseline.seconds
        figures.append(SECONDS.of(trick=name)(seconds, work))
        needed = tokens_needed(course.curve, baseline.curve[-1][2])
        figures.append(NEEDED.of(trick=name)(needed, float(baseline.tokens)))
    drop = courses[-1]
    figures.append(LAYER_TOKENS(100 * drop.layer_tokens / baseline.layer_tokens, planned_share(drop.config)))
    figures.append(NOISE(float(ends[0].std(ddof=1))))
    for course, losses in zip(courses, ends, strict=True):
        last = course is courses[-1]
        told = (
            "done, on four times as much unseen text: "
            + ", ".join(f"{NAMES[one.kind]} {float(end.mean()):.3f}" for one, end in zip(courses, ends, strict=True))
            if last
            else ""
        )
        yield course.step(spread=float(losses.std(ddof=1)), figures=tuple(figures) if last else (), doing=told)


def tokens_needed(curve: list[tuple[int, float, float]], loss: float) -> float | None:
    """Where a curve first falls to `loss`, on the straight line between two looks; None if it never does."""
    for (before, _, high), (after, _, low) in itertools.pairwise(curve):
        if low <= loss:
            return before + (after - before) * (high - loss) / (high - low) if high > low else float(after)
    return None


def planned_share(config: CurriculumConfig) -> float:
    """Layer-tokens of random dropping in % of all: the middle layers lose the triangle above the line from `start` to
    1.
    """
    return 100 * (1 - config.middle / config.n_layer * (1 - config.start) * config.until / 2)
