r"""Sweep: ranks 1 to 32 and full fine-tuning learn the same text, several seeds each, on one chart.

All runs of a seed see the same batches in the same order, and all are evaluated at three moments, so the whole curve is
there early and sharpens; the slider goes back through it. Error bars are the standard deviation over the seeds, after
what all runs of a seed have in common (lucky batches) is taken out.

*Parameters.* An adapter has $r(d+k)$ weights per layer. *Memory.* Training keeps the weights, a gradient per trained
weight and AdamW's two moments per trained weight: in float32 $4N + 16 N_a$ bytes with an adapter of $N_a$ weights,
$16N$ without. The bars are weighed from live tensors.

To use one learning rate for all ranks, scale by $\alpha/\sqrt r$ (rank-stabilized LoRA) instead of $\alpha/r$; 0.01 for
adapters and 0.001 for full fine-tuning were the best of 0.005, 0.01, 0.02 and of 0.0005, 0.001, 0.002 on the play.

Scaled down: a run sees about 2,300 tokens (a real one sees millions) and is evaluated on 512; what a high rank or full
fine-tuning gains with more steps is not seen here. Raise the steps to look for it.

Left out: activations, which are about the same for all; biases. Full fine-tuning also changes embeddings and the output
layer, the adapters do not.
Source: Hu et al. 2021, arXiv:2106.09685, section 7.2; Kalajdzievski 2023, arXiv:2312.03732.
"""

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from core.foundations.base_model import Base, load_base, validate
from core.foundations.corpus import CORPORA, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import batch_field, context_field, own_file_field, own_text_field, seed_field
from core.foundations.turns import with_pauses, without_pauses
from core.lora.tuning import (
    TARGETS,
    HeldBytes,
    Tuner,
    adapt,
    adapter_parameters,
    adapter_weights,
    check_windows,
    encoded,
    layer_shapes,
    validation_start,
)

TEXTS = {name: CORPORA[name] for name in ("play", "tinyshakespeare", "own")}
RANKS = (1, 2, 4, 8, 16, 32)
FULL = 0  # stands for full fine-tuning among the ranks
LOOKS = 3  # how often all runs are evaluated
EVALUATED_TOKENS = 512
ALPHA = 4.0  # the scale is alpha / sqrt(r)
MOMENTS = 2  # of AdamW
FULL_LOSS = Figure(
    "validation loss, full fine-tuning", "nats per token", "baseline", "the base, before training", headline=True
)
RANK_LOSS = Figure("validation loss, rank {rank}", "nats per token", "baseline", "full fine-tuning, same batches")
GAIN = Figure(
    "gain of rank {rank}",
    "% of full fine-tuning's gain",
    None,
    "fall of the loss below the base, divided by full fine-tuning's",
    headline=True,
)
WEIGHTS = Figure("weights of rank 8", "weights", "theory", "r (d + k) per layer; counted in peft's model", "computed")
FULL_WEIGHTS = Figure("weights that full fine-tuning trains", "weights", None, "all of them", "computed")
MEMORY = Figure("memory of training, {run}", "bytes", "theory")
DIVERGED_LOSS = Figure(
    "loss before it blew up, {run}", "nats per token", "baseline", "the base, before training", headline=True
)


@dataclass(frozen=True)
class SweepConfig(Config):
    """What all runs share; the ranks are always the same."""

    corpus: str = setting(
        "play",
        "Text to learn",
        choices=TEXTS,
        help="The text that is learned. Choose your own to paste one or to upload a file.",
    )
    own_text: str = own_text_field()
    own_file: bytes = own_file_field()
    steps: int = setting(
        18,
        "Steps",
        unit="step",
        low=1,
        high=1000,
        help="More steps show whether high ranks pull ahead; all runs take longer.",
    )
    seeds: int = setting(
        2,
        "Seeds",
        unit="seed",
        low=1,
        high=8,
        help="More runs per rank make the error bars more reliable; each seed takes as long again.",
        slider=True,
    )
    targets: str = setting(
        "all",
        "Layers that get an adapter",
        choices=TARGETS,
        help="More layers with an adapter can learn more; each adds weights to train.",
    )
    learning_rate: float = setting(
        0.01,
        "Learning rate, LoRA",
        low=1e-6,
        high=1.0,
        more=True,
        help="Higher makes each LoRA step larger: learning is faster, until the loss blows up.",
    )
    full_learning_rate: float = setting(
        0.001,
        "Learning rate, full",
        low=1e-6,
        high=1.0,
        more=True,
        help="Higher makes each step of full fine-tuning larger, until its loss blows up.",
        slider=True,
    )
    context: int = context_field(64, high=128, unit="token")
    batch: int = batch_field(2, high=16)
    seed: int = seed_field(
        help="The first of the seeds: another one gives other batches and other adapters.", high=2**32 - 1
    )


