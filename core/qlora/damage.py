r"""Damage: what rounding the weights does to the model's words, matrix by matrix, and what LoRA wins back.

The weights of one matrix after the other are quantised in blocks of 64, and each time the model is judged on text it has
not learnt. Perplexity is $e^{\text{loss}}$, the number of equally likely next tokens that would surprise as much. A flip
is a position where another token than before has become the likeliest. Perplexity may even fall by chance, since errors
point in all directions; flips only count.

Then the rounded weights stay frozen and LoRA's two thin matrices learn on the same text's other part. Some of what they
win, plain further training would have won as well: so the same adapter, with the same seed and the same batches, also
learns on the model in full precision. The gap between the two curves is what quantising costs after all.

The matrices are stored by bitsandbytes (NF4, FP4), read back at once, and put in place in float32. Its `Linear4bit` does
the same inside each forward pass, so both give the same logits (tested, with gradients); in place it takes less time. The
embedding and the output layer stay as they are, as in QLoRA.

Left out: double quantisation (`microscope` shows it). 3 and 2 bits are NormalFloat built the same way by our own code:
bitsandbytes has neither. On processors with AVX512-BF16, `Linear4bit` writes text in bfloat16, which adds errors of its own.
Source: Dettmers et al. 2023, arXiv:2305.14314, sections 3 and 4.
"""

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from core.foundations.base_model import BASES, Base, load_base, windows_at_once
from core.foundations.corpus import CORPORA, load_corpus, windows_of
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.lora.tuning import Tuner, adapt, check_rank, encoded, layer_shapes, validation_start, written
from core.qlora.codes import round_trip

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
MOST_SINGLE = 64  # matrices quantised one by one; with more, a layer's together

T = TypeVar("T")


@dataclass(frozen=True)
class DamageConfig(Config):
    """What is quantised how, on which text it is judged, and how long LoRA may mend."""

    kind: str = setting("nf4", "Code", choices=KINDS)
    corpus: str = setting("reader", "Text", choices=TEXTS, help="the base has learnt the reader and the manual, never the play")
    prompt: str = setting("The harbour master looked at the sea and said that the boat", "Your prompt", high=400)
    steps: int = setting(36, "LoRA steps", unit="step", low=1, high=10_000)
    rank: int = setting(16, "LoRA rank", low=1, high=256)
    control: bool = setting(True, "Also tune the full precision", help="the same adapter without quantising, to compare with")
    model: str = setting("shipped", "Model", choices=BASES, more=True)
    judged: int = setting(10, "Judged on", unit="window", low=1, high=1000, more=True, help="windows of the text that nobody learns from")
    context: int = setting(128, "Window", unit="token", low=8, high=1024, more=True)
    batch: int = setting(3, "Batch", unit="window", low=1, high=64, more=True)
    learning_rate: float = setting(0.002, "Learning rate", low=1e-6, high=1.0, more=True)
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True)


@dataclass(frozen=True)
class DamageStep(Step):
    """A judgement after one more matrix, or after some steps of LoRA; what did not happen in it is None."""

    matrices: int = 0  # quantised so far
    of: int = 0
    loss: float | None = None  # nats per token, on the text nobody learns from
    flips: float | None = None  # share of its positions with another likeliest token than in full precision
    full_loss: float | None = None  # on the first Step
    lora_step: int | None = None
    tuned_loss: float | None = None  # quantised, with LoRA
    control_loss: float | None = None  # full precision, with LoRA
    words: tuple[tuple[str, str, str], ...] | None = None  # prompt up to there, likeliest next token in full precision and now; the flipped ones
    prompt_tokens: int = 0
    continued: tuple[tuple[str, str], ...] = ()  # which model, and how it goes on with the prompt


def paused(job: Generator[None, None, T], pause: DamageStep) -> Generator[DamageStep, None, T]:
    """Run a job in parts; `pause` goes out between them, and the job's value is returned."""
    while True:
        try:
            next(job)
        except StopIteration as done:
            return done.value
        yield pause


def at_once(job: Generator[None, None, T]) -> T:
    """Run a job without pauses: the first Step must not be empty."""
    while True:
        try:
            next(job)
        except StopIteration as done:
            return done.value


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
    """Which matrices are quantised between two judgements: one, or in a deep model all of a layer."""
    if len(names) <= MOST_SINGLE:
        return [[name] for name in names]
    layers = sorted({int(name.split("layers.")[1].split(".")[0]) for name in names})
    return [[name for name in names if f"layers.{layer}." in name] for layer in layers]


# --- judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a model says of a text: its loss, and at each position the likeliest token and its lead over the second."""

    loss: float
    likeliest: Tensor
    lead: Tensor  # nats


