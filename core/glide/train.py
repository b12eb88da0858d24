r"""Training a denoiser from nothing, live.

One optimizer step: 32 fresh drawings with their captions, each with noise of a random level; the network says $v$,
which holds as much of the picture as of the noise; its squared error is lowered a little. In one of eight captions the
words are left out. There is no more to it, and no sampling in it.

**What comes first.** The samples begin from the same noise at every look. First they get a background and a blob, then
the blob has the color that was asked for, last the shape: colors fill the picture and shapes are its edges. Color and
shape combine: the figures tell how often pairs come out that were never shown.

**Loss by noise level.** With little noise (right) nearly all is to be seen, and only the edges are left to find. With
much noise (left) the words are all there is to go by: the error there falls only to the spread of all pictures that fit
the caption. The levels between decide what it becomes, and are trained more often: in a trial with evenly drawn levels
the judge agreed with two thirds of the samples where it agrees with nine tenths now.

**Muon.** With Adam the words have hardly any effect after 300 steps; with Muon (`muon.py`) colors are right by
then. Choose Adam to see it.

The default run takes about two minutes. It paints 16 x 16 pixels with one large object, with a
U-Net of 48 and 96 channels (`unet.py`). Going on from the shipped weights takes their U-Net of 64 and 128 channels and
a tenth of the learning rate.

Left out: several resolutions, learned variances, mixed precision; the shipped weights took a quarter of an hour.
Source: Ho et al. 2020, arXiv:2006.11239, algorithm 1; Nichol et al. 2021, arXiv:2112.10741, section 4.1; Ho and
Salimans 2022, arXiv:2207.12598 (dropping words); Esser et al. 2024, arXiv:2403.03206, section 3.1 (levels in the
middle).
"""

import copy
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.foundations.captioned_shapes import PAIRS, SEEN, prompt, render
from core.foundations.diffusion import sampling, signal, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.judge import seen
from core.foundations.settings import seed_field
from core.foundations.small_diffusion import Average, Lesson
from core.glide.model import PIXELS, Glide, lessons, mostly_middle, shipped_glide
from core.glide.muon import Muon

