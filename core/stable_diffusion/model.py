r"""The small Stable Diffusion: autoencoder, the text tower of the small CLIP, a U-Net on latents, saved as diffusers
saves it.

A folder of it is what `StableDiffusionPipeline.from_pretrained` reads: `unet`, `vae`, `text_encoder` (the same weights
as the CLIP of the tab CLIP, in the layout of transformers), `tokenizer` (a word is a token) and `scheduler`.

Train and save: python -m core.stable_diffusion.model --save assets/weights/shapes-stable-diffusion (with the
autoencoder there)
Source: Rombach et al. 2022, arXiv:2112.10752; Salimans and Ho 2022, arXiv:2202.00512 (v, as Stable Diffusion 2).
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.foundations.captioned_shapes import CONTEXT, END, PAD, START, VOCABULARY, WORDS
from core.foundations.small_clip import shipped_clip
from core.foundations.small_diffusion import (
    WIDTH,
    Denoiser,
    agreement,
    asked_for,
    roll,
    taught,
    teach,
    tokens_or_nothing,
    unet_of,
)
from core.foundations.weights import SHIPPED

FOLDER = SHIPPED / "shapes-stable-diffusion"
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


class Latent(Denoiser):
    """A denoiser of latents that reads the states of CLIP's text tower."""

    offset = 1

    def __init__(self, unet: Any, vae: Any, text_encoder: Any) -> None:
        super().__init__(unet)
        self.vae, self.text_encoder = vae.requires_grad_(False).eval(), text_encoder.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(2 * pictures - 1).latent_dist.mean  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        return (self.vae.decode(x).sample / 2 + 0.5).clamp(0, 1)  # type: ignore[no-any-return]

    def ids(self, told: Sequence[str]) -> list[list[int]]:
        """The tokens of prompts, start, end and padding included; ValueError: it cannot read them."""
        return tokens_or_nothing(told).tolist()  # type: ignore[no-any-return]

    def states(self, told: Sequence[str], dropped: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.text_encoder(tokens_or_nothing(told, dropped))[0]  # type: ignore[no-any-return]

    def nothing(self, n: int) -> Tensor:
        return self.states([""]).expand(n, -1, -1)


def ids_of(denoiser: Latent, prompt: str) -> list[int]:
    """The tokens of one prompt; ValueError: it says nothing, or nothing that the model can read."""
    if not prompt.strip():
        raise ValueError("The prompt is empty: write what is to be drawn, like 'a red circle on white'")
    return denoiser.ids([prompt])[0]


def text_encoder() -> Any:
    """The text tower of the shipped CLIP as a `CLIPTextModel` of transformers: the same numbers under other names."""
    from transformers import CLIPTextConfig, CLIPTextModel

    own = shipped_clip().model.state_dict()
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        hidden_act="gelu",
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        projection_dim=64,
    )
    model = CLIPTextModel(config)
    prefix = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    weights = {
        "embeddings.token_embedding.weight": own["token_embedding.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        weights[f"final_layer_norm.{kind}"] = own[f"ln_final.{kind}"]
        for layer in range(2):
            here, there = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
            for part, rows in zip("qkv", own[f"{here}attn.in_proj_{kind}"].chunk(3), strict=True):
                weights[f"{there}self_attn.{part}_proj.{kind}"] = rows
            for ours, theirs in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                weights[f"{there}{theirs}.{kind}"] = own[f"{here}{ours}.{kind}"]
    told = model.load_state_dict({prefix + name: weight.clone() for name, weight in weights.items()}, strict=False)
    assert not told.unexpected_keys and all("position_ids" in name for name in told.missing_keys), told
    return model.eval()


def tokenizer() -> Any:
    """Words as tokens, as `tokens_of` counts them, in the form that a pipeline asks for."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {"<pad>": PAD, **{word: number + 1 for number, word in enumerate(WORDS)}, "<start>": START, "<end>": END}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", " "), normalizers.Replace(".", " ")]
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<start>", eos_token="<end>", model_max_length=CONTEXT
    )


def save(denoiser: Latent, folder: Path) -> None:
    """In diffusers' format, float16, without a word about where its parts lay."""
    denoiser.vae.register_to_config(_name_or_path="")
    pipeline(denoiser).to(torch.float16).save_pretrained(folder)
    denoiser.float()


def pipeline(denoiser: Latent) -> Any:
    """The same weights in diffusers' own pipeline."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=denoiser.vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer(),
        unet=denoiser.unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def quieten() -> None:
    """No progress bars of files that lie on the disk."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def load(folder: Path) -> Latent:
    """A denoiser from a folder in diffusers' format; safetensors only."""
    quieten()
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True).float()
    vae = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True).float()
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True).float()
    denoiser = Latent(unet, vae, encoder)
    return denoiser.eval().requires_grad_(False)  # type: ignore[no-any-return]


@cache
def shipped_denoiser() -> Latent:
    """The Stable Diffusion that comes with the app."""
    return load(FOLDER)


def quality(denoiser: Latent, n: int = 200, scale: float = 3.0) -> dict[str, float]:
    """How often the judge sees what was asked for, on pairs of color and shape that were seen in training and on those
    that never were.
    """
    told = {}
    for name, held_out in (("seen", False), ("never seen", True)):
        scenes, prompts = asked_for(n, held_out)
        told[name] = agreement(denoiser.paint(prompts, scale=scale, seed=3), scenes)
    return told


if __name__ == "__main__":
    from diffusers import AutoencoderKL

    parser = argparse.ArgumentParser(description="Train the latent diffusion.")
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--vae", type=Path, default=FOLDER / "vae", metavar="FOLDER")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    unet = unet_of(4)
    roll(unet, torch.Generator().manual_seed(0))
    denoiser = Latent(unet, AutoencoderKL.from_pretrained(told.vae).float(), text_encoder())
    taught(denoiser, teach(denoiser, lambda texts, pictures, dropped: denoiser.states(texts, dropped), told.steps))
    print(quality(denoiser))
    if told.save:
        save(denoiser, told.save)
