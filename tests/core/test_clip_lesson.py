"""The lesson of CLIP: the figures decide its questions, and its sentences follow the numbers."""

import pytest

from core.clip.binding import SAME_VECTOR, WINS_MAXIMUM, wins
from core.clip.gap import ALIKE, CAPTIONS_CLOSED, GAP, PICTURES_CLOSED, PICTURES_OPENED
from core.clip.lesson import LESSON
from core.clip.match import BEATEN, BELOW_QUARTER, BEST, MEAN_TEMPLATE
from core.clip.see import NAMED_RIGHT, NAMED_STICKER
from core.clip.train import DIGITS, FIRST_LOSS, NEW_PAIRS, SEEN_PAIRS
from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
SWAPPED, NEW = wins("colours swapped"), wins("new colour")
BAG = WINS_MAXIMUM.of(kind="colours swapped")


def outcome_of(*results, config=None):
    return Outcome(by_figure(results), config, None)


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (BEATEN(1.7, 500.0), BEST(0.85, 0.0)), 0),
        (0, (BEATEN(150.0, 500.0), BEST(0.4, 0.0)), 1),
        (0, (BEATEN(900.0, 500.0), BEST(-0.1, 0.0)), 2),
        (1, (FIRST_LOSS(4.38, 4.15),), 1),
        (1, (FIRST_LOSS(0.7, 0.69),), 0),
        (2, (DIGITS(95.0, 10.0),), 2),
        (2, (DIGITS(11.0, 10.0),), 0),
        (3, (NAMED_RIGHT(54.0, 100.0), NAMED_STICKER(4.0, 40.0)), 1),
        (3, (NAMED_RIGHT(95.0, 100.0), NAMED_STICKER(4.0, 40.0)), 2),
        (4, (SWAPPED(55.0, 50.0), NEW(100.0, 50.0), BAG(58.0, 50.0), SAME_VECTOR(0.9945, 0.64)), 0),
        (4, (SWAPPED(93.0, 50.0), NEW(100.0, 50.0), BAG(58.0, 50.0), SAME_VECTOR(0.5, 0.64)), 2),
        (5, (PICTURES_CLOSED(90.6, 91.1), CAPTIONS_CLOSED(91.7, 92.7), GAP(0.13, 1.27)), 1),
        (5, (PICTURES_CLOSED(80.0, 91.1), CAPTIONS_CLOSED(80.0, 92.7), GAP(0.9, 1.27)), 0),
        (5, (GAP(0.9, 1.27),), None),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ((NEW_PAIRS(99.0, 100.0), SEEN_PAIRS(100.0, 2.0)), "separately"),
        ((NEW_PAIRS(50.0, 100.0), SEEN_PAIRS(100.0, 2.0)), "partly"),
        ((NEW_PAIRS(5.0, 100.0), SEEN_PAIRS(100.0, 2.0)), "not their parts"),
        ((NEW_PAIRS(15.0, 12.0), SEEN_PAIRS(12.0, 2.0)), "hardly begun"),
    ],
)
def test_what_was_learned_follows_the_numbers(results, words):
    one = find("clip", "train")
    assert words in " ".join(takeaways(one, outcome_of(*results, config=one.config_type())))


@pytest.mark.parametrize(
    ("name", "results", "words"),
    [
        ("match", (BELOW_QUARTER(77.0),), "nothing special"),
        ("match", (BELOW_QUARTER(99.0),), "would be high"),
        ("gap", (GAP(0.13, 1.27),), "nearly closed"),
        ("gap", (GAP(0.8, 0.8),), "did not close"),
        ("gap", (ALIKE(0.02, 0.83),), "spread"),
        ("gap", (PICTURES_OPENED(81.0, 91.0),), "costs 10 points"),
        ("binding", (SAME_VECTOR(0.9945, 0.64),), "nearly the same vector"),
        ("binding", (SAME_VECTOR(0.5, 0.64),), "does tell them apart"),
    ],
)
def test_a_claim_follows_its_numbers(name, results, words):
    assert words in " ".join(takeaways(find("clip", name), outcome_of(*results)))


def test_a_whole_run_of_match_is_told():
    one = find("clip", "match")
    config = one.config_type(drawn=1)
    recorder = drain(one.run(config), Recorder(one, config))
    assert len(takeaways(one, recorder.outcome)) == 3 and MEAN_TEMPLATE in recorder.outcome
    assert recorder.figures[BELOW_QUARTER].measured == pytest.approx(77.2, abs=0.1), "0.25 is low in this model"
    assert sum(figure.headline for figure in recorder.figures) == 4
