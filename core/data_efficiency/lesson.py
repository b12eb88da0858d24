"""The lesson of the tab Data efficiency."""

from core.data_efficiency.curriculum import LOSS, NAMES, NOISE, SECONDS
from core.data_efficiency.dedup import FOUND, LOSS_COPIES, RECALL_WITH, RECALL_WITHOUT, THROWN
from core.data_efficiency.prune import AHEAD_LEAST, AHEAD_MOST, LOSS_LEAST
from core.data_efficiency.prune import NAMES as CHOICES
from core.data_efficiency.repeat import FRESH, MOST_EPOCHS, WORTH
from core.data_efficiency.scaling import RATIO, SEVENTH, SEVENTH_CHINCHILLA
from core.foundations.figures import Outcome, Reading, band
from core.foundations.lesson import Ask, Card, Lesson, Look

SHORT, DROP = NAMES["short"], NAMES["drop"]


def repeat_worth(run: Outcome) -> str:
    epochs = run.config.epochs
    worth = run[WORTH.of(epochs=epochs)]
    return (
        f"Read {epochs} times, a token was worth {worth.measured:.0f} % of a fresh one here; the law says"
        f" {worth.expected:.0f} %."
    )


def repeat_loss(run: Outcome) -> str:
    """The repeated run beside fresh text and the law."""
    most, fresh = run[MOST_EPOCHS], run[FRESH].measured
    law = (
        "as the law says"
        if abs(most.difference) < 0.03
        else f"worse than the law's {most.expected:.2f}: the model learns its text by heart"
        if most.difference > 0
        else f"better than the law's {most.expected:.2f}"
    )
    return (
        f"With fresh text the loss ended at {fresh:.2f}, with {run.config.epochs} epochs of less text at"
        f" {most.measured:.2f} nats per character: {law}."
    )


def dedup_found(run: Outcome) -> str:
    found = run[FOUND]
    return (
        f"{found.measured:.0f} % of the pairs of copies were found (the formula says {found.expected:.0f} %), and"
        f" {run[THROWN].measured:.0f} passages were thrown away."
    )


def dedup_recall(run: Outcome) -> str:
    return (
        f"Trained with the copies, the models continued a repeated passage for {run[RECALL_WITH].measured:.1f}"
        f" characters word for word, without them for {run[RECALL_WITHOUT].measured:.1f}."
    )


def dedup_loss(run: Outcome) -> str:
    """Whether the copies cost quality on unseen text."""
    loss = run[LOSS_COPIES]
    effect = (
        "cost the same budget some quality"
        if loss.difference > 0.01
        else "did even help"
        if loss.difference < -0.01
        else "made hardly a difference"
    )
    return f"On unseen text the loss is {loss.measured:.3f} with copies and {loss.expected:.3f} without: they {effect}."


def compared(reading: Reading) -> str:
    """Which half was better; `expected` holds two standard errors."""
    if abs(reading.measured) <= reading.expected:
        return f"no difference beyond the noise ({reading.measured:+.3f}; two standard errors: {reading.expected:.3f})"
    better = "the easiest half was better" if reading.measured > 0 else "the hardest half was better"
    return f"{better} by {abs(reading.measured):.3f} nats (two standard errors: {reading.expected:.3f})"


def prune_least(run: Outcome) -> str:
    return f"With the least text, {compared(run[AHEAD_LEAST])}."


def prune_most(run: Outcome) -> str:
    return f"With the most text, {compared(run[AHEAD_MOST])}."


def trick(run: Outcome, name: str) -> str:
    """Loss and time of one of the two tricks beside the baseline."""
    loss, seconds, noise = run[LOSS.of(trick=name)], run[SECONDS.of(trick=name)].measured, run[NOISE].measured
    quality = (
        "the same within the noise"
        if abs(loss.difference) <= 2 * noise
        else "better"
        if loss.difference < 0
        else "worse"
    )
    return (
        f"{name[0].upper() + name[1:]}: loss {loss.measured:.3f} against the baseline's {loss.expected:.3f}, {quality},"
        f" in {seconds:.0f} % of its time."
    )


