"""The lesson of the tab CLIP."""

from core.clip.binding import ONE_OBJECT, SAME_VECTOR, WINS_MAXIMUM, wins
from core.clip.gap import ALIKE, CAPTIONS_CLOSED, GAP, PICTURES_CLOSED, PICTURES_OPENED
from core.clip.match import BARE_NAME, BEATEN, BELOW_QUARTER, BEST, MEAN_TEMPLATE
from core.clip.see import FALL, NAMED_MIXTURE, NAMED_RIGHT, NAMED_STICKER
from core.clip.train import DIGITS, FIRST_LOSS, NEW_PAIRS, RETRIEVED, SCALE, SEEN_PAIRS
from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run

# --- match ------------------------------------------------------------------------------------------------------------


def match_beaten(run: Outcome) -> str:
    best, beaten = run[BEST], run[BEATEN].measured
    verdict = "a clear match" if beaten < 20 else "a fair match" if beaten < 200 else "no match"
    return (
        f"The first picture's best caption has a cosine of {best.measured:.2f}, and {beaten:.0f} of 1,000 captions of"
        f" other pictures beat it: {verdict}."
    )


def match_quarter(run: Outcome) -> str:
    below = run[BELOW_QUARTER].measured
    verdict = "so 0.25 would be high" if below > 95 else "so 0.25 would be nothing special"
    return (
        f"Is 0.25 a low cosine? In this model {below:.0f} % of the random captions lie below it, {verdict}. Another"
        " CLIP has another scale: only a comparison tells."
    )


def match_templates(run: Outcome) -> str:
    mean = run[MEAN_TEMPLATE]
    way = "gains" if mean.difference > 0.5 else "loses" if mean.difference < -0.5 else "changes next to nothing:"
    return (
        f"On noisy unseen pictures the mean of all templates {way} {abs(mean.difference):.1f} points against one"
        f" template ({mean.measured:.1f} and {mean.expected:.1f} %); the bare name gets"
        f" {run[BARE_NAME].measured:.1f} %."
    )


# --- train ------------------------------------------------------------------------------------------------------------


def train_first(run: Outcome) -> str:
    loss = run[FIRST_LOSS]
    near = "about" if abs(loss.difference) < 0.3 else "not"
    return (
        f"The first loss was {loss.measured:.2f} nats, {near} the {loss.expected:.2f} of a model to which all captions"
        " look equally likely."
    )


def train_pairs(run: Outcome) -> str:
    if DIGITS in run:
        return train_digits(run)
    new, seen = run[NEW_PAIRS].measured, run[SEEN_PAIRS].measured
    if seen < 20:
        return f"After {run.config.steps} steps it names {seen:.0f} % of new pictures right: it has hardly begun."
    verdict = (
        "it learned color and shape separately"
        if new > 0.8 * seen
        else "it partly learned them as pairs"
        if new > 0.3 * seen
        else "it learned the pairs, not their parts"
    )
    return (
        f"It names {new:.0f} % of the pictures of pairs that it was never shown, and {seen:.0f} % of the others:"
        f" {verdict}."
    )


def train_digits(run: Outcome) -> str:
    return (
        f"It names {run[DIGITS].measured:.0f} % of unseen digits right; guessing gets {run[DIGITS].expected:.0f} %. All"
        " ten digits were in training, so this is not zero-shot."
    )


def train_scale(run: Outcome) -> str:
    found = (
        f" {run[RETRIEVED].measured:.0f} % of the pictures find their own caption first." if SEEN_PAIRS in run else ""
    )
    return f"The scale of the cosines ended at {run[SCALE].measured:.0f}; at most 100 is allowed.{found}"


# --- see --------------------------------------------------------------------------------------------------------------


def see_sticker(run: Outcome) -> str:
    right, sticker = run[NAMED_RIGHT], run[NAMED_STICKER].measured
    verdict = "It fools the model" if right.difference < -20 else "It hardly fools the model"
    return (
        f"{verdict}: with the sticker {right.measured:.0f} % of the scenes are named right, without it"
        f" {right.expected:.0f} %; {sticker:.0f} % are named as the sticker."
    )


def see_mixture(run: Outcome) -> str:
    mixture = run[NAMED_MIXTURE]
    if mixture.measured < 5:
        return ""
    return (
        f"{mixture.measured:.0f} % are named as a mixture, like a green star with a red circle called “red star”: both"
        " words are true of something in the picture."
    )


