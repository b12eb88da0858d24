"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def rung_passed(figures: Figures) -> int:
    """0: not even the single characters' counts, 1: the counts, 2: the pairs, 3: the triples."""
    names = ("validation loss against counts", "validation loss against pairs", "validation loss against triples")
    passed = [(figures[name].gap or 0) < 0 for name in names if name in figures]
    return sum(passed) if len(passed) == 3 else 0


def explain_rung(figures: Figures) -> str:
    loss, triples = measured(figures, "validation loss against triples"), figures["validation loss against triples"].predicted
    return f"The validation loss ended at {loss:.2f} nats per character; a table of all triples of this text would need {triples:.2f}."


def residual_answer(figures: Figures) -> int:
    gap = figures["validation loss of B against A"].gap or 0.0
    return 0 if gap < 0.05 else 1 if gap < 0.5 else 2


def explain_residual(figures: Figures) -> str:
    one = figures["validation loss of B against A"]
    return f"A ended at {one.predicted:.2f} and B, with the connections cut, at {one.measured:.2f} nats per character: {one.gap:+.2f}."


def surprise_answer(figures: Figures) -> int:
    return 0 if measured(figures, "mean surprise") == 0 else 1 if measured(figures, "mean surprise") < 0.2 else 2


def explain_surprise(figures: Figures) -> str:
    return (
        f"The mean surprise was {measured(figures, 'mean surprise'):.2f} nats: what always is the likeliest is drawn with probability 1, "
        "so nothing that was drawn could surprise, however unsure the model itself was."
    )


PREDICTIONS = (
    Prediction(
        "In 150 steps on the play, a few seconds: what will the model know?",
        "train",
        {"steps": 150},
        ("not even how often each letter occurs", "the letters, but not the pairs", "the pairs, but not the triples", "more than the triples"),
        rung_passed,
        explain_rung,
    ),
    Prediction(
        "Halfway through, cut the residual connections. Will the run recover?",
        "fork",
        {"change": "no_residual", "steps": 120, "fork_at": 60},
        ("yes, within 0.05 nats of the other", "partly, within 0.5 nats", "no"),
        residual_answer,
        explain_residual,
    ),
    Prediction(
        "At temperature 0, how much does what is drawn surprise the distribution it was drawn from?",
        "generate",
        {"temperature": 0.0, "length": 200},
        ("not at all", "a little, under 0.2 nats", "as much as at any temperature"),
        surprise_answer,
        explain_surprise,
    ),
)
