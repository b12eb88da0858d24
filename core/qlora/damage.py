r"""Damage: what rounding the weights does to the model's words, matrix by matrix, and what LoRA wins back.

The weights of one matrix after the other are quantized in blocks of 64, and each time the model is evaluated on text it
has not learned. Perplexity is $e^{\text{loss}}$, the number of equally likely next tokens that would surprise as much.
A flip is a position where another token than before has become the likeliest. Perplexity can even fall by chance,
because errors can cancel; flips cannot cancel, so they show every change. The *lead* of a token is how much more likely
it is than the second choice, as a difference of log-probabilities: tokens with a small lead flip first.

Then the rounded weights stay frozen and LoRA's two thin matrices learn on the same text's other part. Some of what they
gain, plain further training would have gained as well: so the same adapter, with the same seed and the same batches,
also learns on the model in full precision (the control). The remaining gap between the curves is the real cost of
quantizing, and LoRA has repaired only what closed of it:

$$\text{gap closed} = 1 - \frac{\text{loss}_{\text{quantized + LoRA}} - \text{loss}_{\text{full + LoRA}}}
{\text{loss}_{\text{quantized}} - \text{loss}_{\text{full}}}.$$

The matrices are stored by bitsandbytes (NF4, FP4), read back at once, and put in place in float32. Its `Linear4bit`
does the same inside each forward pass, so both give the same logits (tested, with gradients); in place it takes less
time. The embedding and the output layer stay as they are, as in QLoRA.

Left out: double quantization (`microscope` shows it). 3 and 2 bits are NormalFloat built the same way by our own code:
bitsandbytes has neither. On processors with AVX512-BF16, `Linear4bit` writes text in bfloat16, which adds errors of its
own.
Source: Dettmers et al. 2023, arXiv:2305.14314, sections 3 and 4.
"""

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import BASES, Base, fetching_words, load_base
from core.foundations.corpus import CORPORA, load_corpus, windows_of
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import batch_field, context_field, seed_field
from core.foundations.turns import with_pauses, without_pauses
from core.lora.tuning import Tuner, adapt, check_rank, encoded, layer_shapes, validation_start, written
from core.qlora.codes import round_trip
from core.qlora.judging import Seen, look, looked_at

KINDS = {
    "nf4": "NF4, 4 bits (bitsandbytes)",
    "fp4": "FP4, 4 bits (bitsandbytes)",
    "int8": "int8, 8 bits",
    "int4": "int4, 4 bits",
    "nf3": "NormalFloat, 3 bits (ours)",
    "nf2": "NormalFloat, 2 bits (ours)",
}
TEXTS = {name: CORPORA[name] for name in ("reader", "python", "play")}
PROMPT_TOKENS = 64
CONTINUATION = 24  # tokens
MOST_SINGLE = 64  # matrices quantized one by one; with more, a layer's together
MOST_ROUNDS = 10  # judgements of a deep model

PERPLEXITY = Figure(
    "perplexity, quantized", "equally likely tokens", "baseline", "full precision, on the same text", headline=True
)
FLIPS = Figure("next tokens that flipped", "% of positions", headline=True)
LEAD = Figure(
    "lead of the first choice where it flipped",
    "nats",
    "baseline",
    "its lead over the second choice in full precision, everywhere",
)
GAIN = Figure(
    "fall of the loss by LoRA, not all of it repair", "nats per token", "baseline", "what quantizing had added"
)
GAP_CLOSED = Figure(
    "gap to full precision closed by LoRA",
    "% of the gap",
    None,
    "1 - gap after / gap before; after: the same LoRA on both models",
    headline=True,
)
GAP = Figure(
    "gap to full precision, the same LoRA on both", "nats per token", "baseline", "the gap before any training"
)
TUNED_PERPLEXITY = Figure(
    "perplexity, quantized with LoRA", "equally likely tokens", "baseline", "full precision with the same LoRA"
)
FLIPS_AFTER = Figure(
    "next tokens that differ from full precision, the same LoRA on both",
    "% of positions",
    "baseline",
    "before any training",
    headline=True,
)


