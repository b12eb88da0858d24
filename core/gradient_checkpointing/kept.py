r"""What autograd saves: every tensor that the forward pass puts aside, as a block in its layer's column.

To compute a gradient, an operation needs what it worked on: a matmul its input, a softmax its output, a dropout its
mask. So the forward pass keeps all of it until the backward pass comes by, in the reverse order. With 16-bit numbers a
layer keeps

$$s\,b\,h \left(34 + 5\,\frac{a\,s}{h}\right) \text{ bytes}$$

for $s$ tokens, $b$ texts, width $h$ and $a$ heads. The second term is the core of attention, and it grows with the
square of the context. A checkpointed layer keeps its input alone, $2\,sbh$, and is computed a second time when the
backward pass arrives: its tensors come back for a moment, and its counter says 2.

**Why a CPU shows $36 + 6as/h$.** The paper's dropout masks take one byte per place; torch on a CPU stores them like the
activations, in two. That is 2 more for the two masks of a layer and one more $as/h$ for the mask of attention. Each
LayerNorm also keeps two numbers per token, which the paper leaves out: $8/h$ in all, and $16/h$ on a GPU, where they
have 32 bits.

Fused attention keeps no $s \times s$ tensor at all, only one number per head and token, and its own backward pass
computes the core again: what the paper calls selective recomputation is built in.

The bytes are those of storages, each counted once; weights and the text are left out. The step runs layer by layer, its
graph cut between them, so that others get their turn; what is kept and the gradients are the same (tested).

Code -> paper: `context` -> s, `batch` -> b, `width` -> h, `n_head` -> a, `n_layer` -> L.
Left out: the dropout after the embedding (one more mask for the whole model).
Source: Korthikanti et al. 2022, arXiv:2205.05198, section 4, equation 1; torch.autograd.graph.saved_tensors_hooks.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from core.foundations.activation_bytes import INPUT, Layer, head_bytes, kept_bytes, parts, per_sbh
from core.foundations.corpus import batch_of, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting, shown
from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.foundations.settings import seed_field
from core.gradient_checkpointing.block import DropoutState, Stack, check_room, gpt
from core.gradient_checkpointing.ledger import STATISTICS, Ledger, Saved
from core.gradient_checkpointing.trick import recompute
from core.gradient_checkpointing.walk import Segment, Walk

ATTENTION = {"written": "written out, as in the paper", "fused": "fused, as FlashAttention"}
MOST_TOKENS, MOST_SCORES = 1024, 4_000_000

SBH = "bytes per token and hidden unit"
RULE = "the sum of the list in How it works, masks as this device stores them; the gap is the norms' statistics"
LAYER = Figure("saved activations of one layer", SBH, "theory", RULE, headline=True)
LAYER_PAPER = Figure(
    "saved activations of one layer, by the paper's count",
    SBH,
    "paper",
    "sbh (34 + 5as/h), equation 1; the gap is this device's dropout masks",
)
CHECKPOINTED = Figure(
    "saved activations of a checkpointed layer", SBH, "theory", "its input alone, 2 sbh", headline=True
)
ALL_PLAIN = Figure("saved in all layers, no checkpoints", "MB", "theory", f"layers and head, {RULE}", headline=True)
ALL_CHOSEN = Figure(
    "saved in all layers, chosen ones checkpointed",
    "MB",
    "theory",
    "the same, with 2 sbh for a checkpointed layer",
    headline=True,
)
FORWARDS = Figure("forward passes of all layers", "passes", "theory", "one more for each checkpointed layer")
GRADIENT_DIFFERENCE = Figure(
    "largest difference of a gradient", "absolute", "theory", "the same operations on the same values"
)
NORM_STATISTICS = Figure(
    "mean and scale of two LayerNorms",
    SBH,
    "theory",
    "two per token and norm, left out by the paper: 8/h on a CPU, 16/h on a GPU, which stores them in 32 bits",
)
HALF_CONTEXT = Figure(
    "saved activations of one layer at half the context", SBH, "theory", "36 + 6as/h on a CPU, 34 + 5as/h on a GPU"
)


@dataclass(frozen=True)
class KeptConfig(Config):
    """The model, the batch, and which layers are checkpointed in the second pass."""

    layers: str = setting(
        "even",
        "Checkpointed layers",
        high=60,
        help="More checkpoints save more memory. Numbers such as 2, 4 or 1-3; or all, none, even, odd.",
    )
    n_layer: int = setting(
        4,
        "Layers",
        unit="layer",
        low=1,
        high=24,
        help="Each layer saves as much again, unless it is checkpointed.",
        slider=True,
    )
    context: int = setting(
        128,
        "Context s",
        unit="token",
        low=2,
        high=512,
        help="Most of what is saved grows with the context, attention's scores with its square.",
    )
    n_head: int = setting(
        4,
        "Heads a",
        unit="head",
        low=1,
        high=16,
        help="More heads mean more score matrices; the rest stays the same.",
        slider=True,
    )
    width: int = setting(
        128, "Width h", low=8, high=512, help="A wider layer saves more per token; attention's scores stay as large."
    )
    attention: str = setting(
        "written", "Attention", choices=ATTENTION, help="Fused attention saves no score matrix at all."
    )
    batch: int = setting(
        2,
        "Batch b",
        unit="sequence",
        low=1,
        high=16,
        more=True,
        help="Twice the sequences save twice as much.",
        slider=True,
    )
    dropout: float = setting(
        0.1,
        "Dropout",
        low=0.0,
        high=0.9,
        more=True,
        help="At 0 no masks are saved; any other value saves a mask as large as its input.",
        slider=True,
    )
    seed: int = seed_field()

    def check(self) -> None:
        parse_layers(self.layers, self.n_layer)
        if self.width % self.n_head:
            raise ValueError(
                f"width must be a multiple of the number of heads, got width {self.width} and {self.n_head} heads"
            )
        if self.batch * self.context > MOST_TOKENS:
            raise ValueError(
                f"batch x context must be at most {MOST_TOKENS} tokens, got {self.batch} x {self.context} ="
                f" {self.batch * self.context}"
            )
        scores = self.batch * self.n_head * self.context**2
        if scores > MOST_SCORES:
            raise ValueError(
                f"batch x n_head x context^2 must be at most {MOST_SCORES / 1e6:g} million, got {scores / 1e6:.1f}"
                " million"
            )

    @property
    def chosen(self) -> tuple[int, ...]:
        return parse_layers(self.layers, self.n_layer)

    @property
    def layer(self) -> Layer:
        """A layer of this model on this device."""
        number = 2
        return Layer(
            self.context,
            self.batch,
            self.width,
            self.n_head,
            self.attention == "fused",
            self.dropout > 0,
            number,
            mask_bytes(number),
        )


@dataclass(frozen=True)
class KeptStep(Step):
    """What is kept after one unit of a step, layer by layer."""

    run: int = 0  # 1: nothing checkpointed, 2: the chosen layers
    phase: str = ""  # formula, forward, loss, again, backward, measured
    layer: int = 0  # which one this unit was about
    tensors: tuple[tuple[int, str, float], ...] = ()  # layer, name, bytes over sbh
    forwards: tuple[int, ...] = ()  # passes of each layer so far
    chosen: tuple[int, ...] = ()  # the layers that are checkpointed in this run
    kept: int = 0  # bytes in all
    formula: tuple[tuple[str, float], ...] = ()  # of one layer: name, bytes over sbh
    table: tuple[tuple[str, str, int, float, float], ...] = ()  # name, shape, bytes, bytes over sbh, the paper's number
    curves: tuple[tuple[str, tuple[float, ...]], ...] = ()  # bytes over sbh by formula at the contexts of `CONTEXTS`
    contexts: tuple[int, ...] = ()
    measured: tuple[tuple[str, int, float], ...] = ()  # attention, context, bytes over sbh


def parse_layers(text: str, n_layer: int) -> tuple[int, ...]:
    """'2, 4-6' -> (1, 3, 4, 5), counted from 0; or one sentence."""
    words, numbers = text.strip().lower(), range(n_layer)
    named = {"": (), "none": (), "all": tuple(numbers), "even": tuple(numbers[1::2]), "odd": tuple(numbers[::2])}
    if words in named:
        return named[words]
    found: set[int] = set()
    for part in re.split(r"[,;\s]+", re.sub(r"\s*-\s*", "-", words)):
        ends = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last <= n_layer:
            allowed = f"numbers from 1 to {n_layer}" if n_layer > 1 else "1"
            raise ValueError(
                f"layers must be all, none, even, odd or {allowed}, such as {'2, 4 or 1-3' if n_layer > 3 else '1'},"
                f" got {shown(text)}"
            )
        found |= set(range(first - 1, last))
    return tuple(sorted(found))


def mask_bytes(number: int) -> int:
    """torch stores a dropout mask in one byte per place on a GPU, and like the activations on a CPU."""
    return 1 if this_machine().gpu else number


def half_precision() -> torch.dtype:
    return torch.float16 if this_machine().fast_dtype == "float16" else torch.bfloat16


# --- one pass ---------------------------------------------------------------------------------------------------------


class Watched:
    """A training step of the model whose saved tensors are watched."""

    def __init__(self, config: KeptConfig, model: Stack, batch: tuple[Tensor, Tensor], run: int) -> None:
        self.config, self.model, self.run = config, model, run
        self.chosen = config.chosen if run == 2 else ()
        self.ledger, self.rng = Ledger(model, *batch), DropoutState(config.seed, this_machine().device)
        self.walk = Walk(model, batch, [(number,) for number in range(config.n_layer)], self.through)
        self.kept: tuple[Saved, ...] = ()  # at the end of the forward pass

    def through(self, segment: Segment, x: Tensor) -> Tensor:
        """One layer: checkpointed by the ten lines of `trick.py`, or as it is."""
        (number,) = segment
        layer = self.model.layers[number]
        return recompute(layer, x) if number in self.chosen else layer(x)

    def steps(self) -> Iterator[KeptStep]:
        """A picture after every unit; where a layer is computed again, also one of the moment before its backward
        pass.
        """
        self.model.zero_grad(set_to_none=True)
        for phase, number, work in self.walk.units():
            with self.ledger, self.rng:
                work()
            if phase == "loss":
                self.kept = tuple(self.ledger.alive.values())
            if number < 0:
                continue
            if phase == "backward" and number in self.chosen:
                yield self.told(
                    "again", number, self.ledger.fullest, f"layer {number + 1} forward again: its tensors are back"
                )
            yield self.told(phase, number, tuple(self.ledger.alive.values()), self.saying(phase, number))

    def saying(self, phase: str, number: int) -> str:
        where = f"layer {number + 1}" if number < self.config.n_layer else "the head"
        return (
            f"pass {self.run}: {where} {'backward' if phase == 'backward' else 'forward'},"
            f" {self.ledger.nbytes / 1e6:.2f} MB saved"
        )

    def told(self, phase: str, number: int, tensors: Sequence[Saved], doing: str) -> KeptStep:
        nbytes, sums = self.config.layer.sbh, dict[tuple[int, str], int]()
        for tensor in tensors:
            sums[tensor.layer, tensor.name] = sums.get((tensor.layer, tensor.name), 0) + tensor.nbytes
        told = tuple((layer, name, size / nbytes) for (layer, name), size in sums.items())
        kept = sum(tensor.nbytes for tensor in tensors)
        return KeptStep(self.run, phase, number, told, tuple(self.ledger.forwards), self.chosen, kept, doing=doing)

    def close(self) -> None:
        self.walk.close()
        self.ledger.close()


def per_layer(tensors: Sequence[Saved], layer: int) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor.layer == layer)


def table_of(tensors: Sequence[Saved], layer: Layer, number: int) -> tuple[tuple[str, str, int, float, float], ...]:
    """The saved tensors of one layer beside the paper's count, one line for each of a kind."""
    paper = {part.name: part.per_sbh for part in parts(replace(layer, mask=1))} | {INPUT: float(layer.number)}
    rows: dict[str, list[Saved]] = {}
    for tensor in tensors:
        if tensor.layer == number:
            rows.setdefault(tensor.name, []).append(tensor)
    told = []
    for name, group in rows.items():
        shape = " x ".join(map(str, group[0].shape)) + (f", {len(group)} of them" if len(group) > 1 else "")
        size = sum(tensor.nbytes for tensor in group)
        told.append((name, shape, size, size / layer.sbh, paper.get(name, 0.0)))
    return tuple(told)


