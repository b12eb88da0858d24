"""Bytes of live tensors after every operation, layer by layer: what is kept, what is computed again, what only passes through.

A `TorchDispatchMode` sees every operation of torch, forward and backward. A storage that it has not seen is born, a weak
reference tells when it is freed; the layer that runs owns what is born. The count is the same on every run, to the byte.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Live(TorchDispatchMode):
    """`with live:` around units of work, then `take`. Owners: n layers, what follows them, the n layers computed again, passing."""

    def __init__(self, n_layer: int, device: str) -> None:
        super().__init__()
        self.n_layer, self.device, self.passing = n_layer, device, 2 * n_layer + 1
        self.owner, self.again, self.operations = self.passing, False, 0
        self.watching: dict[int, tuple[int, int, Any]] = {}  # address of a live storage -> owner, bytes, weak reference
        self.events: list[tuple[int, int, int]] = []  # (operation, owner, bytes more or less) since the last `take`
        self.now = np.zeros(self.passing + 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == self.device:
                self.see(leaf, self.owner, leaf.untyped_storage().nbytes())
        return result

    def see(self, tensor: Tensor, owner: int, nbytes: int) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self.watching:
            self.watching[address] = (owner, nbytes, weakref.ref(storage, partial(self.freed, address)))
            self.events.append((self.operations, owner, nbytes))

    def freed(self, address: int, _: object) -> None:
        owner, nbytes, _ = self.watching.pop(address)
        self.events.append((self.operations, owner, -nbytes))

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """What is there before and after the step: weights, their gradients, constants, the text. Nor do their views count."""
        for tensor in tensors:
            self.see(tensor, self.passing, 0)

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
        """Up to `most` moments since the last call, the largest of each stretch and the last: their operations, bytes by owner."""
        changes = np.zeros((len(self.events) + 1, len(self.now)))
        at = np.full(len(changes), self.operations)
        for row, (operation, owner, nbytes) in enumerate(self.events, start=1):
            changes[row, owner], at[row] = nbytes, operation
        at[0] = at[1] if len(at) > 1 else self.operations
        self.events = []
        history = self.now + changes.cumsum(0)
        self.now = history[-1]
        totals = history.sum(1)
        stretches = np.array_split(np.arange(len(history)), min(most - 1, len(history)))
        rows = [int(stretch[totals[stretch].argmax()]) for stretch in stretches] + [len(history) - 1]
        return at[rows], history[rows]


class Flops(TorchDispatchMode):
    """`with flops:` counts the FLOPs of all products, and of those with weights, which are not batched."""

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
