"""The tab "nanoGPT": a loss curve on its ladder of entropies, a rewind slider, two runs that part, a text being written."""

from typing import Any

from core.nanogpt import ForkConfig, ForkStep, GenerateConfig, GenerateStep, TrainConfig, TrainStep
from pages._kit.charts import Panel, Sketch, axis, bars, heat, lines, ranking, series, text
from pages._kit.page import Page, Picture
from pages._kit.player import player, view

NATS = axis("loss", "nats per character")
LOOKS = "{name}: {from} looks at {to} with weight {value}"


def train_panels(config: TrainConfig) -> list[Panel]:
    learnt, unseen = series("loss", "batch", "a", faint=True), series("validation", "validation", "b", dots=True)
    steps = axis("optimizer step", "count", None if config.seconds else config.steps)
    views = [
        lines("loss", "Loss, on the ladder of what the text's own statistics know", steps, NATS, [learnt, unseen], span=7),
        view("sample", "text", "What it writes, always from the same seed", span=5),
        view("places", "draw", "Its characters: vowels, consonants, capitals", span=4, aspect=1.1, height=330, x="two main axes (PCA)"),
        view(
            "maps",
            "matrix",
            "Its attention",
            span=8,
            square=True,
            words=LOOKS,
            hint="Each row is a character of the text below and where it looks. Point at a cell.",
        ),
    ]
    return [player("rewind", "", views, scrub="training step", rate=3, bar_before=2)]


def draw_train(step: TrainStep, sketch: Sketch) -> None:
    if step.ladder:
        sketch.levels("loss", step.ladder)
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
    if step.validation_loss is not None:
        sketch.point("loss", "validation", step.step, step.validation_loss)
    sketch.symbols = step.symbols or sketch.symbols
    if step.snapshot is not None:
        shot = step.snapshot
        sketch.frame("rewind", f"step {shot.step}", at=shot.step, sample=shot.sample, places=letters(shot.places, sketch.symbols), maps=attention(shot))


def attention(shot: Any) -> dict[str, Any]:
    """Heads below each other, layers side by side."""
    layers, heads = shot.maps.shape[:2]
    names = [f"layer {layer + 1} head {head + 1}" for head in range(heads) for layer in range(layers)]
    return heat(shot.maps.swapaxes(0, 1), names, top=shot.probe, below=shot.probe)


def letters(places: Any, symbols: str) -> list[dict[str, Any]]:
    """One moving letter per character: vowels, consonants, capitals and the rest have their colours."""
    shapes = []
    for symbol, (x, y) in zip(symbols, places.tolist(), strict=True):
        fill = "b" if symbol in "aeiou" else "a" if symbol.islower() else "c" if symbol.isalpha() else "d"
        shown = {"\n": "↵", " ": "␣"}.get(symbol, symbol)
        shapes.append({"id": symbol, "kind": "text", "x": round(x, 3), "y": round(y, 3), "text": shown, "fill": fill})
    return shapes


def fork_panels(config: ForkConfig) -> list[Panel]:
    steps = axis("optimizer step", "count", config.steps)
    return [
        lines("loss", "Two runs, one difference", steps, NATS, [series("b", "B", "b"), series("a", "A", "a")]),
        text("sample_a", "A writes", span=6),
        text("sample_b", "B writes, after the change", span=6),
    ]


def draw_fork(step: ForkStep, sketch: Sketch) -> None:
    if step.levels is not None:
        sketch.levels("loss", {"unigram": step.levels[0], "trigram": step.levels[1]})
    if step.fork_at is not None:
        sketch.marks("loss", {"fork": step.fork_at})
    if step.loss_a is not None and step.loss_b is not None and step.validation_a is None:
        sketch.point("loss", "a", step.step, step.loss_a)
        sketch.point("loss", "b", step.step, step.loss_b)
    if step.sample_a is not None:
        sketch.text("sample_a", step.sample_a)
    if step.sample_b is not None:
        sketch.text("sample_b", step.sample_b)


def generate_panels(config: GenerateConfig) -> list[Panel]:
    likely = ranking(axis("probability", "share of 1", 1.0), axis("next character", "symbol"))
    views = [
        view("text", "reader", "The text; the darker, the more it surprised. Click a character to go back to it."),
        view("candidates", "plot", "What was considered for this place; the drawn one is marked", span=6, layout=likely, height=330),
        view("looks", "matrix", "Where each head looked before writing it", span=6, words=LOOKS, hint="Point at a cell."),
    ]
    return [player("writing", "Writing, one character at a time", views, scrub="character", rate=8)]


def draw_generate(step: GenerateStep, sketch: Sketch) -> None:
    if not step.text:  # the model is still being fetched
        return
    shade = 0.0 if step.surprise is None else min(1.0, step.surprise / 4)
    shown = [visible(symbol) for symbol, _ in step.candidates]
    looks = None if step.attention is None else head_rows(step.attention, sketch.written)
    sketch.written += step.text
    label = "the prompt" if step.surprise is None else f"{visible(step.text)}: surprise {step.surprise:.2f} nats; the model's own doubt {step.entropy:.2f}"
    sketch.frame(
        "writing",
        label,
        text={"text": step.text, "shade": round(shade, 2)},
        candidates=bars(shown, [p for _, p in step.candidates], visible(step.text)),
        looks=looks,
    )


def head_rows(weights: Any, written: str) -> dict[str, Any]:
    """One line per head, one column per position it could look at."""
    layers, heads, reach = weights.shape
    left = [f"{layer + 1}.{head + 1}" for layer in range(layers) for head in range(heads)]
    below = written[-reach:] if reach <= len(written) else ""
    return heat(weights.reshape(1, 1, layers * heads, reach), ["layer.head"], left=left, below=below)


def visible(symbol: str) -> str:
    return {"\n": "↵ (new line)", " ": "␣ (space)"}.get(symbol, symbol)


PAGE = Page(
    "nanogpt",
    "nanoGPT",
    {
        "train": Picture(train_panels, draw_train),
        "fork": Picture(fork_panels, draw_fork),
        "generate": Picture(generate_panels, draw_generate),
    },
    (
        ("Vaswani et al. 2017, Attention Is All You Need", "https://arxiv.org/abs/1706.03762"),
        ("Karpathy, nanoGPT", "https://github.com/karpathy/nanoGPT"),
        ("Shannon 1951, Prediction and Entropy of Printed English", "https://doi.org/10.1002/j.1538-7305.1951.tb01366.x"),
        ("Jordan et al. 2024, Muon", "https://kellerjordan.github.io/posts/muon/"),
    ),
    hand_over={"model.safetensors": ("generate", "model_file")},
)
