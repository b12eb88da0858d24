r"""Which CLIP: the small one that comes with the app, or a real one from the hub.

Both say the same three things: unit vectors of pictures, unit vectors of texts, and the scale of their cosines. The
real one is ViT-B/32 of LAION: a vision transformer that cuts a picture of 224 x 224 pixels into 49 patches, 151 million
parameters, trained on two billion pairs from the web. It is fetched once (0.6 GB, safetensors only, a pinned revision),
and no code of the hub's runs.

Left out: other sizes of CLIP.
Source: Radford et al. 2021, arXiv:2103.00020; Cherti et al. 2022, arXiv:2212.07143 (the weights).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.base_model import check_memory
from core.foundations.hub import fetched, of_kind
from core.foundations.machine import this_machine
from core.foundations.small_clip import shipped_clip
from core.foundations.weights import model_bytes, models

HUB = of_kind("clip")
MODELS = {"shipped": "the small CLIP, 0.4 M parameters"} | {
    name: f"{model.what}, fetches {model.gigabytes:.1f} GB" for name, model in HUB.items()
}
MEAN, DEVIATION = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # of the pictures it was trained on


@runtime_checkable
class Encoder(Protocol):
    """Two towers with one space."""

    @property
    def scale(self) -> float: ...

    def pictures(self, pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N E"]: ...

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N E"]: ...


@dataclass(frozen=True)
class RealClip:
    """A CLIP of transformers with its tokenizer."""

    model: Any  # transformers.CLIPModel
    tokenizer: Any  # tokenizers.Tokenizer
    side: int

    @property
    def scale(self) -> float:
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def pictures(self, pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N E"]:
        """Pictures from 0 to 1, of any size."""
        device = next(self.model.parameters()).device
        mean, deviation = (torch.tensor(told, device=device).view(1, 3, 1, 1) for told in (MEAN, DEVIATION))
        pictures = pictures.to(device)
        if pictures.shape[-1] != self.side:
            pictures = F.interpolate(pictures, (self.side, self.side), mode="bilinear", antialias=True)
        return unit(self.model.get_image_features(pixel_values=(pictures - mean) / deviation))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        told = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([one.ids for one in told], device=next(self.model.parameters()).device)
        return unit(self.model.get_text_features(input_ids=ids))


def unit(features: Any) -> Float[Tensor, "N E"]:
    """On the unit sphere; newer versions of transformers wrap the projected features."""
    projected: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(projected.float(), dim=-1).cpu()


def from_folder(folder: Path) -> RealClip:
    """A CLIP in the hub's format: safetensors only, no code of the hub's, no network."""
    from tokenizers import Tokenizer
    from transformers import CLIPModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model: Any = CLIPModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    most, end = model.config.text_config.max_position_embeddings, "<|endoftext|>"
    tokenizer.enable_truncation(most)
    tokenizer.enable_padding(
        length=most, pad_id=tokenizer.token_to_id(end), pad_token=end
    )  # what follows the end is never read
    return RealClip(
        model.to(this_machine().device).eval().requires_grad_(False), tokenizer, model.config.vision_config.image_size
    )


def load_clip(name: str) -> Generator[None, None, Encoder]:
    """A CLIP by name; yields while it is fetched from the hub."""
    if name == "shipped":
        return shipped_clip()
    check_memory(4 * HUB[name].parameters, f"{HUB[name].what}, to be loaded,")
    folder = yield from fetched(name)
    loaded: RealClip = models().get(name, lambda: from_folder(folder), lambda one: model_bytes(one.model))
    return loaded


def side_of(clip: Encoder) -> int:
    """The side of the pictures that a model sees, in pixels."""
    return getattr(clip, "side", 32)


def at_once(clip: Encoder) -> int:
    """Pictures in one unit of work."""
    return 4 if isinstance(clip, RealClip) else 48


def lines_of(text: str, most: int, what: str) -> list[str]:
    """The lines of a text that are not empty, one of each, or a sentence."""
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not 2 <= len(lines) <= most:
        raise ValueError(f"{what} must be 2 to {most} different lines, got {len(lines)}")
    return lines
