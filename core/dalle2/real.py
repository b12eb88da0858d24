r"""The real thing: Kandinsky 2.2, an open model built like DALL·E 2, from the hub.

Its prior is a transformer of about 1 billion parameters that predicts CLIP's picture embedding (1,280 numbers, OpenCLIP
ViT-bigG) from the caption's embedding and tokens; its decoder is a U-Net of about 1.2 billion on the latents of an
autoencoder (MoVQ), and reads nothing but the picture embedding. Both loops are written out here, with the schedulers of
diffusers; they give what diffusers' own pipelines give.

It is fetched once, safetensors only, at pinned revisions, and no code of the hub's runs. It needs a GPU, half
precision. The revisions and sizes are those that public projects pin; they were not compared with the hub itself.

Left out: negative prompts, the weights' safety measures of a product, other sizes of pictures.
Source: Razzhigaev et al. 2023, arXiv:2310.03502; diffusers' KandinskyV22PriorPipeline and KandinskyV22Pipeline.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.base_model import check_memory, free_bytes
from core.foundations.diffusion import guided
from core.foundations.hub import Unavailable, hub_folder, in_thread, of_kind
from core.foundations.machine import this_machine
from core.foundations.weights import model_bytes, models

PRIOR, DECODER = HUB = of_kind("kandinsky")
WORK = 2.0e9  # bytes that one pass and the decoding of a picture need beside the weights
NEED = 2 * sum(model.parameters for model in HUB.values()) + WORK
FETCHED = sum(model.gigabytes for model in HUB.values())
KANDINSKY = "kandinsky-2-2"
MODELS = {
    "shipped": "the small one",
    KANDINSKY: f"Kandinsky 2.2: needs a GPU with {NEED / 1e9:.1f} GB, fetches {FETCHED:.1f} GB",
}
WAYS = ("diffusion prior", "no prior")
MOST_WORDS = 60  # of a caption; CLIP reads 77 tokens
SHOWN = 96  # pixels on a side of a picture that is sent to the browser
GLIMPSES = 6  # pictures on the way


@dataclass(frozen=True)
class RealMoment:
    """One step of the real chain; vectors and pictures are float32 on the CPU."""

    stage: str
    number: int
    doing: str
    vectors: dict[str, Float[Tensor, "E"]]
    pictures: Float[Tensor, "W N 3 S S"] | None = None
    lengths: tuple[float, float] | None = None  # of a real picture's embedding, of the imagined ones
    cosines: tuple[float, float] | None = None  # of an imagined one with the caption, of two imagined ones


# --- the prior --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def read(pipe: Any, prompt: str, n: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding, states and mask of the caption, n times; with guidance those of the empty caption stand before
    them.
    """
    told: tuple[Tensor, Tensor, Tensor] = pipe._encode_prompt([prompt], pipe._execution_device, n, scale > 1, None)
    return told


