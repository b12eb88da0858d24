"""The lesson of LoRA: the figures decide its questions, and its sentences follow the numbers."""

import math

import pytest

from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.lora import CountConfig, ToyConfig
from core.lora.controls import ARM, LORA
from core.lora.count import SHARE, TOTAL, TRAINED
from core.lora.lesson import LESSON
from core.lora.text import LOSS, REVERSED
from core.lora.toy import DROP, LEFT

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
SCALED, BIASES = (ARM.of(arm=arm) for arm in ("inputs x 16, nothing trained", "32 biases"))


def outcome_of(*results):
    return Outcome(by_figure(results), None, None)


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (REVERSED(7.7, 4.6), LOSS(3.4, 4.6)), 2),
        (0, (REVERSED(4.6, 4.6), LOSS(3.4, 4.6)), 1),
        (0, (REVERSED(4.5, 4.6), LOSS(3.4, 4.6)), 0),
        (1, (LEFT(1e-5, 0.0), DROP(4, 4)), 0),
        (1, (LEFT(0.03), DROP(4, 4)), 1),
        (1, (LEFT(0.7), DROP(4, 4)), 2),
        (1, (LEFT(math.nan), DROP(4, 4)), None),
        (2, (SHARE(12.0, 12.0), TRAINED(12), TOTAL(100)), 0),
        (2, (SHARE(0.124, 0.124), TRAINED(8), TOTAL(6000)), 2),
        (3, (LORA(98, 80), SCALED(90, 98), BIASES(95, 98)), 0),
        (3, (LORA(98.4, 80), SCALED(98, 98.4), BIASES(98, 98.4)), 1),
        (3, (LORA(92, 80), SCALED(98, 92), BIASES(90, 92)), 2),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why
    assert index is None or index < len(ASKS[place].answers)


def test_a_run_answers_its_question():
    one = find("lora", "count")
    outcome = drain(one.run(CountConfig(**ASKS[2].settings)), Recorder(one, CountConfig(**ASKS[2].settings))).outcome
    index, why = verdict(ASKS[2], outcome)
    assert ASKS[2].answers[index] == "about 0.12 %" and "0.124 %" in why
    assert takeaways(one, outcome)[0].startswith("peft trains 8,388,608 of 6,746,804,224 numbers, 0.12 %")


@pytest.mark.parametrize(
    ("rank", "steps", "words"),
    [
        (2, 1200, ("nearly all", "exactly at the rank of the true change")),
        (1, 100, ("part of it", "of the base's error remains")),
    ],
)
def test_what_the_toy_says_changes_with_its_numbers(rank, steps, words):
    one, config = find("lora", "toy"), ToyConfig(rank=rank, steps=steps)
    sentences = " ".join(takeaways(one, drain(one.run(config), Recorder(one, config)).outcome))
    assert [word for word in words if word not in sentences] == []
