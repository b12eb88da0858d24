r"""The budget: what fine-tuning needs, kind by kind, computed from a model's shape before anything is loaded.

With $b$ bytes per number of the computation (4, or 2 for 16 bits), $n$ weights in a matrix of out x in:

| kind | bytes |
|---|---|
| weights of the layers' matrices | $4n$, $2n$, $n$ (int8) or $n/2$ (NF4); embeddings, output layer, norms and biases always $b$ each |
| constants, int8 | 4 per row |
| constants, NF4 | $4\lceil n/64 \rceil$ and a table of 64 bytes |
| constants, NF4 with double quantization | $\lceil n/64 \rceil + 4\lceil n/64/256 \rceil$ and tables of 64 + 1024 + 4 bytes |
| adapters, their gradients | $4\,r\,(\text{in} + \text{out})$, in fp32 |
| AdamW | 8 per trainable number, and 4 per tensor |

What a forward pass keeps for the backward pass is counted per token and layer from what each operation needs again
(width $C$, MLP $M$, queries $Q$, keys and values $K$, heads $H$, rank $r$; the base is frozen, so its matrices need
no inputs):

$$\text{fp32: } 4\,(4C + 2Q + 2K + 4M + H + 2 + 7r), \qquad
\text{16 bits: } 4\,(7C + Q + M + H + 2 + 7r) + 2\,(2Q + 2K + 3M).$$

The second is not half of the first: each adapter keeps a 32-bit copy of its input. On a CPU both agree with what is
weighed to the byte (tested).

Left out: anything an operation takes inside itself; a GPU's allocator, which gives blocks of 512 bytes.
Source: Dettmers et al. 2023, arXiv:2305.14314, section 3; transformers' Llama, peft and bitsandbytes, whose tensors
these are.
"""  # noqa: E501 (a table)

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from core.foundations.figures import Figure, Result
from core.qlora.memory import KINDS

PRECISIONS = {"fp32": "fp32", "fp16": "fp16", "int8": "int8", "nf4": "NF4", "nf4dq": "NF4 + double quantization"}
WEIGHT_BITS = {"fp32": 32, "fp16": 16, "int8": 8, "nf4": 4, "nf4dq": 4}
NOMINAL_BITS = WEIGHT_BITS | {"nf4": 4.5, "nf4dq": 4 + 8 / 64 + 32 / (64 * 256)}  # with the constants of full blocks
BLOCK, CONSTANTS_BLOCK = 64, 256
TABLES = {"nf4": 16 * 4, "nf4dq": 16 * 4 + 256 * 4 + 4}  # levels of 4 bits; levels of the 8-bit constants; their mean
OPTIMIZERS = {"adamw": "AdamW, states in 32 bits", "adamw8bit": "AdamW, states in 8 bits"}
CARDS = {"T4": 16, "RTX 4090": 24, "A100 or H100": 80}  # GB

# LLaMA of 2023 (Touvron et al., arXiv:2302.13971, table 2); Llama 2's 7B and 13B have the same shapes.
BIG = {
    "7B": (4096, 11008, 32, 32),
    "13B": (5120, 13824, 40, 40),
    "33B": (6656, 17920, 60, 52),
    "65B": (8192, 22016, 80, 64),
}


@dataclass(frozen=True)
class Parts:
    """A Llama's matrices and what else it holds, counted on a model without memory (torch's "meta" device)."""

    matrices: tuple[tuple[int, int], ...]  # (out, in) of the layers' Linear weights: these are quantized and adapted
    embeddings: int  # weights of the token embedding, and of the output layer where it is not the same
    norms: int  # weights of norms, and biases
    layers: int
    width: int
    mlp: int
    queries: int  # heads x head width
    keys: int  # key-value heads x head width
    heads: int
    head_width: int
    vocabulary: int

    @property
    def linear(self) -> int:
        return sum(rows * columns for rows, columns in self.matrices)

    @property
    def parameters(self) -> int:
        return self.linear + self.embeddings + self.norms


@dataclass(frozen=True)
class Load:
    """What fine-tuning does with the model: the settings that memory depends on."""

    batch: int
    context: int
    rank: int
    optimizer: str = "adamw"
    checkpointing: bool = False

    @property
    def tokens(self) -> int:
        return self.batch * self.context


