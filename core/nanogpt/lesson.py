"""The lesson of the tab nanoGPT: the model for the lessons of the other topics."""

from core.foundations.experiment import quoted
from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.nanogpt.decoding import BEST as LIKELIEST
from core.nanogpt.decoding import KEPT, REPEATED, SUM, WAYS
from core.nanogpt.decoding import SURPRISAL as OF_A_TEXT
from core.nanogpt.forking import CHANGES, FILE_SIZE, LOSS_B, SAME_END, SAME_WEIGHTS
from core.nanogpt.generating import COPIED, ENTROPY, SURPRISAL
from core.nanogpt.inside import MATTERS, NEEDED, NEEDS, SETTLED, SURE
from core.nanogpt.tokens import BEST, COST, KINDS, LENGTH, VOCABULARY
from core.nanogpt.training import CHOICES, FIRST_LOSS, LAST_LOSS, LOSS, NGRAMS, TABLE, TRAINING_LOSS

RUNGS = (
    "does not even know how often each character occurs",
    "knows how often each character occurs, but not the pairs",
    "knows the pairs, but not the triples",
    "knows more than all triples",
)
BY_HEART = 0.3  # nats: where the training loss is lower by this, the model learns its text by heart


# --- train ---


def rung(run: Outcome) -> int:
    """How many of the tables the model beats: single characters, pairs, triples."""
    return sum(run[LOSS].measured < run[TABLE.of(n=n)].measured for n in NGRAMS)


def how_far_it_fell(run: Outcome) -> str:
    start, end, choices = run[FIRST_LOSS].measured, run[LOSS].measured, run[CHOICES]
    return (
        f"The loss on new text went from {start:.2f} to {end:.2f} nats. Before training the model was as unsure as"
        f" between {choices.expected:.0f} equally likely characters, now as between {choices.measured:.1f}."
    )


def what_it_knows(run: Outcome) -> str:
    tables = ", ".join(f"{run[TABLE.of(n=n)].measured:.2f}" for n in NGRAMS)
    return f"It {RUNGS[rung(run)]}: counting single characters, pairs and triples reaches {tables} on the same text."


def learned_by_heart(run: Outcome) -> str:
    training, validation = run[TRAINING_LOSS].measured, run[LOSS].measured
    if validation - training < BY_HEART:
        return ""
    return (
        f"On the text it learns from, its loss is {training:.2f}, on new text {validation:.2f}: it is learning the text"
        " by heart (overfitting)."
    )


def blew_up(run: Outcome) -> str:
    loss = run[LAST_LOSS]
    return (
        f"The loss jumped to {loss.measured:.3g}, where knowing nothing costs {loss.expected:.2f}: the steps were too "
        "large."
    )


# --- generate ---


def how_unsure_it_was(run: Outcome) -> str:
    return (
        f"At each place it was as unsure as between {run[ENTROPY].measured:.1f} equally likely tokens, and what it drew"
        f" surprised it by {run[SURPRISAL].measured:.2f} nats on average."
    )


def what_it_copied(run: Outcome) -> str:
    return f"The longest stretch that it copied from its training text has {run[COPIED].measured:.0f} characters."


# --- decode ---


def what_was_left(run: Outcome) -> str:
    kept, best = run[KEPT], run[LIKELIEST]
    return (
        f"For the next place {kept.measured:.0f} of {kept.expected:.0f} tokens may still be drawn; the likeliest went"
        f" from {best.expected:.0f} % to {best.measured:.0f} %."
    )


def whether_it_goes_in_circles(run: Outcome) -> str:
    sure, again = run[OF_A_TEXT.of(way=WAYS["greedy"])], run[REPEATED.of(way=WAYS["greedy"])]
    than = "more" if sure.difference < 0 else "less"
    circles = "goes in circles" if again.difference > 10 else "hardly repeats itself"
    return (
        f"What greedy writes is {than} probable than what people write (surprisal {sure.measured:.2f} nats per token"
        f" against {sure.expected:.2f}), and it {circles}: {again.measured:.0f} % of its pairs of words stood before,"
        f" of theirs {again.expected:.0f} %. Drawn with your settings it is"
        f" {run[REPEATED.of(way=WAYS['yours'])].measured:.0f} %."
    )


def what_the_beam_found(run: Outcome) -> str:
    found, again = run[SUM], run[REPEATED.of(way=WAYS["beam"])]
    if abs(found.difference) < 0.01:
        return "Beam search found nothing more probable than greedy's own text."
    way = "more" if found.difference > 0 else "less"
    return (
        f"Beam search with {run.config.beams} texts found one that is {way} probable than greedy's (ln p"
        f" {found.measured:.0f} against {found.expected:.0f}, and 0 would be certain); {again.measured:.0f} % of its"
        " pairs of words stood before."
    )


# --- inside ---


def how_sure_it_is(run: Outcome) -> str:
    sure, settled = run[SURE], run[SETTLED]
    when = (
        "it stays first only from the last layer on"
        if settled.measured == settled.expected
        else f"it stays first from layer {settled.measured:.0f} of {settled.expected:.0f} on"
    )
    return (
        f"The likeliest next token has {sure.measured:.0f} %; without any layer it would have {sure.expected:.1f} %,"
        f" and {when}."
    )


