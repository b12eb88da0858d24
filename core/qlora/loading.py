r"""Loading a model in fewer bits, one tensor after the other, so that the whole model in 16 bits is never there.

The model is built without memory (torch's "meta" device), its Linear layers are exchanged for bitsandbytes' own, and
then every tensor of the file is brought to the device and quantized before the next one comes. What comes out is what
transformers' `from_pretrained(quantization_config=...)` gives (tested), which does the same behind one call.

Embeddings, output layer, norms and biases are not quantized: they stay in 16 bits.
Left out: files that are already quantized.
Source: transformers.integrations.bitsandbytes; bitsandbytes.nn (Linear4bit, Linear8bitLt).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.foundations.machine import this_machine
from core.qlora.memory import LiveBytes

UNIT_WEIGHTS = {"cpu": 600_000, "cuda": 50_000_000}  # loaded between two yields


def sixteen_bits(device: str) -> torch.dtype:
    """float16 where it is fast. A CPU computes it 5 to 10 times slower than bfloat16, which has as many bytes."""
    return torch.bfloat16 if device == "cpu" or this_machine().fast_dtype == "bfloat16" else torch.float16


def number_type(precision: str, device: str) -> torch.dtype:
    return torch.float32 if precision == "fp32" else sixteen_bits(device)


def quantisation(precision: str, device: str) -> Any:
    """transformers' description of a precision; None where nothing is quantized."""
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if precision in ("nf4", "nf4dq"):
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=precision == "nf4dq",
            bnb_4bit_compute_dtype=sixteen_bits(device),
        )
    return None


def empty_model(folder: Path, precision: str, device: str) -> Any:
    """The model's layers without their numbers, the Linear ones already of the right kind."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=number_type(precision, device))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)  # computed, not loaded
    how = quantisation(precision, device)
    if how is not None:
        replace_with_bnb_linear(model, ["lm_head"], how)
        model.is_loaded_in_8bit, model.is_loaded_in_4bit = (
            precision == "int8",
            precision != "int8",
        )  # peft asks for these
    return model


def tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the model's files, each read when it is its turn."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no dict: the file has no other way to be walked)
                yield name, file.get_tensor(name)


def place(model: Any, name: str, tensor: Tensor, device: str) -> nn.Parameter:
    """Put one tensor of a file where it belongs; a quantized parameter quantizes on its way to the device."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    empty = module._parameters[leaf]
    copied = tensor.to(device, model.dtype, copy=True)  # the file's own memory stays the file's
    if type(empty) is nn.Parameter:
        filled = nn.Parameter(copied, requires_grad=False)
    else:
        filled = type(empty)(copied, **(vars(empty) | {"requires_grad": False})).to(device)
    module._parameters[leaf] = filled
    return filled


def constants_of(parameter: nn.Parameter) -> list[Tensor]:
    """What a quantized weight keeps beside its codes."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        found = [state.absmax, state.code]
        return found + ([state.offset, state.state2.absmax, state.state2.code] if state.nested else [])
    return [parameter.SCB] if getattr(parameter, "SCB", None) is not None else []


def loaded(folder: Path, precision: str, device: str, live: LiveBytes) -> Iterator[tuple[float, Any]]:
    """Load a model, its tensors weighed while they come: after each unit of work the share that is there, at the end
    (1, model).
    """
    model = empty_model(folder, precision, device)
    live.leave_out(*model.buffers())
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    whole, done, told = sum(sizes.values()), 0, 0
    for name, tensor in tensors_of(folder):
        if name not in sizes:  # tied to another, or computed (old files hold rotary tables)
            continue
        if done - told >= UNIT_WEIGHTS[device]:
            told = done
            yield done / whole, None
        with live:
            parameter = place(model, name, tensor, device)
        live.claim("weights", [parameter.data])
        live.claim("constants", constants_of(parameter))
        done += sizes[name]
        del parameter, tensor
    model.tie_weights()
    yield 1.0, model
