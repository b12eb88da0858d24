r"""A text is written twice, token by token: once everything is computed anew for each token, once keys and values are
kept.

Both draw from the same seed, so they must write the same text; the largest difference of their scores (logits) is
rounding. What differs is the work. Without the cache the $n$-th token costs a pass over $n$ tokens; with it, one token
looks at $n$ kept rows. A whole text of $n$ tokens costs

$$1 + 2 + \dots + n = \tfrac{1}{2} n (n + 1) \text{ rows without, } n \text{ rows with the cache.}$$

What is saved in time is paid in memory: $2 L G D b$ bytes per token (2 for key and value, $L$ layers, $G$ heads, $D$
numbers each, $b$ bytes per number). For the small base $2 \cdot 4 \cdot 6 \cdot 32 \cdot 4 = 6144$. The memory is asked
for in blocks of tokens, so at most one block is not yet used.

The faint lines are floors: the operations over the machine's measured rate, or the bytes over its measured rate,
whichever takes longer. Reading the prompt (*prefill*) does many operations per byte, so arithmetic is its limit.
Writing one token (*decode*) reads all weights for a single token: memory is its limit, and on a small model the time
that Python needs between the operations. Several texts at once share each reading of the weights, so the dots climb;
but each text brings its own cache, which nobody shares.

The measured times are the best of some repetitions, and of four neighboring tokens. The weights are only 9 MB: where
they stay in the processor's own cache, a token may even beat the floor of the memory. The base has learned sequences of
128 tokens; beyond that its text gets worse (`shrink` shows it), its times do not.

SmolLM2, a real language model of 135 million parameters, goes through the same code. Its queries share keys and values
(GQA: 9 heads of queries, 3 of keys and values), its weights are far larger than the processor's cache, and one pass
over a whole text takes long enough to be felt: there the cache is the difference between reading along and waiting.
Its run is shorter, and at most 16 texts are written at once.

Left out: blocks shared between texts (PagedAttention), speculative decoding, a fused kernel for one query.
Source: Pope et al. 2022, arXiv:2211.05102; Kwon et al. 2023, arXiv:2309.06180; Carol Chen 2022, "Transformer Inference
Arithmetic", kipp.ly/transformer-inference-arithmetic.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import Base, fetching_words, load_base
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.roofline import best_seconds, roofline
from core.foundations.sampling import Choice, draw, probabilities
from core.foundations.settings import seed_field
from core.foundations.turns import with_pauses
from core.kv_cache.cache import Growing
from core.kv_cache.costs import model_bytes_per_token, work
from core.kv_cache.llama import Llama, llama_of, logits

PROMPT = "The harbour master looked at the sea and said that the boat"
MOST_TOKENS = 1024  # places the base has angles for
MODELS = {"shipped": "the shipped base, 2.3 M parameters", real_model.NAME: real_model.WHAT}


@dataclass(frozen=True)
class Extent:
    """How much is measured; a real model gets less, so that a run takes a minute at most."""

    off: int = 2  # repetitions of each pass, of which the best counts
    on: int = 4
    roof: int = 3
    batches: tuple[int, ...] = (1, 4, 16, 64)  # texts at once
    roof_tokens: int = 128  # seen by each text whose decoding is put under the roof


USUAL, SHORT = Extent(), Extent(1, 2, 1, (1, 4, 16), 32)

SAME_TOKENS = Figure("tokens equal with and without cache", "tokens", "theory", "the cache changes no result")
LOGIT_DIFFERENCE = Figure(
    "largest difference of a logit", "logits", "theory", "the same sums in another order: only rounding"
)
CACHE = Figure("cache at the end", "kB", "theory", headline=True)
LAST_OFF = Figure("time of the last token, no cache", "ms", "limit")
LAST_ON = Figure("time of the last token, with cache", "ms", "limit")
FLOORS_RATIO = "the ratio of the two least times on this machine"
LAST_SPEEDUP = Figure("speed-up of the last token", "times", "baseline", FLOORS_RATIO, headline=True)
WHOLE_SPEEDUP = Figure("speed-up of the whole text", "times", "baseline", FLOORS_RATIO, headline=True)
GROWTH_ON = Figure(
    "time per token at the end over the start, with cache",
    "times",
    "theory",
    "flat: one token goes through the weights, whatever came before",
)
GROWTH_OFF = Figure(
    "time per token at the end over the start, no cache",
    "times",
    "theory",
    "linear: tokens at the end over tokens at the start",
)
RATE = Figure("throughput of {passes}", "tokens/s", "limit", "roofline: tokens over the least time of the pass")


@dataclass(frozen=True)
class GrowConfig(Config):
    """What is written, and how the cache asks for memory."""

    prompt: str = setting(
        PROMPT, "Your prompt", high=400, help="A longer prompt fills the cache before the first token is written."
    )
    length: int = setting(
        220,
        "Tokens to write",
        unit="token",
        low=2,
        high=900,
        help="More tokens show better how the time without a cache grows.",
    )
    block: int = setting(
        16,
        "Block of the cache",
        unit="token",
        low=1,
        high=256,
        help="Memory is taken in blocks of so many tokens: larger ones are asked for less often and leave more unused.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="SmolLM2 is a real, if small, language model: 58 times as many weights to read for each token.",
        sets={real_model.NAME: {"length": 60}},
    )
    temperature: float = setting(
        0.8,
        "Temperature",
        low=0.0,
        high=3.0,
        help="Higher makes unlikely tokens more likely; 0 always takes the likeliest.",
        slider=True,
    )
    seed: int = seed_field()


@dataclass(frozen=True)
class Dot:
    """A pass under the roof: operations per byte, and operations per second."""

    name: str
    intensity: float
    floor: float  # GFLOP/s if the floor is reached
    reached: float | None  # measured


@dataclass(frozen=True)
class GrowStep(Step):
    """One token, written by both; on the first Step the floors, at the end the passes under the roof."""

    tokens: int = 0  # of the text, prompt included
    text: str = ""
    same: bool = True  # so far both wrote the same
    difference: float = 0.0  # the largest between two logits so far
    off_ms: float | None = None  # for this token, without the cache, best of four
    on_ms: float | None = None
    off_seconds: float = 0.0  # for all tokens so far
    on_seconds: float = 0.0
    cache_bytes: int = 0  # of the storages that are there
    block: int = 0
    most: int = 0  # tokens at the end of the run
    floors: tuple[
        tuple[float, ...], ...
    ] = ()  # tokens; ms without and with the cache; the same summed, in s; bytes by formula
    roof: tuple[tuple[str, float, float, float | None], ...] = ()  # the fields of `Dot`
    rates: tuple[float, float] = (0.0, 0.0)  # FLOP/s and bytes/s of this machine
    roof_tokens: int = 0  # seen by each text under the roof


@dataclass
class Writer:
    """Writes token by token. With a cache only what is new goes through the model."""

    model: Llama
    ids: list[int]
    choice: Choice
    rng: torch.Generator
    cache: Growing | None
    seconds: list[float] = field(default_factory=list)  # of each token

    def best(self) -> float:
        """Of the latest four tokens, which are nearly the same work; the prompt's own pass stands alone."""
        return min(self.seconds[max(1, len(self.seconds) - 4) :] or self.seconds)

    @torch.inference_mode()
    def write(self, repeats: int) -> Tensor:
        """One more token; gives the logits it was drawn from."""
        seen = 0 if self.cache is None else self.cache.seen
        new = torch.tensor([self.ids[seen:]], device=self.model.embed.device)

        def forward() -> None:
            nonlocal scores
            if self.cache is not None:
                self.cache.rewind(seen)  # a repetition writes over the same rows
            scores = logits(self.model, new, self.cache)[0, -1]

        scores = torch.empty(0)
        self.seconds.append(best_seconds(forward, repeats))
        self.ids.append(draw(probabilities(scores.float(), self.choice), self.rng))
        return scores


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What does keeping keys and values save, and what does it cost?")
def grow(config: GrowConfig) -> Iterator[GrowStep]:
    """Both write, side by side; then prefill and decode under the roof."""
    base = yield from with_pauses(load_base(config.model), GrowStep(doing=fetching_words(config.model)))
    model, prompt, extent = llama_of(base.model), prompt_ids(base, config), extent_of(config)
    most = len(prompt) + config.length
    per_token = model_bytes_per_token(model)
    told: dict[str, Any] = {
        "most": most,
        "block": config.block,
        "rates": (roofline().flops_per_second, roofline().bytes_per_second),
        "roof_tokens": extent.roof_tokens,
    }
    dots = [Dot(name, *under_roof(model, new, seen, batch), None) for name, new, seen, batch in passes(extent)]
    first = GrowStep(
        tokens=len(prompt), text=base.text(prompt), floors=floors(model, len(prompt), most), roof=plain(dots), **told
    )
    yield first
    choice = Choice(config.temperature, top_k=40)
    off, on = (
        Writer(model, list(prompt), choice, torch.Generator().manual_seed(config.seed), cache)
        for cache in (None, Growing(model, config.block))
    )
    difference, same = 0.0, 0
    for number in range(config.length):
        slow = off.write(extent.off)
        yield GrowStep(**told)  # a place to take turns
        fast = on.write(extent.on)
        if same == number:  # up to here the same text, so the logits answer the same question
            difference = max(difference, float((slow - fast).abs().max()))
            same += off.ids[-1] == on.ids[-1]
        yield token_step(base, off, on, difference, same == number + 1, told)
    assert on.cache is not None
    figures = writing_figures(model, off, on, len(prompt), same, difference, per_token)
    del on.cache, off
    written: dict[str, Any] = {
        "tokens": most,
        "text": base.text(on.ids),
        "same": same == config.length,
        "difference": difference,
    }
    yield GrowStep(figures=figures, doing="prefill and decode, under the roof", **written, **told)
    yield from roofed(model, extent, dots, told)


