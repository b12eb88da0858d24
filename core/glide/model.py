r"""The small GLIDE: a U-Net (`unet.py`) on 16 x 16 pixels that reads the words through a small transformer of its own,
and an upsampler.

A network of this size learns shapes in pixels only where they are large: it is trained on 16 x 16 pixels with one
object of 4.5 to 6 pixels. Trials with the smaller objects of the other denoisers learned colors, and hardly a shape in
the same time.

Half of the noise levels teach little: almost none, where all is to be seen, and almost nothing but noise, where only
the mean is to be learned. So levels in the middle are trained more often (`mostly_middle`).

Train and save: python -m core.glide.model --save assets/weights/shapes-glide
Left out: small and several objects; an upsampler that is itself a diffusion (theirs goes from 64 to 256 pixels).
Source: Nichol et al. 2021, arXiv:2112.10741, section 2 and appendix; Esser et al. 2024, arXiv:2403.03206, section 3.1
(logit-normal).
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.foundations.captioned_shapes import CONTEXT, PAD, VOCABULARY, Scenes, draw, tokens_of
from core.foundations.diffusion import STEPS, both_of, velocity
from core.foundations.small_diffusion import (
    GRID,
    WIDTH,
    Denoiser,
    agreement,
    asked_for,
    roll,
    taught,
    teach,
    tokens_or_nothing,
)
from core.foundations.weights import SHIPPED
from core.glide.muon import Muon
from core.glide.unet import UNet
from core.glide.upsampler import shipped_upsampler, shrunk

FOLDER = SHIPPED / "shapes-glide"


PATCH = 2  # pixels on each side
CHANNELS, PIXELS = 3 * PATCH**2, PATCH * GRID


class Words(nn.Module):
    """A small transformer over the words of a prompt, trained with the denoiser.

    The last row is their mean, a summary.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.body, self.norm = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Float[Tensor, "N 25 96"]:
        states, said = self.norm(self.body(self.words(tokens) + self.places)), (tokens != PAD).float()[..., None]
        return torch.cat([states, (states * said).sum(1, keepdim=True) / said.sum(1, keepdim=True)], 1)


class Glide(Denoiser):
    """A denoiser of pixels with its own reader of words. side: 32 with the upsampler, or 16."""

    schedule = "squaredcos_cap_v2"
    clip = True

    def __init__(self, side: int = 32, widths: tuple[int, int] = (64, 128), rng: torch.Generator | None = None) -> None:
        super().__init__(UNet(CHANNELS, widths, WIDTH))
        self.side, self.words = side, Words()
        roll(self, rng or torch.Generator().manual_seed(0))
        self.unet.hush()

    @property
    def places(self) -> tuple[int, int, int]:
        return CHANNELS, GRID, GRID

    def forward(self, x: Tensor, t: Tensor | int, states: Float[Tensor, "N 25 96"]) -> Tensor:
        return self.unet(x, t, states[:, :-1], states[:, -1])  # type: ignore[no-any-return]

    def scenes(self, rng: np.random.Generator, n: int) -> Scenes:
        return draw(rng, n, side=PIXELS)

    def encode(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 12 8 8"]:
        """Pictures from 0 to 1 -> what the U-Net sees: 16 x 16 pixels from -1 to 1, in patches of 2 x 2."""
        return F.pixel_unshuffle(2 * (shrunk(pictures) if pictures.shape[-1] > PIXELS else pictures) - 1, PATCH)

    def small(self, x: Float[Tensor, "N 12 8 8"]) -> Float[Tensor, "N 3 16 16"]:
        """What the U-Net sees, as a picture from 0 to 1, also when it is noise."""
        return (F.pixel_shuffle(x, PATCH) / 2 + 0.5).clamp(0, 1)

    def decode(self, x: Float[Tensor, "N 12 8 8"]) -> Float[Tensor, "N 3 H W"]:
        """The picture, doubled by the upsampler if its side is 32."""
        with torch.no_grad():
            return shipped_upsampler()(self.small(x)) if self.side > PIXELS else self.small(x)

    def states(self, told: Sequence[str], dropped: Tensor | None = None) -> Tensor:
        return self.words(tokens_or_nothing(told, dropped))  # type: ignore[no-any-return]

    def nothing(self, n: int) -> Tensor:
        with torch.no_grad():
            return self.states([""]).expand(n, -1, -1)


def picture_of(denoiser: Glide, x: Tensor, told: Tensor, kept: Tensor | float) -> Tensor:
    """The clean picture that the network's answer means, whatever it predicts."""
    return both_of(x, told, kept, denoiser.predicts)[0]


def answer_of(denoiser: Glide, x: Tensor, x0: Tensor, kept: Tensor | float) -> Tensor:
    """The answer that means this clean picture: the inverse of `picture_of`."""
    _, noise = both_of(x, x0, kept, "sample")
    return {"sample": x0, "epsilon": noise, "v_prediction": velocity(x0, noise, kept)}[denoiser.predicts]


def prompt_tokens(prompt: str) -> Tensor:
    """The tokens of a prompt that must say something; a ValueError where it is empty or has words this world does not
    know.
    """
    return tokens_of([prompt])


def mostly_middle(n: int, rng: torch.Generator) -> Tensor:
    """Steps of the noise, those in the middle more often: the logistic function of normal numbers."""
    return (STEPS * torch.randn(n, generator=rng).sigmoid()).long()


def lessons(denoiser: Glide, steps: int, **changes: Any) -> Any:
    """Train it; see `teach`."""
    settings: dict[str, Any] = {"optimizer": Muon, "rate": 6e-3, "batch": 32, "times": mostly_middle} | changes
    return teach(denoiser, lambda texts, pictures, dropped: denoiser.states(texts, dropped), steps, **settings)


@cache
def shipped_glide() -> Glide:
    """The GLIDE that comes with the app."""
    from safetensors.torch import load_file

    denoiser = Glide()
    denoiser.load_state_dict({name: weight.float() for name, weight in load_file(FOLDER / "model.safetensors").items()})
    return denoiser.eval().requires_grad_(False)


def save(denoiser: Glide, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().half().contiguous() for name, weight in denoiser.state_dict().items()},
        folder / "model.safetensors",
    )


def quality(denoiser: Glide, n: int = 200, scale: float = 2.0) -> dict[str, float]:
    """How often the judge sees what was asked for, on pairs of color and shape that were seen in training and on those
    that never were.
    """
    told = {}
    for name, held_out in (("seen", False), ("never seen", True)):
        scenes, prompts = asked_for(n, held_out, side=PIXELS)
        told[name] = agreement(denoiser.paint(prompts, scale=scale, seed=3), scenes)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the small GLIDE.")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    denoiser = Glide()
    taught(denoiser, lessons(denoiser, told.steps))
    print(quality(denoiser))
    if told.save:
        save(denoiser, told.save)
