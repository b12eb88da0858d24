"""The lesson of the tab Gradient checkpointing."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.gradient_checkpointing.big import ALL_LAYERS, ALL_THREE, BIG, CARD, MORE_FLOPS, SAVED
from core.gradient_checkpointing.kept import (
    ALL_CHOSEN,
    ALL_PLAIN,
    CHECKPOINTED,
    GRADIENT_DIFFERENCE,
    HALF_CONTEXT,
    LAYER,
)
from core.gradient_checkpointing.tradeoff import BEST_SEGMENT, GRADIENT_ERROR, LEAST_PEAK, MORE_TIME_EVERY


def left(run: Outcome) -> float:
    """What the chosen checkpoints leave of the saved activations, as a fraction."""
    return run[ALL_CHOSEN].measured / run[ALL_PLAIN].measured


def kept_memory(run: Outcome) -> str:
    return (
        f"Without checkpoints the layers saved {run[ALL_PLAIN].measured:.2f} MB for the backward pass; with"
        f" {len(run.config.chosen)} of {run.config.n_layer} layers checkpointed, {run[ALL_CHOSEN].measured:.2f} MB"
        f" ({left(run):.0%})."
    )


def kept_layer(run: Outcome) -> str:
    return (
        f"A layer saves {run[LAYER].measured:.1f} bytes per token and hidden unit, a checkpointed one"
        f" {run[CHECKPOINTED].measured:.1f}: only its input."
    )


def kept_same(run: Outcome) -> str:
    apart = run[GRADIENT_DIFFERENCE].measured
    if apart:
        return f"The gradients of the two passes differ by up to {apart:.1e}."
    return "The gradients differ by 0, to the last bit: computing a layer a second time gives the same values."


def tradeoff_memory(run: Outcome) -> str:
    peak, more = run[LEAST_PEAK], run[MORE_TIME_EVERY].measured
    time = f"{more:.0f} % more time" if more > 0 else "no more time in this run"
    return (
        f"The best way needed {peak.measured:.2f} MB at its peak, {peak.expected:.2f} MB were needed without"
        f" checkpoints; computing every layer twice took {time} (by FLOPs: {run[MORE_TIME_EVERY].expected:.0f} %)."
    )


def tradeoff_segment(run: Outcome) -> str:
    """Which segment was best, and why."""
    best, n = run[BEST_SEGMENT].measured, run.config.n_layer
    meaning = (
        "a layer saves far more than its input, so checkpoint each one"
        if best == 1
        else "where a layer saves no more than its input, about the square root of the depth is best"
        if run.config.network == "chain"
        else "several layers share a checkpoint"
    )
    return f"Of the {n} layers, segments of {best:.0f} needed the least memory: {meaning}."


def tradeoff_gradient(run: Outcome) -> str:
    error = run[GRADIENT_ERROR].measured
    if error == 0:
        return "All gradients differ by 0 from those without checkpoints, to the last bit."
    return (
        f"A gradient is off by {error:.1f} % of the largest: dropout drew other zeros the second time, and nothing"
        " warned about it."
    )


def big_memory(run: Outcome) -> str:
    nothing, best, name = run[ALL_LAYERS].measured, run[ALL_THREE].measured, BIG[run.config.model].name
    fits = "does not fit" if nothing > CARD else "fits"
    return (
        f"The activations of {name} take {nothing:,.1f} GB, which {fits} into one GPU of {CARD} GB; with all three ways"
        f" together each of {run.config.ranks} GPUs holds {best:,.1f} GB."
    )


def big_selective(run: Outcome) -> str:
    return (
        f"Computing only the core of attention again saves {run[SAVED].measured:.0f} % of a layer's activations for"
        f" {run[MORE_FLOPS].measured:.1f} % more FLOPs."
    )


def big_nothing_left(run: Outcome) -> str:
    if run[SAVED].measured > 5:
        return ""
    return (
        f"Selective recomputation saves only {run[SAVED].measured:.1f} % here: fused attention never stores its core."
    )


def longer(run: Outcome) -> float:
    """How many times as much a layer saves when the context doubles."""
    return 2 * run[LAYER].measured / run[HALF_CONTEXT].measured


def best_because(run: Outcome) -> str:
    return (
        f"Segments of {run[BEST_SEGMENT].measured:.0f} took {run[LEAST_PEAK].measured:.2f} MB at the peak, against"
        f" {run[LEAST_PEAK].expected:.2f} MB without checkpoints."
    )


def one_of(best: float, middle: int) -> int:
    """0: each layer by itself, 1: the size in the middle, 2: another."""
    return 0 if best == 1 else 1 if best == middle else 2


LESSON = Lesson(
    question="How can a network be trained without saving all it computes?",
    idea=(
        "To train, a network first computes forward, then backward, and the backward pass needs the values of the"
        " forward pass. So every layer saves them, often far more than its weights. A checkpoint saves only what enters"
        " a layer; when the backward pass arrives, the layer is computed a second time. This is also called activation"
        " recomputation: less memory, about a third more time, the same gradients."
    ),
    formula=r"\text{saved: } n\,A \;\to\; n\,e + A, \qquad \text{computed: } 3 \;\to\; 4 \text{ forward passes}",
    experiments=(
        Card(
            "kept",
            "See what a layer saves",
            "start",
            4,
            "autograd's own saved tensors, caught by hooks",
            (kept_memory, kept_layer, kept_same),
            (
                "gradient_checkpointing.trick",
                "gradient_checkpointing.block",
                "gradient_checkpointing.ledger",
                "foundations.activation_bytes",
            ),
        ),
        Card(
            "tradeoff",
            "Trade time for memory",
            "deeper",
            10,
            "real training steps, weighed and timed",
            (tradeoff_memory, tradeoff_segment, tradeoff_gradient),
            (
                "gradient_checkpointing.bench",
                "gradient_checkpointing.strategies",
                "gradient_checkpointing.live",
                "gradient_checkpointing.walk",
                "gradient_checkpointing.block",
            ),
        ),
        Card(
            "big",
            "Size up GPT-3 and Llama",
            "expert",
            3,
            "the paper's formulas, and one small layer weighed",
            (big_memory, big_selective, big_nothing_left),
            ("foundations.activation_bytes", "foundations.published_shapes", "gradient_checkpointing.block"),
        ),
    ),
    steps=(
        Look("Forward, each layer puts its values aside; backward, it takes them back in the reverse order.", "idea"),
        Ask(
            "All four layers are checkpointed. How much of what autograd saved is left?",
            "kept",
            {"layers": "all"},
            ("more than a third", "a tenth to a third", "less than a tenth"),
            lambda run: 2 - band(left(run), 0.1, 1 / 3),
            lambda run: (
                f"{left(run):.1%} was left: a layer saves {run[LAYER].measured:.1f} bytes per token and hidden unit, a"
                f" checkpointed one {run[CHECKPOINTED].measured:.1f}, and the rest is the head's."
            ),
        ),
        Look(
            "Each block is a tensor that waits for the backward pass. Press play and watch the columns empty.", "film"
        ),
        Ask(
            "The context doubles from 128 to 256 tokens. How many times as much does a layer save?",
            "kept",
            {"context": 256, "batch": 1},
            ("about 2 times", "between 2 and 4 times", "about 4 times"),
            lambda run: band(longer(run), 2.1, 3.9),
            lambda run: (
                f"{longer(run):.2f} times: per token and hidden unit it went from {run[HALF_CONTEXT].measured:.1f} to"
                f" {run[LAYER].measured:.1f} bytes. Only attention's scores grow with the square."
            ),
        ),
        Ask(
            "12 transformer layers. Which segments need the least memory?",
            "tradeoff",
            {"network": "gpt", "n_layer": 12},
            ("each layer by itself", "3 layers, about the square root of 12", "another size"),
            lambda run: one_of(run[BEST_SEGMENT].measured, 3),
            best_because,
        ),
        Ask(
            "36 layers that save one tensor each. Which segments need the least memory?",
            "tradeoff",
            {"network": "chain", "n_layer": 36},
            ("each layer by itself", "6 layers, the square root of 36", "another size"),
            lambda run: one_of(run[BEST_SEGMENT].measured, 6),
            best_because,
        ),
        Ask(
            "The random state is not saved, so dropout draws anew in the second forward pass. How far off do gradients"
            " get?",
            "tradeoff",
            {"forget": True, "n_layer": 4},
            ("not at all", "less than 1 % of the largest", "more than 1 % of the largest"),
            lambda run: 0 if run[GRADIENT_ERROR].measured == 0 else 1 + band(run[GRADIENT_ERROR], 1),
            lambda run: (
                f"A gradient was off by {run[GRADIENT_ERROR].measured:.1f} % of the largest one: the second forward"
                " pass dropped other places than the first."
            ),
        ),
        Ask(
            "GPT-3: computing only the core of attention again saves 70 % of the memory. How many more FLOPs does it"
            " take?",
            "big",
            {"model": "gpt3", "context": 2048, "attention": "written"},
            ("less than 5 %", "5 to 20 %", "more than 20 %"),
            lambda run: band(run[MORE_FLOPS], 5, 20),
            lambda run: (
                f"{run[MORE_FLOPS].measured:.1f} % more FLOPs for {run[SAVED].measured:.0f} % less memory: the core of"
                " attention is large and cheap."
            ),
        ),
    ),
)
