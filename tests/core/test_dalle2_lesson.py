"""The lesson of DALL·E 2: the figures decide its questions, its sentences follow the numbers, and the prior's worth is
measured over all names.
"""

import pytest

from core.dalle2.blend import HALF_ANGLE, NEW_AT, OFF_ARC, STAYED, STRAIGHT, TURNED_AT
from core.dalle2.chain import ALL_NAMES, AS_ASKED, NEAREST, TWO, WAYS, ChainConfig, ChainStep, all_names, headline
from core.dalle2.lesson import ALL_NONE, ALL_PRIOR, LESSON
from core.dalle2.variations import NEEDED, SAME
from core.foundations.captioned_shapes import PAIRS
from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
PRIOR, CODES, NONE = WAYS
NEAR_PRIOR, NEAR_NONE = headline(NEAREST, PRIOR), headline(NEAREST, NONE)
TWO_PRIOR, TWO_CODES = TWO.of(way=PRIOR), TWO.of(way=CODES)


def outcome_of(*results):
    return Outcome(by_figure(results), None, None)


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (NEAR_PRIOR(0.97, 0.99), NEAR_NONE(0.89, 0.99)), 2),
        (0, (NEAR_PRIOR(0.90, 0.99), NEAR_NONE(0.89, 0.99)), 1),
        (0, (NEAR_PRIOR(0.80, 0.99), NEAR_NONE(0.89, 0.99)), 0),
        (1, (ALL_NONE(75.0, 96.0), ALL_PRIOR(96.0, 75.0)), 1),
        (1, (ALL_NONE(30.0, 96.0), ALL_PRIOR(96.0, 30.0)), 0),
        (2, (TWO_PRIOR(0.91, 0.82), TWO_CODES(0.81, 0.82)), 2),
        (2, (TWO_PRIOR(0.7, 0.82), TWO_CODES(0.81, 0.82)), 0),
        (3, (NEEDED(44.0, 31.0),), 1),
        (3, (NEEDED(90.0, 31.0),), 2),
        (4, (STRAIGHT(0.6, 0.6), HALF_ANGLE(53.0, 53.0)), 1),
        (4, (STRAIGHT(0.2, 0.2), HALF_ANGLE(80.0, 80.0)), 0),
        (4, (HALF_ANGLE(80.0, 80.0),), None),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why.endswith(".")


@pytest.mark.parametrize(
    ("name", "results", "words"),
    [
        ("chain", (ALL_NONE(75.0, 96.0), ALL_PRIOR(96.0, 75.0)), "most captions work without a prior"),
        ("chain", (ALL_NONE(20.0, 96.0), ALL_PRIOR(96.0, 20.0)), "helps most captions"),
        ("chain", (ALL_NONE(96.0, 96.0), ALL_PRIOR(96.0, 96.0)), "changes little"),
        ("chain", (AS_ASKED.of(way=NONE)(0.0, 100.0), AS_ASKED.of(way=PRIOR)(100.0, 100.0)), "the prior decides"),
        ("chain", (AS_ASKED.of(way=NONE)(100.0, 100.0), AS_ASKED.of(way=PRIOR)(100.0, 100.0)), "no difference"),
        ("variations", (SAME(100.0, 100.0),), "the embedding holds both"),
        ("variations", (SAME(30.0, 100.0),), "does not hold both"),
        ("blend", (TURNED_AT(0.5, 0.5), OFF_ARC(0.13)), "about halfway"),
        ("blend", (TURNED_AT(0.2, 0.5), OFF_ARC(0.13)), "before halfway"),
        (
            "blend",
            (NEW_AT.of(kind="shape")(0.4), STAYED.of(kind="color")(90.0, 100.0)),
            "the new shape appears at 0.40",
        ),
    ],
)
def test_a_claim_follows_its_numbers(name, results, words):
    assert words in " ".join(takeaways(find("dalle2", name), outcome_of(*results)))


@pytest.mark.slow
def test_over_all_names_the_prior_repairs_what_some_captions_lose():
    """Three of four names come out right without a prior: the default caption is one of the worst."""
    steps = list(all_names(ChainConfig(), ChainStep()))
    figures = by_figure(steps[-1].figures)
    none, prior = figures[ALL_NAMES.of(way=NONE)], figures[ALL_NAMES.of(way=PRIOR)]
    assert 60 < none.measured < 90 < prior.measured and none.expected == prior.measured
    assert len(steps) > len(PAIRS) / 16, "a unit of work is short"
