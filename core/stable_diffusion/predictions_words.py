"""Questions about `words` and `img2img`. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]

SENTENCE = {"prompt": "a red circle on white", "changed": "a green circle on white"}
ON_OBJECT = "heat of '{}' on the object"
READ = ("red", "circle", "end")  # in the order of the answers


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def read_answer(figures: Figures) -> int:
    shares = [measured(figures, ON_OBJECT.format(name)) for name in READ]
    return shares.index(max(shares))


def explain_read(figures: Figures) -> str:
    shares = [measured(figures, ON_OBJECT.format(name)) for name in READ]
    area = figures[ON_OBJECT.format("end")].predicted
    why = ": the text tower reads from left to right, so only the end of the prompt has seen the colour and the shape." if shares[2] == max(shares) else "."
    return (
        f"On the object, {area:.0f} % of the area, lie {shares[0]:.0f} % of the heat of 'red', {shares[1]:.0f} % of 'circle', {shares[2]:.0f} % of the end{why}"
    )


def places_answer(figures: Figures) -> int:
    figure = figures["changed outside, maps of words and of places"]
    before, after = figure.predicted or 0.0, figure.measured or 0.0
    return 0 if after < 0.67 * before else 1 if after <= 1.5 * before + 1 else 2


def explain_places(figures: Figures) -> str:
    both, words = (figures[f"changed outside, maps {way}"] for way in ("of words and of places", "of words"))
    with_maps = f"{words.measured:.0f} % with the maps of words, {both.measured:.0f} % with both"
    return f"Outside the object {both.predicted:.0f} % of the pixels change without them, {with_maps}."


def wins_answer(figures: Figures) -> int:
    figure = figures.get("smallest strength at which the prompt wins")
    strength = None if figure is None else figure.measured
    return 3 if strength is None else 0 if strength <= 0.4 else 1 if strength <= 0.6 else 2


def explain_wins(figures: Figures) -> str:
    figure, stays = figures["smallest strength at which the prompt wins"], measured(figures, "PSNR at strength 0.2")
    wins = "At no strength does the judge see it in half of the pictures" if figure.measured is None else f"From strength {figure.measured:g} on"
    return f"{wins}; at 0.2 the picture is still the old one (PSNR {stays:.0f} dB), since its layout can be seen through the noise."


def trace_answer(figures: Figures) -> int:
    difference = measured(figures, "pixel at strength 1 against noise alone")
    return 0 if difference < 1e-3 else 1 if difference < 0.2 else 2


def explain_trace(figures: Figures) -> str:
    difference = measured(figures, "pixel at strength 1 against noise alone")
    return f"They differ by {difference:.2f} (root mean square, of a range of 1): the schedule's last steps still hold a trace of the picture."


WORDS = (
    Prediction(
        "'a red circle on white': which token's heat lies on the circle most?",
        "words",
        SENTENCE | {"steps": 25},
        ("red", "circle", "the end of the prompt"),
        read_answer,
        explain_read,
    ),
    Prediction(
        "'red' becomes 'green', the noise stays. Outside the circle, what does it change to use the first picture's attention maps, of words and of places?",
        "words",
        SENTENCE | {"rounds": 5},
        ("fewer pixels change than without", "about as many", "more"),
        places_answer,
        explain_places,
    ),
)

IMG2IMG = (
    Prediction(
        "A red circle is to become 'a green square on white'. From which strength on does the judge see the new one in half of the pictures?",
        "img2img",
        {"strength": 0.6, "steps": 25, "prompt": "a green square on white"},
        ("0.4 or less", "0.6", "0.8 or 1", "never"),
        wins_answer,
        explain_wins,
    ),
    Prediction(
        "At strength 1 all steps are done. Is anything left of the picture that it began with?",
        "img2img",
        {"rounds": 6},
        ("no: the same pictures as from the noise alone", "a trace: they differ a little", "much: they are other pictures"),
        trace_answer,
        explain_trace,
    ),
)
