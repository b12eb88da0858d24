"""Weights: files of our own, files of the user's, and a GPT-2 of the hub's. Safetensors only, always.

A model file of this app is one .safetensors whose header carries the model's config as JSON, so one file is enough to
bring a model back. Nothing is unpickled and no code from a hub runs. Loaded models share one cache with a byte limit;
the least recently used one goes first.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.foundations.machine import this_machine
from core.foundations.transformer import Shape, Transformer

SHIPPED = Path(__file__).parents[2] / "assets" / "weights"
MODEL_FILE_BYTES = 32_000_000  # largest file a user may upload
MOST_PARAMETERS = 16_000_000  # largest uploaded model
LATER = ("kv_heads", "hidden", "theta")  # a Llama's: an uploaded model is none
LARGEST = 1e6  # a weight beyond it makes nothing but overflows


@dataclass(frozen=True)
class ModelFile:
    """What a model file says: a shape, an alphabet, where it learned, and tensors that may or may not fit."""

    shape: Shape
    symbols: str  # the characters the model knows, in the order of their ids
    corpus: str  # the name of the text it learned from
    weights: dict[str, Tensor]

    def build(self, device: str = "cpu") -> Transformer:
        """The model in float32, ready to write."""
        model = Transformer(self.shape)
        try:
            model.load_state_dict({name: tensor.float() for name, tensor in self.weights.items()})
        except RuntimeError:
            wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
            got = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
            wrong = next(name for name in sorted(wanted | got) if wanted.get(name) != got.get(name))
            raise ValueError(
                f"The model file does not fit its own config: {wrong} should be {size(wanted.get(wrong))}, it is"
                f" {size(got.get(wrong))}"
            ) from None
        return model.eval().to(device)


def size(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def to_bytes(model: Transformer, symbols: str, corpus: str, dtype: torch.dtype = torch.float32) -> bytes:
    """A model as one safetensors file with its config in the header."""
    import safetensors.torch

    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(weights, metadata={"config": config_json(model.shape, symbols, corpus)})


def config_json(shape: Shape, symbols: str, corpus: str) -> str:
    return json.dumps(shape.as_dict() | {"symbols": symbols, "corpus": corpus}, ensure_ascii=False)


def opened(data: bytes, what: str = "model file") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and what its header says; a ValueError of one sentence if it is none.

    what: the file is called in that sentence.
    """
    import safetensors
    import safetensors.torch

    if len(data) > MODEL_FILE_BYTES:
        raise ValueError(f"The {what} must be at most {MODEL_FILE_BYTES / 1e6:.0f} MB, got {len(data) / 1e6:.1f} MB")
    try:
        weights = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, KeyError):
        raise ValueError(
            f"The {what} is not a whole safetensors file; only safetensors are read, never pickles"
        ) from None
    return weights, header.get("__metadata__") or {}


def from_bytes(data: bytes) -> ModelFile:
    """Read a model file, trusting nothing in it: every failure is one sentence."""
    weights, header = opened(data)
    try:
        config = json.loads(header["config"])
        shape = Shape(
            **{
                field.name: typed(config[field.name], type(field.default), field.name)
                for field in fields(Shape)
                if field.name not in LATER
            }
        )
        symbols, corpus = typed(config["symbols"], str, "symbols"), typed(config["corpus"], str, "corpus")
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError):
        raise ValueError(
            "The model file carries no config of this app: upload a model.safetensors that was downloaded here"
        ) from None
    if shape.dialect == "llama":
        raise ValueError("The model file's config is wrong: dialect must be modern or gpt2, got 'llama'")
    check_shape(shape, symbols)
    if not all(torch.isfinite(tensor.float()).all() for tensor in weights.values()):
        raise ValueError("The model file holds numbers that are not finite, so it cannot write")
    if any(tensor.numel() and tensor.float().abs().max() > LARGEST for tensor in weights.values()):
        raise ValueError(f"The model file holds numbers beyond {LARGEST:,.0f}, with which nothing can be computed")
    return ModelFile(shape, symbols, corpus, weights)


def typed(value: object, wanted: type, name: str) -> Any:
    wanted = int if wanted.__name__ == "_MISSING_TYPE" else wanted  # Shape.vocabulary has no default
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise ValueError(f"The model file's config is wrong: {name} must be {wanted.__name__}, got {str(value)[:20]!r}")
    return value


def check_shape(shape: Shape, symbols: str) -> None:
    """Refuse a shape that would not fit before anything of its size is allocated."""
    limits = {"vocabulary": 5_000, "n_layer": 24, "n_head": 64, "width": 1024, "context": 4096}
    for name, high in limits.items():
        if not 1 <= getattr(shape, name) <= high:
            raise ValueError(
                f"The model file's config is wrong: {name} must be from 1 to {high}, got"
                f" {str(getattr(shape, name))[:20]}"
            )
    if shape.matrix_parameters > MOST_PARAMETERS:
        raise ValueError(
            f"The model may have at most {MOST_PARAMETERS:,} parameters in its layers, got {shape.matrix_parameters:,}"
        )
    if any("\ud800" <= symbol <= "\udfff" for symbol in symbols):
        raise ValueError("The model file's config is wrong: its symbols hold half of a character")
    if len(set(symbols)) != shape.vocabulary or len(symbols) != shape.vocabulary:
        raise ValueError(
            f"The model file's config is wrong: it names {len(set(symbols))} characters for a vocabulary of"
            f" {shape.vocabulary}"
        )


