"""The picture of `balance`: your layout in simulation and on real ranks, the map of all layouts, and the verdict."""

from typing import Any

from core.pipeline_parallel import BalanceConfig, BalanceStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import player, view
from pages.pipeline_parallel.gantts import LEGEND, NOT_YET, end_of, film, work


def balance_panels(config: BalanceConfig) -> list[Panel]:
    rows = {"rows": len(config.cut), "row": 28}
    plane = chart(axis("activations on the fullest rank", "count"), axis("time of a batch, simulated", "ms"))
    views = [
        view("simulated", "gantt", f"Layers {config.layout}, simulated", legend=LEGEND, **rows),
        view("real", "gantt", "Real ranks, padded", legend=[NOT_YET], **rows),
    ]
    return [
        text("verdict", "", height=64),
        player("time", "", views, scrub="time", rate=6),
        view(
            "map",
            "plot",
            "Every layout is a dot",
            span=7,
            layout=plane,
            height=360,
            legend=[("c", "fits the memory", "dot")],
        ),
        text("table", "Your layout", span=5, height=340),
    ]


def draw_balance(step: BalanceStep, sketch: Sketch) -> None:
    if not step.cut:
        return
    span = max(end_of(step.simulated), end_of(step.real))
    real = work(step.real, span, "ms") if step.real else work(step.simulated, span, "ms", pale=True)
    sketch.film("time", list(film({"simulated": work(step.simulated, span, "ms"), "real": real}, span, "ms")))
    sketch.show("map", map_of(step))
    sketch.text("table", table_of(step))
    sketch.text("verdict", step.verdict)


def map_of(step: BalanceStep) -> list[dict[str, Any]]:
    """Left of the upright line layouts fit; the best of them lie below the level."""
    slowest, fastest = max(ms for ms, _ in step.layouts), min(ms for ms, _ in step.layouts)
    traces = list[dict[str, Any]]()
    for fits, colour in ((False, "level"), (True, "c")):
        those = [(ms, most) for ms, most in step.layouts if (most <= step.memory) == fits]
        traces.append(
            dots([most for _, most in those], [ms for ms, _ in those], "fits" if fits else "does not fit", colour)
        )
    line = dots([step.memory + 0.5], [slowest], "", "text", names=[f" memory: {step.memory}"])
    traces += [
        curve([step.memory + 0.5] * 2, [fastest * 0.9, slowest], "memory", "text", dash=True),
        line | {"mode": "text", "textposition": "middle right"},
    ]
    if step.target is not None:
        ends = [min(most for _, most in step.layouts), max(most for _, most in step.layouts)]
        traces.append(curve(ends, [step.target, step.target], "target", "text", dash=True))
        goal = dots(
            [ends[1]], [step.target - 0.045 * (slowest - fastest)], "", "text", names=[f"target: {step.target:,.0f} ms"]
        )
        traces.append(goal | {"mode": "text", "textposition": "middle left"})
    ms, most = step.here
    mine = dots([most], [ms], "yours", "b", names=["yours "]) | {"textposition": "middle left"}
    return [*traces, mine]


def table_of(step: BalanceStep) -> str:
    """A line per rank."""
    lines = [f"{'':<6}{'layers':>7}{'ms':>6}{'held':>6}{'real':>6}{'fits':>5}"]
    for rank, (layers, each, (theory, found)) in enumerate(zip(step.cut, step.per_rank, step.held, strict=True)):
        shown = "–" if found is None else str(found)
        fits = "yes" if max(theory, found or 0) <= step.memory else "no"
        lines.append(f"rank {rank}{layers:>7}{each:>6,.0f}{theory:>6}{shown:>6}{fits:>5}")
    lines += [
        "",
        f"{'simulated':<12}{step.here[0]:>8,.0f} ms",
        f"{'real':<12}" + ("       – ms" if step.real_ms is None else f"{step.real_ms:>8,.0f} ms"),
    ]
    lines.append(f"{'target':<12}" + ("none fits" if step.target is None else f"{step.target:>8,.0f} ms"))
    told = (
        "ms: one micro-batch, forward and backward. held: layers x micro-batches whose activations wait for their"
        " backward pass."
    )
    return "\n".join([*lines, "", told])
