r"""The notebook's own toy, rebuilt with its settings, and three controls that it did not have.

A network 16-32-32-1 learns on a sphere of radius 4 whether the mean of its inputs is positive (2,000 examples, Adam at
1e-4, 400 epochs in batches of 256: 2,800 steps). Then it is tested on Gaussian inputs of standard deviation 1/16, whose
labels follow the same rule, and LoRA with r = 2, alpha = 1 adapts its second layer to them (Adam at 1e-3, 2,800 steps).
The rule does not depend on the size of the inputs, so nothing of rank 2 needs to be learned.

Here the bias is the layer's own, as LoRA says; see `toy.py` for what the notebook does with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.experiment import Step
from core.foundations.figures import Figure, Result
from core.lora.adapter import initial_a, trained_numbers
from core.lora.tiny_network import HIDDEN, INPUTS, Network, on_sphere

RANK, ALPHA, SHRUNK = 2, 1.0, 16.0
EXAMPLES, BATCH, EPOCHS, EVALUATED = 2000, 256, 400, 1024
NUMBERS = Figure("trained numbers of LoRA", "numbers", "theory", "r (d_in + d_out) = 2 (32 + 32)", "computed")
BEFORE = Figure("accuracy before adapting", "%", None, "mean over the seeds, inputs 16 times smaller")
LORA = Figure("accuracy with LoRA", "%", "baseline", "the base, before adapting", headline=True)
ARM = Figure("accuracy with {arm}", "%", "baseline", "LoRA, r = 2", headline=True)
SPREAD = Figure("standard deviation of LoRA's accuracy over the seeds", "% points", None, "how far two seeds differ")
NAMES = {
    "as it is": 0,
    "inputs × 16": 0,
    "biases only": HIDDEN,
    "LoRA, r = 2": trained_numbers(RANK, HIDDEN, HIDDEN),
    "whole layer": HIDDEN * HIDDEN + HIDDEN,
}


@dataclass(frozen=True)
class ControlsStep(Step):
    """All repetitions at one moment.

    An arm: its name, how many numbers it trains, its accuracy on the Gaussian inputs for each seed.
    """

    step: int
    steps: int  # of the base; the adapting takes as many again
    arms: tuple[tuple[str, int, tuple[float, ...]], ...] = ()
    sphere: float | None = None  # accuracy of the base on the inputs it learns from, mean over the seeds


def positive_mean(x: Float[Tensor, "*S N D"]) -> Float[Tensor, "*S N"]:
    """The label: +1 or -1."""
    return torch.where(x.mean(-1) >= 0, 1.0, -1.0)


def share_right(answers: Float[Tensor, "*M N"], labels: Float[Tensor, "*S N"]) -> Float[Tensor, "*M"]:
    return (answers * labels > 0).float().mean(-1)


def logistic(answers: Float[Tensor, "*M N"], labels: Float[Tensor, "*S N"]) -> Tensor:
    """ln(1 + exp(-y f)), the mean over the batch, summed over all that learn side by side."""
    return F.softplus(-labels * answers).mean(-1).sum()


class Repetitions:
    """Several seeds at once: every tensor has the seed as its first axis."""

    def __init__(self, seeds: int, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

        def uniform(*shape: int, fan_in: int) -> Tensor:  # as nn.Linear begins
            return (torch.rand(seeds, *shape, generator=self.rng) * 2 - 1) / fan_in**0.5

        wide = {"fan_in": HIDDEN}
        self.parts = [
            uniform(HIDDEN, INPUTS, fan_in=INPUTS),
            uniform(HIDDEN, fan_in=INPUTS),
            uniform(HIDDEN, HIDDEN, **wide),
            uniform(HIDDEN, **wide),
            uniform(HIDDEN, **wide),
        ]
        self.base = Network(*self.parts)
        self.sphere, self.evaluated_sphere = (on_sphere(number, self.rng, seeds) for number in (EXAMPLES, EVALUATED))
        self.small, self.evaluated = (
            torch.randn(seeds, number, INPUTS, generator=self.rng) / SHRUNK for number in (EXAMPLES, EVALUATED)
        )
        self.a = torch.stack([initial_a(RANK, HIDDEN, self.rng) for _ in range(seeds)])
        self.b = torch.zeros(seeds, HIDDEN, RANK)
        self.biases, self.layer_weight, self.layer_bias = (
            torch.zeros(seeds, *shape) for shape in ((HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,))
        )

    def adapted(self, x: Float[Tensor, "S N D"]) -> Float[Tensor, "3 S N"]:
        """The answers of the three that learn: biases only, LoRA, the whole layer."""
        weight = torch.stack([torch.zeros_like(self.layer_weight), ALPHA / RANK * self.b @ self.a, self.layer_weight])
        bias = torch.stack([self.biases, torch.zeros_like(self.biases), self.layer_bias])
        return self.base.answer(self.base.hidden(x), self.base.w2 + weight, self.base.b2 + bias)

    def train(self, parts: list[Tensor], learning_rate: float, adapt: bool, steps: int) -> Iterator[int]:
        """The notebook's loop: the same batches in the same order every epoch. Yields the steps done, now and then."""
        optimizer = torch.optim.Adam([part.requires_grad_() for part in parts], learning_rate)
        x = self.small if adapt else self.sphere
        labels, batches = positive_mean(x), EXAMPLES // BATCH
        for step in range(steps):
            now = slice(BATCH * (step % batches), BATCH * (step % batches + 1))
            loss = logistic((self.adapted if adapt else self.base)(x[:, now]), labels[:, now])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (step + 1) % 25 == 0 or step + 1 == steps:
                yield step + 1
        for part in parts:
            part.requires_grad_(False)

    @torch.no_grad()
    def arms(self) -> tuple[tuple[str, int, tuple[float, ...]], ...]:
        """Accuracy on the Gaussian inputs, for every seed."""
        labels = positive_mean(self.evaluated)
        answers = [self.base(self.evaluated), self.base(SHRUNK * self.evaluated), *self.adapted(self.evaluated)]
        return tuple(
            (name, NAMES[name], tuple(share_right(one, labels).tolist()))
            for name, one in zip(NAMES, answers, strict=True)
        )

    @torch.no_grad()
    def on_sphere(self) -> float:
        return float(share_right(self.base(self.evaluated_sphere), positive_mean(self.evaluated_sphere)).mean())


