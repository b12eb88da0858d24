r"""Memory against time: one training step, checkpointed in different ways, weighed and timed on this machine.

Every way is run for real with `torch.utils.checkpoint`. In one step a dispatch mode counts the bytes of live tensors
after every operation: without checkpoints they climb until the loss and fall again; with them a low ramp is followed by
teeth, one for each segment that is computed again. In other steps nobody counts and the clock runs: the best of three,
the ways taking turns. In others the FLOPs of matmuls are counted.

A step without checkpoints is 3 forward passes of work, 1 forward and 2 backward; computing everything again makes it 4,
a third more. What is bought with it is memory. The Pareto front joins the ways that no other beats in both.

The gradients must be the same, and they are, bit for bit, as long as dropout draws the same zeros the second time. Tick
*Do not save the random state*: the second forward pass drops other places than the first, and the gradients belong to
no network that was ever run. Nothing warns you.

The chain is Chen's setting: each layer keeps one tensor, so keeping every $\sqrt n$-th is best.

Left out: keeping on another device (offloading), and the 5 kB of random state that torch keeps per checkpoint on a CPU.
Source: Chen et al. 2016, arXiv:1604.06174, section 4; Korthikanti et al. 2022, arXiv:2205.05198, section 5;
torch.utils.checkpoint.
"""

from collections.abc import Iterator
from typing import Any

from core.foundations.activation_bytes import head_bytes
from core.foundations.corpus import load_corpus
from core.foundations.experiment import experiment
from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.foundations.roofline import roofline
from core.gradient_checkpointing.bench import BARE, REPEATS, Bench, TradeoffConfig, TradeoffStep
from core.gradient_checkpointing.block import check_room
from core.gradient_checkpointing.strategies import sawtooth

RULE = "what is kept at the largest moment, by formula; gradients on their way and scratch come on top"
PEAK = Figure("peak memory, {way}", "MB", "theory", RULE)
LEAST_PEAK = Figure("least peak memory", "MB", "baseline", "the same step without checkpoints", headline=True)
STEP_FLOPS = Figure("FLOPs of a step, {way}", "forward passes", "theory", "3 and what is computed again; stopped early")
STEP_FLOPS_WHOLE = Figure(
    "FLOPs of a step, {way}, to the end", "forward passes", "theory", "the same without stopping early"
)
WEIGHT_FLOPS = Figure(
    "FLOPs with weights, stopped early",
    "forward passes",
    "theory",
    "every layer, no dropout: 4 less a third, the last of the matmuls with weights",
)
WEIGHT_FLOPS_WHOLE = Figure(
    "FLOPs with weights, to the end", "forward passes", "theory", "every layer, no dropout: all of it again"
)
STEP_TIME = Figure(
    "time of a step, {way}",
    "ms",
    "limit",
    "roofline: its FLOPs, or its saved bytes written and read, at this machine's best rate",
)
BY_FLOPS = "FLOPs of a step over 3 forward passes; softmax and dropout take time and count no FLOPs"
MORE_TIME = Figure("more time, {way}", "%", "theory", BY_FLOPS)
MORE_TIME_EVERY = Figure("more time, every layer checkpointed", "%", "theory", BY_FLOPS, headline=True)
BEST_SEGMENT = Figure("best segment", "layers", "theory", headline=True)
GRADIENT_ERROR = Figure(
    "largest difference of a gradient",
    "% of the largest",
    "theory",
    "the second forward pass repeats the first: no difference at all",
    headline=True,
)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How much memory does each second of recomputation save?")
def tradeoff(config: TradeoffConfig) -> Iterator[TradeoffStep]:
    """The formulas; then every way weighed, counted, and timed."""
    symbols = len(load_corpus("play").symbols)
    costs, n = config.costs(symbols), config.n_layer
    check_room(costs.peak(config.ways[0]), f"{n} layers" if n > 1 else "1 layer")
    forecast = tuple((costs.ratio(way, config.early_stop) / 3, costs.peak(way)) for way in config.ways)
    start: dict[str, Any] = {
        "names": tuple(way.name for way in config.ways),
        "sizes": tuple(way.k for way in config.ways),
        "n_layer": n,
    }

    start |= {"forecast": forecast, "formula": tuple((k, costs.segment_bytes(k)) for k in range(1, n + 1))}
    told = f"by formula: {forecast[0][1] / 1e6:.2f} MB without checkpoints"
    kept = (*(round(costs.layer_bytes) for _ in range(n)), round(head_bytes(costs.layer, symbols)))
    yield TradeoffStep(
        config.ways[0].name, "formula", teeth=sawtooth(costs, config.ways[0], True), kept=kept, doing=told, **start
    )
    bench = Bench(config)
    bench.start = start
    try:
        for way in config.ways:
            yield from bench.weighed(way)
            yield bench.told(
                way=way.name, phase="weighed", doing=f"{way.name}: {bench.peaks[way.name] / 1e6:.2f} MB at the peak"
            )
        for way in config.ways:
            early, _ = yield from bench.counted(way, True)
            full, _ = yield from bench.counted(way, False)
            bench.flops[way.name] = (early, costs.ratio(way, True), full, costs.ratio(way, False))
            yield bench.told(
                way=way.name,
                phase="counted",
                doing=f"{way.name}: {early:.3f} forward passes of FLOPs, {full:.3f} without stopping early",
            )
        one = next(way for way in config.ways if way.k == 1)
        _, early = yield from bench.counted(one, True, dropout=False)
        _, full = yield from bench.counted(one, False, dropout=False)
        bench.flops[BARE] = (early, 4.0 if costs.chain else 11 / 3, full, 4.0)
        yield bench.told(way=one.name, phase="counted")
        for repeat in range(REPEATS):
            for way in config.ways:
                for _ in bench.timed(way):
                    yield bench.told(way=way.name, phase="timed")
                yield bench.told(
                    way=way.name,
                    phase="timed",
                    doing=f"{way.name}: {1e3 * bench.seconds[way.name]:.1f} ms, best of {repeat + 1}",
                )
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


