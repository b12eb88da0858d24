r"""Training: N pictures, N captions, and a table of N x N similarities whose diagonal should win.

Each picture must pick its caption among all N, and each caption its picture. Before anything is learned all are alike,
so the loss starts at $\ln N$. If a batch has equal captions, no model can tell which is whose: of $k$ equal ones each
gets $1/k$ at best, and the loss cannot fall below the mean of $\ln k$. Here they are left out of each other's sums,
which leaves $N - k + 1$ to choose from. In the table they stay: bright places off the diagonal, the *ghosts*.

The cosines are multiplied by a learned scale, $e^{t'}$ with $t' = \ln(1/0.07)$ at the start, because a
softmax of numbers between $-1$ and $1$ is nearly uniform when there are many captions.

**Zero-shot.** A classifier is a list of names: the picture gets the name whose embedding is nearest. Eight of the 48
pairs of color and shape are never shown. They work because a quarter of the training pictures are gray with a colorless
caption: the model cannot profit from learning that red and diamond never meet. And *twins* make it precise: pairs of
pictures that differ in one thing only, so that color alone does not win. In the first 600 steps their share grows to
half of the batch, and captions grow longer.

The digits are real scans, with the captions of the course. They are **not** zero-shot: all ten classes are shown in
training, and only pictures are new in the test.

Command of the shipped weights: `python -m core clip train --steps 1500 --save assets/weights/shapes-clip`
Left out: mixed precision, several machines (CLIP gathers the embeddings of all of them), augmentation.
Source: Radford et al. 2021, arXiv:2103.00020, sections 2.3 to 2.5, figure 3; Gao et al. 2021, arXiv:2101.06983 (the
loss on embeddings, the towers in parts).
"""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from core.clip.contrast import Contrast, schedule
from core.clip.worlds import Digits, Lot, Shapes, World, equal_captions, shapes_lot
from core.foundations.captioned_shapes import captions, draw
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.settings import seed_field
from core.foundations.small_clip import Clip, config_json, to_bytes

LOOKS = 20  # how often a run pauses to look at the table
PROBE = 24  # pictures and captions of the table
SHOWN = 8  # pictures whose found names are shown
ASKED, ASKED_AT_END = 48, 400  # pictures of each quiz
GALLERY = 256  # pictures of the retrieval test
MOST_SCALE = 100.0  # that the logit scale may reach
FIRST_LOSS = Figure("first loss", "nats", "theory", "ln of the captions that count", headline=True)
DIGITS = Figure("unseen digits named right", "% of pictures", "baseline", "a blind guess", headline=True)
SEEN_PAIRS = Figure(
    "new pictures of known pairs named right", "% of pictures", "baseline", "a blind guess", headline=True
)
NEW_PAIRS = Figure(
    "pictures of pairs never shown named right",
    "% of pictures",
    "baseline",
    "known pairs: as many, if color and shape are learned separately",
    headline=True,
)
RETRIEVED = Figure(
    "own caption found first", f"% of {GALLERY} pictures", "baseline", f"a blind guess: 1 of {GALLERY}", headline=True
)
GAP = Figure("modality gap", "distance of the centers", None, "arXiv:2203.02053")
SCALE = Figure("logit scale", "factor", "limit", "the cap that CLIP sets, arXiv:2103.00020, section 2.5")
SPEED = Figure("training speed", "pairs per second", None, "units of this run alone, waiting left out")


@dataclass(frozen=True)
class TrainConfig(Config):
    """What is learned from, and how."""

    world: str = setting(
        "shapes",
        "World",
        choices={"shapes": "captioned shapes", "digits": "handwritten digits"},
        help="Drawings of colored shapes, or scans of handwritten digits.",
    )
    steps: int = setting(
        400, "Steps", unit="step", low=1, high=20_000, help="More steps teach both towers more; each takes time."
    )
    batch: int = setting(
        64,
        "Pairs per step",
        unit="pair",
        low=2,
        high=256,
        help="More pairs per step give each picture more captions to choose among: harder, and slower.",
    )
    twins: bool = setting(
        True,
        "Twins",
        when=("world", "shapes"),
        help="Up to half of the batch are near-copies: the same scene with one thing changed. They force the model to"
        " be precise.",
    )
    grey: float = setting(
        0.25,
        "Fraction of gray pictures",
        low=0,
        high=1,
        when=("world", "shapes"),
        help="More gray pictures, whose captions name no color, help to name pairs that were never shown.",
        slider=True,
    )
    mask: bool = setting(
        True,
        "Leave out equal captions",
        help="Equal captions are left out of each other's sums instead of counting as wrong answers.",
    )
    two: float = setting(
        0.35,
        "Fraction of pictures with two objects",
        low=0,
        high=1,
        when=("world", "shapes"),
        more=True,
        help="More pictures of two objects teach relations; reached after 600 steps.",
        slider=True,
    )
    scale: float = setting(
        1 / 0.07,
        "Logit scale at the start",
        low=1,
        high=100,
        more=True,
        help="A higher scale makes the softmax sharper from the start: the cosines are multiplied by it.",
    )
    learn_scale: bool = setting(
        True, "Learn the scale", more=True, help="Lets training change the scale of the cosines; off keeps it as it is."
    )
    learning_rate: float = setting(
        0.002,
        "Learning rate",
        low=1e-6,
        high=1.0,
        more=True,
        help="Higher makes each step larger: learning is faster, until the loss blows up.",
    )
    width: int = setting(
        96,
        "Channels",
        unit="channel",
        low=8,
        high=192,
        more=True,
        help="More channels let the picture tower tell more apart; each step takes longer. A multiple of 8.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8 channels, got {self.width}")

    @property
    def worlds(self) -> World:
        return Digits() if self.world == "digits" else Shapes(self.twins, self.grey, self.two)


