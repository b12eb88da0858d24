r"""A decoder-only transformer, small enough to read in one sitting and complete enough to train.

A text is a row of token ids. Each becomes a vector of width $C$; every layer adds to that vector twice, once
what the earlier positions have to say (attention) and once what the position makes of it (the MLP):

$$x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{norm}(x))$$

$$\mathrm{Attention} = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + \mathrm{mask}\right)V$$

The mask hides the future, so one pass over $T$ characters is $T$ predictions, each made from its past alone.
A layer has $4C^2$ weights in attention and $8C^2$ in the MLP: $12LC^2$ in all, which is the *parameters* figure.

Three dialects share this file. `modern` (the default) has rotary positions, LayerNorm without weights, normalised
queries and keys and a squared ReLU; `gpt2` has learned positions, LayerNorm, GELU and tied embeddings; `llama` has
rotary positions, RMSNorm, a gated MLP (SwiGLU), and several queries may share a key and a value. With the same weights
the last two compute what `transformers`' GPT-2 and Llama compute (tested to 1e-5).

Left out: flash kernels of our own (PyTorch picks one), pipeline and tensor parallelism.
Source: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (GPT-2); rotary positions: arXiv:2104.09864;
squared ReLU: arXiv:2109.08668; query-key normalisation: arXiv:2010.04245; RMSNorm: arXiv:1910.07467; SwiGLU:
arXiv:2002.05202; grouped queries: arXiv:2305.13245; nanoGPT, github.com/karpathy/nanoGPT.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init  # layers whose weights nobody has drawn yet: `initialise` draws them all


@dataclass(frozen=True)
class Shape:
    """What a model is, without its weights. Everything here goes into a model file's config."""

    vocabulary: int
    n_layer: int = 4
    n_head: int = 3
    width: int = 96
    context: int = 64  # most tokens it can look at
    dialect: Literal["modern", "gpt2", "llama"] = "modern"
    bias: bool = False  # biases in the linear layers and norms (GPT-2 has them, nanoGPT's small presets do not)
    tied: bool = False  # the output layer is the embedding table again
    dropout: float = 0.0
    residual: bool = True  # the `x +` of the two formulas; without it each layer replaces what came before
    positions: bool = True  # without them attention sees a bag of characters, cut only by the mask
    norm: bool = True
    kv_heads: int = 0  # heads of keys and values, each for as many queries; 0: one for each query
    hidden: int = 0  # numbers inside the MLP; 0: 4 C
    theta: float = 10_000.0  # rotary positions: how slowly the slowest pair of numbers turns

    def __post_init__(self) -> None:
        if self.dialect not in ("modern", "gpt2", "llama"):
            raise ValueError(f"dialect must be modern, gpt2 or llama, got {self.dialect[:20]!r}")
        if self.n_head < 1 or self.width % self.n_head:
            raise ValueError(
                f"width must be a multiple of the number of heads, got width {self.width} and {self.n_head} heads"
            )
        if self.n_head % self.kept_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.n_head} and {self.kv_heads}")
        if self.dialect != "gpt2" and self.width // self.n_head % 2:
            raise ValueError(f"width / heads must be even for rotary positions, got {self.width} / {self.n_head}")

    def as_dict(self) -> dict[str, int | float | str | bool]:
        return asdict(self)

    @property
    def kept_heads(self) -> int:
        return self.kv_heads or self.n_head

    @property
    def inside(self) -> int:
        """Numbers inside the MLP."""
        return self.hidden or 4 * self.width

    @property
    def matrix_parameters(self) -> int:
        """12 L C^2: attention's four C x C matrices and the MLP's two C x 4C. Grouped queries have smaller k and v, a
        gated MLP has a third matrix.
        """
        attention = 2 * self.width**2 + 2 * self.width**2 * self.kept_heads // self.n_head
        return self.n_layer * (attention + (3 if self.dialect == "llama" else 2) * self.width * self.inside)


class Cache:
    """Keys and values of the tokens already seen, in buffers allocated once: (L, 2, B, G, S, D)."""

    def __init__(self, shape: Shape, batch: int, length: int, like: Tensor) -> None:
        head_width = shape.width // shape.n_head
        self.buffer = like.new_zeros((shape.n_layer, 2, batch, shape.kept_heads, length, head_width))
        self.length = 0  # tokens seen so far

    @property
    def nbytes_used(self) -> int:
        """Bytes of the part that holds tokens: 2 L G D T times bytes per number."""
        return self.buffer[:, :, :, :, : self.length].numel() * self.buffer.element_size()


