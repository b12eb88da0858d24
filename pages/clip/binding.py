"""The picture of `binding`: shares of right captions beside chance, and examples of each kind."""

from core.clip.binding import EXAMPLES, KINDS, BindingConfig, BindingStep
from pages._kit.charts import Panel, Sketch, axis, bars, picture, ranking
from pages._kit.player import player, view


def binding_panels(config: BindingConfig) -> list[Panel]:
    layout = ranking(axis("right caption wins", "% of the scenes", 103), axis("", ""), left=126, legend=True)
    layout["yaxis"] |= {"title": None}
    layout["shapes"] = [
        {"type": "line", "x0": 50, "x1": 50, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dash", "width": 1.5}}
    ]
    title = "How often the right caption beats the wrong one"
    guessing = [("text", "guessing", "dashed")]
    return [
        view("shares", "plot", title, span=12, layout=layout, height=60 + 48 * len(KINDS), legend=guessing),
        player(
            "film",
            "Right caption above, wrong one below, with their cosines",
            [view("examples", "pictures", "", most=330, least=260, legend=[("c", "the right one wins", "frame")])],
            scrub="kind",
            rate=0.5,
            bar_before=0,
        ),
    ]


def draw_binding(step: BindingStep, sketch: Sketch) -> None:
    if step.rows:
        names = [name for name, *_ in step.rows] + [kind.name for kind in KINDS[len(step.rows) :]]
        rest = [0.0] * (len(names) - len(step.rows))
        traces = []
        for label, colour, at in (("whole picture tower", "a", 1), ("its maximum only", "level", 3)):
            one = bars(names, [*[float(row[at]) for row in step.rows], *rest], label=label, colour=colour)[0]
            one |= {"error_x": {"type": "data", "array": [*(row[at + 1] for row in step.rows), *rest], "visible": True}}
            traces.append(one)
        sketch.show("shares", traces)
    if step.pixels is not None:
        told = [example(step, number) for number in range(min(EXAMPLES, len(step.pixels)))]
        sketch.frame("film", step.kind, examples={"columns": 3, "pictures": told})


def example(step: BindingStep, number: int) -> dict[str, object]:
    right, wrong = (float(cosine) for cosine in step.cosines[number])
    return picture(
        step.pixels[number],
        f"{right:.2f} {step.right[number]}",
        under=f"{wrong:.2f} {step.wrong[number]}",
        mark="c" if right > wrong else "b",
    )
