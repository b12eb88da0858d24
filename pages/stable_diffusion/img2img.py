"""The picture of `img2img`: the given picture and what becomes of it, where on the schedule it begins, and every
strength.
"""

from core.stable_diffusion.img2img import Img2imgConfig, Img2imgStep, words_of
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture
from pages._kit.player import player, view

EVERY = 20  # steps between two numbers of `kept`


def img2img_panels(config: Img2imgConfig) -> list[Panel]:
    schedule = chart(axis("t", "step of 1000"), axis("picture left", "share", 1.03))
    schedule["xaxis"] |= {"range": [1000, 0]}
    stays, seen = (
        chart(axis("strength", "fraction of the schedule"), axis(what, unit))
        for what, unit in (("PSNR to the original", "dB"), ("judge sees", "%"))
    )
    for one in (stays, seen):
        one["xaxis"] |= {"range": [0, 1.04]}
        one["yaxis"] |= {"rangemode": "tozero"}
    seen["yaxis"] |= {"range": [0, 104]}
    film = [
        view(
            "pictures",
            "pictures",
            f"'{config.prompt[:50]}' from {words_of(config)}, strength {config.strength:g}",
            span=8,
            most=150,
            least=120,
        ),
        view("schedule", "plot", "Where it begins, and where it is", span=4, layout=schedule, height=250),
    ]
    return [
        player("film", "", film, scrub="step", rate=4, bar_before=None),
        view("row", "pictures", "The same noise at every strength", most=170, least=92),
        view(
            "stays",
            "plot",
            "What stays",
            span=6,
            layout=stays,
            height=235,
            legend=[("level", "the autoencoder's copy", "dashed")],
        ),
        view(
            "seen",
            "plot",
            "What the judge sees",
            span=6,
            layout=seen,
            height=235,
            legend=[("a", "the original"), ("b", "the prompt")],
        ),
        {"id": "note", "type": "text", "title": "", "span": 12, "height": 40},
    ]


def draw_img2img(step: Img2imgStep, sketch: Sketch) -> None:
    if step.given is None or step.now is None:
        return
    if step.row is None:
        names = ("given", "autoencoder's copy", "noisy latents, decoded", "predicted")
        told = [
            picture(one, name, mark=mark)
            for one, name, mark in zip((*step.given, *step.now), names, ("level", "level", "a", "b"), strict=True)
        ]
        sketch.frame(
            "film",
            f"step {step.step}, t = {step.t}",
            pictures={"columns": 4, "pictures": told},
            schedule=schedule(step),
        )
    if not step.fresh:
        return
    row = step.given[1:] if step.row is None else step.row
    names_below = [
        ("strength 0", f"{step.ceiling:.1f} dB"),
        *((f"{strength:g}", f"{stays:.1f} dB") for strength, stays, *_ in step.sweep),
    ]
    shown = [picture(one, name, under=under) for one, (name, under) in zip(row, names_below, strict=True)]
    sketch.show("row", {"columns": 6, "pictures": shown})
    xs = [0.0, *(strength for strength, *_ in step.sweep)]
    ceiling = curve([0.0, 1.04], [step.ceiling, step.ceiling], "the copy", "level", dash=True)
    sketch.show("stays", [ceiling, dots(xs, [step.ceiling, *(row[1] for row in step.sweep)], "PSNR", "a", line=True)])
    strengths = xs[1:]
    sketch.show("seen", [
        dots(strengths, [row[2] for row in step.sweep], "the original", "a", line=True),
        dots(strengths, [row[3] for row in step.sweep], "the prompt", "b", line=True),
    ])  # fmt: skip
    sketch.text("note", step.note or "PSNR: mean over all noises. Pictures: the first noise.")


def schedule(step: Img2imgStep) -> list[dict[str, object]]:
    """sqrt(alpha-bar) over t, the part that is done in color."""
    ts = [float(EVERY * number) for number in range(len(step.kept))]
    own = [(t, kept) for t, kept in zip(ts, step.kept, strict=True) if t <= step.start]
    at = min(len(step.kept) - 1, round(step.t / EVERY))
    return [
        curve(ts, list(step.kept), "left out", "level"),
        curve([t for t, _ in own], [kept for _, kept in own], "done", "a"),
        dots([float(step.t)], [step.kept[at]], "now", "b"),
    ]
