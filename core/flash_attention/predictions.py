"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.flash_attention.rescale import WAYS
from core.flash_attention.sentence import SENTENCE
from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def error_answer(figures: Figures) -> int:
    error = measured(figures, "largest error of the output")
    return 0 if error > 1e-3 else 1 if error > 0 else 2


def explain_error(figures: Figures) -> str:
    told = figures["error of the output against float64"]
    return (
        f"The largest error is {measured(figures, 'largest error of the output'):.0e} of the largest output: rounding in another order. Against float64, "
        f"torch's own kernel is off by {told.predicted:.0e} and the tiles by {told.measured:.0e}."
    )


def traffic_answer(figures: Figures) -> int:
    ratio = measured(figures, "standard over tiled")
    return 0 if ratio > 1.05 else 1 if ratio > 1 / 1.05 else 2


def explain_traffic(figures: Figures) -> str:
    tiled, full = (measured(figures, f"moved in {way}") for way in ("tiles", "the standard way"))
    return f"Tiles moved {tiled:,.0f} numbers, the standard way {full:,.0f}: every block of keys makes all queries and outputs travel once more."


def rows_answer(figures: Figures) -> int:
    wrong, risen = (getattr(figures["rows that are wrong without the line"], side) for side in ("measured", "predicted"))
    return 2 if wrong >= len(SENTENCE) else 0 if wrong == 0 else 1 if abs(wrong - risen) <= 0.1 * len(SENTENCE) else 2


def explain_rows(figures: Figures) -> str:
    told = figures["rows that are wrong without the line"]
    return (
        f"{told.measured:.0f} of {len(SENTENCE)} rows are wrong, and the maximum rose in {told.predicted:.0f}; the others had their largest score in the "
        "first tile, so the factor was 1."
    )


def shift_answer(figures: Figures) -> int:
    plain, online = (measured(figures, f"largest error, {WAYS[way]}") < 1e-2 for way in ("textbook", "online"))
    return 0 if plain and online else 1 if online else 2


def explain_shift(figures: Figures) -> str:
    limit, error = figures["shift at which the textbook formula overflows, float32"], measured(figures, f"largest error, {WAYS['online']}")
    return (
        f"The textbook formula overflows from a shift of {limit.measured:.1f} on; with the running maximum every exponent is at most 0, and the error "
        f"is {error:.0e}."
    )


def growth_answer(figures: Figures) -> int:
    growth = measured(figures, "peak of SDPA flash when the text doubles")
    return 0 if growth < 1.3 else 1 if growth < 3 else 2


def explain_growth(figures: Figures) -> str:
    flash, naive = (measured(figures, f"peak of {way} when the text doubles") for way in ("SDPA flash", "naive"))
    return f"Flash grew {flash:.2f} times: rows, no table. Naive attention grew {naive:.2f} times, nearly all of it tables of N x N."


PREDICTIONS = (
    Prediction(
        "Attention is put together from small tiles, and no row is ever seen as a whole. How far off is the result?",
        "tiles",
        {"sram": 8},
        ("more than a thousandth", "only rounding", "equal in every bit"),
        error_answer,
        explain_error,
    ),
    Prediction(
        "With only 2 KiB of fast memory the tiles are tiny. Do they still move less than the standard way?",
        "tiles",
        {"sram": 2},
        ("yes, less", "about the same", "no, more"),
        traffic_answer,
        explain_traffic,
    ),
    Prediction(
        "The rescaling line is taken out. Which rows of the output are wrong?",
        "rescale",
        {"tile_keys": 16, "text": SENTENCE},
        ("none", "those whose max rose after the first tile", "all"),
        rows_answer,
        explain_rows,
    ),
    Prediction(
        "100 is added to every score, which changes no weight on paper. What survives in float32?",
        "rescale",
        {"shift": 100.0, "numbers": "float32"},
        ("textbook and online softmax", "only the online softmax", "neither"),
        shift_answer,
        explain_shift,
    ),
    Prediction(
        "The text becomes twice as long. What does the peak of memory of the flash kernel do?",
        "race",
        {"most_n": 2048},
        ("it stays", "it doubles", "it grows fourfold"),
        growth_answer,
        explain_growth,
    ),
)
