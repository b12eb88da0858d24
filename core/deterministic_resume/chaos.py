r"""Why the same program may give other numbers, and what a last digit can do.

**Order.** Floating-point addition rounds, so $(a+b)+c \ne a+(b+c)$. Adding $n$ numbers one by one rounds $n-1$ times,
each time by at most half a unit in the last place (ulp) of the running sum $s_k$. If these errors are independent and
even, their sum has the size

$$\sqrt{\textstyle\sum_k \mathrm{ulp}(s_k)^2 / 12},$$

which the run predicts from the running sums and compares with what came out. Every order has its own running sums, so
its own error.

**Growth.** A training run feeds its result back into itself. Three processes train the same GPT; the second is a
repetition of the first, the third has one weight moved by $10^{-8}$, about one ulp. While the learning rate is small
the runs stay together; near the edge of stability their distance grows exponentially, $d_t \approx d_0 e^{\lambda t}$,
a straight line on this axis, until it is as large as the weights allow. $\lambda$ is fitted on the first part of the
run, and the rest is compared with it.

**Who decides the order.** Two threads that add into the same place do so in the order of their arrival, which is
another one every time. `torch.use_deterministic_algorithms(True)` picks a way with a fixed order; here that is one
thread's work, on a GPU often a sort. It usually costs time; where many threads queue for few places it can even save
some, see the table. Other operations repeat themselves bit for bit with any number of threads, but not *across* numbers
of threads: each thread sums its own part first.

Left out: `CUBLAS_WORKSPACE_CONFIG=:4096:8` and `torch.backends.cudnn.benchmark=False`, which a GPU needs besides;
FlashAttention's backward pass, which is not repeatable unless asked to be.
Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 4; PyTorch documentation,
"Reproducibility".
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from core.deterministic_resume.operations import OPERATIONS, TERMS, Trial, terms, trials
from core.deterministic_resume.training import Training
from core.foundations.corpus import load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, warm
from core.foundations.roofline import roofline
from core.foundations.settings import batch_field, context_field, layers_field, seed_field, width_field
from core.foundations.transformer import Shape

ORDERS = {"given": "as given", "backwards": "backwards", "small first": "smallest first"}
POINTS = 400  # drawn of a running sum's error
FIT = (0.15, 0.6)  # the part of the run on which the growth is fitted
RUNS = ("the run", "the same again", "one weight moved")

SUM_ERROR = Figure("error of the sum, {order}", "sum's unit", "theory", "root of sum ulp^2/12: its usual size")
DIFFERENT_SUMS = Figure(
    "different sums in three orders", "sums", "baseline", "arithmetic without rounding", headline=True
)
DISTANCE = Figure("distance of the two runs at the end", "Euclidean, of all weights", "theory", headline=True)
GROWTH = Figure("growth of the distance", "times", None, "distance after the last step over the first", headline=True)
RESULTS_FREE = Figure(
    "different results of one program, 2 threads",
    "results",
    "baseline",
    "the same with deterministic algorithms",
    headline=True,
)
RESULTS_FIXED = Figure(
    "different results with deterministic algorithms", "results", "theory", "a fixed order gives the same bits"
)
FIXED_TIME = Figure(
    "time of add up by index, deterministic", "ms", "baseline", "not deterministic; both with 2 threads"
)
ALONE_TIME = Figure(
    "time of add up by index, 1 thread", "ms", "limit", "roofline: 12 bytes read for each value that is added"
)
ACROSS_THREADS = Figure(
    "deterministic operations that change with the number of threads",
    "operations",
    None,
    "1 against 2 threads; out of 3 operations",
)


@dataclass(frozen=True)
class ChaosConfig(Config):
    """The numbers to add, and the run to disturb."""

    numbers: str = setting(
        "",
        "Your own numbers",
        high=4000,
        help="With spaces between them, such as 0.1 0.2 1e8; empty takes random ones.",
    )
    count: int = setting(
        10_000, "Random numbers", unit="number", low=3, high=200_000, help="More numbers add up more rounding errors."
    )
    nudge: float = setting(
        1e-8, "One weight moves by", low=0.0, high=100.0, help="A larger nudge starts the two runs further apart."
    )
    learning_rate: float = setting(
        0.5,
        "Learning rate",
        low=0.001,
        high=1.0,
        help="Of SGD with momentum. Near the edge of stability a distance grows fastest.",
    )
    steps: int = setting(200, "Steps", unit="step", low=4, high=800, help="More steps let the distance grow longer.")
    repeats: int = setting(
        12, "Repetitions", low=2, high=40, help="More repetitions of each operation find more different results."
    )
    n_layer: int = layers_field()
    width: int = width_field()
    context: int = context_field()
    batch: int = batch_field()
    seed: int = seed_field()

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=2, width=self.width)
        self.values()

    def values(self) -> Float[np.ndarray, "N"]:
        """What is added up, in float32."""
        if not self.numbers.strip():
            return np.random.default_rng(self.seed).standard_normal(self.count).astype(np.float32) * np.float32(100)
        found = []
        for word in self.words():
            try:
                found.append(float(word))
            except ValueError:
                raise ValueError(f"numbers must be numbers with spaces between them, got {word[:20]!r}") from None
        if len(found) < 3:
            raise ValueError(
                f"numbers must be at least 3, since two have only one order to be added in, got {len(found)}"
            )
        if not sum(map(abs, found)) < 3e38:
            raise ValueError("numbers must be finite, and their sizes add up to less than 3e38, as float32 ends there")
        return np.array(found, dtype=np.float32)

    def words(self) -> list[str]:
        """The typed numbers one by one. "0,1" between spaces is a tenth; other commas stand between numbers."""
        parts = self.numbers.replace(";", " ").split()
        words = [re.sub(r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$", r"\1.\2", part) for part in parts]
        return " ".join(words).replace(",", " ").split()


@dataclass(frozen=True)
class Walk:
    """How the error of a running sum grows in one order."""

    places: tuple[int, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class ChaosStep(Step):
    """The sums, one more state of the three runs, or one more trial; each panel is drawn again as a whole."""

    sums: tuple[tuple[str, float], ...] = ()  # order, result
    exact: float = 0.0
    walks: tuple[tuple[str, Walk], ...] = ()
    training_step: int | None = None
    distance: float | None = None  # of the weights of the moved run from the run (Euclidean)
    repeated_distance: float | None = None
    losses: tuple[float, ...] = ()  # of the three runs
    trail: Float[np.ndarray, "S"] | None = None  # the distance after every step so far
    repeated_trail: Float[np.ndarray, "S"] | None = None
    fit: tuple[float, float] | None = None  # log10 of the distance at step 0, and its slope per step
    trials: tuple[Trial, ...] = ()
    exact_sample: float = 0.0  # what the trials' samples are compared with
    plain_sample: float = 0.0  # the same sum in float32, one by one


# --- order ------------------------------------------------------------------------------------------------------------


def ordered(values: Float[np.ndarray, "N"], order: str) -> Float[np.ndarray, "N"]:
    if order == "given":
        return values
    return values[::-1] if order == "backwards" else values[np.argsort(np.abs(values), kind="stable")]


def one_by_one(values: Float[np.ndarray, "N"]) -> tuple[float, float, Walk]:
    """The sum in float32, the size its error should have, and its error on the way."""
    running = np.cumsum(values, dtype=np.float32)
    exact = np.cumsum(values.astype(np.float64))
    expected = math.sqrt(float((np.spacing(np.abs(running[1:])).astype(np.float64) ** 2).sum() / 12))
    shown = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))
    return (
        float(running[-1]),
        expected,
        Walk(tuple((shown + 1).tolist()), tuple((running[shown] - exact[shown]).tolist())),
    )


# --- growth -----------------------------------------------------------------------------------------------------------


def drift(rank: int, ranks: int, config: ChaosConfig) -> Iterator[tuple[float, Float[np.ndarray, "P"]]]:
    """Rank 0 trains, rank 1 repeats it, rank 2 starts with one weight moved.

    The learning rate stays, once it is warm.
    """
    corpus = load_corpus("play")
    shape = Shape(len(corpus.symbols), config.n_layer, 2, config.width, config.context)
    training = Training(
        corpus, shape, batch=config.batch, steps=10**9, learning_rate=config.learning_rate, seed=config.seed, sgd=True
    )
    if rank == 2:
        with torch.no_grad():
            training.model.embed.weight[corpus.encode(" ")[0], 0] += config.nudge
    yield math.nan, training.flat()
    for _ in range(config.steps):
        loss = training.one_step()
        yield loss, training.flat()


def fitted(distances: list[float]) -> tuple[float, float] | None:
    """A straight line through log10 of the distance, on the first part of the run."""
    first, last = (int(share * (len(distances) - 1)) for share in FIT)
    points = [(step, math.log10(d)) for step, d in enumerate(distances) if first <= step <= last and 0 < d < math.inf]
    if len(points) < 2:
        return None
    steps, logs = np.array(points).T
    slope, start = np.polyfit(steps, logs, 1)
    return float(start), float(slope)


def diverging(config: ChaosConfig, distances: list[float]) -> Iterator[ChaosStep]:
    """The three processes side by side; `distances` is filled with what was measured."""
    again_apart: list[float] = []
    told: dict[int, list[tuple[float, Float[np.ndarray, P]]]] = {0: [], 1: [], 2: []}
    step = 0
    with Group(drift, 3, (config,)) as group:
        for said in group.listen():
            if said is None:
                yield ChaosStep()
                continue
            told[said.rank].append(said.value)
            while all(len(states) for states in told.values()):
                (loss, run), (again, repeated), (other, moved) = (states.pop(0) for states in told.values())
                distances.append(float(np.linalg.norm(moved - run)))
                again_apart.append(float(np.linalg.norm(repeated - run)))
                line = fitted(distances) if step == int(FIT[1] * config.steps) or step == config.steps else None
                doing = f"step {step}: repeated {again_apart[-1]:.0e} away, moved {distances[-1]:.1e} away"
                losses = () if step == 0 else (loss, again, other)
                trails: dict[str, Any] = {"trail": np.array(distances), "repeated_trail": np.array(again_apart)}
                yield ChaosStep(
                    training_step=step,
                    distance=distances[-1],
                    repeated_distance=again_apart[-1],
                    losses=losses,
                    fit=line,
                    doing=doing,
                    **trails,
                )
                step += 1


# --- who decides the order --------------------------------------------------------------------------------------------


def tried(config: ChaosConfig, done: list[Trial], compared: dict[str, Any]) -> Iterator[ChaosStep]:
    """One process, whose threads and flags change from trial to trial; `done` is filled with what it found."""
    with Group(trials, 1, (config.repeats, config.seed)) as group:
        for said in group.listen():
            if said is None:
                yield ChaosStep()
                continue
            one = said.value
            done.append(one)
            how = "deterministic" if one.fixed else "free"
            doing = (
                f"{OPERATIONS[one.operation]}, {one.where}, {how}: {one.different} different results in"
                f" {config.repeats}"
            )
            yield ChaosStep(trials=tuple(done), **compared, doing=doing)


# --- the experiment ---------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What the parts of the run leave for its figures."""

    sums: dict[str, tuple[float, float, Walk]]
    exact: float
    distances: list[float] = field(default_factory=list)
    done: list[Trial] = field(default_factory=list)

    def figures(self, config: ChaosConfig) -> Iterator[Result]:
        # order
        for order, (total, usual, _) in self.sums.items():
            yield SUM_ERROR.of(order=ORDERS[order])(abs(total - self.exact), usual)
        yield DIFFERENT_SUMS(len({total for total, _, _ in self.sums.values()}), 1)
        # growth
        line = fitted(self.distances)
        expected = 10 ** (line[0] + line[1] * config.steps) if line else None
        source = f"exponential growth fitted on steps {int(FIT[0] * config.steps)} to {int(FIT[1] * config.steps)}"
        yield DISTANCE(self.distances[-1], expected, source=source)
        yield GROWTH(self.distances[-1] / self.distances[0] if self.distances[0] > 0 else 1.0)
        # who decides the order
        by = {(one.operation, one.where, one.fixed): one for one in self.done}
        free, fixed, alone = (
            by["index", "2 threads", False],
            by["index", "2 threads", True],
            by["index", "1 thread", False],
        )
        yield RESULTS_FREE(free.different, fixed.different)
        yield RESULTS_FIXED(fixed.different, 1)
        yield FIXED_TIME(fixed.milliseconds, free.milliseconds)
        yield ALONE_TIME(alone.milliseconds, 1e3 * roofline().floor_seconds(TERMS, TERMS * 12))
        yield ACROSS_THREADS(
            sum(by[name, "1 thread", True].first_hash != by[name, "2 threads", True].first_hash for name in OPERATIONS)
        )


