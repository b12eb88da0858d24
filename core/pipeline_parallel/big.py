r"""Schedules on up to 64 ranks, simulated: makespans, idle time and activations held.

A schedule is an order of actions per rank; the simulation gives each its time. $F$, $I$, $W$ are the times of a rank's
whole share of the layers for one micro-batch, a stage takes $1/v$ of it, and communication takes none. Idle time over
work should be

$$\text{GPipe, 1F1B: } \frac{p-1}{m}, \qquad \text{interleaved: } \frac{p-1}{v\,m}, \qquad
\text{split: } \frac{(p-1)(F+I-W)}{v\,m\,(F+I+W)}, \qquad \text{ZBV: } \frac{(p-1)\,F}{v\,m\,(F+I+W)} \;\text{ if } F =
I = W.$$

**What is zero in "zero bubble"?** Count the idle time of each rank between its *own* first start and its own last end:
in ZBV with $F = I = W$ that is 0 on every rank. Its picture still has idle corners: rank $r$ cannot begin before the
first micro-batch has come down to it, and ends as much later. In training with many batches one after the other, the
corners of two batches fit into each other, provided that the optimizer step needs no global synchronization. Over the
whole makespan ZBV loses $(p-1)F/v$ with $v = 2$: no more than any other schedule with two stages per rank, and with the
memory of 1F1B. With more stages per rank the split interleaved schedule loses less than ZBV.

The order of ZBV is fixed, made for $F = I = W$. Set $F:I:W = 1:1.2:0.6$ and ranks wait for gradients in their own span,
too: the zero is gone.

With full backward passes $B = I + W$. Some texts write $B$ for the whole backward pass, some for $I$: $(p-1)(F+I-W)$
here is DeepSeek's $(p-1)(F+B-2W)$.

Left out: communication, and schedules searched for the given times (Qi et al. do that too); V-Half and V-Min, which
hold still less.
Source: Huang et al. 2018, arXiv:1811.06965; Narayanan et al. 2021, arXiv:2104.04473; Qi et al. 2023, arXiv:2401.10241,
sections 2 and 6; Qi et al. 2024, arXiv:2405.15362.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.turns import with_pauses, without_pauses
from core.pipeline_parallel import formulas
from core.pipeline_parallel.bubble import holds
from core.pipeline_parallel.orders import NAMES, ORDERS, SHORT, check, chunks_of
from core.pipeline_parallel.simulate import Timeline, durations_of, simulation
from core.pipeline_parallel.watched import Gantt, gantt

CELLS = 1000  # of a row of a large chart
FEW = 120  # actions of a rank that are drawn one by one
AT_ONCE = 15_000  # actions that the first Step may simulate
POINT = 150_000  # most actions of a point of the curve
MOST_MICRO = 512

FORMULA = "the formulas of How it works; ZBV's holds for F = I = W"
IDLE = Figure("idle part of all time", "%", "theory", label="simulated", headline=True)
MAKESPAN = Figure("time of a batch (makespan)", "ms", "theory", label="simulated", headline=True)
BUBBLE = Figure("bubble over work, {schedule}", "of the work", "theory", FORMULA, "simulated")
OWN_IDLE = Figure("longest wait within a rank's own span, {schedule}", "ms", "theory", FORMULA, "simulated")
HELD = Figure(
    "most micro-batches held, {schedule}", "micro-batches", "theory", "the order of the schedule", "simulated"
)


@dataclass(frozen=True)
class BigConfig(Config):
    """How many ranks, micro-batches and stages per rank, and how long a rank's share of one micro-batch takes."""

    schedule: str = setting(
        "zbv", "Schedule", choices=NAMES, help="The schedule whose picture stays and whose numbers stand on the cards."
    )
    ranks: int = setting(
        8, "Ranks (p)", unit="rank", low=2, high=64, help="More ranks wait longer at both ends.", slider=True
    )
    micro: int = setting(
        32,
        "Micro-batches (m)",
        unit="micro-batch",
        low=1,
        high=MOST_MICRO,
        help="More micro-batches make the bubble smaller.",
        slider=True,
    )
    chunks: int = setting(
        2,
        "Stages per rank (v), interleaved",
        unit="stage",
        low=1,
        high=8,
        help="More stages per rank make the bubble smaller. ZBV always has 2, GPipe and 1F1B 1.",
        slider=True,
    )
    forward: float = setting(
        1.0,
        "Forward (F)",
        unit="millisecond",
        low=0.1,
        high=4,
        help="Time of a rank's forward pass for one micro-batch.",
        slider=True,
    )
    inputs: float = setting(
        1.0,
        "Gradient of the inputs (I)",
        unit="millisecond",
        low=0.1,
        high=4,
        help="Longer than F, and ranks of ZBV wait in their own span, too.",
        slider=True,
    )
    weights: float = setting(
        1.0,
        "Gradient of the weights (W)",
        unit="millisecond",
        low=0.1,
        high=4,
        help="The part of the backward pass that can fill holes: more of it hides more waiting.",
        slider=True,
    )

    def check(self) -> None:
        check(self.schedule, self.ranks, self.micro, self.chunks)

    @property
    def times(self) -> tuple[float, float, float]:
        return self.forward, self.inputs, self.weights

    def theory(self, schedule: str, micro: int) -> float:
        """Bubble over work, by formula."""
        return formulas.bubble(schedule, self.ranks, micro, chunks_of(schedule, self.chunks), *self.times)

    def can(self, schedule: str, micro: int) -> bool:
        try:
            check(schedule, self.ranks, micro, self.chunks)
        except ValueError:
            return False
        return True

    def actions(self, schedule: str, micro: int) -> int:
        return self.ranks * micro * chunks_of(schedule, self.chunks) * (3 if schedule in ("split", "zbv") else 2)


