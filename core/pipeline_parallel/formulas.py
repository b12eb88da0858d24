r"""What the papers say about a schedule, without running it.

With $F$, $I$, $W$ the times of a rank's whole share of the layers for one micro-batch, the work of a rank is $m\,(F + I
+ W)$, and all ranks together lose, in each rank's time,

$$\text{GPipe, 1F1B: } (p-1)(F+I+W), \qquad \text{interleaved: } \tfrac{(p-1)(F+I+W)}{v}, \qquad \text{split: }
\tfrac{(p-1)(F+I-W)}{v}, \qquad
\text{ZBV: } \tfrac{(p-1)F}{v}.$$

The last holds for $F = I = W$: no rank waits between its own first and last chunk, but rank $r$ begins only when the
first micro-batch has come down to it, $r F / v$ later, and ends as much later.
"""

from collections.abc import Sequence


def lost(schedule: str, ranks: int, chunks: int, forward: float, inputs: float, weights: float) -> float:
    """Makespan less the work of one rank."""
    whole = forward + inputs + weights
    each = {
        "gpipe": whole,
        "1f1b": whole,
        "interleaved": whole / chunks,
        "split": (forward + inputs - weights) / chunks,
        "zbv": forward / chunks,
    }
    return (ranks - 1) * each[schedule]


def bubble(schedule: str, ranks: int, micro: int, chunks: int, forward: float, inputs: float, weights: float) -> float:
    """Idle time over work: (p - 1) / m for GPipe and 1F1B."""
    return lost(schedule, ranks, chunks, forward, inputs, weights) / (micro * (forward + inputs + weights))


def share(bubble: float) -> float:
    """The same idle time over all time: b / (1 + b), which makes (p - 1) / (m + p - 1) of (p - 1) / m."""
    return bubble / (1 + bubble)


def own_idle(schedule: str, ranks: int, chunks: int, forward: float, inputs: float, weights: float) -> float:
    """The most a rank waits between its own first start and last end: rank 0 of all schedules but ZBV, which is at
    zero.
    """
    return 0.0 if schedule == "zbv" else lost(schedule, ranks, chunks, forward, inputs, weights)


def peaks(schedule: str, ranks: int, micro: int, chunks: int) -> Sequence[int]:
    """Most micro-batches x stages whose activations each rank holds at once."""
    most = {
        "gpipe": lambda rank: micro,
        "1f1b": lambda rank: ranks - rank,
        "interleaved": lambda rank: (chunks - 1) * ranks + 2 * (ranks - 1 - rank) + 1,
        "split": lambda rank: chunks * ranks,
        "zbv": lambda rank: 2 * ranks,
    }[schedule]
    return [min(most(rank), micro * chunks) for rank in range(ranks)]
