"""The lesson of Stable Diffusion: the figures decide its questions, and its sentences follow the numbers."""

import pytest

from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.stable_diffusion.denoise import PROBABILITY, RIGHT_FROM, WORDS_AT
from core.stable_diffusion.img2img import STAYS, TRACE, WINS_AT
from core.stable_diffusion.latents import NAMED, NOISE, ONE_OBJECT
from core.stable_diffusion.lesson import LESSON
from core.stable_diffusion.lesson_changing import BLACK, BOTH_OUTSIDE, BRIGHT, PURE, WORDS_OUTSIDE
from core.stable_diffusion.schedulers import DDPM_AWAY, DEFAULTS_RIGHT, EULER
from core.stable_diffusion.terminal_snr import READ
from core.stable_diffusion.words import NEW_SEEN, heat_of, of_way

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
NEW = of_way(NEW_SEEN, "both")


def outcome_of(*results, config=None):
    return Outcome(by_figure(results), config, None)


def heats(red, circle, end):
    return [heat_of(word)(heat, 35.0) for word, heat in (("red", red), ("circle", circle), ("end", end))]


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (NAMED(100.0, 100.0), NOISE(7.0, 11.2), ONE_OBJECT(37.0, 22.0)), 2),
        (0, (NAMED(30.0, 100.0), NOISE(7.0, 11.2), ONE_OBJECT(37.0, 22.0)), 0),
        (1, (RIGHT_FROM(1.0), PROBABILITY(100.0, 100.0), WORDS_AT(1.0)), 0),
        (1, (RIGHT_FROM(9.0), PROBABILITY(100.0, 100.0), WORDS_AT(1.0)), 1),
        (1, (RIGHT_FROM(25.0), PROBABILITY(100.0, 100.0), WORDS_AT(1.0)), 2),
        (1, (RIGHT_FROM(26.0), PROBABILITY(1.0, 100.0), WORDS_AT(1.0)), 3),
        (2, (EULER(4e-6, 0.0),), 0),
        (2, (EULER(0.1, 0.0),), 1),
        (3, (WINS_AT(0.4), STAYS(22.0, 40.0), TRACE(0.06, 0.0)), 0),
        (3, (WINS_AT(0.6), STAYS(22.0, 40.0), TRACE(0.06, 0.0)), 1),
        (3, (WINS_AT(1.0), STAYS(22.0, 40.0), TRACE(0.06, 0.0)), 2),
        (3, (WINS_AT(None), STAYS(22.0, 40.0), TRACE(0.06, 0.0)), 3),
        (3, (STAYS(22.0, 40.0), TRACE(0.06, 0.0)), None),
        (4, heats(25.0, 38.0, 50.0), 2),
        (4, heats(55.0, 38.0, 50.0), 0),
        (5, (BOTH_OUTSIDE(5.0, 14.0), WORDS_OUTSIDE(11.0, 14.0)), 0),
        (5, (BOTH_OUTSIDE(14.0, 14.0), WORDS_OUTSIDE(11.0, 14.0)), 1),
        (6, (BLACK(25.0, 5.0), BRIGHT(100.0, 95.0), READ(64.0, 66.0)), 2),
        (6, (BLACK(50.0, 5.0), BRIGHT(60.0, 95.0), READ(64.0, 66.0)), 1),
        (6, (BLACK(90.0, 5.0), BRIGHT(10.0, 95.0), READ(64.0, 66.0)), 0),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why.endswith(".")


@pytest.mark.parametrize(
    ("name", "results", "words"),
    [
        ("latents", (NOISE(7.0, 11.2), ONE_OBJECT(37.0, 22.0)), "nothing in noise can be left out"),
        ("latents", (NOISE(37.0, 11.2), ONE_OBJECT(37.0, 22.0)), "as well as a drawing"),
        ("denoise", (RIGHT_FROM(1.0), PROBABILITY(99.0, 100.0)), "early"),
        ("denoise", (RIGHT_FROM(26.0), PROBABILITY(1.0, 100.0)), "failed"),
        ("denoise", (WORDS_AT(1.0),), "nearly all is still noise"),
        ("denoise", (WORDS_AT(20.0),), "a picture can be seen"),
        ("schedulers", (DDPM_AWAY(20.8, 0.2),), "another picture"),
        ("schedulers", (DEFAULTS_RIGHT(0.0, 100.0),), "cost pictures"),
        ("schedulers", (DEFAULTS_RIGHT(100.0, 100.0),), "cost little"),
        ("words", (NEW(60.0, 100.0),), "still gets its way"),
        ("words", (NEW(20.0, 100.0),), "often loses"),
        ("words", (NEW(0.0, 0.0),), "hardly draws the new object"),
        ("img2img", (TRACE(0.06, 0.0),), "a trace of the picture"),
        ("img2img", (TRACE(0.0, 0.0),), "nothing of the picture"),
        ("img2img", (WINS_AT(None), STAYS(10.0, 40.0)), "is gone already"),
        ("terminal_snr", (BLACK(25.0, 5.0), BRIGHT(100.0, 95.0), PURE(75.0, 50.0)), "follow the trace"),
        ("terminal_snr", (BLACK(50.0, 5.0), BRIGHT(50.0, 95.0), PURE(75.0, 50.0)), "do not follow it"),
    ],
)
def test_a_claim_follows_its_numbers(name, results, words):
    one = find("stable_diffusion", name)
    assert words in " ".join(takeaways(one, outcome_of(*results, config=one.config_type())))


def test_the_words_matter_most_at_the_first_step():
    """As a change of the predicted picture; of the noise the same change is largest at the end."""
    one = find("stable_diffusion", "denoise")
    config = one.config_type(steps=10)
    recorder = drain(one.run(config), Recorder(one, config))
    assert recorder.figures[WORDS_AT].measured == 1
    changes = [step for step in one.run(config) if step.number]
    assert changes[0].change > 10 * changes[-1].change and changes[0].pull < changes[-1].pull
    assert 1 <= sum(figure.headline for figure in recorder.figures) <= 4
    assert len(takeaways(one, recorder.outcome)) == 3