def parts_of(config: Any) -> Parts:
    """Count a model of transformers from its configuration alone."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    output = model.get_output_embeddings()
    matrices = tuple(
        (layer.out_features, layer.in_features)
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and layer is not output
    )
    tables = {
        id(weight): weight.numel() for weight in (model.get_input_embeddings().weight, output.weight)
    }  # one where they are tied
    linear, embeddings = sum(rows * columns for rows, columns in matrices), sum(tables.values())
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Parts(
        matrices,
        embeddings,
        sum(weight.numel() for weight in model.parameters()) - linear - embeddings,
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads * head_width,
        config.num_key_value_heads * head_width,
        config.num_attention_heads,
        head_width,
        config.vocab_size,
    )


@cache
def big_parts(name: str) -> Parts:
    """LLaMA 7B to 65B, counted in a tenth of a second."""
    from transformers import LlamaConfig

    width, mlp, layers, heads = BIG[name]
    return parts_of(
        LlamaConfig(
            vocab_size=32_000,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            tie_word_embeddings=False,
        )
    )


# --- kind by kind -----------------------------------------------------------------------------------------------------


def number_bytes(precision: str) -> int:
    """Of everything that is not quantized, and of the computation."""
    return 4 if precision == "fp32" else 2


def weight_bytes(parts: Parts, precision: str) -> int:
    bits = WEIGHT_BITS[precision]
    return sum(math.ceil(rows * columns * bits / 8) for rows, columns in parts.matrices) + (
        parts.embeddings + parts.norms
    ) * number_bytes(precision)


def constant_bytes(parts: Parts, precision: str) -> int:
    if precision == "int8":
        return sum(4 * rows for rows, _ in parts.matrices)
    if precision not in TABLES:
        return 0
    blocks = [math.ceil(rows * columns / BLOCK) for rows, columns in parts.matrices]
    each = (n + 4 * math.ceil(n / CONSTANTS_BLOCK) if precision == "nf4dq" else 4 * n for n in blocks)
    return sum(each) + TABLES[precision] * len(parts.matrices)


def adapter_sizes(parts: Parts, rank: int) -> list[int]:
    """Numbers in every A and every B."""
    return [rank * side for rows, columns in parts.matrices for side in (columns, rows)]


def optimizer_bytes(sizes: Iterable[int], optimizer: str, device: str = "cpu") -> int:
    """Two numbers per trainable one.

    bitsandbytes leaves tensors under 4096 numbers in 32 bits; torch counts steps in a tensor, kept on the CPU.
    """
    if optimizer == "adamw":
        return sum(8 * size + (4 if device == "cpu" else 0) for size in sizes)
    large = [size for size in sizes if size >= 4096]
    tables = 2 * 256 * 4 if large else 0
    return (
        sum(8 * size for size in sizes if size < 4096)
        + sum(2 * size + 8 * math.ceil(size / 256) for size in large)
        + tables
    )


def layer_activation_bytes(parts: Parts, precision: str, rank: int) -> int:
    """What one layer keeps for its backward pass, per token."""
    c, q, k, m = parts.width, parts.queries, parts.keys, parts.mlp
    if precision == "fp32":
        return 4 * (4 * c + 2 * q + 2 * k + 4 * m + parts.heads + 2 + 7 * rank)
    kept = 4 * (7 * c + q + m + parts.heads + 2 + 7 * rank) + 2 * (2 * q + 2 * k + 3 * m)
    return kept + (2 * (2 * c + m) if precision == "int8" else 0)  # the int8 layer holds its inputs


def held_bytes(parts: Parts, precision: str, load: Load) -> int:
    """bitsandbytes' int8 layer holds its inputs without telling autograd: checkpointing cannot drop them, and they go
    last.
    """
    inputs = 2 * parts.width + parts.queries + parts.mlp  # of q k v, of gate and up; of o; of down
    return 2 * load.tokens * parts.layers * inputs if precision == "int8" and load.checkpointing else 0


def activation_bytes(parts: Parts, precision: str, load: Load) -> int:
    """What a forward pass keeps: the layers, the last norm, log-probabilities of all tokens, rotary tables, the loss.

    With checkpointing, one input per layer, from which the layer is computed again.
    """
    b, tokens = number_bytes(precision), load.tokens
    around = 4 * parts.vocabulary * tokens + 2 * load.context * parts.head_width * b + 8
    if load.checkpointing:
        last = 4 * (parts.width + 1) if b == 2 else 4  # the last norm's own 32-bit copy
        inputs = parts.layers + (1 if b == 4 else 0)
        return (
            tokens * (inputs * parts.width * b + last) + held_bytes(parts, precision, load) + around + 8 * load.context
        )
    first = (
        2 * parts.width if precision == "int8" else 0
    )  # the first layer's input needs no gradient, so it is not held
    return tokens * (parts.layers * layer_activation_bytes(parts, precision, load.rank) - first) + around


def head_bytes(parts: Parts, load: Load) -> int:
    """Short-lived at the start of the backward pass: gradients of the log-probabilities, twice, in 32 bits."""
    return 8 * parts.vocabulary * load.tokens


def matrix_bytes(parts: Parts, precision: str) -> int:
    """Short-lived in every layer: a quantized matrix back in 16 bits, to be multiplied with."""
    return 2 * max(rows * columns for rows, columns in parts.matrices) if precision in ("int8", *TABLES) else 0


def again_bytes(parts: Parts, precision: str, load: Load) -> int:
    """Short-lived with checkpointing: a layer that is computed again, and the gradients inside its MLP."""
    layer = layer_activation_bytes(
        parts, "fp32" if precision == "fp32" else "fp16", load.rank
    )  # int8's inputs are held already
    return load.tokens * (layer + 8 * parts.mlp) if load.checkpointing else 0


def budget(parts: Parts, precision: str, load: Load, device: str = "cpu") -> dict[str, int]:
    """Bytes by kind, the most of each at its own moment."""
    sizes = adapter_sizes(parts, load.rank)
    return {
        "weights": weight_bytes(parts, precision),
        "constants": constant_bytes(parts, precision),
        "adapters": 4 * sum(sizes),
        "gradients": 4 * sum(sizes),
        "optimizer": optimizer_bytes(sizes, load.optimizer, device),
        "activations": activation_bytes(parts, precision, load),
        "passing": max(head_bytes(parts, load), matrix_bytes(parts, precision), again_bytes(parts, precision, load)),
    }


def at_peak(parts: Parts, precision: str, load: Load, device: str = "cpu") -> dict[str, int]:
    """Bytes by kind at the largest moment of a step. Gradients come as activations go, so both are never there in full.

    That moment is the start of the backward pass, or its end; with checkpointing it may be the last layer to be
    computed again, when the others have their gradients, or the first, when the log-probabilities and the last norm are
    gone.
    """
    kinds, layers = budget(parts, precision, load, device), parts.layers
    moments = [
        {"gradients": 0, "passing": max(head_bytes(parts, load), matrix_bytes(parts, precision))},
        {"activations": 0, "passing": 0},
    ]
    if load.checkpointing:
        again, inputs = (
            again_bytes(parts, precision, load),
            kinds["activations"] - 4 * (parts.vocabulary + parts.width) * load.tokens,
        )
        moments.append({"activations": inputs, "gradients": 0, "passing": again})
        held = held_bytes(parts, precision, load)
        moments.append(
            {
                "activations": held + (inputs - held) // layers,
                "gradients": kinds["gradients"] * (layers - 1) // layers,
                "passing": again,
            }
        )
    return max((kinds | moment for moment in moments), key=lambda moment: sum(moment.values()))


def full_finetuning(parts: Parts) -> dict[str, int]:
    """Every weight trained in 16 bits: 2 bytes of weight, 2 of gradient, 8 of AdamW, 12 in all; activations not
    counted, as in the paper.
    """
    n = parts.parameters
    return {
        "weights": 2 * n,
        "constants": 0,
        "adapters": 0,
        "gradients": 2 * n,
        "optimizer": 8 * n,
        "activations": 0,
        "passing": 0,
    }


def itemised(parts: Parts, precision: str) -> tuple[tuple[str, int], ...]:
    """From the rule of thumb (all parameters x bits) to the bytes of weights and constants, item by item."""
    bits, b = WEIGHT_BITS[precision], number_bytes(precision)
    items = [(f"{parts.parameters:,} weights x {bits} bits", math.ceil(parts.parameters * bits / 8))]
    if bits < 8 * b:
        items.append((f"embedding, output: {8 * b} bits", parts.embeddings * b - parts.embeddings * bits // 8))
        items.append((f"norms: {8 * b} bits", parts.norms * b - parts.norms * bits // 8))
    if precision == "int8":
        items.append(("absmax, 32 bits per row", constant_bytes(parts, precision)))
    if precision in TABLES:
        exact = parts.linear / BLOCK
        absmax = 4 * exact if precision == "nf4" else exact * (1 + 4 / CONSTANTS_BLOCK)
        tables = TABLES[precision] * len(parts.matrices)
        items.append((f"absmax, {'32' if precision == 'nf4' else '8'} bits per {BLOCK}", math.floor(absmax)))
        items.append((f"{len(parts.matrices)} tables of levels", tables))
    whole = weight_bytes(parts, precision) + constant_bytes(parts, precision)
    rest = whole - sum(size for _, size in items)
    return (*items, *((("last blocks, not full", rest),) if rest else ()))


def nominal_gigabytes(parameters: float, precision: str) -> float:
    """The rule of thumb with the constants of full blocks: what papers and cards quote. GB is 1e9 bytes."""
    return parameters * NOMINAL_BITS[precision] / 8 / 1e9


# --- models that do not fit here --------------------------------------------------------------------------------------


def row(kinds: dict[str, int]) -> tuple[float, ...]:
    return tuple(float(kinds[kind]) for kind in KINDS)


def big_bars(name: str, load: Load) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Ways to fine-tune LLaMA, and the peak of each by kind: all weights, then LoRA on a base in every precision."""
    parts = big_parts(name)
    return (
        ("full", row(full_finetuning(parts))),
        *((precision, row(at_peak(parts, precision, load, "cuda"))) for precision in PRECISIONS),
    )