def look(model: Any, inputs: Tensor, targets: Tensor) -> Generator[None, None, Seen]:
    """Yields between parts."""
    total, parts = 0.0, list[tuple[Tensor, Tensor]]()
    wide = windows_at_once(model, inputs.shape[1], 2)
    for first in range(0, len(inputs), wide):
        if first:
            yield
        part = slice(first, first + wide)
        loss, best, lead = looked_at(model, inputs[part], targets[part])
        total += loss
        parts.append((best, lead))
    likeliest, leads = (torch.cat(column) for column in zip(*parts, strict=True))
    return Seen(total / max(1, targets.numel()), likeliest, leads)


@torch.inference_mode()
def looked_at(model: Any, inputs: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    """Summed loss, likeliest token, and its lead over the second: a difference of logits is one of log-probabilities."""
    device = next(model.parameters()).device
    logits = model(input_ids=inputs.to(device), use_cache=False).logits.float()
    best = logits.topk(2)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten().to(device), reduction="sum")
    return float(loss), best.indices[..., 0].cpu(), (best.values[..., 0] - best.values[..., 1]).cpu()


class Judge:
    """The text, the prompt, and what the model said of both in full precision."""

    def __init__(self, base: Base, config: DamageConfig) -> None:
        self.base = base
        kept = validation_start(base, load_corpus(config.corpus), config.context, config.judged * config.context)
        self.inputs, self.targets = windows_of(kept, config.context)
        self.prompt = base.ids(config.prompt.encode("utf-8", "replace").decode())[:PROMPT_TOKENS].tolist()
        self.first: Seen | None = None
        self.flipped_now = torch.zeros(self.targets.shape, dtype=torch.bool)
        self.first_words: list[int] = []
        self.continued: tuple[tuple[str, str], ...] = ()

    def judge(self, model: Any) -> Generator[None, None, DamageStep]:
        """Loss, flips and the prompt's flipped words, as a Step to be completed."""
        seen = yield from look(model, self.inputs, self.targets)
        words = self.next_words(model)
        if self.first is None:
            self.first, self.first_words = seen, words
        self.flipped_now = seen.likeliest != self.first.likeliest
        flips = float(self.flipped_now.double().mean())
        return DamageStep(loss=seen.loss, flips=flips, words=self.flipped(words), prompt_tokens=len(self.prompt), continued=self.continued)

    def next_words(self, model: Any) -> list[int]:
        """The likeliest next token after each token of the prompt."""
        if not self.prompt:
            return []
        ids = torch.tensor([self.prompt])
        return looked_at(model, ids, ids)[1][0].tolist()

    def flipped(self, words: list[int]) -> tuple[tuple[str, str, str], ...]:
        pairs = enumerate(zip(self.first_words, words, strict=True))
        return tuple((self.base.text(self.prompt[: at + 1]), self.base.text([was]), self.base.text([now])) for at, (was, now) in pairs if was != now)

    def go_on(self, model: Any, called: str) -> Generator[None, None, None]:
        """How the model continues the prompt, always with the likeliest token. Yields between parts."""
        if self.prompt:
            start = self.base.text(self.prompt)
            for text in written(self.base, model, start, CONTINUATION, seed=0, temperature=0.0):
                if text is None:
                    yield
                else:
                    self.continued += ((called, text[len(start) :]),)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How many of the model's words change when its weights have 4 bits, and does LoRA win them back?")
def damage(config: DamageConfig) -> Iterator[DamageStep]:
    """Quantise matrix by matrix, then mend with LoRA, beside the same LoRA in full precision."""
    import bitsandbytes  # noqa: F401 (the first Step waits for these imports, later ones do not)
    import peft  # noqa: F401

    base = yield from paused(load_base(config.model), DamageStep(doing="fetching the model from the hub, once"))
    shapes = layer_shapes(base.model, "all")
    check_rank(config.rank, shapes)
    judge = Judge(base, config)
    at_once(judge.go_on(base.model, "full precision"))
    full = at_once(judge.judge(base.model))
    yield replace(full, of=len(shapes), full_loss=full.loss, doing=f"full precision: perplexity {perplexity(full.loss):.2f}")
    control = copy.deepcopy(base.model) if config.control else None
    quantised = yield from quantise_all(judge, config, list(shapes))
    yield from mend(judge, config, control, list(shapes), full, quantised)


def perplexity(loss: float | None) -> float:
    return math.exp(min(700.0, loss)) if loss is not None else math.nan


