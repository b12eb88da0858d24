"""The lesson of the tab KV caching."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.kv_cache.big import BYTES, CACHES, STEP_RATE, STEP_TIME, TOKENS_FIT
from core.kv_cache.grow import CACHE, GROWTH_OFF, GROWTH_ON, LAST_SPEEDUP, RATE, SAME_TOKENS, WHOLE_SPEEDUP, extent_of
from core.kv_cache.published import CARDS, MODELS
from core.kv_cache.shrink import BEYOND_SINKS, BEYOND_WINDOW, PERPLEXITY_EIGHT, PERPLEXITY_TRAINED, POISONED


def grow_same(run: Outcome) -> str:
    same = run[SAME_TOKENS]
    if same.difference:
        return f"Only the first {same.measured:.0f} of {same.expected:.0f} tokens were the same with and without cache."
    return f"All {same.measured:.0f} tokens were the same with and without the cache: it only saves repeated work."


def grow_faster(run: Outcome) -> str:
    last, whole = run[LAST_SPEEDUP].measured, run[WHOLE_SPEEDUP].measured
    return (
        f"With the cache, the last token came {last:.1f} times as fast and the whole text {whole:.1f} times as fast;"
        f" the price was {run[CACHE].measured:,.0f} kB of memory."
    )


def grow_batch(run: Outcome) -> str:
    texts = extent_of(run.config).batches[-1]
    alone, many = (run[RATE.of(passes=name)].measured for name in ("decode, 1 text", f"decode, {texts} texts"))
    return (
        f"One text alone is written at {alone:,.0f} tokens per second, {texts} at once at {many:,.0f}: they share each"
        " reading of the weights."
    )


def shrink_heads(run: Outcome) -> str:
    trained = run[PERPLEXITY_TRAINED]
    return (
        f"With keys and values shared by groups of heads, and {run.config.steps} training steps to get used to it, the"
        f" perplexity is {trained.measured:.1f}; the full cache has {trained.expected:.1f}."
    )


def rise(run: Outcome) -> float:
    """How much 8 bits raise the perplexity, as a fraction."""
    return run[PERPLEXITY_EIGHT].ratio - 1


def shrink_bits(run: Outcome) -> str:
    cost = "costs next to nothing" if abs(rise(run)) < 0.01 else "makes the text worse" if rise(run) > 0 else "helps"
    return f"Storing keys and values in 8 bits changes the perplexity by {100 * rise(run):+.2f} %: it {cost}."


def shrink_poison(run: Outcome) -> str:
    return (
        f"After the rows of “{run.config.poison.strip()}” in the cache became noise, {run[POISONED].measured:.0f} of"
        f" {run.config.length} next tokens changed, although the prompt stayed: the model reads only its cache."
    )


def big_fits(run: Outcome) -> str:
    """Whether the caches fit beside the weights."""
    caches, config = run[CACHES], run.config
    name, cards = MODELS[config.model].name, f"{config.cards} x {CARDS[config.card].name}"
    if not caches.expected:
        return f"The weights of {name} alone do not fit on {cards}."
    fits = "they fit" if caches.measured <= caches.expected else "they do not fit"
    return (
        f"{config.batch} texts of {config.context:,} tokens need {caches.measured:,.1f} GB of cache with {name};"
        f" {cards} have {caches.expected:,.1f} GB left beside the weights, so {fits}."
    )


def big_longest(run: Outcome) -> str:
    return (
        f"With {run.config.batch} texts at once, each may be at most {run[TOKENS_FIT].measured:,.0f} tokens long."
        if run[TOKENS_FIT].measured
        else ""
    )


def big_speed(run: Outcome) -> str:
    return (
        f"Reading weights and caches takes at least {run[STEP_TIME].measured:,.1f} ms per step, so at most"
        f" {run[STEP_RATE].measured:,.0f} tokens per second can be written."
    )


def beyond_answer(run: Outcome) -> int:
    """Which cache predicts better beyond the learned length: 0 all tokens, 1 both the same, 2 the last ones."""
    return 2 - band(run[BEYOND_WINDOW].ratio, 0.97, 1.03)


def seventy_because(run: Outcome) -> str:
    large, small = (run[BYTES.of(model=f"Llama-2-{size}")].measured for size in ("70B", "7B"))
    return (
        f"{large:,.0f} bytes against {small:,.0f}: it has 80 layers in place of 32, but keeps 8 heads in place of 32 in"
        " each."
    )


LESSON = Lesson(
    question="What does a model keep, so that the next token costs little?",
    idea=(
        "A model writes one token at a time, and each new token looks back at all earlier ones. What it looks at are"
        " their keys and values, which never change. Kept in a cache, they are not computed again, so a token costs"
        " about the same early and late. The price is memory: a row for every token, layer and head, and it grows with"
        " the text."
    ),
    formula=r"\text{bytes} = 2 \, L \, G \, D \, b \, T \, B",
    experiments=(
        Card(
            "grow",
            "Write with and without a cache",
            "start",
            10,
            "a small Llama, or SmolLM2, writes your prompt on",
            (grow_same, grow_faster, grow_batch),
            ("kv_cache.llama", "kv_cache.cache", "kv_cache.costs", "foundations.roofline", "foundations.sampling"),
        ),
        Card(
            "shrink",
            "Make the cache smaller",
            "deeper",
            14,
            "fewer heads, fewer tokens, fewer bits",
            (shrink_heads, shrink_bits, shrink_poison),
            ("kv_cache.variants", "kv_cache.cache", "kv_cache.llama", "kv_cache.uptraining", "kv_cache.poison"),
        ),
        Card(
            "big",
            "Serve a real model",
            "expert",
            7,
            "published models on real cards, by formula and weighed",
            (big_fits, big_longest, big_speed),
            ("kv_cache.published", "kv_cache.scaled", "kv_cache.costs", "foundations.published_shapes"),
        ),
    ),
    steps=(
        Look(
            "Only the newest token asks a question. The keys and values of all earlier tokens wait in the cache.",
            "idea",
        ),
        Ask(
            "With the cache, how much longer than the first tokens does a token take after 200 others?",
            "grow",
            {"length": 220},
            ("less than twice as long", "two to six times as long", "more than six times as long"),
            lambda run: band(run[GROWTH_ON], 2, 6),
            lambda run: (
                f"It took {run[GROWTH_ON].measured:.1f} times as long, and without the cache"
                f" {run[GROWTH_OFF].measured:.1f} times: one token goes through the weights, and reading the cached"
                " rows is little beside that."
            ),
        ),
        Ask(
            "The last of 220 tokens: how many times as fast is it with the cache as without?",
            "grow",
            {"length": 220},
            ("less than 3 times", "3 to 60 times", "more than 60 times"),
            lambda run: band(run[LAST_SPEEDUP], 3, 60),
            lambda run: (
                f"{run[LAST_SPEEDUP].measured:.0f} times. The whole text was {run[WHOLE_SPEEDUP].measured:.1f} times as"
                " fast, since its early tokens had little to save."
            ),
        ),
        Look("Follow the two curves of the time per token: one climbs with the text, the other stays.", "film", "grow"),
        Ask(
            "Keys and values are stored in 8 bits in place of 32. How much does the perplexity rise?",
            "shrink",
            {"steps": 0},
            ("by less than 1 %", "by 1 to 10 %", "by more than 10 %"),
            lambda run: band(rise(run), 0.01, 0.1),
            lambda run: (
                f"It went from {run[PERPLEXITY_EIGHT].expected:.2f} to {run[PERPLEXITY_EIGHT].measured:.2f}: with a"
                " scale for every row of 32 values, rounding loses less than one part in 250 of the largest."
            ),
        ),
        Ask(
            "The model has learned texts of 128 tokens. Beyond, which cache predicts better: all tokens, or the last"
            " 32?",
            "shrink",
            {"window": 32, "steps": 0},
            ("all tokens", "both about the same", "the last 32"),
            beyond_answer,
            lambda run: (
                f"Perplexity {run[BEYOND_WINDOW].measured:.1f} with the window, {run[BEYOND_WINDOW].expected:.1f} with"
                f" everything and {run[BEYOND_SINKS].measured:.1f} with the window and the first tokens: distances"
                " above 128 tokens never occurred in training."
            ),
        ),
        Ask(
            "The rows of “not” in the cache become noise; the text stays. How many of the next 40 tokens change?",
            "shrink",
            {"poison": "not", "length": 40, "steps": 0},
            ("none", "up to half of them", "more than half"),
            lambda run: band(run[POISONED], 1, 21),
            lambda run: (
                f"{run[POISONED].measured:.0f} of 40 changed. The text still says “not”; the model reads its cache,"
                " never the text again."
            ),
        ),
        Ask(
            "Llama-2-70B has ten times the weights of Llama-2-7B. How many bytes does a token need in its cache?",
            "big",
            {},
            ("fewer", "as many, up to 5 times as many", "more than 5 times as many"),
            lambda run: band(
                run[BYTES.of(model="Llama-2-70B")].measured / run[BYTES.of(model="Llama-2-7B")].measured, 1, 5
            ),
            seventy_because,
        ),
    ),
)
