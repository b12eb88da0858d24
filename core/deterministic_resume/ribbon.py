"""The ribbon: runs side by side, step by step, each state named by the SHA-256 of its weights and compared with one
run's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

SHOWN_DIGITS = 12  # of a hash


@dataclass(frozen=True)
class Cell:
    """A run after one step, beside the first run at the same step."""

    step: int
    hash: str
    equal: bool  # bit for bit
    distance: float  # the largest difference of a weight
    differing: int  # weights that are not the same bits
    loss: float | None  # nats per character of this step's batch, before the step
    tensor: str = ""  # the one with the largest difference


@dataclass(frozen=True)
class Ribbon:
    """All cells so far, row by row; the first row is the run that the others are compared with."""

    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def hash_of(weights: Float[np.ndarray, "P"]) -> str:
    """SHA-256 of the weights' bytes: equal only where every bit is."""
    return hashlib.sha256(weights.tobytes()).hexdigest()


@dataclass
class Weaver:
    """Takes states of runs as they come, in any order, and gives cells as soon as the first run has been there."""

    names: Sequence[tuple[str, int]]  # tensors and their sizes, in the order of the weights' row
    first: str  # the run that the others are compared with
    seen: dict[int, tuple[str, Float[np.ndarray, "P"]]] = field(default_factory=dict)  # its states
    early: list[tuple[str, int, float | None, Float[np.ndarray, "P"]]] = field(
        default_factory=list
    )  # of runs that are ahead of it
    rows: dict[str, list[Cell]] = field(default_factory=dict)

    def add(self, row: str, step: int, loss: float | None, weights: Float[np.ndarray, "P"]) -> list[tuple[str, Cell]]:
        """One more state of a run; returns the cells that could be made now."""
        if row == self.first:
            self.seen[step] = (hash_of(weights), weights)
        self.early.append((row, step, loss, weights))
        ready = [one for one in self.early if one[1] in self.seen]
        self.early = [one for one in self.early if one[1] not in self.seen]
        return [(one[0], self.compared(*one)) for one in ready]

    def compared(self, row: str, step: int, loss: float | None, weights: Float[np.ndarray, "P"]) -> Cell:
        its_hash, (wanted, there) = hash_of(weights), self.seen[step]
        apart, differing = np.abs(weights - there), int((weights.view(np.uint32) != there.view(np.uint32)).sum())
        worst = "" if its_hash == wanted else self.tensor_at(int(apart.argmax()))
        cell = Cell(step, its_hash[:SHOWN_DIGITS], its_hash == wanted, float(apart.max()), differing, loss, worst)
        self.rows.setdefault(row, []).append(cell)
        return cell

    def tensor_at(self, place: int) -> str:
        """The name of the tensor that holds this place of the weights' row."""
        for name, size in self.names:
            if place < size:
                return name
            place -= size
        raise IndexError(place)

    def ribbon(self) -> Ribbon:
        return Ribbon(tuple((row, tuple(cells)) for row, cells in self.rows.items()))

    def first_difference(self, row: str) -> Cell | None:
        """The first cell of a run that is not the first run's."""
        return next((cell for cell in self.rows[row] if not cell.equal), None)