def quantise_all(judge: Judge, config: DamageConfig, names: list[str]) -> Generator[DamageStep, None, DamageStep]:
    """One matrix after the other, judged after each; returns the last judgement."""
    model, done = judge.base.model, 0
    layers, rounds = dict(model.named_modules()), rounds_of(names)
    for names_now in rounds:
        for name in names_now:
            round_in_place(layers[name], config.kind)
        done += len(names_now)
        where = DamageStep(matrices=done, of=len(names))
        if names_now is rounds[-1]:
            yield from paused(judge.go_on(model, "quantised"), where)
        step = yield from paused(judge.judge(model), where)
        step = replace(step, matrices=done, of=len(names))
        told = f"{done} of {len(names)} matrices quantised: perplexity {perplexity(step.loss):.2f}, {step.flips:.1%} of the next tokens flipped"
        yield replace(step, doing=told, figures=damage_figures(judge, step, config) if done == len(names) else ())
    return step


def damage_figures(judge: Judge, step: DamageStep, config: DamageConfig) -> tuple[Compared, ...]:
    """What rounding the weights has cost, and where the words flipped."""
    assert judge.first is not None
    share = None if step.flips is None else 100 * step.flips
    lead = judge.first.lead
    lead_there = float(lead[judge.flipped_now].mean()) if judge.flipped_now.any() else None
    return (
        Compared("perplexity, quantised", "tokens", perplexity(judge.first.loss), perplexity(step.loss), "full precision, on the same text"),
        Compared("next tokens that flipped", "% of positions", None, share, f"{KINDS[config.kind]}, on {lead.numel():,} positions"),
        Compared("lead of the first choice where it flipped", "nats", float(lead.mean()), lead_there, "its lead over the second in full precision, everywhere"),
    )


def mend(judge: Judge, config: DamageConfig, control: Any, names: list[str], full: DamageStep, quantised: DamageStep) -> Iterator[DamageStep]:
    """Train an adapter on the quantised model, and the same on the model in full precision, batch by batch."""
    train_ids = yield from tokens_of(judge.base, load_corpus(config.corpus).train, quantised.of)
    models = [adapt(model, config.rank, 2.0 * config.rank, names, config.seed) for model in (judge.base.model, control) if model is not None]
    how: dict[str, Any] = {"context": config.context, "batch": config.batch, "learning_rate": config.learning_rate, "steps": config.steps}
    tuners = [Tuner(model, train_ids, **how, seed=config.seed) for model in models]
    where, every = DamageStep(matrices=quantised.of, of=quantised.of), max(1, config.steps // 6)
    yield replace(where, lora_step=0, tuned_loss=quantised.loss, control_loss=full.loss if control is not None else None)
    for step in range(1, config.steps + 1):
        for tuner in tuners:
            for _ in tuner.one_step():
                yield where
        if step % every and step != config.steps:
            continue
        if step == config.steps:
            yield from paused(judge.go_on(models[0], f"quantised, with {config.steps} steps of LoRA"), where)
        tuned = yield from paused(judge.judge(models[0]), where)
        seen = (yield from paused(look(control, judge.inputs, judge.targets), where)) if control is not None else None
        beside = seen.loss if seen else None
        figures = mended_figures(full, quantised, tuned, beside) if step == config.steps else ()
        diverged = not math.isfinite(tuned.loss or math.nan)
        told = f"LoRA step {step}: perplexity {perplexity(tuned.loss):.2f}"
        yield replace(tuned, matrices=quantised.of, of=quantised.of, loss=None, flips=tuned.flips, lora_step=step, tuned_loss=tuned.loss,
                      control_loss=beside, figures=figures, diverged=diverged, doing=told)  # fmt: skip
        if diverged:
            return


def tokens_of(base: Base, text: str, of: int) -> Generator[DamageStep, None, Tensor]:
    for ids in encoded(base, text):
        if ids is not None:
            return ids
        yield DamageStep(matrices=of, of=of, doing="")
    raise AssertionError("encoded() ends with the ids")


def mended_figures(full: DamageStep, quantised: DamageStep, tuned: DamageStep, control: float | None) -> tuple[Compared, ...]:
    """What LoRA has won back of it."""
    assert full.loss is not None and quantised.loss is not None and tuned.loss is not None
    cost, won = quantised.loss - full.loss, quantised.loss - tuned.loss
    figures = (Compared("loss won back by LoRA", "nats per token", cost, won, "what quantising had added"),)
    if control is None:
        return figures
    return (
        *figures,
        Compared("gap to full precision after LoRA on both", "nats per token", cost, tuned.loss - control, "the gap before"),
        Compared("perplexity, quantised with LoRA", "tokens", perplexity(control), perplexity(tuned.loss), "the same LoRA in full precision"),
    )
