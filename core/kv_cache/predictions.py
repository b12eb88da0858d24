"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction
from core.kv_cache.shrink import EIGHT, FULL

Figures = Mapping[str, Compared]
WINDOW = "window 32"


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def flat_answer(figures: Figures) -> int:
    times = measured(figures, "time of a cached token, end / start")
    return 0 if times < 2 else 1 if times < 6 else 2


def explain_flat(figures: Figures) -> str:
    kept, anew = (measured(figures, f"time of {which} token, end / start") for which in ("a cached", "an uncached"))
    why = "one token goes through the weights, and reading the kept rows is little beside that"
    return f"It took {kept:.1f} times as long, and without the cache {anew:.1f} times: {why}."


def faster_answer(figures: Figures) -> int:
    times = measured(figures, "last token, times faster")
    return 0 if times < 3 else 1 if times < 60 else 2


def explain_faster(figures: Figures) -> str:
    last, whole = figures["last token, times faster"], measured(figures, "whole text, times faster")
    return (
        f"{measured(figures, 'last token, times faster'):.0f} times; the floors allow {last.predicted:.0f}, but in so small a model "
        "a single token mostly waits for the program between the operations. "
        f"The whole text was {whole:.1f} times faster, since its early tokens had little to save."
    )


def beyond_answer(figures: Figures) -> int:
    full, short = (measured(figures, f"perplexity beyond 128, {name}") for name in (FULL, WINDOW))
    return 0 if full < 0.97 * short else 1 if full <= 1.03 * short else 2


def explain_beyond(figures: Figures) -> str:
    full, short = (measured(figures, f"perplexity beyond 128, {name}") for name in (FULL, WINDOW))
    return f"Perplexity {short:.1f} with the window and {full:.1f} with everything: distances above 128 tokens never occurred when the base learnt."


def bits_answer(figures: Figures) -> int:
    pair = figures[f"perplexity, {EIGHT}"]
    rise = measured(figures, f"perplexity, {EIGHT}") / (pair.predicted or 1.0) - 1
    return 0 if rise < 0.01 else 1 if rise < 0.1 else 2


def explain_bits(figures: Figures) -> str:
    pair = figures[f"perplexity, {EIGHT}"]
    return (
        f"It went from {pair.predicted:.2f} to {pair.measured:.2f}: a row of 32 numbers with a scale of its own loses less than one part in 250 of its largest."
    )


def poison_answer(figures: Figures) -> int:
    differing = measured(figures, "next tokens changed by the poison")
    return 0 if differing == 0 else 1 if differing <= 20 else 2


def explain_poison(figures: Figures) -> str:
    differing = measured(figures, "next tokens changed by the poison")
    return f"{differing:.0f} of 40 changed. The text still says “not”; the model reads its cache, never the text again."


def seventy_answer(figures: Figures) -> int:
    large, small = (measured(figures, f"bytes per token, Llama-2-{size}") for size in ("70B", "7B"))
    return 0 if large < small else 1 if large < 5 * small else 2


def explain_seventy(figures: Figures) -> str:
    large, small = (measured(figures, f"bytes per token, Llama-2-{size}") for size in ("70B", "7B"))
    return f"{large:,.0f} bytes against {small:,.0f}: it has 80 layers instead of 32, but keeps 8 heads instead of 32 in each."


PREDICTIONS = (
    Prediction(
        "With the cache, how much longer than the first tokens does a token take after 200 others?",
        "grow",
        {"length": 220},
        ("less than twice as long", "two to six times", "more than six times"),
        flat_answer,
        explain_flat,
    ),
    Prediction(
        "The last of 220 tokens: how many times faster is it with the cache than without?",
        "grow",
        {"length": 220},
        ("less than 3 times", "3 to 60 times", "more than 60 times"),
        faster_answer,
        explain_faster,
    ),
    Prediction(
        "The base has learnt texts of 128 tokens. Beyond, which cache predicts better: all tokens, or the last 32?",
        "shrink",
        {"window": 32, "steps": 0},
        ("all tokens", "both the same", "the last 32"),
        beyond_answer,
        explain_beyond,
    ),
    Prediction(
        "Keys and values are stored in 8 bits instead of 32. How much does the perplexity rise?",
        "shrink",
        {"steps": 0},
        ("by less than 1 %", "by 1 to 10 %", "by more than 10 %"),
        bits_answer,
        explain_bits,
    ),
    Prediction(
        "The rows of “not” in the cache become noise; the text stays. How many of the next 40 tokens change?",
        "shrink",
        {"poison": "not", "length": 40, "steps": 0},
        ("none", "up to half of them", "more than half"),
        poison_answer,
        explain_poison,
    ),
    Prediction(
        "Llama-2-70B has ten times the weights of Llama-2-7B. How many bytes does a token leave in its cache?",
        "big",
        {},
        ("fewer", "about as many, up to 5 times", "about ten times as many"),
        seventy_answer,
        explain_seventy,
    ),
)