LOOKS = 8  # how often a run pauses to look
SHOWN = 8  # samples of a look: half of seen pairs, half of pairs never seen
ASKED, ASKED_AT_END = 16, 64  # samples that the judge grades, besides
PART = 8  # samples in one unit of work
SAMPLED = 10  # steps of a sample
EDGES = (-20.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 12.0)  # log-SNR of the noise levels
KINDS = ("seen", "never seen")
STARTS = {"scratch": "from nothing", "shipped": "from the shipped weights"}
LOST = "The loss became NaN: try a smaller learning rate."
FIRST_LOSS = Figure(
    "first loss", "squared error", "theory", "always answering 0, which a network with a zeroed last layer does"
)
SEEN_RIGHT = Figure("judge agrees, pairs it was shown", "% of samples", "baseline", "a blind guess", headline=True)
NEW_RIGHT = Figure(
    "judge agrees, pairs never shown",
    "% of samples",
    "baseline",
    "pairs it was shown: as many, if color and shape are learned separately",
    headline=True,
)
SURE_AT = Figure("first look with 90 % of both kinds right", "step", None, "among the looks", headline=True)
SPEED = Figure("training speed", "pictures per second", None, "steps of this run alone, waiting left out")
OPTIMIZERS = {"muon": "Muon", "adamw": "AdamW"}


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a denoiser is trained."""

    steps: int = setting(
        1100, "Steps", unit="step", low=1, high=20_000, help="More steps learn more; 1,100 take about two minutes."
    )
    batch: int = setting(
        32,
        "Pictures per step",
        unit="picture",
        low=2,
        high=32,
        help="More pictures per step make the steps steadier; each step takes longer.",
    )
    learning_rate: float = setting(
        0.006,
        "Learning rate",
        low=1e-6,
        high=1.0,
        help="Higher makes each step larger: learning is faster, until the loss blows up.",
    )
    optimizer: str = setting(
        "muon", "Optimizer", choices=OPTIMIZERS, help="Muon learns to follow the words much sooner than AdamW does."
    )
    scale: float = setting(
        2.0,
        "Guidance scale of the samples",
        low=0,
        high=20,
        help="Higher makes the samples follow their prompts more strongly; it does not change the training.",
    )
    start: str = setting(
        "scratch",
        "Begin",
        choices=STARTS,
        more=True,
        help="From nothing, or going on from the shipped weights with a tenth of the learning rate.",
    )
    width: int = setting(
        48,
        "Channels",
        unit="channel",
        low=16,
        high=64,
        more=True,
        when=("start", "scratch"),
        help="More channels can learn finer pictures; each step takes longer. The lower level has twice as many.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.width % 16:
            raise ValueError(f"width must be a multiple of 16 channels, got {self.width}")


@dataclass(frozen=True)
class TrainStep(Step):
    """An optimizer step, a look, or a part of one; what did not happen in it is None or empty."""

    step: int = 0
    progress: float = 0.0  # 0 to 1
    loss: float | None = None  # mean squared error of v, weighted
    by_level: tuple[float, ...] = ()  # ... at each noise level, lately
    at_first: tuple[float, ...] = ()  # ... in the first steps
    pixels: np.ndarray | None = None  # (8, 3, 16, 16) samples from the same noise
    asked: tuple[str, ...] = ()  # what they should show
    verdicts: tuple[str, ...] = ()  # what the judge sees
    right: tuple[
        tuple[str, float], ...
    ] = ()  # kind of pairs, fraction of samples in which the judge sees what was asked
    grey: float | None = None  # the loss of answering 0, on the first Step


# --- looking ----------------------------------------------------------------------------------------------------------


def pairs_for(count: int, seed: int) -> list[tuple[str, str]]:
    """Half of them seen in training, half never, in this order."""
    rng, never = np.random.default_rng(seed), [pair for pair in PAIRS if pair not in SEEN]
    half = count // 2
    return [SEEN[at] for at in rng.permutation(len(SEEN))[np.arange(half) % len(SEEN)]] + [
        never[at % len(never)] for at in range(count - half)
    ]


class Observer:
    """The same prompts and the same noise at every look."""

    def __init__(self, denoiser: Glide, scale: float, seed: int) -> None:
        self.denoiser, self.scale, self.seed = copy.deepcopy(denoiser).eval().requires_grad_(False), scale, seed

    def sampled(self, pairs: list[tuple[str, str]], pause: TrainStep) -> Generator[TrainStep, None, Tensor]:
        """A picture for each pair; a unit of work per step and part."""
        noise, done = self.denoiser.noise(len(pairs), self.seed), list[Tensor]()
        for first in range(0, len(pairs), PART):
            states = self.denoiser.states([prompt(*pair) for pair in pairs[first : first + PART]])
            kinds, x = (self.denoiser.schedule, self.denoiser.predicts), noise[first : first + PART]
            network, visited = self.denoiser.network(states), trailing(SAMPLED)
            for moment in sampling(network, x, kinds, SAMPLED, self.scale, clip=self.denoiser.clip, visited=visited):
                x = moment.after
                yield pause
            done.append(self.denoiser.decode(x))
        return torch.cat(done)

    def look(self, average: Average, now: TrainStep, asked: int) -> Generator[TrainStep, None, TrainStep]:
        """Samples of the average weights, and the judge's word on them."""
        self.denoiser.load_state_dict(average.weights)
        pairs = [*pairs_for(SHOWN, 1), *pairs_for(asked, 2)]
        pictures = yield from self.sampled(pairs, replace(now, doing=f"step {now.step}: sampling"))
        names = seen(pictures)
        hits = [name == " ".join(pair) for name, pair in zip(names, pairs, strict=True)]
        shares = [
            float(np.mean([hit for hit, pair in zip(hits, pairs, strict=True) if (pair in SEEN) == (kind == "seen")]))
            for kind in KINDS
        ]
        told = ", ".join(f"{share:.0%} of {kind} pairs" for kind, share in zip(KINDS, shares, strict=True))
        return replace(
            now,
            pixels=pictures[:SHOWN].numpy(),
            asked=tuple(" ".join(pair) for pair in pairs[:SHOWN]),
            verdicts=tuple(names[:SHOWN]),
            right=tuple(zip(KINDS, shares, strict=True)),
            doing=f"step {now.step}: the judge agrees with {told}",
        )


class Levels:
    """The error at each noise level: over the first steps, and a running mean."""

    def __init__(self) -> None:
        self.first, self.counts = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)
        self.now = np.full(len(EDGES) - 1, np.nan)

    def add(self, lesson: Lesson) -> None:
        level = np.log(lesson.levels / (1 - lesson.levels))
        where = np.digitize(level, EDGES[1:-1])
        for place in np.unique(where):
            mean = float(lesson.errors[where == place].mean())
            self.now[place] = mean if math.isnan(self.now[place]) else 0.95 * self.now[place] + 0.05 * mean
        if lesson.step <= 20:
            np.add.at(self.first, where, lesson.errors)
            np.add.at(self.counts, where, 1)

    def told(self, step: TrainStep) -> TrainStep:
        """The step, with both."""
        return replace(
            step, by_level=tuple(self.now.tolist()), at_first=tuple((self.first / np.maximum(self.counts, 1)).tolist())
        )


