"""Each published model in small, as transformers builds it, so that its own cache can be weighed.

Small are the number of layers (2), the MLPs, the vocabulary and the width between the layers; where a model's heads
make up its width (GPT, OPT, Falcon), also their number. What a token leaves in a layer's cache per head is as in the
real model.
"""

from dataclasses import dataclass
from typing import Any

import torch

from core.kv_cache.cache import storage_bytes
from core.kv_cache.published import Published

LAYERS, PREFILL, WINDOW = 2, 8, 12
SMALL: dict[str, Any] = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass(frozen=True)
class Scaled:
    """A config of transformers, and how many times more the real model keeps."""

    config: Any
    times: float
    window: int = 0


def scaled(key: str, told: Published) -> Scaled:
    """The small model of one of MODELS."""
    from transformers import FalconConfig, GPT2Config, LlamaConfig, MistralConfig, OPTConfig

    times = told.layers / LAYERS
    slim = SMALL | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": LAYERS}
    if key.startswith("gpt"):
        heads = 12
        config: Any = GPT2Config(
            **SMALL, n_embd=heads * told.head_width, n_layer=LAYERS, n_head=heads, n_inner=64, n_positions=64
        )
        return Scaled(config, times * told.kept_heads / heads)
    if key.startswith("opt"):
        heads, width = 5, 5 * told.head_width
        config = OPTConfig(
            **SMALL,
            hidden_size=width,
            word_embed_proj_dim=width,
            num_hidden_layers=LAYERS,
            num_attention_heads=heads,
            ffn_dim=64,
        )
        return Scaled(config, times * told.kept_heads / heads)
    if key.startswith("falcon"):
        return Scaled(
            FalconConfig(
                **SMALL,
                hidden_size=512,
                num_hidden_layers=LAYERS,
                num_attention_heads=8,
                ffn_hidden_size=64,
                multi_query=True,
            ),
            times,
        )
    if key.startswith("deepseek"):
        return Scaled(latent_config(told, slim), times)
    heads = told.kept_heads * (1 if told.kind == "MHA" else 4)  # of queries, which the cache does not see
    slim |= {
        "hidden_size": 2 * heads,
        "num_attention_heads": heads,
        "num_key_value_heads": told.kept_heads,
        "head_dim": told.head_width,
    }
    if told.window:
        return Scaled(MistralConfig(**slim, sliding_window=WINDOW), times, WINDOW)
    return Scaled(LlamaConfig(**slim), times)


def latent_config(told: Published, slim: dict[str, Any]) -> Any:
    """A small DeepSeek-V3 with the real number of elements per row of its latent cache."""
    from transformers import DeepseekV3Config

    latent: dict[str, Any] = {
        "kv_lora_rank": told.latent - 64,
        "qk_rope_head_dim": 64,
        "q_lora_rank": None,
        "first_k_dense_replace": LAYERS,
    }
    return DeepseekV3Config(
        **slim, **latent, num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, moe_intermediate_size=8
    )


@torch.inference_mode()
def weighed(key: str, told: Published, tokens: int) -> float:
    """Bytes per kept token that the real model's DynamicCache would hold in 16 bits: weighed on the small one, times
    what was left out.
    """
    from transformers import AutoModelForCausalLM, DynamicCache

    small = scaled(key, told)
    model: Any = AutoModelForCausalLM.from_config(small.config, dtype=torch.bfloat16).eval()
    cache: Any = DynamicCache(config=small.config)
    for count in [min(PREFILL, tokens)] + [1] * (tokens - PREFILL):  # as in use: a prompt at once, then token by token
        model(input_ids=torch.zeros((1, count), dtype=torch.long), past_key_values=cache, use_cache=True)
    held = storage_bytes(part for layer in cache.layers for part in (layer.keys, layer.values))
    return small.times * held / (min(tokens, small.window) if small.window else tokens)
