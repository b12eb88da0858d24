"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction
from core.stable_diffusion.predictions_words import IMG2IMG, WORDS

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


# --- latents ----------------------------------------------------------------------------------------------------------


def kept_answer(figures: Figures) -> int:
    share = measured(figures, "named right after the round trip")
    return 0 if share < 50 else 1 if share < 90 else 2


def explain_kept(figures: Figures) -> str:
    figure = figures["named right after the round trip"]
    return f"{figure.measured:.0f} % after the round trip, {figure.predicted:.0f} % before it: what tells pictures of this world apart fits into few numbers."


def noise_answer(figures: Figures) -> int:
    lost = measured(figures, "PSNR of one object") - measured(figures, "PSNR of pure noise")
    return 0 if abs(lost) < 3 else 1 if lost > 0 else 2


def explain_noise(figures: Figures) -> str:
    drawing, noise = figures["PSNR of one object"], figures["PSNR of pure noise"]
    return (
        f"{noise.measured:.1f} dB for noise, {drawing.measured:.1f} dB for a drawing: nothing in noise can be left out, and no linear code "
        f"of that size gets beyond {noise.predicted:.1f} dB."
    )


# --- denoise, schedulers ----------------------------------------------------------------------------------------------


def settled_answer(figures: Figures) -> int:
    first = measured(figures, "the judge is right from step")
    return 0 if first <= 8 else 1 if first <= 17 else 2 if first <= 25 else 3


def explain_settled(figures: Figures) -> str:
    first = measured(figures, "the judge is right from step")
    if first > 25:
        return "The judge does not see it in the finished picture: this noise and this model failed."
    return (
        f"From step {first:.0f} on, with {measured(figures, 'probability of what was asked for'):.0f} % at the end: colour and layout are settled before edges."
    )


def euler_answer(figures: Figures) -> int:
    difference = measured(figures, "Euler against DDIM, 4 steps")
    return 0 if difference < 1e-3 else 1 if difference < 0.3 else 2


def explain_euler(figures: Figures) -> str:
    difference = measured(figures, "Euler against DDIM, 4 steps")
    return f"Their latents differ by at most {difference:.0e}: it is the same tangent in other variables."


def fresh_answer(figures: Figures) -> int:
    figure = figures["DDPM's distance, most steps"]
    ratio = (figure.measured or 0.0) / max(figure.predicted or 0.0, 1e-9)
    return 0 if ratio < 0.67 else 1 if ratio < 1.5 else 2


def explain_fresh(figures: Figures) -> str:
    figure = figures["DDPM's distance, most steps"]
    return f"{figure.measured:.1f} % of a pixel for DDPM, {figure.predicted:.1f} % for DDIM: DDPM draws new noise at each step, so it ends in another picture."


# --- terminal_snr -----------------------------------------------------------------------------------------------------


def read_answer(figures: Figures) -> int:
    share = measured(figures, "grounds read from the last step")
    return 0 if share < 53 else 1 if share < 90 else 2


def explain_read(figures: Figures) -> str:
    figure = figures["grounds read from the last step"]
    return f"{figure.measured:.0f} %, and {figure.predicted:.0f} % by the formula: 6.8 % of 256 numbers that agree are more than 6.8 % of one."


def follows_answer(figures: Figures) -> int:
    black, white = (measured(figures, f"white grounds, 4 x {name} in the noise") for name in ("black", "white"))
    return 0 if white - black > 33 else 1 if white - black >= -33 else 2


def explain_follows(figures: Figures) -> str:
    black, white = (figures[f"white grounds, 4 x {name} in the noise"] for name in ("black", "white"))
    return (
        f"{black.measured:.0f} % of the grounds are white with a trace of black, {white.measured:.0f} % with one of white "
        f"(ideal: {black.predicted:.0f} % and {white.predicted:.0f} %)."
    )


OWN = (
    Prediction(
        "3,072 numbers become 256 and a picture again. How many pictures that it never saw does the judge still name right?",
        "latents",
        {"scenes": 96},
        ("fewer than 50 %", "50 to 90 %", "at least 90 %"),
        kept_answer,
        explain_kept,
    ),
    Prediction(
        "Pure noise goes through the same autoencoder. How well does it come back, next to a drawing?",
        "latents",
        {"drawn": "noise"},
        ("about as well, within 3 dB", "worse", "better"),
        noise_answer,
        explain_noise,
    ),
    Prediction(
        "25 steps from noise to a red circle. From which step on does the judge see it in the predicted picture?",
        "denoise",
        {"prompt": "a red circle", "steps": 25, "scale": 3.0},
        ("1 to 8", "9 to 17", "18 to 25", "never"),
        settled_answer,
        explain_settled,
    ),
    Prediction(
        "DDIM and Euler go from the same noise in 4 steps. How far apart do they end?",
        "schedulers",
        {},
        ("not at all, up to rounding", "a little", "far apart"),
        euler_answer,
        explain_euler,
    ),
    Prediction(
        "25 steps each. Compared with DDIM's, how far from the converged picture does DDPM end?",
        "schedulers",
        {"steps": 25},
        ("nearer", "about as far", "farther"),
        fresh_answer,
        explain_fresh,
    ),
    Prediction(
        "At the last step of training 6.8 % of a picture is left under the noise. How often can a sum of its numbers tell a black from a white ground?",
        "terminal_snr",
        {},
        ("50 %, a coin", "more often, but below 90 %", "at least 90 %"),
        read_answer,
        explain_read,
    ),
    Prediction(
        "A trace of an all white picture, 4 x 0.0683 of it, is added to the noise, or one of an all black one. What do the grounds do?",
        "terminal_snr",
        {},
        ("they follow the trace", "nothing much", "they do the opposite"),
        follows_answer,
        explain_follows,
    ),
)

PREDICTIONS = OWN + WORDS + IMG2IMG
