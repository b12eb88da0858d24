"""The lesson of the tab ZeRO."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.zero.lose import CUT_TENSORS, LOSS_AFTER, LOSS_CHECKPOINT, LOSS_REPLICA, LOSS_THREE, LOST_MOMENTS, LOST_THREE
from core.zero.scale import FSDP_PEAK, FSDP_STATES, SEVEN, STATES
from core.zero.shards import (
    APART,
    DIFFER,
    DIFFER_ORDERED,
    HELD_PLAIN,
    HELD_THREE,
    LIBRARY,
    MOST,
    SENT,
    WRITTEN,
    sent_figure,
)

STATES_1024, PEAK_1024 = (figure.of(model=SEVEN, ranks=1024) for figure in (FSDP_STATES, FSDP_PEAK))
MOMENTS_ONE, LOSS_ONE = LOST_MOMENTS.of(way="stage 1"), LOSS_AFTER.of(way="stage 1")


def sent(run: Outcome, stage: int) -> float:
    """Elements per weight that PyTorch's stage sends in a step."""
    return run[sent_figure(LIBRARY, stage)].measured


def shards_held(run: Outcome) -> str:
    return (
        f"Without ZeRO each of {run.config.ranks} ranks held {run[HELD_PLAIN].measured:.1f} bytes per weight, at stage"
        f" 3 {run[HELD_THREE].measured:.2f}; at its fullest moment, with a layer gathered,"
        f" {run[MOST.of(stage=3)].measured:.1f}."
    )


def shards_sent(run: Outcome) -> str:
    plain, three = sent(run, 0), sent(run, 3)
    price = f"{100 * (three / plain - 1):.0f} % more communication" if three > plain else "no more communication"
    return f"The price at stage 3 is {price}: {three:.2f} elements per weight and step in place of {plain:.2f}."


def shards_same(run: Outcome) -> str:
    """Whether all stages computed the same weights."""
    if run[DIFFER_ORDERED].measured == run[DIFFER].measured == 0:
        return "All stages gave the same weights bit for bit: where the data lies does not change the model."
    if run[DIFFER_ORDERED].measured == 0:
        return (
            "Added in the order of the ranks, all stages gave the same weights bit for bit; as the library adds, they"
            f" are up to {run[APART].measured:.0e} apart."
        )
    return f"The stages do not give the same bits even in one order; they are up to {run[APART].measured:.0e} apart."


def lose_three(run: Outcome) -> str:
    loss = run[LOSS_THREE]
    harm = "the model is damaged" if loss.difference > 0.01 else "the model hardly notices"
    return (
        f"At stage 3, {run[LOST_THREE].measured:.0f} % of the weights died with rank {run.config.lost}, and the loss"
        f" went from {loss.expected:.2f} to {loss.measured:.2f}: {harm}."
    )


def lose_copies(run: Outcome) -> str:
    """What a second copy saves, on a rank or in a file."""
    replica, saved = run[LOSS_REPLICA], run[LOSS_CHECKPOINT]
    twice = (
        "changed nothing, since whatever exists twice survives"
        if abs(replica.difference) < 1e-5
        else f"changed the loss by {replica.difference:+.3f}"
    )
    return (
        f"With every slice on two ranks the kill {twice}; from the checkpoint of {run.config.since} steps before, the"
        f" loss is {saved.measured:.3f} in place of {saved.expected:.3f}."
    )


def scale_states(run: Outcome) -> str:
    zero, one, three = (run[STATES.of(stage=stage)].measured for stage in (0, 1, 3))
    fits = "fits" if three <= run.config.card else "does not fit"
    return (
        f"On {run.config.ranks} ranks, {run.config.billions:g} billion weights take {zero:,.1f} GB per rank without"
        f" ZeRO, {one:,.1f} GB at stage 1 and {three:,.2f} GB at stage 3, which {fits} into {run.config.card:g} GB."
    )


def scale_peak(run: Outcome) -> str:
    states, peak = run[STATES_1024].measured, run[PEAK_1024].measured
    return (
        f"But on 1,024 ranks a step of 7.5 billion weights peaks at {peak:.2f} GB, {peak / states:.0f} times its states"
        f" of {states:.2f} GB: gathered layers and activations do not shrink with the ranks."
    )


def sends_answer(run: Outcome) -> int:
    """0: no stage sends clearly more than stage 0, 1: only stage 3, 2: stage 3 and another one."""
    more = [stage for stage in range(1, 4) if sent(run, stage) > 1.1 * sent(run, 0)]
    return 0 if not more else 1 if more == [3] else 2


def sends_because(run: Outcome) -> str:
    stages = ", ".join(f"{sent(run, stage):.2f}" for stage in range(4))
    return (
        f"PyTorch's stages 0 to 3 sent {stages} elements per weight; its stage 1 sums for everybody and then"
        f" broadcasts, the one written out sent {run[SENT.of(stage=1, code=WRITTEN)].measured:.2f}."
    )


def dies_answer(run: Outcome) -> int:
    return 0 if run[LOST_THREE].measured == 0 else 1 + band(run[CUT_TENSORS], 10)


def moments_answer(run: Outcome) -> int:
    """0: no moments die, 1: the same loss, 2: another loss."""
    return 0 if run[MOMENTS_ONE].measured == 0 else 1 + band(abs(run[LOSS_ONE].difference), 1e-6)


