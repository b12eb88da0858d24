"""The picture of `damage`: perplexity and flips as matrices are quantized, the prompt's words, and LoRA's training."""

from core.qlora import DamageConfig, DamageStep
from core.qlora.damage import perplexity
from pages._kit.charts import Panel, Sketch, axis, lines, series
from pages._kit.player import player, view

PERPLEXITY = axis("perplexity", "equally likely tokens")
MOST_LINES = 12  # of flipped words
CONTEXT = 24  # characters of the prompt before a flipped word


def damage_panels(config: DamageConfig) -> list[Panel]:
    quantised = axis("matrices quantized", "count", 28 if config.model == "shipped" else None)
    views = [
        lines(
            "climb",
            "Each matrix that is quantized",
            quantised,
            PERPLEXITY,
            [series("loss", "quantised", "b", dots=True)],
            span=7,
            height=240,
        ),
        lines(
            "flips",
            "Next tokens that flip",
            quantised,
            axis("flipped", "% of positions"),
            [series("flips", "flipped", "d", dots=True)],
            span=5,
            height=240,
        ),
        view("words", "text", "Your prompt: next tokens that changed", span=6, height=190),
        view("continued", "text", "Your prompt, continued with the likeliest token each time", span=6, height=190),
    ]
    tuned_series = [series("tuned", "quantized, with LoRA", "b", dots=True)]
    if config.control:
        tuned_series.insert(0, series("control", "full precision, with LoRA", "a", dots=True))
    return [
        player("peel", "", views, scrub="matrices quantized", rate=5, bar_before=2),
        lines(
            "tuning",
            "Then LoRA learns beside the frozen weights",
            axis("step of LoRA", "count", config.steps),
            PERPLEXITY,
            tuned_series,
            height=240,
        ),
    ]


def draw_damage(step: DamageStep, sketch: Sketch) -> None:
    if step.full_loss is not None:
        sketch.levels("climb", {"full precision": perplexity(step.full_loss)})
        sketch.levels("tuning", {"full precision": perplexity(step.full_loss)})
    if step.loss is not None and step.flips is not None:
        sketch.point("climb", "loss", step.matrices, perplexity(step.loss))
        sketch.point("flips", "flips", step.matrices, 100 * step.flips)
    if step.lora_step is not None:
        for member, loss in (("control", step.control_loss), ("tuned", step.tuned_loss)):
            if loss is not None:
                sketch.point("tuning", member, step.lora_step, perplexity(loss))
    if step.words is not None:
        label = f"{step.matrices} of {step.of} matrices" + (
            f", {step.lora_step} steps of LoRA" if step.lora_step else ""
        )
        sketch.updates.append(
            (
                "peel",
                {
                    "frames": [
                        {"label": label, "at": step.matrices, "words": flipped(step), "continued": continued(step)}
                    ]
                },
            )
        )


def flipped(step: DamageStep) -> str:
    """One line per flipped word."""
    if not step.prompt_tokens:
        return "There is no prompt."
    told = [f"{len(step.words)} of {step.prompt_tokens} differ from full precision"]
    for before, was, now in step.words[:MOST_LINES]:
        start = before if len(before) <= CONTEXT else "…" + before[-CONTEXT:]
        told.append(f"{visible(start)} → {quoted(now)}, was {quoted(was)}")
    return "\n".join(told + (["…"] if len(step.words) > MOST_LINES else []))


def visible(text: str) -> str:
    return text.replace("\n", "↵")


def quoted(token: str) -> str:
    return f"“{visible(token).strip(' ')}”" if token.strip(" ") else "“ ”"


def continued(step: DamageStep) -> str:
    return "\n\n".join(f"{called}:\n …{text}" for called, text in step.continued) or "(comes with the run)"
