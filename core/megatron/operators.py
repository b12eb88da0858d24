r"""f and g: the two operators with which Megatron splits a layer, and a count of what they send.

A matrix $A$ cut into columns, $A = [A_1, A_2]$, gives columns of the product, $XA = [XA_1, XA_2]$: each rank needs the
whole $X$ and has a part of the result. Cut into rows, it gives partial sums, $YB = Y_1 B_1 + Y_2 B_2$: each rank needs
its columns of $Y$, and the sum over the ranks is the result. Columns first, rows second, and nothing has to be sent in
between.

What goes forward comes back as a gradient. $X$ goes to all ranks, so its gradient is the sum of what comes back from
all of them:

$$f: \text{ forward } X, \text{ backward all-reduce}; \qquad g: \text{ forward all-reduce, backward the gradient as it
is}.$$

With sequence parallelism each rank keeps its own tokens of $X$ outside of the split part: $f$ becomes all-gather
forward and reduce-scatter backward, $g$ becomes reduce-scatter forward and all-gather backward. An all-reduce in a ring
*is* a reduce-scatter and an all-gather, so as many numbers are sent: $2n(t-1)/t$ by each of $t$ ranks for the
all-reduce of $n$ numbers, half of that by each half.

Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3; Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2 (its
g is `gather`).
"""

import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER = "all-reduce", "all-gather", "reduce-scatter"
FORWARD, BACKWARD = "forward", "backward"
SPLIT, WHOLE = "between f and g", "outside"  # the part of a layer that is split, and the part that every rank computes


def all_reduce(x: Tensor, ranks: int) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total


def all_gather(x: Float[Tensor, "T B C"], ranks: int) -> Float[Tensor, "S B C"]:
    """The tokens of all ranks, one rank after the other."""
    whole = x.new_empty((ranks * len(x), *x.shape[1:]))
    dist.all_gather_into_tensor(whole, x.contiguous())
    return whole


def reduce_scatter(x: Float[Tensor, "S B C"], ranks: int) -> Float[Tensor, "T B C"]:
    """The sum over the ranks, of this rank's tokens."""
    part = x.new_empty((len(x) // ranks, *x.shape[1:]))
    dist.reduce_scatter_tensor(part, x.contiguous())
    return part


COLLECTIVES: dict[str, Callable[[Tensor, int], Tensor]] = {
    ALL_REDUCE: all_reduce,
    ALL_GATHER: all_gather,
    REDUCE_SCATTER: reduce_scatter,
}


def ring(kind: str, ranks: int) -> float:
    """Numbers that each rank sends, per number of the whole tensor."""
    return (2 if kind == ALL_REDUCE else 1) * (ranks - 1) / ranks


class Wire:
    """What f and g speak through. It counts; a subclass may also take the time."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.calls: Counter[str] = Counter()  # "all-reduce, forward"
        self.sent = 0.0  # numbers, by the ring's formula

    def collective(self, kind: str, x: Tensor, direction: str, then: str) -> Tensor:
        """Send, and count it. `then` is the part of the layer that goes on. One rank alone has nobody to speak to."""
        if self.ranks == 1:
            return self.crossed(x, then)
        self.calls[f"{kind}, {direction}"] += 1
        self.sent += ring(kind, self.ranks) * x.numel() * (self.ranks if kind == ALL_GATHER else 1)
        return COLLECTIVES[kind](x, self.ranks)

    def crossed(self, x: Tensor, then: str) -> Tensor:
        """The computation passes a border of the split part, and nothing is sent."""
        return x.view_as(x)


class f(Function):
    """Copy in the forward pass, all-reduce in the backward pass: stands before the matrix that is cut into columns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return wire.crossed(x, SPLIT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.collective(ALL_REDUCE, gradient, BACKWARD, WHOLE), None


class g(Function):
    """All-reduce in the forward pass, copy in the backward pass: stands after the matrix that is cut into rows."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return wire.collective(ALL_REDUCE, partial, FORWARD, WHOLE)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.crossed(gradient, SPLIT), None


class gather(Function):
    """All-gather forward, reduce-scatter backward: in the place of f, where each rank has its own tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return wire.collective(ALL_GATHER, x, FORWARD, SPLIT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.collective(REDUCE_SCATTER, gradient, BACKWARD, WHOLE), None


class scatter(Function):
    """Reduce-scatter forward, all-gather backward: in the place of g, where each rank has its own tokens."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return wire.collective(REDUCE_SCATTER, partial, FORWARD, WHOLE)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.collective(ALL_GATHER, gradient, BACKWARD, SPLIT), None


def socket_bytes() -> int | None:
    """Bytes that this process has really sent through its TCP connections so far (Linux tells; gloo uses TCP). None:
    nobody knows.
    """
    descriptors, total = Path("/proc/self/fd"), 0
    if not descriptors.exists():
        return None
    for descriptor in list(descriptors.iterdir()):
        with suppress(OSError), closing(socket.socket(fileno=os.dup(int(descriptor.name)))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                if len(told) < 208:  # a kernel before 4.19
                    return None
                total += struct.unpack_from("Q", told, 200)[0]  # tcpi_bytes_sent
    return total
