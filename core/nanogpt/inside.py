r"""Inside: one forward pass, step by step, with every number that it makes.

A text of $T$ tokens goes in, and for each of them a row of $C$ numbers goes through the layers. A layer adds to each
row twice. First attention, in every head:

$$q = nW_Q,\quad k = nW_K,\quad v = nW_V,\qquad s_{ij} = \frac{q_i \cdot k_j}{\sqrt{D}},\qquad
a_{ij} = \frac{e^{s_{ij}}}{\sum_{j' \le i} e^{s_{ij'}}},\qquad y_i = \sum_{j \le i} a_{ij} v_j,$$

where $n$ is the row normalised. Token $i$ asks with $q_i$, every token $j$ before it answers with $k_j$, and the more
they agree, the larger is the share $a_{ij}$ of $v_j$ that $i$ takes in. The future $j > i$ has no share. Then the MLP
works on each row alone. At the end the last row becomes a probability for every possible next token.

`forward_pass.py` writes the pass out, formula by formula, and compares each of its tensors with the one that the model
makes (`core/foundations/transformer.py`): the largest difference is the first figure. The picture holds all of these
tensors; from q, k and v the browser computes scores, shares and sums again, by the formulas above, so that each number
can be shown with the numbers it came from.

Two ways to ask what a part is for. The **logit lens**: what would the model write if it stopped after this layer? The
row as it is then goes straight to the output. **Knocking out**: what would it write without this head, this MLP, this
whole layer? What the part adds is set to 0. How much the prediction changes is measured by the KL divergence from the
one before,

$$\mathrm{KL} = \sum_i p_i \ln \frac{p_i}{p'_i} \text{ nats}.$$

Code -> paper: `n_layer` -> L, `scores` -> QK^T / sqrt(d_k), `shares` -> softmax(...), `mixed` -> head_i.
Left out: what several heads do together, of which knocking out one at a time says nothing.
Source: Vaswani et al. 2017, section 3.2.1 and 3.2.2; nostalgebraist 2020, "interpreting GPT: the logit lens"; Michel et
al. 2019, "Are Sixteen Heads Really Better than One?", section 3 (one head taken out).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import fetching_words
from core.foundations.experiment import Config, Step, experiment, quoted, setting
from core.foundations.figures import Figure
from core.foundations.sampling import finite
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses
from core.foundations.weights import MODEL_FILE_BYTES
from core.nanogpt.film import Stage, at_first, stages
from core.nanogpt.forward_pass import Layer, Pass, divergence, forward_pass, largest_difference, logit_lens
from core.nanogpt.generating import CANDIDATES, MODELS, Writer, load_writer

MOST_TOKENS = 24  # of the text that are looked at: the latest ones
MOST_NUMBERS = 600_000  # that one picture holds; of a wider model only one layer can be opened
NEEDS = 0.1  # nats that the prediction changes by without a part that it needs
UNIT_FLOPS = 2e9  # most work between two yields, about 0.1 s

EXACT = Figure(
    "largest difference from the model",
    "times the largest number",
    "theory",
    "the same formulas; float32 rounds at 6e-8, many times in a row",
    headline=True,
)
SURE = Figure(
    "probability of the likeliest next token",
    "%",
    "baseline",
    "if it stopped before the first layer (the logit lens)",
    headline=True,
)
SETTLED = Figure(
    "layer from which on the likeliest token stays the same", "layer", "limit", "the last layer", headline=True
)
MATTERS = Figure(
    "largest change when a head or an MLP is knocked out",
    "nats",
    "baseline",
    "half of the heads and MLPs change less than this",
    headline=True,
)
NEEDED = Figure(
    "heads and MLPs that it needs here",
    "parts",
    "limit",
    f"all of them; needed: without it the prediction changes by more than {NEEDS} nats",
)


@dataclass(frozen=True)
class InsideConfig(Config):
    """The text, and where the film looks."""

    text: str = setting(
        "MARISE:\nThe lanter",
        "Your text",
        high=400,
        help="The model will guess what comes next. It looks at the last 24 tokens of it.",
    )
    layer: int = setting(
        0,
        "Layer of the film",
        low=0,
        high=24,
        more=True,
        help="Which layer Play goes through; 0 takes the one with the head that matters most.",
    )
    head: int = setting(
        0, "Head of the film", low=0, high=64, more=True, help="Which of its heads; 0 takes the one that matters most."
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        more=True,
        help="Which trained model is opened.",
        sets={real_model.NAME: {"text": "The capital of France is"}},
    )
    model_file: bytes = setting(
        b"", "Model file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("model", "own")
    )


@dataclass(frozen=True)
class Knocked:
    """What happens without one part: (layer, "0") a head, (layer, "mlp") or (layer, "all")."""

    layer: int
    part: str
    nats: float  # KL divergence from the whole model's prediction
    p: tuple[float, ...]  # of the candidates
    best: str  # the likeliest token now
    best_p: float
    best_before: float  # its probability by the whole model
    lens: tuple[tuple[str, float], ...]  # after each layer: the likeliest token then, and its probability


@dataclass(frozen=True)
class InsideStep(Step):
    """The opened model, what its parts are good for, or one stage of the way through it."""

    tokens: tuple[str, ...] = ()
    shape: Mapping[str, int | str] = field(default_factory=dict)  # sizes, and what the MLP does in the middle
    shares: Float[np.ndarray, "L H T T"] | None = field(default=None, repr=False)
    tensors: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)  # by layer, by name
    candidates: tuple[tuple[str, float], ...] = ()  # the likeliest next tokens, by the whole model
    lens: tuple[tuple[str, float, float], ...] = ()  # after each layer: likeliest token, its p, p of the final one
    knocked: tuple[Knocked, ...] = field(default=(), repr=False)
    stages: tuple[Stage, ...] = ()  # the stops of the film
    layer: int = 0  # of the film, from 0
    head: int = 0


# --- what can be knocked out ------------------------------------------------------------------------------------------


def parts_of(model: Transformer) -> list[tuple[int, str]]:
    """All that is knocked out: each head, each MLP, each layer."""
    names = [*map(str, range(model.shape.n_head)), "mlp", "all"]
    return [(layer, name) for layer in range(model.shape.n_layer) for name in names]


def taken_out(model: Transformer, part: tuple[int, str]) -> frozenset[tuple[int, str]]:
    """A part as what adds nothing: a whole layer is its heads and its MLP."""
    layer, name = part
    if name != "all":
        return frozenset({part})
    return frozenset({(layer, "mlp"), *((layer, str(head)) for head in range(model.shape.n_head))})


def knock_out(writer: Writer, row: Int[Tensor, "T"], whole: Pass, best: list[int], part: tuple[int, str]) -> Knocked:
    """The prediction without one part."""
    without = forward_pass(writer.model, row, taken_out(writer.model, part), whole)
    p, guesses = without.p, [(int(p.argmax()), float(p.max())) for p in logit_lens(writer.model, without)]
    kept, now = tuple(float(p[i]) for i in best), int(p.argmax())
    lens = tuple((writer.symbols[i], round(most, 4)) for i, most in guesses)
    return Knocked(*part, divergence(whole.p, p), kept, writer.symbols[now], float(p[now]), float(whole.p[now]), lens)


def filmed(config: InsideConfig, knocked: list[Knocked]) -> tuple[int, int]:
    """The layer and the head that the film goes through, from 0: the chosen ones, or the head that matters most."""
    heads = [k for k in knocked if k.part.isdigit()]
    heads = [k for k in heads if config.layer in (0, k.layer + 1) and config.head in (0, int(k.part) + 1)]
    most = max(heads, key=lambda k: k.nats)
    return most.layer, int(most.part)


# --- what the picture holds -------------------------------------------------------------------------------------------


def tensors_of(layer: Layer) -> dict[str, np.ndarray]:
    """What the browser cannot compute again without the weights."""
    names = ("q", "k", "v", "attended", "hidden", "thought")
    return {name: getattr(layer, name).cpu().numpy() for name in names}


def opened(whole: Pass, layer: int) -> dict[int, dict[str, np.ndarray]]:
    """The tensors of all layers, with what came into the first; of a wide model those of one layer."""
    numbers = sum(array.size for array in tensors_of(whole.layers[0]).values())
    all_of_them = numbers * len(whole.layers) <= MOST_NUMBERS
    chosen = range(len(whole.layers)) if all_of_them else [layer]
    came = {chosen[0]: {"came": whole.layers[chosen[0]].came.cpu().numpy()}}
    return {number: tensors_of(whole.layers[number]) | came.get(number, {}) for number in chosen}


def sizes(model: Transformer) -> dict[str, int | str]:
    """What the picture must know of the model's shape."""
    shape = model.shape
    return {
        "layers": shape.n_layer,
        "heads": shape.n_head,
        "width": shape.width,
        "dialect": shape.dialect,
        "residual": int(shape.residual),
    }