def curriculum_short(run: Outcome) -> str:
    return trick(run, SHORT)


def curriculum_drop(run: Outcome) -> str:
    return trick(run, DROP)


def scaling_seventh(run: Outcome) -> str:
    loss, other = run[SEVENTH], run[SEVENTH_CHINCHILLA]
    closer = "Kaplan's form" if abs(loss.difference) < abs(other.difference) else "Chinchilla's form"
    return (
        f"The law of six small runs predicted a loss of {loss.expected:.3f} for the seventh, which ended at"
        f" {loss.measured:.3f}; {closer} came closer."
    )


def scaling_ratio(run: Outcome) -> str:
    """How far the published constants disagree."""
    ratios = [result for result in run.figures.values() if result.unit == RATIO.unit]
    if not ratios:
        return ""
    told = " and ".join(
        f"{result.measured:.0f} ({result.name.removeprefix('tokens per parameter, ')})" for result in ratios
    )
    return (
        f"For {run.config.zettaflops:g} ZFLOP, Chinchilla's table says {ratios[0].expected:.0f} tokens per parameter,"
        f" the fitted constants {told}: so uncertain is such advice."
    )


def half_answer(run: Outcome) -> int:
    """0: the easiest, 1: the hardest, 2: a random half."""
    easiest, hardest = (run[LOSS_LEAST.of(kind=CHOICES[kind])].difference for kind in ("easiest", "hardest"))
    return 2 if min(easiest, hardest) > 0 else 0 if easiest < hardest else 1


def half_because(run: Outcome) -> str:
    ends = [
        f"{CHOICES[kind]} {run[LOSS_LEAST.of(kind=CHOICES[kind])].difference:+.3f}"
        for kind in ("easiest", "hardest", "learnable")
    ]
    return "Nats per character more or less than with a random half: " + ", ".join(ends) + "."


def short_answer(run: Outcome) -> int:
    """0: better and faster, 1: better, 2: not better."""
    if run[LOSS.of(trick=SHORT)].difference >= 0:
        return 2
    return 0 if run[SECONDS.of(trick=SHORT)].measured < 100 else 1


def heart_answer(run: Outcome) -> int:
    """How much more is continued word for word with copies: 0 less than twice, 1 two to ten times, 2 more."""
    with_copies, without = run[RECALL_WITH].measured, run[RECALL_WITHOUT].measured
    return 0 if with_copies < 2 * without + 1 else 1 if with_copies < 10 * without else 2


def most_because(run: Outcome) -> str:
    most = run[MOST_EPOCHS]
    return (
        f"The law said {most.expected:.3f}, and the runs of {run.config.epochs} epochs ended at {most.measured:.3f}"
        f" nats per character: {most.difference:+.3f}."
    )