def see_covered(run: Outcome) -> str:
    fall = run[FALL]
    if fall.expected <= 0:
        return ""
    place = "one place holds most of the match" if fall.ratio > 0.5 else "no single place holds the match"
    return (
        f"Covering one window lowers the cosine with the first caption by up to {fall.measured:.2f} of"
        f" {fall.expected:.2f}: {place}."
    )


# --- gap --------------------------------------------------------------------------------------------------------------


def gap_trained(run: Outcome) -> str:
    gap = run[GAP]
    change = gap.measured / max(gap.expected, 1e-9)
    verdict = (
        "training nearly closed it" if change < 0.3 else "training narrowed it" if change < 0.9 else "it did not close"
    )
    return f"Before training the two clouds are {gap.expected:.2f} apart, after it {gap.measured:.2f}: {verdict}."


def gap_alike(run: Outcome) -> str:
    alike = run[ALIKE]
    if alike.difference > -0.1:
        return ""
    return (
        f"Two different pictures had a cosine of {alike.expected:.2f} before training and have {alike.measured:.2f}"
        " now: the narrow cones have spread, so there is little room for a gap."
    )


def gap_opened(run: Outcome) -> str:
    opened = run[PICTURES_OPENED]
    change = opened.difference
    verdict = "costs" if change < -1 else "gains" if change > 1 else "changes little:"
    return (
        f"Pushing the pictures 1 away from the texts {verdict} {abs(change):.0f} points of the pictures that find"
        f" their caption ({opened.expected:.0f} to {opened.measured:.0f} %)."
    )


def closing_because(run: Outcome) -> str:
    one, other, gap = run[PICTURES_CLOSED], run[CAPTIONS_CLOSED], run[GAP].measured
    reason = f"There is hardly a gap to close in this CLIP ({gap:.2f})." if gap < 0.3 else f"The gap was {gap:.2f}."
    return (
        f"Pictures found their caption in {one.expected:.0f} % before and {one.measured:.0f} % after, captions their"
        f" picture in {other.expected:.0f} and {other.measured:.0f} %. {reason}"
    )


# --- binding ----------------------------------------------------------------------------------------------------------


def binding_order(run: Outcome) -> str:
    swapped, new = run[wins("colours swapped")].measured, run[wins("new colour")].measured
    verdict = (
        "no better than a coin" if swapped < 60 else "better than a coin, but not sure" if swapped < 90 else "sure"
    )
    return (
        f"Where one color is wrong, the right caption wins in {new:.0f} % of the scenes. Where the two colors are only"
        f" swapped, in {swapped:.0f} %: {verdict}."
    )


def binding_vector(run: Outcome) -> str:
    cosine = run[SAME_VECTOR].measured
    if cosine < 0.95:
        return f"The two swapped captions have a cosine of {cosine:.2f}, so the text tower does tell them apart."
    return (
        f"The text tower gives the two swapped captions nearly the same vector (cosine {cosine:.4f}), so no picture can"
        " decide between them."
    )


def binding_one(run: Outcome) -> str:
    one = run[ONE_OBJECT].measured
    return f"With a single object it names {one:.0f} % of pairs that it never saw." + (
        " It knows the words, not which belongs to which."
        if one > 90 and run[wins("colours swapped")].measured < 60
        else ""
    )


def swapped_because(run: Outcome) -> str:
    bag = run[WINS_MAXIMUM.of(kind="colours swapped")].measured
    return (
        f"{run[wins('colours swapped')].measured:.0f} %, against {run[wins('new colour')].measured:.0f} % where a color"
        f" is new. Without the picture tower's map of places it is {bag:.0f} %. The two captions have a cosine of"
        f" {run[SAME_VECTOR].measured:.4f}: the text tower hardly tells them apart."
    )


