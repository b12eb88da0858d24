"""The picture of `chaos`: two runs that part, the error of three orders, and a sum that is another one every time."""

from core.deterministic_resume import ChaosConfig, ChaosStep
from core.deterministic_resume.chaos import FIT, ORDERS
from core.deterministic_resume.operations import OPERATIONS
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import view
from pages.deterministic_resume.ribbons import words

ZERO = 1e-10  # where the distance 0 is drawn
POWERS = {1e-8: "10⁻⁸", 1e-6: "10⁻⁶", 1e-4: "10⁻⁴", 1e-2: "0.01", 1.0: "1", 100.0: "100"}
COLOURS = dict(zip(ORDERS, "abc", strict=True))
MICRO = 1e6


def chaos_panels(config: ChaosConfig) -> list[Panel]:
    apart = chart(axis("training step", "count"), axis("distance of the runs", "all weights"), log_y=True)
    apart["xaxis"] |= {"range": [-0.01 * config.steps, 1.02 * config.steps]}
    apart["yaxis"] |= {"range": [-10.4, 2.6], "tickvals": [ZERO, *POWERS], "ticktext": ["0", *POWERS.values()]}
    apart["yaxis"].pop("dtick", None)
    walk = chart(axis("numbers added", "count"), axis("sum so far - exact", "its unit"))
    same = chart(axis("repetition", "count"), axis("a sum - exact", "10⁻⁶"))
    same["xaxis"] |= {"range": [0, config.repeats + 1]}
    moved = f"by {config.nudge:g}" if config.nudge else "by nothing"
    return [
        view(
            "apart",
            "plot",
            f"Two runs, one weight moved {moved}",
            legend=[("b", "one weight moved"), ("c", "the same again"), ("level", "exponential growth", "dashed")],
            layout=apart,
            height=330,
        ),
        view("walk", "plot", "The error of the same sum in three orders", span=7, layout=walk, height=290),
        text("sums", "The three sums", span=5, height=290),
        view(
            "same",
            "plot",
            "The same program again and again, 2 threads",
            legend=[("b", "free"), ("c", "deterministic")],
            span=6,
            layout=same,
            height=290,
        ),
        text("trials", "Different results of each, and its best time", span=6, height=290),
    ]


def draw_chaos(step: ChaosStep, sketch: Sketch) -> None:
    if step.trail is not None and step.repeated_trail is not None:
        draw_apart(step, sketch)
    if step.walks:
        draw_sums(step, sketch)
    if step.trials or step.plain_sample:
        draw_trials(step, sketch)


def draw_apart(step: ChaosStep, sketch: Sketch) -> None:
    """The distance of the moved run, and of the repetition, which stays at 0."""
    moved, again = ([max(float(y), ZERO) for y in trail] for trail in (step.trail, step.repeated_trail))
    steps = list(range(len(moved)))
    traces = [curve(steps, again, "the same again", "c"), curve(steps, moved, "one weight moved", "b")]
    traces += [dots([0], [moved[0]], "", "b"), dots([0], [again[0]], "", "c")] if len(moved) == 1 else []
    if step.fit is not None:
        start, slope = step.fit
        traces.append(curve(steps, [10 ** (start + slope * at) for at in steps], "exponential", "level", dash=True))
        middle = round(sum(FIT) / 2 * (len(steps) - 1))
        times = 10 ** (10 * slope)
        traces.append(words(middle, 10 ** (start + slope * middle) / 30, f"x {times:.2f} in 10 steps", "bottom right"))
    traces.append(words(0, ZERO, " the same again: all bits equal", "top right"))
    sketch.show("apart", traces)


def draw_sums(step: ChaosStep, sketch: Sketch) -> None:
    traces = []
    lowest = min(min(walk.errors) for _, walk in step.walks)
    highest = max(max(walk.errors) for _, walk in step.walks)
    for place, (order, walk) in enumerate(step.walks):
        traces.append(curve(walk.places, walk.errors, ORDERS[order], COLOURS[order]))
        height = highest + (highest - lowest) * (0.28 - 0.1 * place)
        traces.append(words(0, height, f" {ORDERS[order]}", "middle right", COLOURS[order]))
    sketch.show("walk", traces)
    rows = [f"{ORDERS[order]:<16}{digits(total)}" for order, total in step.sums]
    rows += [
        f"{'without rounding':<16}{digits(step.exact)}",
        "",
        "The same numbers in float32, added one by one: only the order differs.",
    ]
    rows += ["", "Where sizes are far apart, a small number gets lost in a large one. Try: 0.1 0.2 0.3 1e8 -1e8"]
    sketch.text("sums", "\n".join(rows))


def digits(number: float) -> str:
    return f"{number:>17.5f}" if abs(number) < 1e9 else f"{number:>17.9g}"


def draw_trials(step: ChaosStep, sketch: Sketch) -> None:
    """One place of the sums by index in every repetition, and the table of all operations."""
    plain = MICRO * (step.plain_sample - step.exact_sample)
    traces = [
        curve([0, 1000], [plain, plain], "one by one", "level", dash=True),
        words(0.1, plain, "one by one", "top right"),
    ]
    for trial in step.trials:
        if trial.operation == "index" and trial.where == "2 threads":
            there = [MICRO * (value - step.exact_sample) for value in trial.sample]
            traces.append(
                dots(
                    list(range(1, len(there) + 1)),
                    there,
                    "deterministic" if trial.fixed else "free",
                    "c" if trial.fixed else "b",
                )
            )
    sketch.show("same", traces)
    found = {(trial.operation, trial.where, trial.fixed): trial for trial in step.trials}
    lines = [f"{'':<11}{'free':>4}{'ms':>7}{'fixed':>6}{'ms':>6}"]
    for operation, name in OPERATIONS.items():
        lines.append(name)
        for where in dict.fromkeys(["1 thread", "2 threads", *(trial.where for trial in step.trials)]):
            pair = [found.get((operation, where, fixed)) for fixed in (False, True)]
            told = [f"{one.different:>4}{one.milliseconds:>7.2f}" if one else f"{'?':>4}{'?':>7}" for one in pair]
            same = (
                pair[1] is not None
                and found.get((operation, "1 thread", True), pair[1]).first_hash == pair[1].first_hash
            )
            lines.append(f"  {where:<9}{told[0]}{told[1]}" + ("" if same or pair[1] is None else " *"))
    sketch.text(
        "trials",
        "\n".join(
            [*lines, "", "fixed: deterministic algorithms on", "* always the same bits, though not those of 1 thread"]
        ),
    )
