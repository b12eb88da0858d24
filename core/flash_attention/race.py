r"""The race: the same output by every way this device has, over more and more tokens.

**Memory.** A table of scores is $HN^2$ numbers. Naive attention holds two tables going forward (scores and weights) and
three going backward ($P$, $dP$, $dS$), so its peak grows fourfold when $N$ doubles. A fused kernel holds rows:
$Q, K, V, O$, one logsumexp per row, and gradients. Its peak doubles. Measured are the bytes of all live tensors, each
storage counted once. The lines are formulas, so they reach further than the runs: where naive attention's line meets the
memory that is free here, it ends, and beyond that mark it is never started.

**Time.** No way can be faster than its arithmetic and its traffic allow on this machine (the roofline, see
`core/foundations/roofline.py`): at least $4d$ operations for each query-key pair forward, three times that with the
backward pass, and at least one trip for inputs and outputs. That is the dashed floor. Each dot is the best of several
runs. A way leaves the race where one timing would take longer than the patience allows, since others wait for their turn.

**Which kernel ran** is heard from the operations that PyTorch calls, not taken from what was asked for. On a CPU PyTorch
has its own flash kernel; a T4 has no FlashAttention-2 and gets the memory-efficient kernel; newer GPUs have both.

**The paper's line** is an A100: 41.7 ms against 7.3 ms with 1,024 tokens, and 10 and 20 times less memory at 2,048 and
4,096. On a GPU most of the gain is saved traffic; on a CPU it is the caches that play the part of fast memory. Without a
mask, flash does the same arithmetic as naive; with a causal mask it also skips the tiles in the future.

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

from core.flash_attention.ways import WAYS, Inputs, PeakBytes, Work, attend, inputs_of, longest, number_type, peak_bytes, ran
from core.foundations.base_model import free_bytes
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.machine import this_machine
from core.foundations.roofline import roofline

FEWEST = 128  # the race starts at about so many tokens
REACH = 65_536  # the formulas are drawn up to at least here
PAPER_MS = {"naive": 41.7, "flash": 7.3}  # forward and backward, N 1,024, d 64, 16 heads, batch 64, A100
README_MEMORY = {2048: 10.0, 4096: 20.0}  # standard over flash
MB, MS = 1e6, 1e3


@dataclass(frozen=True)
class RaceConfig(Config):
    """How far, and which attention."""

    most_n: int = setting(4096, "Longest text", unit="token", low=16, high=131_072, help="each size is half the next")
    runners: str = setting("all", "Who runs", choices={"all": "everything this device has"} | {name: told for name, told in WAYS.items() if name != "cudnn"})
    heads: int = setting(2, "Heads", low=1, high=32)
    width: int = setting(32, "Width of a head", low=8, high=128)
    causal: bool = setting(True, "Causal mask", help="a token sees itself and the past")
    patience: float = setting(0.2, "Patience", unit="s", low=0.01, high=2.0, more=True, help="longest single timing: others wait meanwhile")
    repeats: int = setting(3, "Repeats", unit="run", low=1, high=9, more=True, help="the fastest counts")
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True)

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
class Result:
    """What one way took for one size. None: not measured."""

    forward_seconds: float | None = None
    both_seconds: float | None = None  # forward and backward
    forward_bytes: float | None = None
    both_bytes: float | None = None


@dataclass(frozen=True)
class RaceStep(Step):
    """The whole picture after one timing."""

    kernels: tuple[tuple[str, str], ...]  # way -> what really runs; empty: not on this device; "free" is PyTorch's own choice
    results: tuple[tuple[str, int, float | None, float | None, float | None, float | None], ...]  # way, N and the fields of Result
    left: tuple[tuple[str, int, str, float], ...]  # way, N, "memory" or "time", and what it would need: bytes or seconds
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
    results: dict[tuple[str, int], Result] = field(default_factory=dict)
    left: list[tuple[str, int, str, float]] = field(default_factory=list)

    @property
    def ways(self) -> list[str]:
        return [way for way in WAYS if self.kernels.get(way)]

    @property
    def limit(self) -> int:
        return longest("naive", self.config.work(1), self.free, self.size)

    def note(self, way: str, length: int, name: str, value: float) -> None:
        """Keep the smaller of two times; bytes do not vary."""
        known = self.results.get((way, length), Result())
        before = getattr(known, name)
        self.results[way, length] = replace(known, **{name: value if before is None else min(before, value)})

    def step(self, doing: str = "", figures: tuple[Compared, ...] = ()) -> RaceStep:
        config = self.config
        reach = max(REACH, 2 * config.most_n, 2 * self.limit)
        lengths = [config.sizes[0]]
        while lengths[-1] < reach:
            lengths.append(2 * lengths[-1])
        results = tuple((way, n, one.forward_seconds, one.both_seconds, one.forward_bytes, one.both_bytes) for (way, n), one in self.results.items())
        peaks = tuple((way, tuple(float(peak_bytes(way, config.work(n), True, self.size)) for n in lengths)) for way in ("naive", "flash"))
        floors = [tuple(self.floor(n, backward) for n in lengths) for backward in (False, True)]
        return RaceStep(tuple(self.kernels.items()), results, tuple(self.left), tuple(lengths), peaks, (floors[0], floors[1]),
                        self.free, self.limit, doing=doing, figures=figures)  # fmt: skip

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
            finally:
                runner.tidy()
    yield board.step(summary(board), figures_of(board))


def summary(board: Board) -> str:
    """The longest text that both naive and fused attention were given, and what they held."""
    naive, few = measured(board, "naive", "both_bytes"), measured(board, lean(board), "both_bytes")
    last = max(naive.keys() & few.keys(), default=0)
    return f"{last:,} tokens: naive attention held {naive[last] / MB:.1f} MB, the fused kernel {few[last] / MB:.1f} MB" if last else "done"


def refuse_what_cannot_fit(board: Board) -> None:
    """Before anything is tried: what was asked for alone must fit, and of all, the leanest."""
    config = board.config
    way = "flash" if config.runners == "all" else config.runners
    need = peak_bytes(way, config.work(config.most_n), True, board.size)
    if need > board.free:
        raise ValueError(
            f"{WAYS[way]} attention over {config.most_n:,} tokens needs {need / 1e9:.1f} GB of memory, and {board.free / 1e9:.1f} GB are free here: "
            f"most_n may be at most {longest(way, config.work(1), board.free, board.size):,}"
        )


def stays_out(board: Board, way: str, length: int) -> bool:
    """Whether this size would not fit or take too long; then it is noted. Out once, out for all longer ones."""
    need = peak_bytes(way, board.config.work(length), True, board.size)
    if need > board.free:
        board.left.append((way, length, "memory", float(need)))
        return True
    before = next((seconds for name, _, why, seconds in reversed(board.left) if name == way and why == "time"), 0.0)
    half = board.results.get((way, length // 2))
    passes = (half.forward_seconds or 0.0, (half.both_seconds or 0.0) - (half.forward_seconds or 0.0)) if half else (0.0,)
    expected = 4 * max(before, *passes)
    if expected > board.config.patience:
        board.left.append((way, length, "time", expected))
    return expected > board.config.patience


def figures_of(board: Board) -> tuple[Compared, ...]:
    return (*memory_figures(board), *time_figures(board))


def lean(board: Board) -> str | None:
    """The fused kernel to compare with: flash, or what stands in for it on this device."""
    return next((way for way in ("flash", "efficient", "cudnn") if way in board.ways), None)


def measured(board: Board, way: str | None, name: str) -> dict[int, float]:
    """N -> what was measured of one way."""
    return {n: value for (one, n), result in board.results.items() if one == way and (value := getattr(result, name)) is not None}


def memory_figures(board: Board) -> list[Compared]:
    """Peaks and their growth; formula against count."""
    figures, config = list[Compared](), board.config
    for way in board.ways:
        name = "forward_bytes" if way == "tiled" else "both_bytes"
        peaks = measured(board, way, name)
        if not peaks:
            continue
        last, kind = max(peaks), "forward" if way == "tiled" else "forward and backward"
        formula = peak_bytes(way, config.work(last), way != "tiled", board.size)
        figures.append(
            Compared(f"peak of {WAYS[way]}, {last:,} tokens", "MB", formula / MB, peaks[last] / MB, f"{kind}; bytes of live tensors against the formula")
        )
        if last // 2 in peaks and way in ("naive", lean(board)):
            growth = 4.0 if way == "naive" else 2.0
            figures.append(
                Compared(
                    f"peak of {WAYS[way]} when the text doubles", "times", growth, peaks[last] / peaks[last // 2], f"from {last // 2:,} to {last:,} tokens"
                )
            )
    naive, few = measured(board, "naive", "both_bytes"), measured(board, lean(board), "both_bytes")
    for length, told in README_MEMORY.items():
        if length in naive and length in few:
            source = "forward and backward; predicted: flash-attention's README, on GPUs in 16 bits, with other heads and other tensors counted"
            figures.append(Compared(f"naive over fused, memory at {length:,} tokens", "times", told, naive[length] / few[length], source))
    source = f"forward and backward by formula, {board.free / 1e9:.1f} GB free; beyond that it is not started"
    figures.append(Compared("longest text that naive attention fits", "tokens", None, float(board.limit), source, "computed"))
    return figures


def time_figures(board: Board) -> list[Compared]:
    """Every way against its physical floor, naive against fused beside the paper, our tiles beside the kernel."""
    figures, fused = list[Compared](), lean(board)
    for way in board.ways:
        name, backward = ("forward_seconds", False) if way == "tiled" else ("both_seconds", True)
        times = measured(board, way, name)
        if times:
            last, kind = max(times), "forward" if way == "tiled" else "forward and backward"
            floor = board.floor(last, backward)
            source = f"{kind}; predicted: no faster can it be here (roofline); {times[last] / floor:.1f} times that"
            figures.append(Compared(f"time of {WAYS[way]}, {last:,} tokens", "ms", floor * MS, times[last] * MS, source))
    naive, quick = measured(board, "naive", "both_seconds"), measured(board, fused, "both_seconds")
    if common := naive.keys() & quick.keys():
        length = 1024 if 1024 in common else max(common)
        paper = PAPER_MS["naive"] / PAPER_MS["flash"] if length == 1024 else None
        source = "forward and backward; " + ("predicted: the paper's 41.7 ms over 7.3 ms, on an A100" if paper else "the paper has no number for this size")
        figures.append(Compared(f"naive over fused, time at {length:,} tokens", "times", paper, naive[length] / quick[length], source))
    ours, theirs = measured(board, "tiled", "forward_seconds"), measured(board, fused, "forward_seconds")
    if both := ours.keys() & theirs.keys():
        last = max(both)
        figures.append(
            Compared(f"our tiles over fused, forward at {last:,} tokens", "times", 1.0, ours[last] / theirs[last], "the same arithmetic in Python, for reading")
        )
    return figures