LESSON = Lesson(
    question="How can one model compare pictures with words?",
    idea=(
        "CLIP has two networks, called towers: one turns a picture into a list of numbers, the other a text. Both are"
        " trained on pairs of a picture and its caption. The two vectors of a pair should point the same way (a high"
        " cosine), others should not. Then any list of captions is a classifier: the picture takes the"
        " caption that lies nearest, even one that it never saw."
    ),
    formula=(
        r"\ell = -\frac{1}{2N} \sum_i \Big( \ln \frac{e^{s\,x_i \cdot y_i}}{\sum_j e^{s\,x_i \cdot y_j}}"
        r" + \ln \frac{e^{s\,x_i \cdot y_i}}{\sum_j e^{s\,x_j \cdot y_i}} \Big)"
    ),
    experiments=(
        Card(
            "match",
            "Match captions to pictures",
            "start",
            7,
            "your pictures and captions, a small trained CLIP",
            (match_beaten, match_quarter, match_templates),
            ("clip.real", "foundations.small_clip", "foundations.captioned_shapes"),
        ),
        Card(
            "train",
            "Train both towers from nothing",
            "start",
            56,
            "drawings with captions, or handwritten digits",
            (train_first, train_pairs, train_scale),
            ("clip.contrast", "clip.worlds", "foundations.small_clip"),
        ),
        Card(
            "see",
            "Fool it with a sticker",
            "start",
            6,
            "where it looks, and what misleads it",
            (see_sticker, see_mixture, see_covered),
            ("clip.match", "foundations.small_clip", "foundations.captioned_shapes"),
        ),
        Card(
            "gap",
            "Measure how far pictures and texts lie",
            "expert",
            7,
            "both clouds of vectors, before and after training",
            (gap_trained, gap_alike, gap_opened),
            ("foundations.small_clip", "foundations.captioned_shapes"),
        ),
        Card(
            "binding",
            "Swap two words in a caption",
            "deeper",
            7,
            "seven kinds of wrong captions",
            (binding_order, binding_vector, binding_one),
            ("foundations.small_clip", "foundations.captioned_shapes"),
        ),
    ),
    steps=(
        Look(
            "A picture goes through one tower, a text through the other. Both end as a vector of length 1; their"
            " product is the cosine of the angle between them.",
            "diagram",
        ),
        Run("Five pictures against five captions. Which caption does each picture like best?", "match", {}, "cosines"),
        Ask(
            "A red circle has its best caption. Of 1,000 captions of other pictures, how many have a larger cosine with"
            " it?",
            "match",
            {},
            ("fewer than 20", "20 to 200", "more than 200"),
            lambda run: band(run[BEATEN], 20, 200),
            lambda run: (
                f"{run[BEATEN].measured:.0f} of 1,000: the best caption has a cosine of {run[BEST].measured:.2f}, the"
                f" median of the random ones is {run[BEST].expected:.2f}."
            ),
        ),
        Ask(
            "Two untrained towers see 64 pictures and 64 captions. What is their loss?",
            "train",
            {"steps": 1, "batch": 64, "world": "shapes"},
            ("near 1", "near ln 64 = 4.2", "near 64"),
            lambda run: band(run[FIRST_LOSS], 2, 10),
            lambda run: (
                f"It was {run[FIRST_LOSS].measured:.2f}: with all captions alike each gets 1/N, and -ln(1/N) = ln N;"
                f" without equal captions that is {run[FIRST_LOSS].expected:.2f}."
            ),
        ),
        Ask(
            "Among 64 digits about six have the same caption, and each counts the other five as wrong answers. Can it"
            " still learn to name digits?",
            "train",
            {"world": "digits", "mask": False, "steps": 100},
            ("no, fewer than 20 %", "halfway, 20 to 80 %", "yes, more than 80 %"),
            lambda run: band(run[DIGITS], 20, 80),
            lambda run: (
                f"{run[DIGITS].measured:.0f} % were named right. Between equal captions nothing can be learned, which"
                " keeps the loss high; between different ones it can."
            ),
        ),
        Ask(
            "A red circle of radius 5 is stuck into the corner farthest from the object (radius 6 to 11). How many"
            " objects are still named right among 48 names?",
            "see",
            {"sticker": "shape", "radius": 5.0},
            ("fewer than half", "50 to 90 %", "at least 90 %"),
            lambda run: band(run[NAMED_RIGHT], 50, 90),
            lambda run: (
                f"{run[NAMED_RIGHT].measured:.0f} % are named right, {run[NAMED_RIGHT].expected:.0f} % without it;"
                f" {run[NAMED_STICKER].measured:.0f} % are named as the sticker, which has"
                f" {run[NAMED_STICKER].expected:.0f} % of the colored area."
            ),
        ),
        Ask(
            "“A red circle left of a blue square” against “a blue circle left of a red square”: how often does the"
            " right caption win?",
            "binding",
            {},
            ("below 60 %, near chance", "60 to 90 %", "above 90 %"),
            lambda run: band(run[wins("colours swapped")], 60, 90),
            swapped_because,
        ),
        Ask(
            "Move all pictures so that the two clouds have the same center. What does that do to finding one another?",
            "gap",
            {"pairs": 192},
            ("fewer find theirs", "next to nothing", "more find theirs"),
            lambda run: band((run[PICTURES_CLOSED].difference + run[CAPTIONS_CLOSED].difference) / 2, -3, 3),
            closing_because,
        ),
    ),
)
