"""The tab "nanoGPT": a loss that falls through the n-gram baselines, a slider through the run, a text being written,
two runs that part.
"""

from collections.abc import Mapping
from typing import Any

from core.nanogpt import (
    ForkConfig,
    ForkStep,
    GenerateConfig,
    GenerateStep,
    TokensConfig,
    TokensStep,
    TrainConfig,
    TrainStep,
)
from core.nanogpt.tokens import KINDS as SAMPLES
from pages._kit.charts import Panel, Sketch, axis, bars, heat, lines, ranking, series, text, visible
from pages._kit.page import Page, Picture
from pages._kit.player import player, view
from pages.nanogpt.decode import decode_panels, draw_decode, lit_decode
from pages.nanogpt.diagram import diagram
from pages.nanogpt.inside import draw_inside, inside_panels, lit_inside

NATS = axis("loss", "nats per character")
LOOKS = "{name}: of what {from} takes in, {percent} comes from {to}"
PATH = ("text", "embed", "attention", "mlp", "predict")  # the way of a forward pass through the diagram
KINDS = [("a", "consonants"), ("b", "vowels"), ("c", "capitals"), ("d", "other signs")]


def train_panels(config: TrainConfig) -> list[Panel]:
    batch = series("loss", "training", "a", faint=True)
    unseen = series("validation", "validation", "b", dots=True)
    steps = axis("training step", "count", None if config.seconds else config.steps)
    title = "Loss, and what counting characters, pairs and triples reaches"
    views = [
        lines("loss", title, steps, NATS, [batch, unseen], span=7, height=270),
        view("sample", "text", "What it writes, always from the same seed", span=5, height=250),
        view(
            "letters",
            "draw",
            "Its characters, similar ones close together",
            span=4,
            aspect=1.0,
            height=290,
            legend=KINDS,
            x="the two main directions",
        ),
        view(
            "maps",
            "matrix",
            "Where each attention head looks",
            span=8,
            square=True,
            words=LOOKS,
            hint="A row is a character of the text below, top to bottom; the stronger a cell, the more it looks there.",
        ),
    ]
    return [player("rewind", "", views, scrub="training step", rate=3, bar_before=2)]


def draw_train(step: TrainStep, sketch: Sketch) -> None:
    if step.baselines:
        names = {"ln V": "know nothing", "unigram": "characters", "bigram": "pairs", "trigram": "triples"}
        sketch.levels("loss", {names[name]: nats for name, nats in step.baselines.items()})
    if step.loss is not None:
        sketch.point("loss", "loss", step.step, step.loss)
    if step.validation_loss is not None:
        sketch.point("loss", "validation", step.step, step.validation_loss)
    sketch.symbols = step.symbols or sketch.symbols
    if step.snapshot is not None:
        shot = step.snapshot
        sketch.frame("rewind", f"step {shot.step}", at=shot.step, sample=shot.sample,
                     letters=letters(shot.axes, sketch.symbols), maps=attention(shot))  # fmt: skip


def lit_train(step: Any) -> Mapping[str, str]:
    """A training step runs forward and back through everything; its loss stands in the diagram's box."""
    if step.part == "update":
        loss = step.loss if hasattr(step, "loss") else step.loss_a
        return dict.fromkeys((*PATH, "update"), "") | {"loss": f"training {loss:.2f}" if loss is not None else ""}
    return dict.fromkeys((*PATH, "loss") if step.part == "loss" else PATH if step.part else (), "")


def attention(shot: Any) -> dict[str, Any]:
    """Heads below each other, layers side by side."""
    layers, heads = shot.maps.shape[:2]
    names = [f"layer {layer + 1} head {head + 1}" for head in range(heads) for layer in range(layers)]
    return heat(shot.maps.swapaxes(0, 1), names, top=shot.probe, below=shot.probe)


def letters(axes: Any, symbols: str) -> list[dict[str, Any]]:
    """One moving letter per character."""
    shapes = []
    for symbol, (x, y) in zip(symbols, axes.tolist(), strict=True):
        fill = "b" if symbol in "aeiou" else "a" if symbol.islower() else "c" if symbol.isalpha() else "d"
        sign = visible(symbol)
        shape = {"id": symbol, "kind": "text", "x": round(x, 3), "y": round(y, 3), "text": sign, "fill": fill}
        shapes.append(shape)
    return shapes


