r"""A transformer layer, whole and split. The split one holds one of $t$ parts of each big matrix and calls f and g; the
rest is the same.

Attention is split by heads: each head reads its own columns of $Q$, $K$, $V$ and writes through its own rows of the
output matrix, so heads are columns first and rows second by nature. The bias of a matrix that is cut into rows is added
after the sum, once.

Tensors are (tokens, batch, width), as in Megatron: parts of the tokens then lie together in memory.

Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3, figure 3; Korthikanti et al. 2022, arXiv:2205.05198, section
4.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from core.megatron.operators import Wire, all_reduce, f, g, gather, scatter

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "none": lambda x: x}
DROPOUT = 0.1
Film = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """The letters of the papers."""

    l: int  # noqa: E741 (layers)
    h: int  # width
    a: int  # heads
    s: int  # tokens
    b: int  # batch
    activation: str = "gelu"


class Drop(nn.Module):
    """Dropout with a mask that is drawn once, from a seed: the same in the whole layer and in all its parts."""

    def __init__(self, kept: Bool[Tensor, "T B C"]) -> None:
        super().__init__()
        self.kept: Tensor
        self.register_buffer("kept", kept)

    def forward(self, x: Float[Tensor, "T B C"]) -> Float[Tensor, "T B C"]:
        return x * self.kept / (1 - DROPOUT)


def attend(
    q: Float[Tensor, "T B C"], k: Float[Tensor, "T B C"], v: Float[Tensor, "T B C"], heads: int
) -> Float[Tensor, "T B C"]:
    """Causal attention of some heads; C is their columns."""
    q, k, v = (part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for part in (q, k, v))  # (T, B, H D) -> (B, H, T, D)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(2, 0, 1, 3).flatten(2)


# --- the whole layer, as everybody writes it --------------------------------------------------------------------------


class Attention(nn.Module):
    """All heads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.head = sizes.h // sizes.a
        self.q, self.k, self.v, self.out = (skip_init(nn.Linear, sizes.h, sizes.h) for _ in range(4))

    def forward(self, x: Float[Tensor, "T B C"], film: Film | None = None) -> Float[Tensor, "T B C"]:
        q, k, v = self.q(x), self.k(x), self.v(x)
        mixed = attend(
            q, k, v, q.shape[-1] // self.head
        )  # as many heads as there are columns: torch's plan gives a rank its own
        if film is not None:
            film |= {"first": q, "middle": mixed}
        return self.out(mixed)


class MLP(nn.Module):
    """Two matrices and an activation between them: Z = GeLU(XA) B."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[sizes.activation]
        self.up, self.down = skip_init(nn.Linear, sizes.h, 4 * sizes.h), skip_init(nn.Linear, 4 * sizes.h, sizes.h)

    def forward(self, x: Float[Tensor, "T B C"], film: Film | None = None) -> Float[Tensor, "T B C"]:
        hidden = self.up(x)
        active = self.activation(hidden)
        if film is not None:
            film |= {"first": hidden, "middle": active}
        return self.down(active)


class Layer(nn.Module):
    """LayerNorm, attention, dropout; LayerNorm, MLP, dropout; both added to what came in. All numbers come from the
    seed.
    """

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        kept = [torch.rand((sizes.s, sizes.b, sizes.h), generator=rng) >= DROPOUT for _ in range(2)]
        self.norm_1, self.attention, self.drop_1 = nn.LayerNorm(sizes.h), Attention(sizes), Drop(kept[0])
        self.norm_2, self.mlp, self.drop_2 = nn.LayerNorm(sizes.h), MLP(sizes), Drop(kept[1])
        with torch.no_grad():
            for name, weight in self.named_parameters():
                drawn = torch.randn(weight.shape, generator=rng)
                weight.copy_(
                    drawn * weight.shape[1] ** -0.5
                    if weight.ndim == 2
                    else 0.1 * drawn + (name.startswith("norm") and name.endswith("weight"))
                )

    def forward(self, x: Float[Tensor, "T B C"]) -> Float[Tensor, "T B C"]:
        x = x + self.drop_1(self.attention(self.norm_1(x)))
        return x + self.drop_2(self.mlp(self.norm_2(x)))


def whole_layers(sizes: Sizes, seed: int) -> nn.Sequential:
    return nn.Sequential(*(Layer(sizes, seed + number) for number in range(sizes.l)))


def first_input(sizes: Sizes, seed: int) -> Float[Tensor, "T B C"]:
    """X, and the same call with another seed gives the gradient that comes from above."""
    return torch.randn((sizes.s, sizes.b, sizes.h), generator=torch.Generator().manual_seed(seed))


# --- one rank's part --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Which part is mine."""

    rank: int
    wire: Wire
    sequence: bool  # whether each rank has its own tokens outside of the split part

    def mine(self, x: Tensor, dim: int) -> Tensor:
        """This rank's part of a weight.

        `nn.Linear` keeps A transposed: dim 0 holds the columns of A, dim 1 its rows.
        """
        return x.detach().chunk(self.wire.ranks, dim)[self.rank].clone(memory_format=torch.contiguous_format)

    def columns(self, linear: nn.Linear) -> nn.Linear:
        """Columns of A, and the numbers of the bias that belong to them."""
        return filled(self.mine(linear.weight, 0), self.mine(linear.bias, 0))

    def rows(self, linear: nn.Linear) -> nn.Linear:
        """Rows of A, without the bias."""
        return filled(self.mine(linear.weight, 1), None)

    def tokens(self, x: Float[Tensor, "S B C"]) -> Float[Tensor, "T B C"]:
        return self.mine(x, 0) if self.sequence else x.detach().clone()

    def enter(self, x: Tensor) -> Tensor:
        """f, or what stands in its place."""
        return (gather if self.sequence else f).apply(x, self.wire)

    def leave(self, partial: Tensor) -> Tensor:
        """g, or what stands in its place."""
        return (scatter if self.sequence else g).apply(partial, self.wire)


