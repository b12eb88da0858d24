"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def left_share(figures: Figures) -> float:
    whole, left = (measured(figures, f"kept in all, {which}") for which in ("nothing checkpointed", "chosen layers checkpointed"))
    return left / whole


def left_answer(figures: Figures) -> int:
    share = left_share(figures)
    return 0 if share > 0.35 else 1 if share > 0.1 else 2


def explain_left(figures: Figures) -> str:
    one, input_ = measured(figures, "kept by one layer"), measured(figures, "kept by a checkpointed layer")
    return f"{left_share(figures):.1%} was left: a layer keeps {one:.1f} bytes per sbh, a checkpointed one {input_:.1f}, and the rest is the head's."


def longer_times(figures: Figures) -> float:
    return 2 * measured(figures, "kept by one layer") / measured(figures, "kept by one layer at half the context")


def longer_answer(figures: Figures) -> int:
    times = longer_times(figures)
    return 0 if times < 2.1 else 1 if times < 3.9 else 2


def explain_longer(figures: Figures) -> str:
    half, whole = measured(figures, "kept by one layer at half the context"), measured(figures, "kept by one layer")
    return f"{longer_times(figures):.2f} times: per token and width it went from {half:.1f} to {whole:.1f} bytes. Only attention's core grows with the square."


def best_answer(figures: Figures) -> int:
    best = measured(figures, "best segment")
    return 0 if best == 1 else 1 if best == 3 else 2


def best_chain_answer(figures: Figures) -> int:
    best = measured(figures, "best segment")
    return 0 if best == 1 else 1 if best == 6 else 2


def explain_best(figures: Figures) -> str:
    best, plain = measured(figures, "best segment"), measured(figures, "peak, none")
    least = min(measured(figures, name) for name in figures if name.startswith("peak, "))
    return f"Segments of {best:.0f} took {least:.2f} MB at the peak, against {plain:.2f} MB without checkpoints."


def forgotten_answer(figures: Figures) -> int:
    apart = measured(figures, "largest difference of a gradient")
    return 0 if apart == 0 else 1 if apart < 1 else 2


def explain_forgotten(figures: Figures) -> str:
    apart = measured(figures, "largest difference of a gradient")
    return f"A gradient was off by {apart:.1f} % of the largest one: the second forward pass dropped other places than the first."


def selective_answer(figures: Figures) -> int:
    more = measured(figures, "more FLOPs, selective")
    return 0 if more < 5 else 1 if more < 20 else 2


def explain_selective(figures: Figures) -> str:
    more, saved = measured(figures, "more FLOPs, selective"), measured(figures, "saved by selective recomputation")
    return f"{more:.1f} % more FLOPs for {saved:.0f} % less memory: the core of attention is large and cheap."


PREDICTIONS = (
    Prediction(
        "All four layers are checkpointed. How much of what autograd kept is left?",
        "kept",
        {"layers": "all"},
        ("about a half", "about a fifth", "less than a tenth"),
        left_answer,
        explain_left,
    ),
    Prediction(
        "The context doubles from 128 to 256 tokens. How many times as much does a layer keep?",
        "kept",
        {"context": 256, "batch": 1},
        ("2 times", "between 2 and 4 times", "4 times"),
        longer_answer,
        explain_longer,
    ),
    Prediction(
        "12 transformer layers. Which segments need the least memory?",
        "tradeoff",
        {"network": "gpt", "n_layer": 12},
        ("each layer by itself", "3 layers, about the square root of 12", "another size"),
        best_answer,
        explain_best,
    ),
    Prediction(
        "36 layers that keep one tensor each. Which segments need the least memory?",
        "tradeoff",
        {"network": "chain", "n_layer": 36},
        ("each layer by itself", "6 layers, the square root of 36", "another size"),
        best_chain_answer,
        explain_best,
    ),
    Prediction(
        "The state of the dice is forgotten, so dropout draws anew in the second forward pass. How far off do gradients get?",
        "tradeoff",
        {"forget": True, "n_layer": 4},
        ("not at all", "less than 1 % of the largest", "more than 1 % of the largest"),
        forgotten_answer,
        explain_forgotten,
    ),
    Prediction(
        "GPT-3: computing only the core of attention again saves 70 % of the memory. How many more FLOPs does it take?",
        "big",
        {"model": "gpt3", "context": 2048, "attention": "written"},
        ("about 3 %", "about 10 %", "about 33 %"),
        selective_answer,
        explain_selective,
    ),
)
