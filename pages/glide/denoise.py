"""The picture of `denoise`: every step of two samplers side by side, sizes on the way, and more and more steps."""

from core.glide.denoise import COUNTS, DenoiseConfig, DenoiseStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture
from pages._kit.player import player, view

VIEWS = ("noisy picture", "predicted noise", "predicted picture", "effect of the prompt")
ROWS = ("DDIM", "eta")


SAMPLERS = [("a", "DDIM"), ("b", "DDPM")]


def denoise_panels(config: DenoiseConfig) -> list[Panel]:
    sizes = chart(axis("picture in x", "% of its variance", 100), axis("size", "rms"))
    sizes["xaxis"] |= {"range": [-2, 102]}
    apart = chart(axis("steps", "count"), axis("distance", "rms of pixels"), log_x=True, log_y=True)
    apart["xaxis"] |= {
        "dtick": None,
        "tickvals": list(COUNTS),
        "ticktext": [str(count) for count in COUNTS],
        "range": [0.5, 1.6],
    }
    apart["yaxis"] |= {"range": [-2.6, 0.1]}
    title = (
        "Noisy picture, predicted noise, predicted picture, effect of the prompt. Above: DDIM; below: eta"
        f" {config.eta:g}, from the same noise"
    )
    film = [view("steps", "pictures", title, most=160, least=52)]
    return [
        player("film", "", film, scrub="step", rate=4, bar_before=None),
        view(
            "finals",
            "pictures",
            "The same noise with 2 to 32 steps: DDIM above, DDPM below",
            span=12,
            most=150,
            least=52,
        ),
        view("apart", "plot", "Change as the steps double", span=6, layout=apart, height=290, legend=SAMPLERS),
        view(
            "sizes",
            "plot",
            "How large x is",
            legend=[("a", "x"), ("level", "by the formula", "dashed"), ("b", "the direction")],
            span=6,
            layout=sizes,
            height=290,
        ),
    ]


def draw_denoise(step: DenoiseStep, sketch: Sketch) -> None:
    if step.views is not None:
        draw_views(step, sketch)
        share, size, told, direction = ([values[place] for values in step.path] for place in range(4))
        share = [100 * part for part in share]
        sketch.show(
            "sizes",
            [
                curve(share, told, "formula", "level", dash=True),
                dots(share, size, "x", "a"),
                dots(share, direction, "direction", "b"),
            ],
        )
        if step.number == 0:
            sketch.show("apart", [halving(0.3, 4)])
            noise = [picture(step.views[row][0], ROWS[row] if row == 0 else "DDPM") for row in range(2)]
            sketch.show("finals", {"columns": 5, "pictures": noise})
    if step.finals is not None and step.counts:
        draw_finals(step, sketch)


def draw_views(step: DenoiseStep, sketch: Sketch) -> None:
    """A frame: what both samplers have and expect."""
    shown = []
    for row in range(2):
        for column, name in enumerate(VIEWS):
            under = ""
            if step.sizes:
                under = {0: f"{100 * step.sizes[row][2]:.0f} % picture", 3: f"rms {step.sizes[row][1]:.2f}"}.get(
                    column, ""
                )
            shown.append(picture(step.views[row][column], name if row == 0 else "", under=under))
        shown.append(picture(step.whole[row], "enlarged" if row == 0 else ""))
    label = f"step {step.number + 1}, t = {step.t}" if step.t is not None else "the end"
    sketch.frame("film", label, steps={"columns": 5, "pictures": shown})


def draw_finals(step: DenoiseStep, sketch: Sketch) -> None:
    shown = []
    for row in range(2):
        for column, count in enumerate(step.counts):
            shown.append(
                picture(
                    step.finals[row][column],
                    f"{count} steps" if row == 0 else "",
                    under=step.verdicts[column][row],
                    mark="ab"[row],
                )
            )
    sketch.show("finals", {"columns": len(step.counts), "pictures": shown})
    counts = [count for count, two in zip(step.counts, step.apart, strict=True) if two[0] == two[0]]
    if counts:
        ddim, ddpm = ([two[place] for two in step.apart if two[0] == two[0]] for place in range(2))
        sketch.show(
            "apart",
            [
                halving(ddim[0], counts[0]),
                dots(counts, ddim, "DDIM", "a", line=True),
                dots(counts, ddpm, "DDPM", "b", line=True),
            ],
        )


def halving(first: float, count: int) -> dict[str, object]:
    """What an error of 1 / steps would do from there."""
    counts = [one for one in COUNTS if one >= count]
    return curve(counts, [first * count / one for one in counts], "halving", "level", dash=True)
