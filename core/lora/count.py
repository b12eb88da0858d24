r"""Count: how many numbers LoRA trains in big models, counted by peft and never looked up.

A matrix of $d_{out} \times d_{in}$ gets $A: r \times d_{in}$ and $B: d_{out} \times r$, so over all adapted matrices

$$n = \sum_{\text{matrices}} r\,(d_{in} + d_{out}),$$

linear in the rank, and a small fraction of $\sum d_{in} d_{out}$. The model is built from its published configuration
on torch's *meta* device: every tensor has its shape and no memory, so 175 billion parameters fit into this app. peft
puts its adapters in, layer by layer, and `get_nb_trainable_parameters` counts. The formula stands beside the count.

The notebook this app grew from trains 8,388,608 of 6,746,804,224 parameters (Llama 2 7B, $r = 8$ on q, k, v and o) and
says "about 12 %". It is 0.124 %. The share can be large all the same: whoever trains the embedding and the output layer
whole beside LoRA (`modules_to_save` in peft) trains a tenth to a quarter of a model with a large vocabulary, whatever
the rank. Choose the last of the targets to see it.

GPT-2 and GPT-3 keep q, k and v in one matrix of $d \times 3d$ (`c_attn`). LoRA on all of it costs $r (d + 3d)$: as much
as on q and v apart, $2 \cdot r(d + d)$. With the output matrix it is $6rd$ per layer, where four matrices of their own,
as in the paper's GPT-3, cost $8rd$: at $r = 2$ this counts 14.2 million, and table 5 of the paper says 18 million.
GPT-3's weights were never published; its shape was (96 layers, width 12,288), and its output layer is taken to be the
embedding, as in GPT-2.

Left out: memory for gradients and the optimizer (QLoRA's meter weighs it); dropout and scaling, which have no
parameters.
Source: Hu et al. 2021, arXiv:2106.09685, section 5.1 and tables 2, 4; Brown et al. 2020, arXiv:2005.14165, table 2.1;
the models' own config.json files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.lora.adapter import trained_numbers
from core.lora.published import EMBEDDINGS, MODELS, TARGETS, Published, build

CHARTED = (1, 2, 4, 8, 16, 32, 64)
NOTEBOOK_PERCENT = 12.0  # what a published notebook says, for the settings of `as_the_notebook`
TRAINED = Figure("trained numbers", "numbers", "theory", "sum of r (d_in + d_out)", headline=True)
TOTAL = Figure("all numbers", "numbers", "theory", "the model's own, and the formula")
SHARE = Figure("trained fraction", "%", "theory", "the same formula over all numbers", headline=True)
ADAPTER_BYTES = Figure(
    "adapter file in float16", "MB", "baseline", "the whole model in float16; 2 bytes per number", "computed", True
)
EMBEDDING_SHARE = Figure(
    "embeddings among the trained numbers", "%", None, "trained whole beside LoRA, at any rank", "computed"
)


@dataclass(frozen=True)
class CountConfig(Config):
    """Which model, which of its matrices, which rank."""

    model: str = setting(
        "llama-2-7b",
        "Model",
        choices={name: told.label for name, told in MODELS.items()},
        help="A bigger model has more weights, and LoRA trains a smaller fraction of them.",
    )
    targets: str = setting(
        "qkvo", "Adapt", choices=TARGETS, help="More matrices with an adapter mean more numbers to train."
    )
    rank: int = setting(8, "LoRA rank r", low=1, high=256, help="A higher rank trains more numbers, in proportion.")


@dataclass(frozen=True)
class CountStep(Step):
    """The count so far. A kind of matrix: its name, d_in, d_out, how many there are, by the formula, counted so far."""

    rank: int
    layers: int  # counted so far
    of_layers: int
    trained: int  # counted by peft so far
    total: int  # all parameters of the model with its adapters
    kinds: tuple[tuple[str, int, int, int, int, int], ...]
    embeddings: int  # trained whole beside LoRA
    ranks: tuple[tuple[int, int], ...]  # rank, numbers trained by the formula (and the embeddings)
    verdict: str = ""


@dataclass
class Kind:
    """One kind of matrix, the same in every layer."""

    name: str
    d_in: int
    d_out: int
    number: int = 0
    counted: int = 0


def as_the_notebook(config: CountConfig) -> bool:
    return (config.model, config.targets, config.rank) == ("llama-2-7b", "qkvo", 8)


def sides(matrix: Any) -> tuple[int, int]:
    """d_in and d_out; GPT-2's Conv1D stores its weight the other way round."""
    if isinstance(matrix, nn.Linear):
        return matrix.in_features, matrix.out_features
    return matrix.weight.shape[0], matrix.weight.shape[1]


def kinds_of(layers: Any, names: tuple[str, ...]) -> dict[str, Kind]:
    """The matrices to adapt, by their name inside a layer."""
    found: dict[str, Kind] = {}
    for layer in layers:
        for name in names:
            kind = found.setdefault(name, Kind(name.split(".")[-1], *sides(layer.get_submodule(name))))
            kind.number += 1
    if len({kind.name for kind in found.values()}) < len(found):  # two end in the same word: tell where they are
        for name, kind in found.items():
            kind.name = name
    return found


