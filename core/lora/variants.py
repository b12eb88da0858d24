r"""Variants: what four descendants of LoRA change, and what each forgets of the text it knew.

All train $\Delta W$ beside a frozen $W$ with the same rank, the same batches and the same rate. Each differs in one
thing:

* **rsLoRA** scales by $\alpha/\sqrt r$ instead of $\alpha/r$, so that a high rank is not held back;
* **LoRA+** lets $B$, which begins at zero, learn $\lambda$ times as fast as $A$;
* **DoRA** splits each row of $W$ into its length and its direction, learns the length as a number of its own and
  the direction by LoRA, $W' = m \, \frac{W + \frac{\alpha}{r} BA}{\lVert W + \frac{\alpha}{r} BA \rVert}$;
* **PiSSA** begins with the largest singular values of $W$ in $BA$ and freezes the rest, so what is trained is what
  matters most, and not noise and zeros.

Full fine-tuning trains everything, at a rate of its own. Two losses are measured: on the new text, and on *The Harbour
Reader*, from which the base learned before. Biderman et al. found that LoRA learns less and forgets less than full
fine-tuning; whether it does here, the last picture says.

peft makes all of them; each is one switch. An untrained adapter must change nothing: PiSSA takes $BA$ out of $W$ and
adds it again, so there it is true only to the last digits.

Left out: a rate found for each variant by itself (each has its own best one), several seeds.
Source: Kalajdzievski 2023, arXiv:2312.03732 (rsLoRA); Hayou et al. 2024, arXiv:2402.12354 (LoRA+); Liu et al. 2024,
arXiv:2402.09353, section 3 (DoRA); Meng et al. 2024, arXiv:2404.02948 (PiSSA); Biderman et al. 2024, arXiv:2405.09673.
"""

import copy
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from core.foundations.base_model import Base, load_base, validate
from core.foundations.corpus import CORPORA, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import batch_field, context_field, seed_field
from core.foundations.turns import with_pauses, without_pauses
from core.lora.tuning import (
    Tuner,
    adapt,
    adapter_parameters,
    adapter_weights,
    check_rank,
    check_windows,
    encoded,
    largest_difference,
    layer_shapes,
    logits_of,
    validation_start,
)

VARIANTS = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "plus": "LoRA+",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "full": "full fine-tuning",
}
SWITCHES: Mapping[str, Mapping[str, Any]] = {  # what peft is told
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}
OLD_TEXT = "reader"
EVALUATED = 512  # tokens of each text
LOOKS = 4  # how often a run is evaluated on the new text

NEW = Figure("loss on the new text, {variant}", "nats per token", "baseline", "the base, before training")
OLD = Figure("loss on the old text, {variant}", "nats per token", "baseline", "the base, before training")
UNTRAINED = Figure(
    "change by the untrained adapter, {variant}", "largest logit difference", "theory", "B A is zero, or taken out of W"
)
WEIGHTS = Figure("trained weights, {variant}", "weights", "theory", "r (d + k) per layer; DoRA d more", "computed")
LEARNED = Figure(
    "learned by LoRA", "% of full fine-tuning's gain", None, "fall of the loss on the new text", headline=True
)
FORGOTTEN = Figure(
    "forgotten by LoRA",
    "nats per token",
    "baseline",
    "full fine-tuning: rise of the loss on the old text",
    headline=True,
)
BEST = Figure(
    "lowest loss on the new text among the adapters", "nats per token", "baseline", "plain LoRA", headline=True
)
BLOWN = Figure("loss before it blew up", "nats per token", "baseline", "the base, before training", headline=True)


@dataclass(frozen=True)
class VariantsConfig(Config):
    """The text, and what all variants share."""

    corpus: str = setting(
        "play",
        "New text",
        choices={name: CORPORA[name] for name in ("play", "tinyshakespeare")},
        help="What is learned.",
    )
    rank: int = setting(
        8, "Rank r", low=1, high=64, slider=True, help="The same for all. At a high rank rsLoRA's larger scale matters."
    )
    steps: int = setting(
        24, "Steps", unit="step", low=1, high=1000, help="More steps learn more, and forget more; each takes time."
    )
    learning_rate: float = setting(
        0.005, "Learning rate", low=1e-6, high=1.0, help="Of all adapters. Each variant has its own best one."
    )
    ratio: float = setting(
        4.0,
        "LoRA+: B is faster by",
        low=1.0,
        high=64.0,
        slider=True,
        help="How many times as fast as A the matrix B learns, in LoRA+ alone. The paper recommends about 16.",
    )
    alpha: float = setting(
        16.0, "Alpha", low=0.01, high=1000.0, more=True, help="An adapter's output is scaled by alpha / r."
    )
    full_learning_rate: float = setting(
        0.001,
        "Learning rate, full",
        low=1e-6,
        high=1.0,
        more=True,
        help="Of full fine-tuning, which needs a lower one.",
    )
    context: int = context_field(64, high=128, unit="token")
    batch: int = batch_field(4, high=16)
    seed: int = seed_field(high=2**32 - 1)


@dataclass(frozen=True)
class Ended:
    """What one variant came to."""

    variant: str
    trained: int  # weights
    by_formula: int
    untrained: float  # the largest change of a logit before training
    new: float  # nats per token
    old: float


@dataclass(frozen=True)
class VariantsStep(Step):
    """A step of one variant, or its end; what did not happen in it is None."""

    variant: str = ""
    step: int = 0
    new: float | None = None  # nats per token on the new text
    base: tuple[float, float] = (0.0, 0.0)  # on the first Step and at each end: the base's losses, new and old text
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True)
class Texts:
    """What is learned, and what is measured."""

    learned: Int[Tensor, "N"]
    new: Int[Tensor, "M"]
    old: Int[Tensor, "M"]