class Norm(nn.Module):
    """LayerNorm, without weights in the modern dialect, RMSNorm in llama; the identity where `shape.norm` is off."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.ones(shape.width)) if shape.dialect != "modern" else None
        self.bias = nn.Parameter(torch.zeros(shape.width)) if shape.dialect == "gpt2" and shape.bias else None

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        if not self.shape.norm:
            return x
        if self.shape.dialect == "llama":
            return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias)


def rotate(x: Float[Tensor, "B T N D"], turns: Complex[Tensor, "T D/2"]) -> Float[Tensor, "B T N D"]:
    """Turn each pair of numbers by the angle of its position (one complex product), so that q.k depends on distance."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (B, T, N, D) -> (B, T, N, D/2)
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)


class Attention(nn.Module):
    """Every position asks (q), every earlier one answers (k) and gives (v), in H heads side by side.

    G heads of keys and values: H of them, or fewer, each of which serves H / G heads of queries.
    """

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        rows = shape.width + 2 * shape.width // shape.n_head * shape.kept_heads
        self.qkv = skip_init(nn.Linear, shape.width, rows, bias=shape.bias)
        self.out = skip_init(nn.Linear, shape.width, shape.width, bias=shape.bias)

    def forward(
        self, x: Float[Tensor, "B T C"], turns: Tensor | None, cache: Cache | None, maps: list[Tensor] | None
    ) -> Float[Tensor, "B T C"]:
        batch, tokens, width = x.shape
        heads, kept = self.shape.n_head, self.shape.kept_heads
        rows = self.qkv(x).view(batch, tokens, heads + 2 * kept, -1)  # (B, T, H + 2G, D): the heads of q, of k, of v
        qk, v = rows.split((heads + kept, kept), 2)
        if self.shape.dialect == "modern":
            qk = F.layer_norm(qk, (qk.shape[-1],))  # query-key normalisation keeps every score within +-sqrt(D)
        if turns is not None:
            qk = rotate(qk, turns)
        (q, k), v = qk.transpose(1, 2).split((heads, kept), 1), v.transpose(1, 2)  # (B, H, T, D), twice (B, G, T, D)
        if cache is not None:
            past, now = cache.length, cache.length + tokens
            cache.buffer[self.layer, 0, :, :, past:now], cache.buffer[self.layer, 1, :, :, past:now] = k, v
            k, v = cache.buffer[self.layer, 0, :, :, :now], cache.buffer[self.layer, 1, :, :, :now]
        if heads > kept:
            k, v = k.repeat_interleave(heads // kept, 1), v.repeat_interleave(heads // kept, 1)  # (B, H, S, D)
        if maps is not None:
            maps.append(attention_map(q, k))
        whole = tokens == k.shape[2]  # else there is a past: one new token may look at all of it, several need a mask
        mask = None if whole or tokens == 1 else causal_mask(q, k)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


def causal_mask(q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"]) -> Tensor:
    """True where a query may look: the T queries are the last T of the S positions."""
    queries, keys = q.shape[2], k.shape[2]
    return torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)


def attention_map(q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"]) -> Float[Tensor, "B H T S"]:
    """The softmax of the lesson, written out: how much each position looks at each earlier one; rows sum to 1."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, D) @ (B, H, D, S)
    return torch.softmax(scores.masked_fill(~causal_mask(q, k), -math.inf), -1)


class Block(nn.Module):
    """One layer: attention, then the MLP, each on the normalised input and added to it."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape = shape
        self.rng: torch.Generator | None = None  # what dropout draws from: nothing here touches the global seed
        self.norm_1, self.attention = Norm(shape), Attention(shape, layer)
        self.norm_2 = Norm(shape)
        gates = 2 if shape.dialect == "llama" else 1
        self.up = skip_init(nn.Linear, shape.width, gates * shape.inside, bias=shape.bias)
        self.down = skip_init(nn.Linear, shape.inside, shape.width, bias=shape.bias)

    def drop(self, x: Tensor) -> Tensor:
        if not self.training or self.shape.dropout == 0:
            return x
        kept = torch.rand(x.shape, generator=self.rng, device=x.device) >= self.shape.dropout
        return x * kept / (1 - self.shape.dropout)

    def forward(self, x: Tensor, turns: Tensor | None, cache: Cache | None, maps: list[Tensor] | None) -> Tensor:
        looked = self.drop(self.attention(self.norm_1(x), turns, cache, maps))
        x = x + looked if self.shape.residual else looked
        thought = self.drop(self.down(activated(self.up(self.norm_2(x)), self.shape.dialect)))
        return x + thought if self.shape.residual else thought


def activated(hidden: Float[Tensor, "B T M"], dialect: str) -> Tensor:
    """What the MLP does in its middle: squared ReLU, GELU, or one half of the numbers as the gate of the other."""
    if dialect == "llama":
        gate, up = hidden.chunk(2, -1)
        return F.silu(gate) * up
    return F.relu(hidden).square() if dialect == "modern" else F.gelu(hidden, approximate="tanh")


class Transformer(nn.Module):
    """Token ids in, a score (logit) for every possible next token out, at every position."""

    def __init__(self, shape: Shape, seed: int | None = 0) -> None:
        """seed: None leaves the weights undrawn, for a model that gets others."""
        super().__init__()
        self.shape = shape
        self.turns: Tensor
        self.embed = skip_init(nn.Embedding, shape.vocabulary, shape.width)
        self.place = skip_init(nn.Embedding, shape.context, shape.width) if shape.dialect == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.n_layer))
        self.norm = Norm(shape)
        if self.place is None:
            self.register_buffer("turns", self.rotary_table(), persistent=False)
        self.head = None if shape.tied else skip_init(nn.Linear, shape.width, shape.vocabulary, bias=False)
        if seed is not None:
            self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every matrix from the seed alone. Outputs of layers start small (gpt2) or at zero (the others).

        With a zero output layer all logits are equal, so their first loss is ln V exactly.
        """
        rng = torch.Generator().manual_seed(seed)
        modern = self.shape.dialect != "gpt2"
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            ends_layer = name.endswith(("attention.out.weight", "down.weight"))
            std = 0.02 / math.sqrt(2 * self.shape.n_layer) if ends_layer else 0.02
            if modern:
                std = (
                    0.0
                    if ends_layer or name == "head.weight"
                    else 0.1
                    if name == "embed.weight"
                    else weight.shape[1] ** -0.5
                )
            weight.copy_(torch.randn(weight.shape, generator=rng) * std)

    def roll(self, seed: int) -> None:
        """Seed the random generator of dropout."""
        for block in self.modules():
            if isinstance(block, Block):
                block.rng = torch.Generator(self.embed.weight.device).manual_seed(seed)

    def rotary_table(self) -> Complex[Tensor, "S P"]:
        """e^{i position speed}: pair j turns by theta^(-2j/D) radians per position, the first fast, the last slowly."""
        pairs = self.shape.width // self.shape.n_head // 2
        speed = self.shape.theta ** -(torch.arange(pairs) / pairs)  # (D/2,)
        angle = torch.outer(torch.arange(self.shape.context), speed)  # (S, D/2)
        return torch.polar(torch.ones_like(angle), angle)

    def forward(
        self, tokens: Int[Tensor, "B T"], cache: Cache | None = None, maps: list[Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits for the token after each position. With a cache, `tokens` are the new ones only.

        `maps`, a list, receives each layer's attention (B, H, T, S).
        """
        start = cache.length if cache is not None else 0
        x, turns = self.embed(tokens), None  # (B, T) -> (B, T, C)
        if self.shape.positions and self.place is not None:
            x = x + self.place.weight[start : start + tokens.shape[1]]
        elif self.shape.positions:
            turns = self.turns[start : start + tokens.shape[1]]
        for block in self.blocks:
            x = block(x, turns, cache, maps)
        if cache is not None:
            cache.length += tokens.shape[1]
        return F.linear(self.norm(x), self.embed.weight if self.head is None else self.head.weight)

    def loss(self, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Tensor:
        """Mean cross-entropy in nats per token: the average surprise at the character that really came next."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    def reshape(self, **changes: int | float | bool) -> None:
        """Change what the same weights compute: heads, residual, positions, norm. Widths and depths stay."""
        shape = replace(self.shape, **changes)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, Transformer | Block | Attention | Norm):
                module.shape = shape
        if self.place is None:
            self.register_buffer("turns", self.rotary_table().to(self.embed.weight.device), persistent=False)
