r"""Inside: one forward pass, step by step, with every number that it makes.

A text of $T$ tokens goes in, and for each of them a row of $C$ numbers goes through the layers. A layer adds to each
row twice. First attention, in every head:

$$q = nW_Q,\quad k = nW_K,\quad v = nW_V,\qquad s_{ij} = \frac{q_i \cdot k_j}{\sqrt{D}},\qquad
a_{ij} = \frac{e^{s_{ij}}}{\sum_{j' \le i} e^{s_{ij'}}},\qquad y_i = \sum_{j \le i} a_{ij} v_j,$$

where $n$ is the row normalised. Token $i$ asks with $q_i$, every token $j$ before it answers with $k_j$, and the more
they agree, the larger is the share $a_{ij}$ of $v_j$ that $i$ takes in. The future $j > i$ has no share. Then the MLP
works on each row alone. At the end the last row becomes a probability for every possible next token.

`forward_pass.py` writes the pass out, formula by formula, and compares each of its tensors with the one that the model
makes (`core/foundations/transformer.py`): the largest difference is the first figure.

Two ways to ask what a part is for. The **logit lens**: what would the model write if it stopped after this layer? The
row as it is then goes straight to the output. **Knocking out**: what would it write without this head? What the head
adds is set to 0. How much the prediction changes is measured by the KL divergence from the one before,

$$\mathrm{KL} = \sum_i p_i \ln \frac{p_i}{p'_i} \text{ nats}.$$

Code -> paper: `n_layer` -> L, `scores` -> QK^T / sqrt(d_k), `shares` -> softmax(...), `mixed` -> head_i.
Left out: what several heads do together, of which knocking out one at a time says nothing.
Source: Vaswani et al. 2017, section 3.2.1 and 3.2.2; nostalgebraist 2020, "interpreting GPT: the logit lens"; Michel et
al. 2019, "Are Sixteen Heads Really Better than One?", section 3 (one head taken out).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses
from core.foundations.weights import MODEL_FILE_BYTES
from core.nanogpt.forward_pass import Layer, Pass, divergence, forward_pass, largest_difference, logit_lens
from core.nanogpt.generating import CANDIDATES, MODELS, Writer, load_writer

MOST_TOKENS = 32  # of the text that are looked at: the latest ones
AT_ONCE = 8  # parts that one unit of work knocks out

EXACT = Figure(
    "largest difference from the model",
    "of the largest number of its tensor",
    "theory",
    "the same formulas; float32 rounds at 6e-8, many times in a row",
    headline=True,
)
SURE = Figure(
    "probability of the likeliest next token",
    "%",
    "baseline",
    "before the first layer, by the logit lens",
    headline=True,
)
SETTLED = Figure(
    "layer from which on the likeliest token stays the same", "layer", "limit", "the last layer", headline=True
)
MATTERS = Figure("largest change when a part is knocked out", "nats", "baseline", "the median part", headline=True)
CHANGED = Figure("change by what was knocked out", "nats", None, "KL divergence from the whole model's prediction")

KNOCKED = {
    "nothing": "nothing",
    "head": "the chosen head",
    "attention": "all heads of the chosen layer",
    "mlp": "the MLP of the chosen layer",
}


@dataclass(frozen=True)
class InsideConfig(Config):
    """The text, where to look, and what to knock out."""

    text: str = setting(
        "MARISE:\nThe lanter",
        "Your text",
        high=400,
        help="The model will guess what comes next. It looks at the last 32 tokens of it.",
    )
    layer: int = setting(
        2, "Layer", low=1, high=12, slider=True, help="Which layer is shown from the inside. The shipped model has 6."
    )
    head: int = setting(
        2,
        "Attention head",
        low=1,
        high=12,
        slider=True,
        help="Which of its heads is shown; the shipped model has 5 in each layer.",
    )
    knock: str = setting(
        "head",
        "Knock out",
        choices=KNOCKED,
        help="What it adds is set to 0, and the prediction without it stands beside the whole model's.",
    )
    model: str = setting("shipped", "Model", choices=MODELS, more=True, help="Which trained model is opened.")
    model_file: bytes = setting(
        b"", "Model file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("model", "own")
    )


@dataclass(frozen=True)
class InsideStep(Step):
    """One stage of the pass, a part of the lens, or a part of the map of what matters."""

    stage: str = ""  # its name; "" where no stage is shown
    says: str = ""  # what happened, with the last token's numbers
    values: Float[np.ndarray, "N T K"] | None = field(default=None, repr=False)
    rows: tuple[str, ...] = ()  # the tokens, a line each
    columns: tuple[str, ...] = ()  # the tokens again, where the columns are tokens
    candidates: tuple[tuple[str, float], ...] = ()  # the likeliest next tokens, by the whole model
    without: tuple[float, ...] = ()  # their probabilities with the part knocked out
    lens: tuple[tuple[str, float, float], ...] = ()  # after each layer: likeliest token, its p, p of the final one
    matters: Float[np.ndarray, "L P"] | None = field(default=None, repr=False)  # nats, layers x (heads, MLP)
    titles: tuple[str, ...] = ()  # of the maps in `values`


# --- what it says -----------------------------------------------------------------------------------------------------


def parts_of(model: Transformer) -> list[tuple[int, str]]:
    """All that can be knocked out alone."""
    names = [*map(str, range(model.shape.n_head)), "mlp"]
    return [(layer, name) for layer in range(model.shape.n_layer) for name in names]


def knocked_out(config: InsideConfig, heads: int) -> frozenset[tuple[int, str]]:
    layer = config.layer - 1
    if config.knock == "head":
        return frozenset({(layer, str(config.head - 1))})
    if config.knock == "attention":
        return frozenset((layer, str(head)) for head in range(heads))
    return frozenset({(layer, "mlp")}) if config.knock == "mlp" else frozenset()


@dataclass(frozen=True)
class Stage:
    """One picture of the pass: maps side by side, a line per token, and what they say of the last token."""

    name: str
    says: str
    maps: Float[Tensor, "N T K"]
    titles: tuple[str, ...]
    to_tokens: bool = False  # the columns are tokens again


def stages(config: InsideConfig, model: Transformer, tokens: tuple[str, ...], whole: Pass) -> Iterator[Stage]:
    """The pass through the chosen layer and head, from the text to the next token."""
    number, last = config.layer, len(tokens) - 1
    layer = whole.layers[number - 1]
    yield Stage(
        "from tokens to rows of numbers",
        f"Each of the {len(tokens)} tokens becomes a row of {whole.embedded.shape[1]} numbers, its embedding. Equal"
        " tokens have equal rows, wherever they stand.",
        whole.embedded[None],
        ("embedding",),
    )
    yield Stage(
        f"what reaches layer {number}",
        f"The layers before have added to each row. The last token's row is now"
        f" {ratio(layer.came[last], whole.embedded[last]):.1f} times as large as its embedding.",
        layer.came[None],
        (f"rows before layer {number}",),
    )
    yield from of_a_head(layer, config.head - 1, tokens)
    yield from of_a_layer(layer, number, model.shape.n_head)
    best = int(whole.p.argmax())
    yield Stage(
        "the next token",
        "After the last layer the last row, normalised, meets a row of the output layer for each possible token; the"
        f" softmax of these numbers are the probabilities. The largest is {float(whole.p[best]):.0%}.",
        whole.layers[-1].left[None],
        ("rows after the last layer",),
    )


def of_a_head(layer: Layer, head: int, tokens: tuple[str, ...]) -> Iterator[Stage]:
    """What one attention head does."""
    last, width = len(tokens) - 1, layer.q.shape[-1]
    q, k, v = layer.q[head], layer.k[head], layer.v[head]
    yield Stage(
        "query, key and value",
        f"From its row every token gets three short rows of {width} numbers: q, with which it asks, k, with which it"
        " answers, and v, which it gives.",
        torch.stack((q, k, v)),
        ("q", "k", "v"),
    )
    scores = layer.scores[head]
    best = int(scores[last].argmax())
    yield Stage(
        "scores",
        f"Each q meets each k: q · k / √{width}; the root keeps wide rows from giving huge scores. Of the last token's"
        f" scores the largest is {float(scores[last, best]):.2f}, with {quoted(tokens[best])}. So far the future is"
        " still in it.",
        scores[None],
        ("scores",),
        to_tokens=True,
    )
    shares = layer.shares[head]
    order = shares[last].topk(min(3, len(tokens)))
    most = ", ".join(
        f"{quoted(tokens[at])} {share:.0%}"
        for share, at in zip(order.values.tolist(), order.indices.tolist(), strict=True)
    )
    yield Stage(
        "mask and softmax",
        "The mask takes the future away, and the softmax turns the scores of a line into shares that add up to 1. The"
        f" last token takes most from: {most}.",
        shares[None],
        ("shares",),
        to_tokens=True,
    )
    yield Stage(
        "the weighted sum",
        f"The shares mix the rows v: head {head + 1} hands on {width} numbers for each token.",
        layer.mixed[head][None],
        (f"head {head + 1}",),
    )


def of_a_layer(layer: Layer, number: int, heads: int) -> Iterator[Stage]:
    """What the heads add together, and then the MLP."""
    last = len(layer.came) - 1
    yield Stage(
        "the residual connection",
        f"The {heads} heads, side by side, go through one matrix, and the result is added to the row. For"
        f" the last token it is {ratio(layer.attended[last], layer.came[last]):.2f} times as large as the row.",
        torch.stack((layer.attended, layer.middle)),
        ("attention adds", "and the row is then"),
    )
    awake = float((layer.hidden[last] > 0).float().mean())
    yield Stage(
        "inside the MLP",
        f"Each row alone goes through a small network with {layer.hidden.shape[1]} numbers in the middle. For the last"
        f" token {awake:.0%} of them are above 0, the others say nothing.",
        layer.hidden[None],
        ("inside the MLP",),
    )
    yield Stage(
        f"what leaves layer {number}",
        f"What the MLP made is added, too: {ratio(layer.thought[last], layer.middle[last]):.2f} times as large as the"
        " last row. The next layer does the same with other weights.",
        torch.stack((layer.thought, layer.left)),
        ("the MLP adds", f"after layer {number}"),
    )


def ratio(a: Float[Tensor, "C"], b: Float[Tensor, "C"]) -> float:
    """How many times as long a is as b."""
    return float(a.norm() / b.norm().clamp(min=1e-9))


def quoted(token: str) -> str:
    return f"“{token}”".replace("\n", "↵")


@experiment("What happens between a text and the next token?")
def inside(config: InsideConfig) -> Iterator[InsideStep]:
    """Open a trained model: every tensor of one forward pass, the logit lens, and what each part is good for."""
    # the model and the text
    fetching = InsideStep(doing="fetching the model from the hub, once")
    writer, note = yield from with_pauses(load_writer(config.model, config.model_file), fetching)
    model = writer.model
    ids = writer.ids(config.text)[-min(MOST_TOKENS, model.shape.context) :]
    refuse_what_is_not_there(config, writer, ids)
    note = " ".join(sentence for sentence in (note, writer.unknown(config.text)) if sentence)
    tokens, row = tuple(writer.symbols[i] for i in ids), torch.tensor(ids, device=model.embed.weight.device)
    # the pass, stage by stage, with and without what is knocked out
    whole = forward_pass(model, row)
    out = knocked_out(config, model.shape.n_head)
    without = forward_pass(model, row, out).p if out else whole.p
    best = whole.p.topk(min(CANDIDATES, len(whole.p)))
    candidates = tuple((writer.symbols[i], float(whole.p[i])) for i in best.indices.tolist())
    beside = tuple(float(without[i]) for i in best.indices.tolist()) if out else ()
    for stage in stages(config, model, tokens, whole):
        yield InsideStep(
            stage.name,
            stage.says,
            stage.maps.cpu().numpy(),
            tokens,
            tokens if stage.to_tokens else (),
            candidates,
            beside,
            titles=stage.titles,
            doing=note or stage.name,
            part=PARTS.get(stage.name, ""),
        )
    # if it stopped earlier
    lens = logit_lens(model, whole)
    final, guesses = int(whole.p.argmax()), [int(p.argmax()) for p in lens]
    told = tuple((writer.symbols[i], float(p[i]), float(p[final])) for i, p in zip(guesses, lens, strict=True))
    yield InsideStep(lens=told, doing="the logit lens")
    # each part knocked out alone
    parts = parts_of(model)
    change = np.zeros((model.shape.n_layer, model.shape.n_head + 1))
    for done, part in enumerate(parts, 1):
        column = model.shape.n_head if part[1] == "mlp" else int(part[1])
        change[part[0], column] = divergence(whole.p, forward_pass(model, row, frozenset({part})).p)
        if done % AT_ONCE == 0:
            yield InsideStep(matters=change.copy(), doing=f"{done} of {len(parts)} parts knocked out, one at a time")
    settled = next(n for n in range(len(guesses)) if all(guess == final for guess in guesses[n:]))
    figures: tuple[Result, ...] = (
        EXACT(largest_difference(model, row, whole), 0.0),
        SURE(100 * float(whole.p[final]), 100 * float(lens[0][final])),
        SETTLED(settled, model.shape.n_layer),
        MATTERS(float(change.max()), float(np.median(change))),
    )
    if out:
        figures += (CHANGED(divergence(whole.p, without)),)
    done_words = f"{quoted(writer.symbols[final])} comes next with {float(whole.p[final]):.0%}"
    yield InsideStep(matters=change, lens=told, figures=figures, doing=done_words)


# which part of the diagram a stage belongs to
PARTS = {
    "from tokens to rows of numbers": "embed",
    "query, key and value": "attention",
    "scores": "attention",
    "mask and softmax": "attention",
    "the weighted sum": "attention",
    "the residual connection": "attention",
    "inside the MLP": "mlp",
    "the next token": "predict",
}


def refuse_what_is_not_there(config: InsideConfig, writer: Writer, ids: list[int]) -> None:
    """One sentence for a layer or a head that this model has not, and for a text without a known character."""
    shape = writer.model.shape
    for name, value, most in (("layer", config.layer, shape.n_layer), ("head", config.head, shape.n_head)):
        if value > most:
            raise ValueError(f"{name} must be at most {most}, as many as this model has, got {value}")
    if not ids:
        raise ValueError("text must have at least one character that the model knows")