LESSON = Lesson(
    question="How much can a model learn from a limited text?",
    idea=(
        "Text runs out before computers do. So the question is how much a model learns from each token. Here fleets of"
        " tiny models, several seeds each, read the same text again and again, read it without its copies, read only"
        " the easy or the hard half, or read it in another order. Every result stands beside a published law, and"
        " shows how far it holds for models this small."
    ),
    formula=r"D' = U + U R^*_D\left(1 - e^{-R_D/R^*_D}\right), \qquad R_D = D/U - 1, \qquad R^*_D = 15.39",
    experiments=(
        Card(
            "repeat",
            "Read the same text again",
            "start",
            9,
            "a fleet of tiny models and the law of repeated data",
            (repeat_worth, repeat_loss),
            ("data_efficiency.fleet", "foundations.transformer", "foundations.corpus"),
        ),
        Card(
            "dedup",
            "Find copies and throw them away",
            "deeper",
            8,
            "MinHash on a text with planted copies",
            (dedup_found, dedup_recall, dedup_loss),
            ("data_efficiency.passages", "data_efficiency.minhash", "data_efficiency.fleet"),
        ),
        Card(
            "scaling",
            "Predict a larger run",
            "deeper",
            12,
            "six small runs, a law, and a seventh run",
            (scaling_seventh, scaling_ratio),
            ("data_efficiency.fleet", "data_efficiency.chinchilla"),
        ),
        Card(
            "prune",
            "Keep only the best half",
            "expert",
            12,
            "easy, hard, learnable or random text",
            (prune_least, prune_most),
            ("data_efficiency.fleet",),
        ),
        Card(
            "curriculum",
            "Start with short sequences",
            "expert",
            10,
            "the same tokens in another order, or with less work",
            (curriculum_short, curriculum_drop),
            ("data_efficiency.fleet", "foundations.transformer"),
        ),
    ),
    steps=(
        Look(
            "A token that is read again teaches less than it did at first. How much less, is what the law says.", "idea"
        ),
        Ask(
            "Read a quarter of the text four times in place of all of it once. How far from the law do the runs end?",
            "repeat",
            {"epochs": 4},
            ("less than 0.03 nats", "0.03 to 0.3 nats", "more than 0.3 nats"),
            lambda run: band(abs(run[MOST_EPOCHS].difference), 0.03, 0.3),
            most_because,
        ),
        Ask(
            "Read a fortieth of the text forty times. How much worse than the law do the runs end?",
            "repeat",
            {"epochs": 40},
            ("no worse than 0.03 nats", "0.03 to 0.3 nats", "more than 0.3 nats"),
            lambda run: band(run[MOST_EPOCHS].difference, 0.03, 0.3),
            most_because,
        ),
        Ask(
            "With a quarter of the width (a tenth of the weights), how far above the law is the loss after 16 epochs?",
            "repeat",
            {"epochs": 16, "width": 8},
            ("no worse than 0.03 nats", "0.03 to 0.2 nats", "more than 0.2 nats"),
            lambda run: band(run[MOST_EPOCHS].difference, 0.03, 0.2),
            most_because,
        ),
        Ask(
            "Two passages stand 200 times in the text. How much more of them is continued word for word than with one"
            " copy each?",
            "dedup",
            {},
            ("less than twice as much", "two to ten times", "more than ten times"),
            heart_answer,
            lambda run: (
                f"With the copies {run[RECALL_WITH].measured:.1f}, without them {run[RECALL_WITHOUT].measured:.1f} of"
                f" {run[RECALL_WITH].expected:.0f} characters of a repeated passage, word for word."
            ),
        ),
        Ask(
            "None of the six runs has even half the parameters x tokens of the seventh. How far off is the fitted law"
            " there?",
            "scaling",
            {},
            ("less than 0.05 nats", "0.05 to 0.15 nats", "more than 0.15 nats"),
            lambda run: band(abs(run[SEVENTH].difference), 0.05, 0.15),
            lambda run: (
                f"Predicted {run[SEVENTH].expected:.3f}, measured {run[SEVENTH].measured:.3f} nats per character:"
                f" {run[SEVENTH].difference:+.3f}; Chinchilla's form, fitted to the same six runs, said"
                f" {run[SEVENTH_CHINCHILLA].expected:.3f}."
            ),
        ),
        Ask(
            "There is little text: only 512 characters may be kept. Which half of what there is should it be?",
            "prune",
            {},
            ("the easiest", "the hardest", "a random half"),
            half_answer,
            half_because,
        ),
        Ask(
            "Short sequences first, the same number of characters: better, faster, or both?",
            "curriculum",
            {},
            ("better and faster", "better, but not faster", "not better"),
            short_answer,
            lambda run: (
                f"Short first ended at {run[LOSS.of(trick=SHORT)].measured:.3f}, the baseline at"
                f" {run[LOSS.of(trick=SHORT)].expected:.3f} nats per character, in"
                f" {run[SECONDS.of(trick=SHORT)].measured:.0f} % of the baseline's seconds."
            ),
        ),
    ),
)
