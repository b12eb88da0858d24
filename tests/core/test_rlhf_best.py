"""Best of n as an experiment: the reward that chooses rises, the distance is the formula's, and three answers end it."""

import json
import math

import pytest

from core.foundations.figures import by_figure
from core.foundations.recorder import Recorder, drain
from core.rlhf.best import BEST_KL, BEST_KL_THREE, CAP, GOLD, PROXY, BestConfig, best
from core.rlhf.best_of_n import kl_formula

SMALL = {"pairs_used": 12, "most_n": 16}


@pytest.fixture(scope="module")
def steps():
    return list(best(BestConfig(**SMALL)))


def test_the_best_of_one_is_the_reference_and_more_answers_earn_more(steps):
    shown = [step for step in steps if step.n]
    assert [step.n for step in shown] == [1, 2, 4, 8, 16] and steps[0].before == steps[0].chosen
    _, gold, proxy = zip(*shown[-1].rewards, strict=True)
    assert gold[0] == pytest.approx(0, abs=1e-5) and proxy[0] == pytest.approx(0, abs=1e-5)
    assert list(proxy) == sorted(proxy) and proxy[-1] > 1, "the reward that chooses can only rise"
    assert shown[0].kls == ((1, 0.0, 0.0),) and len({step.chosen for step in shown}) > 1


def test_the_distance_is_the_formulas_and_three_answers_end_it(steps):
    figures = by_figure([result for step in steps for result in step.figures])
    cards, three = figures[BEST_KL], figures[BEST_KL_THREE]
    assert cards.expected == three.expected == kl_formula(16) and abs(cards.gap) < 0.5
    assert three.measured < three.expected and three.figure.label == "computed"
    assert three.measured <= figures[CAP].measured
    assert figures[PROXY].measured > 1 and figures[GOLD].expected == 0


def test_the_same_seed_gives_the_same_run(steps):
    again = list(best(BestConfig(**SMALL)))
    assert [json.dumps(step.plain()) for step in again] == [json.dumps(step.plain()) for step in steps]


def test_of_your_own_taste_nobody_knows_the_gold():
    config = BestConfig(rule="you", clicks="abbaabbabb", most_n=2)
    recorder = drain(best(config), Recorder(best.experiment, config))
    assert GOLD not in recorder.figures and PROXY in recorder.figures and math.isnan(recorder.last.rewards[-1][1])
    json.dumps(recorder.report(), allow_nan=False)


def test_one_click_is_not_enough(refusal):
    assert refusal(lambda: list(best(BestConfig(rule="you", clicks="a")))).startswith("At least 2 choices are needed")
