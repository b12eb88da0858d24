"""The picture of `latents`: there and back, the four channels, what each holds, and what does not survive."""

from core.stable_diffusion.latents import LatentsConfig, LatentsStep, compression
from pages._kit.charts import Panel, Sketch, axis, bars, heat, picture, ranking, text
from pages._kit.player import SIGNS, view

LOUD = 4  # the error map is brightened by this


def latents_panels(config: LatentsConfig) -> list[Panel]:
    kinds = ranking(axis("PSNR, higher is better", "dB"), axis("", ""), left=104, legend=True)
    kinds["yaxis"] |= {"title": None}
    between = (
        "In between: 4 channels of 8 x 8" if config.model == "shipped" else "In between: 4 channels, every fourth place"
    )
    words = "channel {name}, row {row}, column {column}: {value}"
    return [
        view("trip", "pictures", "There and back", span=12, most=180, least=96),
        view("latents", "matrix", between, span=5, square=True, signed=True, words=words, legend=SIGNS),
        view(
            "without",
            "pictures",
            "Decoded with one channel set to 0: what is missing is what it held",
            span=7,
            most=190,
            least=110,
        ),
        text("counted", "Counted", span=5, height=330),
        view(
            "kinds",
            "plot",
            "What survives",
            legend=[("a", "the round trip"), ("level", "shrunk to as few numbers")],
            span=7,
            layout=kinds,
            height=330,
        ),
    ]


def draw_latents(step: LatentsStep, sketch: Sketch) -> None:
    if step.pixels is None or step.latents is None:
        return
    trip = [
        picture(step.pixels, "the picture"),
        picture(step.preview, "latents as colors"),
        picture(step.again, "after the round trip", under=f"{step.psnr:.1f} dB", mark="a"),
        picture(LOUD * step.error, f"error, x {LOUD}"),
        picture(step.shrunk, "shrunk instead", under=f"{step.shrunk_psnr:.1f} dB"),
    ]
    sketch.show("trip", {"columns": 5, "pictures": trip})
    reach = max(2.0, float(abs(step.latents).max()))
    maps = step.latents.reshape(2, 2, *step.latents.shape[1:])
    sketch.show("latents", heat(maps, [str(number) for number in range(4)], low=-reach, high=reach))
    missing = zip(step.without, step.without_psnr, strict=True)
    shown = [picture(one, f"without {number}", under=f"{heard:.1f} dB") for number, (one, heard) in enumerate(missing)]
    sketch.show("without", {"columns": 2, "pictures": shown})
    sketch.text("counted", counted(step))
    known = step.kinds or (("this picture", step.psnr, step.shrunk_psnr),)
    names = [name for name, *_ in known]
    sketch.show(
        "kinds",
        bars(names, [plain for *_, plain in known], label="shrunk", colour="level")
        + bars(names, [trip for _, trip, _ in known], label="round trip", colour="a"),
    )


def counted(step: LatentsStep) -> str:
    """The numbers before and between, here and in the real one; the judge; the formula of the colors."""
    side, small = step.side, step.grid
    before, between = 3 * side**2, 4 * small**2
    lines = [
        f"here {side:>3} x {side:>3} x 3 = {before:>7,}",
        f"      {small:>2} x  {small:>2} x 4 = {between:>7,} 1/{before / between:.0f}",
        *(
            ("real 512 x 512 x 3 = 786,432", f"      64 x  64 x 4 =  16,384 1/{compression(512, 8, 4):.0f}")
            if side < 512
            else ()
        ),
        "",
        (
            f"judge: of {step.classified} unseen scenes"
            if step.classified
            else f"judge: {'not asked' if step.figures else 'no scene so far'}"
        ),
        f"{step.before:.0f} % right, then {step.after:.0f} %" if step.classified else "",
        "",
        f"color of {side // small} x {side // small} pixels =",
        "      red  green  blue",
    ]
    for name, weights in zip(("z0", "z1", "z2", "z3", "+"), step.formula.T, strict=True):
        lines.append(f"{name:<2} " + " ".join(f"{float(weight):+6.2f}" for weight in weights))
    return "\n".join([*lines, f"explains {step.explained:.0%} of the colors", step.note])
