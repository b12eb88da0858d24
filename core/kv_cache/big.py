r"""How much memory the caches of real models take, and how many texts fit beside the weights on real cards.

A token leaves a key and a value in every layer, for every head that keeps its own:

$$\text{bytes per token} = 2 \, L \, G \, D \, b, \qquad \text{with a latent cache (MLA): } L \, (d_c + d_{rope}) \,
b.$$

Llama-2-7B keeps $2 \cdot 32 \cdot 32 \cdot 128 \cdot 2 = 524{,}288$ bytes, half a MiB, per token. Its weights in 16
bits are 13.5 GB; 25,700 tokens of cache are as much. Llama-2-70B, ten times as large, keeps less per token, since 64
heads of queries share 8 heads of keys and values. DeepSeek-V3 keeps 512 + 64 numbers per layer, from which the keys and
values of all 128 heads are computed again.

The scale marks one card and one node of eight cards; GB are $10^9$ bytes. What a program needs besides weights and
cache is left out, so what is said to fit is a bit too much.

Writing one token each for $B$ texts reads all weights once and all $B$ caches:

$$t \ge \frac{\text{weights} + B \cdot \text{cache of a text}}{\text{memory rate}}.$$

More texts at once share the weights, and that is why servers wait for many; but once the caches are larger than the
weights, twice the texts take nearly twice the time, and then the memory is full. With a mixture of experts each text
chooses its own $c$ of $E$ experts, so $B$ texts read about $1 - (1 - c/E)^B$ of them: with 8 of 256, 64 texts read
87 %.

The formula is checked: transformers builds each model in small, with its own kind of attention and the real number of
numbers per head, writes some tokens, and the storages of its `DynamicCache` are weighed. Mistral's cache forgets what
is older than its window, so it stops growing.

Left out: several cards need a little more (each holds whole heads); activations; pages that are not quite full.
Source: Shazeer 2019, arXiv:1911.02150; Ainslie et al. 2023, arXiv:2305.13245; DeepSeek-AI 2024, arXiv:2412.19437; Kwon
et al. 2023, arXiv:2309.06180 (OPT-13B: 800 KB per token); Austin et al. 2025, "How to Scale Your Model" (step times).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.kv_cache.published import CARDS, MODELS, RULER, Published
from core.kv_cache.scaled import PREFILL, weighed

GB = 1e9
BATCHES = tuple(2**power for power in range(10))
CONTEXTS = tuple(round(128 * 2 ** (power / 2)) for power in range(27))  # 128 to 1,048,576 tokens
BITS = {"16": "16 bits", "8": "8 bits", "4": "4 bits"}

CACHES = Figure("memory of all caches", "GB", "limit", label="computed", headline=True)
CACHE_RATIO = Figure("caches over weights", "times", label="computed")
TOKENS_FIT = Figure("longest text that fits", "tokens", label="computed", headline=True)
STEP_TIME = Figure("least time of a decoding step", "ms", label="computed", headline=True)
STEP_RATE = Figure("most tokens per second", "tokens/s", label="computed", headline=True)
BYTES = Figure("bytes per token, {model}", "bytes", "theory")


@dataclass(frozen=True)
class BigConfig(Config):
    """Which model, on which cards, for how many texts of which length."""

    model: str = setting(
        "llama-2-7b",
        "Model",
        choices={key: f"{told.name} ({told.kind})" for key, told in MODELS.items()},
        help="Models with fewer heads of keys and values, or with a latent cache, need less memory per token.",
    )
    context: int = setting(
        4096,
        "Tokens of each sequence",
        unit="token",
        low=1,
        high=1_048_576,
        help="The cache grows with the text: twice the tokens take twice the memory.",
    )
    batch: int = setting(
        32,
        "Sequences at once",
        unit="sequence",
        low=1,
        high=4096,
        help="More sequences share each reading of the weights, and each brings its own cache.",
    )
    card: str = setting(
        "h100",
        "GPU",
        choices={key: f"{card.name}, {card.gigabytes:g} GB" for key, card in CARDS.items()},
        help="A GPU with more memory holds more caches; one with a faster memory writes faster.",
    )
    cards: int = setting(
        1, "GPUs", unit="GPU", low=1, high=64, help="More GPUs have more memory and read it in parallel."
    )
    cache_bits: str = setting(
        "16", "Cache stored in", choices=BITS, help="Fewer bits make the cache smaller and rounder."
    )
    weight_bits: str = setting(
        "16", "Weights stored in", choices=BITS, more=True, help="Fewer bits leave more memory for caches."
    )
    weighed: int = setting(
        24,
        "Tokens measured",
        unit="token",
        low=PREFILL + 1,
        high=60,
        more=True,
        help="The small models of transformers write so many tokens before their caches are measured.",
    )

    @property
    def memory_bytes(self) -> float:
        return self.cards * CARDS[self.card].gigabytes * GB

    @property
    def bytes_per_second(self) -> float:
        return self.cards * CARDS[self.card].gigabytes_per_second * GB

    @property
    def cache_number(self) -> float:
        return int(self.cache_bits) / 8

    def weight_bytes(self, told: Published) -> float:
        return told.weights * int(self.weight_bits) / 8


@dataclass(frozen=True)
class BigStep(Step):
    """Everything that is computed on the first Step; then one more model that was weighed."""

    model: str = ""  # the chosen one
    per_token: tuple[tuple[str, str, float, float | None], ...] = ()  # name, kind, bytes per token by formula, weighed
    curves: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] = ()  # batch, (context, GB of weights and caches)
    bars: tuple[
        tuple[int, tuple[tuple[str, float, float], ...]], ...
    ] = ()  # batch, (name, GB of weights, GB of caches)
    steps: tuple[tuple[int, float, float, bool], ...] = ()  # batch, ms per step at least, tokens/s at most, does it fit
    texts: tuple[
        tuple[str, tuple[int | None, ...]], ...
    ] = ()  # name, texts that fit on each node of the ruler (None: not even the weights)
    here: tuple[int, float, float, float] = (
        0,
        0.0,
        0.0,
        0.0,
    )  # the chosen context, GB at the chosen batch, weights alone, memory of the cards


# --- what is computed -------------------------------------------------------------------------------------------------


def texts_that_fit(config: BigConfig, told: Published, memory: float) -> int | None:
    """Of config.context tokens each, beside the weights. None: the weights alone are too large."""
    free = memory - config.weight_bytes(told)
    return None if free < 0 else int(free // told.cache_bytes(config.context, 1, config.cache_number))


def tokens_that_fit(config: BigConfig, told: Published) -> float:
    """Tokens of each of config.batch texts; infinite where a window holds less than what is free."""
    free = config.memory_bytes - config.weight_bytes(told)
    tokens = max(0.0, free) // (told.bytes_per_token(config.cache_number) * config.batch)
    return math.inf if told.window and tokens >= told.window else tokens


def total_gb(config: BigConfig, told: Published, context: int, batch: int) -> float:
    return (config.weight_bytes(told) + told.cache_bytes(context, batch, config.cache_number)) / GB


def step_seconds(weight_bytes: float, cache_bytes: float, bytes_per_second: float) -> float:
    """The least time of one decoding step: what has to be read, over the rate of the memory."""
    return (weight_bytes + cache_bytes) / bytes_per_second


def steps_of(
    config: BigConfig, told: Published, batches: tuple[int, ...] = BATCHES
) -> tuple[tuple[int, float, float, bool], ...]:
    """For every batch; of a mixture of experts, the experts that so many tokens are expected to choose are read."""
    rows = list[tuple[int, float, float, bool]]()
    for batch in batches:
        weights = told.weights_read(batch) * int(config.weight_bits) / 8
        caches = told.cache_bytes(config.context, batch, config.cache_number)
        seconds = step_seconds(weights, caches, config.bytes_per_second)
        fits = total_gb(config, told, config.context, batch) * GB <= config.memory_bytes
        rows.append((batch, seconds * 1e3, batch / seconds, fits))
    return tuple(rows)


def first_step(config: BigConfig) -> BigStep:
    """All that needs no measurement."""
    told, batches = MODELS[config.model], sorted({*(batch for batch in BATCHES if batch < config.batch), config.batch})
    bars = tuple(
        (
            batch,
            tuple(
                (
                    one.name,
                    config.weight_bytes(one) / GB,
                    one.cache_bytes(config.context, batch, config.cache_number) / GB,
                )
                for one in MODELS.values()
            ),
        )
        for batch in batches
    )
    return BigStep(
        model=told.name,
        per_token=tuple((one.name, one.kind, one.bytes_per_token(), None) for one in MODELS.values()),
        curves=tuple(
            (batch, tuple((context, total_gb(config, told, context, batch)) for context in CONTEXTS))
            for batch in batches
        ),
        bars=bars,
        steps=steps_of(config, told),
        texts=tuple(
            (one.name, tuple(texts_that_fit(config, one, size * GB) for _, size in RULER)) for one in MODELS.values()
        ),
        here=(
            config.context,
            total_gb(config, told, config.context, config.batch),
            config.weight_bytes(told) / GB,
            config.memory_bytes / GB,
        ),
        figures=computed_figures(config, told),
    )


def computed_figures(config: BigConfig, told: Published) -> tuple[Result, ...]:
    """What follows for the chosen model, from the formula alone."""
    each, cards = f"{config.batch} texts of {config.context:,} tokens", f"{config.cards} x {CARDS[config.card].name}"
    cache, tokens = told.cache_bytes(config.context, config.batch, config.cache_number), tokens_that_fit(config, told)
    weights = config.weight_bytes(told)
    (_, step_ms, rate, _), *_ = steps_of(config, told, (config.batch,))
    room = max(0.0, config.memory_bytes - weights) / GB
    fit = f"memory of {cards} less weights, over bytes per token and {config.batch} texts"
    read = f"all weights that {config.batch} texts need and all caches, read once at the data sheet's rate of {cards}"
    return (
        CACHES(cache / GB, room, source=f"what {cards} have left beside the weights; {each}, 2 L G D b T B"),
        CACHE_RATIO(cache / weights, source=f"{each}; weights in {config.weight_bits} bits"),
        *(() if math.isinf(tokens) else (TOKENS_FIT(tokens, source=fit),)),
        STEP_TIME(step_ms, source=read),
        STEP_RATE(rate, source=read),
    )


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How many texts fit beside a real model's weights?")
def big(config: BigConfig) -> Iterator[BigStep]:
    """Compute at once; then weigh transformers' caches, model by model."""
    start = first_step(config)
    yield start
    found, figures = dict[str, float](), list[Result]()
    for key, told in MODELS.items():
        held = weighed(key, told, config.weighed)
        found[told.name] = held
        source = f"{formula(told)}; measured: DynamicCache of a small one"
        figures.append(BYTES.of(model=told.name)(held, told.bytes_per_token(), source=source))
        rows = tuple((name, kind, nbytes, found.get(name)) for name, kind, nbytes, _ in start.per_token)
        yield BigStep(
            per_token=rows,
            doing=(
                f"{told.name}: transformers' cache holds {held:,.0f} bytes per token, the formula says"
                f" {told.bytes_per_token():,.0f}"
            ),
        )
    yield BigStep(
        per_token=rows,
        figures=tuple(figures),
        doing=(
            f"done: {len(MODELS)} caches weighed, {sum(figure.gap == 0 for figure in figures)} of them are what the"
            " formula says"
        ),
    )


def formula(told: Published) -> str:
    if told.latent:
        return f"{told.layers} x {told.latent} x 2"
    return f"2 x {told.layers} x {told.kept_heads} x {told.head_width} x 2"
