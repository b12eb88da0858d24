"""The lesson's questions and sentences follow the figures: each is given numbers on both sides of every edge."""

import pytest

from core.data_efficiency.curriculum import LOSS, NOISE, SECONDS
from core.data_efficiency.dedup import FOUND, LOSS_COPIES, RECALL_WITH, RECALL_WITHOUT, THROWN
from core.data_efficiency.lesson import LESSON
from core.data_efficiency.prune import AHEAD_LEAST, AHEAD_MOST, LOSS_LEAST
from core.data_efficiency.repeat import FRESH, MOST_EPOCHS, WORTH
from core.data_efficiency.scaling import SEVENTH, SEVENTH_CHINCHILLA
from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict

SHORT, DROP = "short sequences first", "random token dropping"


def outcome(experiment, *results, **settings):
    return Outcome(by_figure(results), find("data_efficiency", experiment).config_type(**settings), None, 1)


def asks(experiment, **settings):
    found = [step for step in LESSON.steps if isinstance(step, Ask) and step.experiment == experiment]
    return [ask for ask in found if settings.items() <= dict(ask.settings).items()]


@pytest.mark.parametrize(("above", "answer"), [(-0.5, 0), (0.0, 0), (0.1, 1), (0.5, 2)])
def test_forty_epochs(above, answer):
    (ask,) = asks("repeat", epochs=40)
    index, because = verdict(ask, outcome("repeat", MOST_EPOCHS(2.0 + above, 2.0), epochs=40))
    assert index == answer and f"{above:+.3f}" in because


def test_four_epochs_count_both_ways():
    (ask,) = asks("repeat", epochs=4)
    indices = [
        verdict(ask, outcome("repeat", MOST_EPOCHS(2.0 + gap, 2.0), epochs=4))[0] for gap in (0.01, -0.1, 0.1, -0.4)
    ]
    assert indices == [0, 1, 1, 2]


@pytest.mark.parametrize(("with_copies", "without", "answer"), [(3, 2, 0), (20, 4, 1), (60, 4, 2), (50, 0, 2)])
def test_by_heart(with_copies, without, answer):
    (ask,) = asks("dedup")
    figures = RECALL_WITH(with_copies, 64.0), RECALL_WITHOUT(without, with_copies)
    assert verdict(ask, outcome("dedup", *figures))[0] == answer


@pytest.mark.parametrize(
    ("easiest", "hardest", "answer"), [(-0.1, 0.1, 0), (0.1, -0.1, 1), (0.1, 0.2, 2), (-0.1, -0.2, 1)]
)
def test_which_half(easiest, hardest, answer):
    (ask,) = asks("prune")
    ends = {"easiest": easiest, "hardest": hardest, "most learnable": 0.0}
    figures = [LOSS_LEAST.of(kind=kind)(2.0 + more, 2.0) for kind, more in ends.items()]
    index, because = verdict(ask, outcome("prune", *figures))
    assert index == answer and f"easiest {easiest:+.3f}" in because


@pytest.mark.parametrize(("loss", "seconds", "answer"), [(1.9, 80.0, 0), (1.9, 120.0, 1), (2.1, 80.0, 2)])
def test_short_first(loss, seconds, answer):
    (ask,) = asks("curriculum")
    figures = LOSS.of(trick=SHORT)(loss, 2.0), SECONDS.of(trick=SHORT)(seconds, 90.0)
    assert verdict(ask, outcome("curriculum", *figures))[0] == answer


@pytest.mark.parametrize(("loss", "answer"), [(2.01, 0), (1.9, 1), (2.3, 2)])
def test_the_seventh_run(loss, answer):
    (ask,) = asks("scaling")
    assert verdict(ask, outcome("scaling", SEVENTH(loss, 2.0), SEVENTH_CHINCHILLA(loss, 2.2)))[0] == answer


def test_a_run_that_ended_early_decides_nothing():
    for ask in (step for step in LESSON.steps if isinstance(step, Ask)):
        index, reason = verdict(ask, outcome(ask.experiment))
        assert index is None and reason.endswith("stays open.")


def test_what_was_seen_follows_the_numbers():
    def said(experiment, *results, **settings):
        return takeaways(find("data_efficiency", experiment), outcome(experiment, *results, **settings))

    worth = WORTH.of(epochs=40)(20.0, 38.0)
    assert "learns its text by heart" in said("repeat", worth, FRESH(2.0), MOST_EPOCHS(2.5, 2.2))[1]
    assert "as the law says" in said("repeat", worth, FRESH(2.0), MOST_EPOCHS(2.21, 2.2))[1]
    assert "better than the law" in said("repeat", worth, FRESH(2.0), MOST_EPOCHS(2.0, 2.2))[1]
    copies = FOUND(80.0, 82.0), THROWN(400, 410.0), RECALL_WITH(40.0, 64.0), RECALL_WITHOUT(4.0, 40.0)
    assert said("dedup", *copies, LOSS_COPIES(2.1, 2.0))[2].endswith("they cost the same budget some quality.")
    assert said("dedup", *copies, LOSS_COPIES(2.0, 2.0))[2].endswith("they made hardly a difference.")
    least, most = said("prune", AHEAD_LEAST(0.1, 0.05), AHEAD_MOST(-0.01, 0.05))
    assert "the easiest half was better" in least and "no difference beyond the noise" in most
    assert "the hardest half was better" in said("prune", AHEAD_LEAST(-0.1, 0.05))[0]
    for loss, quality in ((1.5, "better"), (2.5, "worse"), (2.01, "the same within the noise")):
        figures = LOSS.of(trick=SHORT)(loss, 2.0), SECONDS.of(trick=SHORT)(80.0, 90.0), NOISE(0.02)
        assert f", {quality}," in said("curriculum", *figures)[0]
    assert "Kaplan's form came closer" in said("scaling", SEVENTH(2.0, 2.01), SEVENTH_CHINCHILLA(2.0, 2.1))[0]
    assert "Chinchilla's form came closer" in said("scaling", SEVENTH(2.0, 2.2), SEVENTH_CHINCHILLA(2.0, 2.1))[0]