@dataclass(frozen=True)
class DamageConfig(Config):
    """What is quantized how, on which text it is evaluated, and how long LoRA may learn."""

    kind: str = setting(
        "nf4",
        "Code",
        choices=KINDS,
        help="Fewer bits round the weights more coarsely and change more of the model's words.",
    )
    corpus: str = setting(
        "reader",
        "Text",
        choices=TEXTS,
        help="The base has learned the reader and the manual, never the play: the damage differs.",
    )
    prompt: str = setting(
        "The harbour master looked at the sea and said that the boat",
        "Your prompt",
        high=400,
        help="The text that is continued before and after quantizing.",
    )
    steps: int = setting(
        36,
        "LoRA steps",
        unit="step",
        low=1,
        high=10_000,
        help="More steps of LoRA lower the loss further; the run takes longer.",
    )
    rank: int = setting(16, "LoRA rank", low=1, high=256, help="A higher rank gives LoRA more weights to repair with.")
    control: bool = setting(
        True,
        "Also tune the full precision",
        help="Trains the same adapter on the model that is not quantized. Only this control tells repair from further"
        " training; it doubles the time.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=BASES,
        more=True,
        help="SmolLM2 is a real, if small, language model. The models from the hub are larger and need a network once.",
        sets={real_model.NAME: {"steps": 12, "evaluated": 4, "context": 32, "batch": 2, "corpus": "play"}},
    )
    evaluated: int = setting(
        10,
        "Held-out text",
        unit="sequence",
        low=1,
        high=1000,
        more=True,
        help="More sequences of held-out text make the numbers more reliable; judging takes longer.",
    )
    context: int = context_field(128, high=1024, unit="token")
    batch: int = batch_field(3, high=64)
    learning_rate: float = setting(
        0.002,
        "Learning rate",
        low=1e-6,
        high=1.0,
        more=True,
        help="Higher makes each LoRA step larger: learning is faster, until the loss blows up.",
    )
    seed: int = seed_field()


@dataclass(frozen=True)
class DamageStep(Step):
    """A judgement after one more matrix, or after some steps of LoRA; what did not happen in it is None."""

    matrices: int = 0  # quantized so far
    of: int = 0
    loss: float | None = None  # nats per token, on the text nobody learns from
    flips: float | None = None  # fraction of its positions with another likeliest token than in full precision
    full_loss: float | None = None  # on the first Step
    lora_step: int | None = None
    tuned_loss: float | None = None  # quantized, with LoRA
    control_loss: float | None = None  # full precision, with LoRA
    words: tuple[tuple[str, str, str], ...] | None = (
        None  # prompt up to there, likeliest next token in full precision and now; the flipped ones
    )
    prompt_tokens: int = 0
    continued: tuple[tuple[str, str], ...] = ()  # which model, and how it goes on with the prompt


# --- rounding ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def round_in_place(layer: Any, kind: str) -> None:
    """The layer's weights after one trip through 4 bits (or 8, 3, 2) and back."""
    layer.weight.copy_(rounded(layer.weight.detach(), kind))


def rounded(weight: Tensor, kind: str) -> Tensor:
    """Through bitsandbytes where it has the code, through ours where it has not."""
    if kind not in ("nf4", "fp4"):
        return round_trip(weight, kind)
    import bitsandbytes.functional as library

    bytes_, state = library.quantize_4bit(weight, blocksize=64, quant_type=kind)
    return library.dequantize_4bit(bytes_, state)


def rounds_of(names: list[str]) -> list[list[str]]:
    """Which matrices are quantized between two judgements: one, or in a deep model all of a few layers."""
    if len(names) <= MOST_SINGLE:
        return [[name] for name in names]
    layers = sorted({int(name.split("layers.")[1].split(".")[0]) for name in names})
    together = math.ceil(len(layers) / MOST_ROUNDS)
    return [
        [name for name in names if int(name.split("layers.")[1].split(".")[0]) in layers[at : at + together]]
        for at in range(0, len(layers), together)
    ]


# --- judging ----------------------------------------------------------------------------------------------------------


