r"""Repeat: one token budget, spent on fresh text or on the same text again and again.

A budget of $D$ tokens buys one epoch of $D$ unique tokens, or $k$ epochs of $U = D/k$. A token that comes again teaches
less than it did at first. Muennighoff et al. trained some 400 models to find out how much less, and say that a run is
worth $D'$ fresh tokens,

$$D' = U + U R^*_D\left(1 - e^{-R_D/R^*_D}\right), \qquad R_D = D/U - 1, \qquad R^*_D = 15.39 .$$

At 4 epochs a token is still worth 93 % of a fresh one, at 16 epochs 66 %, at 40 epochs 38 %; however often it is read,
a text is never worth more than $1 + R^*_D = 16.4$ of its lengths. Their loss is
$L = E + A/N'^{\alpha} + B/D'^{\beta}$, $N'$ likewise for weights beyond what the unique text can use.

**What is predicted here, and what is fitted.** Their absolute constants belong to their models and tokens ("the actual
loss value is unlikely to be useful, but rather the trend", says their own code). So the run on fresh text is the ruler:
$L_1(D) = E + B/D^{\beta}$ with their $\beta = 0.353$, and $E$ and $B$ fitted to the last part of the fresh runs' own
curve, nothing else. The law then says where a run of $k$ epochs must end: at $L_1(D')$. The learning rate falls as
$1/\sqrt{\text{step}}$, which knows no end of the run, so any point of the fresh curve is where a shorter run would have
ended.

**What to look for.** Up to about 4 epochs the prediction holds here too. Beyond, these models do worse than the law
says: each has several weights per unique character, learns the text by heart, and its loss on unseen text rises.
$L_1(D')$ cannot rise; a law that can adds a penalty for overfitting (Lovelace et al. 2026). With a width of 8 there are
too few weights to learn it by heart, and the law holds much further; a strong weight decay stops the rise too, and all
runs end worse for it.

Left out: the law's second half, $N'$ (it would need fleets of several sizes); dropout and stopping early.
Source: Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6, and github.com/huggingface/datablations,
"Parametric Fit"; Lovelace et al. 2026, arXiv:2605.01640.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.data_efficiency.fleet import (
    FIRST_LOSS,
    NATS,
    Fleet,
    FleetConfig,
    blown_up,
    expected_seconds,
    reading_order,
    spoken,
    text_once,
)
from core.foundations.corpus import Corpus, windows_of
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure

R_TOKENS, R_PARAMETERS = (
    15.387756,
    5.309743,
)  # R*_D and R*_N: how many repetitions it takes until most of the value is gone
A, B, E = math.exp(6.255414), math.exp(7.3049974), math.exp(0.6254804)
ALPHA = BETA = 0.3526596
G = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))

EPOCHS = (1, 2, 4, 8, 16, 40)
WARM_STEPS = 30
LOOK = 4096  # characters of unseen text that all models are evaluated on
LOOKS = 14  # ... how often, evenly spread over the logarithm of the tokens
RULER = 8  # the fresh curve is fitted from an eighth of the tokens on

LAW = "Muennighoff's D' (fitted to 400 far larger runs) on the curve of the runs with fresh text"
FRESH = Figure("loss on fresh text, read once", NATS, headline=True)
LOSS_AFTER = Figure("loss after {epochs} epochs", NATS, "theory", LAW)
MOST_EPOCHS = Figure("loss after the most epochs", NATS, "theory", LAW, headline=True)
WORTH = Figure(
    "worth of a token read {epochs} times",
    "% of a fresh token",
    "theory",
    "D'/D, Muennighoff et al. 2023, equation 5",
    headline=True,
)


# --- the law ----------------------------------------------------------------------------------------------------------


def effective_tokens(total: float, unique: float) -> float:
    """D': how many fresh tokens a run of `total` tokens is worth that had only `unique` different ones."""
    repeats = max(total / unique - 1, 0.0)
    return min(total, unique) + unique * R_TOKENS * (1 - math.exp(-repeats / R_TOKENS))


def worth(epochs: float) -> float:
    """D'/D: what the average token of a run is worth, a fresh one being 1."""
    return effective_tokens(epochs, 1.0) / epochs


def data_constrained_loss(parameters: float, total: float, unique: float) -> float:
    """Muennighoff et al.'s whole law, with their constants: weights beyond what the unique text can use decay too."""
    usable = min(parameters, (unique * G) ** (BETA / ALPHA) * G)
    excess = max(parameters / usable - 1, 0.0)
    effective = usable + usable * R_PARAMETERS * (1 - math.exp(-excess / R_PARAMETERS))
    return E + A / effective**ALPHA + B / effective_tokens(total, unique) ** BETA


@dataclass(frozen=True)
class Ruler:
    """L_1(D) = e + b / D^beta, fitted to runs on fresh text: turns tokens into losses and losses into fresh tokens."""

    e: float
    b: float

    def loss(self, tokens: float) -> float:
        return self.e + self.b / tokens**BETA

    def tokens(self, loss: float) -> float:
        """How many fresh tokens give this loss; nan where no number of them would."""
        return (self.b / (loss - self.e)) ** (1 / BETA) if self.b > 0 and loss > self.e else math.nan


