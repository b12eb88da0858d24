"""The picture of `denoise`: predicted pictures, latents and noises, and one number through the formulas, played step by
step.
"""

from core.stable_diffusion.denoise import DenoiseConfig, DenoiseStep
from pages._kit.charts import Panel, Sketch, axis, heat, lines, picture, series
from pages._kit.player import player, view

LOUD = 4  # the difference is brightened by this
NAMES = (("latent", "z_t"), ("noise", "without words"), ("noise", "with words"), ("difference", f"x {LOUD}"))


def denoise_panels(config: DenoiseConfig) -> list[Panel]:
    hint = "Rows: latent, noise without words, noise with words, their difference. Columns: the 4 channels."
    hint += "" if config.model == "shipped" else " Every fourth row and column of the grid."
    kinds = [series("noise", "noise", "b"), series("sure", "judge", "c", dots=True)]
    seen = lines(
        "course",
        "Noise left, and what the judge sees in the prediction" if config.model == "shipped" else "Noise left",
        axis("step", "count", config.steps),
        axis("share", "%", 101),
        kinds,
        span=5,
        height=190,
    )
    words = "{name}: row {row}, column {column}: {value}"
    return [
        player(
            "film",
            "",
            [
                view(
                    "pictures",
                    "pictures",
                    f"Decoded: '{config.prompt[:40]}', guidance {config.scale:g}",
                    span=12,
                    most=160,
                    least=96,
                ),
                view("maps", "matrix", "In latent space", span=4, square=True, signed=True, words=words, hint=hint),
                view("sums", "text", "The scheduler's arithmetic, for one number of the latents", span=8, height=330),
                seen,
                view("pull", "text", "What the words ask for", span=7, height=190),
            ],
            scrub="step",
            rate=3,
            bar_before=1,
        )
    ]


def draw_denoise(step: DenoiseStep, sketch: Sketch) -> None:
    if step.latent is None or step.pictures is None or step.figures:
        return
    shown = {"pictures": pictures(step), "maps": maps(step), "sums": sums(step), "pull": pull(step)}
    sketch.point("course", "noise", step.number, 100 * step.roots[1])
    if step.sure is not None:
        sketch.point("course", "sure", step.number, 100 * step.sure)
    sketch.frame("film", f"step {step.number} of {step.of}, t = {step.t}", at=step.number, **shown)


def pictures(step: DenoiseStep) -> dict[str, object]:
    names = (
        ("the latent now", "z_t"),
        ("predicted, no words", "of z_0"),
        ("predicted, with words", "of z_0"),
        ("predicted, guided", "of z_0"),
        ("next latent", "z_s"),
    )
    seen = "" if step.sure is None else f"judge: {step.sure:.0%}"
    told = [picture(one, name, under=under) for one, (name, under) in zip(step.pictures, names, strict=True)]
    told[3] = picture(step.pictures[3], names[3][0], under=seen, mark="a")
    return {"columns": 5, "pictures": told}


def maps(step: DenoiseStep) -> dict[str, object]:
    """Four rows of four: latent, both noises, their difference brightened."""
    rows = heat_rows(step)
    names = [f"{what} {number}" for what, _ in NAMES[:1] for number in range(4)]
    names += (
        [f"no words {number}" for number in range(4)]
        + [f"words {number}" for number in range(4)]
        + [f"diff. x {LOUD}, {number}" for number in range(4)]
    )
    return heat(rows, names, low=-3.0, high=3.0)


def heat_rows(step: DenoiseStep) -> object:
    """(4, 4, 8, 8): a row of channels for each of the four."""
    high, wide = step.latent.shape[1:]
    rows = step.latent.reshape(1, 4, high, wide).repeat(4, axis=0)
    rows[1], rows[2], rows[3] = step.free, step.told, LOUD * (step.told - step.free)
    return rows


def sums(step: DenoiseStep) -> str:
    """One number through the formulas, line by line, short enough for a phone."""
    of = dict(step.sums)
    a, b, c, d = step.roots
    change = of["told"] - of["free"]
    scale = (of["guided"] - of["free"]) / change if change else 1.0
    return "\n".join(
        [
            f"t = {step.t} -> {step.next_t if step.next_t >= 0 else 'the end'}",
            f"alpha-bar  {step.kept:.4f} -> {step.earlier:.4f}",
            f"a = sqrt(alpha-bar)     {a:.4f}",
            f"b = sqrt(1 - alpha-bar) {b:.4f}",
            f"sigma = b / a          {b / a:7.4f}",
            f"a', b' at the next t    {c:.4f}",
            f"                        {d:.4f}",
            f"z                      {of['x']:+.4f}",
            *(answers(of) if step.predicts == "v_prediction" else ()),
            "noise = a v + b z" if step.predicts == "v_prediction" else "noise, the U-Net's answer",
            f"  no words             {of['free']:+.4f}",
            f"  with words           {of['told']:+.4f}",
            "guided e = no + w (with - no)",
            f"  {of['free']:+.4f} {scale:+.3g}·{change:+.4f}",
            f"                     = {of['guided']:+.4f}",
            "predicted z_0 = (z - b e) / a",
            f"  ({of['x']:+.4f}-{b:.4f}·{of['guided']:+.4f})/{a:.4f}",
            f"                     = {of['x0']:+.4f}",
            "next z = a' z_0 + b' e",
            f"  {c:.4f}·{of['x0']:+.4f}+{d:.4f}·{of['guided']:+.4f}",
            f"                     = {of['after']:+.4f}",
            f"diffusers' scheduler = {of['theirs']:+.4f}"
            + ("" if abs(of["theirs"] - of["after"]) < 1e-3 else "\n  (with fresh noise, eta > 0)"),
        ]
    )


def answers(of: dict[str, float]) -> tuple[str, str]:
    return f"v, no words            {of['said free']:+.4f}", f"v, with words          {of['said told']:+.4f}"


def pull(step: DenoiseStep) -> str:
    high, low = float(abs(step.told - step.free).max()), float(abs(step.free).max())
    return "\n".join([
        "noise(z, words) - noise(z)",
        *(("= sqrt(alpha-bar)", "  · (v(z, words) - v(z))") if step.predicts == "v_prediction" else ()),
        "",
        f"length, of the noise's {100 * step.pull:5.2f} %",
        f"change of predicted z_0 {100 * step.change:5.1f} %",
        f"largest number          {high:.3f}",
        f"largest of the noise    {low:.3f}",
        "",
        "from diffusers' scheduler,",
        f"all {step.numbers:,} numbers: {step.off:.1e}",
    ])  # fmt: skip
