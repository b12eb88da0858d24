"""Live storages: sees every storage of a tensor when it is born and when it is freed, so that memory can be counted to
the byte.

Not the process's memory, which allocators and libraries blur, but the storages of tensors, each once, however many
views it has. A `TorchDispatchMode` sees the result of every operation of torch, forward and backward; a weak reference
tells when a storage is freed. The same run gives the same count. Left out: what a kernel needs while it runs, and gives
back itself.
"""

import weakref
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """`with live:` around the work. A subclass says what it does with a birth (`born`) and a death (`gone`)."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}  # by address
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return result

    def see(self, tensor: Tensor) -> int:
        """The address of the tensor's storage; one that was not seen before is born now."""
        storage = tensor.untyped_storage()
        address: int = storage._cdata
        if address not in self.alive:
            self.alive[address] = weakref.ref(storage, partial(self.freed, address))
            self.born(address, tensor, storage.nbytes())
        return address

    def freed(self, address: int, _: object) -> None:
        del self.alive[address]
        self.gone(address)

    def born(self, address: int, tensor: Tensor, nbytes: int) -> None:
        raise TypeError("a subclass says what a birth means")

    def gone(self, address: int) -> None:
        raise TypeError("a subclass says what a death means")


def tallest(totals: Float[np.ndarray, "N"], most: int) -> list[int]:
    """Up to `most` of N moments: the largest of each stretch, and the last."""
    stretches = np.array_split(np.arange(len(totals)), min(most - 1, len(totals)))
    return [int(stretch[totals[stretch].argmax()]) for stretch in stretches] + [len(totals) - 1]
