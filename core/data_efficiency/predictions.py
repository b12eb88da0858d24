"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def gap_of(figures: Figures, name: str) -> float:
    """Measured minus predicted; infinite where the run blew up."""
    gap = figures[name].gap
    return float("inf") if gap is None or gap != gap else gap


def four_answer(figures: Figures) -> int:
    gap = abs(gap_of(figures, "loss after 4 epochs"))
    return 0 if gap < 0.03 else 1 if gap < 0.3 else 2


def explain_four(figures: Figures) -> str:
    four = figures["loss after 4 epochs"]
    return f"The law said {four.predicted:.3f} and the runs ended at {four.measured:.3f} nats per character: {four.gap:+.3f}."


def forty_answer(figures: Figures) -> int:
    gap = gap_of(figures, "loss after 40 epochs")
    return 0 if gap < 0.03 else 1 if gap < 0.3 else 2


def explain_forty(figures: Figures) -> str:
    forty = figures["loss after 40 epochs"]
    return (
        f"The law said {forty.predicted:.2f} and the runs ended at {forty.measured:.2f} nats per character: a model with more weights than characters "
        "to read learns them by heart."
    )


def smaller_answer(figures: Figures) -> int:
    gap = gap_of(figures, "loss after 16 epochs")
    return 0 if gap < 0.03 else 1 if gap < 0.2 else 2


def explain_smaller(figures: Figures) -> str:
    sixteen = figures["loss after 16 epochs"]
    return f"With the small models the law said {sixteen.predicted:.3f} and the runs ended at {sixteen.measured:.3f} nats per character: {sixteen.gap:+.3f}."


def heart_answer(figures: Figures) -> int:
    kept, cleaned = figures["word for word with copies"].measured or 0.0, figures["word for word without copies"].measured or 0.0
    return 0 if kept < 2 * cleaned + 1 else 1 if kept < 10 * cleaned else 2


def explain_heart(figures: Figures) -> str:
    kept, cleaned = figures["word for word with copies"], figures["word for word without copies"]
    return f"With the copies {kept.measured:.1f}, without them {cleaned.measured:.1f} {kept.unit} of a repeated passage, word for word."


def half_answer(figures: Figures) -> int:
    easiest, hardest = (gap_of(figures, f"loss, {kind} 50 %, 512 characters") for kind in ("easiest", "hardest"))
    return 2 if min(easiest, hardest) > 0 else 0 if easiest < hardest else 1


def explain_half(figures: Figures) -> str:
    ends = [f"{name.removeprefix('loss, ')}: {one.gap:+.3f}" for name, one in figures.items() if name.startswith("loss, ") and ", 512 " in name]
    return "Nats per character more or less than a random half: " + "; ".join(ends) + "."


def short_answer(figures: Figures) -> int:
    loss, seconds = gap_of(figures, "loss, short sequences first"), figures["seconds, short sequences first"].measured or 0.0
    return 0 if loss < 0 and seconds < 100 else 1 if loss < 0 else 2


def explain_short(figures: Figures) -> str:
    loss, seconds = figures["loss, short sequences first"], figures["seconds, short sequences first"]
    return (
        f"Short first ended at {loss.measured:.3f}, the baseline at {loss.predicted:.3f} nats per character, "
        f"in {seconds.measured:.0f} % of the baseline's seconds."
    )


def seventh_answer(figures: Figures) -> int:
    gap = abs(gap_of(figures, "loss of the seventh run"))
    return 0 if gap < 0.05 else 1 if gap < 0.15 else 2


def explain_seventh(figures: Figures) -> str:
    seventh, other = figures["loss of the seventh run"], figures["the same, by Chinchilla's form"]
    return (
        f"Foretold {seventh.predicted:.3f}, measured {seventh.measured:.3f} nats per character: {seventh.gap:+.3f}; "
        f"Chinchilla's form, fitted to the same six runs, said {other.predicted:.3f}."
    )


PREDICTIONS = (
    Prediction(
        "Read a quarter of the text four times instead of all of it once. How far from the law do the runs end?",
        "repeat",
        {"epochs": 4},
        ("less than 0.03 nats", "0.03 to 0.3 nats", "more than 0.3 nats"),
        four_answer,
        explain_four,
    ),
    Prediction(
        "Read a fortieth of the text forty times. How much worse than the law do the runs end?",
        "repeat",
        {"epochs": 40},
        ("no worse than 0.03 nats", "0.03 to 0.3 nats", "more than 0.3 nats"),
        forty_answer,
        explain_forty,
    ),
    Prediction(
        "A quarter of the width has a tenth of the weights. Sixteen epochs: how much worse than the law now?",
        "repeat",
        {"epochs": 16, "width": 8},
        ("no worse than 0.03 nats", "0.03 to 0.2 nats", "more than 0.2 nats"),
        smaller_answer,
        explain_smaller,
    ),
    Prediction(
        "Two passages stand 200 times in the text. How much more of them is continued word for word than with one copy each?",
        "dedup",
        {},
        ("less than twice as much", "two to ten times", "more than ten times"),
        heart_answer,
        explain_heart,
    ),
    Prediction(
        "There is little text: 512 characters may be kept. Which half of what there is should it be?",
        "prune",
        {},
        ("the easiest", "the hardest", "a random half"),
        half_answer,
        explain_half,
    ),
    Prediction(
        "Short sequences first, the same number of characters: better, faster, both?",
        "curriculum",
        {},
        ("better and faster", "better, but not faster", "not better"),
        short_answer,
        explain_short,
    ),
    Prediction(
        "Six runs, none with half of its weights times text. How far off is the law on the seventh?",
        "scaling",
        {},
        ("less than 0.05 nats", "0.05 to 0.15 nats", "more than 0.15 nats"),
        seventh_answer,
        explain_seventh,
    ),
)
