"""Sums over ranks in one fixed order: rank 0, then 1, then 2 ... whatever the collective, the bucket or the stage.

(a + b) + c is not a + (b + c) in floating point. gloo's ring adds each part of a row in another order, beginning with
another rank, and where a number stands in its row depends on the stage. With two ranks that does not matter (a + b is b
+ a); with four the last bits differ. Added in the order of the ranks, all stages compute the same bits.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter


def summed_in_order(row: Tensor, own: slice) -> Tensor:
    """The sum over all ranks of the part `own` of their rows.

    It sends more than a ring does: it is for comparing bits.
    """
    everyone = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, row)
    total = everyone[0][own].clone()
    for other in everyone[1:]:
        total += other[own]
    return total


class InOrder(ReduceScatter):
    """For FSDP2's `set_custom_reduce_scatter`."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        piece, rank = len(output_tensor), dist.get_rank(group)
        total = summed_in_order(input_tensor, slice(rank * piece, (rank + 1) * piece))
        output_tensor.copy_(total / dist.get_world_size(group) if op == dist.ReduceOp.AVG else total)


def ddp_in_order(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """For DDP's `register_comm_hook`."""
    row = bucket.buffer()
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(summed_in_order(row / dist.get_world_size(), slice(0, len(row))))
    return done
