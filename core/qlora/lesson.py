"""The lesson of the tab QLoRA."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run
from core.qlora.budget import BIG_QLORA, BIG_WHOLE, PRECISIONS
from core.qlora.damage import FLIPS, FLIPS_AFTER, GAIN, GAP, GAP_CLOSED, KINDS, LEAD, PERPLEXITY
from core.qlora.meter_figures import peak_of
from core.qlora.microscope import ALREADY, BITS, BLOCKS_CHANGED, ERROR, OTHER_ERROR, ZEROS

# --- microscope -------------------------------------------------------------------------------------------------------


def microscope_error(run: Outcome) -> str:
    error = run[ERROR]
    if abs(error.ratio - 1) < 0.1:
        meaning = "about as much as on normally distributed numbers"
    else:
        meaning = f"{'more' if error.ratio > 1 else 'less'} than on normally distributed numbers"
    before = (
        f" 32 neighbors had at most {run[ALREADY].measured:.0f} different values before that: the file that this model"
        " comes from stored 4 bits of each."
        if run[ALREADY].measured <= 16
        else ""
    )
    return (
        f"Rounding changed the weights by {error.measured:.2g} % of their size, {meaning} ({error.expected:.2g} %)."
        f"{before}"
    )


def microscope_bits(run: Outcome) -> str:
    return (
        f"With its constants the layer takes {run[BITS].measured:.3f} bits per weight instead of 32:"
        f" {32 / run[BITS].measured:.1f} times less."
    )


def microscope_outlier(run: Outcome) -> str:
    blocks, zeros = run[BLOCKS_CHANGED].measured, run[ZEROS].measured
    reach = "only its own block" if blocks <= 1 else f"{blocks:,.0f} blocks"
    block = int(run.config.block)
    harm = "nearly all" if zeros > 0.9 * block else "none" if not zeros else f"{zeros:.0f}"
    return (
        f"One weight made {run.config.outlier:g} times larger changed {reach}; {harm} of the {block} weights in its own"
        " block became 0."
    )


# --- meter ------------------------------------------------------------------------------------------------------------


def peak_ratio(run: Outcome) -> float:
    """How many times smaller the peak is with NF4 than with fp32."""
    return run[peak_of("fp32")].measured / run[peak_of("nf4")].measured


def meter_ratio(run: Outcome) -> str:
    ratio = peak_ratio(run)
    meaning = "much less than the weights' own factor of 7" if ratio < 5 else "nearly the weights' own factor of 7"
    return (
        f"Training the small model peaked at {run[peak_of('fp32')].measured:.1f} MB in fp32 and"
        f" {run[peak_of('nf4')].measured:.1f} MB in NF4: {ratio:.1f} times less, {meaning}."
    )


def meter_peak(run: Outcome) -> str:
    if run.config.precision == "all":
        return ""
    peak = run[peak_of(run.config.precision)]
    off, side = 100 * abs(peak.ratio - 1), "below" if peak.difference < 0 else "above"
    agree = "exactly what" if off < 1e-4 else f"{off:.1f} % {side} what"
    return f"The peak with {PRECISIONS[run.config.precision]} was {peak.measured:.2f} MB, {agree} the formulas say."


def meter_big(run: Outcome) -> str:
    size = run.config.big
    whole, small = run[BIG_WHOLE.of(size=size)].measured, run[BIG_QLORA.of(size=size)].measured
    return (
        f"By the same formulas LLaMA {size} needs {whole:,.0f} GB to be fine-tuned whole, before any activation, and"
        f" {small:.1f} GB with QLoRA: {whole / small:.0f} times less."
    )


# --- damage -----------------------------------------------------------------------------------------------------------


def damage_cost(run: Outcome) -> str:
    cost = run[PERPLEXITY]
    way = "rose" if cost.ratio > 1.001 else "fell" if cost.ratio < 0.999 else "hardly moved"
    return (
        f"Stored as {KINDS[run.config.kind]}, the model changed its first choice at {run[FLIPS].measured:.1f} % of the"
        f" positions; perplexity {way}, from {cost.expected:.2f} to {cost.measured:.2f}."
    )


def damage_repair(run: Outcome) -> str:
    if GAP not in run:
        return damage_uncontrolled(run)
    gain, closed, gap = run[GAIN].measured, run[GAP_CLOSED].measured, run[GAP]
    repair = (
        "repaired nearly all of the damage"
        if closed > 90
        else "repaired part of the damage"
        if closed > 20
        else "repaired hardly any of the damage"
        if closed > -5
        else "left a larger gap than before"
    )
    return (
        f"LoRA lowered the loss by {gain:.3f} nats, but the same LoRA also helps the model in full precision. Against"
        f" that control the gap went from {gap.expected:.3f} to {gap.measured:.3f} nats ({closed:.0f} % closed): LoRA"
        f" {repair}."
    )


def damage_words(run: Outcome) -> str:
    words = run[FLIPS_AFTER]
    way = "fewer than" if words.difference < -0.5 else "more than" if words.difference > 0.5 else "about as many as"
    return (
        f"With the same LoRA on both, {words.measured:.1f} % of the next tokens differ from full precision, {way}"
        f" before ({words.expected:.1f} %)."
    )


def damage_uncontrolled(run: Outcome) -> str:
    return (
        f"LoRA lowered the loss by {run[GAIN].measured:.3f} nats. Without the control nobody can say how much of that"
        " is repair and how much is further training."
    )


def flips_because(run: Outcome) -> str:
    cost, lead = run[PERPLEXITY], run[LEAD]
    return (
        f"{run[FLIPS].measured:.1f} of 100 flipped, while perplexity went from {cost.expected:.2f} to"
        f" {cost.measured:.2f}. Where a token flipped, the first choice had led by {lead.measured:.2f} nats; on average"
        f" it leads by {lead.expected:.2f}."
    )


def blocks_because(run: Outcome) -> str:
    return (
        f"{run[BLOCKS_CHANGED].measured:.0f} blocks changed: the constants share a mean, and one large constant moves"
        f" it. The harm is small: the error of all other blocks went from {run[OTHER_ERROR].expected:.3f} to"
        f" {run[OTHER_ERROR].measured:.3f} % of the weights' size."
    )


LESSON = Lesson(
    question="How can a model be fine-tuned when its weights have only 4 bits?",
    idea=(
        "Fine-tuning a big model mostly fills memory with the model itself. QLoRA stores each weight as one of 16"
        " levels: 4 bits instead of 16 or 32. Blocks of 64 weights share one constant, their largest value. The"
        " rounded weights stay frozen, and a small adapter (LoRA) is trained beside them in full precision. What does"
        " rounding cost, and can the adapter repair it?"
    ),
    formula=r"y = x \, \mathrm{dequant}(W^{4\text{-bit}}, c)^\top + \tfrac{\alpha}{r} \, x A^\top B^\top",
    experiments=(
        Card(
            "microscope",
            "Round a layer's weights to 16 levels",
            "start",
            5,
            "one real layer, weight by weight",
            (microscope_error, microscope_bits, microscope_outlier),
            ("qlora.codes", "qlora.layer"),
        ),
        Card(
            "meter",
            "Weigh the memory of fine-tuning",
            "deeper",
            9,
            "every byte of a small Llama, and LLaMA by formula",
            (meter_ratio, meter_peak, meter_big),
            ("qlora.budget", "qlora.memory", "lora.adapter"),
        ),
        Card(
            "damage",
            "See what rounding does to its words",
            "deeper",
            15,
            "a small Llama in 4 bits, then LoRA on top",
            (damage_cost, damage_repair, damage_words),
            ("qlora.codes", "lora.adapter", "lora.tuning", "foundations.base_model"),
        ),
    ),
    steps=(
        Look(
            "The big matrix is kept in 4 bits and brought back to full precision only for the moment it is used. The"
            " thin matrices beside it are all that learns.",
            "diagram",
        ),
        Run(
            "Watch every weight move to the nearest of 16 levels. One weight then becomes 50 times larger.",
            "microscope",
            {},
            "film",
        ),
        Look(
            "The outlier's block, before and after: all its weights are divided by the same constant, so the others"
            " land on 0.",
            "block",
            "microscope",
        ),
        Ask(
            "With double quantization, one weight of a layer becomes 50 times larger. How many blocks of 64 weights"
            " does that change?",
            "microscope",
            {"outlier": 50.0, "double": True, "block": "64"},
            ("its own", "its own and those that share its second constant, 256", "more, nearly all"),
            lambda run: band(run[BLOCKS_CHANGED], 2, 257),
            blocks_because,
        ),
        Ask(
            "NF4 takes a seventh of the bytes of fp32. How much smaller is the peak of memory when the small model is"
            " fine-tuned?",
            "meter",
            {"precision": "all"},
            ("less than three times", "three to six times", "more than six times"),
            lambda run: band(peak_ratio(run), 3, 6),
            lambda run: (
                f"The peak went from {run[peak_of('fp32')].measured:.1f} to {run[peak_of('nf4')].measured:.1f} MB,"
                f" {peak_ratio(run):.1f} times less: only the layers' matrices shrink; activations, adapters, embedding"
                " and output layer stay."
            ),
        ),
        Ask(
            "Every matrix of the model goes from 32 to 4 bits per weight. How many of 100 next-token choices change?",
            "damage",
            {"kind": "nf4", "steps": 1, "control": False},
            ("fewer than 2", "2 to 25", "more than 25"),
            lambda run: band(run[FLIPS], 2, 25),
            flips_because,
        ),
        Ask(
            "LoRA is trained on the 4-bit model, and the same LoRA on the full one. How much of the gap between them"
            " does it close?",
            "damage",
            {"kind": "nf4", "steps": 24},
            ("less than a quarter", "a quarter to nine tenths", "nearly all"),
            lambda run: band(run[GAP_CLOSED], 25, 90),
            lambda run: (
                f"The loss fell by {run[GAIN].measured:.3f} nats, but the gap only went from {run[GAP].expected:.3f} to"
                f" {run[GAP].measured:.3f}: {run[GAP_CLOSED].measured:.0f} % closed. The rest of the fall is further"
                " training, which helps both."
            ),
        ),
    ),
)