def what_matters_here(run: Outcome) -> str:
    most, needed, part = run[MATTERS], run[NEEDED], run.last.knocked[0]
    comes = "still comes" if part.best == run.last.candidates[0][0] else "comes"
    verb = "changes" if needed.measured == 1 else "change"
    name = "the MLP" if part.part == "mlp" else f"head {int(part.part) + 1}"
    return (
        f"Knock out one part at a time: {name} of layer {part.layer + 1} matters most here. Without it the prediction"
        f" changes by {most.measured:.2f} nats (KL divergence), and {quoted(part.best)} {comes} first with"
        f" {part.best_p:.0%}. {needed.measured:.0f} of {needed.expected:.0f} heads and MLPs {verb} it by more than"
        f" {NEEDS} nats."
    )


def how_many_it_needs(run: Outcome) -> int:
    """Nearly all, about half, less than a quarter."""
    share = run[NEEDED].ratio
    return 0 if share > 0.75 else 1 if share >= 0.25 else 2


# --- tokens ---


def how_long_a_token_is(run: Outcome) -> str:
    length, vocabulary = run[LENGTH].measured, run[VOCABULARY]
    return (
        f"With {vocabulary.measured:,.0f} tokens instead of {vocabulary.expected:.0f} bytes, a token of new text stands"
        f" for {length:.2f} bytes: a context of 64 tokens reaches over {64 * length:.0f} bytes."
    )


def what_a_token_tells(run: Outcome) -> str:
    best = run[BEST]
    way = "less" if best.difference < 0 else "more"
    return (
        f"A table of pairs of tokens is surprised by {best.measured:.2f} bits per byte of new text, {way} than one of"
        f" pairs of characters ({best.expected:.2f}): a token says more about what comes next, but each is seen more"
        " rarely."
    )


def what_costs_most(run: Outcome) -> str:
    costs = {kind: run[COST.of(kind=kind)] for kind in KINDS if kind != "English"}
    kind = max(costs, key=lambda kind: costs[kind].measured)
    return (
        f"What this text never taught is dear: {kind} takes {costs[kind].measured:.1f} tokens per character, the"
        f" English sentence {costs[kind].expected:.1f}."
    )


# --- fork ---

WHY = {
    "no_residual": "each layer now replaces what came before instead of adding to it",
    "no_norm": "the numbers between the layers may now have any size",
    "no_positions": "attention can no longer see how far back a character stands",
    "learning_rate": "each step now moves the weights by another distance",
    "heads": "the same weights are read as other heads",
    "tying": "the output layer is thrown away and the embedding takes its place",
}


def what_the_change_did(run: Outcome) -> str:
    b, change = run[LOSS_B], run.config.change
    if change == "file":
        return ""
    way = "did harm" if b.difference > 0.02 else "helped" if b.difference < -0.02 else "made hardly a difference"
    return (
        f"In B, {WHY[change]} ({CHANGES[change]}). That {way}: on new text A ended at {b.expected:.2f} nats, B at "
        f"{b.measured:.2f} ({b.difference:+.2f})."
    )


def went_on_from_a_file(run: Outcome) -> str:
    differing, size = run[SAME_END].measured, run[FILE_SIZE].measured
    end = "each of its weights has the same bits as A's" if not differing else f"{differing:,.0f} weights differ"
    return (
        f"At step {run.config.fork_at} B was written to a file of {size / 1e3:,.0f} kB: the weights, what the"
        f" optimizers remember of them and the random generators. A new run went on from it, and at the end {end}."
    )


def nothing_else_differed(run: Outcome) -> str:
    return (
        f"At step {run.config.fork_at} A and B differed in {run[SAME_WEIGHTS].measured:,.0f} weights, so whatever"
        " happened afterwards has this one cause."
    )


CARDS = (
    Card(
        "inside",
        "Look inside the model",
        "start",
        2,
        "one forward pass, number by number",
        (how_sure_it_is, what_matters_here),
        ("nanogpt.forward_pass", "nanogpt.film", "foundations.transformer"),
    ),
    Card(
        "train",
        "Train a GPT from nothing",
        "start",
        18,
        "a real training run, live",
        (how_far_it_fell, what_it_knows, learned_by_heart, blew_up),
        ("nanogpt.trainer", "foundations.transformer", "foundations.corpus", "nanogpt.training_file"),
    ),
    Card(
        "tokens",
        "Cut text into tokens",
        "start",
        2,
        "byte-pair encoding, learned merge by merge",
        (how_long_a_token_is, what_a_token_tells, what_costs_most),
        ("foundations.corpus",),
    ),
    Card(
        "generate",
        "Watch a model write",
        "start",
        4,
        "a trained model, token by token",
        (how_unsure_it_was, what_it_copied),
        ("foundations.sampling", "foundations.transformer"),
    ),
    Card(
        "decode",
        "Choose the next token",
        "deeper",
        6,
        "one prompt, continued in five ways",
        (what_was_left, whether_it_goes_in_circles, what_the_beam_found),
        ("foundations.sampling", "nanogpt.beams"),
    ),
    Card(
        "fork",
        "Change one thing halfway",
        "deeper",
        18,
        "two runs, equal to the last bit until the change",
        (what_the_change_did, went_on_from_a_file, nothing_else_differed),
        ("nanogpt.trainer", "nanogpt.training_file", "foundations.transformer"),
    ),
)

