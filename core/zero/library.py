"""The stages as PyTorch has them: DDP, ZeroRedundancyOptimizer, and FSDP2 in two ways.

| stage | PyTorch | what is not as in the paper |
|---|---|---|
| 0 | `DistributedDataParallel` | |
| 1 | DDP and `ZeroRedundancyOptimizer` | whole tensors are dealt out, so shares differ; gradients go to all, and new weights are broadcast: 3P instead of 2P |
| 2 | `fully_shard(reshard_after_forward=False)` | weights are whole from the forward to the backward pass only, not between steps |
| 3 | `fully_shard(reshard_after_forward=True)` | tensors are cut by rows, so the last rank may have fewer |
"""  # noqa: E501 (a table)

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from core.foundations.ranks import device
from core.zero.order import InOrder, ddp_in_order
from core.zero.training import Size, Trainee


class Library(Trainee):
    """One rank of stage 0, 1, 2 or 3. With `in_order`, gradients are added in the order of the ranks."""

    def __init__(
        self, size: Size, stage: int, rank: int, ranks: int, *, in_order: bool = False, replicas: int = 1
    ) -> None:
        super().__init__(size, rank, ranks)
        self.stage, settings = stage, {"lr": size.learning_rate, "weight_decay": 0.0, "foreach": False}
        self.called: nn.Module = self.replicated(in_order) if stage < 2 else self.sharded(in_order, replicas)
        if stage == 1:
            from torch.distributed.optim import ZeroRedundancyOptimizer

            self.zero = ZeroRedundancyOptimizer(self.model.parameters(), torch.optim.AdamW, **settings)  # type: ignore[arg-type]
            self.optimizer: torch.optim.Optimizer = self.zero
        else:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), **settings)  # type: ignore[arg-type]
        self.named = dict(self.model.named_parameters())  # FSDP2 has DTensors here while a unit is sharded

    def replicated(self, in_order: bool) -> nn.Module:
        """Stages 0 and 1: whole weights everywhere. As views of DDP's buckets, gradients are there once and not
        twice.
        """
        wrapped = nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        if in_order:
            wrapped.register_comm_hook(None, ddp_in_order)  # type: ignore[arg-type]
        return wrapped

    def sharded(self, in_order: bool, replicas: int) -> nn.Module:
        """Stages 2 and 3. With `replicas`, every slice is on as many ranks (hybrid sharding)."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        kind = device(self.rank).type
        mesh = (
            init_device_mesh(kind, (self.ranks,))
            if replicas == 1
            else init_device_mesh(kind, (replicas, self.ranks // replicas), mesh_dim_names=("r", "s"))
        )
        for module in (*self.model.blocks, self.model):
            fully_shard(module, mesh=mesh, reshard_after_forward=self.stage == 3)
            if in_order:
                assert isinstance(module, FSDPModule)
                module.set_custom_reduce_scatter(InOrder())
        return self.model

    def logits(self, inputs: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        result: Tensor = self.called(inputs)
        return result

    def update(self) -> None:
        self.optimizer.step()

    def forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=self.stage > 1)

    def weights(self) -> Iterator[Tensor]:
        """Own slices, and what is gathered now: FSDP2 puts whole tensors in the place of slices while a unit is
        gathered.
        """
        for weight in (*self.named.values(), *self.model.parameters()):
            yield local(weight)

    def gradients(self) -> Iterator[Tensor]:
        for weight in (*self.named.values(), *self.model.parameters()):
            if weight.grad is not None:
                yield local(weight.grad)

    def states(self) -> dict[Tensor, dict[str, Any]]:
        """AdamW's own memory on this rank, by weight."""
        return dict(self.zero.optim.state if self.stage == 1 else self.optimizer.state)

    def means(self) -> Iterator[Tensor]:
        for state in self.states().values():
            yield from (local(value) for value in state.values())

    def flat(self) -> Float[np.ndarray, "P"]:
        return torch.cat([whole(weight).detach().flatten() for weight in self.named.values()]).cpu().numpy()


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