def ruler_from(fresh: list[tuple[int, float]]) -> Ruler | None:
    """Least squares on the fresh curve (tokens, loss) from an eighth of its tokens on; None while that is not seen
    whole, or in under 3 points.
    """
    late = [(tokens, loss) for tokens, loss in fresh if tokens * RULER >= fresh[-1][0]]
    if len(late) < 3 or len(late) == len(fresh):
        return None
    counts, heights = np.array(late).T
    b, e = np.polyfit(counts**-BETA, heights, 1)
    return Ruler(float(e), float(b))


# --- the experiment ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RepeatConfig(FleetConfig):
    """The budget is `tokens`; `epochs` is how often the smallest text is read."""

    epochs: int = setting(
        40,
        "Epochs, at most",
        unit="epoch",
        low=2,
        high=128,
        help="How often the smallest text is read; 1, 2, 4, 8, 16, 40 and this many are run.",
    )
    weight_decay: float = setting(
        0.1,
        "Weight decay",
        low=0.0,
        high=10.0,
        help="More pulls the weights harder to 0, against learning by heart.",
        slider=True,
    )

    def check(self) -> None:
        super().check()
        windows = self.tokens // self.context
        if self.epochs > windows:
            raise ValueError(
                f"epochs must be at most {windows}: beyond, the repeated text is shorter than one window of"
                f" {self.context} characters, got {self.epochs}"
            )

    @property
    def kinds(self) -> tuple[int, ...]:
        """The numbers of epochs that are run."""
        return tuple(sorted({epochs for epochs in EPOCHS if epochs <= self.epochs} | {self.epochs}))


@dataclass(frozen=True)
class Look:
    """All kinds of runs at one moment, evaluated on unseen text."""

    tokens: int  # read so far by each model
    losses: tuple[float, ...]  # nats per character, one per kind, mean over the seeds
    law: tuple[
        float, ...
    ]  # what the law says each should be, from the fresh runs' curve so far; empty while that is too short


@dataclass(frozen=True)
class RepeatStep(Step):
    """One optimizer step of all models, or a look at them; what did not happen in it is None or empty."""

    tokens: int  # read so far by each model
    epochs: tuple[int, ...] = ()  # on the first Step and with a look: the kinds of runs
    unique: tuple[int, ...] = ()  # ... and the different characters of each
    law_worth: tuple[
        tuple[float, float], ...
    ] = ()  # on the first Step and the last: (epochs, worth of a token in %) by the law
    validation: tuple[float, ...] | None = None  # nats per character on unseen text, one per kind, mean over the seeds
    law: tuple[float, ...] | None = None  # what the law says each should be now
    looks: tuple[Look, ...] = ()  # with a validation: all so far
    spread: tuple[float, ...] | None = None  # at the end: standard deviation over the seeds
    worth: tuple[float | None, ...] | None = None  # at the end: worth of a token in %, measured
    worth_spread: tuple[float | None, ...] | None = None


