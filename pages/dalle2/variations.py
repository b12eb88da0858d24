"""The picture of `variations`: the picture and its decodings, then the same with fewer components."""

from core.dalle2.variations import EACH, KEEPS, PAPER, VariationsConfig, VariationsStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, heat, picture
from pages._kit.player import SIGNS, view

REACH = 0.3


def variations_panels(config: VariationsConfig) -> list[Panel]:
    shares = chart(axis("components kept", "of 64"), axis("share", "%", 105))
    shares["xaxis"] |= {"range": [0, 65]}
    words = "{name}: number {row}, {column} is {value}"
    return [
        view("first", "pictures", "The picture", span=3, most=190, least=110),
        view("vector", "matrix", "Its embedding", span=4, square=True, signed=True, words=words, legend=SIGNS),
        {"id": "counted", "type": "text", "title": "How many components", "span": 5, "height": 270},
        view(
            "variations",
            "pictures",
            "Decoded from other noise each; below: what the judge sees, and the cosine with z when encoded again",
            most=150,
            least=76,
        ),
        view(
            "fewer",
            "pictures",
            f"Only the first k components, {EACH} times",
            legend=[("c", "the judge sees what it saw in the picture", "frame")],
            span=7,
            most=92,
            least=32,
        ),
        view(
            "shares",
            "plot",
            "What the first components keep",
            legend=[("level", "variance"), ("b", "CLIP tells the color"), ("a", "the shape"), ("c", "decoded right")],
            span=5,
            layout=shares,
            height=340,
        ),
    ]


def draw_variations(step: VariationsStep, sketch: Sketch) -> None:
    if step.picture is None or step.pixels is None:
        return
    if not step.sweep:
        sketch.show(
            "first", {"columns": 1, "pictures": [picture(step.picture, "", under=" ".join(step.sees), mark="a")]}
        )
        sketch.show("vector", heat(step.vector.reshape(1, 1, 8, 8), ["64 numbers"], low=-REACH, high=REACH))
        sketch.show(
            "variations",
            {
                "columns": min(6, len(step.pixels)),
                "pictures": [variation(step, number) for number in range(len(step.pixels))],
            },
        )
    sketch.show("fewer", {"columns": len(KEEPS), "pictures": fewer(step)})
    sketch.show("shares", shares(step))
    sketch.text("counted", counted(step))


def variation(step: VariationsStep, number: int) -> dict[str, object]:
    if not step.seen:
        return picture(step.pixels[number], under=" ")
    under = f"{' '.join(step.seen[number])} {step.cosines[number]:.2f}"
    return picture(step.pixels[number], under=under, mark="c" if step.seen[number] == step.sees else "b")


def fewer(step: VariationsStep) -> list[dict[str, object]]:
    """A column for each k; columns that are not decoded yet are blank."""
    told = []
    for row in range(EACH):
        for column, k in enumerate(KEEPS):
            name = f"k = {k}" if row == 0 else ""
            if column < len(step.sweep):
                right = step.sweep_seen[column][row] == step.sees
                told.append(picture(step.sweep_pixels[column][row], name, mark="c" if right else "b"))
            else:
                told.append(picture(0 * step.picture + 0.5, name))
    return told


def shares(step: VariationsStep) -> list[dict[str, object]]:
    """Curves over k; before they are measured, the straight line of numbers that all matter as much."""
    every = list(range(1, 65))
    if step.variance is None or step.named is None:
        return [curve([0, 64], [0, 100], "if all mattered as much", "level", dash=True)]
    traces = [
        curve(every, [float(value) for value in step.variance], "variance", "level"),
        curve(every, [float(value) for value in step.named[1]], "colour", "b"),
        curve(every, [float(value) for value in step.named[2]], "shape", "a"),
    ]
    if step.sweep:
        traces.append(dots([k for k, *_ in step.sweep], [same for *_, same in step.sweep], "decodings right", "c"))
    return traces


def counted(step: VariationsStep) -> str:
    lines = [f"paper: nearly all  {PAPER[0]:>4} of {PAPER[1]}  {PAPER[0] / PAPER[1]:>4.0%}"]
    if step.variance is not None:
        for share in (90, 99):
            needed = 1 + sum(float(value) < share for value in step.variance)
            lines.append(f"variance: {share} %    {needed:>4} of   64  {needed / 64:>4.0%}")
    if step.sweep:
        lines += ["", "  k  cosine with z   right"]
        lines += [f"{k:>3}  {cosine:>13.2f}  {same:>4.0f} %" for k, cosine, same in step.sweep]
    return "\n".join([*lines, step.note])
