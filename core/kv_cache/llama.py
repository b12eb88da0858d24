r"""A Llama of our own, written out to the line where the cache comes in, with the weights of the shipped base.

For a new token at position $t$ only its own query is needed, but the keys and values of all tokens before it:

$$o_t = \sum_{s \le t} \mathrm{softmax}_s\!\left(\frac{q_t \cdot k_s}{\sqrt{D}}\right) v_s .$$

$k_s$ and $v_s$ depend on tokens up to $s$ alone, so they never change again. Without a cache, `logits` is given the
whole text each time and computes them anew; with one, it is given the new tokens, and `cache.add` hands back the rows
of the old ones. That is the whole trick: one line of `attend`.

Positions are rotations of queries and keys (RoPE). A key is kept as it was rotated at its own place, since $q \cdot k$
then depends on the distance of the two alone.

Source: Touvron et al. 2023, arXiv:2302.13971 (the architecture); Su et al. 2021, arXiv:2104.09864 (RoPE).
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Rows = tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]  # keys and values


@runtime_checkable
class Keeper(Protocol):
    """What a cache must do for the model; the kinds are in cache.py."""

    @property
    def seen(self) -> int: ...  # tokens added so far

    def add(self, layer: int, k: Float[Tensor, "B G T D"], v: Float[Tensor, "B G T D"]) -> Rows:
        """Keep the rows of the new tokens, and give all rows that may be looked at."""
        ...


@dataclass(frozen=True)
class Layer:
    """The weights of one layer: (outputs, inputs) each, the norms (C,)."""

    norm_1: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    norm_2: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Llama:
    """Weights and the three numbers they do not tell."""

    embed: Float[Tensor, "V C"]
    layers: tuple[Layer, ...]
    norm: Float[Tensor, "C"]
    head: Float[Tensor, "V C"]
    head_width: int
    theta: float  # how slowly the slowest pair of numbers turns
    eps: float

    @property
    def heads(self) -> int:
        """H: how many queries a token asks."""
        return self.layers[0].q.shape[0] // self.head_width

    @property
    def kept_heads(self) -> int:
        """G: how many keys and values a token gives: H of them (MHA), fewer (GQA) or one (MQA)."""
        return self.layers[0].k.shape[0] // self.head_width

    @property
    def matrices(self) -> int:
        """Weights that every token is multiplied with: all but the embedding, which is only looked up."""
        return (
            sum(weight.numel() for layer in self.layers for weight in vars(layer).values() if weight.ndim == 2)
            + self.head.numel()
        )


def llama_of(model: Any) -> Llama:
    """The weights of a transformers Llama without biases, not copied."""
    config = model.config
    layers = []
    for one in model.model.layers:
        attention, mlp = one.self_attn, one.mlp
        mats = (
            (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            (mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        )
        q, k, v, out, gate, up, down = (linear.weight.detach() for group in mats for linear in group)
        layers.append(
            Layer(
                one.input_layernorm.weight.detach(),
                q,
                k,
                v,
                out,
                one.post_attention_layernorm.weight.detach(),
                gate,
                up,
                down,
            )
        )
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embed, head = model.model.embed_tokens.weight.detach(), model.lm_head.weight.detach()
    return Llama(
        embed,
        tuple(layers),
        model.model.norm.weight.detach(),
        head,
        head_width,
        config.rope_parameters["rope_theta"],
        config.rms_norm_eps,
    )


def pooled(model: Llama, groups: int) -> Llama:
    """The same model with `groups` heads of keys and values: neighboring ones are averaged (GQA's start; 1 is MQA)."""

    def mean(weight: Tensor) -> Tensor:
        return (
            weight.view(groups, -1, model.head_width, weight.shape[1]).mean(1).flatten(0, 1)
        )  # (G, H/G, D, C) -> (G D, C)

    return replace(model, layers=tuple(replace(layer, k=mean(layer.k), v=mean(layer.v)) for layer in model.layers))


# --- the forward pass -------------------------------------------------------------------------------------------------


def logits(model: Llama, tokens: Int[Tensor, "B T"], cache: Keeper | None = None) -> Float[Tensor, "B T V"]:
    """Scores for the token after each position. With a cache, `tokens` are the new ones only."""
    x, start = model.embed[tokens], 0 if cache is None else cache.seen
    turns = angles(model, start, tokens.shape[1])
    for number, layer in enumerate(model.layers):
        x = x + attend(model, number, norm(x, layer.norm_1, model.eps), turns, cache)
        y = norm(x, layer.norm_2, model.eps)
        x = x + (F.silu(y @ layer.gate.T) * (y @ layer.up.T)) @ layer.down.T
    return norm(x, model.norm, model.eps) @ model.head.T


def attend(
    model: Llama, number: int, x: Float[Tensor, "B T C"], turns: Rows | tuple[Tensor, Tensor], cache: Keeper | None
) -> Float[Tensor, "B T C"]:
    """Attention of the new tokens over themselves and all that the cache has kept."""
    layer, (batch, tokens, _) = model.layers[number], x.shape
    q, k, v = (
        (x @ weight.T).view(batch, tokens, -1, model.head_width).transpose(1, 2)
        for weight in (layer.q, layer.k, layer.v)
    )
    q, k = rotate(q, turns), rotate(k, turns)
    if cache is not None:
        k, v = cache.add(number, k, v)  # the trick: (B, G, T, D) in, (B, G, S, D) out
    repeats = model.heads // model.kept_heads
    if repeats > 1:  # several queries share a key
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    whole = tokens == k.shape[2]
    mask = (
        None
        if whole or tokens == 1
        else torch.ones(tokens, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - tokens)
    )
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole and tokens > 1)
    return y.transpose(1, 2).flatten(2) @ layer.out.T


def norm(x: Float[Tensor, "*B C"], weight: Float[Tensor, "C"], eps: float) -> Float[Tensor, "*B C"]:
    return F.rms_norm(x, weight.shape, weight, eps)


def angles(model: Llama, start: int, tokens: int) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]:
    """Cosine and sine of the angle of each pair of numbers at each place: pair j turns by theta^(-2j/D) per place."""
    device, half = model.embed.device, model.head_width // 2
    speed = model.theta ** -(torch.arange(half, device=device) / half)
    angle = torch.outer(torch.arange(start, start + tokens, device=device), speed).repeat(1, 2)
    return angle.cos(), angle.sin()


def rotate(x: Float[Tensor, "B H T D"], turns: tuple[Tensor, Tensor]) -> Float[Tensor, "B H T D"]:
    """Turn the pairs (x_j, x_{j + D/2}). Turns add up: rotating by 3 and by 2 places is rotating by 5."""
    first, second = x.chunk(2, -1)
    return x * turns[0] + torch.cat((-second, first), -1) * turns[1]
