"""The picture of `terminal_snr`: backgrounds that follow a trace in the noise, the curve they should follow, and both
schedules.
"""

from core.stable_diffusion.terminal_snr import CURVE, LEVELS, TerminalSnrConfig, TerminalSnrStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture, text
from pages._kit.player import view

SHOWN = 4  # rows of pictures


def terminal_snr_panels(config: TerminalSnrConfig) -> list[Panel]:
    real = config.model != "shipped"
    share = chart(
        axis("trace of black (-) or white (+)", "x 0.0683"),
        axis("brightness of the background" if real else "white backgrounds", "%", 104),
    )
    share["xaxis"] |= {"range": [LEVELS[0] - 0.4, LEVELS[-1] + 0.4], "tickvals": list(LEVELS)}
    share["yaxis"] |= {"range": [-4, 104]}
    left = chart(axis("t", "step of the schedule"), axis("picture left", "root of alpha-bar", 0.4))
    left["xaxis"] |= {"range": [600, 1015]}
    left["yaxis"] |= {"range": [-0.01, 0.36]}
    title = (
        f"'{config.prompt[:40]}' from {SHOWN} noises; above: how much of a black (-) or white (+) picture is in the"
        " noise"
    )
    return [
        view("rows", "pictures", title, span=12, most=104, least=28),
        view(
            "share",
            "plot",
            "Does the background follow?",
            legend=[] if real else [("a", "drawn", "dot"), ("level", "ideal network", "dashed")],
            span=6,
            layout=share,
            height=250,
        ),
        view(
            "left",
            "plot",
            "The end of the schedule",
            legend=[("a", "as it is"), ("b", "rescaled")],
            span=6,
            layout=left,
            height=250,
        ),
        text("numbers", "Counted", span=12, height=215),
    ]


def draw_terminal_snr(step: TerminalSnrStep, sketch: Sketch) -> None:
    if not step.fresh:
        return
    if step.fresh == "all":
        sketch.show("rows", rows(step))
    levels = [level for level, *_ in step.levels]
    sketch.show("share", ideal(step) + ([dots(levels, drawn(step), "drawn", "a", line=True)] if levels else []))
    sketch.show(
        "left",
        [
            curve(step.times, step.roots, "as it is", "a"),
            curve(step.times, step.rescaled, "rescaled", "b"),
            dots([step.times[-1]], [step.left], "the last step", "a", names=[f"{step.left:.4f}"])
            | {"textposition": "bottom left"},
            dots([step.leading_t], [step.leading_left], "leading", "d", names=["leading"])
            | {"textposition": "top right", "cliponaxis": False},
        ],
    )
    sketch.text("numbers", numbers(step))


def ideal(step: TerminalSnrStep) -> list[dict[str, object]]:
    """The curve of an ideal network at the levels, and how well it could read the background at 1."""
    return [curve(CURVE if step.ideal else (), [100 * share for share in step.ideal], "ideal", "level", dash=True)]


def drawn(step: TerminalSnrStep) -> list[float]:
    """% of white backgrounds; where any background may come, their brightness."""
    return [white if step.ideal else 100 * lit for _, _, white, lit in step.levels]


def rows(step: TerminalSnrStep) -> dict[str, object]:
    """A column for each level, and one for the rescaled schedule; the noise itself where nothing has been drawn yet."""
    columns = [*step.rows, *[step.start] * (len(LEVELS) - len(step.rows))]
    names = [f"{level:+g}" if level else "0" for level in LEVELS]
    if step.rescales:
        columns.append(step.start if step.rescaled_row is None else step.rescaled_row)
        names.append("rescaled")
    shown = [
        picture(some[number], "" if number else name)
        for number in range(SHOWN)
        for name, some in zip(names, columns, strict=True)
    ]
    return {"columns": len(names), "pictures": shown}


def numbers(step: TerminalSnrStep) -> str:
    """The schedule's numbers, computed and measured."""
    return "\n".join([
        f"left at t = 999        {step.left:.4f}",
        f"  in {step.scenes:>4} latents      {step.measured:.4f}" if step.scenes else "  (measured next)",
        f"SNR there            {step.snr:.6f}",
        f"left at leading's {step.leading_t:<3}  {step.leading_left:.4f}",
        f"d                       {step.d:.3f}",
        f"background read, Phi(d)    {step.expected:4.1f} %",
        f"  measured             {step.told_apart:4.1f} %" if step.scenes else "  (measured next)",
        *([f"  with 64 x 64 latents {step.expected_real:4.1f} %"] if step.places < 64 else []),
    ])  # fmt: skip
