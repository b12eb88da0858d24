"""The picture of `preferences`: two cards to choose from, what the model makes of the choices, and what it likes."""

import math
from collections.abc import Mapping
from typing import Any

from core.rlhf import PreferencesConfig, PreferencesStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, columns, lines, ranking, series, text
from pages._kit.player import view

SHOWN = 8  # words at either end of the ranking
CLICKS = 6  # of yours, until it begins to learn; the core learns from two
NARROW = 0.25  # width of the histogram's bars, in standard deviations


def preferences_panels(config: PreferencesConfig) -> list[Panel]:
    steps = axis("training step of the reward model", "count", config.steps)
    right = [
        series("trained", "learned from", "a", faint=True),
        series("unread", "new, words alone", "b"),
        series("held_out", "new choices", "c"),
    ]
    words = ranking(axis("reward added", "standard deviations"), axis("word", "written into a card"), left=112)
    words["yaxis"]["title"]["standoff"] = 6  # clear of the words, whatever their length
    rewards = chart(axis("reward", "standard deviations"), axis("cards of the reference", "count"))
    return [
        view("pairs", "pairs", "Which card do you like better?"),
        view(
            "words",
            "plot",
            "What it has learned to like: the most and the least liked words",
            span=6,
            layout=words,
            height=300,
        ),
        view("rewards", "plot", "The rewards it gives to cards of the reference", span=6, layout=rewards, height=300),
        lines("agreement", "How often it agrees with choices", steps, axis("agreement", "share", None), right, span=6),
        lines(
            "loss",
            "Loss of the reward model",
            steps,
            axis("Bradley-Terry loss", "nats per choice"),
            [series("loss", "loss", "a")],
            span=6,
        ),
        text("cards", "The cards it likes best and least, and their rewards"),
    ]


def draw_preferences(step: PreferencesStep, sketch: Sketch) -> None:
    if step.pairs:
        pairs = [list(pair) for pair in step.pairs]
        sketch.show(
            "pairs",
            {
                "pairs": pairs,
                "field": "clicks",
                "chooser": "rule",
                "me": "you",
                "picks": step.picks,
                "who": step.whose,
                "fewest": CLICKS,
            },
        )
        sketch.levels("loss", {"ln 2, a guess": math.log(2), "sure": 0.0})
        sketch.levels("agreement", {"a guess": 0.5, "always": 1.0})
    told: Mapping[str, float | None] = {"trained": step.agreement, "unread": step.unread, "held_out": step.held_out}
    for name, share in told.items():
        if share is not None:
            sketch.point("agreement", name, step.step, share)
    if step.loss is not None:
        sketch.point("loss", "loss", step.step - 1, step.loss)
    if step.look is not None:
        sketch.show("words", ends_of(step.look.words, step.look.effects, step.look.compared))
        sketch.show("rewards", histogram([float(reward) for reward in step.look.rewards]))
        sketch.text(
            "cards",
            "\n…\n".join(
                "\n".join(f"{reward:+.2f}  {card}" for reward, card in some)
                for some in (step.look.best, step.look.worst)
            ),
        )


def ends_of(words: tuple[str, ...], effects: tuple[float, ...], compared: tuple[bool, ...]) -> list[dict[str, Any]]:
    """Both ends of the ranking. A word that stood in no pair it learned from says so."""
    order = sorted(zip(effects, words, compared, strict=True), key=lambda one: (-one[0], one[1]))
    shown = order[:SHOWN] + order[-SHOWN:]
    [drawn] = bars([word if known else f"{word} (new)" for _, word, known in shown], [effect for effect, _, _ in shown])
    return [drawn | {"colours": ["c" if effect > 0 else "b" for effect, _, _ in shown]}]


def histogram(rewards: list[float]) -> list[dict[str, Any]]:
    places = [round(reward / NARROW) for reward in rewards]
    spread = range(min(places), max(places) + 1)
    return [
        columns(
            [place * NARROW for place in spread],
            [places.count(place) for place in spread],
            "cards",
            "a",
            width=NARROW * 0.9,
        )
    ]
