r"""Training: draw windows, predict, compare, correct; one optimizer step is one `TrainStep`.

The matrices of the layers are corrected by Muon (momentum whose update is made orthogonal, so every direction of a
matrix learns at the same pace), everything else by AdamW; `optimizer=adamw` uses AdamW for all, as nanoGPT does.
The learning rate climbs for the first steps, then follows half a cosine down to zero:

$$\eta(f) = \eta \cdot \tfrac12(1 + \cos \pi f), \qquad f = \text{share of the run that is over}.$$

The loop goes through accelerate, so the same file runs on one core, one GPU or many machines; every process takes its
share of the same global batch.

Left out: gradient clipping (Muon's update has a fixed size), weight decay, evaluation with dropout averaged out.
Source: nanoGPT's train.py for the shape of the loop; torch.optim.Muon.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from core.foundations.corpus import CORPORA, OWN_TEXT_BYTES, Corpus, batch_of, check_length, ladder, load_corpus, windows_of
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.machine import this_machine
from core.foundations.sampling import Choice, write
from core.foundations.transformer import Shape, Transformer
from core.foundations.turns import in_parts, last_of
from core.foundations.weights import config_json, to_bytes

SNAPSHOTS = 16  # how often a run pauses to write a sample and keep what the rewind slider shows
SNAPSHOT_APART = 12  # ... and the fewest steps between two of them
SAMPLE_LENGTH = 200  # characters
PROBE_LENGTH = 24  # characters of the text whose attention is drawn
UNIT_FLOPS = {"cpu": 8e9, "cuda": 4e11}  # most work between two yields: about 0.15 s


@dataclass(frozen=True)
class TextConfig(Config):
    """What training and forking share: the text and the model."""

    corpus: str = setting("play", "Text to learn", choices=CORPORA)
    own_text: str = setting("", "Your own text", high=OWN_TEXT_BYTES, when=("corpus", "own"))
    own_file: bytes = setting(b"", "or a .txt file", high=OWN_TEXT_BYTES, suffixes=(".txt",), when=("corpus", "own"))
    n_layer: int = setting(4, "Layers", unit="layer", low=1, high=8)
    n_head: int = setting(2, "Attention heads", unit="head", low=1, high=16)
    width: int = setting(64, "Width", unit="number", low=8, high=384, help="numbers per character inside the model")
    context: int = setting(64, "Context", unit="character", low=8, high=512, more=True, help="how far back it can look")
    batch: int = setting(16, "Batch", unit="window", low=1, high=256, more=True, help="windows of text per step")
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="the same seed gives the same run, bit for bit")

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=self.n_head, width=self.width, dialect=getattr(self, "dialect", "modern"))


@dataclass(frozen=True)
class TrainConfig(TextConfig):
    steps: int = setting(250, "Steps", unit="step", low=1, high=1_000_000, help="corrections of the weights")
    learning_rate: float = setting(0.02, "Learning rate", low=1e-6, high=10.0, help="how far each correction goes")
    seconds: float = setting(0.0, "Seconds", unit="second", low=0, high=86_400, more=True, help="if above 0, the time decides, not the steps")
    optimizer: str = setting("muon", "Optimizer", choices={"muon": "Muon for the matrices, AdamW for the rest", "adamw": "AdamW for all"}, more=True)
    dialect: str = setting("modern", "Dialect", choices={"modern": "modern (rotary, squared ReLU)", "gpt2": "GPT-2 (learned positions, GELU)"}, more=True)
    dropout: float = setting(0.0, "Dropout", low=0, high=0.9, more=True, help="share of numbers set to 0 while training")


@dataclass(frozen=True)
class Snapshot:
    """The model at one moment, as the rewind slider shows it."""

    step: int
    sample: str  # always from the same seed, so only the model differs
    probe: str  # the characters whose attention is drawn
    maps: Float[np.ndarray, "L H T T"]
    places: Float[np.ndarray, "V 2"]  # the character embeddings on their two main axes


@dataclass(frozen=True)
class TrainStep(Step):
    """One optimizer step, a snapshot, or a part of either; what did not happen in it is None."""

    step: int
    progress: float  # 0 to 1
    loss: float | None = None  # nats per character on this step's batch
    validation_loss: float | None = None  # nats per character on text it has not learnt from
    learning_rate: float = 0.0
    tokens_per_second: float | None = None
    ladder: dict[str, float] = field(default_factory=dict)  # entropies of the text, on the first Step
    symbols: str = ""  # on the first Step
    snapshot: Snapshot | None = None


class Trainer:
    """A model, its optimizers and its dice. `one_step` is the whole of training; the rest looks at the result."""

    def __init__(self, corpus: Corpus, shape: Shape, config: TextConfig, learning_rate: float, optimizer: str = "muon") -> None:
        from accelerate import Accelerator

        check_length(corpus, config.context)
        machine = this_machine()
        precision = "fp16" if machine.fast_dtype == "float16" else "no"
        self.accelerator = Accelerator(cpu=machine.device == "cpu", mixed_precision=precision)
        if config.batch % self.accelerator.num_processes:
            raise ValueError(f"batch must be a multiple of the {self.accelerator.num_processes} processes, got {config.batch} windows")
        self.corpus, self.config, self.learning_rate = corpus, config, learning_rate
        self.data = corpus.train_ids
        self.dice = torch.Generator().manual_seed(config.seed)
        self.model = Transformer(shape, config.seed)
        self.model.roll(config.seed + self.accelerator.process_index)
        plain_optimizers = optimizers_of(self.model, learning_rate, optimizer)
        self.wrapped, *self.optimizers = self.accelerator.prepare(self.model, *plain_optimizers)
        self.previous: Float[np.ndarray, "V 2"] | None = None

    def one_step(self, scale: float) -> Iterator[float | None]:
        """One correction of the weights with `scale` times the learning rate. Yields None between parts, then the loss.

        The batch is cut into parts of at most `UNIT_FLOPS`, so that no unit of work keeps others waiting.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * scale
        inputs, targets = batch_of(self.data, self.config.context, self.config.batch, self.dice)
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        inputs, targets = inputs[share].to(self.device), targets[share].to(self.device)
        self.wrapped.train()
        total = torch.zeros((), device=self.device)
        for first in range(0, len(inputs), self.windows_at_once(6)):
            if first:
                yield None
            part = slice(first, first + self.windows_at_once(6))
            logits = self.wrapped(inputs[part])  # (B, T) -> (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets[part].flatten()) * (len(inputs[part]) / len(inputs))
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

    def validate(self, most: int | None = None) -> Iterator[float | None]:
        """Yields None between parts, then the mean loss over the validation text (its first `most` characters)."""
        inputs, targets = windows_of(self.corpus.validation_ids, self.config.context, most)
        total, at_once = 0.0, self.windows_at_once(2)
        for first in range(0, len(inputs), at_once):
            if first:
                yield None
            total += self.summed_loss(inputs[first : first + at_once], targets[first : first + at_once])
        yield total / targets.numel()

    @torch.inference_mode()
    def summed_loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        self.model.eval()
        logits = self.model(inputs.to(self.device))
        return float(F.cross_entropy(logits.flatten(0, 1).float(), targets.to(self.device).flatten(), reduction="sum"))

    def sample(self, length: int = SAMPLE_LENGTH) -> str:
        """A text from a fixed seed, begun by a line break."""
        self.model.eval()
        start = self.corpus.encode("\n") or [0]
        dice = torch.Generator().manual_seed(self.config.seed)
        return "".join(self.corpus.symbols[drawn.token] for drawn in write(self.model, start, length, Choice(0.8), dice))

    @torch.inference_mode()
    def snapshot(self, step: int) -> Snapshot:
        probe = self.corpus.validation[: min(PROBE_LENGTH, self.config.context)]
        maps: list[torch.Tensor] = []
        self.model.eval()
        self.model(torch.tensor([self.corpus.encode(probe)], device=self.device), maps=maps)
        self.previous = main_axes(self.model.embed.weight.float().cpu().numpy(), self.previous)
        return Snapshot(step, self.sample(), probe, torch.cat(maps).half().cpu().numpy(), self.previous)

    def files(self) -> dict[str, bytes]:
        """The model as a download: model.safetensors (float16, config in its header) and config.json."""
        symbols, name = self.corpus.symbols, self.corpus.name
        config = config_json(self.model.shape, symbols, name)
        return {"model.safetensors": to_bytes(self.model, symbols, name, torch.float16), "config.json": config.encode()}


