r"""The trainer: a model, its optimizers, and the one step that training repeats.

One training step: draw a batch of random sequences from the text, let the model give every next character a
probability, compute the loss, go back through the layers for the gradients, and change the weights a little so that the
loss falls.

Muon changes the matrices of the layers (momentum whose update is made orthogonal, so every direction of a matrix learns
at the same pace); AdamW changes everything else, at a sixth of the rate. `optimizer=adamw` uses AdamW for all weights,
at that sixth.

The learning rate grows over ten steps (warm-up), then follows half a cosine down to zero:

$$\eta(f) = \eta \cdot \tfrac12(1 + \cos \pi f), \qquad f = \text{fraction of the run that is over}.$$

The step goes through accelerate, so the same file runs on one core, one GPU or many machines; every process takes its
part of the same global batch.

Left out: gradient clipping (Muon's update has a fixed size) and weight decay, so AdamW is Adam here.
Source: nanoGPT's train.py for the shape of the loop; Jordan et al. 2024, kellerjordan.github.io/posts/muon
(`core/foundations/muon.py`).
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from core.foundations.corpus import CORPORA, OWN_TEXT_BYTES, Corpus, batch_of, check_length, windows_of
from core.foundations.experiment import Config, setting
from core.foundations.machine import this_machine
from core.foundations.muon import Muon
from core.foundations.sampling import Choice, write
from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import config_json, to_bytes

SAMPLE_LENGTH = 160  # characters
SAMPLE_PART = 40  # ... of which a unit of work writes so many
PROBE_LENGTH = 24  # characters of the text whose attention is drawn
UNIT_FLOPS = {"cpu": 4e9, "cuda": 4e11}  # most work between two yields: about 0.15 s


@dataclass(frozen=True)
class TextConfig(Config):
    """What training and forking share: the text and the model."""

    corpus: str = setting(
        "play", "Text to learn", choices=CORPORA, help="The model sees nothing but this text, nine tenths of it."
    )
    own_text: str = setting(
        "",
        "Your own text",
        high=OWN_TEXT_BYTES,
        when=("corpus", "own"),
        help="Paste at least 1,000 characters. A short text is learned by heart, which is worth seeing.",
    )
    own_file: bytes = setting(b"", "or a .txt file", high=OWN_TEXT_BYTES, suffixes=(".txt",), when=("corpus", "own"))
    n_layer: int = setting(
        4,
        "Layers",
        unit="layer",
        low=1,
        high=8,
        slider=True,
        help="More layers can find more complicated patterns; each step takes longer.",
    )
    n_head: int = setting(
        2,
        "Attention heads",
        unit="head",
        low=1,
        high=16,
        slider=True,
        help="More heads can look for more things at once, each with a smaller part of the width.",
    )
    width: int = setting(
        64,
        "Width",
        unit="number",
        low=8,
        high=384,
        help=(
            "How many numbers stand for one character. A wider model can tell more apart; twice the width costs four"
            " times the time."
        ),
    )
    context: int = setting(
        64,
        "Context",
        unit="character",
        low=8,
        high=512,
        more=True,
        help=(
            "How many characters back the model can look. A longer context shows it more of the text, and each step"
            " takes longer."
        ),
    )
    batch: int = setting(
        16,
        "Batch",
        unit="sequence",
        low=1,
        high=256,
        more=True,
        help=(
            "How many pieces of text each step learns from. A larger batch gives a smoother curve; each step takes"
            " longer."
        ),
        slider=True,
    )
    seed: int = setting(
        0, "Seed", low=0, high=2**32 - 1, more=True, help="The same seed gives the same run, to the last bit."
    )

    def check(self) -> None:
        Shape(
            vocabulary=2,
            n_layer=self.n_layer,
            n_head=self.n_head,
            width=self.width,
            dialect=getattr(self, "dialect", "modern"),
        )


def shape_of(config: TextConfig, corpus: Corpus) -> Shape:
    """The model that the settings describe, for this alphabet."""
    gpt2 = getattr(config, "dialect", "modern") == "gpt2"
    return Shape(
        len(corpus.symbols),
        config.n_layer,
        config.n_head,
        config.width,
        config.context,
        "gpt2" if gpt2 else "modern",
        tied=gpt2,
        dropout=getattr(config, "dropout", 0.0),
    )


@dataclass(frozen=True)
class Snapshot:
    """The model at one moment, as the rewind slider shows it."""

    step: int
    sample: str  # always from the same seed, so only the model differs
    probe: str  # the characters whose attention is drawn
    maps: Float[np.ndarray, "L H T T"]
    axes: Float[np.ndarray, "V 2"]  # the character embeddings on their first two principal axes


class Trainer:
    """A model, its optimizers, its random generator. `one_step` is all of training; the rest looks at the result."""

    def __init__(
        self, corpus: Corpus, shape: Shape, config: TextConfig, learning_rate: float, optimizer: str = "muon"
    ) -> None:
        from accelerate import Accelerator

        check_length(corpus, config.context)
        machine = this_machine()
        precision = "fp16" if machine.fast_dtype == "float16" else "no"
        self.accelerator = Accelerator(cpu=machine.device == "cpu", mixed_precision=precision)
        if config.batch % self.accelerator.num_processes:
            raise ValueError(
                f"batch must be a multiple of the {self.accelerator.num_processes} processes, got {config.batch}"
                " windows"
            )
        self.corpus, self.config, self.learning_rate = corpus, config, learning_rate
        self.data = corpus.train_ids
        self.rng = torch.Generator().manual_seed(config.seed)
        self.model = Transformer(shape, config.seed)
        self.model.roll(config.seed + self.accelerator.process_index)
        plain_optimizers = optimizers_of(self.model, learning_rate, optimizer)
        self.wrapped, *self.optimizers = self.accelerator.prepare(self.model, *plain_optimizers)
        self.previous: Float[np.ndarray, "V 2"] | None = None

    def one_step(self, scale: float) -> Iterator[float | None]:
        """One training step with `scale` times the learning rate. Yields None between parts, then the loss.

        The batch is cut into parts of at most `UNIT_FLOPS`, so that no unit of work keeps others waiting.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * scale
        inputs, targets = batch_of(self.data, self.config.context, self.config.batch, self.rng)
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        inputs, targets = inputs[share].to(self.device), targets[share].to(self.device)
        self.wrapped.train()
        total = torch.zeros((), device=self.device)
        for first in range(0, len(inputs), self.windows_at_once(6)):
            if first:
                yield None
            part = slice(first, first + self.windows_at_once(6))
            logits = self.wrapped(inputs[part])  # (B, T) -> (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets[part].flatten()) * (
                len(inputs[part]) / len(inputs)
            )
            self.accelerator.backward(loss)
            total += loss.detach()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield float(self.accelerator.reduce(total, "mean"))

    @property
    def device(self) -> torch.device:
        return self.model.embed.weight.device

    def windows_at_once(self, flops_per_weight: int) -> int:
        """How many windows one unit of work takes: 2 FLOPs per weight and token forward, 6 with the backward pass."""
        weights = self.model.shape.matrix_parameters + self.model.shape.vocabulary * self.model.shape.width
        return max(1, int(UNIT_FLOPS[self.device.type] / (flops_per_weight * weights * self.config.context)))

    def validate(self, most: int | None = None) -> Generator[None, None, float]:
        """The mean loss over the validation text (its first `most` characters); yields between parts."""
        inputs, targets = windows_of(self.corpus.validation_ids, self.config.context, most)
        total, at_once = 0.0, self.windows_at_once(2)
        for first in range(0, len(inputs), at_once):
            if first:
                yield
            total += self.summed_loss(inputs[first : first + at_once], targets[first : first + at_once])
        return total / targets.numel()

    @torch.inference_mode()
    def summed_loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        self.model.eval()
        logits = self.model(inputs.to(self.device))
        return float(F.cross_entropy(logits.flatten(0, 1).float(), targets.to(self.device).flatten(), reduction="sum"))

    def sample(self) -> Generator[None, None, str]:
        """A text from a fixed seed, begun by a line break; yields between its parts."""
        self.model.eval()
        start = self.corpus.encode("\n") or [0]
        rng = torch.Generator().manual_seed(self.config.seed)
        text = ""
        for drawn in write(self.model, start, SAMPLE_LENGTH, Choice(0.8), rng):
            if text and len(text) % SAMPLE_PART == 0:
                yield
            text += self.corpus.symbols[drawn.token]
        return text

    def snapshot(self, step: int) -> Generator[None, None, Snapshot]:
        """What the slider shows of this moment; yields between the parts of the sample."""
        sample = yield from self.sample()
        yield
        probe = self.corpus.validation[: min(PROBE_LENGTH, self.config.context)]
        maps = self.attention(probe).half().cpu().numpy()
        self.previous = main_axes(self.model.embed.weight.detach().float().cpu().numpy(), self.previous)
        return Snapshot(step, sample, probe, maps, self.previous)

    @torch.inference_mode()
    def attention(self, text: str) -> Float[torch.Tensor, "L H T T"]:
        """The shares of each layer and head over a text."""
        maps: list[torch.Tensor] = []
        self.model.eval()
        self.model(torch.tensor([self.corpus.encode(text)], device=self.device), maps=maps)
        return torch.cat(maps)

    def files(self) -> dict[str, bytes]:
        """The model as a download: model.safetensors (float16, config in its header) and config.json."""
        symbols, name = self.corpus.symbols, self.corpus.name
        config = config_json(self.model.shape, symbols, name)
        return {"model.safetensors": to_bytes(self.model, symbols, name, torch.float16), "config.json": config.encode()}


def optimizers_of(model: Transformer, learning_rate: float, name: str) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW, at a sixth of its rate, for the rest; or AdamW, so, for all."""
    layers = [p for p in model.blocks.parameters() if p.ndim == 2] if name == "muon" else []
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in layers)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, learning_rate / 6, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    ]
    if layers:
        optimizers.append(Muon(layers, learning_rate))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def schedule(progress: float, step: int) -> float:
    """The learning rate's scale: ten steps up, then half a cosine down."""
    return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def main_axes(vectors: Float[np.ndarray, "V C"], previous: Float[np.ndarray, "V 2"] | None) -> Float[np.ndarray, "V 2"]:
    """The two main axes (PCA), turned to lie as close as possible to the previous picture (Procrustes)."""
    centered = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    axes = np.zeros((len(vectors), 2), dtype=np.float32)
    axes[:, : min(2, len(s))] = u[:, :2] * s[:2]
    if previous is not None:
        left, _, right = np.linalg.svd(axes.T @ previous)
        axes = axes @ (left @ right)
    return axes