@experiment("What happens between a text and the next token?")
def inside(config: InsideConfig) -> Iterator[InsideStep]:
    """Open a trained model: every tensor of one forward pass, the logit lens, and what each part is good for."""
    # the model and the text
    fetching = InsideStep(doing=fetching_words(config.model))
    writer, note = yield from with_pauses(load_writer(config.model, config.model_file), fetching)
    model = writer.model
    ids = writer.ids(config.text)[-min(MOST_TOKENS, model.shape.context) :]
    refuse_what_is_not_there(config, writer, ids)
    note = " ".join(sentence for sentence in (note, writer.unknown(config.text)) if sentence)
    tokens, row = tuple(writer.symbols[i] for i in ids), torch.tensor(ids, device=model.embed.weight.device)
    # the pass, and what it would write if it stopped earlier
    whole = forward_pass(model, row)
    finite(whole.logits)
    best = whole.p.topk(min(CANDIDATES, len(whole.p))).indices.tolist()
    lens = logit_lens(model, whole)
    final, guesses = int(whole.p.argmax()), [int(p.argmax()) for p in lens]
    told = tuple((writer.symbols[i], float(p[i]), float(p[final])) for i, p in zip(guesses, lens, strict=True))
    seen = InsideStep(
        tokens,
        sizes(model),
        torch.stack([layer.shares for layer in whole.layers]).cpu().numpy(),
        candidates=tuple((writer.symbols[i], float(whole.p[i])) for i in best),
        lens=told,
        stages=(at_first(tokens, whole),),
        doing=note or "one forward pass",
        part="embed",
    )
    yield seen
    # each part knocked out alone
    parts, knocked = parts_of(model), list[Knocked]()
    at_once = max(1, int(UNIT_FLOPS / (2 * sum(p.numel() for p in model.parameters()) * len(row))))
    for part in parts:
        knocked.append(knock_out(writer, row, whole, best, part))
        if len(knocked) % at_once == 0:
            words, where = (
                f"{len(knocked)} of {len(parts)} parts knocked out",
                "mlp" if part[1] == "mlp" else "attention",
            )
            yield InsideStep(doing=f"{words}, one at a time", part=where)
    # all of it: the tensors, and the film through one layer and head
    layer, head = chosen = filmed(config, knocked)
    film = tuple(stages(model, tokens, whole, chosen))
    yield replace(
        seen, tensors=opened(whole, layer), knocked=tuple(knocked), stages=film, layer=layer, head=head, part="predict"
    )
    settled = next(n for n in range(len(guesses)) if all(guess == final for guess in guesses[n:]))
    single = [one.nats for one in knocked if one.part != "all"]
    figures = (
        EXACT(largest_difference(model, row, whole), 0.0),
        SURE(100 * float(whole.p[final]), 100 * float(lens[0][final])),
        SETTLED(settled, model.shape.n_layer),
        MATTERS(max(single), float(np.median(single))),
        NEEDED(sum(nats > NEEDS for nats in single), len(single)),
    )
    done_words = f"{quoted(writer.symbols[final])} comes next with {float(whole.p[final]):.0%}"
    done_words = f"{done_words}. {note}" if note else done_words
    most = max((one for one in knocked if one.part != "all"), key=lambda one: one.nats)
    yield InsideStep(
        candidates=seen.candidates, knocked=(most,), layer=layer, head=head, figures=figures, doing=done_words
    )


def refuse_what_is_not_there(config: InsideConfig, writer: Writer, ids: list[int]) -> None:
    """One sentence for a layer or a head that this model has not, and for a text without a known character."""
    shape = writer.model.shape
    for name, value, most in (("layer", config.layer, shape.n_layer), ("head", config.head, shape.n_head)):
        if value > most:
            raise ValueError(f"{name} must be at most {most}, as many as this model has, got {value}")
    if not ids:
        raise ValueError("text must have at least one character that the model knows")
