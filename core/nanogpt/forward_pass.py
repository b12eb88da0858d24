r"""One forward pass, written out formula by formula; the model that it opens is `core/foundations/transformer.py`.

Token ids in, a row of $C$ numbers for each, $L$ layers of attention and MLP, logits out. Any head, and any MLP, can be
left out. `largest_difference` compares every tensor with the one that the model itself makes.

Source: Vaswani et al. 2017, section 3; Radford et al. 2019 for the dialect of GPT-2; Touvron et al. 2023 for Llama's.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.transformer import Attention, Block, Norm, Transformer


@dataclass(frozen=True)
class Layer:
    """What one layer makes of a text of T tokens; H heads of width D."""

    came: Float[Tensor, "T C"]
    normed: Float[Tensor, "T C"]
    q: Float[Tensor, "H T D"]
    k: Float[Tensor, "H T D"]
    v: Float[Tensor, "H T D"]
    scores: Float[Tensor, "H T T"]  # all of them, the future too
    shares: Float[Tensor, "H T T"]
    mixed: Float[Tensor, "H T D"]
    attended: Float[Tensor, "T C"]  # what attention adds
    middle: Float[Tensor, "T C"]
    hidden: Float[Tensor, "T M"]  # inside the MLP, after its activation
    thought: Float[Tensor, "T C"]  # what the MLP adds
    left: Float[Tensor, "T C"]


@dataclass(frozen=True)
class Pass:
    """A forward pass: the rows that went in, each layer, the logits of every position."""

    embedded: Float[Tensor, "T C"]
    layers: tuple[Layer, ...]
    logits: Float[Tensor, "T V"]

    @property
    def p(self) -> Float[Tensor, "V"]:
        """The probabilities of the token after the last one."""
        return torch.softmax(self.logits[-1], -1)


def normalised(x: Float[Tensor, "... C"], norm: Norm | None = None) -> Float[Tensor, "... C"]:
    """Each row with mean 0 and variance 1 (in GPT-2, times a weight plus a bias); in a Llama, with mean square 1."""
    if norm is not None and not norm.shape.norm:
        return x
    if norm is not None and norm.weight is not None and norm.shape.dialect == "llama":
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    rows = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    if norm is not None and norm.weight is not None:
        rows = rows * norm.weight
    return rows if norm is None or norm.bias is None else rows + norm.bias


def turned(x: Float[Tensor, "H T D"], turns: Tensor) -> Float[Tensor, "H T D"]:
    """Rotary positions: each pair (a, b) of numbers turns by the angle of its position."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = turns.real, turns.imag
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def asked(
    attention: Attention, normed: Float[Tensor, "T C"], turns: Tensor | None
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "H T D"], Float[Tensor, "H T D"]]:
    """q, k and v of every head; where heads share a key and a value, each has them."""
    heads, kept = attention.shape.n_head, attention.shape.kept_heads
    rows = F.linear(normed, attention.qkv.weight, attention.qkv.bias)  # (T, C) @ (C, 3C)
    q, k, v = rows.view(len(normed), heads + 2 * kept, -1).transpose(0, 1).split((heads, kept, kept))  # (H, T, D) each
    if attention.shape.dialect == "modern":
        q, k = normalised(q), normalised(k)
    if turns is not None:
        q, k = turned(q, turns), turned(k, turns)
    return q, k.repeat_interleave(heads // kept, 0), v.repeat_interleave(heads // kept, 0)


def through_layer(
    block: Block, x: Float[Tensor, "T C"], turns: Tensor | None, heads_out: frozenset[int], mlp_out: bool
) -> Layer:
    """One layer, formula by formula. heads_out: heads that add nothing; mlp_out: the MLP adds nothing."""
    normed = normalised(x, block.norm_1)
    q, k, v = asked(block.attention, normed, turns)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (H, T, D) @ (H, D, T)
    future = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
    powers = torch.exp((scores - scores.amax(-1, keepdim=True)).masked_fill(future, -math.inf))
    shares = powers / powers.sum(-1, keepdim=True)
    mixed = shares @ v  # (H, T, T) @ (H, T, D)
    if heads_out:
        mixed = mixed.clone()
        mixed[sorted(heads_out)] = 0
    beside = mixed.transpose(0, 1).flatten(1)  # (H, T, D) -> (T, H D): the heads beside each other
    attended = F.linear(beside, block.attention.out.weight, block.attention.out.bias)
    if len(heads_out) == len(mixed):
        attended = torch.zeros_like(attended)  # without any head attention adds nothing, not even its bias
    middle = x + attended if block.shape.residual else attended
    hidden = F.linear(normalised(middle, block.norm_2), block.up.weight, block.up.bias)  # (T, C) @ (C, 4C)
    if block.shape.dialect == "modern":
        hidden = hidden.clamp(min=0) ** 2
    elif block.shape.dialect == "gpt2":
        hidden = F.gelu(hidden, approximate="tanh")
    else:  # a gate for each number: z / (1 + e^-z)
        gate, up = hidden.chunk(2, -1)
        hidden = gate / (1 + torch.exp(-gate)) * up
    thought = F.linear(hidden, block.down.weight, block.down.bias) * (0.0 if mlp_out else 1.0)
    left = middle + thought if block.shape.residual else thought
    return Layer(x, normed, q, k, v, scores, shares, mixed, attended, middle, hidden, thought, left)


def output(model: Transformer, x: Float[Tensor, "T C"]) -> Float[Tensor, "T V"]:
    """From rows to logits: what the model does at the end, and the logit lens after any layer."""
    return F.linear(normalised(x, model.norm), (model.embed if model.head is None else model.head).weight)


def embedded(model: Transformer, ids: Int[Tensor, "T"]) -> Float[Tensor, "T C"]:
    """A row for each token; GPT-2 adds one for its position, the modern dialect turns q and k instead."""
    rows = model.embed.weight[ids]
    return rows if model.place is None or not model.shape.positions else rows + model.place.weight[: len(ids)]


@torch.no_grad()
def forward_pass(
    model: Transformer, ids: Int[Tensor, "T"], out: frozenset[tuple[int, str]] = frozenset(), whole: Pass | None = None
) -> Pass:
    """The whole pass. out: what adds nothing, as (layer, "mlp") or (layer, "0"), (layer, "1") ... for its heads. whole:
    the pass with everything in, whose layers before the first of these are taken as they are.
    """
    turns = model.turns[: len(ids)] if model.place is None and model.shape.positions else None
    x = first = embedded(model, ids)
    layers = list(whole.layers[: min((layer for layer, _ in out), default=0)]) if whole else []
    x = layers[-1].left if layers else x
    for number, block in list(enumerate(model.blocks))[len(layers) :]:
        assert isinstance(block, Block)
        heads = frozenset(int(part) for layer, part in out if layer == number and part != "mlp")
        layers.append(through_layer(block, x, turns, heads, (number, "mlp") in out))
        x = layers[-1].left
    return Pass(first, tuple(layers), output(model, x))


@torch.no_grad()
def largest_difference(model: Transformer, ids: Int[Tensor, "T"], ours: Pass) -> float:
    """How far any tensor of the written-out pass is from the model's own, relative to the largest number in it."""
    theirs: dict[str, Tensor] = {}
    watched = [(f"{n}.{part}", getattr(block, part)) for n, block in enumerate(model.blocks)
               for part in ("norm_1", "attention", "up", "down")]  # fmt: skip
    watched += [(f"{n}.left", block) for n, block in enumerate(model.blocks)]
    hooks = [
        module.register_forward_hook(lambda _, __, result, name=name: theirs.update({name: result[0]}))
        for name, module in watched
    ]
    maps: list[Tensor] = []
    try:
        logits = model(ids[None], maps=maps)[0]
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [(ours.logits, logits)]
    for n, layer in enumerate(ours.layers):
        pairs += [
            (layer.normed, theirs[f"{n}.norm_1"]),
            (layer.shares, maps[n][0]),
            (layer.attended, theirs[f"{n}.attention"]),
            (layer.thought, theirs[f"{n}.down"]),
            (layer.left, theirs[f"{n}.left"]),
        ]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs)


# --- asking it -------------------------------------------------------------------------------------------------------


def divergence(p: Float[Tensor, "V"], other: Float[Tensor, "V"]) -> float:
    """KL(p || other) in nats."""
    kept = p > 0
    return float((p[kept] * (p[kept].log() - other[kept].clamp(min=1e-30).log())).sum().clamp(min=0))


@torch.no_grad()
def logit_lens(model: Transformer, whole: Pass) -> list[Float[Tensor, "V"]]:
    """What the model would write if it stopped before the first layer, after the first, after the second ..."""
    rows = torch.cat([whole.embedded[-1:], *(layer.left[-1:] for layer in whole.layers)])  # (L + 1, C)
    return list(torch.softmax(output(model, rows), -1))
