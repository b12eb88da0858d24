"""The lesson of RLHF: the figures decide its questions, and its sentences follow the numbers."""

import pytest

from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.rlhf.grpo import RIGHT, SILENT
from core.rlhf.hacking import GOLD_END, PROXY_END
from core.rlhf.lesson import LESSON, hacking_turn
from core.rlhf.ppo import GOLD, PROXY
from core.rlhf.preferences import NEW, SEEN, UNREAD
from core.rlhf.sft import SAME, STOPS

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]


def outcome_of(*results, config=None):
    return Outcome(by_figure(results), config, None)


@pytest.mark.parametrize(
    ("place", "results", "right"),
    [
        (0, (SAME(0.0), STOPS(100.0, 0.0)), 0),
        (0, (SAME(30.0), STOPS(100.0, 0.0)), 1),
        (0, (SAME(90.0), STOPS(100.0, 0.0)), 2),
        (1, (NEW(55.0, 50.0), UNREAD(52.0, 55.0)), 0),
        (1, (NEW(79.0, 50.0), UNREAD(52.0, 55.0)), 1),
        (1, (NEW(95.0, 50.0), UNREAD(76.0, 95.0)), 2),
        (2, (GOLD(0.2, 0.1),), 0),
        (2, (GOLD(1.0, 0.1),), 1),
        (2, (GOLD(2.1, 0.1),), 2),
        (3, (GOLD_END(1.0, 1.1), PROXY_END(2.0, 1.5)), 0),
        (3, (GOLD_END(0.4, 1.1), PROXY_END(4.0, 1.5)), 1),
        (3, (GOLD_END(-4.7, 1.1), PROXY_END(6.9, 1.6)), 2),
        (3, (PROXY_END(6.9, 1.6),), None),
        (4, (SILENT(79.0, 8.0), RIGHT(98.0, 18.0)), 0),
        (4, (SILENT(50.0, 8.0), RIGHT(98.0, 18.0)), 1),
        (4, (SILENT(10.0, 8.0), RIGHT(98.0, 18.0)), 2),
    ],
)
def test_the_figures_decide(place, results, right):
    index, why = verdict(ASKS[place], outcome_of(*results))
    assert index == right and why.endswith(".")


def test_the_question_about_40_choices_runs_40():
    assert ASKS[1].settings["asked"] == ASKS[2].settings["pairs"] == 40
    assert all("40 choices" in asked.text for asked in ASKS[1:3])


def test_the_turn_is_only_claimed_where_it_happened():
    assert "mistakes of the reward model" in hacking_turn(outcome_of(GOLD_END(-4.7, 1.1), PROXY_END(6.9, 1.6)))
    assert "did not turn over" in hacking_turn(outcome_of(GOLD_END(1.0, 1.1), PROXY_END(2.0, 1.5)))
    assert "mistakes" not in hacking_turn(outcome_of(GOLD_END(0.2, 1.1), PROXY_END(0.9, 1.5)))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("preferences", {"asked": 12, "steps": 20}, "of pairs it has never seen"),
        ("preferences", {"rule": "you", "clicks": "abba", "steps": 20}, "of choices left out of its training"),
        ("ppo", {"steps": 1, "batch": 8, "pairs": 20}, "nats per card away from the reference"),
        ("ppo", {"rule": "you", "clicks": "abba", "steps": 1, "batch": 8}, "only you can judge"),
        ("hacking", {"steps": 3, "batch": 8, "pairs": 20}, "the true reward ended at"),
        ("hacking", {"rule": "you", "clicks": "abba", "steps": 3, "batch": 8}, "looks like success"),
        ("grpo", {"steps": 3, "questions": 2, "epochs": 1}, "a program said right or wrong"),
        ("dpo", {"steps": 2, "pairs_used": 12, "most_n": 4}, "ranks"),
        ("dpo", {"steps": 2, "pairs_used": 12, "most_n": 4, "answers": "three"}, "the best policy is known exactly"),
    ],
)
def test_every_run_says_what_it_showed(name, settings, words):
    one = find("rlhf", name)
    config = one.config_type(**settings)
    recorder = drain(one.run(config), Recorder(one, config))
    sentences = takeaways(one, recorder.outcome)
    assert words in " ".join(sentences) and all(sentence.endswith(".") for sentence in sentences)
    assert 1 <= sum(figure.headline for figure in recorder.figures) <= 4


def test_ppo_with_a_reward_that_rose_and_a_rule_that_did_not_agree():
    one = find("rlhf", "ppo")
    outcome = outcome_of(PROXY(2.0, 0.0), GOLD(0.1, 0.2), config=one.config_type())
    assert "does not like the new cards better" in takeaways(one, outcome)[0]
    assert takeaways(find("rlhf", "preferences"), outcome_of(SEEN(100.0)))[0].startswith("The run ended")