@torch.no_grad()
def prior_step(
    pipe: Any,
    x: Tensor,
    times: list[Any],
    number: int,
    told: tuple[Tensor, Tensor, Tensor],
    scale: float,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(x at the next time, the guess of the embedding)."""
    both = torch.cat([x, x]) if scale > 1 else x
    embedding, states, mask = told
    guess = pipe.prior(
        both, timestep=times[number], proj_embedding=embedding, encoder_hidden_states=states, attention_mask=mask
    ).predicted_image_embedding
    if scale > 1:
        free, guess = guess.chunk(2)
        guess = guided(free, guess, scale)
    before = times[number + 1] if number + 1 < len(times) else None
    return (
        pipe.scheduler.step(guess, timestep=times[number], sample=x, generator=rng, prev_timestep=before).prev_sample,
        guess,
    )


def imagining(pipe: Any, prompt: str, n: int, steps: int, scale: float, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(noised embeddings, embeddings) after each step of the prior."""
    told, rng = read(pipe, prompt, n, scale), torch.Generator().manual_seed(seed)
    pipe.scheduler.set_timesteps(steps, device=pipe._execution_device)
    times = list(pipe.scheduler.timesteps)
    noise = torch.randn(n, pipe.prior.config.embedding_dim, generator=rng, dtype=told[0].dtype)
    x = noise.to(pipe._execution_device) * pipe.scheduler.init_noise_sigma
    for number in range(len(times)):
        x, guess = prior_step(pipe, x, times, number, told, scale, rng)
        last = number == len(times) - 1
        yield x, pipe.prior.post_process_latents(x if last else guess).detach()


@torch.no_grad()
def blank(pipe: Any) -> Float[Tensor, "1 E"]:
    """The embedding of a picture of zeros, which stands for "nothing" in the decoder's guidance."""
    return pipe.get_zero_embed(1)  # type: ignore[no-any-return]


# --- the decoder ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def decoder_step(
    pipe: Any, x: Tensor, t: Any, told: Tensor, scale: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(latents at the next time, the guess of the clean ones). told: nothing's embeddings, then the pictures'."""
    out = pipe.unet(
        sample=torch.cat([x, x]),
        timestep=t,
        encoder_hidden_states=None,
        added_cond_kwargs={"image_embeds": told},
        return_dict=False,
    )[0]
    noise, variance = out.split(x.shape[1], dim=1)
    free, predicted = noise.chunk(2)
    predicted = guided(free, predicted, scale)
    if pipe.scheduler.config.variance_type in ("learned", "learned_range"):
        predicted = torch.cat([predicted, variance.chunk(2)[1]], 1)
    done = pipe.scheduler.step(predicted, t, x, generator=rng)
    return done.prev_sample, done.pred_original_sample


def drawing(
    pipe: Any,
    vectors: Float[Tensor, "N E"],
    nothing: Float[Tensor, "1 E"],
    steps: int,
    scale: float,
    seed: int,
    side: int = 512,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(latents, guess of the clean ones) after each step of the decoder."""
    device, dtype, rng = pipe._execution_device, pipe.unet.dtype, torch.Generator().manual_seed(seed)
    told = torch.cat([nothing.expand(len(vectors), -1), vectors]).to(device, dtype)
    pipe.scheduler.set_timesteps(steps, device=device)
    places = side // 2 ** (len(pipe.movq.config.block_out_channels) - 1)
    x = (
        torch.randn(len(vectors), pipe.unet.config.in_channels, places, places, generator=rng, dtype=dtype).to(device)
        * pipe.scheduler.init_noise_sigma
    )
    for t in pipe.scheduler.timesteps:
        x, guess = decoder_step(pipe, x, t, told, scale, rng)
        yield x, guess


@torch.no_grad()
def pictures(pipe: Any, latents: Tensor) -> Float[Tensor, "N 3 H W"]:
    """From 0 to 1, one after the other."""
    whole = torch.cat(
        [
            pipe.movq.decode(one, force_not_quantize=True)["sample"].float().cpu()
            for one in latents.to(pipe.movq.dtype).split(1)
        ]
    )
    return (whole / 2 + 0.5).clamp(0, 1)


def small(shown: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 S S"]:
    return shown if shown.shape[-1] <= SHOWN else F.interpolate(shown, (SHOWN, SHOWN), mode="area")


# --- from the hub -----------------------------------------------------------------------------------------------------


def from_folder(folder: Path, name: str) -> Any:
    """A pipeline in the hub's format: safetensors only, no code of the hub's, no network."""
    from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    device = this_machine().device
    kind: Any = KandinskyV22PriorPipeline if name == PRIOR else KandinskyV22Pipeline
    pipe = kind.from_pretrained(
        folder,
        torch_dtype=torch.float32 if device == "cpu" else torch.float16,
        use_safetensors=True,
        local_files_only=True,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def pipe_bytes(pipe: Any) -> int:
    return sum(model_bytes(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module))


def fetched_and_loaded(name: str) -> Any:
    folder = hub_folder(name)
    return models().get(name, lambda: from_folder(folder, name), pipe_bytes)


def pipe_of(name: str) -> Generator[RealMoment, None, Any]:
    """One of the two pipelines; yields a line for the log while it is fetched and loaded."""
    told = HUB[name]
    need = 2 * told.parameters + WORK
    if not this_machine().gpu:
        raise Unavailable(
            f"Kandinsky 2.2 needs a GPU with {NEED / 1e9:.1f} GB free, and this machine has none: choose the small one"
        )
    if name not in models().held:
        check_memory(need, f"{told.what[0].upper()}{told.what[1:]} in half precision")
    yield RealMoment(
        "prior",
        0,
        f"{told.what} needs {need / 1e9:.1f} of the GPU's {free_bytes() / 1e9:.1f} GB that are free; fetching it once,"
        " then loading",
        {},
    )
    waiting = RealMoment("prior", 0, f"fetching and loading {told.what}", {})
    return (yield from in_thread(partial(fetched_and_loaded, name), waiting))


# --- the chain --------------------------------------------------------------------------------------------------------


def real_chain(
    prompt: str, n: int, steps: tuple[int, int], scales: tuple[float, float], seed: int
) -> Iterator[RealMoment]:
    """Caption to pictures, with the prior and without. steps, scales: of the prior, of the decoder."""
    if not 1 <= len(prompt.split()) <= MOST_WORDS:
        raise ValueError(f"The caption must be 1 to {MOST_WORDS} words, got {len(prompt.split())}")
    pipe = yield from pipe_of(PRIOR)
    text, nothing = read(pipe, prompt, 1, 1.0)[0][0].float().cpu(), blank(pipe).float().cpu()
    vectors, x, number = nothing, nothing, 0
    for number, (noised, guess) in enumerate(imagining(pipe, prompt, n, steps[0], scales[0], seed), 1):
        vectors, x = guess.float().cpu(), noised.float().cpu()
        maps = {"caption z_t": text, "noised x_t": x[0], "guess of z_i": vectors[0]}
        yield RealMoment("prior", number, f"prior, step {number} of {steps[0]}", maps)
    lengths = float(nothing.norm()), float(vectors.norm(dim=-1).mean())
    apart = F.normalize(vectors, dim=-1)
    alike = float((apart @ apart.T).sum() - n) / (n * (n - 1)) if n > 1 else 1.0
    maps = {"caption z_t": text, "noised x_t": x[0], "imagined z_i": vectors[0]}
    cosines = float(F.cosine_similarity(vectors, text[None]).mean()), alike
    yield RealMoment("prior", number, "the embeddings are imagined", maps, lengths=lengths, cosines=cosines)
    pipe = yield from pipe_of(DECODER)
    straight = F.normalize(text, dim=0) * lengths[1]  # as long as the decoder expects
    runs = [drawing(pipe, told, nothing, steps[1], scales[1], seed) for told in (vectors, straight.expand(n, -1))]
    for number in range(1, steps[1] + 1):
        guesses = list[Tensor]()
        for run, way in zip(runs, WAYS, strict=True):
            latents, guess = next(run)
            guesses.append(latents if number == steps[1] else guess)
            yield RealMoment("decoder", number, f"decoder, step {number} of {steps[1]}: {way}", maps)
        if number == steps[1] or number % max(1, steps[1] // GLIMPSES) == 0:
            shown = torch.stack([small(pictures(pipe, guess)) for guess in guesses])
            yield RealMoment("decoder", number, f"decoder, step {number} of {steps[1]}: decoded", maps, pictures=shown)
