"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    """The measured side; a figure that is not there is a KeyError, so that a stopped run decides nothing."""
    value = figures[name].measured
    return float("inf") if value is None or value != value else value


def wrong_answer(figures: Figures) -> int:
    error = measured(figures, "error with rows first")
    return 0 if error < 1e-5 else 1 if error < 0.05 else 2


def explain_wrong(figures: Figures) -> str:
    return (
        f"Rows first is off by {measured(figures, 'error with rows first'):.2g} of the right result's size, columns first by "
        f"{measured(figures, 'error: MLP'):.1g}: the activation of a sum is not the sum of activations."
    )


def explain_linear(figures: Figures) -> str:
    return (
        f"Off by {measured(figures, 'error with rows first'):.2g} of its size. Without an activation the partial sums may be added at any time; "
        "it is the GeLU that makes columns come first."
    )


def bytes_answer(figures: Figures) -> int:
    sent = figures["sent for a layer, rank 0"]
    ratio = (sent.measured or 0.0) / (sent.predicted or float("inf"))
    return 0 if ratio < 0.75 else 1 if ratio < 1.5 else 2


def explain_bytes(figures: Figures) -> str:
    sent, real = figures["sent for a layer, rank 0"], figures["through the sockets, rank 0"]
    told = f"{sent.measured:,.0f} numbers a layer, where the four all-reduces send {sent.predicted:,.0f}: an all-reduce is its two halves."
    if real.measured and real.predicted:
        told += f" gloo really sent {real.measured / real.predicted:.2g} times the formula's bytes, since it does a reduce-scatter as an all-reduce."
    return told


def memory_answer(figures: Figures) -> int:
    norms = figures["kept: LayerNorm and dropout, rank 0"]
    inside = figures["kept: inside the split parts, rank 0"]
    share = (norms.measured or 0.0) / ((norms.measured or 0.0) + (inside.measured or 0.0))
    return 0 if share < 0.1 else 1 if share < 0.4 else 2


def explain_memory(figures: Figures) -> str:
    norms, inside, entered = (
        measured(figures, f"kept: {part}, rank 0") for part in ("LayerNorm and dropout", "inside the split parts", "inputs of the split parts")
    )
    return (
        f"LayerNorm and dropout keep {norms:,.0f} bytes on every rank, the split parts {inside:,.0f}; the inputs of the split parts are another {entered:,.0f}."
    )


def speed_answer(figures: Figures) -> int:
    gain = measured(figures, "speed-up, 4 ranks")
    return 0 if gain < 1 else 1 if gain < 2 else 2


def explain_speed(figures: Figures) -> str:
    compute = measured(figures, "between f and g, 4 ranks") + measured(figures, "outside of f and g, 4 ranks")
    return (
        f"Each of the 4 ranks computes for {compute:.0f} ms and waits {measured(figures, 'link, 4 ranks'):.2g} ms for the link; one rank alone computes "
        f"for {measured(figures, 'step on 1 rank'):.0f} ms. That is {measured(figures, 'speed-up, 4 ranks'):.2g} times as fast."
    )


SPEEDS = ("slower than one", "up to twice as fast", "more than twice as fast")

PREDICTIONS = (
    Prediction(
        "A is cut into rows instead of columns, and each rank applies the GeLU before the sum. How far off is the result?",
        "split",
        {"ranks": "4", "activation": "gelu"},
        ("by rounding, about 0.0000001 of its size", "by a few per cent", "by more than 5 %"),
        wrong_answer,
        explain_wrong,
    ),
    Prediction(
        "The same wrong cut, and the layer has no activation at all?",
        "split",
        {"ranks": "4", "activation": "none"},
        ("by rounding, about 0.0000001 of its size", "by a few per cent", "by more than 5 %"),
        wrong_answer,
        explain_linear,
    ),
    Prediction(
        "Sequence parallelism has 8 collectives in a layer instead of 4. How many numbers does a rank send?",
        "split",
        {"ranks": "4", "sequence": True},
        ("about half as many", "as many", "about twice as many"),
        bytes_answer,
        explain_bytes,
    ),
    Prediction(
        "Four ranks split the matrices. Of what LayerNorm, dropout and split parts keep on a rank, what share is LayerNorm's and dropout's?",
        "split",
        {"ranks": "4", "sequence": False},
        ("below 10 %", "10 to 40 %", "over 40 %"),
        memory_answer,
        explain_memory,
    ),
    Prediction(
        "Four ranks, a link like 100 Mb/s Ethernet. How fast are they together?",
        "speedup",
        {"latency": 100.0, "bandwidth": 0.0125},
        SPEEDS,
        speed_answer,
        explain_speed,
    ),
    Prediction(
        "Four ranks, a link like NVLink. How fast are they together?",
        "speedup",
        {"latency": 5.0, "bandwidth": 300.0},
        SPEEDS,
        speed_answer,
        explain_speed,
    ),
)