def fork_panels(config: ForkConfig) -> list[Panel]:
    steps = axis("training step", "count", config.steps)
    runs = [series("b", "B", "b"), series("a", "A", "a")]
    return [
        lines("loss", "Training loss of two runs with one difference", steps, NATS, runs),
        text("sample_a", "A writes", span=6),
        text("sample_b", "B writes, after the change", span=6),
    ]


def draw_fork(step: ForkStep, sketch: Sketch) -> None:
    if step.levels is not None:
        sketch.levels("loss", {"characters": step.levels[0], "triples": step.levels[1]})
    if step.fork_at is not None:
        sketch.marks("loss", {"fork": step.fork_at})
    if step.loss_a is not None and step.loss_b is not None and step.validation_a is None:
        sketch.point("loss", "a", step.step, step.loss_a)
        sketch.point("loss", "b", step.step, step.loss_b)
    if step.sample_a is not None:
        sketch.text("sample_a", step.sample_a)
    if step.sample_b is not None:
        sketch.text("sample_b", step.sample_b)


def tokens_panels(config: TokensConfig) -> list[Panel]:
    count = axis("merges learned", "count", config.merges)
    views = [
        view("cut", "chips", "Your sentence, cut into tokens",
             legend=[("b", "made by one of the newest merges")]),
        lines("length", "How long a token of new text is", count, axis("length of a token", "bytes"),
              [series("length", "bytes per token", "a")], span=5, height=250),
        view("newest", "plot", "The newest tokens", span=7, height=270,
             layout=ranking(axis("how often their two halves stood together", "count"), axis("new token", "text"))),
        view("cost", "plot", "What other text costs", height=230,
             layout=ranking(axis("tokens per character", "count"), axis("a sample of", "text"))),
    ]  # fmt: skip
    real = view("real", "chips", "The same sentence, cut by SmolLM2's 49,152 tokens")
    return [player("merging", "", views, scrub="merge", rate=4, bar_before=1), real]


def draw_tokens(step: TokensStep, sketch: Sketch) -> None:
    if step.real:
        sketch.show("real", {"chips": [[text.replace("\n", "↵"), False] for text in step.real]})
    if not step.cut:  # words are split, or a table is counted
        return
    if step.length is not None:
        sketch.point("length", "length", step.merges, step.length)
    sketch.frame(
        "merging",
        f"{step.merges:,} merges: {len(step.cut)} tokens",
        at=step.merges,
        cut={"chips": [[text.replace("\n", "↵"), made] for text, made in step.cut]},
        newest=bars([in_quotes(text) for text, _ in step.newest], [times for _, times in step.newest]),
        cost=bars(list(SAMPLES), step.cost),
    )


def lit_tokens(step: TokensStep) -> Mapping[str, str]:
    """The part of the diagram that worked; the newest token stands in its box."""
    parts = {"words": ("text", "words"), "merge": ("pairs", "merge", "tokens", "cut"), "table": ("cut",)}
    lit = dict.fromkeys(parts.get(step.part, ()), "")
    return lit | ({"merge": in_quotes(step.newest[0][0])} if step.newest else {})


def in_quotes(token: str) -> str:
    """A token as a label: its spaces are part of it."""
    return f"“{visible(token)}”"


def generate_panels(config: GenerateConfig) -> list[Panel]:
    likely = ranking(axis("probability", "of 1", 1.0), axis("next token", "symbol"))
    views = [
        view("text", "reader", "What it has written; click a token to go back to it",
             legend=[("reader", "surprising: the stronger, the more")]),
        view("candidates", "plot", "The tokens it considered for this place", span=6, layout=likely, height=330,
             legend=[("a", "considered"), ("b", "chosen")]),
        view("looks", "matrix", "Where each head looked before this token", span=6, words=LOOKS,
             hint="A row is a head (layer.head), a column an earlier token. Point at a cell."),
    ]  # fmt: skip
    return [player("writing", "", views, scrub="token", rate=8, bar_before=1)]