@dataclass(frozen=True)
class Look:
    """The model at one moment, asked about the same pictures every time."""

    step: int
    tables: Float[
        np.ndarray, "1 2 N N"
    ]  # picture, caption: cosines, and the softmax over the captions at the scale learned so far
    captions: tuple[str, ...]  # of the table
    shown: Float[np.ndarray, "8 3 32 32"]
    truths: tuple[str, ...]  # what they show
    found: tuple[str, ...]  # the name it gives to each
    sure: tuple[float, ...]  # its probability of that name, from 0 to 1


@dataclass(frozen=True)
class TrainStep(Step):
    """An optimizer step, a look, or a part of either; what did not happen in it is None."""

    step: int = 0
    progress: float = 0.0  # 0 to 1
    loss: float | None = None  # nats
    uniform: float | None = None  # the loss if all captions that count were equally likely
    scale: float | None = None  # of the cosines
    look: Look | None = None
    named: tuple[tuple[str, float], ...] = ()  # kind of unseen pictures, share named right
    chance: float = 0.0  # fraction of a blind guess
    levels: tuple[tuple[str, float], ...] = ()  # losses that can be known before, on the first Step


# --- looking ----------------------------------------------------------------------------------------------------------


class Observer:
    """The same questions every time: a table, a few pictures by name, quizzes of unseen pictures."""

    def __init__(self, world: World) -> None:
        self.world, self.probe = world, world.probe(PROBE)
        each = SHOWN // len(world.quizzes)
        asked = [world.quiz(kind, each, 5) for kind in world.quizzes]
        self.shown = torch.cat([quiz.pictures for quiz in asked])
        self.truths = tuple(world.names[answer] for quiz in asked for answer in quiz.answers)
        self.quizzes = {kind: world.quiz(kind, ASKED, 6) for kind in world.quizzes}

    @torch.no_grad()
    def look(self, clip: Clip, step: int) -> Look:
        cosines = clip.pictures(self.probe.pictures) @ clip.texts(self.probe.captions).T
        odds = (clip.scale * clip.pictures(self.shown) @ clip.texts(self.world.names).T).softmax(1)
        tables = torch.stack([cosines, (clip.scale * cosines).softmax(1)])[None].numpy()
        found = tuple(self.world.names[guess] for guess in odds.argmax(1).tolist())
        return Look(
            step, tables, self.probe.captions, self.shown.numpy(), self.truths, found, tuple(odds.amax(1).tolist())
        )

    def named(
        self, clip: Clip, pause: TrainStep, at_end: bool = False
    ) -> Generator[TrainStep, None, tuple[tuple[str, float], ...]]:
        """The fraction of unseen pictures that get their right name, of each kind."""
        names, shares = clip.texts(self.world.names), []
        for kind, quiz in self.quizzes.items():
            quiz = self.world.quiz(kind, ASKED_AT_END, 7) if at_end else quiz
            right = list[bool]()
            for first in range(0, len(quiz.answers), 80):
                yield pause
                found = (clip.pictures(quiz.pictures[first : first + 80]) @ names.T).argmax(1).numpy()
                right += (found == quiz.answers[first : first + 80]).tolist()
            shares.append((kind, float(np.mean(right))))
        return tuple(shares)


def gallery(n: int = GALLERY) -> Lot:
    """Unseen pictures with captions that say all, a third of them of two objects."""
    scenes = draw(np.random.default_rng(8), n, two=0.3)
    return shapes_lot(scenes, captions(scenes, np.random.default_rng(9), 1.0))


def retrieval(clip: Clip, lot: Lot, pause: TrainStep) -> Generator[TrainStep, None, tuple[float, float]]:
    """The fraction of pictures that find their caption first, or one that says the same; and the distance of the two
    clouds' centers, the modality gap.
    """
    parts = []
    for first in range(0, len(lot.captions), 64):
        parts.append(clip.pictures(lot.pictures[first : first + 64]))
        yield pause
    pictures, texts = torch.cat(parts), clip.texts(lot.captions)
    found = (pictures @ texts.T).argmax(1)
    right = (lot.said[found] == lot.said).all(1).float().mean()
    return float(right), float((pictures.mean(0) - texts.mean(0)).norm())


# --- the run ----------------------------------------------------------------------------------------------------------


