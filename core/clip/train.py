r"""Training: N pictures, N captions, and a table of N x N similarities whose diagonal should win.

Each picture must pick its caption among all N, and each caption its picture. Before anything is learnt all are alike, so
the loss starts at $\ln N$. If a batch has equal captions, no model can tell which is whose: of $k$ equal ones each gets
$1/k$ at best, and the loss cannot fall below the mean of $\ln k$. Here they are left out of each other's sums, which leaves
$N - k + 1$ to choose from. In the table they stay: bright places off the diagonal, the *ghosts*.

The cosines are multiplied by a learnt scale, $e^{t'}$ with $t' = \ln(1/0.07)$ at the start, since between $-1$ and $1$ a softmax
over many captions can hardly prefer one.

**Zero-shot.** A classifier is a list of names: the picture gets the name whose embedding is nearest. Eight of the 48 pairs of
colour and shape are never shown. What makes them work: a quarter of the pictures are grey with a colourless caption, so that "red is never a diamond" does
not pay. And *twins* make it precise: pairs of pictures that differ in one thing only, so that colour alone does not win. In the
first 600 steps their share grows to half of the batch, and captions grow longer.

The digits are real scans, with the captions of the course. They are **not** zero-shot: all ten classes are shown in
training, and only pictures are new in the test.

Command of the shipped weights: `python -m core clip train --steps 1500 --save assets/weights/shapes-clip`
Left out: mixed precision, several machines (CLIP gathers the embeddings of all of them), augmentation.
Source: Radford et al. 2021, arXiv:2103.00020, sections 2.3 to 2.5, figure 3; Gao et al. 2021, arXiv:2101.06983 (the loss on
embeddings, the towers in parts).
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
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.small_clip import Clip, config_json, to_bytes

LOOKS = 20  # how often a run pauses to look at the table
PROBE = 24  # pictures and captions of the table
SHOWN = 8  # pictures whose found names are shown
ASKED, ASKED_AT_END = 48, 400  # pictures of each quiz
GALLERY = 256  # pictures of the retrieval test


@dataclass(frozen=True)
class TrainConfig(Config):
    """What is learnt from, and how."""

    world: str = setting("shapes", "World", choices={"shapes": "captioned shapes", "digits": "handwritten digits"})
    steps: int = setting(400, "Steps", unit="step", low=1, high=20_000, help="corrections of the weights")
    batch: int = setting(64, "Pairs per step", unit="pair", low=2, high=256, help="N: each picture chooses among the captions of N")
    twins: bool = setting(True, "Twins", when=("world", "shapes"), help="up to half of the batch is another picture of it with one thing changed")
    grey: float = setting(0.25, "Share of grey pictures", low=0, high=1, when=("world", "shapes"), help="their captions name no colour")
    mask: bool = setting(True, "Leave out equal captions", help="they are neither right nor wrong for each other")
    two: float = setting(0.35, "Share of pictures of two objects", low=0, high=1, when=("world", "shapes"), more=True, help="reached after 600 steps")
    scale: float = setting(1 / 0.07, "Logit scale at the start", low=1, high=100, more=True, help="cosines are multiplied by it")
    learn_scale: bool = setting(True, "Learn the scale", more=True)
    learning_rate: float = setting(0.002, "Learning rate", low=1e-6, high=1.0, more=True)
    width: int = setting(96, "Channels", unit="channel", low=8, high=192, more=True, help="of the picture tower; a multiple of 8")
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True)

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
    tables: Float[np.ndarray, "1 2 N N"]  # picture, caption: cosines, and the softmax over the captions at the scale learnt so far
    captions: tuple[str, ...]  # of the table
    shown: Float[np.ndarray, "8 3 32 32"]
    truths: tuple[str, ...]  # what they show
    found: tuple[str, ...]  # the name it gives to each
    sure: tuple[float, ...]  # its probability of that name, from 0 to 1


@dataclass(frozen=True)
class TrainStep(Step):
    """A correction of the weights, a look, or a part of either; what did not happen in it is None."""

    step: int = 0
    progress: float = 0.0  # 0 to 1
    loss: float | None = None  # nats
    uniform: float | None = None  # the loss if all captions that count were equally likely
    scale: float | None = None  # of the cosines
    look: Look | None = None
    named: tuple[tuple[str, float], ...] = ()  # kind of unseen pictures, share named right
    chance: float = 0.0  # share of a blind guess
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
        return Look(step, tables, self.probe.captions, self.shown.numpy(), self.truths, found, tuple(odds.amax(1).tolist()))

    def named(self, clip: Clip, pause: TrainStep, at_end: bool = False) -> Generator[TrainStep, None, tuple[tuple[str, float], ...]]:
        """The share of unseen pictures that get their right name, of each kind."""
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
    """The share of pictures that find their caption first, or one that says the same; and the distance of the two clouds' centres, the modality gap."""
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
    learner = Contrast(world, config.width, config.learning_rate, config.scale, config.learn_scale, 100.0, config.mask, config.seed)
    observer, first, uniform = Observer(world), math.nan, math.nan
    yield opening(config, learner, observer)
    named = yield from observer.named(learner.clip, TrainStep())
    yield TrainStep(named=named, doing="asked the untrained model: " + told(named))
    busy, every = 0.0, max(1, config.steps // LOOKS)
    for step in range(config.steps):
        started = time.perf_counter()
        lot = world.lot(learner.dice, config.batch, step)
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
        now = TrainStep(step + 1, (step + 1) / config.steps, loss, counted, learner.clip.scale, doing=f"step {step + 1}: loss {loss:.3f}")
        if not math.isfinite(loss):
            figures = (Compared("first loss", "nats", uniform, first, "ln of the captions that count"),)
            yield replace(
                now, loss=None, diverged=True, figures=figures, doing=f"step {step + 1}: the loss is no number any more; a smaller learning rate will hold"
            )
            return
        yield now
        if (step + 1) % every == 0 and step + 1 < config.steps:
            yield from looked(learner, observer, now)
    yield from judged(config, learner, observer, first, uniform, config.steps * config.batch / busy)


def told(named: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{share:.0%} of {kind} named right" for kind, share in named)


def opening(config: TrainConfig, learner: Contrast, observer: Observer) -> TrainStep:
    """What the untrained model makes of the pictures, and what can be known before."""
    world, clip, names = observer.world, learner.clip, observer.world.names
    counted, lowest = beforehand(learner, config)
    levels = [(f"{counted:.2f} without equal captions; ln {config.batch} =" if config.mask else f"ln {config.batch} =", math.log(config.batch))]
    levels += [] if config.mask else [("no lower with equal captions:", lowest)]
    return TrainStep(scale=clip.scale, look=observer.look(clip, 0), chance=1 / len(names), levels=tuple(levels), files=files(world, clip),
                     doing=f"untrained: {PROBE} new pictures against {PROBE} captions")  # fmt: skip


def files(world: World, clip: Clip) -> dict[str, bytes]:
    return {"model.safetensors": to_bytes(clip.model, world.words), "config.json": config_json(clip.model, world.words).encode()}


def uniform_loss(learner: Contrast, lot: Lot) -> float:
    """The mean of ln(captions that count) over the batch."""
    counts = len(lot.captions) - learner.left_out(lot).sum(1)
    return float(counts.float().log().mean())


def beforehand(learner: Contrast, config: TrainConfig) -> tuple[float, float]:
    """Over a few batches: the mean of ln(captions that are not equal), and of ln(equal ones), below which no model's loss falls if they count as wrong."""
    dice = np.random.default_rng(config.seed)
    lots = [learner.world.lot(dice, config.batch, 0) for _ in range(20 if config.world == "digits" else 2)]
    same = torch.cat([equal_captions(lot.said).sum(1) for lot in lots]).float()
    return float((config.batch - same).log().mean()), float((same + 1).log().mean())


def looked(learner: Contrast, observer: Observer, now: TrainStep) -> Iterator[TrainStep]:
    """A look, a unit of its own, and the quizzes."""
    pause = TrainStep(now.step, now.progress)
    yield replace(pause, look=observer.look(learner.clip, now.step), files=files(observer.world, learner.clip))
    named = yield from observer.named(learner.clip, pause)
    yield replace(pause, named=named, doing=f"step {now.step}: " + told(named))


def judged(config: TrainConfig, learner: Contrast, observer: Observer, first: float, uniform: float, speed: float) -> Iterator[TrainStep]:
    """The last look, on more pictures, and the figures."""
    clip, pause = learner.clip, TrainStep(config.steps, 1.0, doing="asking for the names of unseen pictures")
    yield pause
    named = yield from observer.named(clip, pause, at_end=True)
    shares, chance = [100 * share for _, share in named], 100 / len(observer.world.names)
    figures = [Compared("first loss", "nats", uniform, first, "ln of the captions that count")]
    if config.world == "digits":
        figures.append(Compared("unseen digits named", "% of pictures", None, shares[0], f"a blind guess: {chance:.0f} %"))
    else:
        figures.append(Compared("seen pairs named", "% of pictures", None, shares[0], f"a blind guess: {chance:.1f} %"))
        figures.append(
            Compared("never seen pairs named", "% of pictures", shares[0], shares[1], "predicted: as many as of seen pairs, if colour and shape combine")
        )
        found, gap = yield from retrieval(clip, gallery(), pause)
        figures.append(Compared("captions found first", f"% of {GALLERY} pictures", None, 100 * found, f"a blind guess: {100 / GALLERY:.1f} %"))
        figures.append(Compared("modality gap", "distance of the centres", None, gap, "arXiv:2203.02053"))
    figures.append(Compared("logit scale", "factor", 100.0, clip.scale, "predicted: CLIP's own went to its cap of 100, arXiv:2103.00020, 2.5"))
    figures.append(Compared("training speed", "pairs per second", None, speed, "units of this run alone, waiting left out"))
    yield TrainStep(config.steps, 1.0, scale=clip.scale, look=observer.look(clip, config.steps), named=named, figures=tuple(figures),
                    files=files(observer.world, clip), doing="done: " + told(named))  # fmt: skip