STEPS = (
    Look(
        "Follow the arrows. Each character becomes a row of numbers, its embedding. In every layer, attention heads add"
        " to it some of the numbers of earlier characters, and an MLP, a small network, works on each row. Out come the"
        " probabilities of the next character.",
        "diagram",
    ),
    Ask(
        "Before any training all 60 different characters of the play are equally likely to the model: it is as unsure"
        " as one can be. Now it trains for 40 steps, a second or two. What will it have learned first?",
        "train",
        {"steps": 40},
        ("how often each character occurs", "also which character follows which", "also which three follow each other"),
        lambda run: max(0, rung(run) - 1),
        lambda run: (
            f"It began at {run[FIRST_LOSS].measured:.2f} nats, which is ln 60, and reached"
            f" {run[LOSS].measured:.2f} on new text. To know only how often each character occurs gives"
            f" {run[TABLE.of(n='uni')].measured:.2f}, to know which follows which {run[TABLE.of(n='bi')].measured:.2f}."
            + (" It is on its way to the pairs, and not there yet." if rung(run) == 1 else "")
        ),
    ),
    Look(
        "The dashed lines are what counting reaches, without a network. Counting pairs means: note what came after each"
        " character. In the play, h comes after t 32 times of 100, so an h there has a surprisal of −ln 0.32 = 1.14"
        " nats. Triples look at two characters before. Validation is the loss on new text, a tenth of the play that it"
        " never learns from.",
        "loss",
        "train",
    ),
    Ask(
        "Now it trains for 150 steps on the play, about ten seconds. Which is true of it then?",
        "train",
        {"steps": 150},
        RUNGS,
        rung,
        lambda run: (
            f"The validation loss ended at {run[LOSS].measured:.2f} nats. Counting characters, pairs and triples"
            " reaches " + ", ".join(f"{run[TABLE.of(n=n)].measured:.2f}" for n in NGRAMS) + " on the same text."
        ),
    ),
    Look(
        "Drag this slider back to step 0, then forward: first noise, then shapes of words. Each square is one attention"
        " head: a row is a character of the text under it, and the stronger a cell's colour, the more of that earlier"
        " character it takes in. Point at a cell to read it. Some heads look mostly at the character just before,"
        " others spread wide.",
        "rewind",
        "train",
    ),
    Ask(
        "Now open a model that has trained much longer, and let it read “The lanter”. 30 heads and 6 MLPs work on the"
        " next character. Each of them will be knocked out alone, so that it adds 0. How many does this one prediction"
        " need?",
        "inside",
        {},
        ("nearly all of them", "about half", "less than a quarter"),
        how_many_it_needs,
        lambda run: (
            f"{run[NEEDED].measured:.0f} of {run[NEEDED].expected:.0f} change the prediction by more than {NEEDS}"
            " nats: the ones in an orange frame. Click the thickest, head 2 of layer 2, to go closer: there the last"
            " token, r, takes most from the t two places before it. Knock out shows what becomes of n without it."
        ),
    ),
    Ask(
        "The model gives probabilities, and somebody has to choose. Suppose it always takes the likeliest token (greedy"
        " decoding). What will the text be like?",
        "decode",
        {},
        ("more varied than what people write", "about as varied", "it goes in circles"),
        lambda run: band(run[REPEATED.of(way=WAYS["greedy"])].difference, -5, 10),
        lambda run: (
            f"Of the pairs of words that greedy writes, {run[REPEATED.of(way=WAYS['greedy'])].measured:.0f} % had stood"
            " in its text before: what it has just written makes the same words likely again, and nothing leads it"
            f" away. Of what people wrote {run[REPEATED.of(way=WAYS['greedy'])].expected:.0f} %. Drawn by chance, with"
            f" the tail cut off, it is {run[REPEATED.of(way=WAYS['yours'])].measured:.0f} %."
        ),
    ),
    Look(
        "So what has a model learned when its loss falls? First how often each character occurs, then which follow each"
        " other, then pieces of words. Nobody gave it a rule: each step changed the weights a little, so that the"
        " character which really came was less of a surprise. It knows nothing that its text did not show.",
        "diagram",
    ),
)

LESSON = Lesson(
    question="What has a model learned when its loss falls?",
    idea=(
        "A language model guesses the next token, a piece of text; here it is one character. It gives every possible"
        " token a probability. The loss is its average surprise at the token that really came: 0 if it was sure of it,"
        " 4.09 if 60 were equally likely to it. Training changes the weights so that the loss falls. Inside, each"
        " attention head mixes the earlier tokens: of each it takes in a share."
    ),
    formula=r"\text{loss} = \text{average of } -\ln\, p(\text{the token that came} \mid \text{the tokens before it})",
    experiments=CARDS,
    steps=STEPS,
)
