r"""A small CLIP of captioned shapes: open_clip's, with a convolutional picture tower.

The text tower, the loss's temperature and the two projections are open_clip's. The picture tower is ours, since a
vision transformer of this size takes hours to learn a shape: four convolutions, then two readings of the same features.
A global maximum says *whether* something is anywhere (colour, shape); a flattened coarse map says *where* (place, size,
ground).

It is trained by the topic: python -m core clip train
Source: Radford et al. 2021, arXiv:2103.00020; mlfoundations/open_clip.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.foundations.captioned_shapes import CONTEXT, VOCABULARY, tokens_of
from core.foundations.weights import SHIPPED

EMBEDDING = 64
WIDTH = 96  # channels of the picture tower, width of the text tower


class PictureTower(nn.Module):
    """Pictures from -1 to 1 -> embeddings."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers = list[nn.Module]()
        for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, width, 2), (width, width, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.whether = nn.Linear(width, EMBEDDING)
        self.where = nn.Sequential(
            nn.Conv2d(width, 16, 1), nn.AvgPool2d(2), nn.Flatten(), nn.SiLU(), nn.Linear(16 * 16, EMBEDDING)
        )

    def forward(self, pictures: Float[Tensor, "N 3 32 32"]) -> Float[Tensor, "N E"]:
        features = self.features(pictures)  # (N, W, 8, 8)
        return self.whether(features.amax((2, 3))) + self.where(features)


def make(rng: torch.Generator, width: int = WIDTH, vocabulary: int = VOCABULARY) -> Any:
    """An untrained model, its weights drawn from `rng`. width: channels of the picture tower."""
    import open_clip

    unused = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 32}
    words = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": WIDTH, "heads": 4, "layers": 2}
    model = open_clip.CLIP(embed_dim=EMBEDDING, vision_cfg=unused, text_cfg=words)
    model.visual = PictureTower(width)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in ("token_embedding.weight", "positional_embedding"):
                weight.normal_(0, 0.02, generator=rng)
            elif name == "visual.where.4.weight":
                weight.zero_()  # it begins with "whether"; "where" joins in as it learns
            elif weight.dim() > 1:
                fan_in = weight.shape[0] if name == "text_projection" else weight[0].numel()
                weight.normal_(0, fan_in**-0.5, generator=rng)
            elif name.endswith("bias"):
                weight.zero_()
    return model


@dataclass(frozen=True)
class Clip:
    """Two towers with one space: pictures and texts as unit vectors, and the scale of their cosines."""

    model: Any
    tokens: Callable[[Sequence[str]], Int[Tensor, "N L"]] = tokens_of

    @property
    def scale(self) -> float:
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def pictures(self, pictures: Float[Tensor, "N 3 32 32"]) -> Float[Tensor, "N E"]:
        """Pictures from 0 to 1."""
        return F.normalize(self.model.encode_image(2 * pictures - 1), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        return F.normalize(encode_texts(self.model, self.tokens(texts)), dim=-1)


def to_bytes(model: Any, words: Sequence[str]) -> bytes:
    """The model as a safetensors file, float16, with its config in the header."""
    import safetensors.torch

    weights = {
        name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in model.state_dict().items()
    }
    return safetensors.torch.save(weights, metadata={"config": config_json(model, words)})


def config_json(model: Any, words: Sequence[str]) -> str:
    width, vocabulary = model.visual.whether.in_features, model.token_embedding.num_embeddings
    return json.dumps(
        {"width": width, "embedding": EMBEDDING, "context": CONTEXT, "vocabulary": vocabulary, "words": list(words)},
        indent=1,
    )


def encode_texts(model: Any, tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N E"]:
    """What `model.encode_text` gives, without the padding behind the longest text: no token looks at later ones, so
    that changes nothing.
    """
    ends = tokens.argmax(1)  # the end has the largest number
    length = int(ends.max()) + 1
    states = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return states[torch.arange(len(states), device=states.device), ends] @ model.text_projection


@cache
def shipped_clip() -> Clip:
    """The CLIP that comes with the app."""
    from safetensors.torch import load_file

    model = make(torch.Generator())
    model.load_state_dict(
        {name: weight.float() for name, weight in load_file(SHIPPED / "shapes-clip" / "model.safetensors").items()}
    )
    return Clip(model.eval().requires_grad_(False))
