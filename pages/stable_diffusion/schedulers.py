"""The picture of `schedulers`: a grid of solvers and step counts, distance from the converged picture,
diffusers' defaults.
"""

import math

from core.stable_diffusion.schedulers import COUNTS, SOLVERS, SchedulersConfig, SchedulersStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture, text
from pages._kit.player import view

HUES = dict(zip(SOLVERS, ("d", "a", "b", "c"), strict=True))
GUIDE = 10.0  # % of a pixel at 4 steps: where the dashed lines begin


def schedulers_panels(config: SchedulersConfig) -> list[Panel]:
    away = chart(axis("steps", "count"), axis("distance from the converged picture", "% of a pixel"), log_y=True)
    away["xaxis"] |= {
        "type": "log",
        "tickvals": list(COUNTS),
        "range": [math.log10(0.85), math.log10(max(config.steps, 8) * 3.4)],
    }
    return [
        view("grid", "pictures", f"'{config.prompt[:40]}' from one noise", span=7, most=76, least=56),
        view("away", "plot", "How far from converged", span=5, layout=away, height=330),
        view(
            "script",
            "pictures",
            f"DDIM, {config.steps} steps: the model's settings, diffusers' defaults, defaults without clip_sample",
            span=7,
            most=72,
            least=56,
        ),
        text("table", "Judge and seconds", span=5, height=310),
    ]


def draw_schedulers(step: SchedulersStep, sketch: Sketch) -> None:
    if not step.fresh or step.noise is None:
        return
    sketch.show("grid", grid(step))
    sketch.show("away", distances(step))
    sketch.text("table", table(step))
    blank = step.noise
    if step.script:
        titles = ("the model's settings", "diffusers' defaults", "without clip_sample")
        shown = []
        for title, right, some in zip(titles, step.script_right, step.script, strict=True):
            under = [agreed(right), *step.prompts[1:]]
            shown += [
                picture(one, title if not number else "", under=under[number]) for number, one in enumerate(some[:4])
            ]
        sketch.show(
            "script",
            {"columns": min(4, len(step.prompts)) if len(step.prompts) > 1 else len(titles), "pictures": shown},
        )
    else:
        sketch.show("script", {"columns": 4, "pictures": [picture(blank, "the common noise, decoded")]})


def agreed(right: float) -> str:
    return "" if math.isnan(right) else f"judge: {right:.0f} %"


def grid(step: SchedulersStep) -> dict[str, object]:
    """A row per solver, a column per number of steps; the noise stands where nothing has been drawn yet."""
    drawn = {
        (solver, count): (some[0], right)
        for (solver, count, right, *_), some in zip(step.table, step.pictures, strict=True)
    }
    shown = []
    for solver in SOLVERS:
        for count in step.counts:
            one, right = drawn.get((solver, count), (step.noise, math.nan))
            name = f"{solver}, {count}" if count == step.counts[0] else f"{count} steps"
            shown.append(
                picture(
                    one,
                    name,
                    under=agreed(right) if (solver, count) in drawn else "noise",
                    mark=HUES[solver] if (solver, count) in drawn else "",
                )
            )
    return {"columns": len(step.counts), "pictures": shown}


def distances(step: SchedulersStep) -> list[dict[str, object]]:
    """Measured, beside lines that fall like 1/n and 1/n^2."""
    most = max(step.counts[-1], 8)
    middle = math.sqrt(4 * most)
    traces = [
        curve([4, most], [GUIDE, GUIDE * (4 / most) ** power], f"like 1 / n^{power}", "level", dash=True)
        for power in (1, 2)
    ]
    for power, name in ((1, "1/n"), (2, "1/n²")):
        traces.append(
            dots([middle], [GUIDE * (4 / middle) ** power], "", "level", names=[name])
            | {"mode": "text", "textposition": "top right"}
        )
    for solver in SOLVERS:
        known = [(count, away) for name, count, _, _, away in step.table if name == solver and away]
        if known:
            line = dots(
                [count for count, _ in known],
                [away for _, away in known],
                solver,
                HUES[solver],
                line=True,
                names=[""] * (len(known) - 1) + [solver],
            )
            traces.append(
                line | {"textposition": "bottom right" if solver == "Euler" else "top right", "cliponaxis": False}
            )
    return traces


def table(step: SchedulersStep) -> str:
    """A line per solver, a column per number of steps: how often the judge agrees, and seconds."""
    of = {(solver, count): (right, seconds) for solver, count, right, seconds, _ in step.table}
    head = "".join(f"{count:>5}" for count in step.counts)
    known = not step.table or any(not math.isnan(right) for right, _ in of.values())
    lines = [f"judge, %  {head}"] if known else ["No judge knows these pictures."]
    for solver in SOLVERS if known else ():
        shares = [of.get((solver, count), (math.nan, 0.0))[0] for count in step.counts]
        lines.append(
            f"{solver[:8]:<10}" + "".join("    ." if math.isnan(share) else f"{share:5.0f}" for share in shares)
        )
    lines += ["", f"seconds   {head}"]
    for solver in SOLVERS:
        times = [of.get((solver, count), (0.0, 0.0))[1] for count in step.counts]
        lines.append(f"{solver[:8]:<10}" + "".join(f"{seconds:5.2f}" if seconds else "    ." for seconds in times))
    return "\n".join(
        [*lines, "", f"for {len(step.prompts)} pictures at once" if len(step.prompts) > 1 else "for one picture"]
    )
