"""Questions to answer before the run. Which answer is right is decided by the run's own figures, every time anew."""

from collections.abc import Mapping

from core.foundations.experiment import Compared, Prediction

Figures = Mapping[str, Compared]


def measured(figures: Figures, name: str) -> float:
    value = figures[name].measured
    return float("nan") if value is None else value


def named(figures: Figures, start: str) -> Compared:
    """The figure whose name begins so; a KeyError where the run has not come that far."""
    found = [figure for name, figure in figures.items() if name.startswith(start)]
    if not found:
        raise KeyError(start)
    return found[0]


# --- noise ------------------------------------------------------------------------------------------------------------


def lost_answer(figures: Figures) -> int:
    linear, cosine = (measured(figures, f"judge half right, {name} schedule") for name in ("linear", "cosine"))
    return 0 if linear < 0.9 * cosine else 1 if linear < 1.1 * cosine else 2


def explain_lost(figures: Figures) -> str:
    linear, cosine = (measured(figures, f"judge half right, {name} schedule") for name in ("linear", "cosine"))
    return f"With the linear schedule after {linear:.0f} steps, with the cosine one after {cosine:.0f}: the level of noise is the same, it only comes earlier."


def spread_answer(figures: Figures) -> int:
    learnt, cosine = (measured(figures, f"spread of the loss estimate, {name}") for name in ("learnt schedule", "cosine"))
    return 0 if learnt < 0.9 * cosine else 1 if learnt < 1.1 * cosine else 2


def explain_spread(figures: Figures) -> str:
    learnt, cosine = figures["spread of the loss estimate, learnt schedule"], figures["spread of the loss estimate, cosine"]
    return f"It spreads by {learnt.measured:.2f} of its mean, the cosine one's by {cosine.measured:.2f}; the least there is would be {learnt.predicted:.2f}."


# --- train, denoise ---------------------------------------------------------------------------------------------------


def first_loss_answer(figures: Figures) -> int:
    figure = figures["first loss"]
    ratio = (figure.measured or 0.0) / max(figure.predicted or 0.0, 1e-9)
    return 0 if ratio < 0.5 else 1 if ratio < 2 else 2


def explain_first_loss(figures: Figures) -> str:
    figure = figures["first loss"]
    return f"It was {figure.measured:.2f}, always answering 0 costs {figure.predicted:.2f}: a fresh network says nothing that helps."


def settles_answer(figures: Figures) -> int:
    ddim, ddpm = (measured(figures, f"{name}: distance from 16 to 32 steps") for name in ("DDIM", "DDPM"))
    return 0 if ddim < 0.7 * ddpm else 1 if ddim < 1.4 * ddpm else 2


def explain_settles(figures: Figures) -> str:
    ddim, ddpm = (measured(figures, f"{name}: distance from 16 to 32 steps") for name in ("DDIM", "DDPM"))
    return f"From 16 to 32 steps DDIM's pictures changed by {ddim:.3f} (rms), DDPM's by {ddpm:.3f}: its new noise leads elsewhere each time."


# --- guidance, inpaint ------------------------------------------------------------------------------------------------


def fooled_answer(figures: Figures) -> int:
    gap = named(figures, "CLIP guidance").gap or 0.0
    return 0 if gap < -10 else 1 if gap < 10 else 2


def explain_fooled(figures: Figures) -> str:
    clip, free = named(figures, "CLIP guidance"), named(figures, "classifier-free")
    return (
        f"With CLIP guidance the guide sees what was asked in {clip.predicted:.0f} %, the judge in {clip.measured:.0f} %; "
        f"classifier-free it is {free.predicted:.0f} % and {free.measured:.0f} %."
    )


def diverse_answer(figures: Figures) -> int:
    figure = named(figures, "diversity at classifier-free scale")
    ratio = (figure.measured or 0.0) / max(figure.predicted or 0.0, 1e-9)
    return 0 if ratio < 0.95 else 1 if ratio < 1.05 else 2


def explain_diverse(figures: Figures) -> str:
    figure = named(figures, "diversity at classifier-free scale")
    return f"To the judge two pictures differ by {figure.measured:.1f} on average, unguided ones by {figure.predicted:.1f}."


def kept_answer(figures: Figures) -> int:
    change = measured(figures, "largest change of a kept pixel")
    return 0 if change == 0 else 1 if change < 1 / 255 else 2


def explain_kept(figures: Figures) -> str:
    change, rim = measured(figures, "largest change of a kept pixel"), figures["jump across the rim"]
    return f"By {change:g}. The jump across the rim is {rim.measured:.3f}; filled blindly it would be {rim.predicted:.3f}."


PREDICTIONS = (
    Prediction(
        "With which schedule does the judge lose the picture first?",
        "noise",
        {},
        ("linear", "both at the same step", "cosine"),
        lost_answer,
        explain_lost,
    ),
    Prediction(
        "A schedule is learnt so that the estimate of the loss jumps about less. Can it beat the cosine one?",
        "noise",
        {"steps": 300},
        ("yes, clearly", "no, they are alike", "no, it is worse"),
        spread_answer,
        explain_spread,
    ),
    Prediction(
        "How large is the first loss of an untrained network?",
        "train",
        {"steps": 1, "start": "scratch"},
        ("near 0", "about that of always answering 0", "far larger"),
        first_loss_answer,
        explain_first_loss,
    ),
    Prediction(
        "The steps are doubled from 16 to 32, with the same first noise. Whose pictures stay more alike?",
        "denoise",
        {},
        ("DDIM's, without fresh noise", "both alike", "DDPM's, with fresh noise"),
        settles_answer,
        explain_settles,
    ),
    Prediction(
        "CLIP guides until it is content with the result. Does a judge that it does not know agree?",
        "guidance",
        {},
        ("it is less content", "both agree", "it is more content"),
        fooled_answer,
        explain_fooled,
    ),
    Prediction(
        "At four times the guidance scale, how different do pictures look to the judge, against unguided ones?",
        "guidance",
        {},
        ("more alike", "no change", "more different"),
        diverse_answer,
        explain_diverse,
    ),
    Prediction(
        "A hole is filled with something new. By how much do the kept pixels change?",
        "inpaint",
        {},
        ("not at all", "by less than one of 256 grey levels", "visibly"),
        kept_answer,
        explain_kept,
    ),
)
