"""The lesson of the tab DALL·E 2."""

from core.dalle2.blend import HALF_ANGLE, KINDS, NEW_AT, OFF_ARC, STAYED, STRAIGHT, TURNED_AT
from core.dalle2.chain import ALL_NAMES, AS_ASKED, NEAREST, REAL_CAPTION, REAL_TWO, TWO, WAYS, headline
from core.dalle2.variations import AGAIN, DIFFER, ENOUGH_DECODER, NEEDED, SAME
from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run
from core.foundations.small_clip import EMBEDDING

PRIOR, CODES, NONE = WAYS
ALL_PRIOR, ALL_NONE = (ALL_NAMES.of(way=way) for way in (PRIOR, NONE))
NEAREST_PRIOR, NEAREST_NONE = (headline(NEAREST, way) for way in (PRIOR, NONE))
TWO_PRIOR, TWO_CODES = (TWO.of(way=way) for way in (PRIOR, CODES))


# --- chain ------------------------------------------------------------------------------------------------------------


def chain_nearest(run: Outcome) -> str:
    if REAL_CAPTION in run:
        return chain_real(run)
    text, prior = run[NEAREST_NONE].measured, run[NEAREST_PRIOR].measured
    nearer = "nearer" if prior > text + 0.02 else "farther" if prior < text - 0.02 else "about as near"
    return (
        f"The caption's embedding has a cosine of {text:.2f} with the nearest real picture; what the prior imagines is"
        f" {nearer}, with {prior:.2f} (a real one: {run[NEAREST_PRIOR].expected:.2f})."
    )


def chain_asked(run: Outcome) -> str:
    none, prior = (run[AS_ASKED.of(way=way)].measured for way in (NONE, PRIOR))
    verdict = "here the prior decides" if prior > none + 20 else "here the prior makes no difference"
    return (
        f"Of the pictures for this caption {none:.0f} % are as asked without a prior and {prior:.0f} % with it:"
        f" {verdict}."
    )


def chain_all(run: Outcome) -> str:
    none, prior = run[ALL_NONE].measured, run[ALL_PRIOR].measured
    verdict = (
        "most captions work without a prior, and it repairs the rest"
        if none > 60 and prior > none + 5
        else ("the prior helps most captions" if prior > none + 5 else "the prior changes little")
    )
    return f"Over all 48 names {none:.0f} % come out right without a prior and {prior:.0f} % with it: {verdict}."


def chain_real(run: Outcome) -> str:
    return (
        f"An imagined embedding has a cosine of {run[REAL_CAPTION].measured:.2f} with the caption's, and two of them"
        f" {run[REAL_TWO].measured:.2f} with each other: the caption leaves something open."
    )


# --- variations -------------------------------------------------------------------------------------------------------


def variations_same(run: Outcome) -> str:
    same = run[SAME].measured
    verdict = (
        "the embedding holds both"
        if same > 90
        else "the embedding does not hold both"
        if same < 60
        else ("most of it is in the embedding")
    )
    return f"{same:.0f} % of the variations have the color and the shape of the picture: {verdict}."


def variations_differ(run: Outcome) -> str:
    return (
        f"Their pixels still differ by {run[DIFFER].measured:.0f} % of the range: what the embedding leaves out, the"
        f" decoder invents from the noise. Encoded again, a variation has a cosine of {run[AGAIN].measured:.2f} with"
        " the embedding."
    )


def variations_needed(run: Outcome) -> str:
    needed, enough = run[NEEDED], run[ENOUGH_DECODER].measured
    return (
        f"{needed.measured:.0f} % of the {EMBEDDING} components hold 99 % of the variance (DALL·E 2:"
        f" {needed.expected:.0f} % hold nearly all); with the first {enough:.0f} the decoder is as right as with all."
    )


# --- blend ------------------------------------------------------------------------------------------------------------


def blend_arc(run: Outcome) -> str:
    length = run[STRAIGHT].measured
    return (
        f"The two embeddings are {2 * run[HALF_ANGLE].expected:.0f} degrees apart. The middle of the straight line"
        f" between them has length {length:.2f}; on the arc every point has length 1."
    )


def blend_turn(run: Outcome) -> str:
    turned, off = run[TURNED_AT].measured, run[OFF_ARC].measured
    where = "about halfway" if abs(turned - 0.5) < 0.15 else "before halfway" if turned < 0.5 else "after halfway"
    return (
        f"The classifier first sees something else at {turned:.2f} of the way, {where}. Encoded again, the pictures lie"
        f" {off:.2f} off the arc on average: the decoder draws what it knows."
    )


def blend_words(run: Outcome) -> str:
    for kind, other in (KINDS, KINDS[::-1]):
        if NEW_AT.of(kind=kind) in run:
            stayed = run[STAYED.of(kind=other)].measured
            return (
                f"Toward the words the new {kind} appears at {run[NEW_AT.of(kind=kind)].measured:.2f} of the way, and"
                f" {stayed:.0f} % of the pictures keep their {other}."
            )
    return ""


