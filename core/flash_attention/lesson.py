"""The lesson of the tab FlashAttention."""

from core.flash_attention.race import GROWTH, LONGEST_NAIVE, TIME_RATIO
from core.flash_attention.rescale import ERROR_WITHOUT, OVERFLOW, SHIFTED_ERROR, WAYS, WRONG_ROWS
from core.flash_attention.sentence import SENTENCE
from core.flash_attention.tiles import ERROR, ERROR_FLOAT64, MOVED_STANDARD, MOVED_TILES, RESCALED, TRAFFIC_RATIO
from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run

NAIVE_GROWTH, FUSED_GROWTH = (GROWTH.of(way=way) for way in ("naive attention", "the fused kernel"))


def tiles_exact(run: Outcome) -> str:
    error = run[ERROR].measured
    meaning = "only rounding, so nothing was approximated" if error < 1e-4 else "more than rounding explains"
    return f"The tiled output differs from attention in one piece by at most {error:.0e} of its size: {meaning}."


def tiles_rescaled(run: Outcome) -> str:
    times = run[RESCALED].measured
    if not times:
        return "No row met a larger score in a later tile, so nothing had to be rescaled."
    return f"A later tile held a row's largest score so far {times:,.0f} times, and one factor corrected that row."


def tiles_traffic(run: Outcome) -> str:
    tiled, standard, ratio = (run[figure].measured for figure in (MOVED_TILES, MOVED_STANDARD, TRAFFIC_RATIO))
    verdict = (
        "the tiles save traffic" if ratio > 1.02 else "tiles this small cost traffic" if ratio < 0.98 else "a draw"
    )
    return f"The tiles moved {tiled:,.0f} elements and the standard way {standard:,.0f}: {verdict}."


def rescale_rows(run: Outcome) -> str:
    rows = run[WRONG_ROWS]
    return (
        f"Without rescaling {rows.measured:.0f} rows are wrong, by up to {run[ERROR_WITHOUT].measured:.1g} of the"
        f" largest output; the maximum rose after the first tile in {rows.expected:.0f} rows."
    )


def rescale_overflow(run: Outcome) -> str:
    limit, shift = run[OVERFLOW].measured, run.config.shift
    state = "so it gave no number" if shift > limit else "so it still worked"
    return (
        f"The textbook softmax in {run.config.numbers} overflows from a shift of {limit:.1f} on; you added {shift:g},"
        f" {state}."
    )


def rescale_online(run: Outcome) -> str:
    error, mixed = (run[SHIFTED_ERROR.of(way=WAYS[way])].measured for way in ("online", "mixed"))
    if error < 1e-3:
        return f"The online softmax never sees an exponent above 0, and its error is {error:.0e}."
    return (
        f"The online softmax in {run.config.numbers} is off by {error:.0e}; with scores and sums in 32 bits, as"
        f" FlashAttention does it, by {mixed:.0e}."
    )


def race_memory(run: Outcome) -> str:
    naive, fused = run[NAIVE_GROWTH].measured, run[FUSED_GROWTH].measured
    return (
        f"When the text doubled, naive attention's memory grew {naive:.1f} times and the fused kernel's {fused:.1f}"
        " times: score matrices against rows."
    )


def race_time(run: Outcome) -> str:
    ratio = run[TIME_RATIO].measured
    if ratio < 1:
        return f"Here naive attention needed {ratio:.2f} times the time of the fused kernel: it was faster."
    return f"Naive attention took {ratio:.1f} times as long as the fused kernel, with the same result."


def race_longest(run: Outcome) -> str:
    return (
        f"With the memory that is free here, naive attention could train on at most"
        f" {run[LONGEST_NAIVE].measured:,.0f} tokens."
    )


def error_answer(run: Outcome) -> int:
    error = run[ERROR].measured
    return 0 if error > 1e-3 else 1 if error > 0 else 2


def rows_answer(run: Outcome) -> int:
    """Which rows are wrong: none, those whose maximum rose, or more than those."""
    wrong, risen = run[WRONG_ROWS].measured, run[WRONG_ROWS].expected
    return 0 if wrong == 0 else 1 if abs(wrong - risen) <= 0.1 * len(run.config.text) else 2


def survives(run: Outcome, way: str) -> bool:
    """Whether a way still gives numbers that are right to a hundredth; its figure is empty where it gave none."""
    figure = SHIFTED_ERROR.of(way=WAYS[way])
    return figure in run and run[figure].measured < 1e-2


def shift_answer(run: Outcome) -> int:
    run[OVERFLOW].measured  # noqa: B018  raises where the run ended early
    return 0 if survives(run, "textbook") else 1 if survives(run, "online") else 2


