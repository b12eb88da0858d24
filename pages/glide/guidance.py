"""The picture of `guidance`: three ways from one noise, and what the judge and CLIP say as the scale grows."""

from core.glide.guidance import SHOWN, WAYS, GuidanceConfig, GuidanceStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture
from pages._kit.player import player, view

PANELS = {"classifier-free": "free", "CLIP": "clip"}


JUDGES = [("a", "the judge agrees"), ("b", "CLIP agrees"), ("c", "CLIP's cosine"), ("level", "diversity", "dashed")]


def guidance_panels(config: GuidanceConfig) -> list[Panel]:
    panels = []
    for way, chosen in (("classifier-free", config.scale), ("CLIP", config.clip_scale)):
        layout = chart(axis(f"{way} scale", "factor; 0 is unguided"), axis("share", "%", 105))
        layout["xaxis"] |= {"range": [-0.15 * max(chosen, 0.1), 4.3 * max(chosen, 0.1)]}
        title = f"{way} guidance, over its scale"
        panels.append(view(PANELS[way], "plot", title, span=6, layout=layout, height=240, legend=JUDGES))
    price = chart(axis("diversity", "% of that of unguided pictures"), axis("judge agrees", "%", 118))
    price["xaxis"] |= {"range": [0, 115]}
    pull = chart(axis("picture in x", "% of its variance", 100), axis("strength of guidance", "rms"))
    pull["yaxis"] |= {"rangemode": "tozero"}
    film = [view("ways", "pictures", "The same noise: unguided, classifier-free, CLIP", most=112, least=60)]
    return [
        player("film", "", film, scrub="step", rate=3, bar_before=None),
        view(
            "firsts",
            "pictures",
            "One noise at every scale: classifier-free above, CLIP below",
            span=12,
            most=112,
            least=52,
        ),
        *panels,
        view("price", "plot", "Fidelity against diversity, scales beside the points", span=7, layout=price, height=265),
        view("pull", "plot", "How strongly each kind of guidance acts at each step", span=5, layout=pull, height=265),
    ]


def draw_guidance(step: GuidanceStep, sketch: Sketch) -> None:
    if step.pixels is not None:
        draw_ways(step, sketch)
    if step.pull:
        share, free, clip = ([100 * told[0] if not place else told[place] for told in step.pull] for place in range(3))
        sketch.show(
            "pull", [dots(share, free, "classifier-free", "a", line=True), dots(share, clip, "CLIP", "b", line=True)]
        )
    if step.told:
        draw_grades(step, sketch)
    elif step.pixels is not None and not step.number:
        for panel in PANELS.values():
            sketch.show(panel, [dots([0.0], [100.0], "diversity", "level")])
        sketch.show("price", [curve([100.0, 100.0], [0.0, 100.0], "unguided", "level", dash=True)])
        sketch.show("pull", [dots([100.0], [0.0], "no noise, no push", "level")])
        sketch.show("firsts", {"columns": 5, "pictures": [picture(step.pixels[0][0], "the noise")]})


def draw_ways(step: GuidanceStep, sketch: Sketch) -> None:
    """A frame: four pictures of each way, a row per way."""
    shown = []
    for row, way in enumerate(WAYS):
        for column in range(len(step.pixels[row])):
            under = f"{step.liked[row][column]:.2f} {step.verdicts[row][column]}" if step.liked else ""
            shown.append(
                picture(
                    step.pixels[row][column], way if column == 0 else "", under=under, mark=("level", "a", "b")[row]
                )
            )
    label = "the end" if step.liked else f"step {step.number}" if step.number else "the noise"
    sketch.frame("film", label, ways={"columns": min(SHOWN, len(step.pixels[0])), "pictures": shown})


def draw_grades(step: GuidanceStep, sketch: Sketch) -> None:
    draw_firsts(step, sketch)
    free = next(one for one in step.told if one[0] == WAYS[0])
    price = []
    for way, panel in PANELS.items():
        told = [free, *(one for one in step.told if one[0] == way and one[1] > 0)]
        scales, judge, guide, score, apart = ([float(one[place]) for one in told] for place in range(1, 6))
        diversity = [100 * one / max(apart[0], 1e-9) for one in apart]
        sketch.show(panel, [
            curve(scales, diversity, "diversity", "level", dash=True),
            dots(scales, [100 * one for one in score], "cosine", "c", line=True),
            dots(scales, guide, "CLIP", "b", line=True),
            dots(scales, judge, "judge", "a", line=True),
        ])  # fmt: skip
        price.append(
            dots(
                diversity,
                judge,
                way,
                "a" if way == WAYS[1] else "b",
                line=True,
                names=[f"{scale:g}" for scale in scales],
            )
        )
    sketch.show("price", price)


def draw_firsts(step: GuidanceStep, sketch: Sketch) -> None:
    """A row per way, a column per scale known of both."""
    found = {
        way: [(one[1], values) for one, values in zip(step.told, step.firsts, strict=True) if one[0] in (WAYS[0], way)]
        for way in WAYS[1:]
    }
    columns = min(len(row) for row in found.values())
    shown = [
        picture(values, f"{scale:g}", mark=mark)
        for mark, row in zip("ab", found.values(), strict=True)
        for scale, values in row[:columns]
    ]
    sketch.show("firsts", {"columns": columns, "pictures": shown})
