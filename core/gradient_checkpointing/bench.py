"""The bench of `tradeoff`: one training step in any way, weighed, timed and counted."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from core.foundations.activation_bytes import Layer, core_flops
from core.foundations.corpus import batch_of, load_corpus
from core.foundations.experiment import Config, Step, setting
from core.foundations.machine import this_machine
from core.foundations.settings import seed_field
from core.gradient_checkpointing.block import Block, DropoutState, Stack, chain, gpt
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

    network: str = setting(
        "gpt",
        "Network",
        choices=NETWORKS,
        help="In the chain each layer saves one tensor, as in Chen's paper; a transformer's layer saves tens of them.",
    )
    n_layer: int = setting(
        12,
        "Layers n",
        unit="layer",
        low=1,
        high=48,
        help="More layers make the difference larger, and each step longer.",
    )
    every: int = setting(
        2,
        "Keep every k-th input",
        unit="layer",
        low=1,
        high=48,
        help="A larger k saves fewer inputs and computes longer pieces again; above n, one checkpoint is for all.",
    )
    context: int = setting(
        128, "Context", unit="token", low=2, high=512, help="A longer context saves more, and more to compute again."
    )
    dropout: float = setting(
        0.1,
        "Dropout",
        low=0.0,
        high=0.9,
        help="Any value above 0 draws masks, which must be the same the second time.",
        slider=True,
    )
    forget: bool = setting(
        False,
        "Do not save the random state",
        help="Ticked, dropout draws other zeros in the second forward pass than in the first.",
    )
    early_stop: bool = setting(
        True, "Stop early", more=True, help="Ticked, the second forward pass ends once the last saved tensor is there."
    )
    batch: int = setting(
        2,
        "Batch",
        unit="sequence",
        low=1,
        high=16,
        more=True,
        help="More sequences save more and take longer.",
        slider=True,
    )
    width: int = setting(
        128, "Width", low=8, high=256, more=True, help="A wider model can store more; each step takes longer."
    )
    n_head: int = setting(
        4,
        "Heads",
        unit="head",
        low=1,
        high=16,
        more=True,
        help="More heads mean more score matrices to save.",
        slider=True,
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.width % self.n_head:
            raise ValueError(
                f"width must be a multiple of the number of heads, got width {self.width} and {self.n_head} heads"
            )
        if self.batch * self.context > MOST_TOKENS:
            raise ValueError(
                f"batch x context must be at most {MOST_TOKENS} tokens, got {self.batch} x {self.context} ="
                f" {self.batch * self.context}"
            )
        need = self.costs(1).flops()
        if need > MOST_FLOPS:
            limit = f"{MOST_FLOPS / 1e9:g} billion operations"
            raise ValueError(
                f"the layers' forward pass may take {limit}, got {need / 1e9:.1f}: choose fewer layers, a smaller width"
                " or context"
            )

    @property
    def ways(self) -> tuple[Way, ...]:
        return ways(self.n_layer, self.every, self.network == "chain")

    def costs(self, vocabulary: int) -> Costs:
        layer = Layer(
            self.context,
            self.batch,
            self.width,
            self.n_head,
            dropout=self.dropout > 0,
            number=4,
            mask=1 if this_machine().gpu else 4,
        )
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
    forecast: tuple[
        tuple[float, float], ...
    ] = ()  # of each way by formula: step time over that of no checkpoint, bytes
    formula: tuple[tuple[int, float], ...] = ()  # k, bytes by formula
    peaks: tuple[tuple[str, int], ...] = ()  # the largest moment measured, by name of the way
    seconds: tuple[tuple[str, float], ...] = ()  # best so far
    flops: tuple[
        tuple[str, float, float, float, float], ...
    ] = ()  # name; measured and formula with early stop; the same without
    apart: tuple[tuple[str, float], ...] = ()  # largest difference of a gradient, over the largest gradient
    front: tuple[str, ...] = ()


class Bench:
    """The model and its batch, and one step of it in any way."""

    def __init__(self, config: TradeoffConfig) -> None:
        self.config, self.device = config, this_machine().device
        corpus = load_corpus("play")
        self.costs = config.costs(len(corpus.symbols))
        ids, targets = batch_of(
            corpus.train_ids, config.context, config.batch, torch.Generator().manual_seed(config.seed)
        )
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
                layer.again, layer.keep_rng_state = way.key == "selective", not self.config.forget
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
        live.leave_out(
            [
                *self.model.parameters(),
                *self.model.buffers(),
                *self.batch,
                *(w.grad for w in self.model.parameters() if w.grad is not None),
            ]
        )
        walk, rng = self.walk(way), DropoutState(config.seed, self.device)
        teeth, extra = sawtooth(self.costs, way, config.early_stop), self.costs.ratio(way, config.early_stop) - 1
        done, curve, bare = 0.0, list[tuple[float, int]](), self.curves.get("none", ())
        for unit, (phase, number, work) in enumerate(walk.units()):
            live.again, live.owner = phase == "backward", n if number == len(walk.segments) else live.passing
            with set_checkpoint_early_stop(config.early_stop), rng, live:
                work()
            share = len(walk.segments[number]) / n if 0 <= number < len(walk.segments) else 0.0
            start, done = done, done + share * (extra if phase == "backward" else 1.0)
            at, rows = live.take(5)
            totals = rows.sum(1)
            spread = (at - at[0]) / max(1, at[-1] - at[0])
            curve += [
                (round(float(start + (done - start) * part), 4), int(total))
                for part, total in zip(spread, totals, strict=True)
            ]
            largest = rows[int(totals.argmax())] if phase == "backward" else rows[-1]
            self.peaks[way.name] = max(self.peaks.get(way.name, 0), int(totals.max()))
            kept, again = (tuple(int(size) for size in part) for part in (largest[: n + 1], largest[n + 1 : -1]))
            doing = f"{way.name}: {phase}, {totals[-1] / 1e6:.2f} MB"
            yield TradeoffStep(
                way.name,
                phase,
                unit,
                tuple(curve),
                teeth,
                bare,
                (),
                kept,
                again,
                int(largest[-1]),
                n_layer=n,
                doing=doing,
            )
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
        self.apart[way.name] = (
            max(float((a - b).abs().max()) for a, b in zip(found, self.reference, strict=True)) / largest
        )

    # --- timed, counted ---

    def timed(self, way: Way) -> Iterator[None]:
        """One step by the clock, a pause after the forward pass; the best time so far is kept."""
        walk, rng, seconds = self.walk(way), DropoutState(self.config.seed, self.device), 0.0
        for phase, _, work in walk.units():
            with set_checkpoint_early_stop(self.config.early_stop), rng:
                started = time.perf_counter()
                work()
                if self.device == "cuda":
                    torch.cuda.synchronize()
                seconds += time.perf_counter() - started
            if phase == "loss":
                yield
        self.seconds[way.name] = min(seconds, self.seconds.get(way.name, seconds))

    def counted(
        self, way: Way, early_stop: bool, dropout: bool = True
    ) -> Generator[TradeoffStep, None, tuple[float, float]]:
        """FLOPs of a step of the layers over those of their forward pass: all products, and those with weights alone.

        Pauses come out.
        """
        self.model.train(dropout)
        walk, rng = self.walk(way), DropoutState(self.config.seed, self.device)
        counter = Flops()
        for unit, (_, number, work) in enumerate(walk.units(), start=1):
            inside = 0 <= number < len(walk.segments)
            with set_checkpoint_early_stop(early_stop), rng, counter if inside else nullcontext():
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
        tables: dict[str, Any] = {
            "peaks": tuple(self.peaks.items()),
            "seconds": tuple(self.seconds.items()),
            "apart": tuple(self.apart.items()),
        }
        flops = tuple((name, *numbers) for name, numbers in self.flops.items())
        return TradeoffStep(flops=flops, front=front(points, slack=0.01), **tables, **self.start, **what)
