r"""Big models: what one GPU keeps for the backward pass, by the paper's formulas, and one small layer that is really
weighed.

A layer of the GPT family keeps $sbh(34 + 5as/h)$ bytes. Over $t$ GPUs of tensor parallelism, with or without sequence
parallelism, with or without the core of attention:

| way | bytes per layer and GPU |
|---|---|
| tensor | $sbh\left(10 + 24/t + 5as/(ht)\right)$ |
| tensor + sequence | $sbh/t \left(34 + 5as/h\right)$ |
| tensor + selective | $sbh\left(10 + 24/t\right)$ |
| tensor + sequence + selective | $34\,sbh/t$ |
| full | $2\,sbh$ |

Times $L$ layers: with pipeline parallelism the first stage has as many texts in flight as there are stages, so it keeps
$L$ layers' worth however many there are.

Selective recomputation drops the core of attention: most of the memory of a long context, few of its FLOPs. The paper
counts model FLOPs as $72BLsh^2(1 + s/6h + V/12hL)$ and, with selective recomputation, $s/3h$ in place of $s/6h$: 2.7 %
more for GPT-3. One more forward pass of the core is a third of that, 0.9 %. The figures show both.

Llama's layer is counted the same way: $12 + 4k/a + 8m/h$ for $k$ heads of keys and an MLP of width $m$, no dropout, and
fused attention, which keeps one 32-bit number per head and token. So selective recomputation has nothing left to save
there.

**Measured:** a layer of width 128 with the same $as/h$, $m/h$ and $t$ (one rank's part, without the communication)
saves, per $sbh$, what the big one would. Its masks are this device's. RMSNorm on a CPU is a chain of small operations,
which keeps its input and its result in 32 bits: 8 in place of 2.

Code -> paper: `ranks` -> t, `context` -> s, `batch` -> b.
Left out: the vocabulary's part on the last stage, $4sbh(1 + V/h)/t$; interleaved schedules, which keep $1 + (p-1)/(pm)$
times as much; sequence parallelism in the measured column.
Source: Korthikanti et al. 2022, arXiv:2205.05198, equations 1 to 9 and table 2; Llama's shapes from its configs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from core.foundations.activation_bytes import Layer, Recompute, per_sbh
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.foundations.published_shapes import SHAPES
from core.foundations.settings import seed_field
from core.gradient_checkpointing.block import Block, DropoutState, LlamaBlock, Stack, causal_mask, draw_weights
from core.gradient_checkpointing.kept import ATTENTION, SBH, half_precision, mask_bytes, per_layer
from core.gradient_checkpointing.ledger import Ledger
from core.gradient_checkpointing.trick import recompute

GB = 1e9
CARD = 80  # GB, an H100
CONTEXTS = tuple(2**power for power in range(9, 18))
SMALL_WIDTH, SMALL_HEADS, SMALL_CONTEXT = 128, 8, 512

PAPER = "Korthikanti et al. 2022, section 5"
ALL_LAYERS = Figure(
    "activations of all layers on one GPU", "GB", "limit", "the memory of an H100", "computed", headline=True
)
ALL_THREE = Figure(
    "with tensor, sequence parallelism and recomputation", "GB", "baseline", label="computed", headline=True
)
ONE_LAYER = Figure("one layer, nothing recomputed", "GB", None, "equation 1, or its like for Llama", "computed")
CORE = Figure("core of attention", SBH, None, "5as/h; 4a/h if fused", "computed")
SAVED = Figure("saved by selective recomputation", "% of a layer", "paper", PAPER, "computed", headline=True)
MORE_FLOPS = Figure(
    "more FLOPs, selective recomputation",
    "%",
    "paper",
    f"{PAPER}: s/6h over 1 + s/6h + V/12hL",
    "computed",
    headline=True,
)
CORE_FLOPS = Figure("more FLOPs, one forward pass of the core", "%", None, "a third of it", "computed")
SMALL = Figure("small layer, {way}", SBH, "theory")


@dataclass(frozen=True)
class Model:
    """A model's shape: its layer without the text, and what surrounds it."""

    name: str
    brief: str
    layer: Layer
    n_layer: int
    vocabulary: int
    saved: float | None = None  # % of the activations that selective recomputation saves, as the paper says
    slower: float | None = None  # % more FLOPs for it, as the paper says


def big_model(name: str, brief: str, published: str, saved: float | None = None, slower: float | None = None) -> Model:
    """A published shape as the formulas want it."""
    shape = SHAPES[published]
    if shape.dialect == "llama":
        layer = Layer(
            0, 0, shape.width, shape.heads, True, False, dialect="llama", mlp=shape.mlp, key_heads=shape.key_heads
        )
    else:
        layer = Layer(0, 0, shape.width, shape.heads)
    return Model(name, brief, layer, shape.layers, shape.vocabulary, saved, slower)


