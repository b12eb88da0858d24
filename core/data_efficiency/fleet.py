r"""A fleet: many tiny models of one shape, trained side by side.

One tiny model keeps a processor waiting: its matrices are so small that starting a matmul takes longer than the
matmul. So the weights of $M$ models are stacked, $W \in \mathbb{R}^{M \times \ldots}$, and one step computes the loss
$\mathcal{L}_m$ and the gradient $\partial \mathcal{L}_m / \partial W_m$ of all of them at once (`torch.func.vmap`),
each on its own batch. AdamW works number by number, so a stack of weights needs no change, only a learning rate per
model. No model sees another: a fleet is tested to be what $M$ lonely models would have become.

Left out: dropout, learning-rate schedules inside the fleet (`scale` comes from outside), GPUs.
Source: torch.func (vmap, functional_call); AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.foundations.corpus import CORPORA, OWN_TEXT_BYTES, Corpus, check_length, load_corpus, windows_of
from core.foundations.experiment import Config, setting
from core.foundations.figures import Figure
from core.foundations.settings import batch_field, layers_field, seed_field
from core.foundations.transformer import Shape, Transformer

UNIT_FLOPS = 7e8  # most work between two turns, 6 FLOPs per weight and token: about 0.07 s on one thread
FLOPS_PER_SECOND = 1.2e10  # of one thread, all in all, on models of this size
MOST_SYMBOLS = 400  # different characters: beyond, the output layer is nearly all of a tiny model
HEADS = 2  # of all models of this topic
BETAS, EPSILON = (0.9, 0.99), 1e-8
NATS = "nats per character"
FIRST_LOSS = Figure("first loss", NATS, "theory", "ln V: all V characters equally likely")

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class FleetConfig(Config):
    """What the experiments with fleets share: the text, the budget, the tiny models and how often each run is
    repeated.
    """

    corpus: str = setting("play", "Text to learn", choices=CORPORA, help="The text that all models read.")
    own_text: str = setting(
        "",
        "Your own text",
        high=OWN_TEXT_BYTES,
        when=("corpus", "own"),
        help="Paste a text of your own; it needs some thousand characters.",
    )
    own_file: bytes = setting(
        b"",
        "or a .txt file",
        high=OWN_TEXT_BYTES,
        suffixes=(".txt",),
        when=("corpus", "own"),
        help="Or upload a text file in UTF-8.",
    )
    tokens: int = setting(
        65_536,
        "Token budget",
        unit="character",
        low=64,
        high=1_000_000,
        help="How many characters each model reads; here a token is a character. More takes longer.",
    )
    width: int = setting(
        32,
        "Width",
        unit="number",
        low=8,
        high=64,
        help="Elements per character inside a model, a multiple of 4. Wider models learn more by heart.",
    )
    n_layer: int = layers_field(1, high=6)
    context: int = setting(
        32,
        "Context",
        unit="character",
        low=8,
        high=64,
        more=True,
        help="How far back a model can look; more takes longer.",
    )
    batch: int = batch_field(high=16)
    seeds: int = setting(
        3,
        "Seeds",
        unit="seed",
        low=2,
        high=5,
        more=True,
        help="Runs of the same kind. More make the error bars more certain, and take longer.",
        slider=True,
    )
    learning_rate: float = setting(
        0.02,
        "Learning rate",
        low=1e-5,
        high=1.0,
        more=True,
        help="At its highest: too low learns slowly, too high blows up.",
    )
    seed: int = seed_field(high=2147483648)

    def check(self) -> None:
        if self.width % (2 * HEADS):
            raise ValueError(f"width must be a multiple of {2 * HEADS}, got {self.width}")
        if self.tokens < self.batch * self.context:
            one = self.batch * self.context
            raise ValueError(
                f"tokens must fill one batch at least, {self.batch} windows of {self.context} = {one} characters, got"
                f" {self.tokens}"
            )

    @property
    def every_seed(self) -> list[int]:
        return [self.seed + number for number in range(self.seeds)]

    def shape(self, corpus: Corpus) -> Shape:
        return Shape(len(corpus.symbols), self.n_layer, HEADS, self.width, self.context)

    def read(self) -> Corpus:
        """The text, if it is long enough for one window in both its parts."""
        corpus = load_corpus(self.corpus, self.own_text, self.own_file)
        check_length(corpus, self.context)
        if len(corpus.symbols) > MOST_SYMBOLS:
            raise ValueError(
                f"Your text may have at most {MOST_SYMBOLS} different characters for models this small, got"
                f" {len(corpus.symbols)}"
            )
        return corpus


class Fleet:
    """M models of one shape: weights stacked along a first dimension M, AdamW with a learning rate per model.

    seeds: one per model, the initial weights. make: the model's class, for one whose `forward` takes more than tokens;
    what more it takes goes into `one_step` as `extra`, tensors with a first dimension M.
    """

    def __init__(
        self,
        shape: Shape,
        seeds: Sequence[int],
        learning_rate: float | Sequence[float] = 0.01,
        weight_decay: float = 0.1,
        make: Callable[[Shape, int], Transformer] = Transformer,
    ) -> None:
        models = [make(shape, seed) for seed in seeds]
        self.shape, self.size = shape, len(models)
        self.model = models[0].requires_grad_(False)  # only its code and its tables: the weights come from the stack
        self.tables = dict(self.model.named_buffers())
        named = [dict(model.named_parameters()) for model in models]
        self.weights: Weights = {name: torch.stack([one[name].detach() for one in named]) for name in named[0]}
        rates = [learning_rate] * self.size if isinstance(learning_rate, int | float) else list(learning_rate)
        self.rates, self.weight_decay, self.steps = torch.tensor(rates), weight_decay, 0
        self.momentum = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.square = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    @property
    def parameters(self) -> int:
        """Of one model."""
        return sum(weight[0].numel() for weight in self.weights.values())

    def logits(self, weights: Weights, tokens: Int[Tensor, "B T"], *extra: Tensor) -> Float[Tensor, "B T V"]:
        """What one model says, given its weights."""
        with sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for the fused attention of processors
            out: Tensor = functional_call(self.model, {**weights, **self.tables}, (tokens, *extra))
        return out

    def mean_loss(
        self, weights: Weights, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], *extra: Tensor
    ) -> Tensor:
        return F.cross_entropy(self.logits(weights, tokens, *extra).flatten(0, 1), targets.flatten())

    def row_losses(
        self, weights: Weights, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B"]:
        losses = F.cross_entropy(self.logits(weights, tokens).flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(1)

    def squads(self, tokens_per_model: int, flops_per_weight: int) -> list[slice]:
        """The models cut into groups, each of which is one unit of work."""
        most = max(1, int(UNIT_FLOPS / (flops_per_weight * self.parameters * tokens_per_model)))
        return [slice(first, min(first + most, self.size)) for first in range(0, self.size, most)]

    def step_in_parts(
        self,
        inputs: Int[Tensor, "M B T"],
        targets: Int[Tensor, "M B T"],
        scale: float = 1.0,
        extra: Sequence[Tensor] = (),
    ) -> Iterator[Float[np.ndarray, "M"] | None]:
        """One optimizer step of all weights with `scale` times the learning rates.

        Yields None between parts, then the losses before it.
        """
        gradients: list[Weights] = []
        losses: list[Tensor] = []
        for squad in self.squads(inputs[0].numel(), 6):
            if gradients:
                yield None
            weights = {name: weight[squad].detach().requires_grad_() for name, weight in self.weights.items()}
            loss = vmap(self.mean_loss)(weights, inputs[squad], targets[squad], *(one[squad] for one in extra))  # (M,)
            # no model's loss depends on another's weights, so the gradient of the sum holds the gradient of each
            gradients.append(dict(zip(weights, torch.autograd.grad(loss.sum(), tuple(weights.values())), strict=True)))
            losses.append(loss.detach())
        self.correct({name: torch.cat([one[name] for one in gradients]) for name in self.weights}, scale)
        yield torch.cat(losses).numpy()

    def one_step(
        self,
        inputs: Int[Tensor, "M B T"],
        targets: Int[Tensor, "M B T"],
        scale: float = 1.0,
        extra: Sequence[Tensor] = (),
    ) -> Float[np.ndarray, "M"]:
        """`step_in_parts` at once: for a fleet whose step is one unit of work."""
        return whole(self.step_in_parts(inputs, targets, scale, extra))

    def correct(self, gradients: Weights, scale: float) -> None:
        """AdamW, written for stacks: w <- w - rate (decay w + m / (sqrt(v) + eps)), with m and v corrected for their
        start at 0.
        """
        self.steps += 1
        first, second = BETAS
        for name, weight in self.weights.items():
            m, v, gradient = self.momentum[name], self.square[name], gradients[name]
            m.lerp_(gradient, 1 - first)
            v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            rate = (self.rates * scale).view(-1, *[1] * (weight.ndim - 1))  # (M, 1, 1): each model its own
            weight.mul_(1 - rate * self.weight_decay)
            size = (v / (1 - second**self.steps)).sqrt_().add_(EPSILON)
            weight.sub_(rate * (m / (1 - first**self.steps)) / size)

    def per_example_loss(self, inputs: Int[Tensor, "M B T"], targets: Int[Tensor, "M B T"]) -> Float[np.ndarray, "M B"]:
        """Mean loss of every window, each model on its own windows."""
        with torch.inference_mode():
            return vmap(self.row_losses)(self.weights, inputs, targets).numpy()

    def validate_in_parts(
        self, ids: Int[Tensor, "N"], most: int | None = None
    ) -> Iterator[Float[np.ndarray, "M"] | None]:
        """Every model on the same text, cut into windows. Yields None between parts, then the mean losses."""
        inputs, targets = windows_of(ids, self.shape.context, most)
        total = np.zeros(self.size)
        at_once = max(1, int(UNIT_FLOPS / (2 * self.parameters * self.shape.context * self.size)))  # windows
        for first in range(0, len(inputs), at_once):
            if first:
                yield None
            part = slice(first, first + at_once)
            total += self.on_same(inputs[part], targets[part]).sum(1)
        yield total / len(inputs)

    def on_same(self, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[np.ndarray, "M B"]:
        """Mean loss of every window, all models on the same windows."""
        with torch.inference_mode():
            return vmap(self.row_losses, in_dims=(0, None, None))(self.weights, inputs, targets).numpy()

    def validate(self, ids: Int[Tensor, "N"], most: int | None = 2048) -> Float[np.ndarray, "M"]:
        """`validate_in_parts` at once, by default on the text's first 2,048 characters."""
        return whole(self.validate_in_parts(ids, most))

    def alone(self, m: int) -> Transformer:
        """Model m as a plain module, with a copy of its weights."""
        model = type(self.model)(self.shape)
        model.load_state_dict({name: weight[m] for name, weight in self.weights.items()}, strict=False)
        return model.requires_grad_(False)


