r"""The memory meter: load a model, fine-tune it with LoRA for a few steps, and weigh every byte by kind while it
happens.

The base is frozen, so it needs no gradients and no optimizer: what is left to save is the base itself. In 32 bits each
of its weights costs 4 bytes, in 16 bits 2, in 8 bits 1. NF4 stores blocks of 64 weights as 4-bit codes and one fp32
constant, $4 + 32/64 = 4.5$ bits; double quantization stores those constants in 8 bits, with one fp32 number for every
256 of them:

$$4 + \frac{8}{64} + \frac{32}{64 \cdot 256} = 4.127 \text{ bits}, \qquad 0.373 \text{ bits saved per weight.}$$

Every precision that is chosen is loaded, adapted and trained in turn, with the same text, the same adapters and the
same settings. The dashed line is the peak that the formulas predict before anything is loaded (see
`core/qlora/budget.py`); the areas are the bytes of live tensors (see `core/qlora/memory.py`). What to look for:

- Only the stored weights shrink. Activations do not: per token a layer keeps
  $4(7C + Q + M + H + 2 + 7r) + 2(2Q + 2K + 3M)$ bytes in 16 bits (width $C$, MLP $M$, queries $Q$, keys $K$, heads
  $H$), so with a long context they outweigh a 4-bit base. Gradient checkpointing drops them and computes them again,
  layer by layer (the gray spikes). The int8 layer holds its inputs itself, where checkpointing cannot reach them.
- Gradients come as activations go, so the peak is at the start of the backward pass.
- Adapters, their gradients and their optimizer are 16 bytes per trainable number, in every precision.
- Quantizing needs a layer's weights in 16 bits for a moment: the spikes on the way up.

The same formulas, with the shapes of LLaMA 7B to 65B, give the bars below: computed, since such a model does not fit
here. 7 billion weights in fp32 are the 28 GB often quoted (6.738 billion are 26.95 GB). Full fine-tuning in 16 bits
takes 12 bytes per weight, 780 GB for 65 billion, before any activation.

Code -> paper: `nf4` -> NF4, `nf4dq` -> NF4 + DQ, `constants` -> c_2 (c_1 and c_2 with DQ), `rank` -> r.
Left out: paged optimizers (they need a GPU; they move the optimizer's state out of the way and do not shrink it); on a
CPU, fp16 (bfloat16 stands in: the same bytes, and 5 to 10 times faster there); the rotary frequencies (64 bytes).
Source: Dettmers et al. 2023, arXiv:2305.14314, sections 2 and 3 (65 billion: from over 780 GB to under 48 GB).
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import (
    BASES,
    FOLDER,
    check_memory,
    cross_entropy,
    fetching_words,
    folder_of,
    free_bytes,
    parameters_of,
)
from core.foundations.corpus import batch_of, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.machine import this_machine
from core.foundations.settings import seed_field
from core.foundations.turns import with_pauses
from core.lora.tuning import adapt, layer_shapes
from core.qlora.budget import (
    BIG,
    NOMINAL_BITS,
    OPTIMIZERS,
    PRECISIONS,
    Load,
    Parts,
    at_peak,
    big_bars,
    big_figures,
    budget,
    itemised,
    parts_of,
    row,
)  # fmt: skip
from core.qlora.loading import loaded
from core.qlora.memory import KINDS, PLACES, AllocatorRecord, LiveBytes
from core.qlora.meter_figures import kind_figures, peak_figures

MOST_TOKENS = 512  # of a batch: a forward or backward pass is one unit of work
MOMENTS = 80  # drawn per precision
LOADING, ADAPTING, TRAINING = 0.25, 0.05, 0.67  # shares of a precision's stretch of the chart; the rest is letting go


@dataclass(frozen=True)
class MeterConfig(Config):
    """What is fine-tuned, in which precision, and what its memory depends on."""

    model: str = setting(
        "shipped",
        "Model",
        choices=BASES,
        help="SmolLM2 is a real, if small, language model. The models from the hub are larger and need a network once.",
        sets={real_model.NAME: {"precision": "nf4dq", "context": 32}},
    )
    precision: str = setting(
        "all",
        "Base stored in",
        choices={"all": "all five, one after the other"} | PRECISIONS | {"fp16": "fp16 (on a CPU bfloat16, as large)"},
        help="Fewer bits per weight make the stored model smaller; everything else stays as large.",
    )
    batch: int = setting(
        1,
        "Batch",
        unit="sequence",
        low=1,
        high=16,
        help="More sequences at once keep more activations in memory.",
        slider=True,
    )
    context: int = setting(
        64,
        "Context",
        unit="token",
        low=1,
        high=512,
        help="A longer context keeps more activations; batch times context may be at most 512 tokens.",
    )
    checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        help="Keeps one input per layer and computes the rest again: less memory, more time.",
    )
    big: str = setting(
        "7B",
        "Big model shown",
        choices={name: f"LLaMA {name}" for name in BIG},
        help="The LLaMA whose memory is computed by the same formulas.",
    )
    rank: int = setting(
        8,
        "Rank of LoRA",
        low=1,
        high=64,
        more=True,
        help="A higher rank trains more weights; each needs 16 bytes for itself, its gradient and its optimizer "
        "states.",
    )
    optimizer: str = setting(
        "adamw",
        "Optimizer",
        choices=OPTIMIZERS,
        more=True,
        help="States in 8 bits take a quarter of the memory of states in 32 bits.",
    )
    steps: int = setting(
        2,
        "Steps",
        unit="step",
        low=1,
        high=20,
        more=True,
        help="More steps of fine-tuning in each precision; the peak is reached within two.",
    )
    big_context: int = setting(
        512,
        "Context of the big model",
        unit="token",
        low=1,
        high=8192,
        more=True,
        help="A longer context keeps more activations of the big model.",
    )
    seed: int = seed_field(high=2**32 - 1)

    def check(self) -> None:
        tokens = self.batch * self.context
        if tokens > MOST_TOKENS:
            raise ValueError(
                f"batch x context must be at most {MOST_TOKENS} tokens, got {self.batch} x {self.context} = {tokens}"
            )

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(PRECISIONS) if self.precision == "all" else (self.precision,)

    def load(self, context: int) -> Load:
        return Load(self.batch, context, self.rank, self.optimizer, self.checkpointing)


@dataclass(frozen=True)
class MeterStep(Step):
    """The whole picture after one unit of work. Bytes by kind are in the order of `KINDS`."""

    precision: str = ""
    phase: str = ""  # load, adapt, forward, backward, update, free
    loss: float | None = None  # nats per token, before the update
    moments: Float[np.ndarray, "N"] | None = (
        None  # all so far, on the chart's axis: precision number 2 goes from 1 to 2
    )
    live: Float[np.ndarray, "N kinds"] | None = None  # bytes at those moments
    peaks: tuple[tuple[str, tuple[float, ...]], ...] = ()  # precision, and its largest moment so far by kind
    forecast: tuple[tuple[str, tuple[float, ...]], ...] = ()  # precision, and its predicted peak by kind
    ledger: tuple[tuple[float, float], ...] = ()  # of this precision, by kind: predicted, and the most so far
    items: tuple[tuple[str, int], ...] = ()  # from the rule of thumb to the bytes of weights and constants
    bars: tuple[
        tuple[str, tuple[float, ...]], ...
    ] = ()  # on the first Step: ways to fine-tune the big model, its peak by kind
    totals: tuple[tuple[str, tuple[float, ...]], ...] = ()  # on the first Step: every big model, the sums of such bars


@dataclass
class Chart:
    """What all precisions of a run have shown so far."""

    forecast: dict[str, dict[str, int]]
    moments: list[Float[np.ndarray, "n"]] = field(default_factory=list)
    live: list[Float[np.ndarray, "n kinds"]] = field(default_factory=list)
    peaks: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def step(self, **what: Any) -> MeterStep:
        if self.live:
            what |= {
                "moments": np.concatenate(self.moments),
                "live": np.concatenate(self.live),
                "peaks": tuple(self.peaks.items()),
            }
        return MeterStep(forecast=tuple((name, row(kinds)) for name, kinds in self.forecast.items()), **what)


# --- one precision ----------------------------------------------------------------------------------------------------


class Weighed:
    """A base in one precision, tuned in units of work, each of which is weighed."""

    def __init__(self, config: MeterConfig, precision: str, parts: Parts, chart: Chart) -> None:
        self.config, self.precision, self.parts, self.chart = config, precision, parts, chart
        self.device = this_machine().device
        self.live = LiveBytes(self.device)
        self.allocator = AllocatorRecord() if self.device == "cuda" else None
        self.predicted = budget(parts, precision, config.load(config.context), self.device)
        self.place = config.precisions.index(precision)
        self.share = 0.0  # of this precision's stretch of the chart that is over
        self.model: Any = None
        self.optimizer: Any = None
        chart.moments.append(np.array([float(self.place)]))
        chart.live.append(np.zeros((1, len(KINDS))))

    def told(self, phase: str, until: float, **what: Any) -> MeterStep:
        """What happened since the last time, spread over the chart up to `until`."""
        live = self.live.take(max(3, round(MOMENTS * (until - self.share))))
        self.chart.moments.append(self.place + np.linspace(self.share, until, len(live)))
        self.chart.live.append(live)
        self.chart.peaks[self.precision] = tuple(self.live.peak.tolist())
        self.share = until
        ledger = tuple((float(self.predicted[kind]), float(self.live.most[PLACES[kind]])) for kind in KINDS)
        return self.chart.step(
            precision=self.precision, phase=phase, ledger=ledger, items=itemised(self.parts, self.precision), **what
        )

    def run(self, folder: Path, ids: Int[Tensor, "N"]) -> Iterator[MeterStep]:
        """Load, adapt, then forward, backward and update for every step."""
        name, loading = PRECISIONS[self.precision], loaded(folder, self.precision, self.device, self.live)
        while self.model is None:
            with self.weighing():
                share, self.model = next(loading)
            yield self.told(
                "load", LOADING * share, doing=f"{name}: {share:.0%} loaded, {self.live.now.sum() / 1e6:.2f} MB"
            )
        with self.weighing():
            self.adapt()
        yield self.told("adapt", LOADING + ADAPTING)
        rng = torch.Generator().manual_seed(self.config.seed)
        for step in range(self.config.steps):
            start, length = LOADING + ADAPTING + TRAINING * step / self.config.steps, TRAINING / self.config.steps
            with self.weighing():
                loss = self.forward(*batch_of(ids, self.config.context, self.config.batch, rng))
            yield self.told("forward", start + 0.4 * length)
            with self.weighing():
                value = self.backward(loss)
            del loss
            yield self.told("backward", start + 0.85 * length, loss=value)
            with self.weighing():
                self.update()
            yield self.told("update", start + length, doing=f"{name}: step {step + 1}, loss {value:.3f} nats per token")

    def weighing(self) -> AbstractContextManager[None]:
        """On a GPU, its allocator watches as well."""
        return self.allocator or nullcontext()

    def adapt(self) -> None:
        """LoRA by peft on all linear layers but the output; the adapters are in 32 bits whatever the base is."""
        with self.live:
            self.model = adapt(
                self.model,
                self.config.rank,
                2.0 * self.config.rank,
                list(layer_shapes(self.model, "all")),
                self.config.seed,
            ).train()
        if self.config.checkpointing:
            self.model.base_model.model.activation_checkpointing_enable(
                {"use_reentrant": False, "preserve_rng_state": False}
            )
        self.live.claim("adapters", self.trained)
        if self.config.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(self.trained, 1e-3, foreach=False, fused=False)
        else:
            import bitsandbytes as bnb

            self.optimizer = bnb.optim.AdamW8bit(self.trained, lr=1e-3)

    @property
    def trained(self) -> list[Tensor]:
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def forward(self, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Tensor:
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        self.live.leave_out(inputs, targets)
        with self.live:
            loss = cross_entropy(self.model, inputs, targets)
        self.live.claim_rest("activations")
        return loss

    def backward(self, loss: Tensor) -> float:
        with self.live:
            loss.backward()
        self.live.claim("gradients", [weight.grad for weight in self.trained if weight.grad is not None])
        return float(loss.detach())

    def update(self) -> None:
        """The optimizer makes its state at its first step; the gradients go."""
        with self.live:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.live.claim(
            "optimizer",
            [part for state in self.optimizer.state.values() for part in state.values() if isinstance(part, Tensor)],
        )

    def free(self) -> None:
        """Let go of everything now. A model of peft refers to itself in circles, which Python would free late."""
        for module in list(self.model.modules()) if self.model is not None else ():
            vars(module).clear()
        self.model = self.optimizer = None


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What fills the memory when a model is fine-tuned, and what does QLoRA take out?")
def meter(config: MeterConfig) -> Iterator[MeterStep]:
    """Every chosen precision in turn: load, adapt, train, weigh, free."""
    big, folder = config.load(config.big_context), FOLDER
    totals = tuple((name, tuple(sum(kinds) for _, kinds in big_bars(name, big))) for name in BIG)
    start: dict[str, Any] = {
        "bars": big_bars(config.big, big),
        "totals": totals,
        "figures": big_figures(config.big, big),
    }
    if config.model != "shipped":
        yield MeterStep(**start)
        folder = yield from fetching(config)
    parts = counted_in(folder)
    chart = Chart(
        {name: at_peak(parts, name, config.load(config.context), this_machine().device) for name in config.precisions}
    )
    fitting = those_that_fit(config, chart.forecast)
    last = config.precisions[-1]
    ledger = tuple((size, 0.0) for size in row(budget(parts, last, config.load(config.context), this_machine().device)))
    yield chart.step(precision=last, ledger=ledger, items=itemised(parts, last), **start)
    ids = training_ids(folder)
    warm_tables()
    most: dict[str, Float[np.ndarray, kinds]] = {}
    for precision in config.precisions:
        if precision not in fitting:
            need = sum(chart.forecast[precision].values()) / 1e9
            yield chart.step(
                precision=precision,
                doing=f"{PRECISIONS[precision]} needs {need:.1f} GB, more than is free here: left out",
            )
            continue
        weighed = Weighed(config, precision, parts, chart)
        try:
            yield from weighed.run(folder, ids)
        finally:
            weighed.free()
        most[precision] = weighed.live.most
        forecast = sum(weighed.chart.forecast[precision].values())
        allocator = None if weighed.allocator is None else float(weighed.allocator.peak)
        figures = peak_figures(precision, forecast, float(weighed.live.peak.sum()), allocator)
        yield weighed.told("free", 1.0, figures=figures)
    yield chart.step(precision=precision, figures=kind_figures(parts, config.load(config.context), most), doing="done")


def fetching(config: MeterConfig) -> Generator[MeterStep, None, Path]:
    """The folder of a hub model, unless even its fewest bits could not be held here."""
    least = min(NOMINAL_BITS[precision] for precision in config.precisions)
    check_memory(parameters_of(config.model) * least / 8, f"{BASES[config.model]}, in the fewest bits chosen,")
    return (yield from with_pauses(folder_of(config.model), MeterStep(doing=fetching_words(config.model))))


def counted_in(folder: Path) -> Parts:
    from transformers import AutoConfig

    return parts_of(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))


def those_that_fit(config: MeterConfig, peaks: dict[str, dict[str, int]]) -> list[str]:
    """The precisions for which there is memory. If there is none, the one that needs the least says what it needs."""
    needs = {precision: float(sum(kinds.values())) for precision, kinds in peaks.items()}
    free = free_bytes()
    fitting = [precision for precision, need in needs.items() if need <= free]
    if not fitting:
        least = min(needs, key=lambda precision: needs[precision])
        check_memory(needs[least], f"{BASES[config.model]}, fine-tuned in {PRECISIONS[least]},")
    return fitting


def training_ids(folder: Path) -> Int[Tensor, "N"]:
    """The first tokens of the play."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return torch.tensor(tokenizer.encode(load_corpus("play").train[:40_000], add_special_tokens=False).ids)


def warm_tables() -> None:
    """The libraries make some tensors at first use and keep them: they belong to no run."""
    import peft  # noqa: F401
    from bitsandbytes.functional import quantize_4bit

    quantize_4bit(torch.zeros(64, device=this_machine().device), compress_statistics=True)