def mean_and_spread(values: tuple[float, ...]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    mean = sum(values) / len(values)
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def seed_setting(seeds: int, seed: int, epochs: int = EPOCHS) -> Iterator[ControlsStep]:
    """Train the bases, adapt them in three ways, and compare with multiplying the inputs."""
    runs, steps = Repetitions(seeds, seed), epochs * (EXAMPLES // BATCH)
    numbers = NUMBERS(runs.a[0].numel() + runs.b[0].numel(), trained_numbers(RANK, HIDDEN, HIDDEN))
    yield ControlsStep(0, steps, runs.arms(), runs.on_sphere(), doing="before any training", figures=(numbers,))
    for step in runs.train(runs.parts, 1e-4, False, steps):
        look = step % 200 == 0 or step == steps
        yield ControlsStep(step, steps, runs.arms() if look else (), runs.on_sphere() if look else None,
                           doing=f"step {step} of {steps}: the bases learn on the sphere" if look else "")  # fmt: skip
    learning = [runs.a, runs.b, runs.biases, runs.layer_weight, runs.layer_bias]
    for step in runs.train(learning, 1e-3, True, steps):
        look = step % 100 == 0 or step == steps
        yield ControlsStep(
            steps + step,
            steps,
            runs.arms() if look else (),
            doing=f"step {step} of {steps}: adapting to the Gaussian inputs" if look else "",
        )
    yield ControlsStep(
        2 * steps, steps, runs.arms(), figures=verdict(runs.arms()), doing="done: compare LoRA with the controls"
    )


def verdict(arms: tuple[tuple[str, int, tuple[float, ...]], ...]) -> tuple[Result, ...]:
    """LoRA beside each control, in percent; a difference well inside the spread over the seeds is a tie."""
    percent = {name: tuple(100 * value for value in each) for name, _, each in arms}
    mean = {name: mean_and_spread(each)[0] for name, each in percent.items()}
    lora = mean["LoRA, r = 2"]
    return (
        BEFORE(mean["as it is"]),
        LORA(lora, mean["as it is"]),
        ARM.of(arm="inputs x 16, nothing trained")(mean["inputs × 16"], lora),
        ARM.of(arm="32 biases")(mean["biases only"], lora),
        ARM.of(arm="the whole layer")(mean["whole layer"], lora),
        SPREAD(mean_and_spread(percent["LoRA, r = 2"])[1]),
    )
