"""The film of a split layer: which stages it has, what they are called, and the piece of a matrix that a rank shows at
each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.megatron.layer import Cut, Film, Layer, SplitLayer
from core.megatron.operators import all_reduce

ATTENTION, MLP, WRONG = "attention", "MLP", "rows first"
ROWS, COLUMNS = 12, 64  # of a matrix, at most so many are shown
ONE, TWO = "columns first", "rows first"  # the two tiles of the last stage


@dataclass(frozen=True)
class Stage:
    """One frame: a block, what happens in it, and how that is told."""

    block: str
    key: str  # input, entered, first, middle, partial, sum, error
    caption: str


def stages(ranks: int, sequence: bool, activation: str) -> tuple[Stage, ...]:
    """In the order in which a layer does them, and then the wrong way."""
    act = {"gelu": "GeLU", "relu": "ReLU", "none": "no activation"}[activation]
    begin = "X: each rank has its own tokens" if sequence else "X: every rank has all of it"
    end = "reduce-scatter: the sum, own tokens each" if sequence else "all-reduce: the sum, on every rank"
    told = [Stage(ATTENTION, "input", begin), Stage(ATTENTION, "entered", "all-gather: all tokens on every rank")]
    told += [
        Stage(ATTENTION, "first", "Q of own heads: columns (so are K and V)"),
        Stage(ATTENTION, "middle", "softmax(QK)V of own heads, nothing is sent"),
    ]
    told += [Stage(ATTENTION, "partial", "times own rows of O: partial sums"), Stage(ATTENTION, "sum", end)]
    told += [Stage(MLP, "input", begin), Stage(MLP, "entered", "all-gather: all tokens on every rank")]
    told += [
        Stage(MLP, "first", "XA: own columns of A, own columns of XA"),
        Stage(MLP, "middle", f"Y: {act} of own columns, nothing is sent"),
    ]
    told += [Stage(MLP, "partial", "YB: own rows of B, partial sums"), Stage(MLP, "sum", end)]
    told += [Stage(WRONG, "input", "X by columns"), Stage(WRONG, "partial", "XA: own rows of A, partial sums")]
    told += [
        Stage(WRONG, "middle", f"{act} of partial sums"),
        Stage(WRONG, "sum", "their sum is not the activation of the sum"),
    ]
    told += [Stage(WRONG, "error", "difference from the unsplit layer, both ways")]
    if activation == "none":
        told[-2] = Stage(WRONG, "sum", "without an activation their sum is right")
    return tuple(stage for stage in told if stage.key != "entered" or sequence)


# --- what a rank shows ------------------------------------------------------------------------------------------------


def picture(x: Float[Tensor, "T C"], row: int = 0, column: int = 0, whole: tuple[int, int] | None = None) -> np.ndarray:
    """A piece in its place in the whole matrix, zeros around it; of a large matrix, some rows and columns."""
    rows, columns = whole or (x.shape[0], x.shape[1])
    full = x.new_zeros((rows, columns))
    full[row : row + x.shape[0], column : column + x.shape[1]] = x
    some = [
        torch.linspace(0, size - 1, min(size, most)).round().long() for size, most in ((rows, ROWS), (columns, COLUMNS))
    ]
    return full.cpu()[some[0]][:, some[1]].numpy()


def placed(x: Float[Tensor, "T B C"], key: str, cut: Cut) -> np.ndarray:
    """A rank's piece of a stage: own columns between the two matrices, own tokens outside with sequence parallelism,
    else all.
    """
    tile, rank, ranks = x[:, 0], cut.rank, cut.wire.ranks
    rows, columns = tile.shape
    if key in ("first", "middle"):
        return picture(tile, 0, rank * columns, (rows, ranks * columns))
    if key in ("input", "sum") and cut.sequence:
        return picture(tile, rank * rows, 0, (ranks * rows, columns))
    return picture(tile)


Tiles = tuple[
    str, str, np.ndarray, np.ndarray | None
]  # block, stage, this rank's tile, and by rank 0 that of the unsplit layer


@torch.no_grad()
def shots(whole: Layer, mine: SplitLayer, x: Float[Tensor, "S B C"]) -> Iterator[tuple[Tiles, float | None]]:
    """Every stage of one layer with what it shows; at the end of a block also how far the result is from the unsplit
    one.
    """
    cut, truth, own = mine.cut, x, mine.cut.tokens(x)
    for block, norm, drop in ((ATTENTION, "norm_1", "drop_1"), (MLP, "norm_2", "drop_2")):
        told: Film = {}
        right: Film = {}
        name = block.lower()
        told["input"], right["input"] = getattr(mine, norm)(own), getattr(whole, norm)(truth)
        told["sum"], right["sum"] = (
            getattr(mine, name)(told["input"], told),
            getattr(whole, name)(right["input"], right),
        )
        for key in ("input", *(("entered",) if cut.sequence else ()), "first", "middle", "partial", "sum"):
            one = right.get(key, right["input" if key == "entered" else "sum"])
            tiles = block, key, placed(told[key], key, cut), picture(one[:, 0]) if cut.rank == 0 else None
            yield tiles, apart(told["sum"], cut.tokens(right["sum"])) if key == "sum" else None
        if block == MLP:
            yield from wrong(whole, cut, right, told)
        own, truth = own + getattr(mine, drop)(told["sum"]), truth + getattr(whole, drop)(right["sum"])


def wrong(whole: Layer, cut: Cut, right: Film, told: Film) -> Iterator[tuple[Tiles, float | None]]:
    """A by rows and X by columns: the results are partial sums, and the activation comes before they are added."""
    ranks, mlp = cut.wire.ranks, whole.mlp
    x = cut.mine(right["input"], 2)
    partial = x @ cut.mine(mlp.up.weight, 1).T + mlp.up.bias / ranks
    active = mlp.activation(partial)
    total = all_reduce(active, ranks)
    columns = x.shape[-1]
    shown = {"input": picture(x[:, 0], 0, cut.rank * columns, (len(x), ranks * columns))}
    shown |= {key: picture(one[:, 0]) for key, one in (("partial", partial), ("middle", active), ("sum", total))}
    for key, of in (("input", "input"), ("partial", "first"), ("middle", "middle"), ("sum", "middle")):
        yield (
            (WRONG, key, shown[key], picture(right[of][:, 0]) if cut.rank == 0 else None),
            apart(total, right["middle"]) if key == "sum" else None,
        )
    own = told["middle"] - cut.mine(right["middle"], 2)
    yield (
        (
            WRONG,
            "error",
            placed(own, "middle", cut),
            picture((total - right["middle"])[:, 0]) if cut.rank == 0 else None,
        ),
        None,
    )


def apart(here: Tensor, there: Tensor) -> float:
    """Size of the difference over the size of what is right."""
    return float((here - there).detach().norm() / there.detach().norm())