class Judge:
    """The text, the prompt, and what the model said of both in full precision."""

    def __init__(self, base: Base, config: DamageConfig) -> None:
        self.base = base
        kept = validation_start(base, load_corpus(config.corpus), config.context, config.evaluated * config.context)
        self.inputs, self.targets = windows_of(kept, config.context)
        self.prompt = base.ids(config.prompt.encode("utf-8", "replace").decode())[:PROMPT_TOKENS].tolist()
        self.first: Seen | None = None
        self.likeliest = torch.zeros(self.targets.shape, dtype=torch.long)  # tokens, at the newest look
        self.flipped_now = torch.zeros(self.targets.shape, dtype=torch.bool)
        self.first_words: list[int] = []
        self.continued: tuple[tuple[str, str], ...] = ()

    def judge(self, model: Any) -> Generator[None, None, DamageStep]:
        """Loss, flips and the prompt's flipped words, as a Step to be completed."""
        seen = yield from look(model, self.inputs, self.targets)
        words = self.next_words(model)
        if self.first is None:
            self.first, self.first_words = seen, words
        self.likeliest, self.flipped_now = seen.likeliest, seen.likeliest != self.first.likeliest
        flips = float(self.flipped_now.double().mean())
        return DamageStep(
            loss=seen.loss,
            flips=flips,
            words=self.flipped(words),
            prompt_tokens=len(self.prompt),
            continued=self.continued,
        )

    def next_words(self, model: Any) -> list[int]:
        """The likeliest next token after each token of the prompt."""
        if not self.prompt:
            return []
        ids = torch.tensor([self.prompt])
        return looked_at(model, ids, ids)[1][0].tolist()

    def flipped(self, words: list[int]) -> tuple[tuple[str, str, str], ...]:
        pairs = enumerate(zip(self.first_words, words, strict=True))
        return tuple(
            (self.base.text(self.prompt[: at + 1]), self.base.text([was]), self.base.text([now]))
            for at, (was, now) in pairs
            if was != now
        )

    def go_on(self, model: Any, called: str) -> Generator[None, None, None]:
        """How the model continues the prompt, always with the likeliest token. Yields between parts."""
        if self.prompt:
            start = self.base.text(self.prompt)
            text = yield from written(self.base, model, start, CONTINUATION, seed=0, temperature=0.0)
            self.continued += ((called, text[len(start) :]),)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How many of the model's words change when its weights have 4 bits, and does LoRA win them back?")
def damage(config: DamageConfig) -> Iterator[DamageStep]:
    """Quantize matrix by matrix, then train LoRA, beside the same LoRA in full precision."""
    import bitsandbytes  # noqa: F401 (the first Step waits for these imports, later ones do not)
    import peft  # noqa: F401

    base = yield from with_pauses(load_base(config.model, own=True), DamageStep(doing=fetching_words(config.model)))
    shapes = layer_shapes(base.model, "all")
    check_rank(config.rank, shapes)
    judge = Judge(base, config)
    without_pauses(judge.go_on(base.model, "full precision"))  # at once: the first Step must not be empty
    full = without_pauses(judge.judge(base.model))
    yield replace(
        full, of=len(shapes), full_loss=full.loss, doing=f"full precision: perplexity {perplexity(full.loss):.2f}"
    )
    control = copy.deepcopy(base.model) if config.control else None
    quantised = yield from quantise_all(judge, config, list(shapes))
    yield from repaired(judge, config, control, list(shapes), full, quantised)


def perplexity(loss: float | None) -> float:
    return math.exp(min(700.0, loss)) if loss is not None else math.nan


def quantise_all(judge: Judge, config: DamageConfig, names: list[str]) -> Generator[DamageStep, None, DamageStep]:
    """One matrix after the other, evaluated after each; returns the last evaluation."""
    model, done = judge.base.model, 0
    layers, rounds = dict(model.named_modules()), rounds_of(names)
    for names_now in rounds:
        for name in names_now:
            round_in_place(layers[name], config.kind)
        done += len(names_now)
        where = DamageStep(matrices=done, of=len(names))
        if names_now is rounds[-1]:
            yield from with_pauses(judge.go_on(model, "quantised"), where)
        step = yield from with_pauses(judge.judge(model), where)
        step = replace(step, matrices=done, of=len(names))
        told = (
            f"{done} of {len(names)} matrices quantized: perplexity {perplexity(step.loss):.2f}, {step.flips:.1%} of"
            " the next tokens flipped"
        )
        yield replace(step, doing=told, figures=damage_figures(judge, step, config) if done == len(names) else ())
    return step


