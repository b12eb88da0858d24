r"""How often to save: too often wastes the time of saving, too seldom the work since the last save.

A save takes $C$ seconds, failures come at random every $M$ seconds on average, and after one it takes $R$ seconds until
training goes on. With a save every $\tau$ seconds of work, and $\tau \ll M$, a failure costs half an interval on
average, so the time lost per time of work is

$$\frac{C}{\tau} + \frac{\tau / 2 + R}{M}, \qquad \text{least at } \tau^* = \sqrt{2 C M} \quad \text{(Young 1974)}.$$

Counting failures that hit a save or a second attempt, too, the whole time for $T$ seconds of work is (Daly 2006)

$$M e^{R/M} \left(e^{(\tau + C)/M} - 1\right) \frac{T}{\tau},$$

$$\tau^* \approx \sqrt{2CM}\left[1 + \tfrac13\sqrt{\tfrac{C}{2M}} + \tfrac19\,\tfrac{C}{2M}\right] - C \qquad (C <
2M).$$

$C$ is measured: a checkpoint is written here, flushed to the disk and hashed, as in `unplug`, and its speed is carried
over to a model of your size at 14 bytes per weight (16-bit weights; their 32-bit copy and AdamW's two moments) and to
as many such disks as you like. The dots are simulated: every failure is drawn at random, and each interval meets the
same failures.

The defaults are those of Llama 3 405B: 54 days on 16,384 GPUs with 419 unexpected interruptions, one every 3.1 hours
(47 more were planned), and 5.7 TB per checkpoint, written to a thousand disks like this one. The curve is flat at the
bottom: saving twice as often as the best costs little, and forgetting to save costs all. To save faster moves the whole
curve down, since the loss at the best interval is about $\sqrt{2C/M}$.

Left out: saving behind the training (`async_save`), where only the copy to memory counts as $C$; bursts of failures;
the time until a failure is noticed (add it to $R$).
Source: Young 1974, doi.org/10.1145/361147.361115; Daly 2006, doi.org/10.1016/j.future.2004.11.016, eq. 20 and 37; Llama
3: arXiv:2407.21783, section 3.3.4.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from core.deterministic_resume import checkpoint as disk
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import scratch
from core.foundations.roofline import roofline
from core.foundations.settings import seed_field

DAY = 86_400.0
LLAMA_DAYS, LLAMA_FAILURES = 54, 419  # unexpected ones; 47 more interruptions were planned
BYTES_PER_WEIGHT = 14
WRITTEN_NUMBERS = 4_000_000  # float32 of the checkpoint that is written here: 16 MB
SAVES = 3
GRID = tuple(2.0 ** (k / 2) for k in range(-8, 9))  # intervals that are simulated, times sqrt(2 C M)
FILM = {"a quarter": 0.25, "the best": 1.0, "four times": 4.0}  # of the best interval: whose first hours are drawn
MOST_FAILURES = 50_000  # expected in one simulated run; intervals with more are left to the formula
MOST_WASTE = 30.0  # time lost per time of work; likewise

DALY = "Daly 2006, eq. 20"
BEST_YOUNG = Figure(
    "best time between two saves", "seconds", "theory", "Young 1974: sqrt(2 C M)", "simulated", headline=True
)
BEST_DALY = Figure("best time between two saves, by Daly", "seconds", "theory", "Daly 2006, eq. 37", "simulated")
LOST_BEST = Figure("time lost at the best interval", "% of the work", "theory", DALY, "simulated", headline=True)
LOST_OFTEN = Figure("time lost saving 4 times as often", "% of the work", "theory", DALY, "simulated", headline=True)
LOST_RARELY = Figure("time lost saving a quarter as often", "% of the work", "theory", DALY, "simulated", headline=True)
FAILURES = Figure("failures in a run", "failures", "theory", "time of the run / M", "simulated")
SAVE_SECONDS = Figure("time of a save of the chosen model", "seconds", label="computed")
WRITE_TIME = Figure(
    "time to write 16 MB",
    "ms",
    "limit",
    "roofline: read and written once in memory; the rest is hash, file system and disk",
)


@dataclass(frozen=True)
class IntervalConfig(Config):
    """The machine's failures, the model, and the job."""

    failures: float = setting(
        round(LLAMA_FAILURES / LLAMA_DAYS, 2),
        "Failures per day",
        low=0.01,
        high=1000.0,
        help="More failures make the best interval shorter. Llama 3 405B had 419 unexpected ones in 54 days.",
    )
    billions: float = setting(
        405.0,
        "Billions of weights",
        low=0.001,
        high=10_000.0,
        help="Each weight takes 14 bytes of a checkpoint, so a larger model takes longer to save.",
    )
    disks: float = setting(
        1000.0,
        "Disks like this one",
        low=1.0,
        high=100_000.0,
        help="They share the writing: twice as many save in half the time.",
    )
    restart_seconds: float = setting(
        300.0, "Restart", unit="second", low=0.0, high=86_400.0, help="Time from a failure until training goes on."
    )
    save_seconds: float = setting(
        0.0,
        "Save takes",
        unit="second",
        low=0.0,
        high=1e6,
        more=True,
        help="A longer save makes the best interval longer; 0 takes the time measured here.",
    )
    days: float = setting(
        54.0,
        "Days of work",
        unit="day",
        low=0.1,
        high=365.0,
        more=True,
        help="More days of work meet more failures, so the simulated means are steadier.",
    )
    repeats: int = setting(
        40,
        "Simulated runs",
        unit="run",
        low=2,
        high=400,
        more=True,
        help="More simulated runs of each interval give steadier means.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.failures * self.days > MOST_FAILURES / 5:
            raise ValueError(
                f"failures x days must be at most {MOST_FAILURES // 5:,}, got {self.failures:g} x {self.days:g}"
            )

    @property
    def mean_gap(self) -> float:
        """M: seconds between failures, on average."""
        return DAY / self.failures


@dataclass(frozen=True)
class Split:
    """Where the time of a run goes, in seconds."""

    work: float
    saving: float
    lost: float  # work, and saves, that a failure undid
    restarting: float
    failures: int

    @property
    def wasted(self) -> float:
        """Time lost per time of work."""
        return (self.saving + self.lost + self.restarting) / self.work


@dataclass(frozen=True)
class Scene:
    """The first hours of a simulated run: (what, from, to) in hours."""

    name: str
    interval: float  # seconds
    parts: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class IntervalStep(Step):
    """The two formulas and the dots so far."""

    save_seconds: float = 0.0
    mean_gap: float = 0.0
    young: float = 0.0  # seconds
    daly: float = 0.0
    curve: tuple[
        tuple[float, float, float], ...
    ] = ()  # interval in seconds, time lost per work by Young's and by Daly's formula
    dots: tuple[tuple[float, float, float], ...] = ()  # interval, simulated mean, its standard error
    scenes: tuple[Scene, ...] = ()
    ledger: tuple[
        tuple[str, float, float, float, float], ...
    ] = ()  # interval's name; share of the time in %: work, saving, lost, restart


# --- the formulas -----------------------------------------------------------------------------------------------------


def young_interval(save: float, gap: float) -> float:
    """tau* = sqrt(2 C M)."""
    return math.sqrt(2 * save * gap)


def daly_interval(save: float, gap: float) -> float:
    """Daly's eq. 37."""
    if save >= 2 * gap:
        return gap
    ratio = save / (2 * gap)
    return math.sqrt(2 * save * gap) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save


def young_waste(interval: float, save: float, gap: float, restart: float) -> float:
    """Time lost per time of work, to first order."""
    return save / interval + (interval / 2 + restart) / gap


def daly_waste(interval: float, save: float, gap: float, restart: float) -> float:
    """The same by Daly's eq. 20, which is exact for failures without memory."""
    exponent = (interval + save) / gap
    return (
        gap * math.exp(restart / gap) * math.expm1(exponent) / interval - 1
        if exponent + restart / gap < 600
        else math.inf
    )


# --- the simulation ---------------------------------------------------------------------------------------------------


def simulate(work: float, interval: float, save: float, restart: float, gaps: Float[np.ndarray, "F"]) -> Split:
    """Work in intervals, each with a save after it; every gap ends in a failure, and what was not saved is done again.

    Between two failures: the restart, as many whole intervals as fit, and a rest that is lost.
    """
    free = np.maximum(gaps - restart, 0.0)
    free[0] = gaps[0]  # the first start is not a restart
    needed = math.ceil(work / interval)
    done = np.cumsum(np.floor(free / (interval + save)))
    if done[-1] < needed:
        raise ValueError(
            f"The job does not end: with a failure every {gaps.mean():.3g} s it would need more than {len(gaps):,}"
            " attempts"
        )
    last = int(np.searchsorted(done, needed))  # the gap in which the work is finished; its own failure comes too late
    whole = float(done[last - 1]) if last else 0.0
    free_time, restarts = (
        float(free[:last].sum()),
        float((gaps - free)[:last].sum()) + (min(restart, float(gaps[last])) if last else 0.0),
    )
    return Split(needed * interval, needed * save, free_time - whole * (interval + save), restarts, last)


def expected_failures(config: IntervalConfig, interval: float, save: float) -> float:
    return config.days * config.failures * (1 + daly_waste(interval, save, config.mean_gap, config.restart_seconds))


def draw(config: IntervalConfig, expected: float, run: int) -> Float[np.ndarray, "F"]:
    """Times between failures, twice as many as a run should meet.

    The same run meets the same ones with every interval.
    """
    return np.random.default_rng((config.seed, run)).exponential(config.mean_gap, int(2 * expected) + 100)


def scene(name: str, interval: float, save: float, restart: float, gaps: Float[np.ndarray, "F"], until: float) -> Scene:
    """The first `until` seconds of a run, part by part."""
    parts: list[tuple[str, float, float]] = []
    now, end = 0.0, 0.0

    def add(what: str, seconds: float) -> None:
        nonlocal now
        stop = min(now + seconds, end, until)
        if stop > now:
            parts.append((what, now / 3600, stop / 3600))
        now = stop

    for number, gap in enumerate(gaps):
        end = now + gap
        if number:
            add("restart", restart)
        for _ in range(int((end - now) // (interval + save))):
            if now < until:
                add("work", interval)
                add("saving", save)
        add("lost", end - now)
        if now >= until:
            break
    return Scene(name, interval, tuple(parts))


# --- the experiment ---------------------------------------------------------------------------------------------------


def measured_rate(folder: Path, seed: int) -> tuple[float, float]:
    """Bytes per second of a checkpoint's way to the disk, and the seconds it took: the best of several."""
    numbers = torch.randn(WRITTEN_NUMBERS, generator=torch.Generator().manual_seed(seed))
    best, nbytes = math.inf, 0
    for save in range(SAVES):
        started = time.perf_counter()
        nbytes = disk.save(folder, disk.Checkpoint(save, {"weights": numbers}, {}))
        best = min(best, time.perf_counter() - started)
    return nbytes / best, best


def check_hope(config: IntervalConfig, save: float) -> None:
    """Refuse a job that would hardly ever get from one save to the next, or that needs none."""
    best, work = young_interval(save, config.mean_gap), config.days * DAY
    if best > work:
        raise ValueError(
            f"The best interval, {best:,.0f} s, is longer than the job, {work:,.0f} s: save once, at the end"
        )
    if save + config.restart_seconds > 2 * config.mean_gap:
        told = (
            f"a save takes {save:,.0f} s, a restart {config.restart_seconds:,.0f} s, and a failure comes every"
            f" {config.mean_gap:,.0f} s"
        )
        raise ValueError(f"This job would hardly ever get from one save to the next: {told}")


def best_of(dots: list[tuple[float, float, float]]) -> float:
    """The interval at the bottom of the simulated dots: of a parabola through the five around the lowest."""
    lowest = min(range(len(dots)), key=lambda place: dots[place][1])
    near = dots[max(0, lowest - 2) : lowest + 3]
    if len(near) < 3:
        return dots[lowest][0]
    logs, wastes = np.log([dot[0] for dot in near]), np.array([dot[1] for dot in near])
    bend, slope, _ = np.polyfit(logs - logs.mean(), wastes, 2)
    return float(math.exp(logs.mean() - slope / (2 * bend))) if bend > 0 else dots[lowest][0]


def figures_of(
    config: IntervalConfig, save: float, written: float, dots: list[tuple[float, float, float]], at_best: list[Split]
) -> Iterator[Result]:
    """Formula against simulation, and the save against the memory's speed."""
    gap, restart = config.mean_gap, config.restart_seconds
    young, bottom = young_interval(save, gap), best_of(dots)
    yield BEST_YOUNG(bottom, young)
    yield BEST_DALY(bottom, daly_interval(save, gap))
    by_power = {round(math.log2(interval / young), 1): waste for interval, waste, _ in dots}
    for power, lost in ((0.0, LOST_BEST), (-2.0, LOST_OFTEN), (2.0, LOST_RARELY)):
        if power in by_power:
            yield lost(100 * by_power[power], 100 * daly_waste(young * 2**power, save, gap, restart))
    if at_best:
        total = config.days * DAY * (1 + daly_waste(young, save, gap, restart))
        yield FAILURES(float(np.mean([split.failures for split in at_best])), total / gap)
    how = "as you typed" if config.save_seconds else "14 bytes per weight at the speed measured here"
    yield SAVE_SECONDS(save, source=how)
    yield WRITE_TIME(1e3 * written, 1e3 * roofline().floor_seconds(0, 2 * 4 * WRITTEN_NUMBERS))


@experiment("How often should a long run be saved?")
def interval(config: IntervalConfig) -> Iterator[IntervalStep]:
    """Measure a save, draw the two formulas, and simulate failures for intervals on both sides of the best."""
    with scratch() as folder:
        rate, written = measured_rate(folder, config.seed)
    save = config.save_seconds or config.billions * 1e9 * BYTES_PER_WEIGHT / (rate * config.disks)
    check_hope(config, save)
    gap, restart, work = config.mean_gap, config.restart_seconds, config.days * DAY
    young = young_interval(save, gap)
    marks = [young * 2.0 ** (k / 8) for k in range(-36, 37)]
    curve = tuple((one, young_waste(one, save, gap, restart), daly_waste(one, save, gap, restart)) for one in marks)
    film = draw(config, 100, 0)
    until = min(work, 3 * gap)
    scenes = tuple(scene(name, share * young, save, restart, film, until) for name, share in FILM.items())
    constant: dict[str, Any] = {
        "save_seconds": save,
        "mean_gap": gap,
        "young": young,
        "daly": daly_interval(save, gap),
        "curve": curve,
        "scenes": scenes,
    }
    yield IntervalStep(
        **constant,
        doing=(
            f"16 MB took {1e3 * written:.0f} ms, so the model's checkpoint takes {save:.3g} s; best interval"
            f" {young:,.0f} s"
        ),
    )
    dots: list[tuple[float, float, float]] = []
    ledger: list[tuple[str, float, float, float, float]] = []
    at_best: list[Split] = []
    for share in GRID:
        one = share * young
        expected = expected_failures(config, one, save)
        if one > work or expected > MOST_FAILURES or daly_waste(one, save, gap, restart) > MOST_WASTE:
            continue
        runs = [simulate(work, one, save, restart, draw(config, expected, number)) for number in range(config.repeats)]
        wastes = [run.wasted for run in runs]
        dots.append((one, float(np.mean(wastes)), float(np.std(wastes) / math.sqrt(len(wastes)))))
        names = [name for name, wanted in FILM.items() if wanted == share]
        ledger += [row_of(name, runs) for name in names]
        at_best = runs if share == 1.0 else at_best
        doing = f"a save every {one:,.0f} s of work: {100 * dots[-1][1]:.1f} % lost, over {config.repeats} runs"
        yield IntervalStep(**constant, dots=tuple(dots), ledger=tuple(ledger), doing=doing)
    roofline()
    yield IntervalStep(**constant, dots=tuple(dots), ledger=tuple(ledger))
    figures = tuple(figures_of(config, save, written, dots, at_best))
    doing = f"done: best is a save every {best_of(dots):,.0f} s, sqrt(2 C M) says {young:,.0f} s"
    yield IntervalStep(**constant, dots=tuple(dots), ledger=tuple(ledger), figures=figures, doing=doing)


def row_of(name: str, runs: list[Split]) -> tuple[str, float, float, float, float]:
    """Where the time goes, in % of it."""
    sums = [sum(getattr(run, kind) for run in runs) for kind in ("work", "saving", "lost", "restarting")]
    work, saving, lost, restarting = (100 * part / sum(sums) for part in sums)
    return name, work, saving, lost, restarting