def shipped(name: str) -> ModelFile:
    """A checkpoint of this repository, by name; its card is in assets/README.md."""
    return from_bytes((SHIPPED / f"{name}.safetensors").read_bytes())


def gpt2_from_folder(folder: Path) -> Transformer:
    """A GPT-2 in the hub's format as our own transformer: the same numbers, the linear layers transposed."""
    import safetensors.torch

    config = json.loads((folder / "config.json").read_text())
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    shape = Shape(
        config["vocab_size"],
        config["n_layer"],
        config["n_head"],
        config["n_embd"],
        config["n_positions"],
        "gpt2",
        bias=True,
        tied=True,
    )
    model = Transformer(shape)
    model.load_state_dict(
        from_gpt2({name.removeprefix("transformer."): tensor for name, tensor in weights.items()}, shape.n_layer)
    )
    return model.eval()


def from_gpt2(weights: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Names and layout of GPT-2's weights -> ours. GPT-2 stores its matrices as (in, out), torch as (out, in)."""
    ours = {"embed.weight": weights["wte.weight"], "place.weight": weights["wpe.weight"]}
    ours |= {f"norm.{part}": weights[f"ln_f.{part}"] for part in ("weight", "bias")}
    names = {
        "ln_1": "norm_1",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.out",
        "ln_2": "norm_2",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
    }
    for layer in range(n_layer):
        for theirs, mine in names.items():
            for part in ("weight", "bias"):
                tensor = weights[f"h.{layer}.{theirs}.{part}"]
                ours[f"blocks.{layer}.{mine}.{part}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return ours


def llama_from_folder(folder: Path, context: int) -> Transformer:
    """A Llama in the hub's format as our own transformer, in float32; context: the most tokens it will look at."""
    import safetensors.torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        config["vocab_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["hidden_size"],
        context,
        "llama",
        tied=config["tie_word_embeddings"],
        kv_heads=config["num_key_value_heads"],
        hidden=config["intermediate_size"],
        theta=config["rope_parameters"]["rope_theta"],
    )
    model = Transformer(shape, seed=None)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    ours = from_llama({name.removeprefix("model."): tensor.float() for name, tensor in weights.items()}, shape)
    model.load_state_dict(ours, assign=True)
    return model.requires_grad_(False).eval()


def from_llama(weights: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Names and layout of a Llama's weights -> ours: q, k and v in one matrix, gate and up in one.

    The hub's rotary positions turn the pairs (j, j + D/2) of a head, ours (2j, 2j + 1): q and k have their rows moved.
    """

    def paired(matrix: Tensor, heads: int) -> Tensor:
        return matrix.view(heads, 2, -1, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)

    ours = {"embed.weight": weights["embed_tokens.weight"], "norm.weight": weights["norm.weight"]}
    if not shape.tied:
        ours["head.weight"] = weights["lm_head.weight"]
    for layer in range(shape.n_layer):
        mine, theirs = f"blocks.{layer}", f"layers.{layer}"
        q, k, v, out = (weights[f"{theirs}.self_attn.{name}_proj.weight"] for name in "qkvo")
        gate, up, down = (weights[f"{theirs}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        ours |= {
            f"{mine}.norm_1.weight": weights[f"{theirs}.input_layernorm.weight"],
            f"{mine}.attention.qkv.weight": torch.cat((paired(q, shape.n_head), paired(k, shape.kept_heads), v)),
            f"{mine}.attention.out.weight": out,
            f"{mine}.norm_2.weight": weights[f"{theirs}.post_attention_layernorm.weight"],
            f"{mine}.up.weight": torch.cat((gate, up)),
            f"{mine}.down.weight": down,
        }
    return ours


class ModelCache:
    """Loaded things by name, up to a number of bytes; the least recently used goes first."""

    def __init__(self, most_bytes: float) -> None:
        import cachetools

        self.held: Any = cachetools.LRUCache(most_bytes, getsizeof=lambda entry: entry[1])
        self.lock = threading.RLock()

    def get(self, name: str, load: Callable[[], Any], nbytes: Callable[[Any], int]) -> Any:
        with self.lock:
            if name in self.held:
                return self.held[name][0]
            thing = load()
            if nbytes(thing) <= self.held.maxsize:
                self.held[name] = (thing, nbytes(thing))
            return thing


@cache
def models() -> ModelCache:
    """12 GB (1e9) on a GPU of 16 GB, three quarters of a smaller one, an eighth of the memory without a GPU."""
    machine = this_machine()
    return ModelCache(min(12e9, 0.75 * machine.vram_gib * 2**30) if machine.gpu else machine.ram_gib * 2**30 / 8)


def model_bytes(model: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