def filled(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device)
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


class SplitAttention(nn.Module):
    """a/t heads: their columns of Q, K and V, their rows of the output matrix."""

    def __init__(self, whole: Attention, cut: Cut) -> None:
        super().__init__()
        self.cut, self.head = cut, whole.head
        self.q, self.k, self.v = cut.columns(whole.q), cut.columns(whole.k), cut.columns(whole.v)
        self.out, self.bias = cut.rows(whole.out), nn.Parameter(whole.out.bias.detach().clone())

    def forward(self, x: Float[Tensor, "T B C"], film: Film | None = None) -> Float[Tensor, "T B C"]:
        x = self.cut.enter(x)
        q = self.q(x)
        mixed = attend(q, self.k(x), self.v(x), q.shape[-1] // self.head)  # own heads only
        partial = self.out(mixed)
        if film is not None:
            film |= {"entered": x, "first": q, "middle": mixed, "partial": partial}
        return self.cut.leave(partial) + self.bias


class SplitMLP(nn.Module):
    """Columns of A, rows of B. The activation works on each number alone, so it works on columns, too."""

    def __init__(self, whole: MLP, cut: Cut) -> None:
        super().__init__()
        self.cut, self.activation = cut, whole.activation
        self.up, self.down, self.bias = (
            cut.columns(whole.up),
            cut.rows(whole.down),
            nn.Parameter(whole.down.bias.detach().clone()),
        )

    def forward(self, x: Float[Tensor, "T B C"], film: Film | None = None) -> Float[Tensor, "T B C"]:
        x = self.cut.enter(x)
        hidden = self.up(x)  # (T, B, C) @ (C, 4C/t)
        active = self.activation(hidden)
        partial = self.down(active)  # (T, B, 4C/t) @ (4C/t, C): a part of the sum
        if film is not None:
            film |= {"entered": x, "first": hidden, "middle": active, "partial": partial}
        return self.cut.leave(partial) + self.bias


class SplitLayer(nn.Module):
    """What one rank holds of a layer.

    LayerNorm, dropout and `x +` are not split by weights; with `sequence` they are split by tokens.
    """

    def __init__(self, whole: Layer, cut: Cut) -> None:
        super().__init__()
        self.cut = cut
        self.norm_1, self.norm_2 = same_norm(whole.norm_1), same_norm(whole.norm_2)
        self.attention, self.mlp = SplitAttention(whole.attention, cut), SplitMLP(whole.mlp, cut)
        self.drop_1, self.drop_2 = Drop(cut.tokens(whole.drop_1.kept)), Drop(cut.tokens(whole.drop_2.kept))

    def forward(self, x: Float[Tensor, "T B C"]) -> Float[Tensor, "T B C"]:
        x = x + self.drop_1(self.attention(self.norm_1(x)))
        return x + self.drop_2(self.mlp(self.norm_2(x)))

    def on_every_rank(self) -> Iterator[nn.Parameter]:
        """Weights that are not split: LayerNorms, and biases that are added after the sum."""
        yield from (*self.norm_1.parameters(), *self.norm_2.parameters(), self.attention.bias, self.mlp.bias)


def same_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    twin = nn.LayerNorm(norm.normalized_shape, device=norm.weight.device)
    twin.load_state_dict(norm.state_dict())
    return twin


def split_layers(whole: nn.Sequential, cut: Cut) -> nn.Sequential:
    return nn.Sequential(*(SplitLayer(layer, cut) for layer in whole))  # type: ignore[arg-type]


def sum_small_gradients(layers: nn.Sequential, cut: Cut) -> None:
    """Sequence parallelism, after the backward pass: LayerNorms and late biases have seen each rank's own tokens
    only.
    """
    if not cut.sequence or cut.wire.ranks == 1:
        return
    small: list[Any] = [weight for layer in layers for weight in layer.on_every_rank()]  # type: ignore[operator]
    total = all_reduce(
        torch.cat([weight.grad.flatten() for weight in small]), cut.wire.ranks
    )  # 6h numbers a layer, once a step: not one of f's and g's
    for weight, part in zip(small, total.split([weight.numel() for weight in small]), strict=True):
        weight.grad = part.view_as(weight)