class Readers:
    """The fleet of a run: `seeds` models per kind, each with its own order of reading."""

    def __init__(self, config: RepeatConfig, corpus: Corpus) -> None:
        self.config, self.corpus = config, corpus
        self.inputs, self.targets = windows_of(corpus.train_ids, config.context)
        self.steps = config.tokens // (config.batch * config.context)
        text_once(corpus, config.context, config.tokens)
        length = self.steps * config.batch  # windows that each model reads
        self.unique = [max(1, length // epochs) for epochs in config.kinds]  # windows
        orders = [
            reading_order(len(self.inputs), unique, length, seed)
            for unique in self.unique
            for seed in config.every_seed
        ]
        self.orders = torch.stack(orders)  # (M, windows)
        self.fleet = Fleet(
            config.shape(corpus), config.every_seed * len(config.kinds), config.learning_rate, config.weight_decay
        )

    def step(self, **more: Any) -> RepeatStep:
        return RepeatStep(
            self.tokens, self.config.kinds, tuple(unique * self.config.context for unique in self.unique), **more
        )

    def worth_curve(self) -> tuple[tuple[float, float], ...]:
        return tuple((float(epochs), 100 * worth(epochs)) for epochs in np.geomspace(1, self.config.epochs, 40))

    @property
    def tokens(self) -> int:
        return self.fleet.steps * self.config.batch * self.config.context

    def one_step(self) -> Iterator[Float[np.ndarray, "M"] | None]:
        at, batch = self.fleet.steps, self.config.batch
        scale = min((at + 1) / WARM_STEPS, math.sqrt(WARM_STEPS / (at + 1)))
        now: Tensor = self.orders[:, at * batch : (at + 1) * batch]  # (M, B)
        yield from self.fleet.step_in_parts(self.inputs[now], self.targets[now], scale)

    def look(self) -> Iterator[Float[np.ndarray, "K S"] | None]:
        """The losses on unseen text by kind and seed, in parts."""
        for part in self.fleet.validate_in_parts(self.corpus.validation_ids, LOOK):
            yield None if part is None else part.reshape(len(self.config.kinds), self.config.seeds)

    def law(self, ruler: Ruler) -> tuple[float, ...]:
        """What each kind's loss should be now."""
        context = self.config.context
        return tuple(
            ruler.loss(effective_tokens(self.tokens, min(unique * context, self.tokens))) for unique in self.unique
        )


@experiment("How much is a token worth when the model has read it before?")
def repeat(config: RepeatConfig) -> Iterator[RepeatStep]:
    """Train a fleet: every kind of run at once, each with several seeds."""
    readers = Readers(config, config.read())
    yield first_look(readers)
    moments, looks = look_at(readers.steps), list[Look]()
    for step in range(1, readers.steps + 1):
        for losses in readers.one_step():
            told = (
                f"step {step} of {readers.steps}: loss {losses.mean():.3f} on what is being read"
                if losses is not None and step % 16 == 0
                else ""
            )
            yield RepeatStep(readers.tokens, doing=told)
        if step in moments and (yield from watched(readers, looks, last=step == readers.steps)):
            return


def look_at(steps: int) -> set[int]:
    """After which steps to look: evenly spread over the logarithm, so that the curve of few tokens is as full as that
    of many.
    """
    return {round(steps ** (number / LOOKS)) for number in range(LOOKS // 4, LOOKS + 1)} | {steps}


def watched(readers: Readers, looks: list[Look], last: bool) -> Generator[RepeatStep, None, bool]:
    """Judge all models on unseen text and say what the law says. True: the run must end here."""
    blown = ""
    for seen in readers.look():
        if seen is None:
            yield RepeatStep(readers.tokens)  # a place to take turns
            continue
        losses, blown = tuple(float(one) for one in seen.mean(1)), blown_up(seen)
        if blown:
            yield readers.step(validation=losses, diverged=True, doing=blown)
            break
        fresh = [*((look.tokens, look.losses[0]) for look in looks), (readers.tokens, losses[0])]
        ruler = ruler_from(fresh)
        looks.append(Look(readers.tokens, losses, readers.law(ruler) if ruler else ()))
        told = f"{readers.tokens} characters: fresh {losses[0]:.3f}, {readers.config.epochs} epochs {losses[-1]:.3f}"
        yield (
            evaluated(readers, seen, ruler, looks)
            if last
            else readers.step(validation=losses, law=looks[-1].law, looks=tuple(looks), doing=told)
        )
    return bool(blown)


def first_look(readers: Readers) -> RepeatStep:
    """The start state: the law's curve, the kinds of runs, and the loss before anything is learned."""
    config, fleet = readers.config, readers.fleet
    seconds = expected_seconds(fleet.shape, fleet.parameters, fleet.size, readers.steps, config.tokens, LOOKS * LOOK)
    blind = fleet.alone(0).loss(*windows_of(readers.corpus.validation_ids, config.context, LOOK))
    first = FIRST_LOSS(float(blind), math.log(len(readers.corpus.symbols)))
    told = f"{fleet.size} models of {fleet.parameters} weights, side by side: {spoken(seconds)} on one thread"
    return readers.step(law_worth=readers.worth_curve(), figures=(first,), doing=told)


def evaluated(readers: Readers, seen: Float[np.ndarray, "K S"], ruler: Ruler | None, looks: list[Look]) -> RepeatStep:
    """The end: what the law said, what was measured, and what a token was worth."""
    config, total, law = readers.config, readers.tokens, looks[-1].law or None
    share = (lambda loss: 100 * ruler.tokens(loss) / total) if ruler else (lambda loss: math.nan)
    measured = [known(share(float(row.mean()))) for row in seen]
    shares = [[share(float(loss)) for loss in row] for row in seen]
    figures = [FRESH(looks[-1].losses[0])]
    for number, epochs in list(enumerate(config.kinds))[1:]:
        most = epochs == config.epochs
        loss = MOST_EPOCHS if most else LOSS_AFTER.of(epochs=epochs)
        source = f"{epochs} epochs; {LAW}" if most else LAW
        figures.append(loss(looks[-1].losses[number], law[number] if law else None, source=source))
    for number, epochs in enumerate(config.kinds):
        if epochs in (4, config.epochs):
            real = total / (readers.unique[number] * config.context)
            figures.append(WORTH.of(epochs=epochs)(measured[number], 100 * worth(real)))
    told = ", ".join(
        f"{epochs} {'epochs' if epochs > 1 else 'epoch'} {loss:.3f}"
        for epochs, loss in zip(config.kinds, looks[-1].losses, strict=True)
    )
    return readers.step(
        validation=looks[-1].losses,
        law=law,
        looks=tuple(looks),
        spread=tuple(float(row.std(ddof=1)) for row in seen),
        law_worth=readers.worth_curve(),
        worth=tuple(measured),
        worth_spread=tuple(known(float(np.std(row, ddof=1))) for row in shares),
        figures=tuple(figures),
        doing=f"done: {told}",
    )


def known(value: float) -> float | None:
    return value if math.isfinite(value) else None
