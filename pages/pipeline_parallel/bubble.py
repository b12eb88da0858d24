"""The picture of `bubble`: three charts of work over one time, the raw one, activations held, and what a real run takes
longer.
"""

from typing import Any

from core.pipeline_parallel import BubbleConfig, BubbleStep
from core.pipeline_parallel.formulas import share
from core.pipeline_parallel.orders import SHORT
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, ranking, rounded, text
from pages._kit.player import player, view
from pages.pipeline_parallel.gantts import NOT_YET, end_of, film, legend, work


def bubble_panels(config: BubbleConfig) -> list[Panel]:
    rows = {"rows": config.ranks, "row": 28}
    held = chart(axis("rank", "number"), axis("held at most", "micro-batches"))
    held["xaxis"] |= {"range": [-0.6, config.ranks - 0.4], "dtick": 1}
    held["yaxis"] |= {"rangemode": "tozero"}
    parts = ranking(axis("longer by", "ms"), axis("", ""), left=150)
    parts["yaxis"] |= {"title": None}
    views = [
        view("ideal", "gantt", "Formula: every chunk takes its nominal time", legend=legend(config.schedule), **rows),
        view("simulated", "gantt", "Simulation, with the times the ranks showed (before the run: nominal)", **rows),
        view("real", "gantt", "Real ranks, padded: only computing is colored", legend=[NOT_YET], **rows),
    ]
    return [
        player("time", "", views, scrub="time", rate=6),
        text("table", "Idle time, in both conventions", span=6, height=230),
        view(
            "held",
            "plot",
            "Activations a rank holds",
            legend=[("text", "formula", "line"), ("text", "real ranks", "dot")],
            span=6,
            layout=held,
            height=230,
        ),
        view("parts", "plot", "Why the real run takes longer than the formula", span=6, layout=parts, height=260),
        view(
            "raw",
            "gantt",
            "Raw: nothing padded, all on this machine's cores",
            legend=[NOT_YET],
            span=6,
            rows=config.ranks,
            row=40,
        ),
    ]


def draw_bubble(step: BubbleStep, sketch: Sketch) -> None:
    if not step.ideal:
        return
    span = max(end_of(chart) for chart in (step.ideal, step.simulated, step.real) if chart)
    views = {"ideal": work(step.ideal, span, "ms"), "simulated": work(step.simulated, span, "ms")}
    views["real"] = work(step.real, span, "ms") if step.real else work(step.ideal, span, "ms", pale=True)
    sketch.film("time", list(film(views, span, "ms")))
    raw = step.raw or step.ideal
    sketch.show("raw", work(raw, end_of(raw), "ms", pale=not step.raw))
    sketch.show("held", held_of(step))
    sketch.show("parts", parts_of(step))
    sketch.text("table", table_of(step))


def held_of(step: BubbleStep) -> list[dict[str, Any]]:
    """A staircase for 1F1B, a plateau for GPipe."""
    traces = list[dict[str, Any]]()
    for (schedule, theory, found), colour in zip(step.held, "ad", strict=False):
        ranks = list(range(len(theory)))
        steps = [place for rank in ranks for place in (rank - 0.5, rank + 0.5)]
        traces.append(curve(steps, [height for height in theory for _ in (0, 1)], SHORT[schedule], colour))
        if found is not None:
            traces.append(dots(ranks, found, f"{SHORT[schedule]}, real", colour))
        name = dots([0.0], [theory[0]], "", colour, names=[SHORT[schedule]]) | {
            "mode": "text",
            "textposition": "top center",
            "cliponaxis": False,
        }
        traces.append(name)
    highest = max(max(theory) for _, theory, _ in step.held)
    return [*traces, dots([0.0], [highest * 1.15], "", "text", names=[""]) | {"mode": "text"}]


def parts_of(step: BubbleStep) -> list[dict[str, Any]]:
    """Parts of the difference; before the run the nothing that the formula knows."""
    parts = step.parts or (
        ("chunks slower than planned", 0.0),
        ("chunks slower than usual", 0.0),
        ("communication", 0.0),
        ("Python", 0.0),
    )
    names = [name for name, _ in parts]
    traces = bars(names, [ms for _, ms in parts], colour="b")
    for name, ms in parts:
        words = f" {ms:,.0f} ms" if step.parts else " not run yet"
        label: dict[str, Any] = dots([rounded(max(ms, 0.0)) or 0.0], [0.0], "", "text", names=[words])
        traces.append(label | {"y": [name], "mode": "text", "textposition": "middle right", "cliponaxis": False})
    most = max(1.0, *(ms for _, ms in parts))
    traces.append(dots([most * 1.35], [0.0], "", "text", names=[""]) | {"y": [names[0]], "mode": "text"})
    return traces


def table_of(step: BubbleStep) -> str:
    """Each convention with a line per schedule."""
    lines = [f"{'':<12}{'formula':>8}{'simul.':>8}{'real':>8}"]
    for title, convention in (("idle / work", "{0:.3f}"), ("idle / all time", "{1:.1%}")):
        lines.append(title)
        for schedule, *values in step.rows:
            cells = ["–" if value is None else convention.format(value, share(value)) for value in values]
            lines.append(f"  {SHORT[schedule]:<10}"[:12].ljust(12) + "".join(f"{cell:>8}" for cell in cells))
    cells = ["–" if ms is None else f"{ms:,.0f}" for ms in step.makespans]
    lines += ["one batch, ms", f"  {SHORT[step.schedule]:<10}"[:12].ljust(12) + "".join(f"{cell:>8}" for cell in cells)]
    if step.chunk_ms is None or step.raw_bubble is None:
        return "\n".join([*lines, "", "Before the run the simulation has nominal times too."])
    padded, raw = step.chunk_ms
    lines += [
        "",
        f"A chunk's work: {padded:.1f} ms padded,",
        f"{raw:.1f} ms raw.",
        f"Raw, ranks idle {share(step.raw_bubble):.0%} of all time.",
    ]
    return "\n".join(lines)
