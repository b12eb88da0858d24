"""What autograd keeps of a layer for the backward pass, in bytes, by the part that keeps it.

Each storage counts once, weights do not.
"""

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from core.megatron.layer import Layer, SplitLayer

NORMS, ENTERED, INSIDE = "LayerNorm and dropout", "inputs of the split parts", "inside the split parts"


class Kept:
    """Watches the forward pass of one layer, whole or split."""

    def __init__(self, layer: Layer | SplitLayer) -> None:
        self.layer, self.part = layer, NORMS
        self.entered: set[int] = set()  # addresses of the inputs of the split parts
        self.seen = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
        self.nbytes = dict.fromkeys((NORMS, ENTERED, INSIDE), 0)
        self.alive: list[Tensor] = []  # so that no address is used twice while we count

    def watch(self) -> Iterator[RemovableHandle]:
        """Hooks that say which part of the layer runs, and what comes into its first matrix."""
        for part in (self.layer.attention, self.layer.mlp):
            yield part.register_forward_pre_hook(lambda *_: setattr(self, "part", INSIDE))
            yield part.register_forward_hook(lambda *_: setattr(self, "part", NORMS))
        for first in (self.layer.attention.q, self.layer.mlp.up):
            yield first.register_forward_pre_hook(
                lambda _, inputs: self.entered.add(inputs[0].untyped_storage().data_ptr())
            )

    def pack(self, tensor: Tensor) -> Tensor:
        """Called by autograd with everything that it keeps."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.alive.append(tensor)
            self.nbytes[ENTERED if storage.data_ptr() in self.entered else self.part] += storage.nbytes()
        return tensor


def kept_bytes(layer: Layer | SplitLayer, x: Tensor) -> dict[str, int]:
    """By part of the layer."""
    kept = Kept(layer)
    handles = list(kept.watch())
    with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        layer(x.detach().requires_grad_())
    for handle in handles:
        handle.remove()
    return kept.nbytes
