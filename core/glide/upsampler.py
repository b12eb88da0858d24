r"""The upsampler: pictures of 16 x 16 become pictures of 32 x 32.

GLIDE and DALL·E 2 paint small pictures and let other networks enlarge them. Theirs are diffusion models, since of a
photograph the fine detail must be invented. A drawing's edges follow from its shades, so a plain network is enough
here: five convolutions say what to add to the picture that is enlarged by interpolation.

Train and save: python -m core.glide.upsampler --save assets/weights/shapes-glide
Left out: diffusion, and reading the caption.
Source: Nichol et al. 2021, arXiv:2112.10741, section 4; Shi et al. 2016, arXiv:1609.05158 (the last layer).
"""

import argparse
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.foundations.captioned_shapes import draw, render
from core.foundations.weights import SHIPPED

WIDTH = 48
FILE = SHIPPED / "shapes-glide" / "upsampler.safetensors"


class Upsampler(nn.Module):
    """Pictures from 0 to 1, twice as wide and high."""

    def __init__(self, rng: torch.Generator | None = None) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, WIDTH, 3, 1, 1), nn.SiLU()]
        for _ in range(3):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(WIDTH, 12, 3, 1, 1), nn.PixelShuffle(2))
        rng = rng or torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() > 1:
                    weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=rng)
                elif name.endswith("bias"):
                    weight.zero_()

    def forward(self, pictures: Float[Tensor, "N 3 16 16"]) -> Float[Tensor, "N 3 32 32"]:
        enlarged = F.interpolate(pictures, scale_factor=2, mode="bilinear")
        return (enlarged + 0.1 * self.body(2 * pictures - 1)).clamp(0, 1)


def shrunk(pictures: Float[Tensor, "N C 32 32"]) -> Float[Tensor, "N C 16 16"]:
    """Each pixel the mean of four."""
    return F.avg_pool2d(pictures, 2)


def train(steps: int, batch: int = 24, seed: int = 0, rate: float = 2e-3) -> Upsampler:
    """On shrunk drawings with a little noise, as painted ones have."""
    model, rng, noise = (
        Upsampler(torch.Generator().manual_seed(seed)),
        np.random.default_rng(seed),
        torch.Generator().manual_seed(seed),
    )
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    for step in range(steps):
        pictures = render(draw(rng, batch, two=0.15, grey=0.1))
        small = shrunk(pictures)
        small = small + 0.03 * torch.rand(batch, 1, 1, 1, generator=noise) * torch.randn(small.shape, generator=noise)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = (model(small) - pictures).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 500 == 0:
            print(step, round(loss.item(), 5), flush=True)
    return model.eval()


@torch.no_grad()
def quality(model: nn.Module, n: int = 500) -> tuple[float, float]:
    """PSNR in dB of unseen drawings that were shrunk and enlarged again: by the network, and by interpolation."""
    pictures = render(draw(np.random.default_rng(99), n, held_out=None))
    plain = F.interpolate(shrunk(pictures), scale_factor=2, mode="bilinear")
    first, second = (-10 * math.log10(F.mse_loss(again, pictures).item()) for again in (model(shrunk(pictures)), plain))
    return first, second


@cache
def shipped_upsampler() -> Upsampler:
    """The upsampler that comes with the app."""
    from safetensors.torch import load_file

    model = Upsampler()
    model.load_state_dict({name: weight.float() for name, weight in load_file(FILE).items()})
    return model.eval().requires_grad_(False)


if __name__ == "__main__":
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description="Train the upsampler.")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    trained = train(told.steps)
    print("PSNR in dB, by the network and by interpolation:", quality(trained))
    if told.save:
        told.save.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.half() for name, weight in trained.state_dict().items()}, told.save / FILE.name)