@experiment("Why does the same program give other numbers, and does a last digit matter?")
def chaos(config: ChaosConfig) -> Iterator[ChaosStep]:
    """Three orders of one sum, two runs that differ in one last digit, and the price of a fixed order."""
    warm()
    values = config.values()
    sums = {order: one_by_one(ordered(values, order)) for order in ORDERS}
    found = Findings(sums, math.fsum(map(float, values)))
    numbers, places = terms(config.seed)
    first = numbers[places == 0].numpy()
    compared: dict[str, Any] = {"exact_sample": math.fsum(map(float, first)), "plain_sample": one_by_one(first)[0]}
    told = ", ".join(f"{total:.5f}" for total, _, _ in sums.values())
    yield ChaosStep(
        sums=tuple((order, total) for order, (total, _, _) in sums.items()),
        exact=found.exact,
        walks=tuple((order, walk) for order, (_, _, walk) in sums.items()),
        training_step=0,
        trail=np.array([config.nudge]),
        repeated_trail=np.array([0.0]),
        **compared,
        doing=f"{len(values):,} numbers in three orders: {told}",
    )
    yield from diverging(config, found.distances)
    yield from tried(config, found.done, compared)
    roofline()
    yield ChaosStep(doing="measured how fast this machine's memory is")
    yield ChaosStep(
        trials=tuple(found.done),
        **compared,
        figures=tuple(found.figures(config)),
        doing="done: an order that is fixed gives the same bits",
    )
