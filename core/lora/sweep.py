r"""Sweep: ranks 1 to 32 and full fine-tuning learn the same text, several seeds each, on one chart.

All runs of a seed see the same batches in the same order, and all are judged at three moments, so the whole curve is
there early and sharpens; the slider goes back through it. Error bars are the standard deviation over the seeds, after
what all runs of a seed have in common (lucky batches) is taken out.

*Parameters.* An adapter has $r(d+k)$ weights per layer. *Memory.* Training keeps the weights, a gradient per trained
weight and AdamW's two moments per trained weight: in float32 $4N + 16 N_a$ bytes with an adapter of $N_a$ weights,
$16N$ without. The bars are weighed from live tensors.

*Why so little rank is enough.* Full fine-tuning changes a matrix by $\Delta W = \sum_i \sigma_i u_i v_i^\top$. The best
rank-r copy of it keeps the r largest $\sigma_i$ and with them the share $\sum_{i \le r} \sigma_i^2 / \sum_i \sigma_i^2$
of its squared size. Two things are drawn: this share, which is small (the tail of the spectrum is long), and the share
of the *gain in loss* that is kept when every layer's change is cut to rank r, which is much larger. What matters for
the text lies in few directions. A likely reason for the long tail: AdamW moves every weight by about its rate, whether
it matters or not.

Rates: one for all ranks needs a scale of $\alpha/\sqrt r$ (rank-stabilised LoRA) instead of $\alpha/r$; 0.01 for
adapters and 0.001 for full fine-tuning were the best of 0.005, 0.01, 0.02 and of 0.0005, 0.001, 0.002 on the play.

Scaled down: a run sees about 2,300 tokens (a real one sees millions) and is judged on 512; what a high rank or full
fine-tuning gains with more steps is not seen here. Raise the steps to look for it.

Left out: activations, which are about the same for all; biases. Full fine-tuning also changes embeddings and the output
layer, the adapters do not.
Source: Hu et al. 2021, arXiv:2106.09685, section 7.2; Kalajdzievski 2023, arXiv:2312.03732; Eckart and Young 1936.
"""

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.base_model import Base, load_base, validate
from core.foundations.corpus import CORPORA, OWN_TEXT_BYTES, load_corpus
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.turns import in_parts, last_of
from core.lora.tuning import TARGETS, HeldBytes, Tuner, adapt, adapter_parameters, adapter_weights, check_windows, encoded, layer_shapes, validation_start

TEXTS = {name: CORPORA[name] for name in ("play", "tinyshakespeare", "own")}
LAYERS = {
    "layers.1.mlp.down_proj": "layer 2, MLP down",
    "layers.1.mlp.up_proj": "layer 2, MLP up",
    "layers.1.self_attn.q_proj": "layer 2, attention q",
    "layers.1.self_attn.v_proj": "layer 2, attention v",
    "layers.3.mlp.down_proj": "layer 4, MLP down",
    "layers.3.self_attn.o_proj": "layer 4, attention o",
}
RANKS = (1, 2, 4, 8, 16, 32)
FULL = 0  # stands for full fine-tuning among the ranks
WHOLE = 10**9  # a rank that cuts nothing
LOOKS = 3  # how often all runs are judged
JUDGED_TOKENS = 512
ALPHA = 4.0  # the scale is alpha / sqrt(r)
MOMENTS = 2  # of AdamW