def made(base: Base, variant: str, config: VariantsConfig) -> Any:
    """A model of one variant. Adapters share the base's frozen weights; who changes them has a copy."""
    own = variant in ("pissa", "full")
    frozen = {} if own else {id(weight): weight for weight in base.model.parameters()}
    model: Any = copy.deepcopy(base.model, frozen)
    if variant == "full":
        return model.requires_grad_(True)
    layers = list(layer_shapes(base.model, "all"))
    return adapt(model, config.rank, config.alpha, layers, config.seed, **SWITCHES.get(variant, {}))


def formula(base: Base, variant: str, rank: int) -> int:
    """How many weights a variant trains."""
    if variant == "full":
        return sum(weight.numel() for weight in base.model.parameters())
    shapes = layer_shapes(base.model, "all")
    lengths = sum(d_out for _, d_out in shapes.values()) if variant == "dora" else 0
    return adapter_parameters(rank, shapes) + lengths


@experiment("What do LoRA's descendants change, and what does each of them forget?")
def variants(config: VariantsConfig) -> Iterator[VariantsStep]:
    """One variant after the other on the same batches; the loss on the new text and on the old one."""
    base = without_pauses(load_base("shipped"))
    check_rank(config.rank, layer_shapes(base.model, "all"))
    corpus = load_corpus(config.corpus)
    new = validation_start(base, corpus, config.context, EVALUATED)
    old = validation_start(base, load_corpus(OLD_TEXT), config.context, EVALUATED)
    before = tuple(without_pauses(validate(base.model, ids, config.context)) for ids in (new, old))
    words = f"the base: {before[0]:.3f} nats per token on the new text, {before[1]:.3f} on the old"
    yield VariantsStep(base=(before[0], before[1]), doing=words)
    ids = yield from with_pauses(encoded(base, corpus.train), VariantsStep(doing="cutting the text into tokens"))
    check_windows(ids, config.context)
    ended: list[Ended] = []
    for variant in VARIANTS:
        one = yield from trained(base, variant, Texts(ids, new, old), before[0], config)
        if one is None:
            return
        ended.append(one)
        words = f"{VARIANTS[variant]}: {one.new:.3f} on the new text, {one.old:.3f} on the old"
        yield VariantsStep(variant, config.steps, base=(before[0], before[1]), ended=tuple(ended), doing=words)
    yield VariantsStep(figures=figures_of(ended, before[0], before[1]), doing="done")


def trained(
    base: Base, variant: str, texts: Texts, base_loss: float, config: VariantsConfig
) -> Generator[VariantsStep, None, Ended | None]:
    """Train one variant; None if its loss blew up."""
    model = made(base, variant, config)
    yield VariantsStep(variant, 0, base_loss, doing=f"{VARIANTS[variant]}: ready")
    start = texts.new[: config.context]
    untrained = largest_difference(logits_of(model, start), logits_of(base.model, start))
    full = variant == "full"
    tuner = Tuner(
        model,
        texts.learned,
        context=config.context,
        batch=config.batch,
        learning_rate=config.full_learning_rate if full else config.learning_rate,
        steps=config.steps,
        seed=config.seed,
        faster=config.ratio if variant == "plus" else 1.0,
    )
    yield VariantsStep(variant)
    new = base_loss
    for step in range(1, config.steps + 1):
        loss = yield from with_pauses(tuner.one_step(), VariantsStep(variant, step))
        if not loss <= 3 * math.log(base.model.config.vocab_size):  # not a number, or far worse than knowing nothing
            why = f"{VARIANTS[variant]}, step {step}: the loss went to {loss:.3g}; a smaller learning rate will hold"
            yield VariantsStep(variant, step, diverged=True, figures=(BLOWN(loss, base_loss),), doing=why)
            return None
        yield VariantsStep(variant, step, doing=f"{VARIANTS[variant]}, step {step}: loss {loss:.3f}")
        if step * LOOKS // config.steps > (step - 1) * LOOKS // config.steps:
            new = yield from with_pauses(tuner.validate(texts.new), VariantsStep(variant, step))
            yield VariantsStep(variant, step, new)
    old = yield from with_pauses(tuner.validate(texts.old), VariantsStep(variant, config.steps))
    counted = sum(weight.numel() for weight in model.parameters()) if full else adapter_weights(model)
    return Ended(variant, counted, formula(base, variant, config.rank), untrained, new, old)


def figures_of(ended: list[Ended], base_new: float, base_old: float) -> tuple[Result, ...]:
    """Each variant beside the base, and LoRA beside full fine-tuning."""
    by_name = {one.variant: one for one in ended}
    lora, full = by_name["lora"], by_name["full"]
    best = min((one for one in ended if one is not full), key=lambda one: one.new)
    gain = base_new - full.new
    results = [
        LEARNED(100 * (base_new - lora.new) / gain if gain > 0 else None),
        FORGOTTEN(lora.old - base_old, full.old - base_old),
        BEST(best.new, lora.new, source=f"plain LoRA; the lowest is {VARIANTS[best.variant]}'s"),
    ]
    for one in ended:
        name = VARIANTS[one.variant]
        results += [NEW.of(variant=name)(one.new, base_new), OLD.of(variant=name)(one.old, base_old)]
        results.append(WEIGHTS.of(variant=name)(one.trained, one.by_formula))
        if one is not full:
            results.append(UNTRAINED.of(variant=name)(one.untrained, 0.0))
    return tuple(results)
