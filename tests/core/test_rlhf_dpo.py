"""DPO and best-of-n: the loss and its gradient as in the paper, its optimum in closed form, and the KL of best-of-n
counted out.
"""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.figures import by_figure
from core.foundations.recorder import Recorder, drain
from core.rlhf.answers import THREE, Judges, ThreeCards, WholeCards, card_kl
from core.rlhf.best_of_n import (
    Pool,
    best_of,
    best_of_pool,
    divergence,
    frontier,
    kl_formula,
    log_ratio,
    rank_weights,
    rungs,
    tilted,
)
from core.rlhf.dpo import (
    FIRST_LOSS,
    GOLD,
    PROXY,
    TARGET_KL,
    DpoConfig,
    Learner,
    Preferences,
    dpo,
    dpo_loss,
    pair_log_probs,
)
from core.rlhf.policy import SHAPE, Cards, answer_mask, card_log_probs, load_policy, prompts, sample
from core.rlhf.reward import RewardModel

SMALL = {"steps": 3, "pairs_used": 12, "most_n": 16}
chances = st.lists(st.floats(0.02, 1.0), min_size=2, max_size=6).map(
    lambda ws: torch.tensor(ws, dtype=torch.float64) / sum(ws)
)


def rewards_for(p, data, distinct=False):
    values = st.lists(st.integers(-3, 3), min_size=len(p), max_size=len(p), unique=distinct)
    return torch.tensor(data.draw(values), dtype=torch.float64)


@pytest.fixture(scope="module")
def four_pairs():
    """Pairs of the reference's cards, and what it gives them."""
    reference, rng = load_policy(), torch.Generator().manual_seed(3)
    asked = prompts(4, rng)
    tokens = torch.stack([sample(reference, asked, rng).tokens for _ in range(2)], 1)
    mask = answer_mask(tokens.flatten(0, 1)).view(tokens.shape)
    return Preferences(tokens, mask, pair_log_probs(reference, tokens, mask).detach(), torch.ones(4))


@pytest.fixture(scope="module")
def judges():
    model = RewardModel()
    model.taste.data = torch.randn(model.taste.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    return Judges(model.requires_grad_(False), "cheerful")


# --- DPO --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.3, 10.0])
def test_the_loss_of_the_reference_itself_is_ln_2(four_pairs, beta):
    learner = Learner(DpoConfig(beta=beta), four_pairs)
    loss, preferred, other = learner.learn()
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    assert preferred == pytest.approx(0, abs=1e-5) and other == pytest.approx(0, abs=1e-5)


def test_the_gradient_is_the_papers(four_pairs, lively):
    """-beta sigma(r_l - r_w) (grad ln pi(y_w) - grad ln pi(y_l)), card by card, against autograd through the loss."""
    beta, policy = 0.7, lively(SHAPE, 5)
    ratios = pair_log_probs(policy, four_pairs.tokens, four_pairs.mask) - four_pairs.reference
    ours = torch.autograd.grad(dpo_loss(ratios, beta, four_pairs.sure).mean(), list(policy.parameters()))
    theirs = [torch.zeros_like(weight) for weight in policy.parameters()]
    for row in range(4):
        weight = beta * torch.sigmoid(beta * (ratios[row, 1] - ratios[row, 0])).item()
        for card, sign in ((0, -1.0), (1, 1.0)):
            log_p = card_log_probs(
                policy, Cards(four_pairs.tokens[row, card : card + 1], four_pairs.mask[row, card : card + 1])
            ).sum()
            for total, gradient in zip(theirs, torch.autograd.grad(log_p, list(policy.parameters())), strict=True):
                total += sign * weight * gradient / 4
    for mine, papers in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, papers, rtol=1e-3, atol=1e-4)
    assert max(float(one.abs().max()) for one in ours) > 0.01


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.01, 3), st.floats(0, 1))
def test_the_loss_written_naively(preferred, other, beta, sure):
    ratios = torch.tensor([[preferred, other]], dtype=torch.float64)
    margin = beta * (preferred - other)
    chances = [1 / (1 + math.exp(-margin)), 1 / (1 + math.exp(margin))]  # 1 - p has no digits left where p is near 1
    one = float(dpo_loss(ratios, beta, torch.tensor([sure], dtype=torch.float64)))
    naive = -sure * math.log(chances[0]) - (1 - sure) * math.log(chances[1]) if min(chances) > 0 else one
    assert one == pytest.approx(naive, rel=1e-6, abs=1e-9)
    swapped = float(dpo_loss(ratios.flip(1), beta, torch.tensor([1 - sure], dtype=torch.float64)))
    assert one == pytest.approx(swapped, rel=1e-9)


