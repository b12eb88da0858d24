"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction
from core.qlora.budget import PRECISIONS

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def blocks_answer(figures: Figures) -> int:
    changed = measured(figures, "blocks whose error changed")
    return 0 if changed <= 1 else 1 if changed <= 256 else 2


def explain_blocks(figures: Figures) -> str:
    changed, error = measured(figures, "blocks whose error changed"), figures["error in all other blocks"]
    return (
        f"{changed:.0f} blocks changed: the constants share a mean, which one large constant moves. The harm is small: the error of all other blocks "
        f"went from {error.predicted:.3%} to {error.measured:.3%} of the weights' size."
    )


def peak_shrinks(figures: Figures) -> float:
    return measured(figures, f"peak, {PRECISIONS['fp32']}") / measured(figures, f"peak, {PRECISIONS['nf4']}")


def peak_answer(figures: Figures) -> int:
    times = peak_shrinks(figures)
    return 0 if times > 6 else 1 if times > 3 else 2


def explain_peak(figures: Figures) -> str:
    full, small = (measured(figures, f"peak, {PRECISIONS[name]}") for name in ("fp32", "nf4"))
    return (
        f"The peak went from {full:.1f} to {small:.1f} MB, {peak_shrinks(figures):.1f} times less: only the matrices of the layers shrink, "
        "and activations, adapters, embedding and output layer stay."
    )


def flips_answer(figures: Figures) -> int:
    share = measured(figures, "next tokens that flipped")
    return 0 if share < 2 else 1 if share < 25 else 2


def explain_flips(figures: Figures) -> str:
    cost, lead = figures["perplexity, quantised"], figures["lead of the first choice where it flipped"]
    return (
        f"{measured(figures, 'next tokens that flipped'):.1f} of 100 flipped, while the perplexity went from {cost.predicted:.2f} to {cost.measured:.2f}: "
        f"where it flipped, the first choice had led by {lead.measured:.2f} nats, and by {lead.predicted:.2f} on average."
    )


def won_back_answer(figures: Figures) -> int:
    won = figures["loss won back by LoRA"]
    share = measured(figures, "loss won back by LoRA") / max(won.predicted or 0.0, 1e-9)
    return 0 if share < 0.25 else 1 if share < 0.9 else 2


def explain_won_back(figures: Figures) -> str:
    won = figures["loss won back by LoRA"]
    return f"Quantising had added {won.predicted:.2f} nats per token, and LoRA took {won.measured:.2f} away again. What is rounded away stays lost."


PREDICTIONS = (
    Prediction(
        "With double quantisation, one weight of a layer becomes 50 times larger. How many blocks of 64 weights does that change?",
        "microscope",
        {"outlier": 50.0, "double": True, "block": "64"},
        ("its own", "its own and those that share its second constant, 256", "nearly all"),
        blocks_answer,
        explain_blocks,
    ),
    Prediction(
        "NF4 takes a seventh of the bytes of fp32. How much smaller is the peak of memory in fine-tuning the small base?",
        "meter",
        {"precision": "all"},
        ("about seven times", "three to six times", "less than three times"),
        peak_answer,
        explain_peak,
    ),
    Prediction(
        "Every matrix of the base goes from 32 to 4 bits per weight. How many of 100 next-token choices change?",
        "damage",
        {"kind": "nf4", "steps": 1, "control": False},
        ("fewer than 2", "2 to 25", "more than 25"),
        flips_answer,
        explain_flips,
    ),
    Prediction(
        "With 2 bits per weight the model falls apart. How much of the lost loss do 36 steps of LoRA win back?",
        "damage",
        {"kind": "nf2", "steps": 36, "control": False},
        ("less than a quarter", "a quarter to nine tenths", "nearly all"),
        won_back_answer,
        explain_won_back,
    ),
)
