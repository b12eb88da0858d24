r"""The decoder of DALL·E 2: from the embedding of a picture back to a picture.

The paper's decoder is a GLIDE of 64 x 64 pixels and two upsamplers; the open ones that followed it, like Kandinsky,
paint latents. So does this one: the autoencoder and the U-Net are those of the small Stable Diffusion, but the
cross-attention reads four tokens made from CLIP's picture embedding, and a fifth vector is added to the embedding of
the step, as in the paper. The embedding is a unit vector of 64 numbers; times 8 each of them is about 1. One in eight
is left out (zeros), for guidance.

Train and save: python -m core.dalle2.decoder --save assets/weights/shapes-dalle2 (begins with the U-Net of Stable
Diffusion)
Left out: the caption as a second condition.
Source: Ramesh et al. 2022, arXiv:2204.06125, section 2.1; Razzhigaev et al. 2023, arXiv:2310.03502 (Kandinsky).
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.foundations.captioned_shapes import render
from core.foundations.small_clip import EMBEDDING, shipped_clip
from core.foundations.small_diffusion import (
    WIDTH,
    Average,
    Denoiser,
    Lesson,
    agreement,
    asked_for,
    roll,
    taught,
    teach,
    unet_of,
)
from core.foundations.weights import SHIPPED
from core.stable_diffusion.model import shipped_denoiser

FOLDER = SHIPPED / "shapes-dalle2"
TOKENS = 5  # that the embedding becomes: four to read, and the summary


class Decoder(Denoiser):
    """A denoiser of latents that reads the embedding of a picture."""

    offset = 1

    def __init__(self, rng: torch.Generator | None = None) -> None:
        super().__init__(unet_of(4, summary=True))
        self.reader = nn.Linear(EMBEDDING, TOKENS * WIDTH)
        roll(self, rng or torch.Generator().manual_seed(0))

    def encode(self, pictures: Tensor) -> Tensor:
        return shipped_denoiser().encode(pictures)

    def decode(self, x: Tensor) -> Tensor:
        return shipped_denoiser().decode(x)

    def states(self, told: Tensor) -> Tensor:
        """told: (N, 64) unit vectors; a row of zeros says nothing."""
        return self.reader(EMBEDDING**0.5 * told).view(-1, TOKENS, WIDTH)  # type: ignore[no-any-return]

    def nothing(self, n: int) -> Tensor:
        with torch.no_grad():
            return self.states(torch.zeros(n, EMBEDDING))


def lessons(denoiser: Decoder, steps: int, **changes: Any) -> Iterator[tuple[Lesson, Average]]:
    """Train it; see `teach`."""
    clip = shipped_clip()

    def conditions(texts: list[str], pictures: Tensor, dropped: Tensor) -> Tensor:
        return denoiser.states(clip.pictures(pictures) * ~dropped[:, None])

    return teach(denoiser, conditions, steps, **changes)


@cache
def shipped_decoder() -> Decoder:
    """The decoder that comes with the app."""
    from safetensors.torch import load_file

    denoiser = Decoder()
    denoiser.load_state_dict(
        {name: weight.float() for name, weight in load_file(FOLDER / "decoder.safetensors").items()}
    )
    return denoiser.eval().requires_grad_(False)


def save(denoiser: Decoder, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().half().contiguous() for name, weight in denoiser.state_dict().items()},
        folder / "decoder.safetensors",
    )


def quality(denoiser: Decoder, n: int = 200, scale: float = 2.0) -> dict[str, float]:
    """How often the judge sees in the decoded picture what the encoded one showed."""
    told = {}
    for name, held_out in (("seen", False), ("never seen", True)):
        scenes, _ = asked_for(n, held_out)
        told[name] = agreement(denoiser.paint(shipped_clip().pictures(render(scenes)), scale=scale, seed=3), scenes)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the decoder.")
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    denoiser = Decoder()
    denoiser.unet.load_state_dict(shipped_denoiser().unet.state_dict(), strict=False)  # all but the summary's layers
    taught(denoiser, lessons(denoiser, told.steps))
    print(quality(denoiser))
    if told.save:
        save(denoiser, told.save)
