"""Shapes of big models as they were published, built by transformers on the meta device: all shapes, no memory.

Each entry is what the model's own config.json says (GPT-3: table 2.1 of its paper) and nothing that could be counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from core.foundations.published_shapes import SHAPES

EMBEDDINGS = "everything"
TARGETS = {
    "qv": "q and v (the paper's choice)",
    "qkvo": "q, k, v and o (the notebook's)",
    "mlp": "the matrices of the MLP",
    "linear": "all matrices in the layers",
    EMBEDDINGS: "all of them, and the embeddings whole",
}


@dataclass(frozen=True)
class Family:
    """An architecture of transformers: its classes, where its layers are, and what its matrices are called inside a
    layer.
    """

    config: str
    model: str
    layers: str
    qv: tuple[str, ...]
    qkvo: tuple[str, ...]
    mlp: tuple[str, ...]
    embedding: str
    head: str = "lm_head"
    transposed: bool = False  # GPT-2's Conv1D keeps (in, out) where nn.Linear keeps (out, in)

    def matrices(self, targets: str) -> tuple[str, ...]:
        return {"qv": self.qv, "qkvo": self.qkvo, "mlp": self.mlp}.get(targets, self.qkvo + self.mlp)

    def embeddings(self, model: Any) -> tuple[str, ...]:
        """The embedding, and the output layer where it has weights of its own."""
        own_head = hasattr(model, self.head) and not model.config.tie_word_embeddings
        return (self.embedding, self.head) if own_head else (self.embedding,)


ATTENTION = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.k_proj", "self_attn.o_proj")
GATED_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
BERT_MLP = ("intermediate.dense", "output.dense")


def llama_like(name: str) -> Family:
    return Family(
        f"{name}Config", f"{name}ForCausalLM", "model.layers", ATTENTION[:2], ATTENTION, GATED_MLP, "embed_tokens"
    )


def bert_like(name: str, suffix: str) -> Family:
    """The module names of an encoder like BERT."""
    qkv = tuple(f"attention.self.{part}{suffix}" for part in ("query", "value", "key"))
    return Family(
        f"{name}Config",
        f"{name}Model",
        "encoder.layer",
        qkv[:2],
        (*qkv, "attention.output.dense"),
        BERT_MLP,
        "word_embeddings",
    )


LLAMA, MISTRAL, QWEN2 = llama_like("Llama"), llama_like("Mistral"), llama_like("Qwen2")
ROBERTA, DEBERTA = bert_like("Roberta", ""), bert_like("DebertaV2", "_proj")
GPT2 = Family(
    "GPT2Config",
    "GPT2LMHeadModel",
    "transformer.h",
    ("attn.c_attn",),
    ("attn.c_attn", "attn.c_proj"),
    ("mlp.c_fc", "mlp.c_proj"),
    "wte",
    transposed=True,
)


@dataclass(frozen=True)
class Published:
    """A model's name and the numbers of its configuration."""

    label: str
    family: Family
    numbers: Mapping[str, Any]


def known(name: str) -> dict[str, Any]:
    """A shape that other topics know, too."""
    told = SHAPES[name]
    return shape(told.width, told.mlp, told.layers, told.heads, told.key_heads, told.vocabulary)


def shape(
    width: int, mlp: int, layers: int, heads: int, key_value_heads: int, vocabulary: int, tied: bool = False
) -> dict[str, Any]:
    """The settings of transformers' config that decide how many weights there are."""
    told = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
    }
    return told | {"num_key_value_heads": key_value_heads, "tie_word_embeddings": tied}


def encoder(width: int, mlp: int, layers: int, heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    """The settings of an encoder by its published numbers."""
    told = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
    }
    return told | more


MODELS = {
    "llama-2-7b": Published("Llama 2, 7B", LLAMA, known("llama-2-7b")),
    "llama-2-13b": Published("Llama 2, 13B", LLAMA, known("llama-2-13b")),
    "llama-2-70b": Published("Llama 2, 70B", LLAMA, known("llama-2-70b")),
    "llama-3-8b": Published("Llama 3, 8B", LLAMA, known("llama-3-8b")),
    "mistral-7b": Published("Mistral, 7B", MISTRAL, known("mistral-7b")),
    "qwen2.5-7b": Published("Qwen2.5, 7B", QWEN2, shape(3584, 18944, 28, 28, 4, 152064)),
    "qwen2.5-0.5b": Published("Qwen2.5, 0.5B", QWEN2, shape(896, 4864, 24, 14, 2, 151936, tied=True)),
    "qwen1.5-1.8b": Published("Qwen1.5, 1.8B", QWEN2, shape(2048, 5504, 24, 16, 16, 151936)),
    "gpt-3": Published(
        "GPT-3, 175B (its shape)", GPT2, {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}
    ),
    "gpt-2": Published("GPT-2, 124M", GPT2, {"n_embd": 768, "n_layer": 12, "n_head": 12}),
    "roberta-base": Published(
        "RoBERTa base, 125M", ROBERTA, encoder(768, 3072, 12, 12, 50265, max_position_embeddings=514, type_vocab_size=1)
    ),
    "roberta-large": Published(
        "RoBERTa large, 355M",
        ROBERTA,
        encoder(1024, 4096, 24, 16, 50265, max_position_embeddings=514, type_vocab_size=1),
    ),
    "deberta-xxl": Published(
        "DeBERTa XXL, 1.5B",
        DEBERTA,
        encoder(
            1536,
            6144,
            48,
            24,
            128100,
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=256,
            max_relative_positions=-1,
            position_biased_input=False,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type="p2c|c2p",
            conv_kernel_size=3,
            conv_act="gelu",
        ),
    ),
}


def build(told: Published) -> Any:
    """The model on the meta device."""
    import transformers

    config = getattr(transformers, told.family.config)(**told.numbers)
    with torch.device("meta"):
        return getattr(transformers, told.family.model)(config)
