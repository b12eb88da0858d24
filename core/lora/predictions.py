"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def enough_answer(figures: Figures) -> int:
    left = measured(figures, "left of the change")
    return 0 if left < 0.001 else 1 if left < 0.5 else 2


def explain_enough(figures: Figures) -> str:
    left, at = measured(figures, "left of the change"), measured(figures, "largest fall of what is left, at rank")
    return f"{100 * left:.3g} % of the change was left at the end; over the ranks 1 to 8, what is left fell most at rank {at:.0f}."


def winner_answer(figures: Figures) -> int:
    lead = min(figures[f"LoRA against {control}"].gap or 0.0 for control in ("inputs x 16", "biases only"))
    return 0 if lead > 2 else 2 if lead < -2 else 1


def explain_winner(figures: Figures) -> str:
    scaled, biases = figures["LoRA against inputs x 16"], figures["LoRA against biases only"]
    return f"LoRA: {scaled.measured:.1f} %. The 32 biases: {biases.predicted:.1f} %. Multiplying the inputs, without training: {scaled.predicted:.1f} %."


def share_answer(figures: Figures) -> int:
    share = measured(figures, "share that is trained")
    return 0 if share > 4 else 1 if share > 0.4 else 2 if share > 0.04 else 3


def explain_share(figures: Figures) -> str:
    trained, everything = measured(figures, "trained numbers"), measured(figures, "all numbers")
    return f"peft counts {trained:,.0f} of {everything:,.0f}: {100 * trained / everything:.3g} %."


def backwards_answer(figures: Figures) -> int:
    gap = figures["loss at alpha x -1"].gap or 0.0
    return 0 if gap < -0.01 else 1 if gap < 0.01 else 2


def explain_backwards(figures: Figures) -> str:
    one, learnt = figures["loss at alpha x -1"], measured(figures, "validation loss")
    return f"The base lost {one.predicted:.2f} nats per token; with the adapter {learnt:.2f}, and with the adapter the wrong way round {one.measured:.2f}."


PREDICTIONS = (
    Prediction(
        "The true change has rank 4. How much of it can LoRA of rank 3 learn?",
        "toy",
        {"true_rank": 4, "rank": 3},
        ("all of it: less than 0.1 % is left", "a part: something is always left", "less than half of it"),
        enough_answer,
        explain_enough,
    ),
    Prediction(
        "In the notebook's own toy: does LoRA beat 32 trained biases, and beat multiplying the inputs by 16?",
        "toy",
        {"view": "seed_setting"},
        ("yes, both, by more than 2 points", "no, it ties with one of them or both", "no, one of them beats it by more than 2 points"),
        winner_answer,
        explain_winner,
    ),
    Prediction(
        "Llama 2 with 7 billion parameters, rank 8 on q, k, v and o: what share is trained?",
        "count",
        {"model": "llama-2-7b", "targets": "qkvo", "rank": 8},
        ("about 12 %", "about 1.2 %", "about 0.12 %", "about 0.012 %"),
        share_answer,
        explain_share,
    ),
    Prediction(
        "Train an adapter on the play, then turn it the wrong way round (alpha times -1). How does the model do on the play?",
        "text",
        {"corpus": "play"},
        ("better than without an adapter", "as without an adapter", "worse than without an adapter"),
        backwards_answer,
        explain_backwards,
    ),
)
