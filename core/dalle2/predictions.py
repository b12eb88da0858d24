"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def stranger_answer(figures: Figures) -> int:
    text, prior = (measured(figures, f"nearest real picture, {way}") for way in ("no prior", "diffusion prior"))
    return 0 if text > prior + 0.02 else 1 if text > prior - 0.02 else 2


def explain_stranger(figures: Figures) -> str:
    text, prior = (figures[f"nearest real picture, {way}"] for way in ("no prior", "diffusion prior"))
    return (
        f"The caption's cosine with its nearest picture is {text.measured:.2f}, an imagined embedding's {prior.measured:.2f}; "
        f"a real picture's with the nearest other one is {prior.predicted:.2f}."
    )


def without_answer(figures: Figures) -> int:
    share = measured(figures, "pictures as asked, no prior")
    return 0 if share > 75 else 1 if share > 25 else 2


def explain_without(figures: Figures) -> str:
    none, prior = (figures[f"pictures as asked, {way}"].measured for way in ("no prior", "diffusion prior"))
    again = measured(figures, "picture encoded again, no prior")
    return (
        f"Right are {none:.0f} % of the pictures without a prior and {prior:.0f} % with the diffusion prior; encoded again, "
        f"a picture without a prior has a cosine of {again:.2f} with what it was decoded from."
    )


def spread_answer(figures: Figures) -> int:
    diffusion, autoregressive = (measured(figures, f"two embeddings for one caption, {way} prior") for way in ("diffusion", "autoregressive"))
    return 0 if diffusion < autoregressive - 0.02 else 1 if diffusion <= autoregressive + 0.02 else 2


def explain_spread(figures: Figures) -> str:
    diffusion, autoregressive = (figures[f"two embeddings for one caption, {way} prior"] for way in ("diffusion", "autoregressive"))
    return (
        f"Two that the diffusion prior imagines have a cosine of {diffusion.measured:.2f}, two of the autoregressive prior {autoregressive.measured:.2f}, "
        f"two real pictures that fit the caption {diffusion.predicted:.2f}."
    )


def needed_answer(figures: Figures) -> int:
    share = measured(figures, "components for 99% of the variance")
    return 0 if share < 20 else 1 if share < 70 else 2


def explain_needed(figures: Figures) -> str:
    figure = figures["components for 99% of the variance"]
    return f"{figure.measured:.0f} % of the 64 components; in DALL·E 2, {figure.predicted:.0f} % of 1,024 hold nearly all."


def half_way_answer(figures: Figures) -> int:
    length = measured(figures, "length of the straight line's middle")
    return 0 if length < 0.35 else 1 if length < 0.97 else 2


def explain_half_way(figures: Figures) -> str:
    figure, angle = figures["length of the straight line's middle"], figures["half-way on the arc, from the first"]
    return f"It is {figure.measured:.2f} long, the cosine of {angle.predicted:.0f} degrees, which is half of the angle; on the arc every point has length 1."


PREDICTIONS = (
    Prediction(
        "The caption's embedding against one that the prior imagines: which is nearer to a real picture's?",
        "chain",
        {"prompt": "a yellow triangle"},
        ("the caption's: it is the truth", "about as near", "the imagined one"),
        stranger_answer,
        explain_stranger,
    ),
    Prediction(
        "Without a prior, 'a yellow triangle' goes into the decoder as CLIP's text tower tells it. How many of the pictures are yellow triangles?",
        "chain",
        {"prompt": "a yellow triangle"},
        ("nearly all: the words are clear", "about half", "hardly any"),
        without_answer,
        explain_without,
    ),
    Prediction(
        "Each prior imagines 32 embeddings for 'a yellow triangle'. Whose differ more among themselves?",
        "chain",
        {"prompt": "a yellow triangle", "prior_steps": 20, "prior_scale": 1.0},
        ("the diffusion prior's", "both the same: one caption, one answer", "the autoregressive prior's"),
        spread_answer,
        explain_spread,
    ),
    Prediction(
        "An embedding has 64 numbers. How many directions hold 99 % of what varies between pictures?",
        "variations",
        {},
        ("fewer than 13", "13 to 44", "nearly all: more than 44"),
        needed_answer,
        explain_needed,
    ),
    Prediction(
        "Two unit vectors, a red circle's and a blue star's. How long is their plain mean, compared to them?",
        "blend",
        {"colour_a": "red", "shape_a": "circle", "colour_b": "blue", "shape_b": "star"},
        ("less than a third", "shorter, but more than a third", "as long"),
        half_way_answer,
        explain_half_way,
    ),
)
