r"""The trick itself: a layer that keeps its input and computes itself again when the backward pass needs the rest.

    y = recompute(layer, x)      instead of      y = layer(x)

In the forward pass the layer runs without autograd, so nothing inside it is kept. In the backward pass it runs a second
time, with autograd, from the saved input; then its own backward pass follows. Dropout must draw the same zeros both
times: so the state of the random generator is kept as well (5 kB on a CPU), and forgetting it gives other gradients,
without any error.

`torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)` gives the same gradients, bit for bit (tested). It is
made of hooks on saved tensors instead, which also lets it stop the second forward pass as soon as the last kept tensor
is there again.
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.gradient_checkpointing.block import global_state, set_global_state


class Recompute(torch.autograd.Function):
    """A checkpoint in ten lines. The weights are arguments only so that autograd asks for their gradients."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Module, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.layer, ctx.rng = layer, global_state(x.device.type)
        ctx.save_for_backward(x)
        return layer(x)  # inside a Function autograd is off

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, now = ctx.saved_tensors[0].detach().requires_grad_(), global_state(grad.device.type)
        set_global_state(ctx.rng, grad.device.type)
        with torch.enable_grad():
            y = ctx.layer(x)
        set_global_state(now, grad.device.type)
        return None, *torch.autograd.grad(y, (x, *ctx.layer.parameters()), grad)


def recompute(layer: nn.Module, x: Tensor) -> Tensor:
    return Recompute.apply(layer, x, *layer.parameters())