def draw_generate(step: GenerateStep, sketch: Sketch) -> None:
    if not step.text:  # the model is still being fetched
        return
    shade = 0.0 if step.surprisal is None else min(1.0, step.surprisal / 4)
    shown = [named(symbol) for symbol, _ in step.candidates]
    looks = None if step.attention is None else head_rows(step.attention, sketch.written)
    sketch.written += step.text
    label = (
        "the prompt"
        if step.surprisal is None
        else f"{named(step.text)}: surprisal {step.surprisal:.2f} nats, entropy {step.entropy:.2f} nats"
    )
    sketch.frame(
        "writing",
        label,
        text={"text": step.text, "shade": round(shade, 2)},
        candidates=bars(shown, [p for _, p in step.candidates], named(step.text)),
        looks=looks,
    )


def lit_generate(step: GenerateStep) -> Mapping[str, str]:
    """Every token goes once through the whole model."""
    return dict.fromkeys(PATH, "") if step.text else {}


def head_rows(weights: Any, written: str) -> dict[str, Any]:
    """One line per head, one column per position it could look at."""
    layers, heads, reach = weights.shape
    left = [f"{layer + 1}.{head + 1}" for layer in range(layers) for head in range(heads)]
    below = written[-reach:] if reach <= len(written) else ""
    return heat(weights.reshape(1, 1, layers * heads, reach), ["layer.head"], left=left, below=below)


def named(symbol: str) -> str:
    """A token as the name of a bar: white space by its sign and in words."""
    return {"\n": "↵ (new line)", " ": "␣ (space)"}.get(symbol, symbol)


THUMB = (
    ("path", {"d": "M18 10 C30 36 44 36 62 37 S 90 41 104 42"}, "b"),
    ("path", {"d": "M18 32 H104", "stroke-dasharray": "3 3"}, "level"),
)

PAGE = Page(
    "nanogpt",
    "nanoGPT",
    {
        "inside": Picture(inside_panels, draw_inside, lit_inside),
        "train": Picture(train_panels, draw_train, lit_train),
        "tokens": Picture(tokens_panels, draw_tokens, lit_tokens),
        "generate": Picture(generate_panels, draw_generate, lit_generate),
        "decode": Picture(decode_panels, draw_decode, lit_decode),
        "fork": Picture(fork_panels, draw_fork, lit_train),
    },
    (
        ("Vaswani et al. 2017, Attention Is All You Need (the transformer)", "https://arxiv.org/abs/1706.03762"),
        (
            "Sennrich et al. 2016, Neural Machine Translation of Rare Words with Subword Units (byte-pair encoding)",
            "https://arxiv.org/abs/1508.07909",
        ),
        ("Karpathy, nanoGPT", "https://github.com/karpathy/nanoGPT"),
        (
            "Shannon 1951, Prediction and Entropy of Printed English",
            "https://doi.org/10.1002/j.1538-7305.1951.tb01366.x",
        ),
        ("Witten and Bell 1991, The zero-frequency problem (the tables)", "https://doi.org/10.1109/18.87000"),
        ("Su et al. 2021, RoFormer (rotary positions)", "https://arxiv.org/abs/2104.09864"),
        ("Henry et al. 2020, Query-Key Normalization for Transformers", "https://arxiv.org/abs/2010.04245"),
        ("So et al. 2021, Primer (squared ReLU)", "https://arxiv.org/abs/2109.08668"),
        ("Jordan et al. 2024, Muon", "https://kellerjordan.github.io/posts/muon/"),
        ("Fan et al. 2018, Hierarchical Neural Story Generation (top-k)", "https://arxiv.org/abs/1805.04833"),
        (
            "Holtzman et al. 2019, The Curious Case of Neural Text Degeneration (top-p)",
            "https://arxiv.org/abs/1904.09751",
        ),
        ("Nguyen et al. 2024, Turning Up the Heat (min-p)", "https://arxiv.org/abs/2407.01082"),
        ("Keskar et al. 2019, CTRL (the repetition penalty)", "https://arxiv.org/abs/1909.05858"),
        (
            "Welleck et al. 2019, Neural Text Generation with Unlikelihood Training (how repetition is measured)",
            "https://arxiv.org/abs/1908.04319",
        ),
        ("Sutskever et al. 2014, Sequence to Sequence Learning (beam search)", "https://arxiv.org/abs/1409.3215"),
    ),
    hand_over={"model.safetensors": ("generate", "model_file"), "training.safetensors": ("train", "start_file")},
    diagram=diagram,
    thumb=THUMB,
)