@given(chances, st.floats(0.3, 3.0), st.data())
def test_the_optimum_of_dpo_is_the_optimum_of_rlhf(p, beta, data):
    """A table of logits, trained by the expected DPO loss of Bradley-Terry preferences, must end at p e^(r / beta)
    / Z.
    """
    rewards = rewards_for(p, data)
    first, second = torch.triu_indices(len(p), len(p), 1)
    sure, logits = torch.sigmoid(rewards[first] - rewards[second]), p.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-11, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        ratios = torch.log_softmax(logits, 0) - p.log()
        loss = dpo_loss(torch.stack([ratios[first], ratios[second]], 1), beta, sure).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(torch.softmax(logits.detach(), 0), tilted(p, rewards, beta), rtol=1e-3, atol=1e-4)


@given(chances, st.floats(0.1, 5.0), st.integers(0, 1000), st.data())
def test_no_policy_earns_more_than_the_tilted_one(p, beta, seed, data):
    rewards, best = rewards_for(p, data), None
    for q in (
        tilted(p, rewards, beta),
        torch.softmax(torch.randn(len(p), generator=torch.Generator().manual_seed(seed)).double(), 0),
        p,
    ):
        value = float(q @ rewards - beta * divergence(q, p))
        best = value if best is None else best
        assert value <= best + 1e-9


def test_the_ceiling_starts_at_the_reference_and_rises():
    p, rewards = torch.full((2, 50), 0.02), torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    curve = frontier(p, rewards, 2.0)
    assert curve[0][0] < 1e-3 and curve[-1][0] <= 2.0 and len(curve) > 5
    assert all(later > kl and more > reward for (kl, reward), (later, more) in itertools.pairwise(curve))
    for n in (2, 4):  # best-of-n lies under it
        kl = float(torch.stack([divergence(best_of(q, r, n), q) for q, r in zip(p, rewards, strict=True)]).mean())
        reward = float(torch.stack([best_of(q, r, n) @ r.double() for q, r in zip(p, rewards, strict=True)]).mean())
        above = next(more for later, more in curve if later > kl)
        assert reward < above


# --- best of n --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "kl"), [(1, 0.0), (2, 0.1931), (4, 0.6363), (16, 1.8351), (64, 3.1745)])
def test_golden_numbers_of_the_formula(n, kl):
    assert kl_formula(n) == pytest.approx(kl, abs=5e-5)


def test_the_formula_holds_where_answers_are_many():
    p, rewards = torch.full((3000,), 1 / 3000), torch.randn(3000, generator=torch.Generator().manual_seed(0))
    for n in (1, 4, 16, 64):
        assert float(divergence(best_of(p, rewards, n), p)) == pytest.approx(kl_formula(n), abs=0.02)


def test_the_formula_fails_where_answers_are_three():
    p, rewards = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0])
    kl = float(divergence(best_of(p, rewards, 64), p))
    assert kl == pytest.approx(1.609, abs=5e-4) and kl <= -math.log(0.2)
    assert kl_formula(64) == pytest.approx(3.175, abs=5e-4)


@given(chances, st.integers(1, 4), st.data())
def test_best_of_n_is_what_trying_all_draws_gives(p, n, data):
    """All ways to draw n answers, with their probabilities; equal rewards at random, each draw alike."""
    rewards = rewards_for(p, data)
    counted = torch.zeros(len(p), dtype=torch.float64)
    for drawn in itertools.product(range(len(p)), repeat=n):
        top = [i for i in drawn if rewards[i] == rewards[list(drawn)].max()]
        for i in top:
            counted[i] += p[list(drawn)].prod() / len(top)
    torch.testing.assert_close(best_of(p, rewards, n), counted)


