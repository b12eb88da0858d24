r"""Weighing: which bytes are alive, of which kind, at every moment of a program.

A tensor's numbers lie in a *storage*; views and transposes of it share that one storage. `LiveBytes` sees each storage
when it is born and when it is freed (`LiveStorages`). So it knows the bytes that are alive after each operation, on a
CPU as on a GPU, to the byte, and the same program gives the same bytes every time. What a storage *is* gets said by its
owner: the model's weights, the constants of their quantization, the adapters, their gradients, the optimizer's state.
What a forward pass leaves behind without any other owner is what autograd keeps for the backward pass. All the rest is
short-lived.

Why not the operating system's number: it holds the interpreter, the libraries and freed memory that was not given
back. Why not `saved_tensors_hooks`: a layer may keep tensors without telling autograd (bitsandbytes' int8 layer does).
torch's own `MemTracker` counts storages in the same way and agrees; it does not know adapters from weights.

Left out: what an operation allocates and frees inside itself (a matrix product's workspace, the pieces of
quantizing), which only an allocator sees; on a GPU its own record stands beside this count.
Source: torch.utils._python_dispatch, torch.distributed._tools.mem_tracker.
"""

from collections.abc import Iterable
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.live_storages import LiveStorages, tallest

KINDS = {
    "weights": "weights",
    "constants": "quantization constants",
    "adapters": "adapters (LoRA)",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations, kept for backward",
    "passing": "short-lived",
}
PLACES = {kind: place for place, kind in enumerate(KINDS)}
PASSING = PLACES["passing"]


class LiveBytes(LiveStorages):
    """Bytes of live storages by kind.

    Use it as `with live: ...` around each unit of work, then `take` what happened.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.numbers: dict[int, int] = {}  # address of a live storage -> its number, in order of birth
        self.sizes: list[int] = []  # by number
        self.kinds: list[int] = []  # by number, as places in KINDS
        self.events: list[tuple[int, int]] = []  # (number, +1 born or -1 freed) since the last `take`
        self.told = 0  # storages with a lower number were born before the last `take`
        self.now = np.zeros(len(KINDS))
        self.peak = np.zeros(len(KINDS))  # the kinds at the moment when all together were the most
        self.most = np.zeros(len(KINDS))  # the most of each kind, each at its own moment

    def born(self, address: int, tensor: Tensor, nbytes: int) -> None:
        self.numbers[address] = len(self.sizes)
        self.events.append((len(self.sizes), 1))
        self.sizes.append(nbytes if tensor.device.type == self.device else 0)
        self.kinds.append(PASSING)

    def gone(self, address: int) -> None:
        self.events.append((self.numbers.pop(address), -1))

    def claim(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """Say what these tensors are, from their birth on if the next `take` tells of it, else from now on."""
        for tensor in tensors:
            number = self.numbers[self.see(tensor)]
            if number < self.told:
                self.now[self.kinds[number]] -= self.sizes[number]
                self.now[PLACES[kind]] += self.sizes[number]
            self.kinds[number] = PLACES[kind]

    def leave_out(self, *tensors: Tensor) -> None:
        """Tensors of somebody else's, such as the training text: never counted, nor their views."""
        for tensor in tensors:
            if tensor.untyped_storage()._cdata not in self.alive:
                self.sizes[self.numbers[self.see(tensor)]] = 0

    def claim_rest(self, kind: str) -> None:
        """Everything that was born since the last `take`, lives, and belongs to nobody else."""
        for number in list(self.numbers.values()):
            if number >= self.told and self.kinds[number] == PASSING:
                self.kinds[number] = PLACES[kind]

    def take(self, most: int) -> Float[np.ndarray, "moments kinds"]:
        """Bytes of each kind at up to `most` moments since the last call: the largest of each stretch, and the last."""
        changes = np.zeros((len(self.events) + 1, len(KINDS)))
        for row, (number, change) in enumerate(self.events, start=1):
            changes[row, self.kinds[number]] = change * self.sizes[number]
        self.events, self.told = [], len(self.sizes)
        history = self.now + changes.cumsum(0)
        self.now = history[-1]
        totals = history.sum(1)
        if totals.max() > self.peak.sum():
            self.peak = history[totals.argmax()]
        self.most = np.maximum(self.most, history.max(0))
        return history[tallest(totals, most)]


class AllocatorRecord:
    """What CUDA's allocator says of the same units of work: whole blocks, and what operations take inside themselves.

    Other runs' tensors lie in the same memory, so only the changes within our own units are added up.
    """

    def __init__(self) -> None:
        self.now = self.peak = self.before = 0

    def __enter__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize()
        self.peak = max(self.peak, self.now + torch.cuda.max_memory_allocated() - self.before)
        self.now += torch.cuda.memory_allocated() - self.before
