r"""Which Stable Diffusion: the small one that comes with the app, or real weights from the hub.

    def run(config):
        denoiser = yield from denoiser_of(config.model, lambda words: SomeStep(doing=words))  # a Step while waiting
        x = denoiser.noise(1, config.seed)  # in float32 on the CPU, as all that a Moment holds
        network = denoiser.network(denoiser.states([prompt]))
        kind = (denoiser.schedule, denoiser.predicts)
        for moment in sampling(network, x, kind, steps, scale, offset=denoiser.offset):
            ...
        shown(denoiser.decode(x))  # small enough to send to a browser

`model: str = model_field()` offers them. Both are a `Latent`: states, nothing, network,
encode, decode, places, noise, schedule, predicts and offset mean the same. Do not assume 8 x 8 places or 32 x 32
pixels: a real one has 64 x 64 and 512 x 512.

The real ones are Stable Diffusion 1.4 and 1.5 and 2.1 (base): a U-Net of 0.86 billion parameters on latents of 4 x 64 x
64, which predicts the noise. They are fetched once, safetensors only, at a pinned revision, and no code of the hub's
runs. They need a GPU; half precision, attention in slices where memory is short. The revisions are those that public
projects pin; they were not compared with the hub itself.

Left out: the safety checker, other sizes of pictures.
Source: Rombach et al. 2022, arXiv:2112.10752; the mirrors of the withdrawn repositories, stable-diffusion-v1-5 and
sd2-community on the hub.
"""

import json
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.foundations.base_model import check_memory, free_bytes
from core.foundations.diffusion import KINDS, STEPS, signal
from core.foundations.experiment import setting
from core.foundations.hub import PARTS, Unavailable, hub_folder, in_thread, of_kind
from core.foundations.machine import this_machine
from core.foundations.weights import model_bytes, models
from core.stable_diffusion.model import Latent, quieten, shipped_denoiser

HUB = of_kind("stable diffusion")
WORK = 2e9  # bytes that one step on eight latents of 64 x 64 and the decoding of a picture need beside the weights
SHORT = 3e9  # ... with less than this free, attention goes in slices
MODELS = {"shipped": "the small one, 3 M parameters"} | {
    name: f"{hub.what}: needs a GPU with {(2 * hub.parameters + WORK) / 1e9:.1f} GB, fetches {hub.gigabytes:.1f} GB"
    for name, hub in HUB.items()
}
ROWS = 8  # latents in one pass of a real U-Net
S = TypeVar("S")


def model_field() -> Any:
    """Which Stable Diffusion an experiment uses."""
    help = "The models from the hub are larger and need a network once; most need a GPU."
    return setting("shipped", "Model", choices=MODELS, more=True, help=help)


class Real(Latent):
    """Stable Diffusion as the hub has it. What goes in and comes out is float32 on the CPU."""

    def __init__(self, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: dict[str, Any]) -> None:
        super().__init__(unet, vae, text_encoder)
        self.tokenizer = tokenizer
        self.schedule, self.predicts, self.offset = told_by(scheduler)
        self.scale = float(vae.config.scaling_factor)
        self.side = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def places(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size

    def here(self, values: Tensor) -> Tensor:
        """On the device and in the precision of the weights."""
        return values.to(self.unet.device, self.unet.dtype)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        return (
            torch.cat(
                [self.vae.encode(self.here(2 * one - 1)).latent_dist.mean.float().cpu() for one in pictures.split(1)]
            )
            * self.scale
        )

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        whole = torch.cat([self.vae.decode(self.here(one / self.scale)).sample.float().cpu() for one in x.split(1)])
        return (whole / 2 + 0.5).clamp(0, 1)

    def ids(self, told: Sequence[str]) -> list[list[int]]:
        most = self.tokenizer.model_max_length
        ids: list[list[int]] = self.tokenizer(list(told), padding="max_length", max_length=most).input_ids
        if (more := max(len(row) for row in ids) - most) > 0:
            raise ValueError(f"A prompt may have at most {most - 2} tokens for this model, this one has {more} more")
        return ids

    def states(self, told: Sequence[str], dropped: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.text_encoder(torch.tensor(self.ids(told), device=self.text_encoder.device))[0].float().cpu()  # type: ignore[no-any-return]

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor | int, states: Tensor) -> Tensor:
        rows = zip(x.split(ROWS), states.split(ROWS), strict=True)
        return torch.cat([self.unet(self.here(some), t, self.here(read)).sample.float().cpu() for some, read in rows])


def told_by(scheduler: dict[str, Any]) -> tuple[str, str, int]:
    """Schedule, what is predicted, and the offset of the visited steps; ValueError: a schedule that `signal` does not
    have.
    """
    kind, predicts = scheduler.get("beta_schedule", ""), scheduler.get("prediction_type", "epsilon")
    fits = (
        kind in KINDS
        and scheduler.get("num_train_timesteps") == STEPS
        and predicts in ("epsilon", "sample", "v_prediction")
    )
    if fits and not kind.startswith("squared"):
        kept, ends = signal(kind), (scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02))
        fits = abs(1 - ends[0] - float(kept[0])) < 1e-6 and abs(1 - ends[1] - float(kept[-1] / kept[-2])) < 1e-5
    if not fits:
        raise ValueError(
            f"The scheduler of this model is not one that is written out here: {str(kind)[:30]!r} with"
            f" {str(predicts)[:30]!r}"
        )
    return kind, predicts, int(scheduler.get("steps_offset", 0))


