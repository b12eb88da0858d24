"""The network of the toy: 16 inputs, twice 32 ReLUs, one answer. The layer in the middle is the one that is adapted."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

INPUTS, HIDDEN, RADIUS = 16, 32, 4.0


@dataclass(frozen=True)
class Network:
    """Plain tensors; a leading axis on all of them makes several networks at once."""

    w1: Float[Tensor, "*S H D"]
    b1: Float[Tensor, "*S H"]
    w2: Float[Tensor, "*S H H"]
    b2: Float[Tensor, "*S H"]
    w3: Float[Tensor, "*S H"]

    def hidden(self, x: Float[Tensor, "*S N D"]) -> Float[Tensor, "*S N H"]:
        return F.relu(x @ self.w1.mT + self.b1[..., None, :])

    def answer(
        self, hidden: Float[Tensor, "*S N H"], w2: Float[Tensor, "*M H H"], b2: Float[Tensor, "*M H"]
    ) -> Float[Tensor, "*M N"]:
        """The answer with another middle layer, or with many of them at once; above 0 means yes."""
        return (F.relu(hidden @ w2.mT + b2[..., None, :]) @ self.w3[..., None])[..., 0]

    def __call__(self, x: Float[Tensor, "*S N D"]) -> Float[Tensor, "*S N"]:
        return self.answer(self.hidden(x), self.w2, self.b2)


def on_sphere(number: int, rng: torch.Generator, *shape: int) -> Float[Tensor, "*S N D"]:
    """Inputs spread evenly over a sphere of radius 4."""
    x = torch.randn(*shape, number, INPUTS, generator=rng)
    return RADIUS * x / x.norm(dim=-1, keepdim=True)


def first_task(x: Float[Tensor, "N D"]) -> Bool[Tensor, "N"]:
    """Is the product of the first two inputs positive?"""
    return x[:, 0] * x[:, 1] > 0


@lru_cache(maxsize=16)
def trained_base(seed: int, steps: int = 200, batch: int = 512, learning_rate: float = 0.003) -> Network:
    """A network that has learned the first task; about a quarter of a second. Orthogonal initial weights keep all 16
    inputs visible.
    """
    rng = torch.Generator().manual_seed(seed)
    w1, w2 = (
        math.sqrt(2) * torch.linalg.qr(torch.randn(HIDDEN, columns, generator=rng)).Q for columns in (INPUTS, HIDDEN)
    )
    w3 = torch.nn.functional.normalize(torch.randn(HIDDEN, generator=rng), dim=0)
    parts = [part.requires_grad_() for part in (w1, torch.zeros(HIDDEN), w2, torch.zeros(HIDDEN), w3)]
    net, optimizer = Network(*parts), torch.optim.Adam(parts, learning_rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        x = on_sphere(batch, rng)
        loss = F.binary_cross_entropy_with_logits(net(x), first_task(x).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Network(*(part.detach() for part in parts))