def figures_of(bench: Bench) -> tuple[Result, ...]:
    """Peaks, FLOPs, times against their floor, and the gradients."""
    return (*memory_figures(bench), *flops_figures(bench), *time_figures(bench), gradient_figure(bench))


def memory_figures(bench: Bench) -> list[Result]:
    """The peak of every way, and which segment has the least."""
    config, costs, peaks = bench.config, bench.costs, bench.peaks
    sizes = {way.k: way for way in config.ways if way.k}
    best = min(sizes, key=lambda k: (peaks[sizes[k].name], k))
    by_formula = min(sizes, key=lambda k: (costs.peak(sizes[k]), k))
    tried = f"least bytes by formula among {', '.join(map(str, sizes))}"
    return [
        LEAST_PEAK(min(peaks.values()) / 1e6, peaks["none"] / 1e6),
        BEST_SEGMENT(best, by_formula, source=tried),
        *(PEAK.of(way=way.name)(peaks[way.name] / 1e6, costs.peak(way) / 1e6) for way in config.ways),
    ]


def flops_figures(bench: Bench) -> list[Result]:
    """FLOPs of a step by torch's operations, against the formulas."""
    figures = list[Result]()
    for name, (early, by_formula, full, full_formula) in bench.flops.items():
        if name in ("selective", "every layer"):
            figures.append(STEP_FLOPS.of(way=name)(early, by_formula))
            figures.append(STEP_FLOPS_WHOLE.of(way=name)(full, full_formula))
    if not bench.costs.chain:
        figures.append(WEIGHT_FLOPS(bench.flops[BARE][0], 11 / 3))
        figures.append(WEIGHT_FLOPS_WHOLE(bench.flops[BARE][2], 4.0))
    return figures


def time_figures(bench: Bench) -> list[Result]:
    """Time against this machine's floor, and against the time without checkpoints."""
    config, costs, figures = bench.config, bench.costs, list[Result]()
    for way in config.ways:
        if way.key not in ("none", "selective") and way.k != 1:
            continue
        work, took = costs.ratio(way, config.early_stop), bench.seconds[way.name]
        # the roofline's rate is float32 without tensor cores: on a GPU no floor
        floor = (
            None if this_machine().gpu else 1e3 * roofline().floor_seconds(work * costs.flops(), costs.moved_bytes(way))
        )
        figures.append(STEP_TIME.of(way=way.name)(1e3 * took, floor))
        if way.key != "none":
            more = MORE_TIME_EVERY if way.k == 1 else MORE_TIME.of(way=way.name)
            figures.append(more(100 * (took / bench.seconds["none"] - 1), 100 * (work / 3 - 1)))
    return figures


def gradient_figure(bench: Bench) -> Result:
    return GRADIENT_ERROR(100 * max(bench.apart.values()), 0.0)
