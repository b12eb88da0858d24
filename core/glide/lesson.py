"""The lesson of the tab GLIDE."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run
from core.glide.denoise import DDIM_CHANGE, DDPM_CHANGE, WORDS_AT
from core.glide.guidance import CLIP_JUDGE, DIVERSITY, FREE_JUDGE, UNGUIDED_JUDGE
from core.glide.inpaint import ASKED_FOR, CHANGED, RIM
from core.glide.noise import BOUND, COSINE_SPREAD, HALF_NAMED, SPREAD
from core.glide.train import FIRST_LOSS, NEW_RIGHT, SEEN_RIGHT, SURE_AT

LINEAR, COSINE, LEARNED = (HALF_NAMED.of(name=name) for name in ("linear", "cosine", "learned"))


# --- denoise ----------------------------------------------------------------------------------------------------------


def denoise_judge(run: Outcome) -> str:
    verdicts = run.last.verdicts
    if not verdicts:
        return ""
    return (
        f"With 2 steps the classifier already sees “{verdicts[0][0]}” (DDIM), with 32 steps “{verdicts[-1][0]}”; the"
        f" prompt was “{run.config.prompt}”."
    )


def denoise_change(run: Outcome) -> str:
    ddim, ddpm = run[DDIM_CHANGE], run[DDPM_CHANGE]
    verdict = (
        "DDIM settles on one picture, DDPM goes elsewhere with its fresh noise"
        if ddpm.measured > 1.4 * ddim.measured
        else "both change alike"
    )
    return (
        f"Going from 16 to 32 steps changed DDIM's pictures by {ddim.measured:.3f} and DDPM's by {ddpm.measured:.3f}"
        f" (0 to 1, root mean square): {verdict}."
    )


def denoise_words(run: Outcome) -> str:
    at, steps = run[WORDS_AT].measured, run.config.steps
    if steps < 4:
        return ""
    when = "early, while x still looks like noise" if at <= steps / 4 else "late" if at > 3 * steps / 4 else "midway"
    return f"The prompt changes the predicted picture most at step {at:.0f} of {steps}: {when}."


# --- guidance ---------------------------------------------------------------------------------------------------------


def fooled(clip_says: float, judge_says: float) -> str:
    """The word for how far CLIP and the judge are apart."""
    if clip_says - judge_says > 10:
        return "so CLIP was fooled in many of them"
    return "so CLIP was not fooled here" if judge_says > 50 else "so neither finds what was asked"


def guidance_fooled(run: Outcome) -> str:
    clip = run[CLIP_JUDGE]
    return (
        f"Guided by CLIP, CLIP itself recognizes the prompt in {clip.expected:.0f} % of the pictures and the"
        f" independent classifier in {clip.measured:.0f} %, {fooled(clip.expected, clip.measured)}."
    )


def guidance_free(run: Outcome) -> str:
    free, none = run[FREE_JUDGE], run[UNGUIDED_JUDGE]
    return (
        f"With classifier-free guidance the classifier agrees in {free.measured:.0f} % (CLIP: {free.expected:.0f} %);"
        f" without words in {none.measured:.0f} %, where a guess gets {none.expected:.0f} %."
    )


def guidance_diversity(run: Outcome) -> str:
    diversity = run[DIVERSITY]
    change = 100 * (diversity.ratio - 1)
    way = "more alike than" if change < -5 else "more different than" if change > 5 else "about as different as"
    return f"At the largest scale the pictures are {way} at scale 1 ({change:+.0f} % distance between them)."


# --- inpaint ----------------------------------------------------------------------------------------------------------


def inpaint_rim(run: Outcome) -> str:
    rim = run[RIM]
    verdict = "it fits its surroundings" if rim.ratio < 0.6 else "it hardly fits better than a blind filling"
    return (
        f"The jump across the rim of the hole is {rim.measured:.3f}, and {rim.expected:.3f} where the hole was filled"
        f" blindly: {verdict}."
    )


def inpaint_asked(run: Outcome) -> str:
    asked = run[ASKED_FOR]
    cost = (
        "so the surroundings win over the words in some"
        if asked.difference < -10
        else "so looking at the surroundings costs nothing"
    )
    return (
        f"The classifier sees what was asked in {asked.measured:.0f} % of the fillings, blindly filled in"
        f" {asked.expected:.0f} %, {cost}."
    )


def inpaint_changed(run: Outcome) -> str:
    changed = run[CHANGED].measured
    return "" if changed else "Outside the hole 0 pixels changed: they are copied."


# --- train ------------------------------------------------------------------------------------------------------------


def train_pairs(run: Outcome) -> str:
    new, seen = run[NEW_RIGHT].measured, run[SEEN_RIGHT].measured
    if seen < 30:
        return (
            f"After {run.config.steps} steps the classifier agrees with {seen:.0f} % of its samples: it has hardly"
            " learned to follow the words."
        )
    verdict = (
        "it learned color and shape separately" if new > 0.7 * seen else "pairs it was never shown are harder for it"
    )
    return (
        f"The classifier agrees with {seen:.0f} % of the samples of pairs it was shown and with {new:.0f} % of pairs it"
        f" was never shown: {verdict}."
    )


def train_sure(run: Outcome) -> str:
    return f"At step {run[SURE_AT].measured:.0f} nine of ten samples of both kinds were right for the first time."


def train_first(run: Outcome) -> str:
    return (
        f"The first loss, {run[FIRST_LOSS].measured:.2f}, is what answering 0 costs ({run[FIRST_LOSS].expected:.2f}): a"
        " fresh network answers 0, because its last layer starts at zero."
    )


# --- noise ------------------------------------------------------------------------------------------------------------


def noise_half(run: Outcome) -> str:
    linear, cosine = run[LINEAR].measured, run[COSINE].measured
    first = "earlier" if linear < 0.95 * cosine else "later" if linear > 1.05 * cosine else "at the same step"
    return (
        f"With the linear schedule half of the pictures can still be named at step {linear:.0f}, with the cosine one at"
        f" step {cosine:.0f}: linear hides the picture {first}."
    )


def noise_spread(run: Outcome) -> str:
    learned, cosine = run[SPREAD], run[COSINE_SPREAD].measured
    verdict = "lower" if learned.measured < 0.9 * cosine else "not lower"
    return (
        f"With the learned schedule the estimate of the loss spreads by {learned.measured:.2f} of its mean, {verdict}"
        f" than with the cosine one ({cosine:.2f}); the least there is would be {learned.expected:.2f}."
    )


def noise_bound(run: Outcome) -> str:
    bound = run[BOUND]
    agree = "the same" if abs(bound.ratio - 1) < 0.05 else "not the same"
    return (
        f"Its bound, {bound.measured:.2f} bits per number, is {agree} as along the cosine path ({bound.expected:.2f}):"
        " the bound depends on the end points, not on the path."
        if agree == "the same"
        else f"Its bound is {bound.measured:.2f} bits per number and {bound.expected:.2f} along the cosine path."
    )


LESSON = Lesson(
    question="How can noise turn into the picture that words describe?",
    idea=(
        "A diffusion model learns one thing: to see the picture in a noisy picture, given its caption. To draw, it"
        " starts with pure noise, guesses the picture in it, goes a small step there and asks again. Guidance makes the"
        " words count for more: the model is asked with and without the words, and goes further in the direction of"
        " the difference."
    ),
    formula=(
        r"x_t = \alpha_t\,x_0 + \sigma_t\,\varepsilon, \qquad"
        r" \hat x_0 = x(\varnothing) + w\,\big(x(c) - x(\varnothing)\big)"
    ),
    experiments=(
        Card(
            "denoise",
            "Watch a picture come out of noise",
            "start",
            4,
            "two samplers, step by step",
            (denoise_judge, denoise_change, denoise_words),
            ("foundations.diffusion", "glide.model", "glide.unet", "foundations.judge"),
        ),
        Card(
            "guidance",
            "Make the words count for more",
            "deeper",
            10,
            "classifier-free guidance against CLIP guidance",
            (guidance_fooled, guidance_free, guidance_diversity),
            ("foundations.diffusion", "foundations.small_clip", "foundations.judge", "glide.denoise"),
        ),
        Card(
            "inpaint",
            "Paint into a hole",
            "start",
            3,
            "your picture, a brush and a prompt",
            (inpaint_rim, inpaint_asked, inpaint_changed),
            ("foundations.diffusion", "glide.model", "glide.upsampler"),
        ),
        Card(
            "train",
            "Train a denoiser from nothing",
            "deeper",
            117,
            "drawings with captions; samples on the way",
            (train_pairs, train_sure, train_first),
            ("glide.unet", "glide.model", "glide.muon", "foundations.small_diffusion"),
        ),
        Card(
            "noise",
            "Compare schedules of noise",
            "expert",
            8,
            "linear, cosine, and one that is learned",
            (noise_half, noise_spread, noise_bound),
            ("glide.schedule", "foundations.diffusion", "foundations.judge"),
        ),
    ),
    steps=(
        Look(
            "Noise goes in on the left with the words. The network answers with the picture it sees; a sampler goes a"
            " step there.",
            "diagram",
        ),
        Run("Watch the predicted picture: first a blurred mean, then color and place, last the edges.", "denoise", {}),
        Ask(
            "The steps are doubled from 16 to 32, with the same first noise. Whose pictures stay more alike?",
            "denoise",
            {"steps": 5},
            ("DDIM's, without fresh noise", "both alike", "DDPM's, with fresh noise"),
            lambda run: band(run[DDIM_CHANGE].measured / max(run[DDPM_CHANGE].measured, 1e-9), 0.7, 1.4),
            lambda run: (
                f"DDIM's pictures changed by {run[DDIM_CHANGE].measured:.3f} (root mean square), DDPM's by"
                f" {run[DDPM_CHANGE].measured:.3f}, which draws new noise at each step."
            ),
        ),
        Look(
            "Paint a hole over a part of the picture with the brush, and type what belongs there.", "brush", "inpaint"
        ),
        Ask(
            "A hole is filled twice from the same noise: once in view of its surroundings, once blindly. How much"
            " smaller is the jump across the rim in view of them?",
            "inpaint",
            {},
            ("less than half as large", "half to nine tenths", "hardly smaller"),
            lambda run: band(run[RIM].ratio, 0.5, 0.9),
            lambda run: f"It is {run[RIM].measured:.3f}, and {run[RIM].expected:.3f} where it was filled blindly.",
        ),
        Ask(
            "CLIP steers the picture until CLIP itself recognizes the prompt. Does an independent classifier agree?",
            "guidance",
            {},
            ("it sees the prompt less often", "both agree", "it sees it more often"),
            lambda run: band(run[CLIP_JUDGE].difference, -10, 10),
            lambda run: (
                f"With CLIP guidance CLIP sees what was asked in {run[CLIP_JUDGE].expected:.0f} %, the classifier in"
                f" {run[CLIP_JUDGE].measured:.0f} %; with classifier-free guidance {run[FREE_JUDGE].expected:.0f} and"
                f" {run[FREE_JUDGE].measured:.0f} %."
            ),
        ),
        Ask(
            "The guidance scale grows from 1 to 8. Do the pictures become more alike?",
            "guidance",
            {"scale": 2.0},
            ("much more alike, by over a third", "somewhat, or hardly", "more different"),
            lambda run: band(run[DIVERSITY].ratio, 0.66, 1.05),
            lambda run: (
                f"Their distance in the classifier's features is {run[DIVERSITY].measured:.1f}, and"
                f" {run[DIVERSITY].expected:.1f} at scale 1. Reading the words at all makes them alike; a larger scale"
                " adds little."
                if run[DIVERSITY].ratio > 0.66
                else f"Their distance in the classifier's features is {run[DIVERSITY].measured:.1f}, and"
                f" {run[DIVERSITY].expected:.1f} at scale 1."
            ),
        ),
        Ask(
            "With which schedule of noise can the classifier no longer name the picture first?",
            "noise",
            {"steps": 20},
            ("linear", "both at the same step", "cosine"),
            lambda run: band(run[LINEAR].measured / run[COSINE].measured, 0.9, 1.1),
            lambda run: (
                f"Half of the pictures are still named at step {run[LINEAR].measured:.0f} with the linear schedule, at"
                f" {run[COSINE].measured:.0f} with the cosine one: the same noise, only earlier."
                if run[LINEAR].measured < run[COSINE].measured
                else f"Half of the pictures are still named at step {run[LINEAR].measured:.0f} with the linear schedule"
                f" and at {run[COSINE].measured:.0f} with the cosine one."
            ),
        ),
    ),
)
