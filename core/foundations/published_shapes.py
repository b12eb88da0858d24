r"""Shapes of big models as they were published: what a config.json or a paper's table says, and the number of weights
that follows.

With $L$ layers of width $h$, $a$ heads, $k$ heads of keys and values, an MLP of width $f$ and $V$ words, a layer of
Llama's kind has

$$\underbrace{2h^2 + 2h^2 k/a}_{\text{attention}} + \underbrace{3hf}_{\text{MLP with a gate}} +
\underbrace{2h}_{\text{norms}}$$

weights; with experts the MLP is there $E$ times, beside a router of $hE$, and a token passes through $c$ of them. A
layer of GPT's kind has an MLP of two matrices, and biases: for $k = a$ and $f = 4h$ that is $12h^2 + 13h$. The
embedding adds $Vh$, an output layer of its own $Vh$ more, learned positions $h$ each, the last norm $h$ or, with
biases, $2h$.

Source: the models' own config.json; GPT-3: Brown et al. 2020, table 2.1; Megatron: Narayanan et al. 2021,
arXiv:2104.04473, table 1, and Korthikanti et al. 2022, arXiv:2205.05198, table 3 (22B).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer without its weights."""

    name: str
    dialect: Literal[
        "gpt", "llama"
    ]  # gpt: LayerNorm, biases, GELU, learned positions; llama: RMSNorm, no biases, SwiGLU, rotary
    layers: int
    width: int
    heads: int
    key_heads: int
    mlp: int
    vocabulary: int
    tied: bool = False  # the output layer is the embedding again
    positions: int = 0  # learned ones
    experts: int = 0  # MLPs in each layer, of which a token passes through `chosen`; 0: one MLP
    chosen: int = 0

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def attention_matrices(self) -> int:
        """Q and the output h^2 each, K and V h^2 k/a each."""
        return 2 * self.width**2 + 2 * self.width * self.key_heads * self.head_width

    @property
    def mlp_matrices(self) -> int:
        """Of one MLP, or of one expert."""
        return (3 if self.dialect == "llama" else 2) * self.width * self.mlp

    @property
    def split_biases(self) -> int:
        """Biases that are as long as a matrix is split: of Q, K and V, and inside the MLP."""
        if self.dialect == "llama":
            return 0
        return self.width + 2 * self.key_heads * self.head_width + max(1, self.experts) * self.mlp

    @property
    def whole_vectors(self) -> int:
        """Norms, biases of the two output matrices, and the router: they are as long as h and never split."""
        if self.dialect == "llama":
            return 2 * self.width + self.experts * self.width
        return 4 * self.width + self.width + max(1, self.experts) * self.width + self.experts * self.width

    def layer_matrices(self, active: bool = False) -> int:
        """active: only what one token is multiplied with."""
        mlps = self.chosen if active and self.experts else max(1, self.experts)
        return self.attention_matrices + mlps * self.mlp_matrices

    @property
    def layer_parameters(self) -> int:
        return self.layer_matrices() + self.split_biases + self.whole_vectors

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.width

    @property
    def last_norm(self) -> int:
        return self.width if self.dialect == "llama" else 2 * self.width

    @property
    def parameters(self) -> int:
        tables = (1 if self.tied else 2) * self.embedding + self.positions * self.width
        return self.layers * self.layer_parameters + tables + self.last_norm

    @property
    def active_parameters(self) -> int:
        """All but the experts that a token does not pass through."""
        return self.parameters - self.layers * max(0, self.experts - self.chosen) * self.mlp_matrices


def llama(
    name: str,
    layers: int,
    width: int,
    heads: int,
    key_heads: int,
    mlp: int,
    vocabulary: int,
    tied: bool = False,
    **more: int,
) -> ModelShape:
    """A model of the Llama family: grouped keys, a gated MLP, no learned positions."""
    return ModelShape(name, "llama", layers, width, heads, key_heads, mlp, vocabulary, tied, **more)


def gpt(name: str, layers: int, width: int, heads: int, vocabulary: int = 51_200, positions: int = 2048) -> ModelShape:
    """Megatron's GPT: an MLP four times as wide, the vocabulary of GPT-2 filled up to a multiple that can be split."""
    return ModelShape(name, "gpt", layers, width, heads, heads, 4 * width, vocabulary, True, positions)


SHAPES = {
    "llama-2-7b": llama("Llama 2, 7B", 32, 4096, 32, 32, 11008, 32000),
    "llama-2-13b": llama("Llama 2, 13B", 40, 5120, 40, 40, 13824, 32000),
    "llama-2-70b": llama("Llama 2, 70B", 80, 8192, 64, 8, 28672, 32000),
    "llama-3-8b": llama("Llama 3, 8B", 32, 4096, 32, 8, 14336, 128_256),
    "llama-3-70b": llama("Llama 3, 70B", 80, 8192, 64, 8, 28672, 128_256),
    "llama-3-405b": llama("Llama 3.1, 405B", 126, 16384, 128, 8, 53248, 128_256),
    "mistral-7b": llama("Mistral, 7B", 32, 4096, 32, 8, 14336, 32000),
    "mixtral-8x7b": llama("Mixtral, 8 x 7B", 32, 4096, 32, 8, 14336, 32000, experts=8, chosen=2),
    "mixtral-8x22b": llama("Mixtral, 8 x 22B", 56, 6144, 48, 8, 16384, 32000, experts=8, chosen=2),
    "gpt-3": gpt("GPT-3, 175B", 96, 12288, 96),
    "megatron-1.7b": gpt("Megatron, 1.7B", 24, 2304, 24),
    "megatron-3.6b": gpt("Megatron, 3.6B", 30, 3072, 32),
    "megatron-7.5b": gpt("Megatron, 7.5B", 36, 4096, 32),
    "megatron-18b": gpt("Megatron, 18.4B", 40, 6144, 48),
    "megatron-22b": gpt("Megatron, 22B", 48, 6144, 64),
    "megatron-39b": gpt("Megatron, 39.1B", 48, 8192, 64),
    "megatron-76b": gpt("Megatron, 76.1B", 60, 10240, 80),
    "megatron-146b": gpt("Megatron, 145.6B", 80, 12288, 96),
    "megatron-310b": gpt("Megatron, 310.1B", 96, 16384, 128),
    "megatron-530b": gpt("Megatron, 529.6B", 105, 20480, 128),
    "megatron-1t": gpt("Megatron, 1008B", 128, 25600, 160),
}
