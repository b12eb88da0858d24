"""The picture of `see`: with and without the sticker, maps for each caption, and the sticker that grows."""

from core.clip.see import RADII, SeeConfig, SeeStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, heat, picture, ranking
from pages._kit.player import view


def see_panels(config: SeeConfig) -> list[Panel]:
    shares = ranking(axis("probability", "%", 100), axis("", ""), left=130, legend=True)
    shares["yaxis"] |= {"title": None}
    grows = chart(axis("radius of the sticker", "pixels of 32"), axis("scenes", "%", 105))
    grows["xaxis"] |= {"range": [-0.1, RADII[-1] + 0.2]}
    words = "{name}: row {row}, column {column}: {value}"
    hint = "Above without the sticker, below with it." if config.sticker != "none" else ""
    sees = [("b", "covering it lowers the cosine: it was seen"), ("a", "covering it helps")]
    panels = [
        view(
            "pictures",
            "pictures",
            "As it is, and with the sticker" if config.sticker != "none" else "The picture",
            span=5,
            most=170,
            least=110,
        ),
        view("shares", "plot", "Which caption wins", span=7, layout=shares, height=240),
        view(
            "covered",
            "matrix",
            "Where it looks: the fall of the cosine when a window there is covered",
            square=True,
            signed=True,
            words=words,
            hint=hint,
            legend=sees,
        ),
    ]
    if config.model == "shipped":
        told = "The same cosine taken apart: the shares of all places and a constant add up to it, exactly."
        panels.append(
            view(
                "parts",
                "matrix",
                "Where its cosine comes from, without covering",
                square=True,
                signed=True,
                words=words,
                hint=told,
            )
        )
    if config.sticker != "none":
        panels.append(
            view(
                "grows",
                "plot",
                "The sticker grows: how scenes are named",
                legend=[
                    ("a", "right"),
                    ("b", "as the sticker"),
                    ("c", "as a mixture"),
                    ("level", "its part of the area", "dashed"),
                ],
                layout=grows,
                height=300,
            )
        )
    return panels


def draw_see(step: SeeStep, sketch: Sketch) -> None:
    if step.pixels is None or step.cosines is None:
        return
    stuck = float(abs(step.pixels[0] - step.pixels[1]).max()) > 0
    if not step.sweep:
        draw_pictures(step, sketch, 2 if stuck else 1)
    if stuck:
        draw_growth(step, sketch)


def draw_pictures(step: SeeStep, sketch: Sketch, count: int) -> None:
    """Pictures, probabilities and maps; one row of maps for each picture."""
    names = ("as it is", "with the sticker")
    best = [step.captions[row.argmax()] for row in step.cosines]
    told = [picture(step.pixels[which], names[which], under=best[which], mark="ab"[which]) for which in range(count)]
    sketch.show("pictures", {"columns": count, "pictures": told})
    traces = []
    for which in range(count):
        traces += bars(
            step.captions, [100 * float(share) for share in step.shares[which]], label=names[which], colour="ab"[which]
        )
    sketch.show("shares", traces)
    titles = [
        *(
            f"{caption} {cosine:.2f}"
            for caption, cosine in zip(step.captions * count, step.cosines[:count].ravel(), strict=True)
        )
    ]
    for panel, values in (("covered", step.covered), ("parts", step.parts)):
        if values is not None:
            known = values[:count].copy()
            known[known != known] = 0.0  # not measured yet
            reach = max(0.02, float(abs(known).max()))
            sketch.show(panel, heat(known, titles, low=-reach, high=reach))


def draw_growth(step: SeeStep, sketch: Sketch) -> None:
    """Measured shares over the radius; the gray line is the sticker's part of the colored area."""
    radii = [radius for radius, *_ in step.sweep] or [0.0]
    right, theirs, mixed, area = ([told[place] for told in step.sweep] for place in (1, 2, 3, 4))
    if not step.sweep:
        sketch.show("grows", [dots([0.0], [0.0], "", "b")])
        return
    n = max(1, step.scenes)
    errors = [
        [100 * (share / 100 * (1 - share / 100) / n) ** 0.5 for share in shares] for shares in (right, theirs, mixed)
    ]
    sketch.show("grows", [
        curve(radii, area, "its part of the area", "level", dash=True),
        dots(radii, right, "named right", "a", line=True, errors=errors[0]),
        dots(radii, mixed, "named as a mixture", "c", line=True, errors=errors[2]),
        dots(radii, theirs, "named as the sticker", "b", line=True, errors=errors[1]),
    ])  # fmt: skip
