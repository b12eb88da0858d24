"""The same split by torch's own plan: `parallelize_module` replaces weights by DTensors and calls the collectives where
they are needed.
"""

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from core.megatron.layer import Cut, Layer

COLUMNS, ROWS = ("attention.q", "attention.k", "attention.v", "mlp.up"), ("attention.out", "mlp.down")


def plan(sequence: bool) -> dict[str, object]:
    """Without PrepareModuleInput, Q, K and V would each sum the gradient of their common input: three all-reduces
    instead of one.
    """
    before = Shard(0) if sequence else Replicate()
    told: dict[str, object] = {name: ColwiseParallel() for name in COLUMNS}
    told |= {name: RowwiseParallel(output_layouts=before) for name in ROWS}
    told |= {
        name: PrepareModuleInput(input_layouts=before, desired_input_layouts=Replicate())
        for name in ("attention", "mlp")
    }
    return told | (
        {name: SequenceParallel(sequence_dim=0, use_local_output=True) for name in ("norm_1", "norm_2")}
        if sequence
        else {}
    )


def by_torch(layers: nn.Sequential, cut: Cut) -> nn.Sequential:
    """Changes the layers that it is given.

    Each rank gives in and gets out what it gives and gets with our own operators.
    """
    device = next(layers.parameters()).device.type
    mesh = init_device_mesh(device, (cut.wire.ranks,))
    for layer in layers:
        assert isinstance(layer, Layer)
        parallelize_module(layer, mesh, plan(cut.sequence))  # type: ignore[arg-type]
        for drop in (layer.drop_1, layer.drop_2):
            drop.kept = cut.tokens(drop.kept)
    return layers