BIG = {
    "22b": big_model("22B of the paper", "22B", "megatron-22b"),
    "gpt3": big_model("GPT-3, 175B", "GPT-3", "gpt-3", 70, 2.7),
    "mtnlg": big_model("MT-NLG, 530B", "MT-NLG", "megatron-530b", 65, 1.6),
    "1t": big_model("1T of the paper", "1T", "megatron-1t"),
    "llama2_7b": big_model("Llama-2-7B", "L2-7B", "llama-2-7b"),
    "llama2_70b": big_model("Llama-2-70B", "L2-70B", "llama-2-70b"),
    "llama3_8b": big_model("Llama-3-8B", "L3-8B", "llama-3-8b"),
    "llama3_405b": big_model("Llama-3.1-405B", "L3-405", "llama-3-405b"),
}

WAYS: dict[str, tuple[Recompute, bool, bool]] = {  # recomputed, over t ranks, sequence parallel as well
    "none": ("none", False, False),
    "tensor": ("none", True, False),
    "tensor + sequence": ("none", True, True),
    "tensor + selective": ("selective", True, False),
    "all three": ("selective", True, True),
    "full": ("full", False, False),
}


@dataclass(frozen=True)
class BigConfig(Config):
    """Which model, on how many ranks, with how long a text."""

    model: str = setting(
        "gpt3",
        "Model",
        choices={key: one.name for key, one in BIG.items()},
        help="Larger models save more; Llama's layers are counted by a formula of their own.",
    )
    ranks: int = setting(
        8,
        "Tensor-parallel GPUs t",
        unit="GPU",
        low=1,
        high=64,
        help="More GPUs divide a part of each layer's activations.",
    )
    context: int = setting(
        2048,
        "Context s",
        unit="token",
        low=1,
        high=2**20,
        help="Twice the context saves twice as much, and four times as much in attention's scores.",
    )
    batch: int = setting(
        1, "Batch b", unit="sequence", low=1, high=1024, help="Twice the sequences save twice as much.", slider=True
    )
    attention: str = setting(
        "written",
        "Attention of GPT",
        choices=ATTENTION,
        help="Fused attention saves no score matrix, so there is nothing left for selective recomputation.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        heads = BIG[self.model].layer.a
        if heads % self.ranks:
            raise ValueError(f"ranks must divide the {heads} heads of {BIG[self.model].name}, got {self.ranks}")

    def layer(self, key: str) -> Layer:
        """A layer of that model with this text."""
        known = BIG[key].layer
        return replace(known, s=self.context, b=self.batch, fused=known.fused or self.attention == "fused")


@dataclass(frozen=True)
class BigStep(Step):
    """The bars of a model, the table of all, and the layer that was weighed."""

    bars: tuple[tuple[str, float], ...] = ()  # way, bytes of one GPU
    table: tuple[tuple[str, tuple[float, ...]], ...] = ()  # model, bytes by way
    ways: tuple[str, ...] = ()
    contexts: tuple[int, ...] = ()
    curves: tuple[tuple[str, tuple[float, ...]], ...] = ()  # way, bytes of one GPU over the contexts
    formula: tuple[
        tuple[str, float, float], ...
    ] = ()  # way, bytes over sbh by the paper and with this device's masks, of the small layer
    measured: tuple[tuple[str, float], ...] = ()  # way, bytes over sbh
    small: tuple[int, int, int, int] = (0, 0, 0, 0)  # its s, h, a, t


def gpu_bytes(model: Model, layer: Layer, way: str, ranks: int) -> float:
    """What one GPU keeps of all layers."""
    again, over, sequence = WAYS[way]
    return model.n_layer * layer.sbh * per_sbh(layer, again, ranks if over else 1, sequence)


def saved_percent(layer: Layer) -> float:
    """How much of a layer's memory selective recomputation saves."""
    return 100 * (1 - per_sbh(layer, "selective") / per_sbh(layer))


def slower_percent(model: Model, layer: Layer) -> tuple[float, float]:
    """More FLOPs for it: by the paper's ratio, and for one forward pass of the core alone."""
    core, output = layer.s / (6 * layer.h), model.vocabulary / (12 * layer.h * model.n_layer)
    ratio = 100 * core / (1 + core + output)
    return ratio, ratio / 3


# --- the measured layer -----------------------------------------------------------------------------------------------


def small_layer(layer: Layer, ranks: int) -> tuple[Layer, int]:
    """A layer with the same as/h where that fits, the same shape of the MLP and share of key heads, and t up to its
    heads.
    """
    per_head = SMALL_WIDTH // SMALL_HEADS
    s = max(1, min(SMALL_CONTEXT, round(layer.square * per_head)))
    keys = max(1, round(SMALL_HEADS * (layer.key_heads or layer.a) / layer.a))
    mlp = round(SMALL_WIDTH * layer.inner / layer.h)
    number = 2
    small = replace(
        layer, s=s, b=2, h=SMALL_WIDTH, a=SMALL_HEADS, mlp=mlp, key_heads=keys, number=number, mask=mask_bytes(number)
    )
    return small, max(share for share in (1, 2, 4, 8) if share <= ranks)


def measurable(layer: Layer, ranks: int) -> list[str]:
    """Ways that one process can run: no sequence parallelism, and of Llama no tensor parallelism."""
    if layer.dialect == "llama":
        return ["none", "full"]
    return [way for way, (_, over, sequence) in WAYS.items() if not sequence and (ranks > 1 or not over)]


def weighed(layer: Layer, way: str, ranks: int, seed: int) -> float:
    """What autograd keeps of one such layer, over sbh."""
    device, dtype = this_machine().device, half_precision()
    again, over, _ = WAYS[way]
    if layer.dialect == "llama":
        block: Block | LlamaBlock = LlamaBlock(layer)
    else:
        block = Block(layer, 0.1, causal_mask(layer.s), ranks if over else 1)
        block.again = again == "selective"
    draw_weights(block, seed)
    block = block.to(device, dtype)
    model = Stack([block], 1, 1, 1).to(device)
    ledger = Ledger(model)
    try:
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(layer.b, layer.s, layer.h, generator=rng).to(device, dtype).requires_grad_()
        with ledger, DropoutState(seed, device):
            y = recompute(block, x) if again == "full" else block(x)
        kept = per_layer(tuple(ledger.alive.values()), 0)
        del y
        return kept / layer.sbh
    finally:
        ledger.close()


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Where does the memory of a big model's activations go, and what brings it down?")
def big(config: BigConfig) -> Iterator[BigStep]:
    """All that is computed at once; then the small layer, way by way."""
    model, layer = BIG[config.model], config.layer(config.model)
    small, ranks = small_layer(layer, config.ranks)
    formula: list[tuple[str, float, float]] = []
    for way in measurable(layer, ranks):
        again, over, _ = WAYS[way]
        paper, here = (per_sbh(one, again, ranks if over else 1) for one in (replace(small, mask=1), small))
        formula.append((way, paper, here))
    bars = tuple((way, gpu_bytes(model, layer, way, config.ranks)) for way in WAYS)
    table = tuple(
        (one.brief, tuple(gpu_bytes(one, config.layer(key), way, config.ranks) for way in WAYS))
        for key, one in BIG.items()
    )
    curves = tuple(
        (way, tuple(gpu_bytes(model, replace(layer, s=s), way, config.ranks) for s in CONTEXTS)) for way in WAYS
    )
    told = (
        f"{model.name}: {bars[0][1] / GB:,.1f} GB on one GPU, {bars[-2][1] / GB:,.1f} GB with all three,"
        f" {bars[-1][1] / GB:,.1f} GB when all is computed again"
    )
    start = BigStep(bars, table, tuple(WAYS), CONTEXTS, curves, tuple(formula), (), (small.s, small.h, small.a, ranks))
    yield replace(start, figures=computed(config, model, layer), doing=told)
    measured, figures = list[tuple[str, float]](), list[Result]()
    for way, _, here in formula:
        kept = weighed(small, way, ranks, config.seed)
        measured.append((way, kept))
        figures.append(SMALL.of(way=way)(kept, here, source=source_of(small)))
        yield BigStep(
            formula=tuple(formula),
            measured=tuple(measured),
            doing=f"a small layer, {way}: {kept:.2f} bytes per token and hidden unit, measured",
        )
    yield BigStep(formula=tuple(formula), measured=tuple(measured), figures=tuple(figures), doing=told)


def source_of(small: Layer) -> str:
    if small.dialect == "llama":
        return (
            "12 + 4k/a + 8m/h + 4a/h; the gap is two RMSNorms, which on a CPU keep input and result in 32 bits each, 8"
            " in place of 2"
        )
    return "formula of How it works with this device's masks; the gap is the norms' statistics, 8/h (16/h on a GPU)"


def computed(config: BigConfig, model: Model, layer: Layer) -> tuple[Result, ...]:
    """The paper's numbers beside the formulas' where it gives one (at 2048 tokens), and what a GPU keeps."""
    published = config.context == 2048 and not layer.fused
    nothing, best = (gpu_bytes(model, layer, way, config.ranks) / GB for way in ("none", "all three"))
    selective = per_sbh(layer, "selective")
    figures = [
        ALL_LAYERS(nothing, float(CARD)),
        ALL_THREE(best, nothing, source=f"nothing recomputed, one GPU; {selective:.4g} sbh/t for {config.ranks} GPUs"),
        ONE_LAYER(layer.sbh * per_sbh(layer) / GB),
        CORE(per_sbh(layer) - selective),
        SAVED(saved_percent(layer), model.saved if published else None),
    ]
    if not layer.fused:
        ratio, core = slower_percent(model, layer)
        figures += [MORE_FLOPS(ratio, model.slower if published else None), CORE_FLOPS(core)]
    return tuple(figures)
