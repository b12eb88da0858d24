r"""What a rank holds and sends, by formula, per weight.

A weight takes $w$ bytes, its gradient $g$, and the optimizer states for it $k$. In 32 bits these are 4, 4 and 8
(AdamW's two moments); in the paper's mixed precision 2, 2 and 12 (a copy of the weight in 32 bits, and both moments).
Both make 16 bytes.

| stage | bytes per weight | in 32 bits | mixed, as in the paper | sent per step, in weights |
|---|---|---|---|---|
| 0 | $w+g+k$ | 16 | 16 | 2 |
| 1 | $w+g+k/N$ | 8 + 8/N | 4 + 12/N | 2 |
| 2 | $w+(g+k)/N$ | 4 + 12/N | 2 + 14/N | 2 |
| 3 | $(w+g+k)/N$ | 16/N | 16/N | 3 |
"""

STAGES = (0, 1, 2, 3)
FULL, MIXED = (4, 4, 8), (2, 2, 12)  # bytes of a weight, of its gradient, of the optimizer states
# Elements sent and received per weight and step, as the paper counts: a sum over ranks is two,
# scattering or gathering is one
VOLUME = (2, 2, 2, 3)
SENT = {"allreduce_": 2, "_reduce_scatter_base_": 1, "_allgather_base_": 1, "broadcast_": 1, "allgather_": 1}
KINDS = {
    "allreduce_": "all-reduce",
    "_reduce_scatter_base_": "reduce-scatter",
    "_allgather_base_": "all-gather",
    "broadcast_": "broadcast",
}


def parts(stage: int, ranks: int, kinds: tuple[int, int, int] = FULL) -> tuple[float, float, float]:
    """Bytes per weight of weights, gradients and optimizer on one rank: from stage 1 on the last is shared, from 2 on
    the last two.
    """
    weight, gradient, memory = (
        kind / ranks if stage >= shared else float(kind) for kind, shared in zip(kinds, (3, 2, 1), strict=True)
    )
    return weight, gradient, memory


def between_steps(stage: int, ranks: int) -> tuple[float, float, float]:
    """Fractions of the weights, gradients and optimizer states that PyTorch keeps on a rank between two steps: DDP
    (stages 0 and 1) keeps room for all gradients, FSDP2 (2 and 3) frees them and keeps slices of the weights.
    """
    return 1.0 if stage < 2 else 1 / ranks, 1.0 if stage < 2 else 0.0, 1 / ranks if stage else 1.0


def per_weight(stage: int, ranks: int, kinds: tuple[int, int, int] = FULL) -> float:
    return sum(parts(stage, ranks, kinds))


def gigabytes(weights: float, stage: int, ranks: int, kinds: tuple[int, int, int] = MIXED) -> float:
    """GB (1e9 bytes) of the model's states on one rank."""
    return weights * per_weight(stage, ranks, kinds) / 1e9


def words(stage: int, kinds: tuple[int, int, int] = FULL) -> str:
    """The formula as it is written: '4P + 12P/N'."""
    kept = sum(kind for kind, shared in zip(kinds, (3, 2, 1), strict=True) if stage < shared)
    shared = sum(kinds) - kept
    return " + ".join(([f"{kept}P"] if kept else []) + ([f"{shared}P/N"] if shared else []))
