"""Pruning: keeping everything is the baseline, the share is exact, the same seed keeps the same windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data_efficiency.fleet import reading_order
from core.data_efficiency.prune import (
    KEPT,
    KINDS,
    LOSS_LEAST,
    Grades,
    Judges,
    PruneConfig,
    Trials,
    crossing,
    kept,
    kept_count,
    pool_sizes,
    prune,
)
from core.foundations.recorder import Recorder, drain

SMALL = {"tokens": 1024, "batch": 2, "width": 8, "context": 16, "seeds": 2, "grading": 512, "sizes": 2}


def some_grades(windows, seed=0):
    rng = np.random.default_rng(seed)
    return Grades(rng.random(windows) + 2, rng.random(windows))


def end_of(config):
    return drain(prune(config), Recorder(prune.experiment, config))


def test_keeping_everything_is_the_baseline_bit_for_bit():
    """The same batches for all kinds, the same as an unpruned run's, and so the same weights."""
    config = PruneConfig(keep=1.0, **SMALL)
    corpus = config.read()
    trials = Trials(config, corpus, some_grades(len(Judges(config, corpus).inputs)))
    pool = trials.pools[0]
    for number, seed in enumerate(config.every_seed):
        drawn = torch.randperm(len(trials.inputs), generator=torch.Generator().manual_seed(seed))[:pool].sort().values
        plain = drawn[reading_order(pool, pool, trials.steps * config.batch, seed)]
        for kind in range(len(KINDS)):
            assert torch.equal(trials.orders[kind * config.seeds + number], plain)
    for _ in range(5):
        list(trials.one_step())
    for weight in trials.fleet.weights.values():
        by = weight.view(len(trials.pools), len(KINDS), config.seeds, *weight.shape[1:])
        for kind in range(1, len(KINDS)):
            assert torch.equal(by[:, kind], by[:, 0])
    last = end_of(config).last.points
    assert all(len(set(point.losses)) == 1 for point in last)


@given(st.integers(1, 300), st.floats(0.1, 1.0), st.integers(0, 9))
def test_the_kept_share_is_exact_and_the_same_every_time(pool, keep, seed):
    grades, windows = some_grades(400, seed), torch.randperm(400, generator=torch.Generator().manual_seed(seed))[:pool]
    for kind in KINDS:
        once, again = (kept(grades.score(kind, seed), windows, keep) for _ in range(2))
        assert torch.equal(once, again) and len(once) == kept_count(pool, keep)
        assert set(once.tolist()) <= set(windows.tolist()) and len(set(once.tolist())) == len(once)
        assert abs(len(once) - keep * pool) <= 0.5 or len(once) == 1


def test_each_kind_keeps_what_its_name_says():
    grades, windows = some_grades(100), torch.arange(100)
    easy, hard, learnable, chance = (
        kept(grades.score(kind, 3), windows, 0.5).numpy() for kind in ("easiest", "hardest", "learnable", "random")
    )
    assert grades.after[easy].max() <= grades.after[hard].min() and not set(easy) & set(hard)
    fall = grades.before - grades.after
    assert fall[learnable].min() >= np.delete(fall, learnable).max()
    assert len({tuple(easy), tuple(hard), tuple(learnable), tuple(chance)}) == 4
    assert not np.array_equal(chance, kept(grades.score("random", 4), windows, 0.5).numpy())


def test_a_window_that_repeats_what_was_learnt_gets_a_better_grade():
    """The judges' loss is a loss: text of one character is easiest once it was read."""
    config = PruneConfig(corpus="own", own_text=("a" * 30 + "xq" + "zkvjw"[::-1]) * 80, **SMALL)
    judges = Judges(config, config.read())
    list(judges.read(0, judges.steps))
    *_, grades = judges.grade()
    letters = [config.read().train[at * 16 : at * 16 + 17] for at in range(len(grades))]
    plain = [grade for grade, own in zip(grades, letters, strict=True) if set(own) == {"a"}]
    assert plain and max(plain) < np.mean(grades)


def test_where_the_curves_cross():
    assert crossing([100, 400], [0.1, -0.1]) == pytest.approx(200)
    assert crossing([100, 400], [-0.1, 0.1]) is None
    assert crossing([100, 400, 1600], [0.3, 0.2, 0.1]) is None


def test_amounts_of_text_grow_fourfold():
    assert pool_sizes(PruneConfig(tokens=32_768, keep=0.5), 8000) == (32, 128, 512, 2048)
    assert pool_sizes(PruneConfig(tokens=32_768, keep=1.0), 500)[-1] == 500


def test_a_run_ends_with_losses_beside_a_random_choice_and_is_the_same_again():
    one, two = (end_of(PruneConfig(**SMALL)) for _ in range(2))
    assert one.last.points == two.last.points and len(one.last.points) == 2
    random, easiest = one.last.points[0].losses[:2]
    figure = one.figures[LOSS_LEAST.of(kind="easiest")]
    assert (figure.expected, figure.measured) == (random, easiest)
    assert one.figures[KEPT].measured == pytest.approx(50, abs=0.1)


def test_a_text_too_small_is_refused(refusal):
    config = PruneConfig(corpus="own", own_text="a small text, and not much of it. " * 6, **SMALL)
    assert "too small" in refusal(lambda: list(prune(config)))
