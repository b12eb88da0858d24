r"""The transformer whose memory is looked at: the paper's layer, every operation a module of its own.

$$x \leftarrow x + \mathrm{drop}(W_{out}\,\mathrm{Attention}(\mathrm{norm}(x)))$$

$$x \leftarrow x + \mathrm{drop}(W_{down}\,\mathrm{GELU}(W_{up}\,\mathrm{norm}(x)))$$

torch's dropout draws from the global generator. `DropoutState` lends it a state of our own for the length of a `with`
and puts the old one back, so a run depends on its seed alone and disturbs nobody.
"""

import math
from collections.abc import Callable
from types import TracebackType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init  # layers whose weights nobody has drawn yet: `draw_weights` draws them all
from torch.utils.checkpoint import checkpoint

from core.foundations.activation_bytes import Layer
from core.foundations.base_model import free_bytes

MOST_BYTES = 1e9  # of one run, where there is more


class DropoutState:
    """`with state:` global dropout draws from this state; afterwards the global generator is as it was."""

    def __init__(self, seed: int, device: str) -> None:
        self.device, self.state = device, torch.Generator(device).manual_seed(seed).get_state()
        self.lent = self.state

    def __enter__(self) -> None:
        self.lent = global_state(self.device)
        set_global_state(self.state, self.device)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state = global_state(self.device)
        set_global_state(self.lent, self.device)


def global_state(device: str) -> Tensor:
    return torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()


def set_global_state(state: Tensor, device: str) -> None:
    if device == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)


# --- the layer --------------------------------------------------------------------------------------------------------


