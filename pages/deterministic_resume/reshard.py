"""The picture of `reshard`: the ribbon of four groups of ranks, who holds what, and how far apart the runs are."""

from core.deterministic_resume import ReshardConfig, ReshardStep
from core.deterministic_resume.reshard import COUNTS, STRAIGHT
from pages._kit.charts import Panel, Sketch, axis, bars, ranking, text
from pages._kit.player import player, view
from pages.deterministic_resume.ribbons import (
    distance_layout,
    distance_traces,
    legend,
    ribbon_layout,
    ribbon_traces,
    saved,
)

LOADED = {f"loaded on {COUNTS[count]}": count for count in (2, 4, 1)}
LINES = {
    "loaded on 2 ranks": ("on 2 ranks", "c"),
    "loaded on 4 ranks": ("on 4 ranks", "b"),
    "loaded on 1 rank": ("on 1 rank", "d"),
}
KINDS = {"embedding": ("embed",), "attention": ("attention",), "MLP": ("up.", "down."), "output": ("head",)}
COLOURS = dict(zip(KINDS, "abcd", strict=True))


def reshard_panels(config: ReshardConfig) -> list[Panel]:
    last = config.before + config.steps
    held = ranking(axis("weights held", "count"), axis("", ""), stacked=True, legend=True, left=84)
    held["yaxis"] |= {"title": None}
    held["legend"] |= {"traceorder": "normal"}
    apart = distance_layout(config.before, last)
    return [
        view(
            "ribbon",
            "plot",
            "Is each step, bit by bit, that of the run that was never stopped?",
            legend=legend("2 ranks, never stopped"),
            layout=ribbon_layout([STRAIGHT, *LOADED], last),
            height=230,
        ),
        player(
            "groups",
            "",
            [view("held", "plot", "Which rank holds what", layout=held, height=270)],
            scrub="group of ranks",
            rate=0.7,
        ),
        view("apart", "plot", "How far from the never-stopped run", span=7, layout=apart, height=300),
        text("files", "The checkpoint, in bytes", span=5, height=300),
    ]


def draw_reshard(step: ReshardStep, sketch: Sketch) -> None:
    if step.ribbon is None:
        return
    last = step.last_step
    plan = {STRAIGHT: range(last + 1)} | {row: range(step.saved_at, last + 1) for row in LOADED}
    traces = ribbon_traces(step.ribbon, list(plan), plan)
    if step.written:
        traces.append(saved([step.saved_at], 0))
    sketch.show("ribbon", traces)
    sketch.show("apart", distance_traces(step.ribbon, LINES, step.saved_at, last))
    if step.complete:
        sketch.frame("groups", step.complete, held=held_of(step))
    sketch.text("files", files_of(step))


def held_of(step: ReshardStep) -> list[dict[str, object]]:
    """A bar per rank, its weights by kind."""
    labels = [rank for rank, _ in step.slices]
    traces: list[dict[str, object]] = []
    for kind, parts in KINDS.items():
        sizes = [
            float(sum(number for name, number in tensors if any(part in name for part in parts)))
            for _, tensors in step.slices
        ]
        traces += bars(labels, sizes, label=kind, colour=COLOURS[kind])
    return traces


def files_of(step: ReshardStep) -> str:
    lines = [f"{name:<18}{size:>10,}" for name, size in step.written]
    if not lines:
        lines = [f"{'.metadata':<18}{'?':>10}", f"{'__0_0.distcp':<18}{'?':>10}", f"{'__1_0.distcp':<18}{'?':>10}"]
    told = (
        "Each of the two ranks writes its own slices into its own file; .metadata says which piece of which tensor is"
        " where."
    )
    return "\n".join(
        [
            *lines,
            "",
            told,
            "",
            "Whoever loads reads the pieces it needs now: all of them on 1 rank, a quarter of each tensor on 4.",
        ]
    )