# --- the formula over the context -------------------------------------------------------------------------------------


def contexts_of(config: KeptConfig) -> tuple[int, ...]:
    """A quarter, a half, and all of the context."""
    return tuple(sorted({max(2, config.context // share) for share in (4, 2, 1)}))


def curves_of(config: KeptConfig) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Bytes over sbh at the contexts where dots will come, with the ends of the lines."""
    written = replace(config.layer, fused=False, dropout=True)
    sizes = [replace(written, s=s) for s in (0, *contexts_of(config))]
    return (
        ("paper", tuple(per_sbh(replace(one, mask=1)) for one in sizes)),
        ("here", tuple(per_sbh(one) for one in sizes)),
        ("fused", tuple(per_sbh(replace(one, fused=True)) for one in sizes)),
        ("checkpointed", tuple(per_sbh(one, "full") for one in sizes)),
    )


def measured_at(config: KeptConfig, context: int, fused: bool) -> float:
    """What one layer keeps at this context, over sbh; always with dropout, as the formula has it."""
    device, layer = this_machine().device, replace(config.layer, s=context, fused=fused, dropout=True)
    model = gpt(layer, 1, config.dropout or 0.1, 2, config.seed, device, half_precision())
    ledger = Ledger(model)
    try:
        x = torch.zeros(config.batch, context, config.width, device=device, dtype=half_precision(), requires_grad=True)
        with ledger, DropoutState(config.seed, device):
            y = model.layers[0](x)
        kept = per_layer(tuple(ledger.alive.values()), 0)
        del y
        return kept / layer.sbh
    finally:
        ledger.close()


# --- the experiment ---------------------------------------------------------------------------------------------------


def prepared(config: KeptConfig) -> tuple[Stack, tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]], int]:
    """The model, a batch of the play, and how many characters it knows."""
    corpus, device = load_corpus("play"), this_machine().device
    model = gpt(
        config.layer, config.n_layer, config.dropout, len(corpus.symbols), config.seed, device, half_precision()
    )
    ids, targets = batch_of(corpus.train_ids, config.context, config.batch, torch.Generator().manual_seed(config.seed))
    return model, (ids.to(device), targets.to(device)), len(corpus.symbols)


@experiment("What does autograd keep for the backward pass, and what if a layer keeps only its input?")
def kept(config: KeptConfig) -> Iterator[KeptStep]:
    """The formula, a step with nothing checkpointed, the same step with the chosen layers, then one layer at three
    contexts.
    """
    layer, nothing = config.layer, (0,) * config.n_layer
    check_room(config.n_layer * kept_bytes(layer), f"{config.n_layer} layers" if config.n_layer > 1 else "1 layer")
    formula = tuple((part.name, part.per_sbh) for part in parts(layer))
    paper = tuple((part.name, "", 0, 0.0, part.per_sbh) for part in parts(replace(layer, mask=1)))
    start: dict[str, Any] = {
        "formula": formula,
        "curves": curves_of(config),
        "contexts": contexts_of(config),
        "chosen": config.chosen,
    }
    yield KeptStep(
        phase="formula",
        forwards=nothing,
        table=paper,
        doing=f"by formula a layer saves {per_sbh(layer):.2f} bytes per token and hidden unit (s b h)",
        **start,
    )
    model, batch, vocabulary = prepared(config)
    passes: list[tuple[Saved, ...]] = []
    gradients: list[list[Tensor]] = []
    forwards, summary = nothing, KeptStep()  # of the last pass, and what it kept at the end of its forward pass
    try:
        for run in (1, 2):
            watched = Watched(config, model, batch, run)
            try:
                for step in watched.steps():
                    forwards, summary = step.forwards, step if step.phase == "loss" else summary
                    rows = table_of(watched.kept, layer, 0) if run == 1 and step.phase == "loss" else ()
                    yield replace(step, table=rows, formula=formula)
            finally:
                watched.close()
            passes.append(watched.kept)
            gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
        measured: list[tuple[str, int, float]] = []
        for context in contexts_of(config):
            for attention in ATTENTION:
                measured.append((attention, context, measured_at(config, context, attention == "fused")))
            yield KeptStep(
                2,
                "measured",
                measured=tuple(measured),
                curves=curves_of(config),
                contexts=contexts_of(config),
                doing=f"one layer at {context} tokens: {measured[-2][2]:.2f} bytes per token and hidden unit, measured",
            )
        whole, left = (sum(tensor.nbytes for tensor in tensors) / 1e6 for tensors in passes)
        told = f"saved after the forward pass: {left:.2f} MB instead of {whole:.2f}"
        yield replace(
            summary,
            formula=formula,
            figures=figures_of(config, passes, gradients, vocabulary, forwards, measured),
            doing=told,
        )
    finally:
        model.zero_grad(set_to_none=True)
        gradients.clear()


def figures_of(
    config: KeptConfig,
    passes: Sequence[tuple[Saved, ...]],
    gradients: Sequence[Sequence[Tensor]],
    vocabulary: int,
    forwards: Sequence[int],
    measured: Sequence[tuple[str, int, float]],
) -> tuple[Result, ...]:
    """One layer, all of them, the counters, and whether the gradients are the same."""
    layer, chosen = config.layer, config.chosen
    # bytes by formula: nothing checkpointed, and the chosen layers
    plain, head = config.n_layer - len(chosen), head_bytes(layer, vocabulary)
    all_plain = config.n_layer * kept_bytes(layer) + head
    all_chosen = plain * kept_bytes(layer) + len(chosen) * kept_bytes(layer, "full") + head
    sums = [sum(tensor.nbytes for tensor in tensors) for tensors in passes]
    layer_bytes = per_layer(passes[0], 0) / layer.sbh
    norms = sum(tensor.nbytes for tensor in passes[0] if tensor.layer == 0 and tensor.name == STATISTICS) / layer.sbh
    half = max(2, config.context // 2)
    at_half = next(size for attention, context, size in measured if (attention, context) == ("written", half))
    apart = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))
    return (
        LAYER(layer_bytes, per_sbh(layer)),
        LAYER_PAPER(layer_bytes, per_sbh(replace(layer, mask=1))),
        *((CHECKPOINTED(per_layer(passes[1], chosen[0]) / layer.sbh, 2.0),) if chosen else ()),
        ALL_PLAIN(sums[0] / 1e6, all_plain / 1e6),
        ALL_CHOSEN(sums[1] / 1e6, all_chosen / 1e6),
        FORWARDS(sum(forwards), config.n_layer + len(chosen)),
        GRADIENT_DIFFERENCE(apart, 0.0),
        NORM_STATISTICS(norms, statistics_bytes(layer)),
        HALF_CONTEXT(at_half, per_sbh(replace(layer, s=half, fused=False, dropout=True))),
    )


def statistics_bytes(layer: Layer) -> float:
    """Mean and scale of two LayerNorms, over sbh: in the activations' type on a CPU, in 32 bits on a GPU."""
    return (4 if this_machine().gpu else layer.number) * 4 / layer.h