@dataclass(frozen=True)
class SweepConfig(Config):
    """What all runs share; the ranks are always the same."""

    corpus: str = setting("play", "Text to learn", choices=TEXTS)
    own_text: str = setting("", "Your own text", high=OWN_TEXT_BYTES, when=("corpus", "own"))
    own_file: bytes = setting(b"", "or a .txt file", high=OWN_TEXT_BYTES, suffixes=(".txt",), when=("corpus", "own"))
    steps: int = setting(18, "Steps", unit="step", low=1, high=1000, help="of every run")
    seeds: int = setting(2, "Seeds", unit="seed", low=1, high=8, help="runs per rank, for the error bars")
    targets: str = setting("all", "Layers that get an adapter", choices=TARGETS)
    layer: str = setting("layers.1.mlp.down_proj", "Spectrum of", choices=LAYERS)
    learning_rate: float = setting(0.01, "Learning rate, LoRA", low=1e-6, high=1.0, more=True)
    full_learning_rate: float = setting(0.001, "Learning rate, full", low=1e-6, high=1.0, more=True)
    context: int = setting(64, "Context", unit="token", low=8, high=128, more=True)
    batch: int = setting(2, "Batch", unit="window", low=1, high=16, more=True, help="windows of text per step")
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="the first of the seeds")


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
class Spectrum:
    """One layer's matrix, then full fine-tuning's change of it, and what the best copy of each rank holds."""

    layer: str
    own: Float[np.ndarray, "R"]  # singular values of the matrix itself, largest first
    random_held: tuple[float, ...]  # share of its squared size that ranks 1, 2, 4 ... hold of a random matrix of its shape
    change: Float[np.ndarray, "R"] | None = None  # singular values of the change; None before the runs
    held: tuple[float, ...] = ()  # share of its squared size
    cut_loss: tuple[float, ...] = ()  # nats per token with the change of all layers cut to these ranks
    layers_loss: float = float("nan")  # ... and uncut
    base_loss: float = float("nan")

    @property
    def kept(self) -> tuple[float, ...]:
        """Share of the gain in loss that is left after cutting; 0 where there was no gain."""
        gain = self.base_loss - self.layers_loss
        return tuple((self.base_loss - loss) / gain if gain > 0 else 0.0 for loss in self.cut_loss)


@dataclass(frozen=True)
class SweepStep(Step):
    """A step of one run, or a look at all of them; what did not happen in it is empty."""

    step: int
    dots: tuple[Dot, ...] = ()  # on a look
    base_loss: float | None = None  # on the first Step, and with every look
    weighed: tuple[Weighed, ...] = ()
    spectrum: Spectrum | None = None  # on the first Step and after all runs
    rows: tuple[tuple[int | float, ...], ...] = ()  # for the data: (rank, weights, loss, spread), or (rank, share held, share of the gain kept)


@dataclass
class Runner:
    """One run of the sweep: a rank, a seed and what tunes it."""

    rank: int
    tuner: Tuner
    loss: float = float("nan")  # validation, at the last look


