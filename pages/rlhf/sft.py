"""The picture of `sft`: its answers before and after, what it has learned of them, and which tokens count."""

from collections.abc import Sequence
from typing import Any

from core.rlhf import SftConfig, SftStep
from core.rlhf.sft import Answered, Token
from pages._kit.charts import Panel, Sketch, axis, chart, columns, lines, series, text
from pages._kit.player import player, view

NATS = axis("loss", "nats per token")


def sft_panels(config: SftConfig) -> list[Panel]:
    steps = axis("optimizer step", "count", config.steps)
    judged, learned = [series("held_out", "answer", "a", dots=True)], [series("loss", "answer", "a")]
    if config.control:
        judged.append(series("held_out_every", "every token", "d", dots=True))
        learned.append(series("loss_of_every", "every token", "d"))
    losses = chart(axis("token", ""), axis("loss", "nats"), legend=True)
    losses["xaxis"] |= {"type": "category", "tickangle": -60}
    losses["margin"] |= {"b": 92}
    film = [
        view("pair", "chips", "A pair it never learns from, cut into tokens: those with a frame count"),
        view("losses", "plot", "How much each token surprises it", layout=losses, height=245),
    ]
    return [
        text("before", "Before: it goes on with your question", span=6, height=150),
        text("now", "Now: the same questions, none of them learned from", span=6, height=150),
        lines("stops", "Answers that it ends by itself", steps, axis("fraction", "of 1", 1.0),
              [series("stops", "stopped", "b", dots=True)], span=6, height=185),
        lines("held_out", "Loss on answers it has never seen, by what counted", steps, NATS, judged, span=6,
              height=185),
        player("look", "Which tokens count", film, scrub="training step", rate=1, bar_before=1),
        lines("loss", "Training loss of each step, over the tokens that count", steps, NATS, learned, height=240),
    ]  # fmt: skip


def draw_sft(step: SftStep, sketch: Sketch) -> None:
    points = (("stops", "stops"), ("held_out", "held_out"), ("held_out", "held_out_every"))
    for panel, member in (*points, ("loss", "loss"), ("loss", "loss_of_every")):
        y = getattr(step, member)
        if y is not None:
            sketch.point(panel, member, step.step, y)
    if step.before:
        sketch.text("before", listed(step.before))
    if step.now:
        sketch.text("now", listed(step.now))
    if step.tokens:
        names = distinct([token.text for token in step.tokens])
        when = f"after step {step.step}" if step.step else "before training"
        sketch.frame(
            "look",
            when,
            pair={"chips": [[token.text.replace("\n", "↵"), token.counts] for token in step.tokens]},
            losses=losses_of(step.tokens, names),
        )


def listed(answers: Sequence[Answered]) -> str:
    """Question and answer, one pair below the other; who was interrupted shows it."""
    return "\n\n".join(
        f"{one.question}\n→ {one.answer}{' ⟨end⟩' if one.stopped else ' … (interrupted)'}" for one in answers
    )


def losses_of(tokens: Sequence[Token], names: Sequence[str]) -> list[dict[str, Any]]:
    """A column for each token: before and now where it counts, now where it does not."""
    told = list(zip(names, tokens, strict=True))
    counting = [(name, token) for name, token in told if token.counts]
    others = [(name, token) for name, token in told if not token.counts]
    return [
        columns([name for name, _ in others], [token.now for _, token in others], "does not count", "level"),
        columns([name for name, _ in counting], [token.before for _, token in counting], "before training", "e"),
        columns([name for name, _ in counting], [token.now for _, token in counting], "now", "a"),
    ]


def distinct(names: Sequence[str]) -> list[str]:
    """Equal names get spaces at the end, which nobody sees: a column each."""
    counts = dict[str, int]()
    result = []
    for name in names:
        result.append(name + " " * counts.get(name, 0))
        counts[name] = counts.get(name, 0) + 1
    return result