@given(chances, st.integers(1, 128), st.data())
def test_the_formula_is_an_upper_bound(p, n, data):
    rewards = rewards_for(p, data)
    q = best_of(p, rewards, n)
    assert float(q.sum()) == pytest.approx(1) and float(q.min()) >= 0
    assert float(divergence(q, p)) <= kl_formula(n) + 1e-9
    assert float(divergence(q, p)) <= -math.log(float(p[rewards == rewards.max()].sum())) + 1e-9
    torch.testing.assert_close(best_of(p, rewards, 1), p)


@pytest.mark.parametrize(("count", "n"), [(7, 1), (7, 3), (7, 7)])
def test_rank_weights_are_counted_subsets(count, n):
    subsets = list(itertools.combinations(range(count), n))
    counted = [sum(max(subset) == rank for subset in subsets) / len(subsets) for rank in range(count)]
    assert rank_weights(count, n).tolist() == pytest.approx(counted)


def test_more_answers_than_there_are_is_refused(refusal):
    assert refusal(rank_weights, 4, 5) == "n must be at most the 4 answers there are, got 5"


@pytest.mark.parametrize("most", [1, 2, 5, 64, 100])
def test_rungs_end_at_the_most(most):
    ns = rungs(most)
    assert ns[0] == 1 and ns[-1] == most and all(low < high <= 2 * low for low, high in itertools.pairwise(ns))


def test_the_pool_measures_what_is_known():
    """Rewards without ties: the formula, within its own error. Three answers, drawn: what enumeration gives."""
    rng = torch.Generator().manual_seed(0)
    smooth = torch.randn(24, 384, generator=rng)
    p, values = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0])
    few = values[torch.multinomial(p, 24 * 384, replacement=True, generator=rng)].view(24, 384)
    for n in (2, 16, 64):
        one, three = best_of_pool(Pool(smooth, -smooth), n), best_of_pool(Pool(few, few), n)
        assert one.kl == pytest.approx(kl_formula(n), abs=4 * one.kl_error) and 0 < one.kl_error < 0.15
        assert one.gold == pytest.approx(-one.proxy)
        q = best_of(p, values, n)
        assert three.kl == pytest.approx(float(divergence(q, p)), abs=0.05)
        assert three.proxy == pytest.approx(float(q @ values.double()), abs=0.05)
    alone = best_of_pool(Pool(smooth, -smooth), 1)
    assert alone.kl == 0 and alone.proxy == pytest.approx(float(smooth.mean()), abs=1e-6)


def test_an_answer_of_the_pool_counts_itself_in():
    """The worst of all has F = 1 / (others + 1), so its ratio is finite."""
    assert log_ratio(torch.tensor([-1.0]), torch.tensor([0.0, 1.0, 2.0]), 3).tolist() == pytest.approx(
        [math.log(3) + 2 * math.log(1 / 4)]
    )


# --- the two answer spaces --------------------------------------------------------------------------------------------


