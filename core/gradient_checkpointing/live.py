"""Bytes of live tensors after every operation, layer by layer: what is kept, what is computed again, what only passes
through.

`LiveStorages` sees each storage when it is born and when it is freed; the layer that runs owns what is born.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from core.foundations.live_storages import LiveStorages, tallest


class Live(LiveStorages):
    """`with live:` around units of work, then `take`.

    Owners: n layers, what follows them, the n layers computed again, passing.
    """

    def __init__(self, n_layer: int, device: str) -> None:
        super().__init__()
        self.n_layer, self.device, self.passing = n_layer, device, 2 * n_layer + 1
        self.owner, self.again = self.passing, False
        self.known: dict[int, tuple[int, int]] = {}  # address of a live storage -> owner, bytes
        self.events: list[tuple[int, int, int]] = []  # (operation, owner, bytes more or less) since the last `take`
        self.now = np.zeros(self.passing + 1)

    def born(self, address: int, tensor: Tensor, nbytes: int) -> None:
        self.known[address] = self.owner, nbytes if tensor.device.type == self.device else 0
        self.events.append((self.operations, *self.known[address]))

    def gone(self, address: int) -> None:
        owner, nbytes = self.known.pop(address)
        self.events.append((self.operations, owner, -nbytes))

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """What is there before and after the step: weights, their gradients, constants, the text. Nor do their views
        count.
        """
        for tensor in tensors:
            if tensor.untyped_storage()._cdata not in self.alive:
                self.known[self.see(tensor)] = self.passing, 0
                self.events.pop()

    def owned(self, owner: int, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same work, and what is born in it is that layer's; `again`: it is the second time."""

        def call(*given: Any) -> Tensor:
            was = self.owner
            self.owner = self.n_layer + 1 + owner if self.again else owner
            try:
                return work(*given)
            finally:  # also when a checkpoint stops early
                self.owner = was

        return call

    def take(self, most: int) -> tuple[Int[np.ndarray, "M"], Float[np.ndarray, "M owners"]]:
        """Up to `most` moments since the last call, the largest of each stretch and the last: their operations, bytes
        by owner.
        """
        changes = np.zeros((len(self.events) + 1, len(self.now)))
        at = np.full(len(changes), self.operations)
        for row, (operation, owner, nbytes) in enumerate(self.events, start=1):
            changes[row, owner], at[row] = nbytes, operation
        at[0] = at[1] if len(at) > 1 else self.operations
        self.events = []
        history = self.now + changes.cumsum(0)
        self.now = history[-1]
        totals = history.sum(1)
        rows = tallest(totals, most)
        return at[rows], history[rows]


class Flops(TorchDispatchMode):
    """`with flops:` counts the FLOPs of all matmuls, and of those with weights, which are not batched."""

    def __init__(self) -> None:
        super().__init__()
        self.every = self.weights = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (cost := flop_registry.get(func._overloadpacket)) is not None:
            flops = cost(*args, **(kwargs or {}), out_val=result)
            self.every += flops
            self.weights += 0 if "bmm" in str(func) else flops
        return result