# --- the run ----------------------------------------------------------------------------------------------------------


def student(config: TrainConfig) -> Glide:
    """The network to train, without the upsampler: a small one with weights from the seed, or a copy of the shipped
    one.
    """
    if config.start == "shipped":
        denoiser = copy.deepcopy(shipped_glide()).train().requires_grad_(True)
        denoiser.side = PIXELS
        return denoiser
    return Glide(PIXELS, (config.width, 2 * config.width), torch.Generator().manual_seed(config.seed))


def idle_loss(denoiser: Glide, seed: int) -> float:
    """The mean loss of a network that always answers 0, over the noise levels of training."""
    x0, rng = (
        denoiser.encode(render(denoiser.scenes(np.random.default_rng(seed), 64))),
        torch.Generator().manual_seed(seed),
    )
    kept = signal(denoiser.schedule)[mostly_middle(10_000, rng)]
    return float((kept + (1 - kept) * x0.square().mean()).mean())


@experiment("How does a network learn to see pictures in noise?")
def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Steps, with looks at samples from the same noise."""
    denoiser = student(config)
    grey = idle_loss(denoiser, config.seed)
    start = denoiser.small(denoiser.noise(SHOWN, config.seed)).numpy()
    names = tuple(" ".join(pair) for pair in pairs_for(SHOWN, 1))
    yield TrainStep(
        pixels=start,
        asked=names,
        grey=grey,
        doing=f"the noise that all samples begin with; {config.steps} steps to come",
    )
    observer, levels = Observer(denoiser, config.scale, config.seed), Levels()
    yield (yield from observer.look(Average(denoiser), TrainStep(), ASKED))
    optimizer = Muon if config.optimizer == "muon" else None
    every, busy, first, sure = math.ceil(config.steps / LOOKS), 0.0, math.nan, math.nan
    rate = config.learning_rate if config.start == "scratch" else config.learning_rate / 10
    lesson_by_lesson = lessons(
        denoiser, config.steps, batch=config.batch, rate=rate, seed=config.seed, optimizer=optimizer
    )
    started = time.perf_counter()
    for lesson, average in lesson_by_lesson:
        busy += time.perf_counter() - started
        first = lesson.loss if lesson.step == 1 else first
        now = TrainStep(
            lesson.step, lesson.step / config.steps, lesson.loss, doing=f"step {lesson.step}: loss {lesson.loss:.3f}"
        )
        if not math.isfinite(lesson.loss):
            yield replace(now, loss=None, diverged=True, figures=(FIRST_LOSS(first, grey),), doing=LOST)
            return
        levels.add(lesson)
        yield levels.told(now) if lesson.step % 10 == 0 or lesson.step == 1 else now
        if lesson.step % every == 0 and LOOKS <= lesson.step < config.steps:
            looked = yield from observer.look(average, TrainStep(lesson.step, lesson.step / config.steps), ASKED)
            sure = float(lesson.step) if math.isnan(sure) and min(share for _, share in looked.right) >= 0.9 else sure
            yield looked
        started = time.perf_counter()
    yield from finished(config, observer, average, levels, (grey, first, sure, config.steps * config.batch / busy))


def finished(
    config: TrainConfig, observer: Observer, average: Average, levels: Levels, told: tuple[float, float, float, float]
) -> Iterator[TrainStep]:
    """The last look, at more samples, and the figures."""
    import safetensors.torch

    grey, first, sure, speed = told
    last = yield from observer.look(
        average, levels.told(TrainStep(config.steps, 1.0)), ASKED_AT_END if config.steps > LOOKS else ASKED
    )
    shares = [100 * share for _, share in last.right]
    sure = float(config.steps) if math.isnan(sure) and min(shares) >= 90 else sure
    figures = (
        FIRST_LOSS(first, grey),
        SEEN_RIGHT(shares[0], 100 / len(PAIRS)),
        NEW_RIGHT(shares[1], shares[0]),
        *(() if math.isnan(sure) else (SURE_AT(sure),)),
        SPEED(speed),
    )
    file = safetensors.torch.save({name: weight.half().contiguous() for name, weight in average.weights.items()})
    yield replace(last, figures=figures, files={"model.safetensors": file})
