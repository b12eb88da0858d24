"""The picture of `interval`: two formulas and simulated runs on one chart, the first hours of three of them, and where
the time goes.
"""

from core.deterministic_resume import IntervalConfig, IntervalStep
from core.deterministic_resume.interval import FILM
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, spikes, text
from pages._kit.player import view
from pages.deterministic_resume.ribbons import words

TICKS = {
    1: "1 s",
    5: "5 s",
    15: "15 s",
    60: "1 min",
    240: "4 min",
    900: "15 min",
    3600: "1 h",
    14400: "4 h",
    43200: "12 h",
    172800: "2 days",
    864000: "10 days",
}
COLOURS = {"work": "c", "saving": "a", "lost": "b", "restart": "level"}
SHOWN = 4.5  # times the least loss: as far up as the chart reaches


def interval_panels(config: IntervalConfig) -> list[Panel]:
    bowl = chart(axis("a save after every", "time of work"), axis("time lost", "% of the work"), log_x=True)
    bowl["xaxis"] |= {"tickvals": list(TICKS), "ticktext": list(TICKS.values())}
    bowl["xaxis"].pop("dtick", None)
    bowl["yaxis"] |= {"rangemode": "tozero"}
    film = chart(axis("since the start", "hours"), axis("", ""))
    film["yaxis"] = {
        "tickvals": [0, -1, -2],
        "ticktext": list(FILM),
        "range": [-2.6, 0.6],
        "showgrid": False,
        "zeroline": False,
        "title": {"text": ""},
    }
    film["margin"] |= {"l": 84}
    film |= {"barmode": "overlay"}
    return [
        view(
            "bowl",
            "plot",
            "Time lost, by how often a checkpoint is saved",
            legend=[("text", "Young", "dashed"), ("a", "Daly", "line"), ("b", "simulated", "dot")],
            layout=bowl,
            height=370,
        ),
        view(
            "film",
            "plot",
            "The first hours of a run",
            legend=[("c", "work"), ("a", "saving"), ("b", "lost"), ("level", "restart")],
            span=7,
            layout=film,
            height=250,
        ),
        text("where", "Where the time goes, in %", span=5, height=250),
    ]


def draw_interval(step: IntervalStep, sketch: Sketch) -> None:
    least = min(daly for _, _, daly in step.curve)
    shown = [(x, young, daly) for x, young, daly in step.curve if young < SHOWN * least and daly < SHOWN * least]
    xs, top = [x for x, _, _ in shown], 100 * SHOWN * least
    traces = [
        spikes([step.young], top, "sqrt(2CM)", "level"),
        curve(xs, [100 * y for _, y, _ in shown], "Young", "text", dash=True),
        curve(xs, [100 * y for _, _, y in shown], "Daly", "a"),
        words(step.young, 0.07 * top, f" √(2CM) = {duration(step.young)}", "middle right"),
    ]
    there = [(x, 100 * mean, 100 * error) for x, mean, error in step.dots if mean < SHOWN * least]
    if there:
        traces.append(
            dots(
                [x for x, _, _ in there],
                [y for _, y, _ in there],
                "simulated",
                "b",
                errors=[error for *_, error in there],
            )
        )
    sketch.show("bowl", traces)
    sketch.show("film", film_of(step))
    sketch.text("where", where_of(step))


def film_of(step: IntervalStep) -> list[dict[str, object]]:
    """Three bars of time, one per interval, the parts in their colours."""
    traces: list[dict[str, object]] = []
    for place, scene in enumerate(step.scenes):
        for what, colour in COLOURS.items():
            parts = [(start, end) for kind, start, end in scene.parts if kind == what]
            told: dict[str, object] = {
                "type": "bar",
                "orientation": "h",
                "width": 0.7,
                "name": f"{scene.name}: {what}",
                "colour": colour,
                "hoverinfo": "name",
            }
            traces.append(
                told
                | {
                    "y": [-place] * len(parts),
                    "x": [round(end - start, 4) for start, end in parts],
                    "base": [round(start, 4) for start, _ in parts],
                }
            )
    return traces


def where_of(step: IntervalStep) -> str:
    told = {name: shares for name, *shares in step.ledger}
    lines = [f"{'save every':<12}{'work':>6}{'save':>6}{'lost':>6}{'rest.':>6}"]
    for scene in step.scenes:
        shares = told.get(scene.name)
        lines.append(
            f"{duration(scene.interval):<12}"
            + ("".join(f"{share:>6.1f}" for share in shares) if shares else f"{'?':>6}" * 4)
        )
    lines += [
        "",
        f"C, a save:        {duration(step.save_seconds)}",
        f"M, until failure: {duration(step.mean_gap)}",
        f"best by Daly:     {duration(step.daly)}",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """'45 s', '19.0 min', '2.8 h', '3.1 days'."""
    for unit, name in ((86400 * 2, "days"), (5400, "h"), (90, "min")):
        if seconds >= unit:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[name]:.1f} {name}"
    return f"{seconds:.3g} s"
