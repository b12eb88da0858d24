r"""The race: the same output by every way this device has, over more and more tokens.

**Memory.** The score matrix has $HN^2$ elements. Naive attention holds two of them going forward (scores and weights)
and three going backward ($P$, $dP$, $dS$), so its peak grows fourfold when $N$ doubles. A fused kernel holds rows:
$Q, K, V, O$, one logsumexp per row, and gradients. Its peak doubles. The run measures the bytes of all live tensors,
each storage counted once. The lines are formulas, so they reach further than the runs: where naive attention's line
meets the memory that is free here, it ends, and beyond that mark it is never started.

**Time.** No way can be faster than its arithmetic and its traffic allow on this machine (the roofline, see
`core/foundations/roofline.py`): at least $4d$ operations for each query-key pair forward, three times that with the
backward pass, and at least one trip for inputs and outputs. That is the dashed floor. Each dot is the best of several
runs. A way leaves the race where one timing would take longer than the patience allows, since others wait for their
turn.

**Which kernel ran** is heard from the operations that PyTorch calls, not taken from what was asked for. On a CPU
PyTorch has its own flash kernel; a T4 has no FlashAttention-2 and gets the memory-efficient kernel; newer GPUs have
both.

**The paper's line** is an A100: 41.7 ms against 7.3 ms with 1,024 tokens, and 10 and 20 times less memory at 2,048 and
4,096. On a GPU most of the gain is saved traffic; on a CPU it is the caches that play the part of fast memory. Without
a mask, flash does the same arithmetic as naive; with a causal mask it also skips the tiles in the future.

Our own tiles (`tiling.py`, forward only) run in Python and are there for reading. Their slowness is shown, not hidden.

Left out: scratch that a kernel allocates inside itself (on a CPU a few tiles per thread); the copies that PyTorch makes
of a gradient whose layout differs; FLOPs of softmax and mask.
Source: Dao et al. 2022, arXiv:2205.14135, Figure 2; the README of github.com/Dao-AILab/flash-attention (memory).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.flash_attention.ways import (
    WAYS,
    Inputs,
    PeakBytes,
    Work,
    attend,
    inputs_of,
    longest,
    number_type,
    peak_bytes,
    ran,
)
from core.foundations.base_model import free_bytes
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.foundations.roofline import roofline
from core.foundations.settings import seed_field

FEWEST = 128  # the race starts at about so many tokens
REACH = 65_536  # the formulas are drawn up to at least here
PAPER_MS = {"naive": 41.7, "flash": 7.3}  # forward and backward, N 1,024, d 64, 16 heads, batch 64, A100
README_MEMORY = {2048: 10.0, 4096: 20.0}  # standard over flash
MB, MS = 1e6, 1e3

PEAK = Figure("peak memory, {way}", "MB", "theory")
GROWTH = Figure("peak memory of {way} when the text doubles", "times", "theory", headline=True)
MEMORY_RATIO = Figure(
    "memory of naive attention over the fused kernel, {tokens} tokens",
    "times",
    "paper",
    "flash-attention's README, on GPUs in 16 bits, with other heads and other tensors counted",
)
LONGEST_NAIVE = Figure("longest text that naive attention fits", "tokens", None, label="computed", headline=True)
TIME = Figure("time, {way}", "ms", "limit")
TIME_RATIO = Figure("time of naive attention over the fused kernel", "times", "paper", headline=True)
OUR_TILES_RATIO = Figure("time of our tiles over the fused kernel", "times")


@dataclass(frozen=True)
class RaceConfig(Config):
    """How far, and which attention."""

    most_n: int = setting(
        4096,
        "Longest text",
        unit="token",
        low=16,
        high=131_072,
        help="A longer text shows the fourfold growth better and takes longer; each size is half the next.",
    )
    runners: str = setting(
        "all",
        "Which attention runs",
        choices={"all": "everything this device has"} | {name: told for name, told in WAYS.items() if name != "cudnn"},
        help="Naive writes the whole score matrix; flash works in tiles. All of them run unless you choose one.",
    )
    heads: int = setting(2, "Heads", low=1, high=32, help="More heads mean as many more score matrices at once.")
    width: int = setting(
        32,
        "Width of a head",
        low=8,
        high=128,
        help="A wider head makes each score more work; the score matrix stays as large.",
    )
    causal: bool = setting(
        True, "Causal mask", help="Ticked, a token sees only itself and the past, so half of the scores are left out."
    )
    patience: float = setting(
        0.2,
        "Patience",
        unit="s",
        low=0.01,
        high=2.0,
        more=True,
        help="More patience lets slow ways run on longer texts; other people wait meanwhile.",
        slider=True,
    )
    repeats: int = setting(
        3,
        "Repeats",
        unit="run",
        low=1,
        high=9,
        more=True,
        help="More repetitions give steadier times, since the fastest counts.",
        slider=True,
    )
    seed: int = seed_field()

    def work(self, length: int) -> Work:
        return Work(self.heads, length, self.width, self.causal)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Halves of the longest, down to about 128 tokens."""
        sizes = [self.most_n, self.most_n // 2]
        while sizes[-1] >= 2 * FEWEST:
            sizes.append(sizes[-1] // 2)
        return tuple(reversed(sizes))


@dataclass(frozen=True)
class Timing:
    """What one way took for one size. None: not measured."""

    forward_seconds: float | None = None
    both_seconds: float | None = None  # forward and backward
    forward_bytes: float | None = None
    both_bytes: float | None = None


@dataclass(frozen=True)
class RaceStep(Step):
    """The whole picture after one timing."""

    kernels: tuple[
        tuple[str, str], ...
    ]  # way -> what really runs; empty: not on this device; "free" is PyTorch's own choice
    results: tuple[
        tuple[str, int, float | None, float | None, float | None, float | None], ...
    ]  # way, N and the fields of Timing
    left: tuple[
        tuple[str, int, str, float], ...
    ]  # way, N, "memory" or "time", and what it would need: bytes or seconds
    lengths: tuple[int, ...]  # of the curves by formula
    peaks: tuple[tuple[str, tuple[float, ...]], ...]  # way -> bytes, forward and backward
    floors: tuple[tuple[float, ...], tuple[float, ...]]  # seconds: forward, both
    free: float  # bytes
    limit: int  # the largest N at which naive attention fits into them


@dataclass
class Board:
    """All that is known so far."""

    config: RaceConfig
    size: int  # bytes of a number
    kernels: dict[str, str]
    free: float
    results: dict[tuple[str, int], Timing] = field(default_factory=dict)
    left: list[tuple[str, int, str, float]] = field(default_factory=list)

    @property
    def ways(self) -> list[str]:
        return [way for way in WAYS if self.kernels.get(way)]

    @property
    def limit(self) -> int:
        return longest("naive", self.config.work(1), self.free, self.size)

    def note(self, way: str, length: int, name: str, value: float) -> None:
        """Keep the smaller of two times; bytes do not vary."""
        known = self.results.get((way, length), Timing())
        before = getattr(known, name)
        self.results[way, length] = replace(known, **{name: value if before is None else min(before, value)})

    def step(self, doing: str = "", figures: tuple[Result, ...] = ()) -> RaceStep:
        config = self.config
        reach = max(REACH, 2 * config.most_n, 2 * self.limit)
        lengths = [config.sizes[0]]
        while lengths[-1] < reach:
            lengths.append(2 * lengths[-1])
        results = tuple(
            (way, n, one.forward_seconds, one.both_seconds, one.forward_bytes, one.both_bytes)
            for (way, n), one in self.results.items()
        )
        peaks = tuple(
            (way, tuple(float(peak_bytes(way, config.work(n), True, self.size)) for n in lengths))
            for way in ("naive", "flash")
        )
        floors = [tuple(self.floor(n, backward) for n in lengths) for backward in (False, True)]
        return RaceStep(
            tuple(self.kernels.items()),
            results,
            tuple(self.left),
            tuple(lengths),
            peaks,
            (floors[0], floors[1]),
            self.free,
            self.limit,
            doing=doing,
            figures=figures,
        )

    def floor(self, length: int, backward: bool) -> float:
        work = self.config.work(length)
        return roofline().floor_seconds(work.flops(backward), work.least_bytes(backward, self.size))


# --- one way, one size ------------------------------------------------------------------------------------------------


class Runner:
    """A way on its track: weighs once, then times; each pass is one unit of work."""

    def __init__(self, way: str, board: Board, given: Inputs) -> None:
        self.way, self.board, self.given, self.length = way, board, given, given.q.shape[2]
        self.out: Tensor | None = None

    def forward(self) -> None:
        given = self.given
        self.out = attend(self.way, given.q, given.k, given.v, self.board.config.causal)

    def backward(self) -> None:
        assert self.out is not None
        self.out.backward(self.given.gradient)  # type: ignore[no-untyped-call]

    def tidy(self) -> None:
        self.out = None
        for part in (self.given.q, self.given.k, self.given.v):
            part.grad = None

    def units(self) -> Iterator[str]:
        """What is done, one pass after the other. Our own tiles have no backward pass."""
        trains, note = self.way != "tiled", self.board.note
        watch = PeakBytes(*vars(self.given).values())
        for passing, name in ((self.forward, "forward_bytes"), (self.backward, "both_bytes"))[: 1 + trains]:
            with watch:
                passing()
            note(self.way, self.length, name, float(watch.peak))
            yield f"{watch.peak / MB:.2f} MB at the peak"
        self.tidy()
        for _ in range(self.board.config.repeats):
            forward = timed(self.forward)
            note(self.way, self.length, "forward_seconds", forward)
            yield f"forward {forward * MS:.2f} ms"
            if trains:
                both = forward + timed(self.backward)
                note(self.way, self.length, "both_seconds", both)
                yield f"forward and backward {both * MS:.2f} ms"
            self.tidy()


def timed(work: Callable[[], None]) -> float:
    """Seconds of one pass; on a GPU, until it has really ended."""
    waits = this_machine().gpu is not None
    if waits:
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if waits:
        torch.cuda.synchronize()
    return time.perf_counter() - started


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What do time and memory of attention do when the text gets longer?")
def race(config: RaceConfig) -> Iterator[RaceStep]:
    """The formulas and the field, then every way at every size, then the figures."""
    board = Board(config, number_type().itemsize, {}, free_bytes())
    refuse_what_cannot_fit(board)
    board.kernels = {way: ran(way, config.work(64)) or "" for way in WAYS if config.runners in ("all", way)}
    if not any(board.kernels.values()):
        raise ValueError(f"{WAYS[config.runners]} attention cannot be had on this device: choose another runner")
    board.kernels["free"] = ran("free", config.work(64)) or ""
    yield board.step(f"naive attention fits up to {board.limit:,} tokens; plain SDPA runs: {board.kernels['free']}")
    for length in config.sizes:
        given: Inputs | None = None  # drawn only if somebody runs: long ones take long
        for way in board.ways:
            if stays_out(board, way, length):
                why, need = board.left[-1][2:]
                told = f"needs {need / 1e9:.1f} GB" if why == "memory" else f"would take {need:.2g} s per pass"
                yield board.step(f"{WAYS[way]} at {length:,} tokens is not started: it {told}")
                continue
            given = given or inputs_of(config.work(length), config.seed)
            runner = Runner(way, board, given)
            try:
                for told in runner.units():
                    yield board.step(f"{WAYS[way]}, {length:,} tokens: {told}")
            except torch.OutOfMemoryError:
                board.left.append((way, length, "memory", peak_bytes(way, config.work(length), True, board.size)))
                yield board.step(f"{WAYS[way]}, {length:,} tokens: out of memory")
            finally:
                runner.tidy()
    yield board.step(summary(board), figures_of(board))


def summary(board: Board) -> str:
    """The longest text that both naive and fused attention were given, and what they held."""
    naive, few = measured(board, "naive", "both_bytes"), measured(board, lean(board), "both_bytes")
    last = max(naive.keys() & few.keys(), default=0)
    return (
        f"{last:,} tokens: naive attention held {naive[last] / MB:.1f} MB, the fused kernel {few[last] / MB:.1f} MB"
        if last
        else "done"
    )


def refuse_what_cannot_fit(board: Board) -> None:
    """Before anything is tried: what was asked for alone must fit, and of all, the leanest."""
    config = board.config
    way = "flash" if config.runners == "all" else config.runners
    need = peak_bytes(way, config.work(config.most_n), True, board.size)
    if need > board.free:
        raise ValueError(
            f"{WAYS[way]} attention over {config.most_n:,} tokens needs {need / 1e9:.1f} GB of memory, and"
            f" {board.free / 1e9:.1f} GB are free here: most_n may be at most"
            f" {longest(way, config.work(1), board.free, board.size):,}"
        )


def stays_out(board: Board, way: str, length: int) -> bool:
    """Whether this size would not fit or take too long; then it is noted. Out once, out for all longer ones."""
    need = peak_bytes(way, board.config.work(length), True, board.size)
    ran_out = any(name == way and why == "memory" for name, _, why, _ in board.left)
    if ran_out or need > board.free:
        board.left.append((way, length, "memory", float(need)))
        return True
    before = next((seconds for name, _, why, seconds in reversed(board.left) if name == way and why == "time"), 0.0)
    half = board.results.get((way, length // 2))
    passes = (
        (half.forward_seconds or 0.0, (half.both_seconds or 0.0) - (half.forward_seconds or 0.0)) if half else (0.0,)
    )
    expected = 4 * max(before, *passes)
    if expected > board.config.patience:
        board.left.append((way, length, "time", expected))
    return expected > board.config.patience


def figures_of(board: Board) -> tuple[Result, ...]:
    return (*memory_figures(board), *time_figures(board))


def lean(board: Board) -> str | None:
    """The fused kernel to compare with: flash, or what stands in for it on this device."""
    return next((way for way in ("flash", "efficient", "cudnn") if way in board.ways), None)


def measured(board: Board, way: str | None, name: str) -> dict[int, float]:
    """N -> what was measured of one way."""
    return {
        n: value
        for (runner, n), timing in board.results.items()
        if runner == way and (value := getattr(timing, name)) is not None
    }


def memory_figures(board: Board) -> list[Result]:
    """Peaks and their growth; formula against count."""
    figures, config = list[Result](), board.config
    for way in board.ways:
        backward = way != "tiled"
        peaks = measured(board, way, "both_bytes" if backward else "forward_bytes")
        if not peaks:
            continue
        last = max(peaks)
        formula = peak_bytes(way, config.work(last), backward, board.size)
        source = f"{passes_of(backward)} over {last:,} tokens; the formula's bytes"
        figures.append(PEAK.of(way=WAYS[way])(peaks[last] / MB, formula / MB, source=source))
        if last // 2 in peaks and way in ("naive", lean(board)):
            source = f"N x N scores grow fourfold, rows double; from {last // 2:,} to {last:,} tokens"
            growth = GROWTH.of(way="naive attention" if way == "naive" else "the fused kernel")
            figures.append(growth(peaks[last] / peaks[last // 2], 4.0 if way == "naive" else 2.0, source=source))
    naive, few = measured(board, "naive", "both_bytes"), measured(board, lean(board), "both_bytes")
    for length, saved in README_MEMORY.items():
        if length in naive and length in few:
            figures.append(MEMORY_RATIO.of(tokens=f"{length:,}")(naive[length] / few[length], saved))
    source = f"forward and backward by formula, {board.free / 1e9:.1f} GB free; beyond that it is not started"
    figures.append(LONGEST_NAIVE(float(board.limit), source=source))
    return figures


def passes_of(backward: bool) -> str:
    return "forward and backward" if backward else "forward"


def time_figures(board: Board) -> list[Result]:
    """Every way against its physical floor, naive against fused beside the paper, our tiles beside the kernel."""
    figures, fused = list[Result](), lean(board)
    for way in board.ways:
        backward = way != "tiled"
        times = measured(board, way, "both_seconds" if backward else "forward_seconds")
        if times:
            last = max(times)
            # the roofline is measured in float32: on a GPU the 16-bit kernels run faster than that
            floor = None if this_machine().gpu is not None else board.floor(last, backward) * MS
            source = f"{passes_of(backward)} over {last:,} tokens; this machine's arithmetic and memory (roofline)"
            figures.append(TIME.of(way=WAYS[way])(times[last] * MS, floor, source=source))
    naive, quick = measured(board, "naive", "both_seconds"), measured(board, fused, "both_seconds")
    if common := naive.keys() & quick.keys():
        length = 1024 if 1024 in common else max(common)
        paper = PAPER_MS["naive"] / PAPER_MS["flash"] if length == 1024 else None
        source = f"forward and backward over {length:,} tokens; " + (
            "the paper's 41.7 ms over 7.3 ms, on an A100" if paper else "the paper has no number for this size"
        )
        figures.append(TIME_RATIO(naive[length] / quick[length], paper, source=source))
    ours, theirs = measured(board, "tiled", "forward_seconds"), measured(board, fused, "forward_seconds")
    if both := ours.keys() & theirs.keys():
        last = max(both)
        source = f"forward over {last:,} tokens; the same arithmetic in Python, for reading"
        figures.append(OUR_TILES_RATIO(ours[last] / theirs[last], source=source))
    return figures