@experiment("How do a picture tower and a text tower, both untrained, come to agree?")
def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Contrastive training from scratch, with looks in between."""
    world = config.worlds
    learner = Contrast(
        world,
        config.width,
        config.learning_rate,
        config.scale,
        config.learn_scale,
        MOST_SCALE,
        config.mask,
        config.seed,
    )
    observer, first, uniform = Observer(world), math.nan, math.nan
    yield opening(config, learner, observer)
    named = yield from observer.named(learner.clip, TrainStep())
    yield TrainStep(named=named, doing="asked the untrained model: " + told(named))
    busy, every = 0.0, max(1, config.steps // LOOKS)
    for step in range(config.steps):
        started = time.perf_counter()
        lot = world.lot(learner.rng, config.batch, step)
        counted = math.nan
        for part in learner.one_step(lot, schedule(step, config.steps)):
            busy += time.perf_counter() - started
            if part is None:
                yield TrainStep(step, step / config.steps)
            else:
                counted, loss = uniform_loss(learner, lot), part
            started = time.perf_counter()
        if step == 0:
            first, uniform = loss, counted
        now = TrainStep(
            step + 1,
            (step + 1) / config.steps,
            loss,
            counted,
            learner.clip.scale,
            doing=f"step {step + 1}: loss {loss:.3f}",
        )
        if not math.isfinite(loss):
            figures = (FIRST_LOSS(first, uniform),)
            yield replace(
                now,
                loss=None,
                diverged=True,
                figures=figures,
                doing=f"step {step + 1}: the loss became NaN: try a smaller learning rate",
            )
            return
        yield now
        if (step + 1) % every == 0 and step + 1 < config.steps:
            yield from looked(learner, observer, now)
    yield from evaluated(config, learner, observer, first, uniform, config.steps * config.batch / busy)


def told(named: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{share:.0%} of {kind} named right" for kind, share in named)


def opening(config: TrainConfig, learner: Contrast, observer: Observer) -> TrainStep:
    """What the untrained model makes of the pictures, and what can be known before."""
    world, clip, names = observer.world, learner.clip, observer.world.names
    counted, lowest = beforehand(learner, config)
    levels = [
        (
            f"{counted:.2f} without equal captions; ln {config.batch} =" if config.mask else f"ln {config.batch} =",
            math.log(config.batch),
        )
    ]
    levels += [] if config.mask else [("no lower with equal captions:", lowest)]
    return TrainStep(
        scale=clip.scale,
        look=observer.look(clip, 0),
        chance=1 / len(names),
        levels=tuple(levels),
        files=files(world, clip),
        doing=f"untrained: {PROBE} new pictures against {PROBE} captions",
    )


def files(world: World, clip: Clip) -> dict[str, bytes]:
    return {
        "model.safetensors": to_bytes(clip.model, world.words),
        "config.json": config_json(clip.model, world.words).encode(),
    }


def uniform_loss(learner: Contrast, lot: Lot) -> float:
    """The mean of ln(captions that count) over the batch."""
    counts = len(lot.captions) - learner.left_out(lot).sum(1)
    return float(counts.float().log().mean())


def beforehand(learner: Contrast, config: TrainConfig) -> tuple[float, float]:
    """Over a few batches: the mean of ln(captions that are not equal), and of ln(equal ones), below which no model's
    loss falls if they count as wrong.
    """
    rng = np.random.default_rng(config.seed)
    lots = [learner.world.lot(rng, config.batch, 0) for _ in range(20 if config.world == "digits" else 2)]
    same = torch.cat([equal_captions(lot.said).sum(1) for lot in lots]).float()
    return float((config.batch - same).log().mean()), float((same + 1).log().mean())


def looked(learner: Contrast, observer: Observer, now: TrainStep) -> Iterator[TrainStep]:
    """A look, a unit of its own, and the quizzes."""
    pause = TrainStep(now.step, now.progress)
    yield replace(pause, look=observer.look(learner.clip, now.step), files=files(observer.world, learner.clip))
    named = yield from observer.named(learner.clip, pause)
    yield replace(pause, named=named, doing=f"step {now.step}: " + told(named))


def evaluated(
    config: TrainConfig, learner: Contrast, observer: Observer, first: float, uniform: float, speed: float
) -> Iterator[TrainStep]:
    """The last look, on more pictures, and the figures."""
    clip, pause = learner.clip, TrainStep(config.steps, 1.0, doing="asking for the names of unseen pictures")
    yield pause
    named = yield from observer.named(clip, pause, at_end=True)
    shares, chance = [100 * share for _, share in named], 100 / len(observer.world.names)
    figures = [FIRST_LOSS(first, uniform)]
    if config.world == "digits":
        figures.append(DIGITS(shares[0], chance))
    else:
        figures += [SEEN_PAIRS(shares[0], chance), NEW_PAIRS(shares[1], shares[0])]
        found, gap = yield from retrieval(clip, gallery(), pause)
        figures += [RETRIEVED(100 * found, 100 / GALLERY), GAP(gap)]
    figures += [SCALE(clip.scale, MOST_SCALE), SPEED(speed)]
    yield TrainStep(
        config.steps,
        1.0,
        scale=clip.scale,
        look=observer.look(clip, config.steps),
        named=named,
        figures=tuple(figures),
        files=files(observer.world, clip),
        doing="done: " + told(named),
    )
