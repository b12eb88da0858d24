"""Which numbers of each tensor a rank holds, and putting a given state into a run of ranks."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from core.zero.library import Library, local
from core.zero.state import Piece, Row, State, parts_of
from core.zero.training import Trainee
from core.zero.written import Written


def pieces(run: Trainee) -> Iterator[Piece]:
    """All that this rank holds between two steps."""
    if isinstance(run, Library):
        states = run.states()
        for name, weight in run.named.items():
            start, size = first_number(weight), local(weight).numel()
            yield Piece(name, False, start, start + size, row_of(local(weight))[None])
            if weight in states:
                means = np.stack([row_of(local(states[weight][mean])) for mean in ("exp_avg", "exp_avg_sq")])
                yield Piece(name, True, start, start + size, means)
    elif isinstance(run, Written):
        names = {weight: name for name, weight in run.model.named_parameters()}
        for unit in run.units:
            state = run.optimizer.state[unit.master]
            means = np.stack([row_of(state[mean]) for mean in ("exp_avg", "exp_avg_sq")])
            for weight, place in zip(unit.tensors, unit.places, strict=True):
                low, high = max(place.start, unit.own.start), min(place.stop, unit.own.stop)
                if run.stage < 3:
                    yield Piece(names[weight], False, 0, weight.numel(), row_of(weight)[None])
                if low < high:
                    own = slice(low - unit.own.start, high - unit.own.start)
                    yield Piece(names[weight], True, low - place.start, high - place.start, means[:, own])


def first_number(weight: Tensor) -> int:
    """Where a rank's slice begins in its tensor: what a tensor that counts its own numbers says when it is cut in the
    same way.
    """
    if not isinstance(weight, DTensor):
        return 0
    counted = cut_alike(weight, torch.arange(weight.numel(), device=weight.device).view(weight.shape))
    return int(local(counted).flatten()[0]) if local(counted).numel() else 0


def cut_alike(weight: DTensor, values: Tensor) -> DTensor:
    return distribute_tensor(values, weight.device_mesh, weight.placements, src_data_rank=None)


def row_of(values: Tensor) -> Row:
    return values.detach().flatten().cpu().numpy().copy()


@torch.no_grad()
def put(run: Trainee, state: State) -> None:
    """Give the run that state, each rank its own part of it."""
    tensors = iter(parts_of(run.size, state))
    if isinstance(run, Library):
        own = (
            {weight for group in run.zero.optim.param_groups for weight in group["params"]}
            if run.stage == 1
            else set(run.named.values())
        )
        optimizer = run.zero.optim if run.stage == 1 else run.optimizer
        for weight, (_, values, means) in zip(run.named.values(), tensors, strict=True):
            here = [part.to(weight.device, copy=True) for part in (values, *means)]
            first, second, third = (cut_alike(weight, part) if isinstance(weight, DTensor) else part for part in here)
            local(weight).copy_(local(first))
            if weight in own:
                optimizer.state[weight] = {
                    "step": torch.tensor(float(state.count)),
                    "exp_avg": second,
                    "exp_avg_sq": third,
                }
    elif isinstance(run, Written):
        told = {name: (values, means) for name, values, means in tensors}
        names = {weight: name for name, weight in run.model.named_parameters()}
        for unit in run.units:
            rows = [torch.zeros(len(unit.row), device=unit.row.device) for _ in range(3)]
            for weight, place in zip(unit.tensors, unit.places, strict=True):
                values, means = told[names[weight]]
                for row, part in zip(rows, (values, *means), strict=True):
                    row[place] = part.flatten()
            unit.row.copy_(rows[0])
            run.optimizer.state[unit.master] = {
                "step": torch.tensor(float(state.count)),
                "exp_avg": rows[1][unit.own].clone(),
                "exp_avg_sq": rows[2][unit.own].clone(),
            }
