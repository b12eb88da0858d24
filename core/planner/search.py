"""The search: every way to divide the GPUs into d x t x p that divides heads, layers and batch, cell by cell of t and
p.

Within a cell all interleavings up to 8 chunks, ZeRO stages, recomputations and micro-batches up to 16 texts are tried.
The best is the plan with the fewest seconds per step among those that fit. Left out of the search: t that does not
divide a machine, ZeRO 0 where there are copies (ZeRO 1 sends as much and holds less), sequence parallelism off (it only
saves).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from core.foundations.activation_bytes import Recompute
from core.planner.job import Job, Plan, divisors, fits_together
from core.planner.memory import fullest
from core.planner.timing import step_time

CHUNKS = (1, 2, 3, 4, 6, 8)
MICRO = (1, 2, 4, 8, 16)
CHANGES = {
    "tensor": 2,
    "pipeline": 2,
    "interleave": 1,
    "zero": 1,
    "recompute": 1,
    "micro": 1,
}  # how much a setting that differs counts


@dataclass(frozen=True)
class Found:
    """A plan with what it needs and what it achieves."""

    plan: Plan
    seconds: float
    mfu: float
    nbytes: float


@dataclass(frozen=True)
class Cell:
    """The best plan of one t and p; where none fits, the one that needs the least."""

    tensor: int
    pipeline: int
    best: Found | None
    fits: bool
    tried: int


@dataclass
class Search:
    """All cells so far, and the fitting plan that changes least of the one that was asked for."""

    job: Job
    wish: Plan
    cells: list[Cell] = field(default_factory=list)
    nearest: Found | None = None
    tried: int = 0
    done: bool = False

    @property
    def grid(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All t and all p that will be looked at."""
        places = cells_of(self.job, self.wish)
        return tuple(sorted({t for t, _ in places})), tuple(sorted({p for _, p in places}))

    def run(self) -> Iterator[Cell]:
        """Cell after cell, the wish's own first: one unit of work each."""
        asked = (self.wish.tensor, self.wish.pipeline)
        for tensor, pipeline in sorted(cells_of(self.job, self.wish), key=lambda place: place != asked):
            cell = self.look(tensor, pipeline)
            self.cells.append(cell)
            self.tried += cell.tried
            yield cell
        self.done = True

    def look(self, tensor: int, pipeline: int) -> Cell:
        """All plans of one t and p."""
        best, least, tried = None, None, 0
        for plan in plans_of(self.job, tensor, pipeline):
            tried += 1
            nbytes = fullest(self.job, plan).total
            if nbytes > self.job.limit:
                if least is None or nbytes < least.nbytes:
                    least = Found(plan, 0.0, 0.0, nbytes)
                continue
            time = step_time(self.job, plan)
            found = Found(plan, time.seconds, time.mfu, nbytes)
            if best is None or found.seconds < best.seconds:
                best = found
            if self.nearest is None or self.distance(found) < self.distance(self.nearest):
                self.nearest = found
        return Cell(tensor, pipeline, best or least, best is not None, tried)

    def distance(self, found: Found) -> tuple[int, float]:
        """How many settings differ from the wish, another division of the model counting twice; then the time."""
        return (
            sum(weight for name, weight in CHANGES.items() if getattr(found.plan, name) != getattr(self.wish, name)),
            found.seconds,
        )

    @property
    def ranked(self) -> list[Found]:
        """The best of every cell, the fastest first."""
        return sorted(
            (cell.best for cell in self.cells if cell.fits and cell.best is not None), key=lambda found: found.seconds
        )

    @property
    def least(self) -> Found | None:
        """Where nothing fits: the plan that needs the least."""
        return min(
            (cell.best for cell in self.cells if cell.best is not None), key=lambda found: found.nbytes, default=None
        )


def cells_of(job: Job, wish: Plan) -> list[tuple[int, int]]:
    """Every t within a machine, and the wish's, with every p that divides the layers and the GPUs."""
    shape = job.shape
    near = [t for t in divisors(job.gpus) if job.card.per_machine % t == 0 or t == wish.tensor]
    tensors = [t for t in near if shape.heads % t == 0 and shape.key_heads % t == 0]
    return [
        (t, p)
        for t in tensors
        for p in divisors(job.gpus // t)
        if shape.layers % p == 0 and job.batch % (job.gpus // (t * p)) == 0
    ]


def plans_of(job: Job, tensor: int, pipeline: int) -> Iterator[Plan]:
    """Every plan of one t and p that divides the job."""
    data, per_stage = job.gpus // (tensor * pipeline), job.shape.layers // pipeline
    again: tuple[Recompute, ...] = ("none", "full") if job.layer.fused else ("none", "selective", "full")
    for chunks in CHUNKS if pipeline > 1 else (1,):
        for micro in MICRO:
            plan = Plan(data, tensor, pipeline, chunks, 0, "none", micro, tensor > 1)
            if per_stage % chunks or not fits_together(job, plan):
                continue
            for zero in (1, 2, 3) if data > 1 else (0,):
                for recompute in again:
                    yield Plan(data, tensor, pipeline, chunks, zero, recompute, micro, tensor > 1)