def extent_of(config: GrowConfig) -> Extent:
    return SHORT if config.model == real_model.NAME else USUAL


def prompt_ids(base: Base, config: GrowConfig) -> list[int]:
    """The prompt as tokens; an empty one is the token 0."""
    ids = [int(id) for id in base.ids(config.prompt)] or [0]
    if len(ids) + config.length > MOST_TOKENS:
        raise ValueError(
            f"prompt and length together must be at most {MOST_TOKENS} tokens, got {len(ids)} and {config.length}"
        )
    return ids


def token_step(base: Base, off: Writer, on: Writer, difference: float, same: bool, told: dict[str, Any]) -> GrowStep:
    """What both did for this token."""
    assert on.cache is not None
    tokens, off_ms, on_ms = len(on.ids), off.best() * 1e3, on.best() * 1e3
    return GrowStep(
        tokens=tokens,
        text=base.text(on.ids),
        same=same,
        difference=difference,
        off_ms=off_ms,
        on_ms=on_ms,
        off_seconds=sum(off.seconds),
        on_seconds=sum(on.seconds),
        cache_bytes=on.cache.nbytes,
        doing=f"token {tokens}: {off_ms:.2f} ms without the cache, {on_ms:.2f} ms with it",
        **told,
    )


def floors(model: Llama, first: int, most: int) -> tuple[tuple[float, ...], ...]:
    """From the prompt to the end: the least time of the next token without and with the cache, their sums, and the
    cache's bytes.
    """
    told, sums, shown = (
        list[tuple[float, ...]](),
        [0.0, 0.0],
        {*range(first, most, max(1, (most - first) // 24)), most - 1},
    )
    for off, on in zip(*whole_text(first, most - first), strict=True):
        tokens, seconds = off[0], [work(model, *cost).floor_seconds for cost in (off, on)]
        sums = [total + one for total, one in zip(sums, seconds, strict=True)]
        if tokens in shown:
            told.append(
                (float(tokens), *(1e3 * one for one in seconds), *sums, float(tokens * model_bytes_per_token(model)))
            )
    return tuple(told)


def writing_figures(
    model: Llama, off: Writer, on: Writer, prompt: int, same: int, difference: float, per_token: int
) -> tuple[Result, ...]:
    """Equality, memory, and the times of the last token and of the whole text."""
    assert on.cache is not None
    count, tokens = len(off.seconds), on.cache.seen
    # the least time of the last token and of the whole text, each way
    slow, fast = work(model, tokens).floor_seconds, work(model, 1, tokens - 1).floor_seconds
    whole_off, whole_on = (
        sum(work(model, *cost).floor_seconds for cost in costs) for costs in whole_text(prompt, count)
    )
    roof = f"roofline of this machine for token {tokens}: its least operations and bytes"
    return (
        SAME_TOKENS(same, count),
        LOGIT_DIFFERENCE(difference, 0.0),
        CACHE(on.cache.nbytes / 1e3, tokens * per_token / 1e3, source=f"2 L G D b T for {tokens} tokens"),
        LAST_OFF(off.best() * 1e3, slow * 1e3, source=roof),
        LAST_ON(on.best() * 1e3, fast * 1e3, source=roof),
        LAST_SPEEDUP(off.best() / on.best(), slow / fast),
        WHOLE_SPEEDUP(sum(off.seconds) / sum(on.seconds), whole_off / whole_on),
        GROWTH_ON(growth(on.seconds), 1.0),
        GROWTH_OFF(growth(off.seconds), tokens / prompt),
    )


def whole_text(prompt: int, count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(new, seen) of every pass, without and with the cache."""
    return [(prompt + number, 0) for number in range(count)], [(prompt, 0)] + [
        (1, prompt + number) for number in range(count - 1)
    ]


def growth(seconds: list[float]) -> float:
    """The last times over the first ones, each the best of five; the prompt's own pass is left out."""
    rest = seconds[1:] or seconds
    return min(rest[-5:]) / min(rest[:5])


# --- prefill and decode under the roof --------------------------------------------------------------------------------


def passes(extent: Extent) -> list[tuple[str, int, int, int]]:
    """Name, new tokens, tokens seen, texts."""
    seen = extent.roof_tokens
    decoding = [(f"decode, {batch} text{'s' * (batch > 1)}", 1, seen, batch) for batch in extent.batches]
    return [*decoding, (f"prefill, {seen} tokens", seen, 0, 1)]


def under_roof(model: Llama, new: int, seen: int, batch: int) -> tuple[float, float]:
    """Operations per byte, and the most operations per second at that (in GFLOP/s)."""
    cost = work(model, new, seen, batch)
    return cost.intensity, cost.flops / cost.floor_seconds / 1e9


def plain(dots: list[Dot]) -> tuple[tuple[str, float, float, float | None], ...]:
    return tuple((dot.name, dot.intensity, dot.floor, dot.reached) for dot in dots)


def roofed(model: Llama, extent: Extent, dots: list[Dot], told: dict[str, Any]) -> Generator[GrowStep, None, None]:
    """Measure the passes, one per Step."""
    text = torch.zeros((1, extent.roof_tokens), dtype=torch.long, device=model.embed.device)
    rates: dict[str, tuple[float, float]] = {}  # tokens per second: at the floor, measured
    for place, (name, new, seen, batch) in enumerate(passes(extent)):
        cost, seconds = work(model, new, seen, batch), pass_seconds(model, text, new, seen, batch, extent.roof)
        dots[place] = Dot(name, dots[place].intensity, dots[place].floor, cost.flops / seconds / 1e9)
        rates[name] = (batch * new / cost.floor_seconds, batch * new / seconds)
        doing = (
            f"{name}: {batch * new / seconds:,.0f} tokens per second, {seconds / cost.floor_seconds:.1f} times its"
            " floor"
        )
        yield GrowStep(roof=plain(dots), doing=doing, **told)
    best = ", ".join(
        f"{name} {reached:,.0f} tokens/s" for name, (_, reached) in (next(iter(rates.items())), list(rates.items())[-1])
    )
    figures = tuple(RATE.of(passes=name)(reached, floor) for name, (floor, reached) in rates.items())
    yield GrowStep(roof=plain(dots), figures=figures, doing=f"done; under this machine's roof: {best}", **told)


@torch.inference_mode()
def pass_seconds(model: Llama, text: Tensor, new: int, seen: int, batch: int, repeats: int) -> float:
    """The best time of a pass over `new` tokens of `batch` texts that have seen `seen` tokens."""
    cache = Growing(model, text.shape[1] + 1)
    if seen:
        logits(model, text[:, :seen], cache)
        cache = cache.times(batch)
    tokens = text[:, :new].repeat(batch, 1)

    def forward() -> None:
        cache.rewind(seen)
        logits(model, tokens, cache)

    return best_seconds(forward, repeats)