@experiment("How much does each rank buy, and why does so little rank do so much?")
def sweep(config: SweepConfig) -> Iterator[SweepStep]:
    """Ranks and full fine-tuning side by side, then the spectrum of the full change."""
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    base = shipped_base()
    judged = validation_start(base, corpus, config.context, JUDGED_TOKENS)
    shapes = layer_shapes(base.model, config.targets)
    base_loss = last_of(validate(base.model, judged, config.context))
    everything = sum(weight.numel() for weight in base.model.parameters())
    counts = {rank: adapter_parameters(rank, shapes) for rank in RANKS} | {FULL: everything}
    matrix = looked_into(config, base)
    yield opening(counts, base_loss, matrix)
    ids = yield from read(base, corpus.train, config.context)
    runners = yield from line_up(config, base, ids, list(shapes))
    for look in range(1, LOOKS + 1):
        first, last = (config.steps * (look + part) // LOOKS for part in (-1, 0))
        if last > first:
            yield from onward(runners, first, last)
            dots = yield from looked(runners, counts, judged, last)
            weighed = weigh(runners, counts, everything)
            worst = max(dots, key=lambda dot: dot.loss if math.isfinite(dot.loss) else math.inf)
            if not worst.loss <= 3 * math.log(base.model.config.vocab_size):  # not a number, or far worse than knowing nothing
                yield from blown(worst, dots, base_loss, last)
                return
            told = ", ".join(f"{name_of(dot.rank)} {dot.loss:.3f}" for dot in dots)
            yield SweepStep(last, dots, base_loss, weighed, rows=tuple(map(astuple, dots)), doing=f"step {last}: {told}")
    spectrum = yield from dissected(config, base, next(one for one in runners if one.rank == FULL), judged, matrix)
    shares = tuple(zip(RANKS, spectrum.held, spectrum.kept, strict=True))
    yield SweepStep(
        config.steps, spectrum=spectrum, rows=shares, doing=f"rank 8 holds {spectrum.held[3]:.0%} of the change and {spectrum.kept[3]:.0%} of its gain"
    )
    yield SweepStep(config.steps, figures=figures_of(dots, weighed, spectrum, runners),
                    doing=f"done: rank 1 ends at {dots[0].loss:.3f}, rank 32 at {dots[5].loss:.3f}, full at {dots[-1].loss:.3f} nats per token")  # fmt: skip


def opening(counts: dict[int, int], base_loss: float, matrix: Spectrum) -> SweepStep:
    """The start state: all runs at the base's loss, memory by formula, and the matrix whose change will be looked at."""
    dots = tuple(Dot(rank, count, base_loss, 0.0) for rank, count in counts.items())
    by_formula = [formula_bytes(rank, count, counts[FULL]) for rank, count in counts.items()]
    weighed = tuple(Weighed(rank, held, held.total) for rank, held in zip(counts, by_formula, strict=True))
    return SweepStep(0, dots, base_loss, weighed, matrix, doing=f"before: every run starts from the base, {base_loss:.3f} nats per token")


def blown(worst: Dot, dots: tuple[Dot, ...], base_loss: float, step: int) -> Iterator[SweepStep]:
    """The end of a sweep with a rate too high."""
    why = f"step {step}: the loss of {name_of(worst.rank)} went to {worst.loss:.3g}, so the sweep stops; a smaller learning rate will hold"
    figure = Compared(f"loss of {name_of(worst.rank)}", "nats per token", base_loss, worst.loss, "the base, before")
    yield SweepStep(step, dots, base_loss, diverged=True, figures=(figure,), doing=why)


def shipped_base() -> Base:
    loading = load_base("shipped")
    while True:
        try:
            next(loading)
        except StopIteration as found:
            return found.value


def name_of(rank: int) -> str:
    return "full" if rank == FULL else f"r={rank}"


def read(base: Base, words: str, context: int) -> Generator[SweepStep, None, Int[Tensor, "N"]]:
    """The text to learn as token ids, in units of work."""
    ids = None
    for ids in encoded(base, words):
        if ids is None:
            yield SweepStep(0, doing="cutting the text into tokens")
    assert ids is not None
    check_windows(ids, context)
    return ids


def line_up(config: SweepConfig, base: Base, ids: Int[Tensor, "N"], layers: list[str]) -> Generator[SweepStep, None, list[Runner]]:
    """A model per rank and seed. Adapters share the base's frozen weights; full fine-tuning needs a copy of its own."""
    runners = []
    for seed in range(config.seed, config.seed + config.seeds):
        for rank in (FULL, *RANKS):
            frozen = {id(weight): weight for weight in base.model.parameters()} if rank else {}
            model: Any = copy.deepcopy(base.model, frozen)
            model = adapt(model, rank, ALPHA, layers, seed, rank_stable=True) if rank else model.requires_grad_(True)
            rate = config.learning_rate if rank else config.full_learning_rate
            tuner = Tuner(model, ids, context=config.context, batch=config.batch, learning_rate=rate, steps=config.steps, seed=seed)
            runners.append(Runner(rank, tuner))
            yield SweepStep(0, doing=f"{name_of(rank)}, seed {seed}: ready")
    return runners


def onward(runners: list[Runner], first: int, last: int) -> Iterator[SweepStep]:
    """All runs take the steps from `first` to `last`."""
    for one in runners:
        for step in range(first + 1, last + 1):
            yield from in_parts(one.tuner.one_step(), SweepStep(step))
            yield SweepStep(step)


def looked(runners: list[Runner], counts: dict[int, int], judged: Int[Tensor, "N"], step: int) -> Generator[SweepStep, None, tuple[Dot, ...]]:
    """The validation loss of all runs: mean and spread per rank."""
    for one in runners:
        one.loss = yield from in_parts(one.tuner.validate(judged), SweepStep(step))
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
    return tuple(Weighed(rank, held, formula_bytes(rank, count, everything).total) for rank, count in counts.items() if (held := first[rank]) is not None)


# --- the spectrum of the full change ----------------------------------------------------------------------------------


def looked_into(config: SweepConfig, base: Base) -> Spectrum:
    """One matrix before any run, and a random one of its shape to compare with."""
    weight = dict(base.model.named_parameters())[f"model.{config.layer}.weight"]
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(config.seed))
    own, structureless = (singular_parts(matrix)[1].cpu().numpy() for matrix in (weight, random))
    return Spectrum(LAYERS[config.layer], own, held_by(structureless))