class Scores(nn.Module):
    """How well each query fits each key; the future is hidden by adding minus infinity, which keeps nothing for
    backward.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T T"]:
        return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + self.mask


class Mix(nn.Module):
    def forward(self, weights: Float[Tensor, "B H T T"], v: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
        return weights @ v


class Fused(nn.Module):
    """Attention in one operation, tile by tile inside: no T x T tensor is ever whole. Without dropout, which a CPU's
    kernel lacks.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "B H T D"]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class Block(nn.Module):
    """The layer of GPT-2, GPT-3 and Megatron.

    `ranks`: only one rank's share of the heads and of the MLP (tensor parallelism).
    """

    def __init__(self, layer: Layer, dropout: float, mask: Tensor, ranks: int = 1) -> None:
        super().__init__()
        width, inner = layer.h, layer.h // ranks
        self.core: Callable[[Tensor, Tensor, Tensor], Tensor] | None = (
            None  # stands in for `attend` where someone looks on
        )
        self.heads, self.again, self.keep_rng_state = (
            layer.a // ranks,
            False,
            True,
        )  # again: the core of attention is computed again (selective)
        self.norm_1, self.qkv = nn.LayerNorm(width), skip_init(nn.Linear, width, 3 * inner)
        if layer.fused:
            self.fused = Fused()
        else:
            self.scores, self.softmax, self.drop_map, self.mix = (
                Scores(mask),
                nn.Softmax(-1),
                nn.Dropout(dropout),
                Mix(),
            )
        self.out, self.drop_1 = skip_init(nn.Linear, inner, width), nn.Dropout(dropout)
        self.norm_2, self.up, self.gelu = nn.LayerNorm(width), skip_init(nn.Linear, width, 4 * inner), nn.GELU()
        self.down, self.drop_2 = skip_init(nn.Linear, 4 * inner, width), nn.Dropout(dropout)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "B H T D"]:
        """What selective recomputation computes twice: few FLOPs, most of the memory."""
        if hasattr(self, "fused"):
            return self.fused(q, k, v)
        return self.mix(self.drop_map(self.softmax(self.scores(q, k))), v)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        rows = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, D)
        q, k, v = rows.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each
        core = self.core or self.attend
        if self.again:
            y = checkpoint(core, q, k, v, use_reentrant=False, preserve_rng_state=self.keep_rng_state)
        else:
            y = core(q, k, v)
        x = x + self.drop_1(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.drop_2(self.down(self.gelu(self.up(self.norm_2(x)))))


class LlamaBlock(nn.Module):
    """The layer of Llama: RMSNorm, rotary positions, fewer heads for keys and values, a gate in the MLP, fused
    attention, no dropout.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        width, head, keys = layer.h, layer.h // layer.a, layer.key_heads or layer.a
        self.head = head
        self.norm_1, self.norm_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.out = (skip_init(nn.Linear, width, width, bias=False) for _ in range(2))
        self.k, self.v = (skip_init(nn.Linear, width, keys * head, bias=False) for _ in range(2))
        self.fused, self.silu = Fused(), nn.SiLU()
        self.gate, self.up = (
            skip_init(nn.Linear, width, layer.inner, bias=False),
            skip_init(nn.Linear, width, layer.inner, bias=False),
        )
        self.down = skip_init(nn.Linear, layer.inner, width, bias=False)
        angle = torch.outer(torch.arange(layer.s), 10_000.0 ** -(torch.arange(head // 2) / (head // 2))).repeat(
            1, 2
        )  # (T, D)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def rotate(self, x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
        left, right = x.chunk(2, -1)
        return x * self.cos + torch.cat((-right, left), -1) * self.sin

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        y = self.norm_1(x)
        q, k, v = (
            part(y).unflatten(-1, (-1, self.head)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )  # (B, H or K, T, D)
        x = x + self.out(self.fused(self.rotate(q), self.rotate(k), v).transpose(1, 2).flatten(2))
        y = self.norm_2(x)
        return x + self.down(self.silu(self.gate(y)) * self.up(y))


class Link(nn.Module):
    """A layer that keeps one tensor and no more: its output, which is the next one's input. Chen et al. count in such
    layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.tanh = skip_init(nn.Linear, width, width, bias=False), nn.Tanh()

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return self.tanh(self.linear(x))


# --- the model --------------------------------------------------------------------------------------------------------


class Stack(nn.Module):
    """Embedding, layers, a head that predicts the next character."""

    def __init__(self, layers: list[nn.Module], width: int, context: int, vocabulary: int) -> None:
        super().__init__()
        self.embed, self.place = skip_init(nn.Embedding, vocabulary, width), skip_init(nn.Embedding, context, width)
        self.layers = nn.ModuleList(layers)
        self.norm, self.head = nn.LayerNorm(width), skip_init(nn.Linear, width, vocabulary, bias=False)

    def begin(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        return self.embed(ids) + self.place.weight[: ids.shape[1]]

    def end(self, x: Float[Tensor, "B T C"], targets: Int[Tensor, "B T"]) -> Tensor:
        """Mean cross-entropy in nats, in 32 bits whatever the layers are in."""
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), targets.flatten())

    def loss(self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Tensor:
        """The whole forward pass at once, as everybody writes it."""
        x = self.begin(ids)
        for layer in self.layers:
            x = layer(x)
        return self.end(x, targets)


@torch.no_grad()
def draw_weights(module: nn.Module, seed: int) -> None:
    """Every matrix from the seed alone; vectors start as 1 (scales) and 0 (shifts)."""
    rng = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if weight.ndim < 2:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            weight.copy_(torch.randn(weight.shape, generator=rng) * weight.shape[1] ** -0.5)


def causal_mask(length: int) -> Float[Tensor, "T T"]:
    return torch.full((length, length), -math.inf).triu(1)


def gpt(
    layer: Layer, n_layer: int, dropout: float, vocabulary: int, seed: int, device: str, dtype: torch.dtype
) -> Stack:
    """A model of such layers, in training mode, its weights drawn from the seed."""
    mask = causal_mask(layer.s).to(device, dtype)
    model = Stack([Block(layer, dropout, mask) for _ in range(n_layer)], layer.h, layer.s, vocabulary)
    draw_weights(model, seed)
    return model.to(device, dtype).train()


def chain(n_layer: int, width: int, context: int, vocabulary: int, seed: int, device: str) -> Stack:
    model = Stack([Link(width) for _ in range(n_layer)], width, context, vocabulary)
    draw_weights(model, seed)
    return model.to(device).train()


def check_room(need: float, what: str) -> None:
    """Refuse, before it is tried, what one run should not take."""
    room = min(MOST_BYTES, free_bytes() / 4)
    if need > room:
        raise ValueError(
            f"{what} would keep {need / 1e9:.2g} GB, and one run may take {room / 1e9:.2g} GB here: choose fewer"
            " layers, a shorter context or a smaller batch"
        )
