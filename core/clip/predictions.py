"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


# --- train ------------------------------------------------------------------------------------------------------------


def first_loss_answer(figures: Figures) -> int:
    loss = measured(figures, "first loss")
    return 0 if loss < 2 else 1 if loss < 10 else 2


def explain_first_loss(figures: Figures) -> str:
    figure = figures["first loss"]
    return f"It was {figure.measured:.2f}: with all captions alike each gets 1/N, and -ln(1/N) = ln N; equal captions left out, that is {figure.predicted:.2f}."


def never_seen_answer(figures: Figures) -> int:
    share = measured(figures, "never seen pairs named")
    return 0 if share < 20 else 1 if share < 80 else 2


def explain_never_seen(figures: Figures) -> str:
    figure = figures["never seen pairs named"]
    return f"{figure.measured:.0f} % of never seen pairs were named right, and {figure.predicted:.0f} % of seen ones: colour and shape were learnt apart."


def equal_captions_answer(figures: Figures) -> int:
    share = measured(figures, "unseen digits named")
    return 0 if share < 20 else 1 if share < 80 else 2


def explain_equal_captions(figures: Figures) -> str:
    share = measured(figures, "unseen digits named")
    return f"{share:.0f} % were named right: among equal captions nothing can be learnt, so the loss stays high, but between different ones all can."


TRAIN = (
    Prediction(
        "Two untrained towers see 64 pictures and 64 captions. What is their loss?",
        "train",
        {"steps": 1, "batch": 64, "world": "shapes"},
        ("near 1", "near ln 64 = 4.2", "near 64"),
        first_loss_answer,
        explain_first_loss,
    ),
    Prediction(
        "It never sees a red diamond, nor seven other pairs. After 400 steps, how many of their pictures does it name?",
        "train",
        {"world": "shapes"},
        ("fewer than 20 %", "20 to 80 %", "more than 80 %"),
        never_seen_answer,
        explain_never_seen,
    ),
    Prediction(
        "Of 64 digits about six share each caption, and count as wrong for each other. Can it still learn to name them?",
        "train",
        {"world": "digits", "mask": False, "steps": 100},
        ("no, fewer than 20 %", "half-way, 20 to 80 %", "yes, more than 80 %"),
        equal_captions_answer,
        explain_equal_captions,
    ),
)

# --- match, see, gap, binding -----------------------------------------------------------------------------------------


def beaten_answer(figures: Figures) -> int:
    beaten = measured(figures, "random captions that beat it")
    return 0 if beaten < 20 else 1 if beaten < 200 else 2


def explain_beaten(figures: Figures) -> str:
    best = figures["cosine of the best caption, first picture"]
    beaten = measured(figures, "random captions that beat it")
    return f"{beaten:.0f} of 1,000: the best caption has a cosine of {best.measured:.2f}, the median of the random ones is {best.predicted:.2f}."


def sticker_answer(figures: Figures) -> int:
    right = measured(figures, "scenes named right with the sticker")
    return 0 if right >= 90 else 1 if right >= 50 else 2


def explain_sticker(figures: Figures) -> str:
    right, theirs = figures["scenes named right with the sticker"], figures["scenes named as the sticker"]
    return (
        f"{right.measured:.0f} % are named right, {right.predicted:.0f} % without it; {theirs.measured:.0f} % are named as the sticker, "
        f"which has {theirs.predicted:.0f} % of the coloured area."
    )


def born_answer(figures: Figures) -> int:
    gap = figures["gap of the trained model"]
    change = (gap.measured or 0.0) / max(gap.predicted or 0.0, 1e-9)
    return 0 if change > 1.5 else 1 if change > 0.67 else 2


def explain_born(figures: Figures) -> str:
    gap = figures["gap of the trained model"]
    return f"It was {gap.predicted:.2f} before training and is {gap.measured:.2f} after: two random towers have two narrow cones, far apart."


def closing_answer(figures: Figures) -> int:
    ways = [figures[f"{who}, gap closed"].gap or 0.0 for who in ("pictures that find their caption", "captions that find their picture")]
    change = sum(ways) / 2
    return 0 if change > 3 else 1 if change > -3 else 2


def explain_closing(figures: Figures) -> str:
    one, other = (figures[f"{who}, gap closed"] for who in ("pictures that find their caption", "captions that find their picture"))
    reason = ": a shift that all share changes few comparisons." if closing_answer(figures) == 1 else "."
    return (
        f"Pictures found their caption in {one.predicted:.0f} % before and {one.measured:.0f} % after, captions their picture in "
        f"{other.predicted:.0f} % and {other.measured:.0f} %{reason}"
    )


def swapped_answer(figures: Figures) -> int:
    share = measured(figures, "right caption wins, colours swapped")
    return 0 if share < 60 else 1 if share < 90 else 2


def explain_swapped(figures: Figures) -> str:
    swapped, new = (measured(figures, f"right caption wins, {kind}") for kind in ("colours swapped", "new colour"))
    bag = measured(figures, "maximum only, colours swapped")
    return f"{swapped:.0f} %, against {new:.0f} % where a colour is new. Without the map of places it would be {bag:.0f} %: a bag of features has to guess."


QUESTIONS = (
    Prediction(
        "A red circle has its best caption. Of 1,000 captions of other pictures, how many have a larger cosine with it?",
        "match",
        {},
        ("fewer than 20", "20 to 200", "more than 200"),
        beaten_answer,
        explain_beaten,
    ),
    Prediction(
        "A red circle of radius 5 is stuck into a corner, far from the larger object (radius 6 to 11). How many objects are still named right among 48?",
        "see",
        {"sticker": "shape", "radius": 5.0},
        ("at least 90 %", "50 to 90 %", "fewer than half"),
        sticker_answer,
        explain_sticker,
    ),
    Prediction(
        "The clouds of pictures and captions lie apart. How far apart were they before the first step of training?",
        "gap",
        {},
        ("less: training pushed them apart", "about as far", "farther: training drew them together"),
        born_answer,
        explain_born,
    ),
    Prediction(
        "All pictures slide until the gap is closed. What does that do to finding one another?",
        "gap",
        {"pairs": 192},
        ("more find theirs", "next to nothing", "fewer find theirs"),
        closing_answer,
        explain_closing,
    ),
    Prediction(
        "'A red circle left of a blue square' against 'a blue circle left of a red square'. How often does the right one win?",
        "binding",
        {},
        ("below 60 %, near chance", "60 to 90 %", "above 90 %"),
        swapped_answer,
        explain_swapped,
    ),
)

PREDICTIONS = TRAIN + QUESTIONS
