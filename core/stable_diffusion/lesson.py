"""The lesson of the tab Stable Diffusion."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.stable_diffusion.denoise import OFF, PROBABILITY, RIGHT_FROM, WORDS_AT
from core.stable_diffusion.img2img import TRACE
from core.stable_diffusion.latents import COMPRESSION, NAMED, NOISE, ONE_OBJECT, PSNR
from core.stable_diffusion.lesson_changing import (
    BLACK,
    BOTH_OUTSIDE,
    BRIGHT,
    WORDS_OUTSIDE,
    img2img_trace,
    img2img_wins,
    most_read,
    read_because,
    terminal_fix,
    terminal_follows,
    terminal_left,
    wins_right,
    words_heat,
    words_kept,
    words_new,
)
from core.stable_diffusion.schedulers import DDPM_AWAY, DEFAULTS_RIGHT, EULER, FEWEST
from core.stable_diffusion.terminal_snr import READ

FEWEST_DDIM, FEWEST_SECOND = (FEWEST.of(solver=solver) for solver in ("DDIM", "DPM-Solver++"))
SENTENCE = {"prompt": "a red circle on white", "changed": "a green circle on white"}


def latents_trip(run: Outcome) -> str:
    psnr = run[PSNR]
    verdict = "better than" if psnr.difference > 0.5 else "worse than" if psnr.difference < -0.5 else "as well as"
    return (
        f"With {run[COMPRESSION].measured:.0f} times fewer numbers the picture comes back with {psnr.measured:.1f} dB,"
        f" {verdict} by {psnr.result.source} ({psnr.expected:.1f} dB)."
    )


def latents_named(run: Outcome) -> str:
    named = run[NAMED]
    verdict = "what tells these pictures apart has survived" if named.measured > 90 else "some of it was lost"
    return f"The classifier still names {named.measured:.0f} % of unseen pictures right: {verdict}."


def latents_noise(run: Outcome) -> str:
    noise, drawing = run[NOISE].measured, run[ONE_OBJECT].measured
    verdict = "nothing in noise can be left out" if noise < drawing - 3 else "noise comes back as well as a drawing"
    return f"Pure noise comes back with {noise:.1f} dB and a drawing with {drawing:.1f} dB: {verdict}."


def denoise_right(run: Outcome) -> str:
    first, steps = run[RIGHT_FROM].measured, run.config.steps
    if first > steps:
        return (
            "The classifier does not see what was asked for in the finished picture: this noise and this model failed."
        )
    when = "early" if first <= steps / 3 else "late" if first > 2 * steps / 3 else "midway"
    return (
        f"The classifier sees what was asked for from step {first:.0f} of {steps} on, {when}, with"
        f" {run[PROBABILITY].measured:.0f} % at the end."
    )


def denoise_words(run: Outcome) -> str:
    at, steps = run[WORDS_AT].measured, run.config.steps
    when = "while nearly all is still noise" if at <= max(1, steps / 4) else "when a picture can be seen"
    return f"The words change the predicted picture most at step {at:.0f} of {steps}, {when}."


def denoise_same(run: Outcome) -> str:
    off = run[OFF].measured
    verdict = "the loop written out here is theirs" if off < 1e-3 else "the two are not the same"
    return f"No latent number differs by more than {off:.0e} from diffusers' own scheduler: {verdict}."


def schedulers_fewest(run: Outcome) -> str:
    ddim, second = run[FEWEST_DDIM].measured, run[FEWEST_SECOND].measured
    return (
        f"DDIM is as right as at the end with {ddim:.0f} step{'s' if ddim > 1 else ''}, DPM-Solver++ with"
        f" {second:.0f}: more steps only polish these small pictures."
        if max(ddim, second) < 8
        else f"DDIM needs {ddim:.0f} steps to be as right as at the end, DPM-Solver++ {second:.0f}."
    )


def schedulers_fresh(run: Outcome) -> str:
    away = run[DDPM_AWAY]
    verdict = "it ends in another picture" if away.ratio > 1.5 else "it ends about as near"
    return (
        f"DDPM, which draws new noise at each step, ends {away.measured:.1f} % of a pixel from the converged picture,"
        f" DDIM {away.expected:.1f} %: {verdict}."
    )


def schedulers_defaults(run: Outcome) -> str:
    right = run[DEFAULTS_RIGHT]
    verdict = "cost pictures" if right.difference < -10 else "cost little here"
    return (
        f"diffusers' default settings instead of the model's own {verdict}: {right.measured:.0f} % right against"
        f" {right.expected:.0f} %."
    )


LESSON = Lesson(
    question="How does Stable Diffusion draw a picture?",
    idea=(
        "A picture has many numbers, and most of them repeat what their neighbors say. An autoencoder squeezes it into"
        " a small grid of numbers, the latents, and can read it back. Diffusion happens on that grid: a U-Net sees"
        " noisy latents and the words of the prompt, and predicts the noise in them. A scheduler takes it away, step"
        " by step. At the end the decoder shows the picture."
    ),
    formula=(
        r"z = \mathcal{E}(x), \qquad z_t = \sqrt{\bar\alpha_t}\,z + \sqrt{1-\bar\alpha_t}\,\varepsilon, \qquad"
        r" \hat x = \mathcal{D}(\hat z_0)"
    ),
    experiments=(
        Card(
            "latents",
            "Squeeze a picture and read it back",
            "start",
            12,
            "an autoencoder, and your picture",
            (latents_trip, latents_named, latents_noise),
            ("stable_diffusion.autoencoder", "stable_diffusion.model", "foundations.judge"),
        ),
        Card(
            "denoise",
            "Draw a picture step by step",
            "start",
            10,
            "every number of a step of Stable Diffusion",
            (denoise_right, denoise_words, denoise_same),
            ("foundations.diffusion", "stable_diffusion.model", "foundations.judge"),
        ),
        Card(
            "schedulers",
            "Race four solvers",
            "deeper",
            18,
            "DDPM, DDIM, Euler and DPM-Solver++",
            (schedulers_fewest, schedulers_fresh, schedulers_defaults),
            ("foundations.diffusion", "stable_diffusion.denoise", "foundations.judge"),
        ),
        Card(
            "words",
            "Change one word of a prompt",
            "deeper",
            13,
            "attention maps, kept or not",
            (words_heat, words_kept, words_new),
            ("stable_diffusion.attention", "foundations.diffusion", "foundations.judge"),
        ),
        Card(
            "img2img",
            "Redraw your own picture",
            "start",
            11,
            "from a picture instead of noise",
            (img2img_wins, img2img_trace),
            ("foundations.diffusion", "stable_diffusion.model", "foundations.judge"),
        ),
        Card(
            "terminal_snr",
            "Find the picture left in the noise",
            "expert",
            13,
            "the flaw in the last step of the schedule",
            (terminal_left, terminal_follows, terminal_fix),
            ("foundations.diffusion", "stable_diffusion.model"),
        ),
    ),
    steps=(
        Look(
            "Left: the encoder squeezes a picture into latents. In the middle the U-Net takes noise out of latents,"
            " guided by the words. Right: the decoder shows the result.",
            "diagram",
        ),
        Ask(
            "3,072 numbers become 256 and a picture again. How many unseen pictures does the classifier still name"
            " right?",
            "latents",
            {"scenes": 96},
            ("fewer than 50 %", "50 to 90 %", "at least 90 %"),
            lambda run: band(run[NAMED], 50, 90),
            lambda run: (
                f"{run[NAMED].measured:.0f} % after the round trip, {run[NAMED].expected:.0f} % before it; pure noise"
                f" comes back with {run[NOISE].measured:.1f} dB, a drawing with {run[ONE_OBJECT].measured:.1f} dB."
            ),
        ),
        Ask(
            "25 steps from noise to a red circle. From which step on does the classifier see it in the predicted"
            " picture?",
            "denoise",
            {"prompt": "a red circle", "steps": 25, "scale": 3.0},
            ("1 to 8", "9 to 17", "18 to 25", "never"),
            lambda run: band(run[RIGHT_FROM], 9, 18, 26),
            lambda run: (
                "The classifier does not see it in the finished picture: this noise and this model failed."
                if run[RIGHT_FROM].measured > 25
                else f"From step {run[RIGHT_FROM].measured:.0f} on, with {run[PROBABILITY].measured:.0f} % at the end;"
                f" the words changed the predicted picture most at step {run[WORDS_AT].measured:.0f}."
            ),
        ),
        Ask(
            "DDIM and Euler go from the same noise in 4 steps. How far apart do they end?",
            "schedulers",
            {"steps": 4},
            ("not at all, up to rounding", "a little", "far apart"),
            lambda run: band(run[EULER], 1e-3, 0.3),
            lambda run: (
                f"Their latents differ by at most {run[EULER].measured:.0e}: Euler takes the same tangent in other"
                " variables."
            ),
        ),
        Ask(
            "A red circle is to become “a green square on white”. From which strength on does the classifier see the"
            " new object in half of the pictures?",
            "img2img",
            {"strength": 0.6, "steps": 25, "prompt": "a green square on white"},
            ("0.4 or less", "0.6", "0.8 or 1", "never"),
            wins_right,
            lambda run: (
                f"{img2img_wins(run)} At strength 1 the pictures still differ by {run[TRACE].measured:.2f} from those"
                " of the noise alone."
            ),
        ),
        Ask(
            "“A red circle on white”: which token is read most on the circle?",
            "words",
            SENTENCE | {"steps": 25},
            ("red", "circle", "the end of the prompt"),
            most_read,
            read_because,
        ),
        Ask(
            "“Red” becomes “green”, the noise stays. What does it change outside the circle to use the first picture's"
            " attention maps, of words and of places?",
            "words",
            SENTENCE | {"rounds": 5},
            ("fewer pixels change than without", "about as many", "more"),
            lambda run: band(run[BOTH_OUTSIDE].measured / max(run[BOTH_OUTSIDE].expected, 1.0), 0.67, 1.5),
            lambda run: (
                f"Outside the object {run[BOTH_OUTSIDE].expected:.0f} % of the pixels change without them,"
                f" {run[WORDS_OUTSIDE].measured:.0f} % with the maps of words, {run[BOTH_OUTSIDE].measured:.0f} % with"
                " both."
            ),
        ),
        Ask(
            "A trace of an all white picture is added to the noise, or one of an all black one. What do the backgrounds"
            " do?",
            "terminal_snr",
            {},
            ("the opposite of the trace", "nothing much", "they follow the trace"),
            lambda run: band(run[BRIGHT].measured - run[BLACK].measured, -33, 33),
            lambda run: (
                f"{run[BLACK].measured:.0f} % are white with a trace of black, {run[BRIGHT].measured:.0f} % with one of"
                f" white (ideal: {run[BLACK].expected:.0f} and {run[BRIGHT].expected:.0f} %). What is left at the last"
                f" step tells black from white in {run[READ].measured:.0f} %."
            ),
        ),
    ),
)