@dataclass(frozen=True)
class Dot:
    """All runs of one rank at one moment."""

    rank: int  # FULL: all weights
    parameters: int  # trained
    loss: float  # nats per token, the mean over the seeds
    spread: float  # standard deviation over the seeds, what a seed's runs have in common taken out


@dataclass(frozen=True)
class Weighed:
    """Bytes that training with one rank keeps, from live tensors and by formula."""

    rank: int
    held: HeldBytes
    by_formula: int


@dataclass(frozen=True)
class SweepStep(Step):
    """A step of one run, or a look at all of them; what did not happen in it is empty."""

    step: int
    dots: tuple[Dot, ...] = ()  # on a look
    base_loss: float | None = None  # on the first Step, and with every look
    weighed: tuple[Weighed, ...] = ()
    rows: tuple[tuple[int | float, ...], ...] = ()  # for the data: rank, weights, loss, spread


@dataclass
class Runner:
    """One run of the sweep: a rank, a seed and what tunes it."""

    rank: int
    tuner: Tuner
    loss: float = float("nan")  # validation, at the last look


@experiment("How much does each rank buy, beside full fine-tuning?")
def sweep(config: SweepConfig) -> Iterator[SweepStep]:
    """Ranks and full fine-tuning side by side."""
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    base = without_pauses(load_base("shipped"))
    evaluated = validation_start(base, corpus, config.context, EVALUATED_TOKENS)
    shapes = layer_shapes(base.model, config.targets)
    base_loss = without_pauses(validate(base.model, evaluated, config.context))
    everything = sum(weight.numel() for weight in base.model.parameters())
    counts = {rank: adapter_parameters(rank, shapes) for rank in RANKS} | {FULL: everything}
    yield opening(counts, base_loss)
    ids = yield from read(base, corpus.train, config.context)
    runners = yield from line_up(config, base, ids, list(shapes))
    for look in range(1, LOOKS + 1):
        first, last = (config.steps * (look + part) // LOOKS for part in (-1, 0))
        if last > first:
            yield from onward(runners, first, last)
            dots = yield from looked(runners, counts, evaluated, last)
            weighed = weigh(runners, counts, everything)
            worst = max(dots, key=lambda dot: dot.loss if math.isfinite(dot.loss) else math.inf)
            if not worst.loss <= 3 * math.log(
                base.model.config.vocab_size
            ):  # not a number, or far worse than knowing nothing
                yield from blown(worst, dots, base_loss, last)
                return
            told = ", ".join(f"{name_of(dot.rank)} {dot.loss:.3f}" for dot in dots)
            yield SweepStep(
                last, dots, base_loss, weighed, rows=tuple(map(astuple, dots)), doing=f"step {last}: {told}"
            )
    yield SweepStep(
        config.steps,
        figures=figures_of(dots, weighed, base_loss, runners),
        doing=(
            f"done: rank 1 ends at {dots[0].loss:.3f}, rank 32 at {dots[5].loss:.3f}, full at {dots[-1].loss:.3f} nats"
            " per token"
        ),
    )


def opening(counts: dict[int, int], base_loss: float) -> SweepStep:
    """The start state: all runs at the base's loss, memory by formula."""
    dots = tuple(Dot(rank, count, base_loss, 0.0) for rank, count in counts.items())
    by_formula = [formula_bytes(rank, count, counts[FULL]) for rank, count in counts.items()]
    weighed = tuple(Weighed(rank, held, held.total) for rank, held in zip(counts, by_formula, strict=True))
    return SweepStep(
        0, dots, base_loss, weighed, doing=f"before: every run starts from the base, {base_loss:.3f} nats per token"
    )


def blown(worst: Dot, dots: tuple[Dot, ...], base_loss: float, step: int) -> Iterator[SweepStep]:
    """The end of a sweep with a rate too high."""
    why = (
        f"step {step}: the loss of {name_of(worst.rank)} went to {worst.loss:.3g}, so the sweep stops; a smaller"
        " learning rate will hold"
    )
    figure = DIVERGED_LOSS.of(run=name_of(worst.rank))(worst.loss, base_loss)
    yield SweepStep(step, dots, base_loss, diverged=True, figures=(figure,), doing=why)


def name_of(rank: int) -> str:
    return "full" if rank == FULL else f"r={rank}"


def read(base: Base, words: str, context: int) -> Generator[SweepStep, None, Int[Tensor, "N"]]:
    """The text to learn as token ids, in units of work."""
    ids = yield from with_pauses(encoded(base, words), SweepStep(0, doing="cutting the text into tokens"))
    check_windows(ids, context)
    return ids


def line_up(
    config: SweepConfig, base: Base, ids: Int[Tensor, "N"], layers: list[str]
) -> Generator[SweepStep, None, list[Runner]]:
    """A model per rank and seed. Adapters share the base's frozen weights; full fine-tuning needs a copy of its own."""
    runners = []
    for seed in range(config.seed, config.seed + config.seeds):
        for rank in (FULL, *RANKS):
            frozen = {id(weight): weight for weight in base.model.parameters()} if rank else {}
            model: Any = copy.deepcopy(base.model, frozen)
            model = adapt(model, rank, ALPHA, layers, seed, use_rslora=True) if rank else model.requires_grad_(True)
            rate = config.learning_rate if rank else config.full_learning_rate
            tuner = Tuner(
                model,
                ids,
                context=config.context,
                batch=config.batch,
                learning_rate=rate,
                steps=config.steps,
                seed=seed,
            )
            runners.append(Runner(rank, tuner))
            yield SweepStep(0, doing=f"{name_of(rank)}, seed {seed}: ready")
    return runners


def onward(runners: list[Runner], first: int, last: int) -> Iterator[SweepStep]:
    """All runs take the steps from `first` to `last`."""
    for one in runners:
        for step in range(first + 1, last + 1):
            yield from with_pauses(one.tuner.one_step(), SweepStep(step))
            yield SweepStep(step)


def looked(
    runners: list[Runner], counts: dict[int, int], evaluated: Int[Tensor, "N"], step: int
) -> Generator[SweepStep, None, tuple[Dot, ...]]:
    """The validation loss of all runs: mean and spread per rank."""
    for one in runners:
        one.loss = yield from with_pauses(one.tuner.validate(evaluated), SweepStep(step))
        yield SweepStep(step)
    losses = {rank: np.array([one.loss for one in runners if one.rank == rank]) for rank in counts}
    luck = np.mean(list(losses.values()), axis=0)  # per seed, over all ranks
    spread = {rank: float(np.std(found - luck, ddof=1)) if len(found) > 1 else 0.0 for rank, found in losses.items()}
    return tuple(Dot(rank, count, float(losses[rank].mean()), spread[rank]) for rank, count in counts.items())


def formula_bytes(rank: int, trained: int, everything: int) -> HeldBytes:
    """float32 throughout: 4 bytes per weight, per gradient and per moment."""
    return HeldBytes(4 * everything, 4 * trained if rank else 0, 4 * trained, 4 * MOMENTS * trained)


def weigh(runners: list[Runner], counts: dict[int, int], everything: int) -> tuple[Weighed, ...]:
    """The first seed's run of each rank, as weighed in its first step."""
    first = {one.rank: one.tuner.held for one in reversed(runners)}
    return tuple(
        Weighed(rank, held, formula_bytes(rank, count, everything).total)
        for rank, count in counts.items()
        if (held := first[rank]) is not None
    )


def figures_of(
    dots: tuple[Dot, ...], weighed: tuple[Weighed, ...], base_loss: float, runners: list[Runner]
) -> tuple[Result, ...]:
    """What the sweep measured, beside formulas and full fine-tuning."""
    loss, bytes_of = {dot.rank: dot.loss for dot in dots}, {each.rank: each for each in weighed}
    counts = {runner.rank: adapter_weights(runner.tuner.model) for runner in runners if runner.rank}
    by_count = {dot.rank: dot.parameters for dot in dots}
    full_gain = base_loss - loss[FULL]

    def gain(rank: int) -> float:
        return 100 * (base_loss - loss[rank]) / full_gain if full_gain > 0 else float("nan")

    def memory(rank: int, formula: str) -> Result:
        figure = MEMORY.of(run=name_of(rank))
        source = f"{formula}; the rest: AdamW's step counters"
        return figure(bytes_of[rank].held.total, bytes_of[rank].by_formula, source=source)

    return (
        FULL_LOSS(loss[FULL], base_loss),
        *(RANK_LOSS.of(rank=rank)(loss[rank], loss[FULL]) for rank in (1, 8, 32)),
        *(GAIN.of(rank=rank)(gain(rank)) for rank in (1, 8)),
        WEIGHTS(counts[8], by_count[8]),
        FULL_WEIGHTS(by_count[FULL]),
        memory(8, "4 N + 16 r (d + k)"),
        memory(FULL, "16 N"),
    )
