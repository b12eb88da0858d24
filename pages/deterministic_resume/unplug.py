"""The picture of `unplug`: the ribbon, how far apart the runs are, their losses, what happened, and what a checkpoint
weighs.
"""

from core.deterministic_resume import UnplugConfig, UnplugStep
from core.deterministic_resume.processes import NEVER, RESUMED, SHORT
from pages._kit.charts import Panel, Sketch, axis, lines, series, text
from pages._kit.player import view
from pages.deterministic_resume.ribbons import (
    distance_layout,
    distance_traces,
    legend,
    ribbon_layout,
    ribbon_traces,
    saved,
    words,
)

LINES = {  # of the runs that resume
    RESUMED: ("resumed", "c"),
    "without weights": ("no weights", "b"),
    "without optimizer": ("no optimizer", "a"),
    "without schedule": ("no schedule", "d"),
    "without random state": ("no RNG state", "text"),
    "without position in data": ("no data place", "e"),
}
LOSSES = (NEVER, RESUMED, "without weights", "without random state")  # the others would only cover these


def unplug_panels(config: UnplugConfig) -> list[Panel]:
    rows = list(config.plan)
    members = [
        series(row, short, colour)
        for row, (short, colour) in ({NEVER: ("never stopped", "level")} | LINES).items()
        if row in rows and row in LOSSES
    ]
    left_out = ", ".join(name for part, name in SHORT.items() if part not in config.ticked)
    put_back = f"without {left_out}" if left_out else "with everything"
    return [
        view(
            "ribbon",
            "plot",
            f"Each step, bit by bit. “Resumed”: {put_back}",
            legend=legend("never stopped"),
            layout=ribbon_layout(rows, config.last_step),
            height=110 + 28 * len(rows),
        ),
        view(
            "apart",
            "plot",
            "How far each is from the never-stopped run",
            span=6,
            layout=distance_layout(config.resumes_from, config.last_step),
            height=330,
        ),
        lines(
            "loss",
            "The loss of the same runs",
            axis("training step", "count", round(1.45 * config.last_step)),
            axis("loss", "nats per character"),
            members,
            span=6,
            height=330,
        ),
        text("news", "What happened", span=7, height=190),
        text("ledger", "A checkpoint, in bytes", span=5, height=190),
    ]


def draw_unplug(step: UnplugStep, sketch: Sketch) -> None:
    if step.blind is not None:
        sketch.levels("loss", {"ln V": step.blind})
    if step.loss is not None and step.row in LOSSES:
        sketch.point("loss", step.row, step.step or 0, step.loss)
    if step.ribbon is None:
        return
    plan = dict(step.plan)
    rows = list(plan)
    traces = ribbon_traces(step.ribbon, rows, {row: range(first, last + 1) for row, (first, last) in plan.items()})
    traces.append(saved(step.saves, 1))
    if step.killed_at is not None:
        traces.append(words(step.killed_at + 0.8, -1, "✕ killed", "middle right"))
    sketch.show("ribbon", traces)
    sketch.show("apart", distance_traces(step.ribbon, LINES, *plan[RESUMED]))
    sketch.text(
        "news", "\n".join(step.news) or "Two processes will train from the same seed; one of them will be killed."
    )
    sketch.text("ledger", ledger_of(step))


def ledger_of(step: UnplugStep) -> str:
    """Parts of a checkpoint: by formula, and in the file."""
    rows = [f"{'':<15}{'formula':>9}{'file':>9}"]
    for part, formula, there in step.ledger:
        rows.append(f"{part:<15}{formula:>9,.0f}" + (f"{there:>9,.0f}" if there is not None else f"{'?':>9}"))
    return "\n".join([*rows, "", "Schedule and place are two numbers in the JSON file beside it."])
