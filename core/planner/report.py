"""A plan with all that follows from it (`Report`), and what a Step shows of it."""

from dataclasses import dataclass
from typing import Any

from core.foundations.experiment import Step
from core.planner.job import check_plan
from core.planner.lines import lines
from core.planner.memory import Memory, fullest, stage_memory
from core.planner.others import Other, others
from core.planner.papers import TABLE_1, TABLE_5
from core.planner.request import PlanConfig
from core.planner.search import Found, Search
from core.planner.timing import StepTime, step_time
from core.planner.weigh import KINDS, predicted

GB = 1e9
BEST = 8  # plans in the ranking


Row = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class PlanStep(Step):
    """What is known so far. Bytes in GB (1e9), times in seconds."""

    memory: tuple[Row, ...] = ()  # who (this plan's stages, the best plan), items in the order of memory.ITEMS
    card: float = 0.0  # GB
    limit: float = 0.0  # GB, of which plans may use so many
    times: tuple[Row, ...] = ()  # who, parts in the order of timing.PARTS
    mfus: tuple[float, ...] = ()  # of those
    wish: tuple[int, int] = (0, 0)  # t and p that were asked for
    grid: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # all t, all p
    cells: tuple[tuple[int, int, bool, float, float, str], ...] = ()  # t, p, fits, MFU, GB, plan
    best: tuple[
        tuple[int, int, int, int, int, str, int, float, float, float], ...
    ] = ()  # d, t, p, v, ZeRO, recompute, b, seconds, MFU, GB
    tried: int = 0
    verdict: str = ""
    formulas: tuple[tuple[str, str, str, str, str], ...] = ()  # name, letters, numbers, value, source
    published: tuple[
        tuple[str, str, float, float], ...
    ] = ()  # paper, run, published, estimated, TFLOP/s per GPU or seconds
    weighed: tuple[tuple[str, float, float | None], ...] = ()  # kind, bytes predicted, measured
    counted: tuple[int, int, int, int] | None = None  # layers so far, of, weights so far, by formula
    others: tuple[
        tuple[str, float | None, float | None, str], ...
    ] = ()  # calculator, GB of states, GB of activations, why


class Report:
    """A plan with all that follows from it."""

    def __init__(self, config: PlanConfig) -> None:
        self.config, self.job, self.plan = config, config.job(), config.plan()
        check_plan(self.job, self.plan)
        self.memory: Memory = fullest(self.job, self.plan)
        self.time: StepTime = step_time(self.job, self.plan)
        self.search = Search(self.job, self.plan)
        self.published = tuple(
            (run.paper, run.name + (", theirs" if run.theirs else ""), run.published, run.estimate())
            for run in (*TABLE_1, *TABLE_5)
        )
        self.weighed: dict[str, float] = {}
        self.counted: tuple[int, int, int, int] | None = None
        self.others: tuple[Other, ...] = others(self.job, self.plan)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.job.limit

    def step(self, **told: Any) -> PlanStep:
        """Everything, small enough to be sent again each time."""
        job, plan, search = self.job, self.plan, self.search
        best = search.ranked[0].plan if search.ranked else None
        stages = [
            ("first stage", stage_memory(job, plan, 0)),
            ("last stage", stage_memory(job, plan, plan.pipeline - 1)),
        ][: plan.pipeline]
        bars = [(name if plan.pipeline > 1 else "this plan", memory) for name, memory in stages]
        bars += [("best found", fullest(job, best))] if best else []
        rows = [("this plan", self.time)] + ([("best found", step_time(job, best))] if best else [])
        cells = tuple(
            (c.tensor, c.pipeline, c.fits, c.best.mfu, c.best.nbytes / GB, c.best.plan.words)
            for c in search.cells
            if c.best is not None
        )
        forecast = predicted(job, plan)
        return PlanStep(
            tuple((name, tuple(item / GB for item in memory.items)) for name, memory in bars),
            job.card.gigabytes,
            job.limit / GB,
            tuple((name, time.parts) for name, time in rows),
            tuple(time.mfu for _, time in rows),
            (plan.tensor, plan.pipeline),
            search.grid,
            cells,
            tuple(ranked_row(one) for one in search.ranked[:BEST]),
            search.tried,
            self.verdict(),
            tuple(line.row() for line in lines(job, plan, self.memory, self.time)),
            self.published,
            tuple((kind, forecast[kind], self.weighed.get(kind)) for kind in KINDS),
            self.counted,
            tuple((one.name, in_gigabytes(one.states), in_gigabytes(one.activations), one.why) for one in self.others),
            **told,
        )

    def verdict(self) -> str:
        """One sentence: whether it fits, and if not, which plan does."""
        need, limit, card = self.memory.total / GB, self.job.limit / GB, self.job.card.name
        if self.fits:
            speed = f"A step takes {self.time.seconds:.3g} s, MFU {self.time.mfu:.1%}."
            return f"It fits: {need:.1f} of {limit:.1f} GB ({card}, {self.job.reserve:g} % kept free). {speed}"
        told = f"It does not fit: {need:,.1f} GB for {limit:.1f} ({card}, {self.job.reserve:g} % kept free). "
        return told + (self.nearest() if self.search.done else "Looking for plans that do.")

    def nearest(self) -> str:
        """The plan that fits and differs least, or the one that needs the least."""
        near, least = self.search.nearest, self.search.least
        if near is not None:
            return f"The nearest plan that does: {near.plan.words}, {near.nbytes / GB:.1f} GB."
        if least is not None:
            return (
                f"No plan fits; the leanest on {self.job.gpus:,} GPUs needs {least.nbytes / GB:,.1f} GB"
                f" ({least.plan.words})."
            )
        return "No division of these GPUs divides heads, layers and batch."


def ranked_row(one: Found) -> tuple[int, int, int, int, int, str, int, float, float, float]:
    """A plan of the ranking as plain numbers."""
    plan = one.plan
    return (
        plan.data,
        plan.tensor,
        plan.pipeline,
        plan.interleave,
        plan.zero,
        plan.recompute,
        plan.micro,
        one.seconds,
        one.mfu,
        one.nbytes / GB,
    )


def in_gigabytes(nbytes: float | None) -> float | None:
    return None if nbytes is None else nbytes / GB