@dataclass(frozen=True)
class Row:
    """One schedule, by formula and simulated; None until it is."""

    schedule: str
    theory: float  # bubble over work
    held: tuple[float, ...]  # micro-batches of a rank's whole share, by formula
    makespan: float | None = None
    bubble: float | None = None
    own_idle: tuple[float, ...] = ()  # of each rank
    peaks: tuple[float, ...] = ()  # micro-batches of a rank's whole share, simulated


@dataclass(frozen=True)
class BigStep(Step):
    """All schedules so far; the chart of the one that was just simulated."""

    rows: tuple[Row, ...] = ()
    chart: tuple[str, float, tuple[str, ...], Gantt] | None = (
        None  # schedule, makespan, cells of each rank, or single actions
    )
    curves: tuple[
        tuple[str, tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]], ...
    ] = ()  # schedule, (m, formula), (m, simulated)
    ideal: float = 0.0
    chosen: str = ""


def grid(config: BigConfig) -> list[int]:
    """Numbers of micro-batches for the curve: multiples of p, doubled up to 512."""
    points, micro = list[int](), config.ranks
    while micro <= MOST_MICRO:
        points.append(micro)
        micro *= 2
    return points


@dataclass
class Study:
    """What is known so far."""

    config: BigConfig
    rows: dict[str, Row] = field(default_factory=dict)
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        able = [schedule for schedule in ORDERS if config.can(schedule, config.micro) and schedule != config.schedule]
        for schedule in [*able, config.schedule]:  # the chosen one last: it is what stays in the picture
            chunks = chunks_of(schedule, config.chunks)
            held = tuple(peak / chunks for peak in formulas.peaks(schedule, config.ranks, config.micro, chunks))
            self.rows[schedule], self.points[schedule] = Row(schedule, config.theory(schedule, config.micro), held), []

    def timeline(self, schedule: str, micro: int) -> Generator[None, None, Timeline]:
        chunks = chunks_of(schedule, self.config.chunks)
        stages = self.config.ranks * chunks
        durations = durations_of(*([time / chunks] * stages for time in self.config.times))
        orders = []
        for rank in range(self.config.ranks):
            orders.append(ORDERS[schedule](rank, self.config.ranks, micro, chunks))
            if micro * stages > POINT:
                yield
        return (yield from simulation(orders, durations))

    def simulate(self, schedule: str) -> Generator[None, None, tuple[str, float, tuple[str, ...], Gantt]]:
        """Fill in a schedule's row; returns its chart."""
        line = yield from self.timeline(schedule, self.config.micro)
        old, chunks = self.rows[schedule], chunks_of(schedule, self.config.chunks)
        yield
        peaks = tuple(peak / chunks for peak in line.peaks)
        yield
        self.rows[schedule] = Row(
            schedule, old.theory, old.held, line.makespan, line.bubble, tuple(line.own_idle), peaks
        )
        self.points[schedule].append((self.config.micro, line.bubble))
        few = len(line.orders[0]) <= FEW and self.config.ranks <= 16
        yield
        return schedule, line.makespan, () if few else line.sampled(CELLS), gantt(line, 1.0) if few else ()

    def step(self, doing: str, **more: Any) -> BigStep:
        curves = tuple(
            (
                schedule,
                tuple((micro, self.config.theory(schedule, micro)) for micro in grid(self.config)),
                tuple(sorted(points)),
            )
            for schedule, points in self.points.items()
        )
        ideal = self.config.micro * sum(self.config.times)
        return BigStep(
            rows=tuple(self.rows.values()), curves=curves, ideal=ideal, chosen=self.config.schedule, doing=doing, **more
        )

    def figures(self) -> Iterator[Result]:
        config, work = self.config, self.config.micro * sum(self.config.times)
        for schedule, row in self.rows.items():
            name, exact = SHORT[schedule], holds(schedule, config.times)
            own = formulas.own_idle(schedule, config.ranks, chunks_of(schedule, config.chunks), *config.times)
            if schedule == config.schedule and row.bubble is not None:
                of_time = 100 * formulas.share(row.theory) if exact else None
                yield IDLE(
                    100 * formulas.share(row.bubble), of_time, source=f"{name}: b / (1 + b) of the formula above"
                )
                yield MAKESPAN(row.makespan, (1 + row.theory) * work if exact else None, source=f"{name}: {FORMULA}")
            yield BUBBLE.of(schedule=name)(row.bubble, row.theory if exact else None)
            yield OWN_IDLE.of(schedule=name)(max(row.own_idle), own if exact else None)
            yield HELD.of(schedule=name)(max(row.peaks), max(row.held))


