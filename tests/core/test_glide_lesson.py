"""The lesson of GLIDE: the figures decide its questions, its sentences follow the numbers, and samplers begin with pure
noise.
"""

import sys

import numpy as np
import pytest

from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.glide.denoise import COUNTS, DDIM_CHANGE, DDPM_CHANGE, DenoiseConfig, denoise
from core.glide.guidance import (
    CLIP_JUDGE,
    DIVERSITY,
    FREE_JUDGE,
    UNGUIDED_JUDGE,
    Grades,
    GuidanceConfig,
    GuidanceStep,
    blind_guess,
    figures_of,
)
from core.glide.inpaint import ASKED_FOR, RIM, asked_for
from core.glide.lesson import COSINE, LESSON, LINEAR
from core.glide.train import NEW_RIGHT, SEEN_RIGHT

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]


def outcome_of(*results, config=None, last=None):
    return Outcome(by_figure(results), config, last)


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (DDIM_CHANGE(0.009, 0.009), DDPM_CHANGE(0.07, 0.009)), 0),
        (0, (DDIM_CHANGE(0.07, 0.009), DDPM_CHANGE(0.07, 0.07)), 1),
        (1, (RIM(0.15, 0.5),), 0),
        (1, (RIM(0.48, 0.5),), 2),
        (2, (CLIP_JUDGE(42.0, 100.0), FREE_JUDGE(100.0, 100.0)), 0),
        (2, (CLIP_JUDGE(92.0, 92.0), FREE_JUDGE(100.0, 100.0)), 1),
        (3, (DIVERSITY(11.7, 12.9),), 1),
        (3, (DIVERSITY(5.0, 12.9),), 0),
        (3, (DIVERSITY(14.0, 12.9),), 2),
        (4, (LINEAR(250.0), COSINE(481.0)), 0),
        (4, (LINEAR(500.0), COSINE(481.0)), 1),
        (4, (LINEAR(500.0),), None),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why.endswith(".")


@pytest.mark.parametrize(
    ("name", "results", "words"),
    [
        ("guidance", (CLIP_JUDGE(42.0, 100.0),), "CLIP was fooled in many"),
        ("guidance", (CLIP_JUDGE(92.0, 92.0),), "CLIP was not fooled"),
        ("guidance", (DIVERSITY(9.0, 12.9),), "more alike than"),
        ("guidance", (DIVERSITY(12.9, 12.9),), "about as different as"),
        ("inpaint", (RIM(0.15, 0.5),), "it fits its surroundings"),
        ("inpaint", (ASKED_FOR(50.0, 100.0),), "the surroundings win"),
        ("train", (SEEN_RIGHT(90.0, 2.0), NEW_RIGHT(88.0, 90.0)), "separately"),
        ("train", (SEEN_RIGHT(0.0, 2.0), NEW_RIGHT(0.0, 0.0)), "hardly learned"),
    ],
)
def test_a_claim_follows_its_numbers(name, results, words):
    one = find("glide", name)
    assert words in " ".join(takeaways(one, outcome_of(*results, config=one.config_type())))


@pytest.mark.parametrize(
    ("prompt", "percent"), [("a green star", 100 / 48), ("a star", 100 / 6), ("something green", 100 / 8)]
)
def test_a_blind_guess_depends_on_what_the_prompt_names(prompt, percent, monkeypatch):
    monkeypatch.setattr(sys.modules["core.glide.guidance"], "prompt_tokens", lambda text: None)
    assert blind_guess(prompt) == pytest.approx(percent)


def test_diversity_is_compared_with_scale_1():
    """The large drop, from 0 to 1, is reading the words at all; it is no price of the scale."""
    apart = {0.0: 28.6, 1.0: 13.6, 2.0: 10.7, 8.0: 12.4}
    grades = tuple(
        Grades(way, scale, 100.0, 100.0, 0.9, apart[scale], np.zeros((3, 2, 2)))
        for way, scale in (
            ("unguided", 0.0),
            ("classifier-free", 1.0),
            ("classifier-free", 2.0),
            ("classifier-free", 8.0),
            ("CLIP", 2.0),
        )
    )
    figures = by_figure(figures_of(GuidanceStep(grades=grades), GuidanceConfig()))
    assert (figures[DIVERSITY].measured, figures[DIVERSITY].expected) == (12.4, 13.6)
    assert figures[UNGUIDED_JUDGE].expected == pytest.approx(100 / 48)


def test_what_was_asked_is_counted_in_the_fillings():
    (result,) = asked_for("a blue circle", (("blue circle", "red star"), ("blue circle", "blue circle")))
    assert (result.measured, result.expected) == (100.0, 50.0)
    assert asked_for("in the middle", (("blue circle",), ("blue circle",))) == ()


@pytest.mark.slow
def test_two_steps_are_enough_for_the_judge():
    """Beginning with the very last step of the schedule; a sampler that begins at step 500 gets none of four right."""
    *_, last = denoise(DenoiseConfig(steps=1))
    assert last.counts == COUNTS and last.verdicts[0][0] == "red star"
    ddim = [ddim for ddim, _ in last.apart[1:]]
    assert ddim[0] > ddim[-1] and ddim[-1] < 0.02
