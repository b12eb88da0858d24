"""PPO's parts against the plain way to compute them, the loop at the reference, what is told of a word, and reward
hacking.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.foundations.recorder import Recorder, drain
from core.foundations.transformer import Shape
from core.rlhf.hacking import (
    FORMS,
    GOLD_END,
    LARGE_BETA,
    PROXY_END,
    HackingConfig,
    fitted,
    gold_at,
    habits,
    hacking,
    named,
    smoothed,
)
from core.rlhf.policy import load_policy, log_probs, prompts, sample
from core.rlhf.postcards import LENGTH, gold_of, tokens_of
from core.rlhf.ppo import FIRST_RATIO, GOLD, KL, PROXY, Ppo, PpoConfig, gold_judge, looked, ppo, same_draw
from core.rlhf.ppo_parts import Actor, clipped_objective, exact_kl, gae, is_clipped, rewards_of, value_loss, whitened

SMALL = {"steps": 3, "batch": 8, "pairs": 20}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed))


def equal_for_all(tokens):
    return torch.full((len(tokens),), 0.5)


def longest(tokens):
    return tokens.ne(tokens[:, -1:]).sum(1).float() / 10


def rounds_of(trainer, steps):
    return [part for step in range(1, steps + 1) for part in trainer.one_step(step) if part is not None]


# --- the parts --------------------------------------------------------------------------------------------------------

series = st.integers(1, 9).flatmap(
    lambda n: st.tuples(*(arrays(np.float64, (2, n), elements=st.floats(-5, 5)) for _ in "rv"))
)
share = st.floats(0, 1)


@given(series, share, share)
def test_gae_is_the_discounted_sum_of_td_errors(both, gamma, gae_lambda):
    """A_t = sum over k of (gamma lambda)^k delta_(t+k): equation 16 of the paper, one term at a time."""
    rewards, values = (torch.from_numpy(x) for x in both)
    following = F.pad(values, (0, 1))[:, 1:]
    delta = rewards + gamma * following - values
    length = rewards.shape[1]
    plain = [sum((gamma * gae_lambda) ** k * delta[:, t + k] for k in range(length - t)) for t in range(length)]
    torch.testing.assert_close(gae(rewards, values, gamma, gae_lambda), torch.stack(plain, 1))


@given(series, share)
def test_lambda_1_is_returns_minus_values_and_lambda_0_the_td_error(both, gamma):
    rewards, values = (torch.from_numpy(x) for x in both)
    length = rewards.shape[1]
    returns = torch.stack([sum(gamma**k * rewards[:, t + k] for k in range(length - t)) for t in range(length)], 1)
    torch.testing.assert_close(gae(rewards, values, gamma, 1.0), returns - values)
    torch.testing.assert_close(
        gae(rewards, values, gamma, 0.0), rewards + gamma * F.pad(values, (0, 1))[:, 1:] - values
    )


def test_the_score_comes_at_the_last_word_and_the_penalty_at_each():
    kl = torch.tensor([[0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    mask = torch.tensor([[False, True, True, True], [False, True, False, False]])
    told = rewards_of(torch.tensor([5.0, 7.0]), kl, mask, beta=0.1)
    torch.testing.assert_close(told, torch.tensor([[0.0, -0.1, -0.2, 5.0], [0.0, 6.9, 0.0, 0.0]]))


def test_whitening_counts_the_answers_words_only():
    mask = normal(6, 9, seed=1) > 0
    white = whitened(normal(6, 9) * 3 + 2 + 100.0 * ~mask, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-5)
    assert float(white[mask].std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert not white[~mask].any()


def test_equal_advantages_whiten_to_zero():
    """Also with numbers that float32 cannot hold: rounding must not be blown up to variance 1."""
    mask = torch.ones(5, 7, dtype=torch.bool)
    assert whitened(torch.full((5, 7), 0.3), mask).abs().max() < 1e-2


@given(st.floats(0.1, 3), st.floats(-3, 3), st.floats(0.05, 0.9))
def test_a_clipped_word_has_gradient_exactly_0_and_any_other_the_plain_one(ratio, advantage, clip):
    if min(abs(ratio - 1 - clip), abs(ratio - 1 + clip)) < 1e-4 or abs(advantage) < 1e-3:
        return  # on the bend itself both are right
    r, a = torch.tensor(ratio, requires_grad=True), torch.tensor(advantage)
    (slope,) = torch.autograd.grad(clipped_objective(r, a, clip), r)
    beyond = ratio > 1 + clip if advantage > 0 else ratio < 1 - clip
    assert bool(is_clipped(r.detach(), a, clip)) == beyond
    assert float(slope) == (0.0 if beyond else pytest.approx(advantage, rel=1e-6))


def test_the_objective_has_the_two_shapes_of_the_papers_figure():
    ratio = torch.tensor([0.5, 0.8, 1.0, 1.2, 1.5])
    torch.testing.assert_close(
        clipped_objective(ratio, torch.tensor(1.0), 0.2), torch.tensor([0.5, 0.8, 1.0, 1.2, 1.2])
    )
    torch.testing.assert_close(
        clipped_objective(ratio, torch.tensor(-1.0), 0.2), torch.tensor([-0.8, -0.8, -1.0, -1.2, -1.5])
    )


def test_a_value_gains_nothing_by_leaving_the_clip():
    new = torch.tensor([0.1, 0.9, -0.9], requires_grad=True)
    loss = value_loss(new, torch.zeros(3), torch.ones(3), 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.5 * 0.9**2, 0.5 * 0.8**2, 0.5 * 1.9**2]))
    loss.sum().backward()
    assert new.grad[1] == 0 and new.grad[0] != 0 and new.grad[2] != 0


def test_the_penalty_of_drawn_words_is_the_exact_kl_on_average():
    """ln p - ln q of words drawn from p: their mean is KL(p || q), within three standard errors of 20,000 draws."""
    log_p, log_q = (F.log_softmax(normal(5, seed=seed), -1) for seed in (0, 1))
    drawn = torch.multinomial(log_p.exp(), 20_000, replacement=True, generator=rng())
    told, exact = (log_p - log_q)[drawn], float(exact_kl(log_p, log_q))
    assert exact == pytest.approx(float(F.kl_div(log_q, log_p, log_target=True, reduction="sum")), rel=1e-6)
    assert abs(float(told.mean()) - exact) < 3 * float(told.std()) / math.sqrt(len(told))


# --- policy and value in one network ----------------------------------------------------------------------------------


def test_the_actor_gives_the_policys_own_probabilities_and_values_of_zero(lively):
    model = lively(Shape(vocabulary=11, n_layer=2, n_head=2, width=16, context=12))
    tokens = torch.randint(11, (3, 12), generator=rng())
    with torch.no_grad():
        all_p, values = Actor(model)(tokens, 1.0)
        torch.testing.assert_close(all_p.gather(2, tokens[:, 1:, None])[..., 0], log_probs(model, tokens)[:, 1:])
        warm, _ = Actor(model)(tokens, 2.0)
        torch.testing.assert_close(warm, F.log_softmax(model(tokens[:, :-1]) / 2.0, -1))
    assert not values.any()


def test_at_the_reference_the_kl_is_0_and_every_ratio_is_1():
    trainer = Ppo(PpoConfig(**SMALL), equal_for_all)
    rollout = trainer.roll_out(same_draw(load_policy(), 16, trainer.config, 1))
    assert not rollout.kl.any() and rollout.kl_exact.abs().max() < 1e-6
    ratio, _ = trainer.learn(rollout, torch.arange(16))
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)


def test_equal_rewards_leave_nothing_to_learn():
    """All cards score the same, no value is known yet, nothing is discounted: every advantage is whitened to 0, the
    policy stays.
    """
    trainer = Ppo(PpoConfig(gae_lambda=1.0, learning_rate=0.01, **SMALL), equal_for_all)
    before = [weight.clone() for weight in trainer.actor.policy.parameters()]
    rollout = trainer.roll_out(same_draw(load_policy(), 16, trainer.config, 1))
    _, advantage = trainer.learn(rollout, torch.arange(16))
    assert not advantage.any()
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.actor.policy.parameters(), strict=True))
    assert trainer.actor.value.weight.any(), "the value head has learned what to expect"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cards_that_score_better_become_more_probable(seed):
    """With steps so small that a card far from the others cannot decide the mean."""
    trainer = Ppo(PpoConfig(beta=0.0, learning_rate=3e-4, **(SMALL | {"seed": seed})), longest)
    cards = same_draw(load_policy(), 64, trainer.config, 1)
    rollout = trainer.roll_out(cards)
    for _ in range(5):
        trainer.learn(rollout, torch.arange(64))
    change = ((trainer.roll_out(cards).log_p - rollout.log_p) * rollout.mask).sum(1)
    better = rollout.score > rollout.score.mean()
    assert change[better].mean() > change[~better].mean() + 0.03


def test_the_penalty_holds_the_policy():
    kls = [
        rounds_of(Ppo(PpoConfig(beta=beta, steps=6, batch=16, seed=1), longest), 6)[-1].kl_exact for beta in (0.0, 2.0)
    ]
    assert kls[0] > 2 * kls[1] > 0


def test_a_rollout_keeps_the_whole_card():
    """It is cut to the longest card of the batch: what the rule says of it must not change."""
    config = PpoConfig(**SMALL)
    cards = same_draw(load_policy(), 24, config, 1)
    rollout = Ppo(config, equal_for_all).roll_out(cards)
    assert rollout.tokens.shape[1] <= LENGTH
    torch.testing.assert_close(gold_of(rollout.tokens, "cheerful"), gold_of(cards.tokens, "cheerful"))
    assert torch.equal(rollout.mask.sum(1), cards.mask.sum(1))


def test_what_is_told_of_a_word_is_what_autograd_says():
    tokens, mask = (
        tokens_of([["<start>", "hi", "ben", ",", "the", "sea", "is"]])[0][:7],
        torch.tensor([False, False, False, True, True, True]),
    )
    ratio, advantage = torch.tensor([9.0, 9.0, 9.0, 1.5, 1.5, 1.1]), torch.tensor([0.0, 0.0, 0.0, 2.0, -2.0, 0.5])
    looks = looked(tokens, mask, ratio, advantage, 0.2)
    assert [(look.word, look.clipped) for look in looks] == [("the", True), ("sea", False), ("is", False)]
    assert [look.slope for look in looks] == [0.0, pytest.approx(-3.0), pytest.approx(0.55)]


def test_gold_is_counted_in_standard_deviations_and_nobodys_with_your_clicks():
    cards = sample(load_policy(), prompts(64, rng()), rng())
    told = gold_judge("sailor", cards.tokens)(cards.tokens)
    assert float(told.mean()) == pytest.approx(0, abs=1e-5) and float(told.std()) == pytest.approx(1, abs=1e-5)
    assert gold_judge("you", cards.tokens) is None


# --- the experiment ---------------------------------------------------------------------------------------------------


def plain_steps(run):
    return [step.plain() | {"looks": step.looks} for step in run]


def test_the_same_seed_gives_the_same_run():
    config = PpoConfig(**SMALL)
    first = plain_steps(ppo(config))
    assert first == plain_steps(ppo(config))
    assert first != plain_steps(ppo(PpoConfig(seed=1, **SMALL)))


def test_ppo_raises_the_reward_it_is_paid_for():
    config = PpoConfig(steps=10, batch=32)
    recorder = drain(ppo(config), Recorder(ppo.experiment, config))
    assert recorder.figures[PROXY].measured > 0.5
    assert recorder.figures[GOLD].measured - recorder.figures[GOLD].expected > 0.5
    kl = recorder.figures[KL]
    assert kl.measured == pytest.approx(kl.expected, rel=0.3) and kl.expected > 0.1
    assert recorder.figures[FIRST_RATIO].measured < 1e-4


def test_with_your_clicks_there_is_no_gold(refusal):
    config = PpoConfig(rule="you", clicks="abba", **SMALL)
    steps = list(ppo(config))
    assert all(step.gold is None for step in steps)
    assert [result.figure for step in steps for result in step.figures] == [PROXY, KL, FIRST_RATIO]
    assert refusal(lambda: list(ppo(PpoConfig(rule="you", **SMALL)))).startswith("At least 2 choices are needed")
    story = [step.story for step in hacking(HackingConfig(rule="you", clicks="abba", **SMALL)) if step.story]
    assert len(story) == 1 and "only you can judge" in story[0][0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", -0.1), ("clip", 0.0), ("gamma", 1.5), ("gae_lambda", -1), ("minibatches", 0), ("temperature", 0.0)],
)
def test_a_bad_knob_says_so(field, value, refusal):
    for config in (PpoConfig, HackingConfig):
        assert refusal(config, **{field: value}).startswith(f"{field} must be at ")


# --- hacking ----------------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 3), st.floats(0.1, 3), st.sampled_from(sorted(FORMS)))
def test_the_fit_finds_the_numbers_of_its_own_curve_and_its_height(alpha, gamma, form):
    d = np.linspace(0.2, 8, 400)
    points = [
        (i, x, 0.0, float(y)) for i, (x, y) in enumerate(zip(d, FORMS[form](d) @ np.array([alpha, gamma]), strict=True))
    ]
    fit = next(fit for fit in fitted(points) if fit.form == form)
    np.testing.assert_allclose(fit.numbers, [alpha, gamma], rtol=1e-6)
    assert fit.error < 1e-6
    fine = np.linspace(1e-3, 40, 400_000)
    if fine[fit.at(fine).argmax()] < 39:
        assert fit.height == pytest.approx(float(fit.at(fine).max()), rel=1e-3)


def test_no_curve_without_gold_or_without_points():
    assert fitted([(i, float(i), 1.0, None) for i in range(9)]) == ()
    assert fitted([(0, 0.0, 0.0, 0.0), (1, 1.0, 1.0, 1.0)]) == ()


def test_gold_at_a_distance_is_read_off_between_two_rounds():
    points = [(0, 0.0, 0.0, 0.0), (1, 2.0, 0.0, 1.0), (2, 4.0, 0.0, -1.0)]
    assert gold_at(1.0, points) == pytest.approx(0.5) and gold_at(3.0, points) == pytest.approx(0.0)
    assert gold_at(5.0, points) is None


def test_smoothing_takes_the_neighbours():
    assert smoothed([3.0, 0.0, 3.0, 6.0]) == [1.5, 2.0, 3.0, 4.5]


PLAIN = ["<start>", "dear", "ben", ",", "the", "sea", "is", "calm", ".", "<end>"]


def test_habits_are_counted_and_named():
    shouting = ["<start>", "dear", "ben", ",", "happy", "happy", "happy", "the", "sea", "happy", "<end>"]
    before, after = habits(tokens_of([PLAIN] * 4)), habits(tokens_of([shouting] * 4))
    assert (before.words, before.no_end, before.in_a_row, before.third_time, before.different) == (3, 0, 0, 0, 0.25)
    assert (after.words, after.no_end, after.in_a_row, after.third_time) == (5, 1, 2, 2)
    told = named(before, after)
    assert told[0] == "“happy” 4.0 times a card, 0.0 in the reference's."
    assert [
        sentence for sentence in told if "do not end" in sentence or "in a row" in sentence or "third time" in sentence
    ] == told[1:4]
    assert named(before, before) == []


def test_three_runs_go_side_by_side_and_zero_is_always_among_them():
    assert HackingConfig(beta=0.1, large_beta=0.5).betas == (0.0, 0.1, 0.5)
    assert HackingConfig(beta=0.0).betas == (0.0, HackingConfig().large_beta)
    config = HackingConfig(**SMALL)
    *_, last = hacking(config)
    assert [beta for beta, _ in last.curves] == list(config.betas)
    assert {len(points) for _, points in last.curves} == {config.steps + 1}
    firsts = {points[1] for _, points in last.curves}
    assert len(firsts) == 1, "all runs begin with the same answers of the reference"


@pytest.mark.slow
def test_with_the_defaults_gold_turns_over_while_the_proxy_rises():
    """The lesson itself, on the default run."""
    recorder = drain(hacking(HackingConfig()), Recorder(hacking.experiment, HackingConfig()))
    told = recorder.figures
    assert told[GOLD_END].expected > 0.5 and told[GOLD_END].measured - told[GOLD_END].expected < -0.5
    assert told[PROXY_END].measured - told[PROXY_END].expected > 0.5
    assert told[LARGE_BETA.of(beta=f"{HackingConfig().large_beta:g}")].measured > 0.3
