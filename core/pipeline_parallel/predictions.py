"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def smaller_answer(figures: Figures) -> int:
    ours, other = (measured(figures, f"bubble over work, {name}") for name in ("1F1B", "GPipe"))
    return 0 if ours < 0.6 * other else 1 if ours < 1.6 * other else 2


def explain_smaller(figures: Figures) -> str:
    ours, other = (measured(figures, f"bubble over work, {name}") for name in ("1F1B", "GPipe"))
    held, whole = (measured(figures, f"most micro-batches held, {name}") for name in ("1F1B", "GPipe"))
    theory = figures["bubble over work, 1F1B"].predicted
    told = f"{ours:.2f} against {other:.2f} of the work, and {theory:.3f} by the formula for both."
    return f"{told} What differs is memory: {held:.0f} micro-batches held instead of {whole:.0f}."


def twice_answer(figures: Figures) -> int:
    found = measured(figures, "bubble over work, GPipe")
    return 0 if found < 0.15 else 1 if found < 0.3 else 2


def explain_twice(figures: Figures) -> str:
    found = figures["bubble over work, GPipe"]
    return f"With 16 micro-batches the ranks idled {found.measured:.2f} of their work, by the formula 3/16 = {found.predicted:.3f}; with 8 it is 3/8."


def equal_answer(figures: Figures) -> int:
    apart = measured(figures, "largest difference of a gradient, ZBV")
    return 0 if apart == 0 else 1 if apart < 1e-4 else 2


def explain_equal(figures: Figures) -> str:
    apart = measured(figures, "largest difference of a gradient, ZBV")
    return f"The largest difference was {apart:.1e} of the largest gradient: the sums are the same, in another order, and float32 rounds."


def layout_answer(figures: Figures) -> int:
    return 0 if measured(figures, "solved") else 1


def explain_layout(figures: Figures) -> str:
    mine, held = measured(figures, "time of a batch, simulated"), measured(figures, "activations held, rank 0")
    best = measured(figures, "best time that fits the memory")
    told = f"It takes {mine:,.0f} ms, and the best that fits {best:,.0f} ms"
    return f"{told}; but rank 0 holds {held:.0f} activations, 4 micro-batches of each of its layers, and 12 fit."


def zero_answer(figures: Figures) -> int:
    over, own = (measured(figures, f"{name}, ZBV") for name in ("bubble over work", "most idle time in a rank's own span"))
    return 0 if over < 1e-9 else 1 if own < 1e-9 else 2


def explain_zero(figures: Figures) -> str:
    over, own = (measured(figures, f"{name}, ZBV") for name in ("bubble over work", "most idle time in a rank's own span"))
    return (
        f"Over the whole makespan ranks idle {over:.1%} of their work; in its own span a rank waits {own:.3g} units. The rest are the corners of the picture."
    )


def broken_answer(figures: Figures) -> int:
    zbv, split = (measured(figures, f"most idle time in a rank's own span, {name}") for name in ("ZBV", "split"))
    return 0 if zbv < 1e-9 else 1 if zbv < split else 2


def explain_broken(figures: Figures) -> str:
    zbv, split = (measured(figures, f"most idle time in a rank's own span, {name}") for name in ("ZBV", "split"))
    return f"{zbv:.3g} units on its worst rank, against {split:.3g} with the split interleaved schedule: the order is made for F = I = W."


PREDICTIONS = (
    Prediction(
        "1F1B instead of GPipe, 4 ranks, 8 micro-batches: how does the time that ranks wait change?",
        "bubble",
        {},
        ("it becomes much less", "it stays about the same", "it becomes much more"),
        smaller_answer,
        explain_smaller,
    ),
    Prediction(
        "GPipe with 16 micro-batches on 4 ranks: how long do the ranks wait, compared with their work?",
        "bubble",
        {"schedule": "gpipe", "micro": 16, "nominal": 25.0},
        ("less than 15 % of it", "15 to 30 % of it", "more than 30 % of it"),
        twice_answer,
        explain_twice,
    ),
    Prediction(
        "ZBV tears each backward pass in two and mixes up the order of everything. How far are its gradients from one device's?",
        "bubble",
        {"schedule": "zbv"},
        ("not a bit differs", "only rounding differs", "they differ visibly"),
        equal_answer,
        explain_equal,
    ),
    Prediction(
        "Rank 1 is twice as slow. 4,2,3,3 moves one of its layers to the first rank. Is the puzzle solved?",
        "balance",
        {"layout": "4,2,3,3"},
        ("yes", "no"),
        layout_answer,
        explain_layout,
    ),
    Prediction(
        "ZBV with F = I = W on 8 ranks: where is the bubble zero?",
        "big",
        {},
        ("over the whole makespan", "only between each rank's own start and end", "nowhere"),
        zero_answer,
        explain_zero,
    ),
    Prediction(
        "F : I : W = 1 : 1.2 : 0.6. How long does a rank of ZBV wait between its own start and end?",
        "big",
        {"inputs": 1.2, "weights": 0.6},
        ("still not at all", "less than with the split interleaved schedule", "longer than that"),
        broken_answer,
        explain_broken,
    ),
)
