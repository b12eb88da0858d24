"""Real models and cards, as their makers publish them: what the formulas of `big` are given.

Layers, heads and widths are those of the models' config.json (GPT-3: Brown et al. 2020, Table 2.1); the numbers of
weights follow from them. Cards: memory in GB (1e9 bytes) and its rate in GB/s, from their data sheets.
"""

from dataclasses import dataclass

from core.foundations.published_shapes import SHAPES
from core.kv_cache.costs import bytes_per_token


@dataclass(frozen=True)
class Published:
    """A model, as far as its cache needs to know it."""

    name: str
    kind: str  # of its attention: MHA, GQA, MQA or MLA
    weights: float  # in all
    layers: int
    kept_heads: int  # of keys and values; MLA keeps one row for all heads
    head_width: int
    learned: int  # tokens: the longest text it was made for
    latent: int = 0  # MLA: numbers per token and layer, instead of keys and values
    window: int = 0  # tokens: what is older is forgotten
    active: float = 0.0  # weights that one token needs, where experts are chosen
    experts: int = 0  # in each layer, of which a token chooses `chosen`
    chosen: int = 0

    def bytes_per_token(self, number_bytes: float = 2.0) -> float:
        """2 L G D b, or for a latent cache L (d_c + d_rope) b."""
        if self.latent:
            return self.layers * self.latent * number_bytes
        return bytes_per_token(self.layers, self.kept_heads, self.head_width, number_bytes)

    def weights_read(self, batch: int) -> float:
        """Weights that a decoding step of `batch` texts is expected to read, if every text chooses its experts freely.

        A step of one text reads `active` weights. Of those in the experts, the fraction (1 - c/E)^B is not read at all.
        """
        if not self.experts:
            return self.weights
        share = self.chosen / self.experts
        in_experts = (self.weights - self.active) / (1 - share)
        return self.weights - in_experts * (1 - share) ** batch

    def cache_bytes(self, tokens: float, batch: int = 1, number_bytes: float = 2.0) -> float:
        """Of `batch` texts of `tokens` tokens."""
        return self.bytes_per_token(number_bytes) * batch * (min(tokens, self.window) if self.window else tokens)


def dense(name: str, published: str, learned: int, window: int = 0) -> Published:
    """A shape that other topics know, too."""
    shape = SHAPES[published]
    kind = "MHA" if shape.key_heads == shape.heads else "GQA"
    return Published(
        name, kind, shape.parameters, shape.layers, shape.key_heads, shape.head_width, learned, window=window
    )


MODELS = {
    "gpt2": Published("GPT-2", "MHA", 124_439_808, 12, 12, 64, 1024),
    "opt-13b": Published("OPT-13B", "MHA", 12_853_473_280, 40, 40, 128, 2048),
    "gpt3": Published("GPT-3", "MHA", 174_604_259_328, 96, 96, 128, 2048),
    "llama-2-7b": dense("Llama-2-7B", "llama-2-7b", 4096),
    "llama-2-13b": dense("Llama-2-13B", "llama-2-13b", 4096),
    "llama-2-70b": dense("Llama-2-70B", "llama-2-70b", 4096),
    "llama-3-8b": dense("Llama-3-8B", "llama-3-8b", 8192),
    "llama-3.1-405b": dense("Llama-3.1-405B", "llama-3-405b", 131_072),
    "mistral-7b": dense("Mistral-7B v0.1", "mistral-7b", 32_768, window=4096),
    "falcon-7b": Published("Falcon-7B", "MQA", 6_921_720_704, 32, 1, 64, 2048),
    "deepseek-v3": Published(
        "DeepSeek-V3", "MLA", 671_026_404_352, 61, 1, 0, 163_840, latent=512 + 64, active=37e9, experts=256, chosen=8
    ),
}


@dataclass(frozen=True)
class Card:
    name: str
    gigabytes: float
    gigabytes_per_second: float


CARDS = {
    "t4": Card("T4", 16, 320),
    "rtx4090": Card("RTX 4090", 24, 1008),
    "a100": Card("A100", 80, 2039),
    "h100": Card("H100", 80, 3350),
    "h200": Card("H200", 141, 4800),
}
RULER = (("T4", 16.0), ("RTX 4090", 24.0), ("H100", 80.0), ("H200", 141.0), ("8 H100", 640.0), ("8 H200", 1128.0))  # GB
