"""What the ranks have told, as timelines; and of what the time of a real run is made.

The chain: go back from the last chunk, each time to whatever it had to wait for longest, the chunk before it on its
rank or the chunk whose message it needed. The chunks on this chain and the gaps between them add up to the makespan
exactly. A gap after the rank's own chunk is Python (and waiting until a message has been taken); a gap after another
rank's chunk is the message on its way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from jaxtyping import Float

from core.pipeline_parallel.orders import Action
from core.pipeline_parallel.real import Chunk
from core.pipeline_parallel.simulate import Timeline

KINDS = "FBIW"
Gantt = tuple[
    Float[np.ndarray, "N 5"], ...
]  # per rank, per chunk: start and length in ms, place in KINDS, micro-batch, which of the rank's stages


def gantt(timeline: Timeline, scale: float = 1e3) -> Gantt:
    """A timeline as arrays, seconds as milliseconds."""
    rows = []
    for order, starts, ends in zip(timeline.orders, timeline.starts, timeline.ends, strict=True):
        own = sorted({stage for stage, _, _ in order})
        begins = np.asarray(starts) * scale
        told = np.array([(KINDS.index(kind), micro, own.index(stage)) for stage, kind, micro in order], dtype=float)
        rows.append(np.column_stack([begins, np.asarray(ends) * scale - begins, told]))
    return tuple(rows)


@dataclass(frozen=True)
class Chain:
    """What a real makespan is made of, in seconds: the parts add up to it."""

    nominal: float  # what the chunks on the chain should take
    over: float  # what they took longer
    message: float
    python: float


@dataclass
class Watched:
    """All rounds of one plan, padded or raw."""

    ranks: int
    rounds: dict[int, dict[int, tuple[Chunk, ...]]] = field(default_factory=dict)  # round -> rank -> chunks

    def add(self, number: int, rank: int, chunks: tuple[Chunk, ...]) -> bool:
        """True where a round is complete with this."""
        told = self.rounds.setdefault(number, {})
        told[rank] = chunks
        return len(told) == self.ranks

    @property
    def complete(self) -> list[dict[int, tuple[Chunk, ...]]]:
        return [told for told in self.rounds.values() if len(told) == self.ranks]

    def timeline(self) -> Timeline:
        """Of the round whose makespan is the median (the lower one of two)."""
        lines = sorted((timeline_of(told) for told in self.complete), key=lambda line: line.makespan)
        return lines[(len(lines) - 1) // 2]

    def times(self) -> dict[tuple[int, str], float]:
        """(stage, kind) -> median time of a chunk."""
        found: dict[tuple[int, str], list[float]] = {}
        for told in self.complete:
            for stage, kind, _, start, _, end, _ in (chunk for chunks in told.values() for chunk in chunks):
                found.setdefault((stage, kind), []).append(end - start)
        return {key: median(values) for key, values in found.items()}

    def work(self) -> float:
        """Median seconds that a chunk really computes, without the sleep."""
        return median(chunk[4] - chunk[3] for told in self.complete for chunks in told.values() for chunk in chunks)

    def peaks(self) -> list[int]:
        """Most activations that each rank really held."""
        return [max(chunk[6] for told in self.complete for chunk in told[rank]) for rank in range(self.ranks)]


def timeline_of(told: Mapping[int, Sequence[Chunk]]) -> Timeline:
    """Time begins with the first chunk of all."""
    begin = min(chunks[0][3] for chunks in told.values())
    rows = [told[rank] for rank in sorted(told)]
    return Timeline(
        [[(stage, kind, micro) for stage, kind, micro, *_ in row] for row in rows],
        [[chunk[3] - begin for chunk in row] for row in rows],
        [[chunk[5] - begin for chunk in row] for row in rows],
    )


def needed(action: Action, last: int) -> tuple[bool, int, int] | None:
    """What has to be done elsewhere before an action: (a forward pass?, stage, micro-batch)."""
    stage, kind, micro = action
    if kind == "W" or stage == (0 if kind == "F" else last):
        return None
    return (True, stage - 1, micro) if kind == "F" else (False, stage + 1, micro)


def chain(timeline: Timeline, nominal: Mapping[str, Sequence[float]]) -> Chain:
    """Back from the last end to the first start."""
    last = max(stage for order in timeline.orders for stage, _, _ in order)
    made = {
        (kind == "F", stage, micro): (rank, place)
        for rank, order in enumerate(timeline.orders)
        for place, (stage, kind, micro) in enumerate(order)
        if kind != "W"
    }
    rank = max(range(len(timeline.ends)), key=lambda rank: timeline.ends[rank][-1])
    here: tuple[int, int] | None = (rank, len(timeline.orders[rank]) - 1)
    planned = over = message = python = 0.0
    while here is not None:
        rank, place = here
        stage, kind, _ = action = timeline.orders[rank][place]
        length = timeline.ends[rank][place] - timeline.starts[rank][place]
        planned, over = planned + nominal[kind][stage], over + length - nominal[kind][stage]
        needs = needed(action, last)
        before = [
            one for one in ((rank, place - 1) if place else None, made[needs] if needs else None) if one is not None
        ]
        here = max(before, key=lambda one: timeline.ends[one[0]][one[1]], default=None)
        gap = timeline.starts[rank][place] - (timeline.ends[here[0]][here[1]] if here else 0.0)
        if here is not None and here[0] != rank:
            message += gap
        else:
            python += gap
    return Chain(planned, over, message, python)
