r"""One rank is slower than the others: which layers should it have?

A pipeline moves at the pace of its slowest stage. With times $t_r$ for one micro-batch forward and backward on rank $r$
a batch takes

$$T \le \sum_r t_r + (m-1) \max_r t_r .$$

GPipe takes just that. 1F1B may be a little faster, since fast ranks behind a slow one do their waiting while it works.

Layers can be moved from the slow rank to others, but they take their activations along. With 1F1B rank $r$ holds $p -
r$ micro-batches at once, so a layer costs the first rank $p$ times the memory that it costs the last. The puzzle: find
a layout that is as fast as any (to 2 %) among all that fit the memory. Every dot of the map is one layout, simulated;
yours is marked.

Then real ranks train a small transformer cut your way, each chunk of work padded to the time it stands for. Whether the
puzzle is solved is decided by the simulated time and by what the ranks really held; the real time stands beside it, and
has this machine's noise in it.

Left out: the first rank's embedding and the last one's head, which take time and memory too (real layouts often give
these ranks a layer less), and weights, which move with their layers.
Source: Narayanan et al. 2021, arXiv:2104.04473, section 2.2; the idea of a puzzle: Alexander Rush, LLM Training
Puzzles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any

from core.foundations.experiment import Config, Step, experiment, setting, shown
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, warm
from core.foundations.settings import seed_field, width_field
from core.pipeline_parallel.orders import check, orders_of
from core.pipeline_parallel.real import Plan, check_seconds, play
from core.pipeline_parallel.simulate import Timeline, durations_of, simulate
from core.pipeline_parallel.watched import Gantt, Watched, gantt

SLACK = 1.02  # of the best time
Layout = tuple[int, ...]

BEST = "the best that fits the memory"
YOUR_TIME = Figure("time of your layout, simulated", "ms", "baseline", BEST, "simulated", headline=True)
FULLEST = Figure("activations of the fullest rank", "activations", "limit", "the memory of a rank", headline=True)
SOLVED = Figure("solved", "1 is yes", None, "within 2 % of the best time that fits, and within the memory", "computed")
REAL_TIME = Figure("time of a batch on real ranks", "ms", "theory", "simulated, with nominal times", headline=True)
BOUND = Figure(
    "time of a batch, simulated", "ms", "limit", "the sum of all stages + (m - 1) x the slowest one", "simulated"
)
HELD_BY = Figure("activations held by rank {rank}", "activations", "theory")
LOSS = Figure("loss", "nats", "theory", "the same model and batch on one device")
GRADIENT = Figure(
    "largest difference of a gradient", "of the largest", "theory", "one device; float32 rounds, and m sums are added"
)


@dataclass(frozen=True)
class BalanceConfig(Config):
    """Where the layers are, which rank is slow, and what a rank can hold."""

    layout: str = setting(
        "3,3,3,3",
        "Layers of each rank",
        high=40,
        help="From the first rank to the last, with commas between, such as 3,2,4,3.",
    )
    slow_rank: int = setting(1, "Slow rank", low=0, high=3, help="Which rank is slow; the first is 0.", slider=True)
    slow: float = setting(
        2.0,
        "How many times as slow",
        unit="times",
        low=1,
        high=4,
        help="A slower rank should have fewer layers.",
        slider=True,
    )
    memory: int = setting(
        12,
        "Memory of a rank",
        unit="activation",
        low=1,
        high=256,
        help="Activations of one layer and one micro-batch that fit on a rank. Less rules out more layouts.",
    )
    layers: int = setting(
        12,
        "Layers in all",
        unit="layer",
        low=4,
        high=16,
        more=True,
        help="More layers allow a finer balance.",
        slider=True,
    )
    micro: int = setting(
        8,
        "Micro-batches (m)",
        unit="micro-batch",
        low=2,
        high=16,
        more=True,
        help="More micro-batches make the slowest stage count more.",
        slider=True,
    )
    nominal: float = setting(
        10.0,
        "Nominal time of a layer's forward pass",
        unit="millisecond",
        low=1,
        high=30,
        more=True,
        help="Input and weight gradients take as long each. Longer makes the noise of this machine matter less.",
    )
    rounds: int = setting(
        2, "Rounds", unit="round", low=1, high=5, more=True, help="More rounds give a steadier real time.", slider=True
    )
    width: int = width_field()
    seed: int = seed_field()

    def check(self) -> None:
        cut = self.cut
        check("1f1b", len(cut), self.micro)
        if self.slow_rank >= len(cut):
            raise ValueError(
                f"slow_rank must be at most {len(cut) - 1}, the last of {len(cut)} ranks, got {self.slow_rank}"
            )
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")
        times = self.plan(cut).seconds
        each = [one + other for one, other in zip(times["F"], times["B"], strict=True)]
        check_seconds(sum(each) + (self.micro - 1) * max(each))

    @property
    def cut(self) -> Layout:
        """The layout as numbers, or a ValueError."""
        words = [word.strip() for word in self.layout.split(",")]
        if not all(word.isascii() and word.isdigit() and len(word) < 4 for word in words):
            raise ValueError(
                f"layout must be whole numbers with commas between, such as 3,3,3,3, got {shown(self.layout)}"
            )
        cut = tuple(int(word) for word in words)
        if not 2 <= len(cut) <= 4:
            raise ValueError(f"layout must name 2 to 4 ranks, got {len(cut)}")
        if min(cut) < 1:
            raise ValueError(f"layout must give every rank at least 1 layer, got {shown(self.layout)}")
        if sum(cut) != self.layers:
            raise ValueError(f"layout must place all {self.layers} layers, got {sum(cut)}")
        return cut

    def plan(self, cut: Layout) -> Plan:
        times = [
            layers * self.nominal / 1e3 * (self.slow if rank == self.slow_rank else 1)
            for rank, layers in enumerate(cut)
        ]
        return Plan(
            "1f1b",
            len(cut),
            self.micro,
            cut,
            durations_of(times, times, times),
            2 * self.micro,
            self.width,
            32,
            self.seed,
        )


@dataclass(frozen=True)
class Tried:
    """One layout, simulated."""

    cut: Layout
    ms: float
    held: tuple[int, ...]  # activations (layers x micro-batches) of each rank at most

    @property
    def most(self) -> int:
        return max(self.held)


@dataclass(frozen=True)
class BalanceStep(Step):
    """The map of all layouts, and what is known of the chosen one."""

    cut: Layout = ()
    layouts: tuple[tuple[float, int], ...] = ()  # of every layout: ms, activations of its fullest rank
    here: tuple[float, int] = (0.0, 0)
    target: float | None = None  # ms; None where no layout fits the memory
    memory: int = 0
    held: tuple[tuple[int, int | None], ...] = ()  # per rank: by formula, really
    per_rank: tuple[float, ...] = ()  # ms of one micro-batch, forward and backward
    simulated: Gantt = ()
    real: Gantt = ()
    real_ms: float | None = None
    verdict: str = ""
    final: bool = False


def job(rank: int, ranks: int, config: BalanceConfig) -> Iterator[tuple[Any, ...]]:
    """What every rank does; under torchrun there must be as many ranks as the layout names."""
    if ranks != len(config.cut):
        raise ValueError(f"layout names {len(config.cut)} ranks, and {ranks} were started")
    yield from play(rank, config.plan(config.cut), config.rounds, 0)


def timeline(config: BalanceConfig, cut: Layout) -> Timeline:
    plan = config.plan(cut)
    return simulate(orders_of("1f1b", plan.ranks, plan.micro, 1), plan.seconds)


def tried(config: BalanceConfig, cut: Layout) -> Tried:
    line = timeline(config, cut)
    return Tried(cut, 1e3 * line.makespan, tuple(peak * layers for peak, layers in zip(line.peaks, cut, strict=True)))


def every_layout(layers: int, ranks: int) -> Iterator[Layout]:
    """All ways to cut so many layers into so many stages of at least one."""
    for cuts in combinations(range(1, layers), ranks - 1):
        ends = (0, *cuts, layers)
        yield tuple(end - begin for begin, end in pairwise(ends))


@dataclass
class Puzzle:
    """What all layouts would take, and what the ranks have shown of the chosen one."""

    config: BalanceConfig
    watched: Watched = field(init=False)
    equal: list[tuple[float | None, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watched = Watched(len(self.config.cut))
        self.all = [tried(self.config, cut) for cut in every_layout(self.config.layers, len(self.config.cut))]
        self.mine = next(one for one in self.all if one.cut == self.config.cut)
        fitting = [one for one in self.all if one.most <= self.config.memory]
        self.best = min(fitting, key=lambda one: one.ms) if fitting else None

    @property
    def held(self) -> tuple[int, ...] | None:
        """Activations that the ranks really held at most."""
        if not self.watched.complete:
            return None
        return tuple(peak * layers for peak, layers in zip(self.watched.peaks(), self.config.cut, strict=True))

    @property
    def solved(self) -> bool:
        held = self.held or self.mine.held
        return self.best is not None and self.mine.ms <= SLACK * self.best.ms and max(held) <= self.config.memory

    def verdict(self) -> str:
        """What the layout lacks, if anything, in one or two sentences."""
        if self.best is None:
            return (
                f"Unsolvable: no layout of {self.config.layers} layers fits {self.config.memory} activations per rank."
            )
        held = self.held or self.mine.held
        full = [rank for rank, amount in enumerate(held) if amount > self.config.memory]
        faults = [f"rank {rank} holds {held[rank]} activations, {self.config.memory} fit" for rank in full]
        if self.mine.ms > SLACK * self.best.ms:
            faults.append(f"it takes {self.mine.ms:,.0f} ms, and a layout that fits takes {self.best.ms:,.0f} ms")
        return (
            f"Not yet: {'; '.join(faults)}."
            if faults
            else f"Solved: {self.mine.ms:,.0f} ms, and no rank holds more than {self.config.memory} activations."
        )

    def step(self, doing: str, **more: Any) -> BalanceStep:
        held, times = self.held, self.config.plan(self.config.cut).seconds
        told: dict[str, Any] = {"simulated": gantt(timeline(self.config, self.config.cut))}
        if held is not None:
            real = self.watched.timeline()
            told |= {"real": gantt(real), "real_ms": 1e3 * real.makespan}
        return BalanceStep(
            cut=self.config.cut,
            layouts=tuple((one.ms, one.most) for one in self.all),
            here=(self.mine.ms, self.mine.most),
            target=SLACK * self.best.ms if self.best else None,
            memory=self.config.memory,
            held=tuple(zip(self.mine.held, held or [None] * len(self.mine.held), strict=True)),
            per_rank=tuple(1e3 * (one + other) for one, other in zip(times["F"], times["B"], strict=True)),
            verdict=self.verdict(),
            doing=doing,
            **told,
            **more,
        )

    def figures(self) -> Iterator[Result]:
        cut, held = self.config.cut, self.held or ()
        # is the puzzle solved?
        yield YOUR_TIME(self.mine.ms, self.best.ms if self.best else None, source=f"{BEST} of {len(self.all)} layouts")
        if held:
            yield FULLEST(max(held), self.config.memory)
        yield SOLVED(float(self.solved))
        # time
        yield REAL_TIME(1e3 * self.watched.timeline().makespan, self.mine.ms)
        times = self.config.plan(cut).seconds
        each = [1e3 * (one + other) for one, other in zip(times["F"], times["B"], strict=True)]
        yield BOUND(self.mine.ms, sum(each) + (self.config.micro - 1) * max(each))
        # memory, loss, gradients
        for rank, (theory, seen) in enumerate(zip(self.mine.held, held, strict=True)):
            source = f"(p - r) micro-batches x {cut[rank]} layers"
            yield HELD_BY.of(rank=rank)(seen, theory, source=source)
        yield LOSS(next((loss for loss, *_ in self.equal if loss is not None), None), self.equal[0][1])
        yield GRADIENT(max(row[2] for row in self.equal) / max(row[3] for row in self.equal), 0.0)


@experiment("One rank is slow: how should the layers be cut?")
def balance(config: BalanceConfig) -> Iterator[BalanceStep]:
    """All layouts in simulation, the chosen one on real ranks."""
    warm()
    puzzle = Puzzle(config)
    yield puzzle.step(f"simulated all {len(puzzle.all)} layouts; yours takes {puzzle.mine.ms:,.0f} ms")
    with Group(job, len(config.cut), (config,), gloo=True) as group:
        for said in group.listen():
            if said is None:
                yield BalanceStep()
                continue
            kind, _, *more = said.value
            if kind == "equal":
                puzzle.equal.append(tuple(more))  # type: ignore[arg-type]
                continue
            _, number, chunks = more
            if puzzle.watched.add(number, said.rank, chunks):
                yield puzzle.step(f"real ranks took {1e3 * puzzle.watched.timeline().makespan:,.0f} ms")
    yield replace(puzzle.step(puzzle.verdict()), final=True, figures=tuple(puzzle.figures()))