def test_kl_of_whole_cards_is_the_mean_log_ratio(lively):
    """Word by word and exact over the vocabulary, it is what ln pi - ln pi_ref of the drawn cards is on average; 0 for
    the reference.
    """
    reference, policy, rng = load_policy(), load_policy(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        policy.head.weight += 0.15 * torch.randn(policy.head.weight.shape, generator=rng) * policy.head.weight.std()
        cards = sample(policy, prompts(400, rng), rng)
        logs = card_log_probs(policy, cards) - card_log_probs(reference, cards)
    exact = card_kl(policy, reference, cards)
    assert float(exact.mean()) > 0.02 and float(exact.std()) < float(logs.std())
    assert float(exact.mean()) == pytest.approx(float(logs.mean()), abs=4 * float(logs.std()) / 20)
    assert card_kl(reference, reference, cards).abs().max() < 1e-6


def test_three_cards_have_the_policys_own_odds(judges):
    three = ThreeCards("cheerful")
    with torch.no_grad():
        logs = card_log_probs(load_policy(), Cards(three.tokens, three.mask)).double()
    assert float(three.p.sum()) == pytest.approx(1) and len(three.p) == len(THREE)
    assert math.log(three.p[0] / three.p[1]) == pytest.approx(float(logs[0] - logs[1]), abs=1e-5)
    assert three.seen(three.p, judges).kl == pytest.approx(0, abs=1e-12)
    assert three.kl_of_best(judges, [10**6])[0] == pytest.approx(three.cap(judges))


def test_equal_policies_write_equal_cards(judges):
    space = WholeCards("cheerful", 7)
    assert space.written(load_policy()) == space.written(space.reference)
    assert WholeCards("cheerful", 8).written(load_policy()) != space.written(space.reference)


# --- the run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps():
    return list(dpo(DpoConfig(**SMALL)))


def figures_of(steps):
    return by_figure(result for step in steps for result in step.figures)


def test_a_run_starts_at_the_reference(steps):
    first, best = steps[0], next(step for step in steps if step.best)
    assert first.path == ((0, 0.0, 0.0, 0.0),) and first.before == first.after and first.before.count("\n") == 3
    assert best.best[0] == pytest.approx((1, 0.0, 0.0, 0.0), abs=1e-5), "best of 1 is the reference"
    looks = [step for step in steps if step.held_out is not None]
    assert looks[0].path[0] == pytest.approx((0, 0.0, 0.0, 0.0), abs=1e-6) and looks[0].held_out == pytest.approx(
        math.log(2), abs=1e-6
    )
    assert [step.step for step in looks] == [0, 1, 2, 3] and looks[0].accuracy == pytest.approx(0.5, abs=0.1)
    assert looks[0].after == first.before and looks[-1].path[-1][1] > 0


def test_a_run_begins_at_ln_2(steps):
    figures = figures_of(steps)
    assert figures[FIRST_LOSS].expected == math.log(2) and abs(figures[FIRST_LOSS].gap) < 1e-6


def test_the_same_seed_gives_the_same_run(steps):
    again = list(dpo(DpoConfig(**SMALL)))
    assert [json.dumps(step.plain()) for step in again] == [json.dumps(step.plain()) for step in steps]
    assert next(dpo(DpoConfig(**SMALL, seed=1))).before != steps[0].before


def test_with_three_answers_dpo_ends_where_theory_says():
    figures = figures_of(dpo(DpoConfig(**SMALL | {"steps": 100}, answers="three", beta=1.0)))
    kl = figures[TARGET_KL]
    assert kl.expected > 0.02 and kl.measured == pytest.approx(kl.expected, rel=0.1)


def test_of_your_own_taste_nobody_knows_the_gold():
    config = DpoConfig(rule="you", clicks="abbaabbabb", steps=1, most_n=2)
    recorder = drain(dpo(config), Recorder(dpo.experiment, config))
    assert GOLD not in recorder.figures and PROXY in recorder.figures
    json.dumps(recorder.report(), allow_nan=False)


def test_a_run_whose_weights_explode_ends_and_says_so(monkeypatch):
    """Here they are made to: one weight is no number after the first step."""
    learn = Learner.learn

    def explode(learner):
        told = learn(learner)
        with torch.no_grad():
            next(learner.policy.parameters())[0, 0] = math.nan
        return told

    monkeypatch.setattr(Learner, "learn", explode)
    *_, last = dpo(DpoConfig(**SMALL, answers="three"))
    assert last.diverged and last.step == 1 and "learning rate" in last.doing and last.figures


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"beta": 0}, "beta must be at least 0.01, got 0"),
        ({"most_n": 129}, "most_n must be at most 128 answers, got 129"),
        ({"pairs_used": 1}, "pairs_used must be at least 2 pairs, got 1"),
        ({"answers": "none"}, "answers must be one of cards, three, got 'none'"),
    ],
)
def test_bad_settings_get_one_sentence(refusal, told, words):
    assert refusal(DpoConfig, **told) == words


def test_one_click_is_not_enough(refusal):
    assert refusal(lambda: list(dpo(DpoConfig(rule="you", clicks="a")))).startswith("At least 2 choices are needed")