@experiment("Which schedule waits least on many ranks, and what does it hold?")
def big(config: BigConfig) -> Iterator[BigStep]:
    """Formulas at once, then every schedule in turn, then more micro-batches."""
    study, chart = Study(config), None
    if config.actions(config.schedule, config.micro) <= AT_ONCE:
        chart = without_pauses(study.simulate(config.schedule))
    yield study.step("the formulas", chart=chart)
    for schedule in study.rows:
        if study.rows[schedule].makespan is None or schedule == config.schedule:
            study.points[schedule].clear()
            chart = yield from with_pauses(study.simulate(schedule), BigStep())
            row = study.rows[schedule]
            yield study.step(
                f"{NAMES[schedule]}: makespan {row.makespan:,.6g} ms, idle {row.bubble:.2%} of the work", chart=chart
            )
    for micro in grid(config):
        for schedule in study.rows:
            if micro != config.micro and config.can(schedule, micro) and config.actions(schedule, micro) <= POINT:
                line = yield from with_pauses(study.timeline(schedule, micro), BigStep())
                study.points[schedule].append((micro, line.bubble))
        yield study.step(f"simulated with {micro} micro-batches")
    row = study.rows[config.schedule]
    yield study.step(
        f"done: {NAMES[config.schedule]} takes {row.makespan:,.6g} ms and waits {row.bubble:.2%} of its work",
        figures=tuple(study.figures()),
    )