LESSON = Lesson(
    question="How do many GPUs train a model that fits on none of them?",
    idea=(
        "When several GPUs train one model on different data, each usually holds all of it: weights, gradients and"
        " optimizer states. A process with its GPU is called a rank. ZeRO (FSDP) partitions these over the ranks: each"
        " keeps one slice and fetches the others only for the moment it needs them. Memory falls nearly in proportion"
        " to the ranks; at stage 3 communication rises by half."
    ),
    formula=r"16P \;\to\; 8P + \tfrac{8P}{N} \;\to\; 4P + \tfrac{12P}{N} \;\to\; \tfrac{16P}{N}",
    experiments=(
        Card(
            "shards",
            "Spread a model over four processes",
            "start",
            14,
            "real processes, every byte counted",
            (shards_held, shards_sent, shards_same),
            ("zero.written", "zero.library", "zero.training", "zero.formulas", "zero.order", "zero.watch"),
        ),
        Card(
            "lose",
            "Kill one of the processes",
            "deeper",
            12,
            "what dies with a rank, stage by stage",
            (lose_three, lose_copies),
            ("zero.holders", "zero.state", "zero.slices", "zero.library", "zero.written"),
        ),
        Card(
            "scale",
            "Go to a thousand ranks",
            "expert",
            11,
            "measured on real ranks, counted on imagined ones",
            (scale_states, scale_peak),
            ("zero.formulas", "zero.count", "zero.written"),
        ),
    ),
    steps=(
        Look("Every weight needs 16 bytes: itself, its gradient, and two moments of Adam. Who must hold them?", "idea"),
        Ask(
            "Stage 3 on 2 ranks, in 32 bits: how many bytes per weight does each rank hold after the backward pass?",
            "shards",
            {"ranks": 2},
            ("about 4", "about 8", "16, as without ZeRO"),
            lambda run: band(run[HELD_THREE], 6, 12),
            lambda run: (
                f"The fullest rank held {run[HELD_THREE].measured:.2f} bytes per weight after the backward pass, and"
                f" {run[MOST.of(stage=3)].measured:.2f} at the fullest moment, with a layer gathered."
            ),
        ),
        Ask(
            "Which of PyTorch's stages send clearly more than plain data parallelism?",
            "shards",
            {"ranks": 4},
            ("none", "only stage 3", "stage 3 and another one"),
            sends_answer,
            sends_because,
        ),
        Ask(
            "Four ranks, three steps, four stages, as the library adds: are the weights the same?",
            "shards",
            {"ranks": 4, "steps": 3},
            ("bit for bit", "nearly: less than 0.001 apart", "no"),
            lambda run: 0 if run[DIFFER].measured == 0 else 1 + band(run[APART], 1e-3),
            lambda run: (
                f"As gloo adds, weights were up to {run[APART].measured:.1e} apart; added in the order of the ranks,"
                f" {run[DIFFER_ORDERED].measured:,.0f} weights differed."
            ),
        ),
        Ask(
            "Rank 2 of 4 dies at stage 3. What of the model dies?",
            "lose",
            {"lost": 2},
            ("nothing", "one layer of the four", "a part of every layer"),
            dies_answer,
            lambda run: (
                f"{run[CUT_TENSORS].measured:.0f} tensors miss rows, {run[LOST_THREE].measured:.0f} % of all weights;"
                f" with zeros in their place the loss went from {run[LOSS_THREE].expected:.2f} to"
                f" {run[LOSS_THREE].measured:.2f}."
            ),
        ),
        Ask(
            "Rank 1 of 4 dies at stage 1, and some of the optimizer's moments with it. How is the loss right"
            " afterwards?",
            "lose",
            {"lost": 1},
            ("no moments die", "the same", "different"),
            moments_answer,
            lambda run: (
                f"{run[MOMENTS_ONE].measured:.1f} % of the moments were lost, and the loss was"
                f" {run[LOSS_ONE].measured:.3f}, before {run[LOSS_ONE].expected:.3f}: moments steer the next steps,"
                " they are not the model."
            ),
        ),
        Ask(
            "7.5 billion weights at stage 1, on 1,024 ranks in place of 64 (31.4 GB). How many GB per rank?",
            "scale",
            {"ranks": 1024, "billions": 7.5},
            ("below 1", "about 2", "about 30"),
            lambda run: band(run[STATES.of(stage=1)], 1, 8),
            lambda run: (
                f"{run[STATES.of(stage=1)].measured:.1f} GB at stage 1: every rank still keeps 4 bytes per weight, full"
                f" weights and full gradients. At stage 3 it is {run[STATES.of(stage=3)].measured:.2f} GB."
            ),
        ),
        Ask(
            "7.5 billion weights at stage 3 on 1,024 ranks: how large is the step's memory peak compared with the"
            " stored states?",
            "scale",
            {"ranks": 1024},
            ("about the same", "up to 10 times as large", "more than 10 times as large"),
            lambda run: band(run[PEAK_1024].measured / run[STATES_1024].measured, 1.2, 10),
            lambda run: (
                f"{run[STATES_1024].measured:.2f} GB of states, {run[PEAK_1024].measured:.2f} GB at the peak: gathered"
                " layers, whole gradients and activations do not shrink with the ranks."
            ),
        ),
    ),
)
