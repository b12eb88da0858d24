r"""The judge: a classifier of colour and shape that was trained apart from every model it grades.

A generated picture is right if the judge sees in it the colour and the shape that were asked for. It is a small
convolutional network with a global maximum at the end: it asks whether a feature is anywhere in the picture, not where.
It has seen all pairs of colour and shape, the held-out ones too, so it is no less sure of those.

Train and save: python -m core.foundations.judge --save assets/weights/shapes-judge
Left out: two objects (it names the more conspicuous one), size, place and ground.
Source: a plain convolutional network.
"""

import argparse
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.foundations.captioned_shapes import COLOURS, SHAPES, TINTS, Scenes, draw, render
from core.foundations.weights import SHIPPED

WIDTHS = (24, 48, 96)


class Judge(nn.Module):
    """Pictures from 0 to 1, 32 x 32 or 16 x 16 -> logits of colour (the last one: grey) and of shape."""

    def __init__(self, rng: torch.Generator | None = None) -> None:
        """The weights are drawn from the random generator."""
        super().__init__()
        layers, before = list[nn.Module](), 3
        for number, width in enumerate(WIDTHS):
            layers += [nn.Conv2d(before, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 2 if number < 2 else 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.colour, self.shape = nn.Linear(before, len(TINTS)), nn.Linear(before, len(SHAPES))
        self.roll(rng or torch.Generator().manual_seed(0))

    @torch.no_grad()
    def roll(self, rng: torch.Generator) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                reach = weight[0].numel() ** -0.5
                weight.uniform_(-reach, reach, generator=rng)
            elif name.endswith("bias"):
                weight.zero_()

    def forward(self, pictures: Float[Tensor, "N 3 H W"]) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N S"]]:
        if pictures.shape[-1] == 16:
            pictures = F.interpolate(pictures, scale_factor=2, mode="bilinear")
        features = self.features(2 * pictures - 1).amax((2, 3))
        return self.colour(features), self.shape(features)

    @torch.no_grad()
    def verdict(self, pictures: Float[Tensor, "N 3 H W"]) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
        """Colour and shape of each picture, as indices."""
        colour, shape = self(pictures)
        return colour.argmax(1).numpy(), shape.argmax(1).numpy()


def loss_of(judge: Judge, scenes: Scenes, pictures: Tensor) -> Tensor:
    colour, shape = judge(pictures)
    return F.cross_entropy(colour, torch.from_numpy(scenes.colour[:, 0])) + F.cross_entropy(
        shape, torch.from_numpy(scenes.shape[:, 0])
    )


def train(steps: int, batch: int = 64, seed: int = 0, rate: float = 3e-3) -> Judge:
    """On pictures with noise and blur, so that a generated one's flaws do not confuse it."""
    judge, rng = Judge(torch.Generator().manual_seed(seed)), np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), rate, weight_decay=0.01)
    for step in range(steps):
        scenes = draw(rng, batch, grey=0.1, held_out=None, side=32 if step % 4 else 16)
        pictures = render(scenes)
        pictures = pictures + 0.1 * torch.rand(batch, 1, 1, 1, generator=noise) * torch.randn(
            pictures.shape, generator=noise
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(judge, scenes, pictures)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(step, round(loss.item(), 4), flush=True)
    return judge.eval()


def accuracy(judge: Judge, n: int = 2000, seed: int = 12345, side: int = 32) -> tuple[float, float, float]:
    """Shares of unseen pictures with the right colour, the right shape, and both."""
    scenes = draw(np.random.default_rng(seed), n, held_out=None, side=side)
    colour, shape = judge.verdict(render(scenes))
    a, b = colour == scenes.colour[:, 0], shape == scenes.shape[:, 0]
    return float(a.mean()), float(b.mean()), float((a & b).mean())


@cache
def shipped_judge() -> Judge:
    """The judge that comes with the app."""
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict(
        {name: weight.float() for name, weight in load_file(SHIPPED / "shapes-judge" / "model.safetensors").items()}
    )
    return judge.eval().requires_grad_(False)


def verdicts(pictures: Float[Tensor, "N 3 H W"]) -> tuple[tuple[str, str], ...]:
    """Colour and shape that the shipped judge sees in each picture; the last colour is grey."""
    colours, shapes = shipped_judge().verdict(pictures)
    return tuple(((*COLOURS, "grey")[colour], SHAPES[shape]) for colour, shape in zip(colours, shapes, strict=True))


def seen(pictures: Float[Tensor, "N 3 H W"]) -> list[str]:
    """The same in words: 'red circle'."""
    return [" ".join(verdict) for verdict in verdicts(pictures)]


if __name__ == "__main__":
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description="Train the judge.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    trained = train(told.steps)
    print("colour, shape, both:", accuracy(trained), "16 x 16:", accuracy(trained, side=16))
    if told.save:
        told.save.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.half() for name, weight in trained.state_dict().items()}, told.save / "model.safetensors"
        )
