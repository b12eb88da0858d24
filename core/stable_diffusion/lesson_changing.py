"""What `words`, `img2img` and `terminal_snr` say after a run, for the lesson of the tab Stable Diffusion."""

from core.foundations.figures import Missing, Outcome
from core.stable_diffusion.img2img import STAYS, TRACE, WINS_AT
from core.stable_diffusion.terminal_snr import BRIGHTER, LEFT, READ, RESCALED_WHITE, white_of
from core.stable_diffusion.words import END, NEW_SEEN, OUTSIDE, heat_of, of_way

READ_FROM = ("red", "circle", END)  # in the order of the question's answers
BOTH_OUTSIDE, WORDS_OUTSIDE = of_way(OUTSIDE, "both"), of_way(OUTSIDE, "words")
BLACK, PURE, BRIGHT = (white_of(level) for level in (-4.0, 0.0, 4.0))


# --- words ------------------------------------------------------------------------------------------------------------


def words_heat(run: Outcome) -> str:
    end = run[heat_of(END)]
    verdict = "more than its part of the area" if end.difference > 5 else "no more than its part of the area"
    return (
        f"The object fills {end.expected:.0f} % of the picture, and {end.measured:.0f} % of the attention to the end of"
        f" the prompt lies on it: {verdict}. Attention shows where a token is read, not what it caused."
    )


def words_kept(run: Outcome) -> str:
    both = run[BOTH_OUTSIDE]
    verdict = "keep the rest of the picture" if both.measured < 0.67 * both.expected else "hardly keep the rest"
    return (
        f"With one word changed {both.expected:.0f} % of the pixels outside the object change, and"
        f" {both.measured:.0f} % with the first picture's attention maps: the maps {verdict}."
    )


def words_new(run: Outcome) -> str:
    new = run[of_way(NEW_SEEN, "both")]
    if new.expected < 20:
        return "Here the model hardly draws the new object at all, with the maps or without them."
    verdict = "the new word still gets its way" if new.measured >= 60 else "the new word often loses"
    return (
        f"The classifier sees the new object in {new.measured:.0f} % of these pictures, without the maps in"
        f" {new.expected:.0f} %: {verdict}."
    )


def most_read(run: Outcome) -> int:
    """Which of the three tokens has most of its heat on the object."""
    shares = [run[heat_of(word)].measured for word in READ_FROM]
    return shares.index(max(shares))


def read_because(run: Outcome) -> str:
    red, circle, end = (run[heat_of(word)] for word in READ_FROM)
    why = ": only the state of the end was trained to sum up the whole prompt." if most_read(run) == 2 else "."
    return (
        f"On the object, {end.expected:.0f} % of the area, lie {red.measured:.0f} % of the heat of 'red',"
        f" {circle.measured:.0f} % of 'circle' and {end.measured:.0f} % of the end{why}"
    )


# --- img2img ----------------------------------------------------------------------------------------------------------


def wins_at(run: Outcome) -> float | None:
    """The smallest strength at which the prompt wins; None where it never does."""
    if WINS_AT not in run.figures:
        raise Missing(WINS_AT.name)
    return run.figures[WINS_AT].measured


def wins_right(run: Outcome) -> int:
    """0: up to 0.4, 1: up to 0.6, 2: later, 3: never."""
    strength = wins_at(run)
    return 3 if strength is None else 0 if strength <= 0.4 else 1 if strength <= 0.6 else 2


def img2img_wins(run: Outcome) -> str:
    strength = wins_at(run)
    wins = (
        "At no strength does the classifier see the prompt's object in half of the pictures"
        if strength is None
        else f"From strength {strength:g} on the classifier sees the prompt's object in half of the pictures"
    )
    stays = run[STAYS]
    old = "is still there" if stays.measured > 15 else "is gone already"
    return (
        f"{wins}; at the smallest strength the old picture {old} ({stays.measured:.0f} dB, the autoencoder's copy has"
        f" {stays.expected:.0f})."
    )


def img2img_trace(run: Outcome) -> str:
    trace = run[TRACE].measured
    verdict = "nothing of the picture is left" if trace < 1e-3 else "a trace of the picture is left"
    return f"At strength 1 the pictures differ by {trace:.2f} (of 1) from those drawn from the noise alone: {verdict}."


# --- terminal_snr -----------------------------------------------------------------------------------------------------


def terminal_left(run: Outcome) -> str:
    read = run[READ]
    verdict = "more than a coin's 50 %" if read.measured > 55 else "no more than a coin's 50 %"
    return (
        f"At the last step {100 * run[LEFT].measured:.1f} % of the picture is left under the noise. All numbers"
        f" together tell a black from a white background in {read.measured:.0f} %, {verdict} (formula:"
        f" {read.expected:.0f} %)."
    )


def terminal_follows(run: Outcome) -> str:
    if BLACK not in run:
        return terminal_brightness(run)
    black, white = run[BLACK].measured, run[BRIGHT].measured
    verdict = (
        "the backgrounds follow the trace"
        if white - black > 33
        else "they do not follow it"
        if white - black > -33
        else "they do the opposite"
    )
    return (
        f"With a trace of black in the noise {black:.0f} % of the backgrounds come out white, with one of white"
        f" {white:.0f} %, and {run[PURE].measured:.0f} % with pure noise: {verdict}."
    )


def terminal_brightness(run: Outcome) -> str:
    brighter = run[BRIGHTER]
    verdict = "brighter" if brighter.difference > 0.02 else "no brighter"
    return (
        f"With a trace of white the background is {verdict} than with one of black: {brighter.measured:.2f} against"
        f" {brighter.expected:.2f}."
    )


def terminal_fix(run: Outcome) -> str:
    rescaled = run[RESCALED_WHITE]
    if abs(rescaled.difference) > 25:
        return ""
    return (
        f"The rescaled schedule alone changes little here ({rescaled.measured:.0f} against {rescaled.expected:.0f} %"
        " white): the fix needs a network trained with it."
    )
