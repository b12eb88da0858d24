"""One training step in small units: a segment of layers forward or backward at a time.

Between two segments the graph is cut: the next one starts from a detached tensor, which shares the numbers, and its
gradient is handed over by hand. The gradients are those of one `loss.backward()`, bit for bit (tested), and other runs
get their turn between.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from core.gradient_checkpointing.block import Stack

Segment = Sequence[int]  # numbers of layers
Through = Callable[[Segment, Tensor], Tensor]  # a segment's forward pass, checkpointed or not
Unit = tuple[str, int, Callable[[], None]]  # what it is, the number of its segment, and the work


class Walk:
    """`for phase, segment, work in walk.units(): work()` is one step; `loss` and the weights' `grad` are its result."""

    def __init__(
        self,
        model: Stack,
        batch: tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]],
        segments: Sequence[Segment],
        through: Through,
    ) -> None:
        self.model, self.segments, self.through = model, segments, through
        self.ids, self.targets = batch
        self.cuts: list[
            tuple[Tensor, GradientEdge]
        ] = []  # of each segment that is open: what came in, and where its graph ends
        self.passed: Tensor | None = None  # what the last segment gave, cut from its graph
        self.grad: Tensor | None = None  # of what the last open segment gave
        self.loss = float("nan")

    def units(self) -> Iterator[Unit]:
        """The start, the segments, the loss, and all of it backwards."""
        last = len(self.segments)
        yield "forward", -1, self.begin
        for number in range(last):
            yield "forward", number, partial(self.forward, number)
        yield "loss", last, self.end
        yield "backward", last, self.backward
        for number in reversed(range(-1, last)):
            yield "backward", number, self.backward

    def ended(self, x: Tensor, y: Tensor) -> None:
        """Of what a segment gives, only the place in the graph is kept; the numbers belong to the next one."""
        self.cuts.append((x, get_gradient_edge(y)))
        self.passed = y.detach()

    def handed_on(self) -> Tensor:
        assert self.passed is not None
        x, self.passed = self.passed.requires_grad_(), None
        return x

    def begin(self) -> None:
        self.ended(self.ids, self.model.begin(self.ids))

    def forward(self, number: int) -> None:
        x = self.handed_on()
        self.ended(x, self.through(self.segments[number], x))

    def end(self) -> None:
        x = self.handed_on()
        loss = self.model.end(x, self.targets)
        self.ended(x, loss)
        self.loss, self.grad, self.passed = float(loss.detach()), torch.ones_like(loss), None

    def backward(self) -> None:
        """The last open segment: gradients of its weights, and of what came in for the one before."""
        x, edge = self.cuts.pop()
        torch.autograd.backward(edge, self.grad)
        self.grad = x.grad

    def close(self) -> None:
        """Let go of what a step that was stopped still holds."""
        self.cuts.clear()
        self.grad = self.passed = None
        del self.through  # it may refer back to the owner of this walk
