r"""The bubble: ranks of a pipeline wait, by a formula, in a simulation, and really.

A model too large for one device is cut into stages, one rank each. A rank can only begin when the rank before it has
sent something, and at the end it has nothing left while the first ranks are still at their backward passes. A batch is
therefore cut into $m$ micro-batches that follow each other through the $p$ ranks. What remains idle is the *bubble*.
GPipe and 1F1B have the same:

$$\frac{\text{idle}}{\text{work}} = \frac{p-1}{m}, \qquad \frac{\text{idle}}{\text{all time}} = \frac{p-1}{m+p-1}.$$

Both conventions are in use, so a percentage alone says little: with $p = 4$, $m = 8$ it is 37.5 % or 27.3 %. 1F1B does
not shrink the bubble. It shrinks memory: GPipe holds the activations of all $m$ micro-batches, 1F1B on rank $r$ those
of $p - r$. Interleaving gives every rank $v$ thinner stages and divides the bubble by $v$, for $v$ times as many
messages. Zero-bubble schedules split the backward pass: the rank before waits only for the gradient of the input ($I$);
that of the weights ($W$) fills holes.

The ranks here are processes that train a small transformer with PyTorch's own schedules. **Padded** (the three large
charts): each chunk of work sleeps until its nominal time is over, so two cores carry four ranks as if each had its
device, and what is seen is the schedule. **Raw** (the small chart): nothing is padded; the same ranks fight for this
machine's cores, and with layers so small most of the time is Python and communication.

Why a real run takes longer is read off its critical path, back from the last chunk to whatever each chunk waited for:
chunks that took longer than nominal (a sleep never ends on time, and a core may be busy), communication, and
Python between two chunks of a rank.

Left out: data parallelism beside the pipeline, and overlapping of communication with a rank's own work on a GPU.
Source: Huang et al. 2018, GPipe, arXiv:1811.06965, section 2.3; Narayanan et al. 2021, arXiv:2104.04473, section 2.2;
Qi et al. 2023, Zero Bubble Pipeline Parallelism, arXiv:2401.10241.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, warm
from core.foundations.settings import context_field, seed_field
from core.pipeline_parallel import formulas
from core.pipeline_parallel.orders import NAMES, SHORT, check, chunks_of, orders_of
from core.pipeline_parallel.real import Plan, check_seconds, play
from core.pipeline_parallel.simulate import Durations, Timeline, durations_of, simulate
from core.pipeline_parallel.watched import Gantt, Watched, chain, gantt

RULES = {
    "gpipe": "(p - 1) / m",
    "1f1b": "(p - 1) / m",
    "interleaved": "(p - 1) / (v m)",
    "split": "(p - 1)(F + I - W) / (v m (F + I + W))",
    "zbv": "(p - 1) F / (v m (F + I + W)), if F = I = W",
}
ONE_DEVICE = "the same model and batch on one device"
IDLE = Figure(
    "idle part of all time, {schedule}", "%", "theory", "b / (1 + b) of the bubble b over work", headline=True
)
BUBBLE = Figure("bubble over work, {schedule}", "of the work", "theory")
SIMULATED = Figure(
    "bubble over work, {schedule}, simulated",
    "of the work",
    "theory",
    "the formula; simulated with the stage times the ranks showed",
    "simulated",
)
HELD = Figure(
    "most micro-batches held, {schedule}", "micro-batches", "theory", "the order of the schedule", headline=True
)
LOSS = Figure("loss, {schedule}", "nats", "theory", ONE_DEVICE)
GRADIENT = Figure(
    "largest difference of a gradient, {schedule}",
    "of the largest",
    "theory",
    f"{ONE_DEVICE}; float32 rounds, and m sums are added",
)
LONGER = Figure(
    "real run longer than the formula: {part}", "ms", None, "along the critical path of chunks and communication"
)
OWN_IDLE = Figure("idle within its own span, rank 0", "ms", "theory", "the simulation with nominal times")
RAW = Figure("bubble over work, not padded", "of the work", None, "the ranks share this machine's cores; mostly Python")


@dataclass(frozen=True)
class BubbleConfig(Config):
    """Which schedule, on how many ranks, in how many micro-batches, and how long a chunk takes."""

    schedule: str = setting(
        "1f1b", "Schedule", choices=NAMES, help="The order in which each rank does its forward and backward passes."
    )
    ranks: int = setting(
        4,
        "Ranks (p)",
        unit="rank",
        low=2,
        high=4,
        help="More ranks (processes, one stage each) wait longer at both ends.",
        slider=True,
    )
    micro: int = setting(
        8,
        "Micro-batches (m)",
        unit="micro-batch",
        low=1,
        high=32,
        help="More micro-batches make the bubble smaller.",
        slider=True,
    )
    chunks: int = setting(
        2,
        "Stages per rank (v), interleaved",
        unit="stage",
        low=2,
        high=4,
        help="More stages per rank make the bubble smaller and send more. ZBV always has 2, GPipe and 1F1B 1.",
        slider=True,
    )
    nominal: float = setting(
        40.0,
        "Nominal time of a forward pass",
        unit="millisecond",
        low=2,
        high=100,
        help="Of a rank's layers, for one micro-batch. Longer makes the noise of this machine matter less.",
    )
    inputs: float = setting(
        1.0,
        "I / F",
        low=0.2,
        high=3,
        more=True,
        help="Time of the input gradients over that of the forward pass; 1 is what the formulas assume.",
        slider=True,
    )
    weights: float = setting(
        1.0,
        "W / F",
        low=0.2,
        high=3,
        more=True,
        help="Time of the weight gradients over that of the forward pass; 1 is what the formulas assume.",
        slider=True,
    )
    sequences: int = setting(
        16,
        "Batch",
        unit="sequence",
        low=1,
        high=128,
        help="More sequences make each micro-batch larger; their number must divide into the micro-batches.",
    )
    layers: int = setting(
        8, "Layers", unit="layer", low=2, high=32, more=True, help="More layers give each stage more to compute."
    )
    width: int = setting(
        32,
        "Width",
        unit="number",
        low=8,
        high=256,
        more=True,
        help="A wider model can store more; each step takes longer.",
    )
    context: int = context_field()
    rounds: int = setting(
        3,
        "Rounds",
        unit="round",
        low=1,
        high=9,
        more=True,
        help="More rounds give a steadier picture; the median one is shown.",
        slider=True,
    )
    seed: int = seed_field()

    def check(self) -> None:
        check(self.schedule, self.ranks, self.micro, self.chunks)
        if self.sequences % self.micro:
            raise ValueError(
                f"a batch of {self.sequences} sequences cannot be cut into {self.micro} equal micro-batches"
            )
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")
        stages = self.ranks * chunks_of(self.schedule, self.chunks)
        if self.layers < stages:
            raise ValueError(f"layers must be at least {stages}, one for each stage, got {self.layers}")
        check_seconds((self.micro + self.ranks - 1) * sum(self.times))

    @property
    def times(self) -> tuple[float, float, float]:
        """F, I, W of a rank's share of the layers, in seconds."""
        return self.nominal / 1e3, self.inputs * self.nominal / 1e3, self.weights * self.nominal / 1e3

    def plan(self, schedule: str) -> Plan:
        chunks = chunks_of(schedule, self.chunks)
        stages = self.ranks * chunks
        layout = tuple(self.layers // stages + (stage < self.layers % stages) for stage in range(stages))
        seconds = durations_of(*([time / chunks] * stages for time in self.times))
        return Plan(
            schedule, self.ranks, self.micro, layout, seconds, self.sequences, self.width, self.context, self.seed
        )

    @property
    def schedules(self) -> tuple[str, ...]:
        """The chosen one, and one to compare its memory with."""
        other = "gpipe" if self.schedule != "gpipe" else "1f1b"
        return (self.schedule, other) if other == "gpipe" or self.micro >= self.ranks else (self.schedule,)


@dataclass(frozen=True)
class BubbleStep(Step):
    """What is known so far; all of it with each Step that says something."""

    schedule: str = ""
    ideal: Gantt = ()
    simulated: Gantt = ()
    real: Gantt = ()
    raw: Gantt = ()
    rows: tuple[
        tuple[str, float, float, float | None], ...
    ] = ()  # schedule, bubble over work by formula, simulated, measured
    held: tuple[
        tuple[str, tuple[float, ...], tuple[float, ...] | None], ...
    ] = ()  # schedule, micro-batches per rank by formula, measured
    parts: tuple[tuple[str, float], ...] = ()  # ms that the real run took longer than the formula says
    makespans: tuple[float, float | None, float | None] = (
        0.0,
        None,
        None,
    )  # ms: formula, simulated with measured times, real
    raw_bubble: float | None = None
    chunk_ms: tuple[float, float] | None = None  # median time a chunk really computes, padded and raw
    final: bool = False


def job(rank: int, ranks: int, config: BubbleConfig) -> Iterator[tuple[Any, ...]]:
    """What every rank does; under torchrun there may be another number of ranks than the settings say."""
    config = config if ranks == config.ranks else replace(config, ranks=ranks)
    for schedule in config.schedules:
        raw = 3 if schedule == config.schedule else 0
        yield from play(rank, config.plan(schedule), config.rounds, raw)


def timeline_with(plan: Plan, durations: Durations) -> Timeline:
    return simulate(orders_of(plan.schedule, plan.ranks, plan.micro, plan.chunks), durations)


def measured_durations(plan: Plan, watched: Watched) -> Durations:
    """The medians that the ranks showed, in the form the simulation takes; nominal where a kind does not occur."""
    times = watched.times()
    return {
        kind: [times.get((stage, kind), planned) for stage, planned in enumerate(row)]
        for kind, row in plan.seconds.items()
    }


@dataclass
class Account:
    """What all ranks have said so far."""

    config: BubbleConfig
    padded: dict[str, Watched] = field(default_factory=dict)
    raw: Watched | None = None
    equal: dict[str, list[tuple[float | None, float, float, float]]] = field(
        default_factory=dict
    )  # schedule -> loss, alone, apart, largest

    def __post_init__(self) -> None:
        self.plans = {schedule: self.config.plan(schedule) for schedule in self.config.schedules}
        self.ideals = {schedule: timeline_with(plan, plan.seconds) for schedule, plan in self.plans.items()}

    def hear(self, rank: int, value: tuple[Any, ...]) -> str:
        """Take in what a rank said; a line where something is complete."""
        kind, schedule, *more = value
        if kind == "equal":
            self.equal.setdefault(schedule, []).append(tuple(more))  # type: ignore[arg-type]
            return ""
        padded, number, chunks = more
        if padded:
            watched = self.padded.setdefault(schedule, Watched(self.config.ranks))
        else:
            watched = self.raw = self.raw or Watched(self.config.ranks)
        if not watched.add(number, rank, chunks):
            return ""
        line = watched.timeline()
        return (
            f"{SHORT[schedule]}, {'padded' if padded else 'raw'}: {1e3 * line.makespan:,.0f} ms, ranks idle"
            f" {line.idle_share:.1%} of the time"
        )

    def row(self, schedule: str) -> tuple[str, float, float, float | None]:
        plan, watched = self.plans[schedule], self.padded.get(schedule)
        theory = formulas.bubble(schedule, plan.ranks, plan.micro, plan.chunks, *self.config.times)
        if watched is None or not watched.complete:
            return schedule, theory, self.ideals[schedule].bubble, None
        return (
            schedule,
            theory,
            self.against_nominal(schedule, self.simulated(schedule)),
            self.against_nominal(schedule, watched.timeline()),
        )

    def against_nominal(self, schedule: str, line: Timeline) -> float:
        """Bubble over work where all that is not nominal work counts as lost: else a chunk that oversleeps would pass
        for work.
        """
        work = sum(self.ideals[schedule].busy)
        return self.config.ranks * line.makespan / work - 1

    def simulated(self, schedule: str) -> Timeline:
        plan = self.plans[schedule]
        return timeline_with(plan, measured_durations(plan, self.padded[schedule]))

    def held(self, schedule: str) -> tuple[str, tuple[float, ...], tuple[float, ...] | None]:
        plan, watched = self.plans[schedule], self.padded.get(schedule)
        theory = tuple(peak / plan.chunks for peak in formulas.peaks(schedule, plan.ranks, plan.micro, plan.chunks))
        return (
            schedule,
            theory,
            None if watched is None or not watched.complete else tuple(peak / plan.chunks for peak in watched.peaks()),
        )

    def parts(self) -> tuple[tuple[str, float], ...]:
        """Of what real less formula is made, in ms."""
        chosen = self.config.schedule
        line, ideal, simulated = (
            self.padded[chosen].timeline(),
            self.ideals[chosen].makespan,
            self.simulated(chosen).makespan,
        )
        found = chain(line, self.plans[chosen].seconds)
        typical = simulated - ideal
        rest = found.nominal + found.over - simulated
        named = {
            "chunks slower than planned": typical,
            "chunks slower than usual": rest,
            "communication": found.message,
            "Python": found.python,
        }
        return tuple((name, 1e3 * seconds) for name, seconds in named.items())

    def step(self, doing: str, **more: Any) -> BubbleStep:
        chosen = self.config.schedule
        told: dict[str, Any] = {
            "schedule": chosen,
            "ideal": gantt(self.ideals[chosen]),
            "simulated": gantt(self.ideals[chosen]),
        }
        makespan, watched = 1e3 * self.ideals[chosen].makespan, self.padded.get(chosen)
        told["makespans"] = (makespan, None, None)
        if watched is not None and watched.complete:
            simulated, real = self.simulated(chosen), watched.timeline()
            told |= {"simulated": gantt(simulated), "real": gantt(real), "parts": self.parts()}
            told["makespans"] = (makespan, 1e3 * simulated.makespan, 1e3 * real.makespan)
        if self.raw is not None and self.raw.complete and watched is not None:
            raw = self.raw.timeline()
            told |= {
                "raw": gantt(raw),
                "raw_bubble": raw.bubble,
                "chunk_ms": (1e3 * watched.work(), 1e3 * self.raw.work()),
            }
        rows = tuple(self.row(schedule) for schedule in self.plans)
        return BubbleStep(
            rows=rows, held=tuple(self.held(schedule) for schedule in self.plans), doing=doing, **told, **more
        )

    def figures(self) -> Iterator[Result]:
        config = self.config
        for schedule in self.plans:
            name, (_, theory, simulated, real) = SHORT[schedule], self.row(schedule)
            # ZBV's formula holds only where the three parts of a chunk take equally long
            expected = theory if holds(schedule, config.times) else None
            of_time = None if expected is None else 100 * formulas.share(expected)
            yield IDLE.of(schedule=name)(None if real is None else 100 * formulas.share(real), of_time)
            yield BUBBLE.of(schedule=name)(real, expected, source=RULES[schedule])
            yield SIMULATED.of(schedule=name)(simulated, expected)
            _, held, seen = self.held(schedule)
            yield HELD.of(schedule=name)(max(seen or (0.0,)), max(held))
            told = self.equal[schedule]
            loss = next((loss for loss, *_ in told if loss is not None), None)
            yield LOSS.of(schedule=name)(loss, told[0][1])
            apart, largest = max(row[2] for row in told), max(row[3] for row in told)
            yield GRADIENT.of(schedule=name)(apart / largest, 0.0)
        for name, milliseconds in self.parts():
            yield LONGER.of(part=name)(milliseconds)
        idle, shown = self.ideals[config.schedule].own_idle, self.padded[config.schedule].timeline().own_idle
        yield OWN_IDLE(1e3 * shown[0], 1e3 * idle[0])
        if self.raw is not None:
            yield RAW(self.raw.timeline().bubble)


def holds(schedule: str, times: tuple[float, float, float]) -> bool:
    """Whether the formula of the schedule's bubble holds for these F, I, W."""
    return schedule != "zbv" or max(times) - min(times) < 1e-12


@experiment("How much of a pipeline's time is waiting?")
def bubble(config: BubbleConfig) -> Iterator[BubbleStep]:
    """The formula and the simulation at once, then real ranks."""
    warm()
    account = Account(config)
    yield account.step(
        f"{NAMES[config.schedule]}: the order of {config.micro} micro-batches on {config.ranks} ranks, with nominal"
        " times"
    )
    with Group(job, config.ranks, (config,), gloo=True) as group:
        for said in group.listen():
            line = account.hear(said.rank, said.value) if said is not None else ""
            yield account.step(line) if line else BubbleStep()
    _, theory, _, real = account.row(config.schedule)
    assert real is not None
    done = (
        f"done: {SHORT[config.schedule]} waits {real / (1 + real):.0%} of the time, by formula"
        f" {theory / (1 + theory):.0%}; loss and gradients are one device's"
    )
    yield account.step(done, final=True, figures=tuple(account.figures()))