LESSON = Lesson(
    question="How does DALL·E 2 get from a caption to a picture?",
    idea=(
        "CLIP turns pictures and captions into vectors in one space. DALL·E 2 goes the other way. A first network, the"
        " prior, imagines the vector of a picture that would fit the caption: a caption leaves much open, so there are"
        " many. A second one, the decoder, draws a picture from that vector. The vector in the middle can also be"
        " varied, or blended with another."
    ),
    formula=r"p(x \mid y) = p(x \mid z_i, y)\; p(z_i \mid y)",
    experiments=(
        Card(
            "chain",
            "Turn a caption into pictures",
            "start",
            18,
            "two priors, and none, side by side",
            (chain_nearest, chain_asked, chain_all),
            ("dalle2.prior", "dalle2.decoder", "dalle2.decoding", "foundations.small_clip", "foundations.judge"),
        ),
        Card(
            "variations",
            "Decode one picture many times",
            "start",
            16,
            "what a vector of 64 numbers keeps",
            (variations_same, variations_differ, variations_needed),
            ("dalle2.decoder", "dalle2.decoding", "foundations.small_clip", "foundations.judge"),
        ),
        Card(
            "blend",
            "Blend two pictures",
            "deeper",
            15,
            "along an arc, and in the direction of words",
            (blend_arc, blend_turn, blend_words),
            ("dalle2.decoder", "dalle2.decoding", "foundations.small_clip", "foundations.judge"),
        ),
    ),
    steps=(
        Look(
            "The caption becomes a vector; the prior imagines the vector of a picture; the decoder draws it.", "diagram"
        ),
        Ask(
            "The caption's vector against one that the prior imagines: which lies nearer to a real picture's?",
            "chain",
            {"prompt": "a yellow triangle"},
            ("the caption's", "about as near", "the imagined one"),
            lambda run: band(run[NEAREST_PRIOR].measured - run[NEAREST_NONE].measured, -0.02, 0.02),
            lambda run: (
                f"The caption's cosine with its nearest picture is {run[NEAREST_NONE].measured:.2f}, an imagined one's"
                f" {run[NEAREST_PRIOR].measured:.2f}; a real picture's with the nearest other is"
                f" {run[NEAREST_PRIOR].expected:.2f}."
            ),
        ),
        Ask(
            "All 48 names of a color and a shape are drawn without a prior: the caption's vector goes straight into the"
            " decoder. How many come out right?",
            "chain",
            {"prompt": "a blue star", "steps": 8},
            ("fewer than half", "half to nine tenths", "more than nine tenths"),
            lambda run: band(run[ALL_NONE], 50, 90),
            lambda run: (
                f"{run[ALL_NONE].measured:.0f} % without a prior, and {run[ALL_PRIOR].measured:.0f} % with the"
                " diffusion prior, from the same noise."
            ),
        ),
        Ask(
            "Each prior imagines 32 vectors for “a yellow triangle”. Whose differ more among themselves?",
            "chain",
            {"prompt": "a yellow triangle", "prior_steps": 20, "prior_scale": 1.0, "steps": 8},
            ("the diffusion prior's", "both the same", "the autoregressive prior's"),
            lambda run: band(run[TWO_PRIOR].measured - run[TWO_CODES].measured, -0.02, 0.02),
            lambda run: (
                f"Two that the diffusion prior imagines have a cosine of {run[TWO_PRIOR].measured:.2f}, two of the"
                f" autoregressive prior {run[TWO_CODES].measured:.2f}, two real pictures that fit"
                f" {run[TWO_PRIOR].expected:.2f}."
            ),
        ),
        Run("Now without any caption: one picture is encoded once and decoded six times.", "variations", {}),
        Ask(
            "A vector has 64 numbers. How many directions hold 99 % of what varies between pictures?",
            "variations",
            {"steps": 8},
            ("fewer than 13", "13 to 44", "more than 44, nearly all"),
            lambda run: band(run[NEEDED], 20, 70),
            lambda run: (
                f"{run[NEEDED].measured:.0f} % of the {EMBEDDING} components; in DALL·E 2,"
                f" {run[NEEDED].expected:.0f} % of 1,024 hold nearly all."
            ),
        ),
        Ask(
            "Two vectors of length 1, a red circle's and a blue star's. How long is their plain mean?",
            "blend",
            {"colour_a": "red", "shape_a": "circle", "colour_b": "blue", "shape_b": "star", "steps": 8},
            ("less than a third", "shorter than 1, but more than a third", "1 as well"),
            lambda run: band(run[STRAIGHT], 1 / 3, 0.97),
            lambda run: (
                f"It is {run[STRAIGHT].measured:.2f} long: the cosine of {run[HALF_ANGLE].expected:.0f} degrees, half"
                " of the angle between them. On the arc every point has length 1."
            ),
        ),
    ),
)
