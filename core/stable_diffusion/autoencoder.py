r"""The autoencoder: 32 x 32 x 3 numbers become 8 x 8 x 4, and again a picture.

diffusers' AutoencoderKL. Objects fill a small part of a picture, so errors on them count four times. At the end each
channel of the latents is brought to mean 0 and deviation 1, in which the diffusion expects them; that is folded into
the weights of the last layer before and the first layer after the latents (`standardise`), so that the scaling factor
is 1.

Train and save: python -m core.stable_diffusion.autoencoder --save assets/weights/shapes-stable-diffusion/vae
Left out: the adversarial and the perceptual loss of the real one.
Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.foundations.captioned_shapes import GROUNDS, draw, render
from core.foundations.small_diffusion import agreement, rate_at, roll

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (16, 32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "sample_size": 32,
    "scaling_factor": 1.0,
}


def train(vae: Any, steps: int, batch: int = 12, seed: int = 0, rate: float = 2e-3) -> Iterator[float]:
    """Train in place; the loss of each step."""
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.0)
    grounds = torch.tensor(list(GROUNDS.values())).float()
    for step in range(steps):
        scenes = draw(rng, batch, two=0.3, grey=0.1)
        pictures = render(scenes)
        front = (pictures - grounds[torch.from_numpy(scenes.ground)].view(-1, 1, 1, 1)).abs().amax(
            1, keepdim=True
        ) > 0.02
        posterior = vae.encode(2 * pictures - 1).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise)
        error = (vae.decode(latents).sample - (2 * pictures - 1)).abs()
        loss = (error * (1 + 3 * front.float())).mean() + 2e-5 * posterior.kl().mean()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


@torch.no_grad()
def standardise(vae: Any, pictures: Tensor) -> None:
    """Latents of mean 0 and deviation 1 per channel, in place; what is decoded stays the same."""
    latents = vae.encode(2 * pictures - 1).latent_dist.mean
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= std.view(1, -1, 1, 1)
    n = len(mean)  # the first n outputs are means, the others logarithms of variances
    before.weight[:n] /= std.view(-1, 1, 1, 1)
    before.bias[:n] = (before.bias[:n] - mean) / std
    before.bias[n:] -= 2 * std.log()


def psnr(a: Float[Tensor, "N 3 H W"], b: Float[Tensor, "N 3 H W"]) -> float:
    """Peak signal-to-noise ratio in dB over all pictures, at most 99: 20 is an error of a tenth of the range, 40 of a
    hundredth.
    """
    return float(-10 * (a - b).square().mean().clamp(min=10**-9.9).log10())


@torch.no_grad()
def quality(vae: Any, n: int = 500) -> dict[str, float]:
    """PSNR in dB, and the fraction of unseen pictures whose color and shape survive the round trip for the judge."""
    scenes = draw(np.random.default_rng(99), n, held_out=None)
    pictures = render(scenes)
    again = (vae.decode(vae.encode(2 * pictures - 1).latent_dist.mean).sample / 2 + 0.5).clamp(0, 1)
    return {"psnr": psnr(again, pictures), "kept": agreement(again, scenes)}


if __name__ == "__main__":
    from diffusers import AutoencoderKL

    parser = argparse.ArgumentParser(description="Train the autoencoder.")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    vae: Any = AutoencoderKL(**CONFIG)
    roll(vae, torch.Generator().manual_seed(0))
    for number, loss in enumerate(train(vae, told.steps), 1):
        if number % 500 == 0:
            print(number, round(loss, 4), quality(vae), flush=True)
    standardise(vae, render(draw(np.random.default_rng(5), 1000, two=0.3)))
    print(quality(vae))
    if told.save:
        vae.half().save_pretrained(told.save)