# --- from the hub -----------------------------------------------------------------------------------------------------


def variant_of(folder: Path, part: str, name: str) -> str | None:
    """fp16 if a part's safetensors are there in half precision, else None; Unavailable: it has no safetensors."""
    files = [file.name for file in (folder / part).glob("*.safetensors") if "non_ema" not in file.name]
    if not files:
        raise Unavailable(f"{name} has no safetensors for its {part}, and pickles are never read")
    return "fp16" if any(file.endswith(".fp16.safetensors") for file in files) else None


def from_folder(folder: Path, name: str = "This folder") -> Real:
    """A Stable Diffusion in the hub's format: safetensors only, no code of the hub's, no network."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    quieten()
    device = this_machine().device
    dtype = torch.float32 if device == "cpu" else torch.float16
    loaded: list[Any] = []
    for part, kind in zip(PARTS, (UNet2DConditionModel, AutoencoderKL, CLIPTextModel), strict=True):
        how: dict[str, Any] = {"dtype": dtype, "variant": variant_of(folder, part, name)}
        model: Any = kind.from_pretrained(folder / part, use_safetensors=True, local_files_only=True, **how)
        loaded.append(model.to(device))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    denoiser = Real(loaded[0], loaded[1], loaded[2], tokenizer, scheduler).eval().requires_grad_(False)
    if device != "cpu" and free_bytes() < SHORT:
        denoiser.unet.set_attention_slice("auto")
    return denoiser  # type: ignore[no-any-return]


def denoiser_of(name: str, waiting: Callable[[str], S]) -> Generator[S, None, Latent]:
    """A Stable Diffusion by name; what `waiting` makes of a line for the log is yielded while a real one is fetched and
    loaded.
    """
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name[:40]!r}")
    if name == "shipped":
        return shipped_denoiser()
    told = HUB[name]
    need = 2 * told.parameters + WORK
    if not this_machine().gpu:
        raise Unavailable(
            f"{told.what} needs a GPU with {need / 1e9:.1f} GB free, and this machine has none: choose the small one"
        )
    if name not in models().held:
        check_memory(need, f"{told.what} in half precision")
    yield waiting(
        f"{told.what} needs {need / 1e9:.1f} GB of the GPU's {free_bytes() / 1e9:.1f} GB that are free; fetching it,"
        " once, and loading it"
    )
    return (yield from in_thread(partial(fetched_and_loaded, name), waiting(f"fetching and loading {told.what}")))


def fetched_and_loaded(name: str) -> Latent:
    folder = hub_folder(name)
    loaded: Latent = models().get(name, lambda: from_folder(folder, HUB[name].what), model_bytes)
    return loaded


def shown(pictures: Tensor, most: int = 96) -> Tensor:
    """Pictures of at most `most` pixels on a side, to send to a browser; small ones stay as they are."""
    side = pictures.shape[-1]
    return pictures if side <= most else F.interpolate(pictures, (most, most), mode="area")


def thinned(latents: Tensor, most: int = 16) -> Tensor:
    """Every so many places of a grid, so that at most `most` of a side are left to send; their numbers stay as loud as
    they are.
    """
    every = -(-latents.shape[-1] // most)
    return latents[..., every // 2 :: every, every // 2 :: every]
