"""What autograd keeps, tensor by tensor: who asked for it, its shape, its bytes, and when it is let go.

`torch.autograd.graph.saved_tensors_hooks` calls us for every tensor that an operation puts aside for the backward pass.
Views share a storage, which is counted once; weights, constants and the text itself are there anyway and left out. A
weak reference tells when a storage is freed. Which operation it is for is known from the module that runs at the time.
"""

import weakref
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from core.foundations import activation_bytes as kept_by
from core.gradient_checkpointing.block import Stack

NAMES = {
    "norm_1": kept_by.NORM_1,
    "qkv": kept_by.IN_QKV,
    "scores": kept_by.QKV,
    "softmax": kept_by.SOFTMAX,
    "drop_map": kept_by.MAP_MASK,
    "mix": kept_by.DROPPED,
    "out": kept_by.IN_OUT,
    "drop_1": kept_by.MASK_1,
    "norm_2": kept_by.NORM_2,
    "up": kept_by.IN_UP,
    "gelu": kept_by.IN_GELU,
    "down": kept_by.IN_DOWN,
    "drop_2": kept_by.MASK_2,
    "input": kept_by.INPUT,
    "norm": "last norm",
    "head": "head input",
    "loss": "log-probabilities",
}
STATISTICS = "norm statistics"


@dataclass(frozen=True)
class Saved:
    """A storage that autograd holds."""

    layer: int  # the number of layers stands for what follows the last one
    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


class Ledger:
    """`with ledger:` around the units of a step; `alive` is what is kept now, in order of birth, `forwards` counts
    passes of layers.
    """

    def __init__(self, model: Stack, *others: Tensor) -> None:
        self.model, self.place, self.asked = model, (0, "input"), 0  # asked: tensors put aside in this place so far
        self.left_out = {
            tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *others)
        }
        self.alive: dict[int, Saved] = {}  # by address: of two live storages it is never the same
        self.watching: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.forwards = [0] * len(model.layers)
        self.fullest: tuple[Saved, ...] = ()  # the moment since `open_up` when the most was kept
        self.hooks = [handle for number, layer in enumerate(model.layers) for handle in self.watch(number, layer)]
        for name in ("norm", "head"):
            self.hooks.append(
                getattr(model, name).register_forward_pre_hook(partial(self.enter, len(model.layers), name))
            )
        self.hooks.append(model.head.register_forward_hook(partial(self.enter, len(model.layers), "loss")))
        self.saving: Any = None

    def watch(self, number: int, layer: nn.Module) -> list[Any]:
        """Know which operation of the layer runs; what is put aside after the last one is the input of a checkpoint."""
        handles = [
            part.register_forward_pre_hook(partial(self.enter, number, name)) for name, part in layer.named_children()
        ]
        return [
            *handles,
            layer.register_forward_pre_hook(partial(self.count, number)),
            layer.register_forward_hook(partial(self.enter, number, "input")),
        ]

    def enter(self, number: int, name: str, *_: Any) -> None:
        self.place, self.asked = (number, name), 0

    def count(self, number: int, *_: Any) -> None:
        self.forwards[number] += 1

    def __enter__(self) -> None:
        self.fullest = tuple(self.alive.values())
        self.saving = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.saving.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.saving.__exit__(kind, value, trace)
        self.saving = None  # it refers back to us

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a storage that is new."""
        storage = tensor.untyped_storage()
        address, self.asked = storage.data_ptr(), self.asked + 1
        if address not in self.left_out and address not in self.alive and storage.nbytes():
            layer, op = self.place
            self.alive[address] = Saved(
                layer,
                name_of(op, tensor, self.asked == 1),
                tuple(tensor.shape),
                str(tensor.dtype).removeprefix("torch."),
                storage.nbytes(),
            )
            self.watching[address] = weakref.ref(storage, partial(self.freed, address))
            if self.nbytes > sum(tensor.nbytes for tensor in self.fullest):
                self.fullest = tuple(self.alive.values())
        return tensor.detach()  # the tensor itself may be the operation's own output: a circle that nobody could free

    def freed(self, address: int, _: object) -> None:
        self.alive.pop(address, None)
        self.watching.pop(address, None)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.alive.values())

    def close(self) -> None:
        for handle in self.hooks:
            handle.remove()
        self.alive.clear()
        self.watching.clear()


def name_of(op: str, tensor: Tensor, first: bool) -> str:
    """The operation says most.

    Norms keep two numbers per token besides, the mix first V, fused attention Q, K, V and its output.
    """
    if op.startswith("norm") and tensor.shape[-1] == 1:
        return STATISTICS
    if op == "mix" and first:
        return kept_by.QKV
    if op == "fused":
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        return kept_by.LOG_SUMS if tensor.ndim == 3 else kept_by.IN_OUT if whole else kept_by.QKV
    return NAMES.get(op, op)
