"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]

NEW = "agreement on choices not learnt from"
PAID, TRUE = "proxy at the end", "gold at the end"
AFTER = "gold reward after PPO"
FEW = "KL of best of n, three answers"


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def predicted(figures: Figures, name: str) -> float:
    value = figures[name].predicted
    return float("nan") if value is None else value


def agreement_answer(figures: Figures) -> int:
    share = measured(figures, NEW)
    return 0 if share < 0.6 else 1 if share < 0.8 else 2


def explain_agreement(figures: Figures) -> str:
    words = figures["with the policy's knowledge against words alone"].predicted or 0.0
    return (
        f"It is right about {measured(figures, NEW):.0%} of new pairs; a model that knows nothing of the words but which is which, "
        f"about {words:.0%} with the same choices."
    )


def ppo_answer(figures: Figures) -> int:
    gain = figures[AFTER].gap or 0.0
    return 0 if gain < 0.4 else 1 if gain < 1.2 else 2


def explain_ppo(figures: Figures) -> str:
    before, after = predicted(figures, AFTER), measured(figures, AFTER)
    return f"The rule gave the reference's cards {before:+.2f} points on average, and gives the new policy's {after:+.2f}."


def hacking_answer(figures: Figures) -> int:
    peak, end = predicted(figures, TRUE), measured(figures, TRUE)
    return 0 if end > peak - 0.3 else 1 if end > 0 else 2


def explain_hacking(figures: Figures) -> str:
    return (
        f"At its peak the true reward was {predicted(figures, TRUE):+.1f} and at the end {measured(figures, TRUE):+.1f} standard deviations from the "
        f"reference's; meanwhile the learnt one went from {predicted(figures, PAID):+.1f} to {measured(figures, PAID):+.1f}."
    )


def best_answer(figures: Figures) -> int:
    gap = figures[FEW].gap or 0.0
    return 0 if abs(gap) < 0.1 else 1 if gap < 0 else 2


def explain_best(figures: Figures) -> str:
    cap = predicted(figures, "KL of best of n, three answers, and its cap")
    return (
        f"The formula says {predicted(figures, FEW):.2f} nats and the exact number is {measured(figures, FEW):.2f}: when the best answer of the three "
        f"is always taken, no more than -ln of its probability, {cap:.2f} nats, can be reached."
    )


PREDICTIONS = (
    Prediction(
        "40 choices between two cards: how often is the reward model right about pairs it has not seen?",
        "preferences",
        {"rule": "cheerful", "asked": 40},
        ("under 60 %, hardly better than a coin", "60 to 80 %", "over 80 %"),
        agreement_answer,
        explain_agreement,
    ),
    Prediction(
        "PPO is paid by a model that was trained on 40 choices. Will the rule itself like the new cards better?",
        "ppo",
        {"rule": "cheerful"},
        ("hardly: by less than 0.4 points", "yes, by 0.4 to 1.2 points", "yes, by more than 1.2 points"),
        ppo_answer,
        explain_ppo,
    ),
    Prediction(
        "With almost no penalty for moving away, the learnt reward rises to the end. What does the true one do?",
        "hacking",
        {"rule": "cheerful"},
        ("it rises as well", "it falls from its peak, but stays above where it began", "it falls below where it began"),
        hacking_answer,
        explain_hacking,
    ),
    Prediction(
        "Of 64 answers the best is kept, and only three answers exist. Is the KL ln n - (n-1)/n = 3.17 nats?",
        "dpo",
        {"answers": "three", "most_n": 64},
        ("yes, to within 0.1", "no, it is less", "no, it is more"),
        best_answer,
        explain_best,
    ),
)
