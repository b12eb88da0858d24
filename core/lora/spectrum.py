r"""Spectrum: why so little rank is enough. Full fine-tuning changes a model; its change is taken apart.

Full fine-tuning changes a matrix by $\Delta W = \sum_i \sigma_i u_i v_i^\top$, with the singular values $\sigma_i$ from
the largest down. The best rank-r copy of it keeps the first r terms, and with them the share

$$\frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}$$

of its squared size. Two things are drawn: this share, which is small (the tail of the spectrum is long), and the share
of the *gain in loss* that is kept when every layer's change is cut to rank r, which is much larger. What matters for
the text lies in few directions. A likely reason for the long tail: AdamW moves every weight by about its rate, whether
it matters or not.

Scaled down: the run sees about 2,300 tokens (a real one sees millions) and is evaluated on 512.

Left out: the embeddings and the output layer, which full fine-tuning changes too; a cut leaves them as in the base.
Source: Eckart and Young 1936 (the best copy of a rank); Aghajanyan et al. 2021, arXiv:2012.13255 (fine-tuning needs few
directions); Hu et al. 2021, arXiv:2106.09685, section 7.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.base_model import Base, load_base, validate
from core.foundations.corpus import CORPORA, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import batch_field, context_field, own_file_field, own_text_field, seed_field
from core.foundations.turns import with_pauses, without_pauses
from core.lora.tuning import Tuner, check_windows, encoded, validation_start

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
WHOLE = 10**9  # a rank that cuts nothing
EVALUATED_TOKENS = 512
LOSS = Figure(
    "validation loss, full fine-tuning", "nats per token", "baseline", "the base, before training", headline=True
)
CUT_GAIN = Figure(
    "gain left when the change is cut to rank {rank}",
    "% of the gain",
    None,
    "every layer's change cut, embeddings as in the base",
    headline=True,
)
CUT_SIZE = Figure(
    "size left when the change is cut to rank {rank}",
    "% of its squared size",
    "baseline",
    "a random matrix of the same shape",
)
LAST_LOSS = Figure("loss before it blew up", "nats per token", "baseline", "the base, before training", headline=True)


@dataclass(frozen=True)
class SpectrumConfig(Config):
    """What is learned, and which matrix is looked into."""

    corpus: str = setting(
        "play",
        "Text to learn",
        choices=TEXTS,
        help="The text that is learned. Choose your own to paste one or to upload a file.",
    )
    own_text: str = own_text_field()
    own_file: bytes = own_file_field()
    steps: int = setting(
        18, "Steps", unit="step", low=1, high=1000, help="More steps change the model more; the run takes longer."
    )
    layer: str = setting(
        "layers.1.mlp.down_proj", "Spectrum of", choices=LAYERS, help="The matrix whose singular values are drawn."
    )
    learning_rate: float = setting(
        0.001,
        "Learning rate",
        low=1e-6,
        high=1.0,
        more=True,
        help="Higher makes each step larger, until the loss blows up.",
    )
    context: int = context_field(64, high=128, unit="token")
    batch: int = batch_field(2, high=16)
    seed: int = seed_field(high=2**32 - 1)


@dataclass(frozen=True)
class Spectrum:
    """One layer's matrix, then full fine-tuning's change of it, and what the best copy of each rank holds."""

    layer: str
    own: Float[np.ndarray, "R"]  # singular values of the matrix itself, largest first
    random_held: tuple[
        float, ...
    ]  # fraction of its squared size that ranks 1, 2, 4 ... hold of a random matrix of its shape
    change: Float[np.ndarray, "R"] | None = None  # singular values of the change; None before the runs
    held: tuple[float, ...] = ()  # fraction of its squared size
    cut_loss: tuple[float, ...] = ()  # nats per token with the change of all layers cut to these ranks
    layers_loss: float = float("nan")  # ... and uncut
    base_loss: float = float("nan")

    @property
    def kept(self) -> tuple[float, ...]:
        """Fraction of the gain in loss that is left after cutting; 0 where there was no gain."""
        gain = self.base_loss - self.layers_loss
        return tuple((self.base_loss - loss) / gain if gain > 0 else 0.0 for loss in self.cut_loss)


def looked_into(layer: str, seed: int, base: Base) -> Spectrum:
    """One matrix before any run, and a random one of its shape to compare with."""
    weight = dict(base.model.named_parameters())[f"model.{layer}.weight"]
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    own, structureless = (singular_parts(matrix)[1].cpu().numpy() for matrix in (weight, random))
    return Spectrum(LAYERS[layer], own, held_by(structureless))


@torch.inference_mode()
def singular_parts(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, sigma, V), the largest sigma first."""
    return torch.linalg.svd(matrix, full_matrices=False)


def held_by(values: Float[np.ndarray, "R"]) -> tuple[float, ...]:
    """The fraction of a matrix' squared size that its best copies of rank 1, 2, 4 ... hold."""
    squares = np.square(values.astype(np.float64))
    return tuple(float(squares[:rank].sum() / max(squares.sum(), 1e-30)) for rank in RANKS)


@torch.no_grad()
def put_cut(model: Any, before: dict[str, Tensor], parts: dict[str, tuple[Tensor, Tensor, Tensor]], rank: int) -> None:
    """Each matrix as it was plus the best rank-r copy of its change."""
    weights = dict(model.named_parameters())
    for name, (u, sigma, v) in parts.items():
        weights[name].copy_(before[name] + (u[:, :rank] * sigma[:rank]) @ v[:rank])


