r"""The adapter as a file: peft's own format, out and in again.

`adapter_model.safetensors` holds the matrices A and B of every adapted layer under peft's names, `adapter_config.json`
what peft needs to put them back; `PeftModel.from_pretrained(base, folder)` takes the two. The config also stands in the
header of the safetensors file, so that this one file is enough here: the matrices alone do not say what alpha was.

An uploaded file is trusted in nothing: only safetensors are read, and whatever does not fit is refused in one sentence.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.foundations.experiment import shown
from core.lora.tuning import adapt, lora_layers

ADAPTER_FILE_BYTES = 32_000_000  # largest adapter a user may upload
MOST_RANK = 256
PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFile:
    """What an uploaded adapter holds."""

    rank: int
    alpha: float | None  # None: the file does not say
    rank_stable: bool  # the scale is alpha / sqrt(r) instead of alpha / r
    pairs: dict[str, tuple[Tensor, Tensor]] = field(repr=False)  # name of the layer -> A (r, d_in), B (d_out, r)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {name: (a.shape[1], b.shape[0]) for name, (a, b) in self.pairs.items()}


def files_of(model: Any) -> dict[str, bytes]:
    """The adapter of a peft model as the two files peft reads."""
    import safetensors.torch

    told = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in model.peft_config["default"].to_dict().items()
    }
    config = json.dumps(told | {"inference_mode": True}, indent=2, sort_keys=True)
    weights: dict[str, Tensor] = {}
    for name, layer in lora_layers(model).items():
        weights |= {
            f"{PREFIX}{name}.lora_{side}.weight": half["default"].weight.detach().cpu()
            for side, half in (("A", layer.lora_A), ("B", layer.lora_B))
        }
    held = safetensors.torch.save(weights, metadata={"format": "pt", "adapter_config": config})
    return {"adapter_model.safetensors": in_order(held), "adapter_config.json": config.encode()}


def in_order(data: bytes) -> bytes:
    """The same safetensors file with its header sorted: the library writes the metadata in an order that changes from
    call to call.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def read_adapter(data: bytes) -> AdapterFile:
    """An uploaded adapter, or one sentence that says what is wrong with it."""
    import safetensors
    import safetensors.torch

    if not data:
        raise ValueError(
            "adapter_file is missing: upload an adapter_model.safetensors, or choose to train a new adapter"
        )
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, KeyError):
        raise ValueError(
            "The adapter file is not a whole safetensors file; only safetensors are read, never pickles"
        ) from None
    pairs = paired(tensors)
    ranks = {len(a) for a, _ in pairs.values()}
    if len(ranks) > 1:
        raise ValueError(
            f"The adapter file mixes the ranks {', '.join(map(str, sorted(ranks)[:4]))}: only one rank for all layers"
            " is read here"
        )
    (rank,) = ranks
    if not 1 <= rank <= MOST_RANK:
        raise ValueError(f"The adapter file's rank must be from 1 to {MOST_RANK}, got {rank}")
    alpha, rank_stable = told_scale(header.get("__metadata__", {}))
    return AdapterFile(rank, alpha, rank_stable, pairs)


def paired(tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of the layer -> its A and B. Anything beside plain LoRA matrices is refused."""
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
        if side not in ("A", "B") or tensor.ndim != 2 or not name.startswith(PREFIX) or not name.endswith(".weight"):
            raise ValueError(
                "The adapter file must hold nothing but LoRA matrices as peft names them (…lora_A.weight,"
                f" …lora_B.weight), got {shown(name)}"
            )
        if not torch.isfinite(tensor.float()).all():
            raise ValueError("The adapter file holds numbers that are not finite, so nothing could be written with it")
        sides.setdefault(layer.removeprefix(PREFIX), {})[side] = tensor.float()
    if not sides:
        raise ValueError("The adapter file is empty: it holds no LoRA matrices")
    for layer, found in sides.items():
        if len(found) != 2 or found["A"].shape[0] != found["B"].shape[1]:
            raise ValueError(f"The adapter file has no matching pair of matrices A and B for {shown(layer)}")
    return {layer: (found["A"], found["B"]) for layer, found in sides.items()}


def told_scale(metadata: dict[str, str]) -> tuple[float | None, bool]:
    """Alpha and its kind from the config in the file's header, where there is one."""
    try:
        config = json.loads(metadata["adapter_config"])
        alpha = config["lora_alpha"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None, False
    if config.get("use_dora") or config.get("alpha_pattern"):
        raise ValueError(
            "The adapter file asks for DoRA or an alpha per layer: only plain LoRA with one alpha is read here"
        )
    fits = (
        isinstance(alpha, int | float)
        and not isinstance(alpha, bool)
        and math.isfinite(alpha)
        and 0 < abs(alpha) <= 1e4
    )
    return (float(alpha) if fits else None), config.get("use_rslora") is True


def wear(model: Any, adapter: AdapterFile, alpha: float, called: str = "") -> Any:
    """The model with an uploaded adapter, or one sentence if the two do not belong together."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for name, (a, b) in adapter.pairs.items():
        if name not in layers:
            raise ValueError(
                f"The adapter is for another model: it changes {shown(name)}, which this one does not have"
            )
        here, there = (layers[name].out_features, layers[name].in_features), (b.shape[0], a.shape[1])
        if here != there:
            raise ValueError(
                f"The adapter is for another model: {shown(name)} is {here[0]} x {here[1]} here and {there[0]} x"
                f" {there[1]} in the file"
            )
    adapted = adapt(model, adapter.rank, alpha, list(adapter.pairs), 0, called=called, use_rslora=adapter.rank_stable)
    with torch.no_grad():
        for name, layer in lora_layers(adapted).items():
            layer.lora_A["default"].weight.copy_(adapter.pairs[name][0])
            layer.lora_B["default"].weight.copy_(adapter.pairs[name][1])
    return adapted
