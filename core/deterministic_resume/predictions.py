"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    """The measured side; a figure that is not there is a KeyError, so that a stopped run decides nothing."""
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def rng_answer(figures: Figures) -> int:
    apart = abs(figures["resumed: last loss"].gap or 0.0)
    same = measured(figures, "weights that differ at the end") == 0
    return 0 if same else 1 if apart < 0.1 else 2


def explain_rng(figures: Figures) -> str:
    loss = figures["resumed: last loss"]
    return (
        f"{measured(figures, 'weights that differ at the end'):,.0f} weights differ at the end, "
        f"while the loss is {loss.measured:.3f} instead of {loss.predicted:.3f}: dropout drew other numbers. A loss curve does not show it, a hash does."
    )


def bit_answer(figures: Figures) -> int:
    again = measured(figures, "steps done twice")
    return 0 if measured(figures, "weights that differ at the end") > 0 else 1 if again < 8 else 2


def explain_bit(figures: Figures) -> str:
    return (
        f"The SHA-256 gave the bit away, the checkpoint before was used, and {measured(figures, 'steps done twice'):.0f} steps were done twice. "
        f"Weights that differ at the end: {measured(figures, 'weights that differ at the end'):.0f}."
    )


def nudge_answer(figures: Figures) -> int:
    apart = measured(figures, "distance after the last step")
    return 0 if apart < 1e-6 else 1 if apart < 1e-3 else 2


def explain_nudge(figures: Figures) -> str:
    grown = measured(figures, "growth of the distance")
    return f"The distance grew {grown:,.0f} times, to {measured(figures, 'distance after the last step'):.2g}; the repetition without the change stayed at 0."


def ranks_answer(figures: Figures) -> int:
    at_start, after = (measured(figures, f"weights that differ {when}, 4 ranks") for when in ("at the checkpoint", "after the last step"))
    return 0 if at_start > 0 else 1 if after > 0 else 2


def explain_ranks(figures: Figures) -> str:
    return (
        f"{measured(figures, 'weights that differ at the checkpoint, 4 ranks'):.0f} weights differ at the checkpoint and "
        f"{measured(figures, 'weights that differ after the last step, 4 ranks'):,.0f} at the end, by at most "
        f"{measured(figures, 'largest difference after the last step, 4 ranks'):.1e}: four shares of a batch are added in another order than two."
    )


def often_answer(figures: Figures) -> int:
    best, often, rarely = (
        measured(figures, f"time lost {name}") for name in ("at the best interval", "saving four times as often", "saving a quarter as often")
    )
    return 0 if often < best + 1 else 1 if often < rarely else 2


def explain_often(figures: Figures) -> str:
    best, often, rarely = (
        measured(figures, f"time lost {name}") for name in ("at the best interval", "saving four times as often", "saving a quarter as often")
    )
    return f"At sqrt(2 C M) {best:.1f} % of the work is lost, four times as often {often:.1f} %, a quarter as often {rarely:.1f} %."


PREDICTIONS = (
    Prediction(
        "Everything is put back but the states of the random generators. How does the resumed run end?",
        "unplug",
        {"rng": False, "accident": "none"},
        ("with the same bits", "with other bits and nearly the same loss", "with a clearly worse or better loss"),
        rng_answer,
        explain_rng,
    ),
    Prediction(
        "One bit of the last checkpoint flips before the resume. What comes of it?",
        "unplug",
        {"rng": True, "accident": "bit"},
        ("a run with a wrong weight that nobody notices", "the same bits, at no cost", "the same bits, and more steps done twice"),
        bit_answer,
        explain_bit,
    ),
    Prediction(
        "One weight is moved by 0.00000001, its last digit. How far apart are the two runs after 200 steps?",
        "chaos",
        {"nudge": 1e-8, "learning_rate": 0.5, "steps": 200},
        ("about as far as at the start (below 0.000001)", "a little (below 0.001)", "far: they are different models"),
        nudge_answer,
        explain_nudge,
    ),
    Prediction(
        "Two ranks save, four ranks load and go on. Where do the weights differ from the never-stopped run?",
        "reshard",
        {"steps": 8},
        ("from the checkpoint on", "only after it", "nowhere"),
        ranks_answer,
        explain_ranks,
    ),
    Prediction(
        "A save takes 60 s, a failure comes every 3 hours. You save four times as often as is best. What does it cost?",
        "interval",
        {"save_seconds": 60.0, "failures": 8.0},
        ("hardly anything (below 1 % of the time)", "more, though less than saving a quarter as often", "more than saving a quarter as often"),
        often_answer,
        explain_often,
    ),
)
