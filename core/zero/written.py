r"""ZeRO written out: the stages 1, 2 and 3 with nothing but `reduce_scatter` and `all_gather` on flat rows of numbers.

A *unit* is a part of the model, a layer for instance. Its weights lie one after the other in one row, which is cut into
$N$ equal pieces; piece $i$ is rank $i$'s own. AdamW runs on the own piece alone, so its moments are there for $1/N$ of
the weights: that is stage 1, and the rest follows from when a row is whole.

| | weights are whole | gradients are whole |
|---|---|---|
| stage 0 | always, all are the rank's own | until the end of the step |
| stage 1 | always | until the end of the step |
| stage 2 | always | while the backward pass is in the unit |
| stage 3 | while a pass is in the unit | while the backward pass is in the unit |

With `mixed`, weights and gradients have 16 bits and the optimizer has its own weights in 32: 2 + 2 + 12 bytes, as in
the paper.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.zero.order import summed_in_order
from core.zero.training import PADS, Size, Trainee


class Unit:
    """Some weights in one row, of which a piece is this rank's own."""

    def __init__(
        self, weights: Sequence[nn.Parameter], stage: int, rank: int, ranks: int, *, mixed: bool, in_order: bool
    ) -> None:
        self.stage, self.ranks, self.in_order = stage, ranks, in_order
        self.tensors, self.shapes = list(weights), [weight.shape for weight in weights]
        starts = list(accumulate((up_to(weight.numel(), PADS) for weight in weights), initial=0))
        self.places = [slice(start, start + weight.numel()) for start, weight in zip(starts, weights, strict=False)]
        self.row = torch.zeros(
            up_to(starts[-1], ranks if stage else 1),
            device=weights[0].device,
            dtype=torch.bfloat16 if mixed else torch.float32,
        )
        self.gradient: Tensor | None = None  # of the row
        self.arrived = 0
        for weight, place in zip(weights, self.places, strict=True):
            self.row[place] = weight.detach().flatten()
            weight.data = self.row[place].view(weight.shape)
            weight.register_post_accumulate_grad_hook(self.arrive)
        piece = len(self.row) // ranks
        self.own = slice(rank * piece, (rank + 1) * piece) if stage else slice(0, len(self.row))
        self.piece = self.row[self.own].clone() if stage == 3 else self.row[self.own]
        self.master = nn.Parameter(self.piece.float() if mixed else self.piece)  # what AdamW changes
        if stage == 3:
            self.free()

    def gather(self) -> None:
        """Make the row whole: every rank sends its piece to all."""
        if self.row.untyped_storage().nbytes() == 0:
            self.row.untyped_storage().resize_(len(self.row) * self.row.element_size())
        dist.all_gather_into_tensor(self.row, self.piece)

    def free(self) -> None:
        self.row.untyped_storage().resize_(0)

    def arrive(self, weight: Tensor) -> None:
        """Autograd has one tensor's gradient: put it into the row of gradients. After the last one, stages 2 and 3
        share it out.
        """
        if self.gradient is None:
            self.gradient = torch.zeros(len(self.row), dtype=self.row.dtype, device=self.row.device)
        number = next(number for number, tensor in enumerate(self.tensors) if tensor is weight)
        assert weight.grad is not None
        self.gradient[self.places[number]] = weight.grad.flatten()
        weight.grad = None
        self.arrived += 1
        if self.arrived % len(self.tensors) == 0:
            if self.stage >= 2:
                self.reduce()
            if self.stage == 3:
                self.free()

    def reduce(self) -> None:
        """The mean over all ranks: of the whole row at stage 0, else of the own piece."""
        assert self.gradient is not None
        self.gradient /= self.ranks
        if self.in_order:
            self.gradient = summed_in_order(self.gradient, self.own)
        elif self.stage == 0:
            dist.all_reduce(self.gradient)
        else:
            piece = torch.empty_like(self.gradient[self.own])
            dist.reduce_scatter_tensor(piece, self.gradient)
            self.gradient = piece

    def give(self) -> None:
        """Hand the gradient to the optimizer, in its own precision."""
        assert self.gradient is not None
        self.master.grad = self.gradient.to(self.master.dtype)

    def take(self) -> None:
        """Take the new weights from the optimizer and, where rows are always whole, make them so again."""
        if self.master.data_ptr() != self.piece.data_ptr():
            self.piece.copy_(self.master.detach())
        if self.stage in (1, 2):
            self.gather()


def up_to(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Written(Trainee):
    """One rank of the written-out ZeRO, with the layers of the model as units, and all that is outside of them as one
    more.
    """

    def __init__(
        self, size: Size, stage: int, rank: int, ranks: int, *, mixed: bool = False, in_order: bool = False
    ) -> None:
        super().__init__(size, rank, ranks)
        self.names = [name for name, _ in self.model.named_parameters()]
        if mixed:
            self.model.to(torch.bfloat16)
        blocks = list(self.model.blocks)
        inside = {weight for block in blocks for weight in block.parameters()}
        outside = [weight for weight in self.model.parameters() if weight not in inside]
        modules: list[nn.Module] = [self.model, *blocks]
        rows = [outside, *(list(block.parameters()) for block in blocks)]
        self.units = [Unit(row, stage, rank, ranks, mixed=mixed, in_order=in_order) for row in rows]
        if stage == 3:
            for module, unit in zip(modules, self.units, strict=True):
                module.register_forward_pre_hook(lambda *_, unit=unit: unit.gather())
                module.register_forward_hook(lambda *_, unit=unit: unit.free())
                module.register_full_backward_pre_hook(lambda *_, unit=unit: unit.gather())
        self.stage = stage
        self.optimizer = torch.optim.AdamW(
            [unit.master for unit in self.units], lr=size.learning_rate, weight_decay=0.0, foreach=False
        )

    def logits(self, inputs: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        result: Tensor = self.model(inputs)
        return result

    def update(self) -> None:
        for unit in self.units:
            if self.stage < 2:
                unit.reduce()
            unit.give()
        self.optimizer.step()
        for unit in self.units:
            unit.take()

    def forget(self) -> None:
        for unit in self.units:
            unit.gradient = unit.master.grad = None

    def weights(self) -> Iterator[Tensor]:
        for unit in self.units:
            yield from (unit.row, unit.piece)

    def gradients(self) -> Iterator[Tensor]:
        for unit in self.units:
            yield from (gradient for gradient in (unit.gradient, unit.master.grad) if gradient is not None)

    def means(self) -> Iterator[Tensor]:
        for unit in self.units:
            if unit.master.dtype != unit.piece.dtype:
                yield unit.master
            yield from self.optimizer.state[unit.master].values()

    def flat(self) -> Float[np.ndarray, "P"]:
        for unit in self.units if self.stage == 3 else ():
            unit.gather()
        rows = torch.cat([weight.detach().float().flatten() for weight in self.model.parameters()]).cpu().numpy()
        for unit in self.units if self.stage == 3 else ():
            unit.free()
        return rows
