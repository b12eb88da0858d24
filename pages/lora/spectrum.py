"""The picture of `spectrum`: the loss of full fine-tuning, the singular values of its change, and what a cut keeps."""

from typing import Any

from core.lora.spectrum import LAYERS, RANKS, Spectrum, SpectrumConfig, SpectrumStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, frame_of, lines, series
from pages._kit.player import view

SIGMA = chart(axis("direction, largest first", "index"), axis("singular value", "log scale"), log_y=True)
SHARE = frame_of(
    {"title": {"text": "cut to rank"}, "type": "category"},
    {"title": {"text": "remaining (%)"}, "range": [0, 105]},
    62,
    False,
)
NAMES = [str(rank) for rank in RANKS]


def spectrum_panels(config: SpectrumConfig) -> list[Panel]:
    steps, learned = axis("optimizer step", "count", config.steps), [series("loss", "batch", "a")]
    return [
        lines("loss", "Full fine-tuning learns the text", steps, axis("loss", "nats per token"), learned, span=4,
              height=290),
        view("sigma", "plot", f"The spectrum: {LAYERS[config.layer]}, and its change", span=8, layout=SIGMA,
             height=290),
        view("share", "plot", "What remains of the change when it is cut to rank r", layout=SHARE, height=310),
    ]  # fmt: skip


def draw_spectrum(step: SpectrumStep, sketch: Sketch) -> None:
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
    if step.spectrum is not None:
        sketch.show("sigma", singular_values(step.spectrum))
        sketch.show("share", shares(step.spectrum))


def singular_values(spectrum: Spectrum) -> list[dict[str, Any]]:
    """The matrix' own spectrum and, after the run, that of its change, with the ranks it is cut to marked on it."""
    order, own = list(range(1, len(spectrum.own) + 1)), spectrum.own.tolist()
    traces = [
        curve(order, own, "the matrix", "c", dash=True),
        note(2 * len(own) // 3, own[2 * len(own) // 3], "the matrix itself", "bottom left"),
    ]
    if spectrum.change is not None:
        values = spectrum.change.tolist()
        traces += [
            curve(order, values, "its change", "a"),
            dots(list(RANKS), [values[rank - 1] for rank in RANKS], "the ranks it is cut to", "b"),
        ]
        traces.append(note(RANKS[-1], values[RANKS[-1] - 1], "its change; dots: the ranks", "top right"))
    return traces


def note(x: float | str, y: float, words: str, place: str) -> dict[str, Any]:
    """A name beside a line, on the side where it is free."""
    return dots([x], [y], "", "text", names=[words]) | {"mode": "text", "textposition": place}


def shares(spectrum: Spectrum) -> list[dict[str, Any]]:
    """What a cut keeps of the change's size and of its gain, beside what it would keep of a change without
    structure.
    """
    told = [(spectrum.random_held, "size, if random", "c", 3, "bottom right")]
    if spectrum.change is not None:
        told.append((spectrum.held, "its size (this layer)", "a", 4, "top left"))
        told.append((spectrum.kept, "its gain in loss (all layers)", "b", 1, "bottom right"))
    traces = []
    for found, label, colour, at, place in told:
        percent = [100 * share for share in found]
        traces.append(dots(NAMES[: len(percent)], percent, label, colour, line=True))
        if at < len(percent):
            traces.append(note(NAMES[at], percent[at], label, place))
    return traces
