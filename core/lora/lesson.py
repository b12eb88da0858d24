"""The lesson of the tab LoRA."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run
from core.lora.controls import ARM, BEFORE, LORA, SPREAD
from core.lora.count import ADAPTER_BYTES, EMBEDDING_SHARE, SHARE, TOTAL, TRAINED
from core.lora.spectrum import CUT_GAIN, CUT_SIZE
from core.lora.spectrum import LOSS as SPECTRUM_LOSS
from core.lora.sweep import FULL_LOSS, FULL_WEIGHTS, GAIN, WEIGHTS
from core.lora.text import BEST_STOP, FILE, LOSS, REVERSED
from core.lora.text import SHARE as TEXT_SHARE
from core.lora.toy import DROP, LEFT, NEW_TASK, OLD_TASK, OLD_TASK_OFF
from core.lora.variants import FORGOTTEN, LEARNED, VARIANTS
from core.lora.variants import NEW as VARIANT_NEW
from core.lora.variants import OLD as VARIANT_OLD

CONTROLS = {
    "multiplying the inputs by 16": ARM.of(arm="inputs x 16, nothing trained"),
    "the 32 biases": ARM.of(arm="32 biases"),
    "the whole layer": ARM.of(arm="the whole layer"),
}


def compared(difference: float, margin: float, better: str, same: str, worse: str) -> str:
    """The word for a loss that changed by `difference`."""
    return better if difference < -margin else worse if difference > margin else same


def text_loss(run: Outcome) -> str:
    loss = run[LOSS]
    change = compared(loss.difference, 0.01, "lower", "about the same", "higher")
    verb = "With this adapter" if run.config.adapter == "file" else "After training only the adapter"
    return (
        f"{verb} the loss on unseen text is {change}: {loss.measured:.2f} nats per token, against {loss.expected:.2f}"
        " for the base."
    )


def text_size(run: Outcome) -> str:
    return (
        f"All that was added fits in a file of {run[FILE].measured / 1000:,.0f} kB:"
        f" {run[TEXT_SHARE].measured:.2g} % of all weights."
    )


def text_dial(run: Outcome) -> str:
    backwards = run[REVERSED]
    effect = compared(backwards.difference, 0.01, "better", "no different", "worse")
    return (
        f"Reversed (alpha times -1) the adapter makes the model {effect} than the base, at {backwards.measured:.2f}"
        f" nats; the dial's lowest loss is at alpha times {run[BEST_STOP].measured:g}."
    )


def toy_remaining(run: Outcome) -> str:
    if LORA in run:
        return toy_controls(run)
    k, rank, left = run.config.true_rank, run.config.rank, run[LEFT].measured
    learned = "learned nearly all of it" if left < 0.001 else "learned part of it" if left < 0.9 else "learned little"
    return (
        f"The true change has rank {k}. LoRA of rank {rank} {learned}: {100 * left:.2g} % of the base's error remains."
    )


def toy_drop(run: Outcome) -> str:
    if LORA in run:
        return f"Before adapting, the base was right on {run[BEFORE].measured:.1f} % of the shrunken inputs."
    drop = run[DROP]
    if drop.difference:
        meaning = "not at the true rank, so the run was too short or too coarse to show it"
    else:
        meaning = "exactly at the rank of the true change"
    return f"From rank to rank the remaining error drops most at rank {drop.measured:.0f}, {meaning}."


def toy_tasks(run: Outcome) -> str:
    new, old = run[NEW_TASK], run[OLD_TASK]
    cost = "costs the old task" if old.difference < -0.5 else "costs the old task nothing"
    return (
        f"On the new task accuracy went from {new.expected:.0f} to {new.measured:.0f} %. This {cost}"
        f" ({old.expected:.0f} to {old.measured:.0f} %), and without the adapter it is {run[OLD_TASK_OFF].measured:.0f}"
        " % again."
    )


def toy_controls(run: Outcome) -> str:
    lora, spread = run[LORA].measured, run[SPREAD].measured
    beaten = [name for name, figure in CONTROLS.items() if lora - run[figure].measured > max(2.0, spread)]
    verdict = f"LoRA beats {', '.join(beaten)}" if beaten else "LoRA beats none of its controls clearly"
    return (
        f"{verdict}: it reaches {lora:.1f} % (± {spread:.1f} over the seeds), and the controls"
        f" {', '.join(f'{run[figure].measured:.1f} % ({name})' for name, figure in CONTROLS.items())}."
    )


def count_share(run: Outcome) -> str:
    trained, share = run[TRAINED], run[SHARE]
    agree = "the same number" if not trained.difference else f"{trained.difference:+,.0f} more"
    return (
        f"peft trains {trained.measured:,.0f} of {run[TOTAL].measured:,.0f} numbers, {share.measured:.2g} %; the"
        f" formula gives {agree}."
    )


def count_file(run: Outcome) -> str:
    adapter = run[ADAPTER_BYTES]
    return (
        f"In float16 the adapter takes {adapter.measured:,.1f} MB and the model {adapter.expected:,.0f} MB:"
        f" one to {adapter.expected / adapter.measured:,.0f}."
    )


def count_embeddings(run: Outcome) -> str:
    return (
        f"{run[EMBEDDING_SHARE].measured:.0f} % of what is trained are the embeddings, which are trained whole: the"
        " rank hardly matters then."
    )


def variants_trade(run: Outcome) -> str:
    learned, forgotten = run[LEARNED].measured, run[FORGOTTEN]
    less, kept = learned < 97, forgotten.measured < forgotten.expected - 0.02
    if less and kept:
        meaning = "it learns less and forgets less"
    elif kept:
        meaning = "it forgets less and learns no less"
    else:
        meaning = "here it does not forget less"
    return (
        f"LoRA got {learned:.0f} % of what full fine-tuning gained on the new text, and lost {forgotten.measured:.2f}"
        f" nats on the old one, where full fine-tuning lost {forgotten.expected:.2f}: {meaning}."
    )


def variants_best(run: Outcome) -> str:
    names = [name for kind, name in VARIANTS.items() if kind != "full"]
    losses = {name: run[VARIANT_NEW.of(variant=name)].measured for name in names}
    lost = {name: run[VARIANT_OLD.of(variant=name)].difference for name in names}
    best, keeps = min(losses, key=lambda name: losses[name]), min(lost, key=lambda name: lost[name])
    same = "which also forgot least" if best == keeps else f"while {keeps} forgot least ({lost[keeps]:+.2f} nats)"
    return (
        f"At the same rate {best} learned most ({losses[best]:.2f} nats per token; plain LoRA {losses['LoRA']:.2f}),"
        f" {same}. Another rate can turn that round."
    )


def sweep_gain(run: Outcome) -> str:
    loss, one, eight = run[FULL_LOSS], run[GAIN.of(rank=1)].measured, run[GAIN.of(rank=8)].measured
    return (
        f"Full fine-tuning lowered the loss from {loss.expected:.2f} to {loss.measured:.2f}; rank 1 got"
        f" {one:.0f} % of that gain and rank 8 {eight:.0f} %."
    )


def sweep_weights(run: Outcome) -> str:
    return (
        f"Rank 8 trains {run[WEIGHTS].measured:,.0f} weights where full fine-tuning trains"
        f" {run[FULL_WEIGHTS].measured:,.0f}. A run of {run.config.steps} steps is short: raise the steps to see"
        " whether higher ranks pull ahead."
    )


def spectrum_cut(run: Outcome) -> str:
    gain, size = run[CUT_GAIN.of(rank=8)].measured, run[CUT_SIZE.of(rank=8)]
    meaning = (
        "what helps on the text lies in few directions" if gain > size.measured + 10 else "no few directions carry it"
    )
    return (
        f"Cut to rank 8, full fine-tuning's change keeps {gain:.0f} % of its gain and {size.measured:.0f} % of one"
        f" layer's squared size (a random change would keep {size.expected:.0f} % of that): {meaning}."
    )


def spectrum_one(run: Outcome) -> str:
    loss, gain = run[SPECTRUM_LOSS], run[CUT_GAIN.of(rank=1)].measured
    return (
        f"Full fine-tuning lowered the loss from {loss.expected:.2f} to {loss.measured:.2f}; a single direction per"
        f" matrix keeps {gain:.0f} % of what the layers gained."
    )


def winner(run: Outcome) -> int:
    """0: LoRA leads both controls by 2 points, 1: a tie, 2: a control leads."""
    lead = min(-run[CONTROLS[name]].difference for name in ("multiplying the inputs by 16", "the 32 biases"))
    return 2 - band(lead, -2, 2)


LESSON = Lesson(
    question="How can a small file teach a big model something new?",
    idea=(
        "Fine-tuning changes every weight of a model. LoRA freezes them all and trains a small adapter beside some of"
        " the weight matrices: two thin matrices whose product is added. Their width is the rank r. A small rank means"
        " few numbers to train, store and share. The adapter can be turned up, turned off or merged into the weights."
        " The question is how much rank a new task needs."
    ),
    formula=r"W' = W + \frac{\alpha}{r} B A, \qquad B \in \mathbb{R}^{d \times r},\; A \in \mathbb{R}^{r \times k}",
    experiments=(
        Card(
            "text",
            "Teach a model a new text",
            "start",
            17,
            "a small Llama that has read other books, and a play",
            (text_loss, text_size, text_dial),
            ("lora.adapter", "lora.tuning", "foundations.base_model"),
        ),
        Card(
            "toy",
            "Find out how much rank is enough",
            "start",
            5,
            "a tiny network and a change whose rank is known",
            (toy_remaining, toy_drop, toy_tasks),
            ("lora.adapter", "lora.tiny_network", "lora.controls"),
        ),
        Card(
            "count",
            "Count what LoRA trains in big models",
            "deeper",
            7,
            "Llama, GPT-3 and others, built without memory",
            (count_share, count_file, count_embeddings),
            ("lora.published", "lora.adapter"),
        ),
        Card(
            "variants",
            "Compare LoRA with its descendants",
            "deeper",
            23,
            "rsLoRA, LoRA+, DoRA, PiSSA, and what each forgets",
            (variants_trade, variants_best),
            ("lora.tuning", "lora.adapter"),
        ),
        Card(
            "sweep",
            "Compare ranks with full fine-tuning",
            "expert",
            17,
            "six ranks and full fine-tuning, several seeds",
            (sweep_gain, sweep_weights),
            ("lora.tuning", "lora.adapter", "foundations.corpus"),
        ),
        Card(
            "spectrum",
            "See why so little rank is enough",
            "expert",
            8,
            "full fine-tuning's change, taken apart",
            (spectrum_one, spectrum_cut),
            ("lora.tuning", "foundations.corpus"),
        ),
    ),
    steps=(
        Look(
            "The big matrix W is frozen. Beside it the input takes a second way through two thin matrices, A and B, and"
            " both results are added.",
            "diagram",
        ),
        Run("Train an adapter on a play that the model has never read. Watch the loss fall.", "text", {}, "loss"),
        Look(
            "Drag the slider: it multiplies the adapter. At 0 the model is the base again, at 2 it overdoes it.",
            "dial",
            "text",
        ),
        Ask(
            "Reverse the trained adapter (multiply alpha by -1). How does the model do on the play?",
            "text",
            {"corpus": "play", "steps": 24, "length": 16},
            ("better than without an adapter", "the same as without an adapter", "worse than without an adapter"),
            lambda run: band(run[REVERSED].difference, -0.01, 0.01),
            lambda run: (
                f"The base lost {run[REVERSED].expected:.2f} nats per token; with the adapter"
                f" {run[LOSS].measured:.2f}, and with the reversed adapter {run[REVERSED].measured:.2f}."
            ),
        ),
        Ask(
            "The true change has rank 4. How much of it can LoRA of rank 3 learn?",
            "toy",
            {"true_rank": 4, "rank": 3},
            ("all: under 0.1 % of the error remains", "more than half, but never all", "less than half"),
            lambda run: band(run[LEFT], 0.001, 0.5),
            lambda run: (
                f"{100 * run[LEFT].measured:.2g} % of the error remained; over ranks 1 to 8 it dropped most at rank"
                f" {run[DROP].measured:.0f}."
            ),
        ),
        Ask(
            "Llama 2 with 7 billion parameters, rank 8 on q, k, v and o: how much of it is trained?",
            "count",
            {"model": "llama-2-7b", "targets": "qkvo", "rank": 8},
            ("about 12 %", "about 1.2 %", "about 0.12 %", "about 0.012 %"),
            lambda run: 3 - band(run[SHARE], 0.04, 0.4, 4),
            lambda run: (
                f"peft counts {run[TRAINED].measured:,.0f} of {run[TOTAL].measured:,.0f}: {run[SHARE].measured:.3g} %."
            ),
        ),
        Ask(
            "A network meets inputs 16 times smaller than before. Does LoRA beat training 32 biases, and beat simply"
            " multiplying the inputs by 16?",
            "toy",
            {"view": "seed_setting"},
            (
                "yes, both, by more than 2 points",
                "no, it ties with one of them or both",
                "no, one of them beats it by more than 2 points",
            ),
            winner,
            lambda run: (
                f"LoRA: {run[LORA].measured:.1f} %. The 32 biases: {run[CONTROLS['the 32 biases']].measured:.1f} %."
                f" Multiplying: {run[CONTROLS['multiplying the inputs by 16']].measured:.1f} %. A task that a bias can"
                " solve does not show what low rank is good for."
            ),
        ),
    ),
)