def put_adapters(
    part: nn.Module, names: tuple[str, ...], config: CountConfig, told: Published, whole: tuple[str, ...] = ()
) -> tuple[int, int]:
    """peft's adapters in one part of a model. Returns peft's own count: trained, and all."""
    from peft import LoraConfig, get_peft_model

    pattern = (  # as named in a layer, or behind its number
        rf"(.*\.\d+\.)?({'|'.join(name.replace('.', '[.]') for name in names)})"
    )
    wanted = LoraConfig(
        r=config.rank,
        target_modules=pattern,
        modules_to_save=list(whole) or None,
        fan_in_fan_out=told.family.transposed,
    )
    trained, everything = get_peft_model(part, wanted).get_nb_trainable_parameters()
    return int(trained), int(everything)


class Tally:
    """A model on the meta device, whose layers get their adapters one after the other."""

    def __init__(self, config: CountConfig) -> None:
        self.config, self.told = config, MODELS[config.model]
        self.model = build(self.told)
        self.names = self.told.family.matrices(config.targets)
        self.base = sum(weight.numel() for weight in self.model.parameters())
        self.layers = list(self.model.get_submodule(self.told.family.layers))
        self.kinds = kinds_of(self.layers, self.names)
        thinnest = min(self.kinds.values(), key=lambda kind: min(kind.d_in, kind.d_out))
        if config.rank > (most := min(thinnest.d_in, thinnest.d_out)):
            raise ValueError(
                f"rank must be at most {most}, the smaller side of {thinnest.name} in {self.told.label}, got"
                f" {config.rank}"
            )
        self.whole = self.told.family.embeddings(self.model) if config.targets == EMBEDDINGS else ()
        self.embeddings = sum(
            module.weight.numel() for name, module in self.model.named_modules() if name.split(".")[-1] in self.whole
        )
        self.done, self.trained, self.total = 0, 0, self.base

    def formula(self, rank: int) -> int:
        return self.embeddings + sum(
            kind.number * trained_numbers(rank, kind.d_in, kind.d_out) for kind in self.kinds.values()
        )

    def count_layer(self) -> None:
        """One layer; the last one stays in the model and is counted with all that is not a layer."""
        layer, last = self.layers[self.done], self.done == len(self.layers) - 1
        before = sum(weight.numel() for weight in layer.parameters())
        if last:
            self.model.set_submodule(self.told.family.layers, nn.ModuleList([layer]))
            before = sum(weight.numel() for weight in self.model.parameters())
        trained, everything = put_adapters(
            self.model if last else layer, self.names, self.config, self.told, self.whole if last else ()
        )
        for name, kind in self.kinds.items():
            kind.counted += sum(
                weight.numel() for other, weight in layer.get_submodule(name).named_parameters() if "lora_" in other
            )
        self.trained, self.total, self.done = self.trained + trained, self.total + everything - before, self.done + 1

    def step(self, **told: Any) -> CountStep:
        rank = self.config.rank
        kinds = tuple(
            (k.name, k.d_in, k.d_out, k.number, k.number * trained_numbers(rank, k.d_in, k.d_out), k.counted)
            for k in self.kinds.values()
        )
        ranks = tuple((r, self.formula(r)) for r in sorted({*CHARTED, rank}))
        return CountStep(
            rank, self.done, len(self.layers), self.trained, self.total, kinds, self.embeddings, ranks, **told
        )


def findings(tally: Tally) -> tuple[Result, ...]:
    """peft's count beside the formula."""
    formula = tally.formula(tally.config.rank)
    source = TRAINED.source + (" and the embeddings" if tally.embeddings else "")
    figures = (
        TRAINED(tally.trained, formula, source=source),
        TOTAL(tally.total, tally.base + formula),
        SHARE(100 * tally.trained / tally.total, 100 * formula / (tally.base + formula)),
        ADAPTER_BYTES(2 * tally.trained / 1e6, 2 * tally.base / 1e6),
    )
    return (*figures, EMBEDDING_SHARE(100 * tally.embeddings / tally.trained)) if tally.embeddings else figures


def verdict(tally: Tally) -> str:
    share = 100 * tally.trained / tally.total
    told = f"{tally.trained:,} of {tally.total:,} are trained: {share:.3g} %."
    if as_the_notebook(tally.config):
        told += f" A published notebook says about 12 %: {NOTEBOOK_PERCENT / share:.0f} times too much."
    if tally.embeddings:
        told += f" The embeddings trained whole are {100 * tally.embeddings / tally.trained:.3g} % of it, at any rank."
    return told


@experiment("How can so few numbers adapt a model of billions, and how few are they?")
def count(config: CountConfig) -> Iterator[CountStep]:
    """Build the model without memory, put peft's adapters in, layer by layer, and count."""
    tally = Tally(config)
    yield tally.step(doing=f"{tally.told.label}: {tally.base:,} numbers in {len(tally.layers)} layers, and no memory")
    while tally.done < len(tally.layers):
        tally.count_layer()
        yield tally.step(
            doing=f"{tally.done} of {len(tally.layers)} layers have their adapters" if tally.done % 8 == 0 else ""
        )
    yield tally.step(figures=findings(tally), verdict=verdict(tally), doing="done: " + verdict(tally))
