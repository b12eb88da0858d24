r"""When does every action of a schedule start? An event simulation, and what follows from it.

An action starts as soon as its rank is free and what it needs is there:

$$\text{start}(a) = \max\big(\text{end of the rank's action before } a,\; \text{end of what } a \text{ needs}\big).$$

Each rank goes on until it needs what is not there yet; whoever makes that wakes it. Every action is looked at at most
twice, so the work grows with the number of actions: about a microsecond each.
"""

from array import array
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.foundations.turns import without_pauses
from core.pipeline_parallel.orders import Action

UNIT = 20_000  # actions between two turns
Durations = Mapping[str, Sequence[float]]  # kind -> time of it on each stage


def durations_of(forward: Sequence[float], inputs: Sequence[float], weights: Sequence[float]) -> dict[str, list[float]]:
    """Of all four kinds, for every stage; a whole backward pass is both halves."""
    return {
        "F": list(forward),
        "I": list(inputs),
        "W": list(weights),
        "B": [one + other for one, other in zip(inputs, weights, strict=True)],
    }


@dataclass(frozen=True)
class Timeline:
    """Of every rank: its actions, and when each began and ended."""

    orders: Sequence[Sequence[Action]]
    starts: Sequence[Sequence[float]]
    ends: Sequence[Sequence[float]]

    @property
    def makespan(self) -> float:
        return max(ends[-1] for ends in self.ends)

    @property
    def busy(self) -> list[float]:
        """Time each rank computes."""
        return [sum(ends) - sum(starts) for starts, ends in zip(self.starts, self.ends, strict=True)]

    @property
    def bubble(self) -> float:
        """Idle time of all ranks in all of the makespan, as a share of their work: 'bubble over ideal'."""
        return len(self.orders) * self.makespan / sum(self.busy) - 1

    @property
    def idle_share(self) -> float:
        """The same idle time as a share of all time: 'bubble over total'."""
        return 1 - sum(self.busy) / (len(self.orders) * self.makespan)

    @property
    def own_idle(self) -> list[float]:
        """Idle time of each rank between its own first start and its own last end: what 'zero bubble' is said of."""
        return [
            max(0.0, ends[-1] - starts[0] - busy)
            for starts, ends, busy in zip(self.starts, self.ends, self.busy, strict=True)
        ]

    def live(self, rank: int) -> list[tuple[float, int]]:
        """(time, micro-batches x stages whose activations the rank then holds): from a forward pass to its last
        backward action.
        """
        changes = list[tuple[float, int]]()
        for (_, kind, _), start, end in zip(self.orders[rank], self.starts[rank], self.ends[rank], strict=True):
            if kind == "F":
                changes.append((start, 1))
            elif kind in "BW":
                changes.append((end, -1))
        held, steps = 0, list[tuple[float, int]]()
        for time, change in changes:  # a rank does one thing at a time: they are in order
            held += change
            steps.append((time, held))
        return steps

    def sampled(self, cells: int) -> tuple[str, ...]:
        """Of every rank, what it does at so many moments: a letter each, small on its first stage, a dot where it
        waits.
        """
        moments = (np.arange(cells) + 0.5) * self.makespan / cells
        rows = []
        for order, starts, ends in zip(self.orders, self.starts, self.ends, strict=True):
            first, places = min(stage for stage, _, _ in order), np.searchsorted(starts, moments, side="right") - 1
            letters = [
                kind.lower() if stage == first else kind for stage, kind, _ in (order[place] for place in places)
            ]
            works = (places >= 0) & (moments < np.asarray(ends)[places])
            rows.append("".join(letter if works_now else "." for letter, works_now in zip(letters, works, strict=True)))
        return tuple(rows)

    @property
    def peaks(self) -> list[int]:
        return [max(held for _, held in self.live(rank)) for rank in range(len(self.orders))]


def simulation(orders: Sequence[Sequence[Action]], durations: Durations) -> Generator[None, None, Timeline]:
    """Yields between its units of work, and returns the timeline."""
    ranks, last = len(orders), max(stage for order in orders for stage, _, _ in order)
    ended: dict[tuple[bool, int, int], float] = {}  # (is it a forward pass, stage, micro-batch) -> when
    waiting: dict[tuple[bool, int, int], int] = {}  # what is missing -> the rank that needs it
    clock, starts, ends = [0.0] * ranks, [array("d") for _ in orders], [array("d") for _ in orders]
    ready, done = list(range(ranks)), 0
    while ready:
        rank = ready.pop()
        now, begin, finish = clock[rank], starts[rank], ends[rank]
        for place in range(len(finish), len(orders[rank])):
            stage, kind, micro = orders[rank][place]
            forward, came = kind == "F", 0.0
            if kind != "W" and stage != (0 if forward else last):
                needed = (forward, stage - 1 if forward else stage + 1, micro)
                if needed not in ended:
                    waiting[needed] = rank
                    break
                came = ended.pop(needed)
            came = max(now, came)
            now = came + durations[kind][stage]
            begin.append(came)
            finish.append(now)
            if kind != "W":
                ended[forward, stage, micro] = now
                if (forward, stage, micro) in waiting:
                    ready.append(waiting.pop((forward, stage, micro)))
            done += 1
            if done % UNIT == 0:
                yield
        clock[rank] = now
    if waiting:
        raise ValueError("the ranks wait for each other: this order has no end")
    return Timeline(orders, starts, ends)


def simulate(orders: Sequence[Sequence[Action]], durations: Durations) -> Timeline:
    """In one go."""
    return without_pauses(simulation(orders, durations))