LESSON = Lesson(
    question="How can attention be exact and never hold the whole score matrix?",
    idea=(
        "Attention compares every token with every other: for N tokens that is a matrix of N x N scores. Writing it to"
        " memory and reading it back takes most of the time. FlashAttention computes it in small tiles that fit into"
        " fast memory. Per row it remembers the largest score and the sum so far, and corrects both when a larger score"
        " comes. The result is exact."
    ),
    formula=r"m' = \max(m, \max_j s_j), \qquad \ell' = e^{m-m'}\,\ell + \sum_j e^{s_j-m'}",
    experiments=(
        Card(
            "tiles",
            "Watch attention tile by tile",
            "start",
            3,
            "one head of a small trained GPT reads your sentence",
            (tiles_exact, tiles_rescaled, tiles_traffic),
            ("flash_attention.tiling", "flash_attention.sentence"),
        ),
        Card(
            "rescale",
            "Break the online softmax",
            "deeper",
            3,
            "the same tiles with one line taken out",
            (rescale_rows, rescale_overflow, rescale_online),
            ("flash_attention.tiling", "flash_attention.sentence"),
        ),
        Card(
            "race",
            "Race naive against fused attention",
            "deeper",
            8,
            "PyTorch's own kernels on this machine",
            (race_memory, race_time, race_longest),
            ("flash_attention.ways", "flash_attention.tiling", "foundations.roofline", "foundations.live_storages"),
        ),
    ),
    steps=(
        Look(
            "Queries and keys enter in blocks. Each tile of scores is made in fast memory, used once and thrown away;"
            " only the output goes back to slow memory.",
            "idea",
        ),
        Ask(
            "The output is put together from small tiles, and no row is ever seen as a whole. How far off is it?",
            "tiles",
            {"sram": 8},
            ("more than a thousandth", "only rounding", "equal in every bit"),
            error_answer,
            lambda run: (
                f"The largest error is {run[ERROR].measured:.0e} of the largest output: rounding in another order."
                f" Against float64, torch's own kernel is off by {run[ERROR_FLOAT64].expected:.0e} and the tiles by"
                f" {run[ERROR_FLOAT64].measured:.0e}."
            ),
        ),
        Look("Drag the slider through the tiles. A row fades when a later tile holds a larger score for it.", "film"),
        Ask(
            "With only 2 KiB of fast memory the tiles are tiny. Do they still move less than the standard way?",
            "tiles",
            {"sram": 2},
            ("yes, less", "about the same, within 5 %", "no, more"),
            lambda run: 2 - band(run[TRAFFIC_RATIO], 1 / 1.05, 1.05),
            lambda run: (
                f"The tiles moved {run[MOVED_TILES].measured:,.0f} elements, the standard way"
                f" {run[MOVED_STANDARD].measured:,.0f}: every block of keys makes all queries and outputs travel once"
                " more."
            ),
        ),
        Ask(
            "The rescaling line is taken out. Which rows of the output are wrong?",
            "rescale",
            {"tile_keys": 16, "text": SENTENCE},
            ("none", "those whose maximum rose after the first tile", "many more than those"),
            rows_answer,
            lambda run: (
                f"{run[WRONG_ROWS].measured:.0f} of {len(run.config.text)} rows are wrong, and the maximum rose in"
                f" {run[WRONG_ROWS].expected:.0f}; the others had their largest score in the first tile, so the factor"
                " was 1."
            ),
        ),
        Ask(
            "100 is added to every score, which changes no weight on paper. What still works in float32?",
            "rescale",
            {"shift": 100.0, "numbers": "float32"},
            ("textbook and online softmax", "only the online softmax", "neither"),
            shift_answer,
            lambda run: (
                f"The textbook softmax overflows from a shift of {run[OVERFLOW].measured:.1f} on; with the running"
                " maximum every exponent is at most 0."
            ),
        ),
        Ask(
            "The text becomes twice as long. What happens to the fused kernel's peak memory?",
            "race",
            {"most_n": 1024},
            ("it stays the same", "it doubles", "it grows fourfold"),
            lambda run: band(run[FUSED_GROWTH], 1.3, 3.0),
            lambda run: (
                f"The fused kernel's grew {run[FUSED_GROWTH].measured:.2f} times: rows, no matrix. Naive attention's"
                f" grew {run[NAIVE_GROWTH].measured:.2f} times, nearly all of it matrices of N x N scores."
            ),
        ),
        Run("Now let every way run on longer and longer texts. Watch which curve is steepest.", "race", {}, "memory"),
    ),
)
