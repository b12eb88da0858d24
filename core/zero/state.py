"""A whole state of training, the pieces that ranks hold of it, and what pieces make when they are put together."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.zero.training import Size

Row = Float[np.ndarray, "P"]


@dataclass(frozen=True)
class State:
    """A whole state of training: the weights in a row, AdamW's two moments of each, and its count of steps."""

    weights: Row
    means: Float[np.ndarray, "2 P"]
    count: int


@dataclass(frozen=True)
class Piece:
    """Numbers `start` to `stop` of one tensor, as one rank has them: a row of weights, or two rows of means."""

    name: str
    means: bool
    start: int
    stop: int
    values: Float[np.ndarray, "K N"]


@dataclass(frozen=True)
class Rest:
    """What the survivors have together; what nobody has is zero."""

    state: State
    weights_dead: int
    means_dead: int
    dead: tuple[tuple[str, bool, int, int], ...]  # tensor, means or weights, from, to


def together(sizes: tuple[tuple[str, int], ...], count: int, held: list[Piece]) -> Rest:
    """All pieces put into one state. sizes: the tensors and their numbers, in the order of the row."""
    starts = dict(zip((name for name, _ in sizes), accumulate((size for _, size in sizes), initial=0), strict=False))
    whole = sum(size for _, size in sizes)
    values, alive = np.zeros((3, whole), np.float32), np.zeros((2, whole), bool)
    for piece in held:
        place = slice(starts[piece.name] + piece.start, starts[piece.name] + piece.stop)
        values[1:3, place] = piece.values if piece.means else values[1:3, place]
        values[0, place] = values[0, place] if piece.means else piece.values[0]
        alive[int(piece.means), place] = True
    gaps = [
        (name, means, *gap)
        for name, size in sizes
        for means in (False, True)
        for gap in gaps_of(alive[int(means), starts[name] : starts[name] + size])
    ]
    state = State(values[0], values[1:], count)
    return Rest(state, int((~alive[0]).sum()), int((~alive[1]).sum()), tuple(gaps))


def gaps_of(alive: Bool[np.ndarray, "N"]) -> list[tuple[int, int]]:
    """Stretches of False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], alive, [True]]).astype(np.int8)))
    return [(int(low), int(high)) for low, high in zip(edges[::2], edges[1::2], strict=True)]


def parts_of(size: Size, state: State) -> list[tuple[str, Tensor, tuple[Tensor, Tensor]]]:
    """The rows cut into the model's tensors."""
    cut, start = list[tuple[str, Tensor, tuple[Tensor, Tensor]]](), 0
    for name, weight in size.model().named_parameters():
        place = slice(start, start + weight.numel())
        values, first, second = (torch.tensor(row[place]).view(weight.shape) for row in (state.weights, *state.means))
        cut.append((name, values, (first, second)))
        start += weight.numel()
    return cut
