r"""Memory against time: one training step, checkpointed in different ways, weighed and timed on this machine.

Every way is run for real with `torch.utils.checkpoint`. In one step a dispatch mode counts the bytes of live tensors after every
operation: without checkpoints they climb until the loss and fall again; with them a low ramp is followed by teeth, one for each
segment that is computed again. In other steps nobody counts and the clock runs: the best of three, the ways taking turns. In
others the FLOPs of products are counted.

A step without checkpoints is 3 forward passes of work, 1 forward and 2 backward; computing everything again makes it 4, a third
more. What is bought with it is memory. The Pareto front joins the ways that no other beats in both.

The gradients must be the same, and they are, bit for bit, as long as dropout draws the same zeros the second time. Tick *Forget the
dice*: the state of the random generator is not kept, the second forward pass drops other places than the first, and the gradients
belong to no network that was ever run. Nothing warns you.

The chain is Chen's setting: each layer keeps one tensor, so keeping every $\sqrt n$-th is best.

Left out: keeping on another device (offloading), and the 5 kB of random state that torch keeps per checkpoint on a CPU.
Source: Chen et al. 2016, arXiv:1604.06174, section 4; Korthikanti et al. 2022, arXiv:2205.05198, section 5; torch.utils.checkpoint.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from core.foundations.activation_bytes import Layer, core_flops, head_bytes
from core.foundations.corpus import batch_of, load_corpus
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.machine import this_machine
from core.foundations.roofline import roofline
from core.gradient_checkpointing.block import Block, Dice, Stack, chain, check_room, gpt
from core.gradient_checkpointing.live import Flops, Live
from core.gradient_checkpointing.strategies import Costs, Way, front, sawtooth, ways
from core.gradient_checkpointing.walk import Segment, Walk

NETWORKS = {"gpt": "transformer layers", "chain": "a chain of layers that keep one tensor each"}
BARE = "weights, p = 0"  # every layer without dropout, products with weights alone
MOST_TOKENS, MOST_FLOPS, REPEATS = 1024, 1.8e9, 3
PAUSE = 6  # units of work between two pauses of a counted step


@dataclass(frozen=True)
class TradeoffConfig(Config):
    """The network, and the segment length of your own way."""

    network: str = setting("gpt", "Network", choices=NETWORKS)
    n_layer: int = setting(12, "Layers n", unit="layer", low=1, high=48)
    every: int = setting(2, "Keep every k-th input", unit="layer", low=1, high=48, help="more than there are layers: one checkpoint for all")
    context: int = setting(128, "Context", unit="token", low=2, high=512)
    dropout: float = setting(0.1, "Dropout", low=0.0, high=0.9)
    forget: bool = setting(False, "Forget the dice", help="do not keep the state of the random generator")
    early_stop: bool = setting(True, "Stop early", more=True, help="end the second forward pass once the last kept tensor is there")
    batch: int = setting(2, "Batch", unit="text", low=1, high=16, more=True)
    width: int = setting(128, "Width", low=8, high=256, more=True)
    n_head: int = setting(4, "Heads", unit="head", low=1, high=16, more=True)
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True)

    def check(self) -> None:
        if self.width % self.n_head:
            raise ValueError(f"width must be a multiple of n_head, got width {self.width} and {self.n_head} heads")
        if self.batch * self.context > MOST_TOKENS:
            raise ValueError(f"batch x context must be at most {MOST_TOKENS} tokens, got {self.batch} x {self.context} = {self.batch * self.context}")
        need = self.costs(1).flops()
        if need > MOST_FLOPS:
            limit = f"{MOST_FLOPS / 1e9:g} billion operations"
            raise ValueError(f"the layers' forward pass may take {limit}, got {need / 1e9:.1f}: choose fewer layers, a smaller width or context")

    @property
    def ways(self) -> tuple[Way, ...]:
        return ways(self.n_layer, self.every, self.network == "chain")

    def costs(self, vocabulary: int) -> Costs:
        layer = Layer(self.context, self.batch, self.width, self.n_head, dropout=self.dropout > 0, number=4, mask=1 if this_machine().gpu else 4)
        return Costs(layer, self.n_layer, vocabulary, self.network == "chain")


@dataclass(frozen=True)
class TradeoffStep(Step):
    """A unit of a weighed step, or the tables after a timed or counted one."""

    way: str = ""  # the name of the way that ran
    phase: str = ""  # formula, forward, loss, backward, timed, counted, done
    unit: int = 0  # number of the unit within its step
    curve: tuple[tuple[float, int], ...] = ()  # of this step so far: work done in forward passes, live bytes
    teeth: tuple[tuple[float, float], ...] = ()  # the same by formula
    bare: tuple[tuple[float, int], ...] = ()  # the curve of the step without checkpoints
    curves: tuple[tuple[str, tuple[tuple[float, int], ...]], ...] = ()  # at the end: the curves of all ways
    kept: tuple[int, ...] = ()  # bytes by layer, and of what follows them, at this unit's largest moment
    again: tuple[int, ...] = ()  # bytes by layer that were computed again
    passing: int = 0  # bytes of gradients on their way and of scratch
    n_layer: int = 0
    names: tuple[str, ...] = ()  # of all ways
    sizes: tuple[int, ...] = ()  # k of each, 0 where nothing or only the core is computed again
    forecast: tuple[tuple[float, float], ...] = ()  # of each way by formula: step time over that of no checkpoint, bytes
    formula: tuple[tuple[int, float], ...] = ()  # k, bytes by formula
    peaks: tuple[tuple[str, int], ...] = ()  # the largest moment measured, by name of the way
    seconds: tuple[tuple[str, float], ...] = ()  # best so far
    flops: tuple[tuple[str, float, float, float, float], ...] = ()  # name; measured and formula with early stop; the same without
    apart: tuple[tuple[str, float], ...] = ()  # largest difference of a gradient, over the largest gradient
    front: tuple[str, ...] = ()


class Bench:
    """The model and its batch, and one step of it in any way."""

    def __init__(self, config: TradeoffConfig) -> None:
        self.config, self.device = config, this_machine().device
        corpus = load_corpus("play")
        self.costs = config.costs(len(corpus.symbols))
        ids, targets = batch_of(corpus.train_ids, config.context, config.batch, torch.Generator().manual_seed(config.seed))
        self.batch = (ids.to(self.device), targets.to(self.device))
        self.model = self.build(len(corpus.symbols))
        for weight in self.model.parameters():
            weight.grad = torch.zeros_like(weight)
        self.live: Live | None = None
        self.start: dict[str, Any] = {}  # what every picture needs
        self.curves: dict[str, tuple[tuple[float, int], ...]] = {}
        self.fullest: tuple[int, ...] = ()  # by layer, where the forward pass without checkpoints ends
        self.reference: list[Tensor] = []  # the gradients without checkpoints
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.forward_seconds = float("inf")  # of a step without checkpoints
        self.flops: dict[str, tuple[float, float, float, float]] = {}
        self.apart: dict[str, float] = {}

    def build(self, vocabulary: int) -> Stack:
        one = self.config
        if one.network == "chain":
            return chain(one.n_layer, one.width, one.context, vocabulary, one.seed, self.device)
        return gpt(self.costs.layer, one.n_layer, one.dropout, vocabulary, one.seed, self.device, torch.float32)

    def walk(self, way: Way) -> Walk:
        """A step in this way, ready to go; gradients are set to zero where they lie."""
        calls: list[Callable[..., Tensor]] = list(self.model.layers)
        for number, layer in enumerate(self.model.layers):
            if isinstance(layer, Block):
                layer.again, layer.keep_dice = way.key == "selective", not self.config.forget
                layer.core = None if self.live is None else self.live.owned(number, layer.attend)
            if self.live is not None:
                calls[number] = self.live.owned(number, layer)
        for weight in self.model.parameters():
            assert weight.grad is not None
            weight.grad.zero_()

        def plain(segment: Segment, x: Tensor) -> Tensor:
            for number in segment:
                x = calls[number](x)
            return x

        def again(segment: Segment, x: Tensor) -> Tensor:
            return checkpoint(plain, segment, x, use_reentrant=False, preserve_rng_state=not self.config.forget)

        return Walk(self.model, self.batch, way.segments(self.config.n_layer), again if way.k else plain)

    # --- weighed ---

    def weighed(self, way: Way) -> Iterator[TradeoffStep]:
        """One step, its live bytes after every operation; then its gradients beside those without checkpoints."""
        config, n = self.config, self.config.n_layer
        self.live = live = Live(n, self.device)
        live.leave_out([*self.model.parameters(), *self.model.buffers(), *self.batch, *(w.grad for w in self.model.parameters() if w.grad is not None)])
        walk, dice = self.walk(way), Dice(config.seed, self.device)
        teeth, extra = sawtooth(self.costs, way, config.early_stop), self.costs.ratio(way, config.early_stop) - 1
        done, curve, bare = 0.0, list[tuple[float, int]](), self.curves.get("none", ())
        for unit, (phase, number, work) in enumerate(walk.units()):
            live.again, live.owner = phase == "backward", n if number == len(walk.segments) else live.passing
            with set_checkpoint_early_stop(config.early_stop), dice, live:
                work()
            share = len(walk.segments[number]) / n if 0 <= number < len(walk.segments) else 0.0
            start, done = done, done + share * (extra if phase == "backward" else 1.0)
            at, rows = live.take(5)
            totals = rows.sum(1)
            spread = (at - at[0]) / max(1, at[-1] - at[0])
            curve += [(round(float(start + (done - start) * part), 4), int(total)) for part, total in zip(spread, totals, strict=True)]
            largest = rows[int(totals.argmax())] if phase == "backward" else rows[-1]
            self.peaks[way.name] = max(self.peaks.get(way.name, 0), int(totals.max()))
            kept, again = (tuple(int(size) for size in part) for part in (largest[: n + 1], largest[n + 1 : -1]))
            doing = f"{way.name}: {phase}, {totals[-1] / 1e6:.2f} MB"
            yield TradeoffStep(way.name, phase, unit, tuple(curve), teeth, bare, (), kept, again, int(largest[-1]), n_layer=n, doing=doing)
            if way.key == "none" and phase == "loss":
                self.fullest = kept
        self.curves[way.name] = tuple(curve)
        walk.close()
        self.live = None
        self.compare(way)

    def compare(self, way: Way) -> None:
        """The gradients of this way beside those without checkpoints."""
        found = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        if not self.reference:
            self.reference = [grad.clone() for grad in found]
        largest = max(float(grad.abs().max()) for grad in self.reference)
        self.apart[way.name] = max(float((a - b).abs().max()) for a, b in zip(found, self.reference, strict=True)) / largest

    # --- timed, counted ---

    def timed(self, way: Way) -> Iterator[None]:
        """One step by the clock, a pause after the forward pass; the best time so far is kept."""
        walk, dice, seconds = self.walk(way), Dice(self.config.seed, self.device), 0.0
        for phase, _, work in walk.units():
            with set_checkpoint_early_stop(self.config.early_stop), dice:
                started = time.perf_counter()
                work()
                if self.device == "cuda":
                    torch.cuda.synchronize()
                seconds += time.perf_counter() - started
            if phase == "loss":
                self.forward_seconds = min(self.forward_seconds, seconds) if way.key == "none" else self.forward_seconds
                yield
        self.seconds[way.name] = min(seconds, self.seconds.get(way.name, seconds))

    def counted(self, way: Way, early_stop: bool, dropout: bool = True) -> Generator[TradeoffStep, None, tuple[float, float]]:
        """FLOPs of a step of the layers over those of their forward pass: all products, and those with weights alone. Pauses come out."""
        self.model.train(dropout)
        walk, dice = self.walk(way), Dice(self.config.seed, self.device)
        counter = Flops()
        for unit, (_, number, work) in enumerate(walk.units(), start=1):
            inside = 0 <= number < len(walk.segments)
            with set_checkpoint_early_stop(early_stop), dice, counter if inside else nullcontext():
                work()
            if unit % PAUSE == 0:
                yield self.told(way=way.name, phase="counted")
        self.model.train()
        core = 0 if self.costs.chain else self.config.n_layer * core_flops(self.costs.layer)
        return counter.every / self.costs.flops(), counter.weights / (self.costs.flops() - core)

    def close(self) -> None:
        """Let go of everything now: layers that someone looks at refer to themselves in circles."""
        for module in list(self.model.modules()):
            vars(module).clear()
        self.reference.clear()

    def told(self, **what: Any) -> TradeoffStep:
        """The tables as they stand."""
        points = [(name, seconds, float(self.peaks[name])) for name, seconds in self.seconds.items()]
        tables: dict[str, Any] = {"peaks": tuple(self.peaks.items()), "seconds": tuple(self.seconds.items()), "apart": tuple(self.apart.items())}
        flops = tuple((name, *numbers) for name, numbers in self.flops.items())
        return TradeoffStep(flops=flops, front=front(points, slack=0.01), **tables, **self.start, **what)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How much memory does each second of computing again buy?")
def tradeoff(config: TradeoffConfig) -> Iterator[TradeoffStep]:
    """The formulas; then every way weighed, counted, and timed."""
    symbols = len(load_corpus("play").symbols)
    costs, n = config.costs(symbols), config.n_layer
    check_room(costs.peak(config.ways[0]), f"{n} layers" if n > 1 else "1 layer")
    forecast = tuple((costs.ratio(way, config.early_stop) / 3, costs.peak(way)) for way in config.ways)
    start: dict[str, Any] = {"names": tuple(way.name for way in config.ways), "sizes": tuple(way.k for way in config.ways), "n_layer": n}

    start |= {"forecast": forecast, "formula": tuple((k, costs.segment_bytes(k)) for k in range(1, n + 1))}
    told = f"by formula: {forecast[0][1] / 1e6:.2f} MB without checkpoints"
    kept = (*(round(costs.layer_bytes) for _ in range(n)), round(head_bytes(costs.layer, symbols)))
    yield TradeoffStep(config.ways[0].name, "formula", teeth=sawtooth(costs, config.ways[0], True), kept=kept, doing=told, **start)
    bench = Bench(config)
    bench.start = start
    try:
        for way in config.ways:
            yield from bench.weighed(way)
            yield bench.told(way=way.name, phase="weighed", doing=f"{way.name}: {bench.peaks[way.name] / 1e6:.2f} MB at the peak")
        for way in config.ways:
            early, _ = yield from bench.counted(way, True)
            full, _ = yield from bench.counted(way, False)
            bench.flops[way.name] = (early, costs.ratio(way, True), full, costs.ratio(way, False))
            yield bench.told(way=way.name, phase="counted", doing=f"{way.name}: {early:.3f} forward passes of FLOPs, {full:.3f} without stopping early")
        one = next(way for way in config.ways if way.k == 1)
        _, early = yield from bench.counted(one, True, dropout=False)
        _, full = yield from bench.counted(one, False, dropout=False)
        bench.flops[BARE] = (early, 4.0 if costs.chain else 11 / 3, full, 4.0)
        yield bench.told(way=one.name, phase="counted")
        for repeat in range(REPEATS):
            for way in config.ways:
                for _ in bench.timed(way):
                    yield bench.told(way=way.name, phase="timed")
                yield bench.told(way=way.name, phase="timed", doing=f"{way.name}: {1e3 * bench.seconds[way.name]:.1f} ms, best of {repeat + 1}")
        roofline()
        yield bench.told(phase="done")
        yield bench.told(
            phase="done",
            curves=tuple(bench.curves.items()),
            kept=bench.fullest,
            figures=figures_of(bench),
            doing=f"Pareto front: {', '.join(bench.told().front)}",
        )
    finally:
        bench.close()


def figures_of(bench: Bench) -> tuple[Compared, ...]:
    """Peaks, FLOPs, times against their floor, and the gradients."""
    config, costs = bench.config, bench.costs
    figures = []
    for way in config.ways:
        source = "kept at the largest moment, by formula; the gap is gradients on their way and scratch"
        figures.append(Compared(f"peak, {way.name}", "MB", costs.peak(way) / 1e6, bench.peaks[way.name] / 1e6, source))
    for name, (early, by_formula, full, full_formula) in bench.flops.items():
        if name in ("selective", "every layer"):
            figures.append(Compared(f"FLOPs of a step, {name}", "forward passes", by_formula, early, "3 and what is computed again; stopped early"))
            figures.append(Compared(f"FLOPs of a step, {name}, to the end", "forward passes", full_formula, full, "the same without stopping early"))
    if not costs.chain:
        source = "every layer, no dropout: 4 less a third, the last of the products with weights"
        figures.append(Compared("FLOPs with weights, stopped early", "forward passes", 11 / 3, bench.flops[BARE][0], source))
        figures.append(Compared("FLOPs with weights, to the end", "forward passes", 4.0, bench.flops[BARE][2], "every layer, no dropout: all of it again"))
    plain = bench.seconds["none"]
    for way in config.ways:
        if way.key in ("none", "selective") or way.k == 1:
            floor = roofline().floor_seconds(costs.ratio(way, config.early_stop) * costs.flops(), costs.moved_bytes(way))
            took, source = bench.seconds[way.name], "roofline: its FLOPs, or its kept bytes written and read, at this machine's best rate"
            figures.append(Compared(f"time of a step, {way.name}, against the floor", "ms", 1e3 * floor, 1e3 * took, f"{source}; {took / floor:.1f} times"))
            if way.key != "none":
                extra = 100 * (costs.ratio(way, config.early_stop) / 3 - 1)
                figures.append(Compared(f"more time, {way.name}", "%", extra, 100 * (took / plain - 1), "FLOPs of a step over 3 forward passes"))
            if way.k == 1:
                source = "the forward pass of this machine once more; softmax and dropout take time and count no FLOPs"
                figures.append(Compared("more time, by the forward pass", "%", 100 * bench.forward_seconds / plain, 100 * (took / plain - 1), source))
    sizes = {way.k: way for way in config.ways if way.k}
    best = min(sizes, key=lambda k: (bench.peaks[sizes[k].name], k))
    told = min(sizes, key=lambda k: (costs.peak(sizes[k]), k))
    figures.append(Compared("best segment", "layers", told, best, f"least bytes by formula among {', '.join(map(str, sizes))}"))
    apart = max(bench.apart.values())
    figures.append(Compared("largest difference of a gradient", "% of the largest", 0.0, 100 * apart, "the same zeros drawn again: no difference at all"))
    return tuple(figures)
