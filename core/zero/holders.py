"""Who holds which numbers of which tensor, by formula, and as a grid of tensors and ranks."""

import numpy as np
from jaxtyping import Float

RANKS = 4
WAYS = ("stage 0", "stage 1", "stage 2", "stage 3", "stage 3, twice")
Spans = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  # tensor -> by rank, from and to
Tensors = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes
HERE, ONLY_HERE, NOT_HERE, WAS_COPY, DEAD = 0.0, 0.25, 0.5, 0.6, 1.0  # the values of the grid
PARTS = 4  # of a tensor, shown one by one


def chunk(shape: tuple[int, ...], part: int, parts: int) -> tuple[int, int]:
    """FSDP2 cuts the rows of a tensor as `torch.chunk` does."""
    rows, rest = -(-shape[0] // parts), int(np.prod(shape[1:]))
    return min(part * rows, shape[0]) * rest, min((part + 1) * rows, shape[0]) * rest


def dealt(sizes: list[int], ranks: int) -> list[int]:
    """Who gets which tensor at PyTorch's stage 1: the largest first, each to the rank that has least so far."""
    load, owner = [0] * ranks, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        owner[place] = load.index(min(load))
        load[owner[place]] += sizes[place]
    return owner


def planned(tensors: Tensors) -> tuple[tuple[tuple[str, Spans], ...], tuple[tuple[str, Spans], ...]]:
    """Weights and means by way, as they should be; stage 2's means are cut through the rows of its units, and known
    when they are there.
    """
    sizes = [int(np.prod(shape)) for _, shape in tensors]
    owner = dealt(sizes, RANKS)
    all_ = tuple((name, ((0, size),) * RANKS) for (name, _), size in zip(tensors, sizes, strict=True))
    one = tuple(
        (name, tuple((0, size if rank == own else 0) for rank in range(RANKS)))
        for (name, _), size, own in zip(tensors, sizes, owner, strict=True)
    )
    slices = tuple((name, tuple(chunk(shape, rank, RANKS) for rank in range(RANKS))) for name, shape in tensors)
    twice = tuple((name, tuple(chunk(shape, rank % 2, 2) for rank in range(RANKS))) for name, shape in tensors)
    weights = (all_, all_, all_, slices, twice)
    means = (all_, one, slices, slices, twice)
    return tuple(zip(WAYS, weights, strict=True)), tuple(zip(WAYS, means, strict=True))


def lost_share(spans: Spans, lost: int) -> float:
    """Numbers that only this rank has."""
    dead = 0
    for _, by_rank in spans:
        low, high = by_rank[lost]
        alive = np.zeros(max(stop for _, stop in by_rank), bool)
        for rank, (start, stop) in enumerate(by_rank):
            if rank != lost:
                alive[start:stop] = True
        dead += int((~alive[low:high]).sum())
    return dead


def grid(
    tensors: Tensors, weights: tuple[tuple[str, Spans], ...], means: tuple[tuple[str, Spans], ...], gone: int | None
) -> Float[np.ndarray, "2 W T C"]:
    """Weights and means by way: a line per matrix, and for every rank PARTS columns and an empty one; the last PARTS
    are what is left.
    """
    matrices = [number for number, (_, shape) in enumerate(tensors) if len(shape) > 1]
    cells = np.full((2, len(WAYS), len(matrices), (RANKS + 1) * (PARTS + 1) - 1), NOT_HERE)
    for kind, ways in enumerate((weights, means)):
        for way, (_, spans) in enumerate(ways):
            for line, number in enumerate(matrices):
                size = int(np.prod(tensors[number][1]))
                for part in range(PARTS):
                    middle = (part + 0.5) / PARTS * size
                    holders = {rank for rank, (low, high) in enumerate(spans[number][1]) if low <= middle < high}
                    left = holders - {gone}
                    for rank in holders:
                        value = (WAS_COPY if left else DEAD) if rank == gone else ONLY_HERE if len(left) == 1 else HERE
                        cells[kind, way, line, rank * (PARTS + 1) + part] = value
                    cells[kind, way, line, RANKS * (PARTS + 1) + part] = HERE if left else DEAD
    return cells