def optimizers_of(model: Transformer, learning_rate: float, name: str) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW, at a sixth of its rate, for the rest; or AdamW for all."""
    layers = [p for p in model.blocks.parameters() if p.ndim == 2] if name == "muon" else []
    rest = [p for p in model.parameters() if all(p is not one for one in layers)]
    rate = learning_rate / 6 if layers else learning_rate
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)]
    if layers:
        optimizers.append(torch.optim.Muon(layers, learning_rate, weight_decay=0.0, adjust_lr_fn="original"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def schedule(progress: float, step: int) -> float:
    """The learning rate's scale: ten steps up, then half a cosine down."""
    return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def main_axes(vectors: Float[np.ndarray, "V C"], previous: Float[np.ndarray, "V 2"] | None) -> Float[np.ndarray, "V 2"]:
    """The two main axes (PCA), turned to lie as close as possible to the previous picture (Procrustes)."""
    centred = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2), dtype=np.float32)
    places[:, : min(2, len(s))] = u[:, :2] * s[:2]
    if previous is not None:
        left, _, right = np.linalg.svd(places.T @ previous)
        places = places @ (left @ right)
    return places


@experiment("What has a model learnt when its loss falls?")
def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Train a GPT from nothing on a text, live."""
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    trainer = Trainer(corpus, shape_of(config, corpus), config, config.learning_rate, config.optimizer)
    if config.seconds and trainer.accelerator.num_processes > 1:
        raise ValueError("several processes must take the same number of steps: give steps, and leave seconds at 0")
    rungs, first_loss = ladder(corpus.text), last_of(trainer.validate(4096))
    yield TrainStep(0, 0.0, validation_loss=first_loss, ladder=rungs, symbols=corpus.symbols, snapshot=trainer.snapshot(0),
                    figures=start_figures(trainer, rungs, first_loss), files=trainer.files())  # fmt: skip
    speed = possible_speed(trainer)
    step, busy, progress, kept, loss = 0, 0.0, 0.0, (0, 0.0), first_loss
    while progress < 1:
        started = time.perf_counter()
        scale = schedule(progress, step)
        for part in trainer.one_step(scale):
            busy += time.perf_counter() - started
            if part is None:
                yield TrainStep(step, progress)  # a part of a batch
            else:
                loss = part
            started = time.perf_counter()
        step += 1
        progress = busy / config.seconds if config.seconds else step / config.steps
        tokens_per_second = step * config.batch * config.context / busy
        if not loss <= 8 * rungs["ln V"]:  # not a number, or far worse than knowing nothing
            told = f"step {step}: the loss went to {loss:.3g}, so the run stops; a smaller learning rate will hold"
            figures = (Compared("last loss", "nats per character", rungs["ln V"], loss, "ln V: all characters equally likely"),)
            yield TrainStep(step, progress, loss, learning_rate=config.learning_rate * scale, diverged=True, figures=figures, doing=told)
            return
        yield TrainStep(step, progress, loss, None, config.learning_rate * scale, tokens_per_second, doing=f"step {step}: loss {loss:.3f}")
        if progress < 1 and int(progress * SNAPSHOTS) > int(kept[1] * SNAPSHOTS) and step - kept[0] >= SNAPSHOT_APART:
            kept = (step, progress)
            validation = yield from in_parts(trainer.validate(4096), TrainStep(step, progress))
            yield TrainStep(step, progress)  # a place to take turns: the sample is a unit of its own
            yield TrainStep(step, progress, None, validation, config.learning_rate * scale, tokens_per_second,
                            snapshot=trainer.snapshot(step), files=trainer.files(), doing=f"step {step}: validation loss {validation:.3f}")  # fmt: skip
    validation = yield from in_parts(trainer.validate(), TrainStep(step, 1.0, doing="judging on the validation text"))
    yield TrainStep(step, 1.0, loss, validation, 0.0, tokens_per_second, snapshot=trainer.snapshot(step), files=trainer.files(),
                    figures=end_figures(rungs, validation, tokens_per_second, speed), doing=f"done: validation loss {validation:.3f}")  # fmt: skip


def shape_of(config: TextConfig, corpus: Corpus) -> Shape:
    gpt2 = getattr(config, "dialect", "modern") == "gpt2"
    return Shape(len(corpus.symbols), config.n_layer, config.n_head, config.width, config.context, "gpt2" if gpt2 else "modern",
                 tied=gpt2, dropout=getattr(config, "dropout", 0.0))  # fmt: skip


def possible_speed(trainer: Trainer) -> float:
    """Characters per second if training were this machine's matrix products alone, at 6 FLOPs per weight and character."""
    config, width = trainer.config, trainer.model.shape.width
    a = torch.ones(min(config.batch * config.context, 4096), width, device=trainer.device)
    b = torch.ones(width, 4 * width, device=trainer.device)
    best = math.inf
    for _ in range(12):
        started = time.perf_counter()
        float((a @ b)[0, 0])  # reading a number waits for a GPU to finish
        best = min(best, time.perf_counter() - started)
    weights = sum(p.numel() for p in trainer.model.parameters())
    return 2 * len(a) * width * 4 * width / best / (6 * weights)


def start_figures(trainer: Trainer, rungs: dict[str, float], first_loss: float) -> tuple[Compared, ...]:
    shape, counted = trainer.model.shape, sum(p.numel() for p in trainer.model.parameters())
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2) + (shape.context * shape.width if trainer.model.place is not None else 0)
    return (
        Compared("first loss", "nats per character", rungs["ln V"], first_loss, "ln V: all characters equally likely"),
        Compared("parameters", "weights", shape.matrix_parameters + tables, counted, "12 L C^2 in the layers, V C per table; norms left out", "computed"),
    )


def against(name: str, predicted: float, loss: float, known: str) -> Compared:
    return Compared(f"validation loss against {name}", "nats per character", predicted, loss, f"entropy given {known}, counted in the text")


def end_figures(rungs: dict[str, float], loss: float, speed: float, possible: float) -> tuple[Compared, ...]:
    bare = "measured rate of a matrix product / (6 FLOPs x weights)"
    return (
        against("triples", rungs["trigram"], loss, "two characters"),
        against("pairs", rungs["bigram"], loss, "one character"),
        against("counts", rungs["unigram"], loss, "none"),
        Compared("training speed against bare matrix products", "characters per second", possible, speed, bare),
    )