def whole(parts: Iterator[Any]) -> Any:
    """The last thing a job of several parts yields."""
    *_, last = parts
    return last


def text_once(corpus: Corpus, context: int, tokens: int) -> int:
    """How many windows the text has to be learned from; a ValueError if they hold fewer characters than `tokens`."""
    windows = (len(corpus.train_ids) - 1) // context
    if tokens > windows * context:
        raise ValueError(
            f"tokens must be at most {windows * context}, the characters that this text has to be learned from once,"
            f" got {tokens}"
        )
    return windows


def reading_order(windows: int, unique: int, length: int, seed: int) -> Int[Tensor, "length"]:
    """Which windows of the text a run reads, in order: `unique` of them drawn by `seed`, shuffled anew in each epoch.

    The first windows drawn are the same whatever `unique` is, so a smaller text is a part of the larger.
    """
    rng = torch.Generator().manual_seed(seed)
    pool = torch.randperm(windows, generator=rng)[:unique]
    epochs = [pool[torch.randperm(len(pool), generator=rng)] for _ in range(-(-length // len(pool)))]
    return torch.cat(epochs)[:length]


def expected_seconds(shape: Shape, parameters: int, models: int, steps: int, tokens: int, evaluated: int) -> float:
    """How long one thread takes to train `models` models on `tokens` tokens each and to judge each on `evaluated` in
    all.

    Measured once on one thread of a laptop's kind: a token costs its products at 40 GFLOP/s and 2.6 microseconds per
    layer for all that is no product, a step 3 milliseconds per layer for starting its many small operations.
    """
    per_token = 2.6e-6 * shape.n_layer + 6 * parameters / 4e10
    return models * (tokens + evaluated / 3) * per_token + 0.003 * shape.n_layer * steps


def blown_up(losses: Float[np.ndarray, "..."]) -> str:
    """What to say of a run whose losses are no longer numbers; nothing while they are."""
    return (
        ""
        if np.isfinite(losses).all()
        else "a loss is no number any more, so the run stops; a smaller learning rate or weight decay will hold"
    )


def spoken(seconds: float) -> str:
    """'about 9 s', '2 minutes': told before a run starts."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
