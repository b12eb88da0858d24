"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def value(figures: Figures, name: str) -> float:
    found = figures[name].measured
    return float("inf") if found is None else found


def faster(figures: Figures) -> float:
    """By how many percent a step of the best plan is shorter."""
    best = figures["step of the best plan"]
    return 100 * (1 - (best.measured or 0.0) / (best.predicted or 1.0))


def better_answer(figures: Figures) -> int:
    return 0 if faster(figures) < 5 else 1 if faster(figures) < 15 else 2


def explain_better(figures: Figures) -> str:
    found = figures["step of the best plan"]
    return (
        f"{found.predicted:.1f} s become {found.measured:.1f} s, {faster(figures):.0f} % less, with the memory that was free: "
        f"{found.source.removeprefix('beside this plan; ')}."
    )


def zero_3_answer(figures: Figures) -> int:
    need, limit = value(figures, "memory of a GPU"), figures["memory of a GPU"].predicted or 0.0
    states = value(figures, "states of a GPU")
    return 0 if need <= limit else 1 if states <= limit else 2


def explain_zero_3(figures: Figures) -> str:
    return (
        f"Weights, gradients and optimizer are down to {value(figures, 'states of a GPU'):.1f} GB, but the activations are "
        f"{value(figures, 'activations of a GPU'):.1f} GB: ZeRO does not divide them. Recomputation or tensor parallelism does."
    )


def gap_answer(figures: Figures) -> int:
    worst = abs(value(figures, "worst gap to published runs"))
    return 0 if worst < 5 else 1 if worst < 20 else 2


def explain_gap(figures: Figures) -> str:
    return (
        f"The worst is {value(figures, 'worst gap to published runs'):+.0f} % off, the mean gap is "
        f"{value(figures, 'mean gap to published runs, either way'):.1f} %: good enough to rank plans, not to promise a date."
    )


def adam_answer(figures: Figures) -> int:
    told = figures["training with Adam by accelerate"]
    ratio = (told.measured or 0.0) / (told.predicted or 1.0)
    return 0 if ratio < 0.9 else 1 if ratio < 1.1 else 2


def explain_adam(figures: Figures) -> str:
    told = figures["training with Adam by accelerate"]
    return f"It prints {told.measured:.0f} GB, the largest of its parts; weights, gradients, master copy and Adam together are {told.predicted:.0f} GB."


PREDICTIONS = (
    Prediction(
        "The published 145.6B run recomputes every layer and leaves a third of its memory empty. How much shorter is a step of the best plan?",
        "plan",
        {},
        ("less than 5 %", "5 to 15 %", "more than 15 %"),
        better_answer,
        explain_better,
    ),
    Prediction(
        "Llama 3 70B on 64 H100: ZeRO 3 divides everything over 64 copies, nothing is recomputed. Does it fit?",
        "plan",
        {"model": "llama-3-70b", "card": "h100", "gpus": 64, "tensor": 1, "pipeline": 1, "zero": "3", "recompute": "none",
         "sequence": 8192, "global_batch": 64, "attention": "fused", "overlap": True},
        ("yes", "no: the activations are too large", "no: even the states are too large"),
        zero_3_answer,
        explain_zero_3,
    ),
    Prediction(
        "One number is calibrated on one published run, 17 other runs up to 1008B are predicted. How far off is the worst?",
        "plan",
        {"model": "megatron-1t", "gpus": 3072, "pipeline": 64, "global_batch": 3072},
        ("less than 5 %", "5 to 20 %", "more than 20 %"),
        gap_answer,
        explain_gap,
    ),
    Prediction(
        "What does accelerate's estimate-memory print for training Llama 3 8B with Adam in bf16, beside what its parts add up to?",
        "plan",
        {"model": "llama-3-8b", "card": "h100", "gpus": 8, "tensor": 1, "pipeline": 1, "zero": "1", "recompute": "full",
         "sequence": 8192, "global_batch": 64, "attention": "fused", "overlap": True},
        ("too little", "about as much", "too much"),
        adam_answer,
        explain_adam,
    ),
)  # fmt: skip