def dissected(config: SweepConfig, base: Base, full: Runner, judged: Int[Tensor, "N"], matrix: Spectrum) -> Generator[SweepStep, None, Spectrum]:
    """Singular values of what full fine-tuning changed, and the loss with every layer's change cut to each rank."""
    tuned = dict(full.tuner.model.named_parameters())
    parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name, weight in base.model.named_parameters():
        if "layers" in name and weight.ndim == 2:
            parts[name] = singular_parts(tuned[name].detach() - weight.detach())
            yield SweepStep(config.steps)
    before = {name: weight.detach().clone() for name, weight in base.model.named_parameters() if name in parts}
    losses = []
    for rank in (*RANKS, WHOLE, FULL):
        put_cut(base.model, before, parts, rank)
        losses.append((yield from in_parts(validate(base.model, judged, config.context), SweepStep(config.steps))))
        yield SweepStep(config.steps)
    values = parts[f"model.{config.layer}.weight"][1].cpu().numpy()
    return replace(matrix, change=values, held=held_by(values), cut_loss=tuple(losses[:-2]), layers_loss=losses[-2], base_loss=losses[-1])


@torch.inference_mode()
def singular_parts(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, sigma, V), the largest sigma first."""
    return torch.linalg.svd(matrix, full_matrices=False)


def held_by(values: Float[np.ndarray, "R"]) -> tuple[float, ...]:
    """The share of a matrix' squared size that its best copies of rank 1, 2, 4 ... hold."""
    squares = np.square(values.astype(np.float64))
    return tuple(float(squares[:rank].sum() / max(squares.sum(), 1e-30)) for rank in RANKS)


@torch.no_grad()
def put_cut(model: Any, before: dict[str, Tensor], parts: dict[str, tuple[Tensor, Tensor, Tensor]], rank: int) -> None:
    """Each matrix as it was plus the best rank-r copy of its change."""
    weights = dict(model.named_parameters())
    for name, (u, sigma, v) in parts.items():
        weights[name].copy_(before[name] + (u[:, :rank] * sigma[:rank]) @ v[:rank])


def figures_of(dots: tuple[Dot, ...], weighed: tuple[Weighed, ...], spectrum: Spectrum, runners: list[Runner]) -> tuple[Compared, ...]:
    """What the sweep found, beside what formulas and full fine-tuning say."""
    loss, bytes_of = {dot.rank: dot.loss for dot in dots}, {one.rank: one for one in weighed}
    counts = {one.rank: adapter_weights(one.tuner.model) for one in runners if one.rank}
    gain = spectrum.base_loss - loss[FULL]
    share = (lambda rank: 100 * (spectrum.base_loss - loss[rank]) / gain) if gain > 0 else (lambda rank: float("nan"))
    by_count = {dot.rank: dot.parameters for dot in dots}
    return (
        Compared("loss, rank 1 against full", "nats per token", loss[FULL], loss[1], "full fine-tuning, same batches"),
        Compared("loss, rank 8 against full", "nats per token", loss[FULL], loss[8], "full fine-tuning, same batches"),
        Compared("loss, rank 32 against full", "nats per token", loss[FULL], loss[32], "full fine-tuning, same batches"),
        Compared("share of full's gain that rank 1 gets", "%", None, share(1), "its gain over the base, divided by full fine-tuning's"),
        Compared("weights of rank 8", "weights", by_count[8], counts[8], "r (d + k) per layer; counted in peft's model", "computed"),
        Compared("memory, rank 8", "bytes", bytes_of[8].by_formula, bytes_of[8].held.total, "4 N + 16 r (d + k); the rest: AdamW's step counters"),
        Compared("memory, full", "bytes", bytes_of[FULL].by_formula, bytes_of[FULL].held.total, "16 N; the rest: AdamW's step counters"),
        Compared("size of full's change held by rank 8", "%", 100 * spectrum.random_held[3], 100 * spectrum.held[3],
                 f"a random matrix of the same shape ({spectrum.layer}, squared size)"),
        Compared("gain of full's change kept by rank 8", "%", None, 100 * spectrum.kept[3], "all layers cut to rank 8, embeddings as in the base"),
    )  # fmt: skip