@dataclass(frozen=True)
class SpectrumStep(Step):
    """A step of full fine-tuning, or what its change is made of; what did not happen in it is None."""

    step: int
    loss: float | None = None  # nats per token on this step's batch
    spectrum: Spectrum | None = None
    rows: tuple[tuple[int | float, ...], ...] = ()  # for the data: rank, share of the size held, fraction of the gain


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Why does so little rank do so much?")
def spectrum(config: SpectrumConfig) -> Iterator[SpectrumStep]:
    """Full fine-tuning, then its change taken apart: singular values, and the loss with the change cut to each rank."""
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    base = without_pauses(load_base("shipped"))
    evaluated = validation_start(base, corpus, config.context, EVALUATED_TOKENS)
    matrix = looked_into(config.layer, config.seed, base)
    yield SpectrumStep(0, spectrum=matrix, doing=f"before: the singular values of {matrix.layer} itself")
    pause = SpectrumStep(0, doing="cutting the text into tokens")
    ids = yield from with_pauses(encoded(base, corpus.train), pause)
    check_windows(ids, config.context)
    weights = {name: weight for name, weight in base.model.named_parameters() if "layers" in name and weight.ndim == 2}
    before = {name: weight.detach().clone() for name, weight in base.model.named_parameters()}
    base_loss = yield from with_pauses(validate(base.model, evaluated, config.context), SpectrumStep(0))
    if not (yield from tuned(config, base, ids, base_loss)):
        return
    full_loss = yield from with_pauses(validate(base.model, evaluated, config.context), SpectrumStep(config.steps))
    parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name, weight in weights.items():
        parts[name] = singular_parts(weight.detach() - before[name])
        yield SpectrumStep(config.steps)
    values = parts[f"model.{config.layer}.weight"][1].cpu().numpy()
    found = replace(matrix, change=values, held=held_by(values))
    yield SpectrumStep(config.steps, spectrum=found, doing="the singular values of the change; now it is cut")
    found = yield from dissected(config, base, before, parts, evaluated, replace(found, base_loss=base_loss))
    yield SpectrumStep(
        config.steps,
        spectrum=found,
        rows=tuple(zip(RANKS, found.held, found.kept, strict=True)),
        figures=figures_of(found, full_loss),
        doing=f"done: rank 8 holds {found.held[3]:.0%} of the change and {found.kept[3]:.0%} of its gain",
    )


def tuned(
    config: SpectrumConfig, base: Base, ids: Int[Tensor, "N"], base_loss: float
) -> Generator[SpectrumStep, None, bool]:
    """Train all weights; False if the loss blew up."""
    how: dict[str, Any] = {"context": config.context, "batch": config.batch, "steps": config.steps}
    model = base.model.requires_grad_(True)
    tuner = Tuner(model, ids, learning_rate=config.learning_rate, seed=config.seed, **how)
    for step in range(1, config.steps + 1):
        loss = yield from with_pauses(tuner.one_step(), SpectrumStep(step))
        if not loss <= 3 * math.log(model.config.vocab_size):  # not a number, or far worse than knowing nothing
            why = f"step {step}: the loss went to {loss:.3g}, so the run stops; a smaller learning rate will hold"
            yield SpectrumStep(step, loss, diverged=True, figures=(LAST_LOSS(loss, base_loss),), doing=why)
            return False
        yield SpectrumStep(step, loss, doing=f"step {step}: loss {loss:.3f}")
    return True


def dissected(
    config: SpectrumConfig,
    base: Base,
    before: dict[str, Tensor],
    parts: dict[str, tuple[Tensor, Tensor, Tensor]],
    evaluated: Int[Tensor, "N"],
    found: Spectrum,
) -> Generator[SpectrumStep, None, Spectrum]:
    """The loss with every layer's change whole, then cut to each rank; all other weights as in the base."""
    with torch.no_grad():
        for name, weight in base.model.named_parameters():
            weight.copy_(before[name])
    pause = SpectrumStep(config.steps)
    for rank in (WHOLE, *RANKS):
        put_cut(base.model, before, parts, rank)
        loss = yield from with_pauses(validate(base.model, evaluated, config.context), pause)
        if rank == WHOLE:
            found = replace(found, layers_loss=loss)
            continue
        found = replace(found, cut_loss=(*found.cut_loss, loss))
        kept = f"{found.kept[-1]:.0%} of the gain is left"
        yield SpectrumStep(config.steps, spectrum=found, doing=f"every layer's change cut to rank {rank}: {kept}")
    return found


def figures_of(found: Spectrum, full_loss: float) -> tuple[Result, ...]:
    """What full fine-tuning gained, and what of it a low rank keeps."""
    gained = found.base_loss > found.layers_loss
    results = [LOSS(full_loss, found.base_loss)]
    for rank in (1, 8):
        at = RANKS.index(rank)
        results.append(CUT_GAIN.of(rank=rank)(100 * found.kept[at] if gained else None))
        source = f"{CUT_SIZE.source} ({found.layer})"
        results.append(CUT_SIZE.of(rank=rank)(100 * found.held[at], 100 * found.random_held[at], source=source))
    return tuple(results)
