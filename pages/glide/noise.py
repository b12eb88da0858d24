"""The picture of `noise`: one picture under three schedules, log-SNR over time, the judge, and the schedule that
learns.
"""

from typing import Any

from core.glide.noise import FRAMES, NoiseConfig, NoiseStep
from core.glide.schedule import LEVELS, NAMES, TIMES
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, picture, ranking
from pages._kit.player import player, view

COLOURS = ("a", "b", "c")  # of the three schedules
SPREADS = ("linear", "cosine", "learned", "least")


def noise_panels(config: NoiseConfig) -> list[Panel]:
    levels = chart(axis("time", "0 to 1"), axis("log-SNR", "nats"))
    levels["xaxis"] |= {"range": [0, 1]}
    levels["yaxis"] |= {"range": [-14, 13]}
    knows = chart(axis("time", "0 to 1"), axis("named right", "%", 105))
    knows["xaxis"] |= {"range": [0, 1]}
    errors = chart(axis("log-SNR", "nats"), axis("error of the noise", "squared"), log_y=True)
    errors["xaxis"] |= {"range": [LEVELS[0], LEVELS[-1]]}
    errors["yaxis"] |= {"range": [-4.7, 1.5]}
    spread = ranking(axis("spread of the loss estimate", "of its mean"), axis("", ""), left=78)
    spread["yaxis"] |= {"title": None}
    spread["xaxis"] |= {"rangemode": "tozero"}
    film = [
        view(
            "pictures",
            "pictures",
            "The same picture and noise at log-SNRs of three schedules, and what the judge sees",
            most=210,
            least=88,
        ),
        view(
            "levels",
            "plot",
            "log-SNR over time",
            legend=[("a", "linear"), ("b", "cosine"), ("c", "learned"), ("level", "least spread", "dashed")],
            span=7,
            layout=levels,
            height=300,
        ),
        view("knows", "plot", "How many pictures the judge still names", span=5, layout=knows, height=300),
    ]
    return [
        player("film", "", film, scrub="time", rate=5, bar_before=1),
        view(
            "errors",
            "plot",
            "The shipped denoiser's error",
            legend=[("level", "guessing zero", "dashed")],
            span=7,
            layout=errors,
            height=270,
        ),
        view("spread", "plot", "How noisy training is with each schedule", span=5, layout=spread, height=270),
        {"id": "note", "type": "text", "title": "", "span": 12, "height": 44},
    ]


def draw_noise(step: NoiseStep, sketch: Sketch) -> None:
    if step.curves is None:
        return
    if step.pixels is not None:
        sketch.film("film", [frame_of(step, number) for number in range(FRAMES)], opens=FRAMES // 4)
    known = [float(error) if error == error else None for error in step.errors]
    one = curve([LEVELS[0], LEVELS[-1]], [1.0, 1.0], "zero", "level", dash=True)
    sketch.show("errors", [one, dots(list(LEVELS), known, "measured", "a", line=True)])
    told = dict(step.spreads)
    sketch.show("spread", bars(SPREADS, [told.get(name, 0.0) for name in SPREADS], "learned"))
    sketch.text("note", told_by(step))


def told_by(step: NoiseStep) -> str:
    """What is known in words, one line."""
    parts = [step.note] if step.note else []
    if step.lost:
        parts.append(
            "Of 1,000 steps the judge still names half at "
            + ", ".join(f"{t:.0f} ({name})" for name, t in zip(NAMES, step.lost, strict=True))
            + "."
        )
    elif step.learning:
        at, spread, bits, _ = step.learning[-1]
        parts.append(f"After {at:.0f} steps of the schedule: spread {spread:.2f}, bound {bits:.2f} bits per number.")
    return (
        " ".join(parts)
        or "Run: the judge and the denoiser are asked at 25 levels of noise, then the green line is learned."
    )


def frame_of(step: NoiseStep, number: int) -> tuple[str, dict[str, Any]]:
    """One moment: three pictures, and where each schedule is."""
    time = number / (FRAMES - 1)
    at = round(time * (len(TIMES) - 1))
    shown = []
    for row, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        level = float(step.curves[row][at])
        shown.append(
            picture(step.pixels[number, row], f"{name}, {level:+.1f}", under=step.verdicts[number][row], mark=colour)
        )
    every = [float(time) for time in TIMES[::2]]
    lines, knows = list[dict[str, Any]](), list[dict[str, Any]]()
    if step.best is not None:
        lines.append(curve(every, [float(level) for level in step.best[::2]], "least", "level", dash=True))
    for row, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        levels = [float(level) for level in step.curves[row]]
        lines += [curve(every, levels[::2], name, colour), dots([time], [max(-14.0, levels[at])], "", colour)]
        shares = [share_at(step, level) for level in levels]
        knows += [curve(every, shares[::2], name, colour), dots([time], [shares[at]], "", colour)]
    return f"time {time:.2f}", {"pictures": {"columns": 3, "pictures": shown}, "levels": lines, "knows": knows}


def share_at(step: NoiseStep, level: float) -> float | None:
    """% that the judge names right at a log-SNR, between the measured levels."""
    known = [float(share) for share in step.known]
    if any(share != share for share in known):
        return None
    place = (min(max(level, LEVELS[0]), LEVELS[-1]) - LEVELS[0]) / (LEVELS[1] - LEVELS[0])
    low = min(int(place), len(LEVELS) - 2)
    return known[low] + (known[low + 1] - known[low]) * (place - low)
