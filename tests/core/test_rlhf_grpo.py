"""GRPO: against the paper's sum written as loops, against autograd, and what it teaches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.figures import by_figure
from core.rlhf.grpo import (
    BELOW,
    KL,
    LONGEST,
    RIGHT,
    SIDES,
    SILENT,
    Grpo,
    GrpoConfig,
    advantages,
    grpo,
    k3,
    objective,
    pushes,
    right,
)
from core.rlhf.policy import prompts
from core.rlhf.ppo_parts import exact_kl

QUICK = {"steps": 4, "questions": 2, "group": 4, "epochs": 1}


def some(seed=0, cards=6, places=9):
    """ln p now, when drawn, by the reference; which places are an answer's words."""
    rng = torch.Generator().manual_seed(seed)
    log_p, old, ref = (-torch.rand(cards, places, generator=rng) * 3 for _ in range(3))
    lengths = torch.randint(1, places - 2, (cards,), generator=rng)
    at = torch.arange(places)
    return log_p, old, ref, (at >= 3) & (at < 3 + lengths[:, None])


@pytest.mark.parametrize("method", ["grpo", "dr"])
@given(seed=st.integers(0, 99))
def test_the_objective_is_the_paper_s_sum(method, seed):
    log_p, old, ref, mask = some(seed)
    rewards = torch.randint(0, 2, (2, 3), generator=torch.Generator().manual_seed(seed)).float()
    config = GrpoConfig(method=method, beta=0.1, clip=0.2)
    advantage = advantages(rewards, method).flatten()
    total = 0.0
    for group in range(2):
        mean = sum(rewards[group].tolist()) / 3
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards[group].tolist()) / 2)
        for i in range(3):
            card, words = 3 * group + i, []
            a = rewards[group, i].item() - mean
            a = a / (std + 1e-4) if method == "grpo" else a
            for t in mask[card].nonzero().flatten().tolist():
                ratio = math.exp(log_p[card, t] - old[card, t])
                apart = math.exp(ref[card, t] - log_p[card, t])
                penalty = 0.1 * (apart - math.log(apart) - 1)
                words.append(min(ratio * a, min(max(ratio, 0.8), 1.2) * a) - penalty)
            total += sum(words) / (len(words) if method == "grpo" else LONGEST) / 6
    assert float(objective(log_p, old, ref, advantage, mask, config)) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(("method", "side"), [("grpo", 1), ("dr", 2)])
def test_the_pushes_are_the_gradient_of_the_objective(method, side):
    log_p, _, _, mask = some()
    log_p.requires_grad_()
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    config = GrpoConfig(method=method, beta=0.0)
    gain = objective(log_p, log_p.detach(), log_p.detach(), advantages(rewards, method).flatten(), mask, config)
    (gradient,) = torch.autograd.grad(gain, log_p)
    wanted = pushes(rewards, mask)[side][:, None] * mask / mask.sum()
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


def test_whitening_pushes_all_right_answers_alike_and_has_mean_0_over_the_words():
    *_, mask = some()
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    ppo, grpo_, dr = pushes(rewards, mask)
    assert len(SIDES) == 3
    assert ppo[rewards.flatten() == 1].std() < 1e-6 and float((ppo * mask.sum(1)).sum()) == pytest.approx(0, abs=1e-5)
    for side in (grpo_ * mask.sum(1), dr):  # each answer's whole push: those of a group cancel
        assert side.view(2, 3).sum(1).abs().max() < 1e-4


@given(rewards=st.lists(st.integers(0, 1), min_size=2, max_size=12), method=st.sampled_from(["grpo", "dr"]))
def test_a_group_without_signal_pushes_nothing(rewards, method):
    group = advantages(torch.tensor([rewards], dtype=torch.float32), method)[0]
    assert abs(float(group.sum())) < 1e-4
    if len(set(rewards)) == 1:
        assert group.abs().max() == 0
    else:
        assert all((a > 0) == bool(r) for a, r in zip(group.tolist(), rewards, strict=True))


@given(seed=st.integers(0, 99))
def test_k3_is_never_below_0_and_right_on_average(seed):
    rng = torch.Generator().manual_seed(seed)
    log_p, log_q = (torch.log_softmax(2 * torch.randn(1, 1, 12, generator=rng), -1) for _ in range(2))
    each = k3(log_p[0], log_q[0])  # of every word that could be drawn
    assert each.min() >= -1e-6
    assert float((log_p[0].exp() * each).sum()) == pytest.approx(float(exact_kl(log_p, log_q)), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("card", "task", "good"),
    [
        ("dear anna , the sea is calm and the boat is warm .", "sea", True),
        ("dear anna , the sea is calm .", "sea", False),
        ("dear anna , the sea and the sea is calm .", "sea", True),
        ("dear anna , the sea the boat the fish .", "sea", False),
        ("dear anna , the sea is calm and the boat is warm", "sea", False),
        ("hi ben , i miss the sea !", "short", True),
        ("hi ben , i miss the sea . we saw the boat !", "short", False),
        ("hi ben , i miss the sea ! wish you were here .", "farewell", True),
        ("hi ben , i miss the sea ! wish you were .", "farewell", False),
        ("hi ben , i miss the sea . i love the sea . love from us !", "farewell", False),
    ],
)
def test_the_program_says_right_or_wrong(card, task, good):
    assert right(card.split(), task) == good


def test_answers_of_a_group_have_one_prompt():
    trainer = Grpo(GrpoConfig(**QUICK))
    cards = trainer.write(prompts(3, trainer.rng), 4, trainer.rng)
    starts = cards.tokens[:, :4].view(3, 4, 4)
    assert (starts == starts[:, :1]).all()
    batch = trainer.checked(cards, 4)
    assert batch.rewards.shape == (3, 4) and batch.kl.abs().max() < 1e-6  # it is the reference still
    assert (batch.log_p - batch.log_ref).abs().max() < 1e-6


def test_it_learns_the_task():
    *_, last = steps = list(grpo(GrpoConfig(task="short", steps=12)))
    told = by_figure(last.figures)
    assert told[RIGHT].measured > told[RIGHT].expected + 30
    assert told[SILENT].measured > told[SILENT].expected
    assert told[BELOW].measured == 0
    assert told[KL].measured == pytest.approx(told[KL].expected, rel=0.5)
    shares = [step.right for step in steps if step.right is not None]
    assert len(shares) == 13 and all(0 <= share <= 1 for share in shares)
    group = next(step for step in steps if step.group)
    assert [answer.reward for answer in group.group] != [group.group[0].reward] * 8
    assert group.mean == pytest.approx(sum(answer.reward for answer in group.group) / 8)
    for answer in group.group:
        assert len(answer.looks) == answer.words and len(answer.pushes) == len(SIDES)
        assert all(look.advantage == pytest.approx(answer.advantage) for look in answer.looks)


def test_the_same_seed_is_the_same_run():
    one, again, other = (
        [step.right for step in grpo(GrpoConfig(**QUICK, seed=seed)) if step.right is not None] for seed in (1, 1, 2)
    )
    assert one == again != other


def test_too_many_answers_are_refused(refusal):
    assert "at most 512 answers" in refusal(GrpoConfig, group=32, questions=64)
