r"""A decoder-only transformer, small enough to read in one sitting and complete enough to train.

A text is a row of token ids. Each becomes a vector of width $C$; every layer adds to that vector twice, once
what the earlier positions have to say (attention) and once what the position makes of it (the MLP):

$$x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x)), \qquad x \leftarrow x + \mathrm{MLP}(\mathrm{norm}(x))$$

$$\mathrm{Attention} = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + \mathrm{mask}\right)V$$

The mask hides the future, so one pass over $T$ characters is $T$ predictions, each made from its past alone.
A layer has $4C^2$ weights in attention and $8C^2$ in the MLP: $12LC^2$ in all, which is the *parameters* figure.

Two dialects share this file. `modern` (the default) has rotary positions, LayerNorm without weights, normalised
queries and keys and a squared ReLU; `gpt2` has learned positions, LayerNorm, GELU and tied embeddings, and computes
what `transformers`' GPT-2 computes with the same weights (tested to 1e-5).

Left out: grouped queries, flash kernels of our own (PyTorch picks one), pipeline and tensor parallelism.
Source: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (GPT-2); rotary positions: arXiv:2104.09864;
squared ReLU: arXiv:2109.08668; query-key normalisation: arXiv:2010.04245; nanoGPT, github.com/karpathy/nanoGPT.
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
    dialect: Literal["modern", "gpt2"] = "modern"
    bias: bool = False  # biases in the linear layers and norms (GPT-2 has them, nanoGPT's small presets do not)
    tied: bool = False  # the output layer is the embedding table again
    dropout: float = 0.0
    residual: bool = True  # the `x +` of the two formulas; without it each layer replaces what came before
    positions: bool = True  # without them attention sees a bag of characters, cut only by the mask
    norm: bool = True

    def __post_init__(self) -> None:
        if self.dialect not in ("modern", "gpt2"):
            raise ValueError(f"dialect must be modern or gpt2, got {self.dialect[:20]!r}")
        if self.n_head < 1 or self.width % self.n_head:
            raise ValueError(
                f"width must be a multiple of the number of heads, got width {self.width} and {self.n_head} heads"
            )
        if self.dialect == "modern" and self.width // self.n_head % 2:
            raise ValueError(f"width / heads must be even for rotary positions, got {self.width} / {self.n_head}")

    def as_dict(self) -> dict[str, int | float | str | bool]:
        return asdict(self)

    @property
    def matrix_parameters(self) -> int:
        """12 L C^2: attention's four C x C matrices and the MLP's two C x 4C."""
        return 12 * self.n_layer * self.width**2


class Cache:
    """Keys and values of the tokens already seen, in buffers allocated once: (L, 2, B, H, S, D)."""

    def __init__(self, shape: Shape, batch: int, length: int, like: Tensor) -> None:
        head_width = shape.width // shape.n_head
        self.buffer = like.new_zeros((shape.n_layer, 2, batch, shape.n_head, length, head_width))
        self.length = 0  # tokens seen so far

    @property
    def nbytes_used(self) -> int:
        """Bytes of the part that holds tokens: 2 L H D T times bytes per number."""
        return self.buffer[:, :, :, :, : self.length].numel() * self.buffer.element_size()


class Norm(nn.Module):
    """LayerNorm, without weights in the modern dialect; the identity where `shape.norm` is off."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        gpt2 = shape.dialect == "gpt2"
        self.weight = nn.Parameter(torch.ones(shape.width)) if gpt2 else None
        self.bias = nn.Parameter(torch.zeros(shape.width)) if gpt2 and shape.bias else None

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        if not self.shape.norm:
            return x
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias)


def rotate(x: Float[Tensor, "B T N D"], turns: Complex[Tensor, "T D/2"]) -> Float[Tensor, "B T N D"]:
    """Turn each pair of numbers by the angle of its position (one complex product), so that q.k depends on distance."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (B, T, N, D) -> (B, T, N, D/2)
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)


class Attention(nn.Module):
    """Every position asks (q), every earlier one answers (k) and gives (v), in H heads side by side."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        self.qkv = skip_init(nn.Linear, shape.width, 3 * shape.width, bias=shape.bias)
        self.out = skip_init(nn.Linear, shape.width, shape.width, bias=shape.bias)

    def forward(
        self, x: Float[Tensor, "B T C"], turns: Tensor | None, cache: Cache | None, maps: list[Tensor] | None
    ) -> Float[Tensor, "B T C"]:
        batch, tokens, width = x.shape
        heads = self.shape.n_head
        rows = self.qkv(x).view(batch, tokens, 3 * heads, -1)  # (B, T, 3H, D): the heads of q, then of k, then of v
        if self.shape.dialect == "modern":
            qk, v = rows.split((2 * heads, heads), 2)
            qk = F.layer_norm(qk, (qk.shape[-1],))  # query-key normalisation keeps every score within +-sqrt(D)
            qk = qk if turns is None else rotate(qk, turns)
            (q, k), v = qk.transpose(1, 2).chunk(2, 1), v.transpose(1, 2)  # (B, H, T, D) each
        else:
            q, k, v = rows.transpose(1, 2).chunk(3, 1)
        if cache is not None:
            past, now = cache.length, cache.length + tokens
            cache.buffer[self.layer, 0, :, :, past:now], cache.buffer[self.layer, 1, :, :, past:now] = k, v
            k, v = cache.buffer[self.layer, 0, :, :, :now], cache.buffer[self.layer, 1, :, :, :now]
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
        self.up = skip_init(nn.Linear, shape.width, 4 * shape.width, bias=shape.bias)
        self.down = skip_init(nn.Linear, 4 * shape.width, shape.width, bias=shape.bias)

    def drop(self, x: Tensor) -> Tensor:
        if not self.training or self.shape.dropout == 0:
            return x
        kept = torch.rand(x.shape, generator=self.rng, device=x.device) >= self.shape.dropout
        return x * kept / (1 - self.shape.dropout)

    def forward(self, x: Tensor, turns: Tensor | None, cache: Cache | None, maps: list[Tensor] | None) -> Tensor:
        looked = self.drop(self.attention(self.norm_1(x), turns, cache, maps))
        x = x + looked if self.shape.residual else looked
        hidden = self.up(self.norm_2(x))  # (B, T, C) @ (C, 4C)
        hidden = F.relu(hidden).square() if self.shape.dialect == "modern" else F.gelu(hidden, approximate="tanh")
        thought = self.drop(self.down(hidden))
        return x + thought if self.shape.residual else thought


class Transformer(nn.Module):
    """Token ids in, a score (logit) for every possible next token out, at every position."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
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
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every matrix from the seed alone. Outputs of layers start small (gpt2) or at zero (modern).

        With a zero output layer all logits are equal, so the first loss of the modern dialect is ln V exactly.
        """
        rng = torch.Generator().manual_seed(seed)
        modern = self.shape.dialect == "modern"
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
        """e^{i position speed}: pair j turns by 10000^(-2j/D) radians per position, the first fast, the last slowly."""
        pairs = self.shape.width // self.shape.n_head // 2
        speed = 10_000.0 ** -(torch.arange(pairs) / pairs)  # (D/2,)
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
