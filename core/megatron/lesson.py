"""The lesson of the tab Megatron tensor parallelism."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run
from core.megatron.speedup import ALONE_TIME, LINK_TIME, SPEEDUP, SPLIT_TIME, WHOLE_TIME
from core.megatron.split import (
    ACTIVATED,
    ERROR_ALL,
    HELD,
    INPUT_BYTES,
    INSIDE_BYTES,
    NORM_BYTES,
    ROWS_FIRST,
    SENT,
    SOCKETS,
)


def split_same(run: Outcome) -> str:
    error = run[ERROR_ALL].measured
    same = "only rounding" if error < 1e-5 else "more than rounding explains"
    return f"On {run.config.ranks} ranks the layers are off by {error:.0e} of their size from the unsplit ones: {same}."


def split_parts(run: Outcome) -> str:
    return (
        f"Each rank holds {run[HELD].measured:,.0f} weights and sends {run[SENT].measured:,.0f} elements per layer"
        " forward and backward."
    )


def split_order(run: Outcome) -> str:
    error, name = run[ROWS_FIRST].measured, ACTIVATED[run.config.activation]
    if error < 1e-5:
        return f"Cut rows first, the error is {error:.0e}: {why_right(run)}"
    return (
        f"Cut rows first, the MLP is off by {100 * error:.0f} %: the {name} of a sum is not the sum of the {name}s, so"
        " columns must come first."
    )


def why_right(run: Outcome) -> str:
    if run.config.ranks == "1":
        return "one rank has nothing to add."
    return "without an activation the partial sums may be added at any time."


def speedup_gain(run: Outcome) -> str:
    gain = run[SPEEDUP.of(ranks=4)]
    verdict = "slower than one" if gain.measured < 1 else f"{gain.measured:.2f} times as fast as one"
    return f"With this link, four ranks are {verdict}; the formula says {gain.expected:.2f} times."


def speedup_where(run: Outcome) -> str:
    split, whole, link = (run[figure.of(ranks=4)].measured for figure in (SPLIT_TIME, WHOLE_TIME, LINK_TIME))
    waits = "most of the step is waiting" if link > split + whole else "most of the step is computing"
    return f"Each of them computed for {split + whole:.1f} ms and waited {link:.2g} ms for the link: {waits}."


def norm_share(run: Outcome) -> float:
    """Of what LayerNorm, dropout and the split parts save on a rank, the fraction of the first two."""
    norms, inside = run[NORM_BYTES].measured, run[INSIDE_BYTES].measured
    return norms / (norms + inside)


def sent_because(run: Outcome) -> str:
    """What a rank sent, and what gloo made of it."""
    sentence = (
        f"{run[SENT].measured:,.0f} elements a layer, where the four all-reduces send {run[SENT].expected:,.0f}: an"
        " all-reduce is its two halves."
    )
    if SOCKETS in run:
        sentence += (
            f" gloo really sent {run[SOCKETS].ratio:.2g} times the formula's bytes, since it does a reduce-scatter as"
            " an all-reduce."
        )
    return sentence


def speed_because(run: Outcome) -> str:
    compute = sum(run[figure.of(ranks=4)].measured for figure in (SPLIT_TIME, WHOLE_TIME))
    return (
        f"Each of the 4 ranks computes for {compute:.0f} ms and waits {run[LINK_TIME.of(ranks=4)].measured:.2g} ms for"
        f" the link; one rank alone computes for {run[ALONE_TIME].measured:.0f} ms. That is"
        f" {run[SPEEDUP.of(ranks=4)].measured:.2g} times as fast."
    )


def wrong_answer(run: Outcome) -> int:
    return band(run[ROWS_FIRST], 1e-5, 0.05)


ERRORS = ("by rounding, less than 0.00001 of its size", "by less than 5 %", "by more than 5 %")
SPEEDS = ("slower than one", "up to twice as fast", "more than twice as fast")

LESSON = Lesson(
    question="How do several GPUs compute one layer together?",
    idea=(
        "A layer that is too large or too slow for one GPU is cut through its matrices (tensor parallelism). The first"
        " matrix is cut into columns, the second into rows. Each process with its GPU, called a rank, computes its part"
        " alone, and one sum over all ranks, an all-reduce, gives the result. Attention is cut by heads. The sums need"
        " a fast link."
    ),
    formula=r"Z = \mathrm{GeLU}(XA)\,B = \sum_{i=1}^{t} \mathrm{GeLU}(X A_i)\, B_i",
    experiments=(
        Card(
            "split",
            "Split a layer over four processes",
            "start",
            7,
            "real processes, compared with the unsplit layer",
            (split_same, split_parts, split_order),
            ("megatron.operators", "megatron.layer", "megatron.formulas", "megatron.kept", "megatron.plan"),
        ),
        Card(
            "speedup",
            "Find when splitting pays",
            "deeper",
            9,
            "computed for real, the link is slept",
            (speedup_gain, speedup_where),
            ("megatron.operators", "megatron.layer", "megatron.formulas", "foundations.roofline"),
        ),
    ),
    steps=(
        Look("Columns of A, rows of B: between the two, nothing has to be sent.", "idea"),
        Run("Watch one layer being computed by four ranks, stage by stage.", "split", {}, "film"),
        Ask(
            "A is cut into rows in place of columns, and each rank applies the GeLU before the sum. How far off is the"
            " result?",
            "split",
            {"ranks": "4", "activation": "gelu"},
            ERRORS,
            wrong_answer,
            lambda run: (
                f"Rows first is off by {run[ROWS_FIRST].measured:.2g} of the right result's size, columns first by"
                f" {run[ROWS_FIRST].expected:.1g}: the activation of a sum is not the sum of activations."
            ),
        ),
        Ask(
            "The same wrong cut, and the layer has no activation at all. How far off is it now?",
            "split",
            {"ranks": "4", "activation": "none"},
            ERRORS,
            wrong_answer,
            lambda run: (
                f"Off by {run[ROWS_FIRST].measured:.2g} of its size. Without an activation the partial sums may be"
                " added at any time; it is the GeLU that makes columns come first."
            ),
        ),
        Ask(
            "Four ranks split the matrices. Of what LayerNorm, dropout and the split parts save on a rank, how much is"
            " LayerNorm's and dropout's?",
            "split",
            {"ranks": "4", "sequence": False},
            ("below 10 %", "10 to 40 %", "over 40 %"),
            lambda run: band(norm_share(run), 0.1, 0.4),
            lambda run: (
                f"LayerNorm and dropout save {run[NORM_BYTES].measured:,.0f} bytes on every rank, the split parts"
                f" {run[INSIDE_BYTES].measured:,.0f}; the inputs of the split parts are another"
                f" {run[INPUT_BYTES].measured:,.0f}."
            ),
        ),
        Ask(
            "Sequence parallelism has 8 collectives in a layer in place of 4. How much does a rank send?",
            "split",
            {"ranks": "4", "sequence": True},
            ("about half as much", "as much", "about twice as much"),
            lambda run: band(run[SENT].ratio, 0.75, 1.5),
            sent_because,
        ),
        Ask(
            "Four ranks, a link like 100 Mb/s Ethernet. How fast are they together?",
            "speedup",
            {"latency": 100.0, "bandwidth": 0.0125},
            SPEEDS,
            lambda run: band(run[SPEEDUP.of(ranks=4)], 1, 2),
            speed_because,
        ),
        Ask(
            "Four ranks, a link like NVLink. How fast are they together?",
            "speedup",
            {"latency": 5.0, "bandwidth": 300.0},
            SPEEDS,
            lambda run: band(run[SPEEDUP.of(ranks=4)], 1, 2),
            speed_because,
        ),
    ),
)
