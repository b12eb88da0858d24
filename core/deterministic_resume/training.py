"""A small training run whose whole state can be taken out and put back: what a checkpoint must hold, in five parts.

| part | what it is here | if it is forgotten |
|---|---|---|
| weights | the model | learning begins anew |
| optimizer | AdamW's two moments per weight, and its count of steps | the first steps follow single batches |
| schedule | how many steps the learning rate has seen | it warms up again |
| rng | the state of the generators that dropout draws from | other numbers are dropped |
| data | how many sequences of the shuffled text were read | it reads the first pages again |
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.deterministic_resume.checkpoint import Checkpoint
from core.foundations.corpus import Corpus, windows_of
from core.foundations.transformer import Block, Shape, Transformer

PARTS = {
    "weights": "weights",
    "optimizer": "optimizer",
    "schedule": "learning-rate schedule",
    "rng": "random numbers",
    "data": "place in the data",
}
WARM_UP = 6  # steps
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


class Training:
    """A model, its optimizer, its schedule, its random generators and its position in the text."""

    def __init__(
        self,
        corpus: Corpus,
        shape: Shape,
        *,
        batch: int,
        steps: int,
        learning_rate: float,
        seed: int,
        sgd: bool = False,
    ) -> None:
        self.inputs, self.targets = windows_of(corpus.train_ids, shape.context)
        self.batch, self.steps, self.learning_rate, self.seed = batch, steps, learning_rate, seed
        self.model = Transformer(shape, seed).train()
        self.model.roll(seed)
        weights = list(self.model.parameters())
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            weights, lr=learning_rate, weight_decay=0.0, foreach=False
        )
        if sgd:
            self.optimizer = torch.optim.SGD(weights, lr=learning_rate, momentum=0.9, foreach=False)
        self.clock = 0  # steps that the schedule has seen
        self.read = 0  # windows that were read

    def next_batch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """The next windows of the text, which is shuffled anew for every pass over it, by seed and number of the
        pass.
        """
        places = []
        for place in range(self.read, self.read + self.batch):
            round_, within = divmod(place, len(self.inputs))
            places.append(self.shuffled(round_)[within])
        self.read += self.batch
        return self.inputs[places], self.targets[places]

    def shuffled(self, round_: int) -> list[int]:
        """The order of the windows in one pass; remembered for the pass that is on."""
        if getattr(self, "round", None) != round_:
            self.round = round_
            self.order = torch.randperm(
                len(self.inputs), generator=torch.Generator().manual_seed(self.seed + 1000 * (round_ + 1))
            ).tolist()
        return self.order

    def rate(self) -> float:
        """The learning rate: up for the first steps, then half a cosine down."""
        return (
            self.learning_rate
            * min(1.0, (self.clock + 1) / WARM_UP)
            * 0.5
            * (1 + math.cos(math.pi * min(1.0, self.clock / self.steps)))
        )

    def one_step(self) -> float:
        """One training step; the loss before it, in nats per character."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        inputs, targets = self.next_batch()
        loss = self.model.loss(inputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.clock += 1
        return float(loss.detach())

    # --- the state, taken out and put back ---

    def checkpoint(self, step: int) -> Checkpoint:
        tensors = {f"weights.{name}": weight.detach() for name, weight in self.model.named_parameters()}
        for name, weight in self.model.named_parameters():
            for moment, value in self.optimizer.state[weight].items():
                tensors[f"optimizer.{name}.{moment}"] = value
        tensors |= {
            f"rng.{number}": block.rng.get_state()
            for number, block in enumerate(self.blocks())
            if block.rng is not None
        }
        return Checkpoint(step, tensors, {"schedule": self.clock, "data": self.read})

    def restore(self, saved: Checkpoint, parts: tuple[str, ...]) -> None:
        """Put back those parts; the others stay as they are in a process that has just started."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if "weights" in parts:
                    weight.copy_(saved.tensors[f"weights.{name}"])
                if "optimizer" in parts:
                    self.optimizer.state[weight] = {
                        moment: saved.tensors[f"optimizer.{name}.{moment}"].clone() for moment in ("step", *MOMENTS)
                    }
        if "rng" in parts:
            for number, block in enumerate(self.blocks()):
                if block.rng is not None:
                    block.rng.set_state(saved.tensors[f"rng.{number}"])
        if "schedule" in parts:
            self.clock = saved.rest["schedule"]
        if "data" in parts:
            self.read = saved.rest["data"]

    def blocks(self) -> list[Block]:
        return [module for module in self.model.modules() if isinstance(module, Block)]

    def flat(self) -> Float[np.ndarray, "P"]:
        """All weights in a row."""
        return np.concatenate([weight.detach().flatten().numpy() for weight in self.model.parameters()])

    def names(self) -> tuple[tuple[str, int], ...]:
        """The tensors in that row: name and size."""
        return tuple((name, weight.numel()) for name, weight in self.model.named_parameters())