def damage_figures(judge: Judge, step: DamageStep, config: DamageConfig) -> tuple[Result, ...]:
    """What rounding the weights has cost, and where the words flipped."""
    assert judge.first is not None
    share = None if step.flips is None else 100 * step.flips
    lead = judge.first.lead
    lead_there = float(lead[judge.flipped_now].mean()) if judge.flipped_now.any() else None
    return (
        PERPLEXITY(perplexity(step.loss), perplexity(judge.first.loss)),
        FLIPS(share, source=f"{KINDS[config.kind]}, on {lead.numel():,} positions"),
        LEAD(lead_there, float(lead.mean())),
    )


def repaired(
    judge: Judge, config: DamageConfig, control: Any, names: list[str], full: DamageStep, quantised: DamageStep
) -> Iterator[DamageStep]:
    """Train an adapter on the quantized model, and the same on the model in full precision, batch by batch."""
    where = DamageStep(matrices=quantised.of, of=quantised.of)
    train_ids = yield from with_pauses(encoded(judge.base, load_corpus(config.corpus).train), where)
    models = [
        adapt(model, config.rank, 2.0 * config.rank, names, config.seed)
        for model in (judge.base.model, control)
        if model is not None
    ]
    how: dict[str, Any] = {
        "context": config.context,
        "batch": config.batch,
        "learning_rate": config.learning_rate,
        "steps": config.steps,
    }
    tuners = [Tuner(model, train_ids, **how, seed=config.seed) for model in models]
    every = max(1, config.steps // 6)
    yield replace(
        where, lora_step=0, tuned_loss=quantised.loss, control_loss=full.loss if control is not None else None
    )
    for step in range(1, config.steps + 1):
        for tuner in tuners:
            yield from with_pauses(tuner.one_step(), where)
            yield where
        if step % every and step != config.steps:
            continue
        if step == config.steps:
            yield from with_pauses(judge.go_on(models[0], f"quantized, with {config.steps} steps of LoRA"), where)
        tuned = yield from with_pauses(judge.judge(models[0]), where)
        seen = None
        if control is not None:
            seen = yield from with_pauses(look(control, judge.inputs, judge.targets), where)
        beside = seen.loss if seen else None
        differing = None if seen is None else float((judge.likeliest != seen.likeliest).double().mean())
        figures = repair_figures(full, quantised, tuned, beside, differing) if step == config.steps else ()
        diverged = not math.isfinite(tuned.loss or math.nan)
        told = f"LoRA step {step}: perplexity {perplexity(tuned.loss):.2f}"
        yield replace(
            tuned,
            matrices=quantised.of,
            of=quantised.of,
            loss=None,
            flips=tuned.flips,
            lora_step=step,
            tuned_loss=tuned.loss,
            control_loss=beside,
            figures=figures,
            diverged=diverged,
            doing=told,
        )
        if diverged:
            return


def repair_figures(
    full: DamageStep, quantised: DamageStep, tuned: DamageStep, control: float | None, differing: float | None
) -> tuple[Result, ...]:
    """What LoRA gained, and, against the control, what of it was repair.

    control: loss of the full precision with the same LoRA. differing: fraction of positions where the two differ.
    """
    assert full.loss is not None and quantised.loss is not None and tuned.loss is not None
    cost = quantised.loss - full.loss
    figures = (GAIN(quantised.loss - tuned.loss, cost),)
    if control is None or differing is None:
        return figures
    gap = tuned.loss - control
    return (
        *figures,
        GAP_CLOSED(100 * (1 - gap / cost) if cost > 0 else None),
        GAP(gap, cost),
        TUNED_PERPLEXITY(perplexity(tuned.loss), perplexity(control)),
        FLIPS_AFTER(100 * differing, 100 * (quantised.flips or 0.0)),
    )
