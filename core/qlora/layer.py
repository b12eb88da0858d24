"""One layer: a matrix read out of a model's files, and what bitsandbytes keeps of it, tensor by tensor.

What is kept is read back by our own `dequantise`: bitsandbytes 0.50 on a CPU misreads a block that goes on in the next
row.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.foundations.base_model import folder_of
from core.qlora.codes import Quantised, code_of, dequantise_constants, packed, quantise, quantise_constants, unpacked

MOST_WEIGHTS = 2**20  # of a larger layer, the first rows are looked at
ONE, EIGHT, SECOND, MEAN = "constants", "constants, 8 bits", "their constants", "their mean"
TABLE, SECOND_TABLE = "table of levels", "table of theirs"


def load_matrix(model: str, layer: int, matrix: str) -> Generator[None, None, Tensor]:
    """One matrix out of the model's files, in float32, without loading the rest; yields while a model is fetched."""
    folder = yield from folder_of(model)
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    if layer > layers:
        raise ValueError(f"layer must be at most {layers} for this model, got {layer}")
    part = "self_attn" if matrix in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
    weight = one_tensor(folder, f"model.layers.{layer - 1}.{part}.{matrix}.weight").float()
    rows = MOST_WEIGHTS // weight.shape[1] // 64 * 64  # whole blocks, if the width is a multiple of 64
    return weight[:rows] if weight.numel() > MOST_WEIGHTS else weight


def one_tensor(folder: Path, name: str) -> Tensor:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    file = json.loads(index.read_text(encoding="utf-8"))["weight_map"][name] if index.exists() else "model.safetensors"
    with safe_open(folder / file, "pt") as tensors:
        return tensors.get_tensor(name)


# --- what bitsandbytes stores -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """What the library keeps of a tensor, read back into our terms, and its tensors by name for the scales."""

    quantised: Quantised
    absmax: Tensor  # as it will be used: after double quantization, if there is any
    small: Tensor  # the constants' own 8-bit numbers; empty without double quantization
    tensors: tuple[tuple[str, Tensor], ...]


def by_library(weight: Tensor, kind: str, block: int, double: bool) -> Stored:
    return (four_bits if kind in ("nf4", "fp4") else even_steps)(weight, kind, block, double)


def four_bits(weight: Tensor, kind: str, block: int, double: bool) -> Stored:
    """NF4 and FP4: two numbers to a byte, and a state that holds the constants."""
    import bitsandbytes.functional as library

    bytes_, state = library.quantize_4bit(weight, blocksize=block, compress_statistics=double, quant_type=kind)
    absmax, small, tensors = state.absmax, torch.empty(0, dtype=torch.uint8), [("codes", bytes_)]
    if double:
        second, small = state.state2, state.absmax
        absmax = (
            second.code[small.long()] * second.absmax.repeat_interleave(second.blocksize)[: len(small)] + state.offset
        )
        tensors += [
            (EIGHT, small),
            (SECOND, second.absmax),
            (MEAN, state.offset),
            (TABLE, state.code),
            (SECOND_TABLE, second.code),
        ]
    else:
        tensors += [(ONE, absmax), (TABLE, state.code)]
    return Stored(
        Quantised(unpacked(bytes_), absmax, code_of(kind), block, tuple(weight.shape)), absmax, small, tuple(tensors)
    )


def even_steps(weight: Tensor, kind: str, block: int, double: bool) -> Stored:
    """int8 and int4: the library's blockwise routine finds the numbers. Packing int4 and quantizing the constants is
    ours.
    """
    import bitsandbytes.functional as library

    code = code_of(kind)
    table = torch.cat(
        [code.levels, torch.full((256 - len(code.levels),), 2.0)]
    )  # it wants 256 levels; nothing is near a 2
    numbers, state = library.quantize_blockwise(weight, code=table, blocksize=block)
    numbers, absmax, small = numbers.flatten(), state.absmax, torch.empty(0, dtype=torch.uint8)
    tensors = [("codes", packed(numbers) if code.bits == 4 else numbers)]
    if double:
        ours = quantise_constants(absmax)
        absmax, small = dequantise_constants(ours), ours.numbers
        tensors += [
            (EIGHT, small),
            (SECOND, ours.absmax),
            (MEAN, ours.mean),
            (TABLE, code.levels),
            (SECOND_TABLE, code_of("dynamic8").levels),
        ]
    else:
        tensors += [(ONE, absmax), (TABLE, code.levels)]
    return Stored(Quantised(numbers, absmax, code, block, tuple(weight.shape)), absmax, small, tuple(tensors))


def differing(weight: Tensor, stored: Stored, kind: str, double: bool) -> int:
    """How many numbers, of weights and of constants, our own quantizer stores otherwise."""
    ours = quantise(weight, kind, stored.quantised.block)
    different = int((ours.numbers != stored.quantised.numbers).sum())
    return different + (int((quantise_constants(ours.absmax).numbers != stored.small).sum()) if double else 0)
