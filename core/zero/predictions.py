"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    """The measured side; a figure that is not there is a KeyError, so that a stopped run decides nothing."""
    value = figures[name].measured
    return float("nan") if value is None else value


def two_answer(figures: Figures) -> int:
    held = measured(figures, "held, stage 3, PyTorch")
    return 0 if held > 12 else 1 if held > 6 else 2


def explain_two(figures: Figures) -> str:
    held, most = measured(figures, "held, stage 3, PyTorch"), measured(figures, "most at any moment, stage 3, PyTorch")
    return f"The fullest rank held {held:.2f} bytes per weight after the backward pass, and {most:.2f} at the fullest moment, with a unit gathered."


def sends_answer(figures: Figures) -> int:
    stages = [measured(figures, f"sent, stage {stage}, PyTorch") for stage in range(4)]
    more = [stage for stage in range(1, 4) if stages[stage] > 1.1 * stages[0]]
    return 0 if not more else 1 if more == [3] else 2


def explain_sends(figures: Figures) -> str:
    told = ", ".join(f"{measured(figures, f'sent, stage {stage}, PyTorch'):.2f}" for stage in range(4))
    ours = measured(figures, "sent, stage 1, written out")
    return f"PyTorch's stages 0 to 3 sent {told} numbers per weight; its stage 1 sums for everybody and then broadcasts, the one written out sent {ours:.2f}."


def same(figures: Figures, how: str) -> bool:
    return next(one.measured for name, one in figures.items() if name.startswith("weights that differ") and name.endswith(how)) == 0


def bits_answer(figures: Figures) -> int:
    apart = measured(figures, "largest difference, sums as they come")
    return 0 if same(figures, "as they come") else 1 if apart < 1e-3 else 2


def explain_bits(figures: Figures) -> str:
    apart, fixed = measured(figures, "largest difference, sums as they come"), same(figures, "in the order of the ranks")
    return f"As gloo adds, weights were up to {apart:.1e} apart; added in the order of the ranks, {'no bit differed' if fixed else 'bits differed still'}."


def dies_answer(figures: Figures) -> int:
    return 0 if measured(figures, "weights lost, stage 3") == 0 else 1 if measured(figures, "tensors with missing rows, stage 3") < 10 else 2


def explain_dies(figures: Figures) -> str:
    before, after = figures["loss after the kill, stage 3"].predicted or 0.0, measured(figures, "loss after the kill, stage 3")
    return (
        f"{measured(figures, 'tensors with missing rows, stage 3'):.0f} tensors miss rows, {measured(figures, 'weights lost, stage 3'):.0f} % of all weights; "
        f"with zeros in their place the loss went from {before:.2f} to {after:.2f}."
    )


def means_answer(figures: Figures) -> int:
    one = figures["loss after the kill, stage 1"]
    return 0 if measured(figures, "means lost, stage 1") == 0 else 1 if abs(one.gap or 0.0) < 1e-6 else 2


def explain_means(figures: Figures) -> str:
    lost, one = measured(figures, "means lost, stage 1"), figures["loss after the kill, stage 1"]
    return f"{lost:.1f} % of the means were dead, and the loss was {one.measured:.3f} as before: means steer the next steps, they are not the model."


def floor_answer(figures: Figures) -> int:
    held = measured(figures, "stage 1 on 1024 ranks")
    return 0 if held < 1 else 1 if held < 8 else 2


def explain_floor(figures: Figures) -> str:
    one, three = measured(figures, "stage 1 on 1024 ranks"), measured(figures, "stage 3 on 1024 ranks")
    return f"{one:.1f} GB at stage 1: whole weights and gradients are 4 bytes each rank keeps. At stage 3 it is {three:.2f} GB."


def peak_answer(figures: Figures) -> int:
    times = measured(figures, "peak of 7.5 billion, 1024 ranks") / measured(figures, "states of 7.5 billion, 1024 ranks")
    return 0 if times < 1.2 else 1 if times < 10 else 2


def explain_peak(figures: Figures) -> str:
    states, peak = measured(figures, "states of 7.5 billion, 1024 ranks"), measured(figures, "peak of 7.5 billion, 1024 ranks")
    return f"{states:.2f} GB of states, {peak:.2f} GB at the peak: gathered layers, whole gradients and activations do not shrink with the ranks."


PREDICTIONS = (
    Prediction(
        "Stage 3 on 2 ranks, in 32 bits: how many bytes per weight does each rank hold after the backward pass?",
        "shards",
        {"ranks": 2},
        ("16, as without ZeRO", "about 8", "about 4"),
        two_answer,
        explain_two,
    ),
    Prediction(
        "Which of PyTorch's stages send clearly more than plain data parallelism?",
        "shards",
        {"ranks": 4},
        ("none", "only stage 3", "stage 3 and another one"),
        sends_answer,
        explain_sends,
    ),
    Prediction(
        "Four ranks, three steps, four stages, as the library adds: are the weights the same?",
        "shards",
        {"ranks": 4, "steps": 3},
        ("bit for bit", "nearly: less than 0.001 apart", "no"),
        bits_answer,
        explain_bits,
    ),
    Prediction(
        "Rank 2 of 4 dies at stage 3. What of the model dies?",
        "lose",
        {"lost": 2},
        ("nothing", "one layer of the four", "a part of every layer"),
        dies_answer,
        explain_dies,
    ),
    Prediction(
        "Rank 1 of 4 dies at stage 1, and a quarter of the optimizer's means with it. How is the loss right afterwards?",
        "lose",
        {"lost": 1},
        ("no means die", "the same", "worse"),
        means_answer,
        explain_means,
    ),
    Prediction(
        "7.5 billion weights at stage 1, on 1,024 ranks instead of 64 (31.4 GB). How many GB per rank?",
        "scale",
        {"ranks": 1024, "billions": 7.5},
        ("below 1", "about 2", "about 30"),
        floor_answer,
        explain_floor,
    ),
    Prediction(
        "7.5 billion weights at stage 3 on 1,024 ranks: how large is the fullest moment of a step, beside the states?",
        "scale",
        {"ranks": 1024},
        ("about the same", "up to 10 times as large", "more than 10 times"),
        peak_answer,
        explain_peak,
    ),
)