BIG_FP32 = Figure("LLaMA {size}, weights in fp32", "GB", "baseline", label="computed")
BIG_NF4 = Figure("LLaMA {size}, weights in NF4 + double quantization", "GB", "baseline", label="computed")
BIG_WHOLE = Figure(
    "LLaMA {size} fine-tuned whole in 16 bits",
    "GB",
    "baseline",
    "12 bytes per weight (2 weight, 2 gradient, 8 AdamW), without activations; mixed precision with fp32 master weights"
    " takes 16. The QLoRA paper says over 780 GB for 65B",
    "computed",
    True,
)
BIG_QLORA = Figure(
    "LLaMA {size} fine-tuned with QLoRA", "GB", "baseline", "fine-tuned whole in 16 bits", "computed", True
)


def big_figures(name: str, load: Load) -> tuple[Result, ...]:
    """What the rounded size gives for the big model, beside its real shape. All computed."""
    parts, rounded = big_parts(name), float(name.removesuffix("B")) * 1e9
    quantized = (weight_bytes(parts, "nf4dq") + constant_bytes(parts, "nf4dq")) / 1e9
    full, peak = sum(full_finetuning(parts).values()) / 1e9, sum(at_peak(parts, "nf4dq", load, "cuda").values()) / 1e9
    return (
        BIG_FP32.of(size=name)(
            weight_bytes(parts, "fp32") / 1e9,
            rounded * 4 / 1e9,
            source=f"4 bytes x {name}, as often quoted; exact: {parts.parameters:,} weights",
        ),
        BIG_NF4.of(size=name)(
            quantized,
            nominal_gigabytes(rounded, "nf4dq"),
            source=f"4.127 bits x {name}; exact: embeddings, output layer and norms stay in 16 bits",
        ),
        BIG_WHOLE.of(size=name)(full, 12 * rounded / 1e9),
        BIG_QLORA.of(size=name)(
            peak,
            full,
            source=f"{BIG_QLORA.source}; here {load.batch} x {load.context} tokens, rank {load.rank}, by formula",
        ),
    )
