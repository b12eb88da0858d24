r"""A fleet: many tiny models of one shape, trained side by side.

One tiny model keeps a processor waiting: its matrices are so small that starting a product takes longer than the
product. So the weights of $M$ models are stacked, $W \in \mathbb{R}^{M \times \ldots}$, and one step computes the loss
$\mathcal{L}_m$ and the gradient $\partial \mathcal{L}_m / \partial W_m$ of all of them at once (`torch.func.vmap`), each
on its own batch. AdamW works number by number, so a stack of weights needs no change, only a learning rate per model.
No model sees another: a fleet is tested to be what $M$ lonely models would have become.

Left out: dropout, learning-rate schedules inside the fleet (`scale` comes from outside), GPUs.
Source: torch.func (vmap, functional_call); AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.foundations.corpus import windows_of
from core.foundations.transformer import Shape, Transformer

UNIT_FLOPS = 1.0e9  # most work between two turns, 6 FLOPs per weight and token: about 0.1 s on one thread
BETAS, EPSILON = (0.9, 0.99), 1e-8

Weights = dict[str, Tensor]


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

    def mean_loss(self, weights: Weights, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], *extra: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(weights, tokens, *extra).flatten(0, 1), targets.flatten())

    def row_losses(self, weights: Weights, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B"]:
        losses = F.cross_entropy(self.logits(weights, tokens).flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(1)

    def squads(self, tokens_per_model: int, flops_per_weight: int) -> list[slice]:
        """The models cut into groups, each of which is one unit of work."""
        most = max(1, int(UNIT_FLOPS / (flops_per_weight * self.parameters * tokens_per_model)))
        return [slice(first, min(first + most, self.size)) for first in range(0, self.size, most)]

    def step_in_parts(
        self, inputs: Int[Tensor, "M B T"], targets: Int[Tensor, "M B T"], scale: float = 1.0, extra: Sequence[Tensor] = ()
    ) -> Iterator[Float[np.ndarray, "M"] | None]:
        """One correction of all weights with `scale` times the learning rates. Yields None between parts, then the losses before it."""
        gradients: list[Weights] = []
        losses: list[Tensor] = []
        for squad in self.squads(inputs[0].numel(), 6):
            if gradients:
                yield None
            weights = {name: weight[squad] for name, weight in self.weights.items()}
            gradient, loss = vmap(grad_and_value(self.mean_loss))(weights, inputs[squad], targets[squad], *(one[squad] for one in extra))
            gradients.append(gradient)
            losses.append(loss)
        self.correct({name: torch.cat([one[name] for one in gradients]) for name in self.weights}, scale)
        yield torch.cat(losses).numpy()

    def one_step(self, inputs: Int[Tensor, "M B T"], targets: Int[Tensor, "M B T"], scale: float = 1.0, extra: Sequence[Tensor] = ()) -> Float[np.ndarray, "M"]:
        """`step_in_parts` at once: for a fleet whose step is one unit of work."""
        return whole(self.step_in_parts(inputs, targets, scale, extra))

    def correct(self, gradients: Weights, scale: float) -> None:
        """AdamW, written for stacks: w <- w - rate (decay w + m / (sqrt(v) + eps)), with m and v corrected for their start at 0."""
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

    def validate_in_parts(self, ids: Int[Tensor, "N"], most: int | None = None) -> Iterator[Float[np.ndarray, "M"] | None]:
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
