"""The filters against transformers' own, the dice against their distribution, the writing loop against the whole
text.
"""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.foundations.sampling import Choice, draw, probabilities, write
from core.foundations.transformer import Shape

EIGHTHS = st.lists(st.integers(-80, 80), min_size=2, max_size=40, unique=True)  # logits far enough apart that none tie
ALMOST_ONE = 1 - 2**-24  # the largest number that torch.rand can return


@settings(max_examples=100)
@given(
    eighths=EIGHTHS,
    temperature=st.floats(0.1, 5),
    k=st.integers(0, 50),
    place=st.integers(0, 5),
    beside=st.sampled_from([-1e-3, 1e-3, None]),
    p=st.floats(0.01, 1),
)
def test_filters_equal_those_of_transformers(eighths, temperature, k, place, beside, p):
    """Most p lie just beside a cumulative probability, where one token more or less is kept."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.tensor(eighths) / 8
    warped = TemperatureLogitsWarper(temperature)(None, logits[None])
    if k:
        warped = TopKLogitsWarper(k)(None, warped)
    sums = torch.softmax(warped[0].double(), -1).sort(descending=True).values.cumsum(-1)
    if beside is not None:
        p = min(1.0, max(0.01, float(sums[place % len(sums)]) + beside))
    if p < 1:
        assume(((sums - p).abs() > 1e-5).all())
        warped = TopPLogitsWarper(p)(None, warped)
    torch.testing.assert_close(
        probabilities(logits, Choice(temperature, k, p)), torch.softmax(warped[0], -1), atol=1e-6, rtol=1e-4
    )


@given(eighths=EIGHTHS, place=st.integers(0, 40), beside=st.sampled_from([-1e-3, 1e-3]))
def test_min_p_equals_that_of_transformers(eighths, place, beside):
    """The limit lies just beside the share of one of the tokens, which stays or goes."""
    from transformers import MinPLogitsWarper

    logits = torch.tensor(eighths) / 8
    p = torch.softmax(logits, -1)
    limit = min(1.0, max(1e-3, float(p[place % len(p)] / p.max()) + beside))
    warped = MinPLogitsWarper(limit)(None, logits[None])
    torch.testing.assert_close(probabilities(logits, Choice(min_p=limit)), torch.softmax(warped[0], -1))


@given(eighths=EIGHTHS, penalty=st.floats(1.01, 3), earlier=st.lists(st.integers(0, 39), min_size=1, max_size=9))
def test_the_penalty_equals_that_of_transformers(eighths, penalty, earlier):
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, earlier = torch.tensor(eighths) / 8, [token % len(eighths) for token in earlier]
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([earlier]), logits[None].clone())
    found = probabilities(logits, Choice(penalty=penalty), earlier)
    torch.testing.assert_close(found, torch.softmax(theirs[0], -1))
    assert torch.equal(probabilities(logits, Choice(penalty=penalty)), torch.softmax(logits, -1))  # nothing written yet


@given(eighths=EIGHTHS, k=st.integers(0, 50), p=st.floats(0.01, 1))
def test_temperature_zero_takes_the_best(eighths, k, p):
    found = probabilities(torch.tensor(eighths) / 8, Choice(0.0, k, p))
    assert found.argmax() == eighths.index(max(eighths)) and found.max() == 1 and found.sum() == 1


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-40, 1e-300])
def test_any_temperature_that_can_be_set_gives_a_distribution(temperature):
    """Near 0 it must become the greedy choice, not NaN."""
    found = probabilities(torch.tensor([1.0, 0.0, -1.0]), Choice(temperature))
    assert found.tolist() == [1.0, 0.0, 0.0]


def test_draws_follow_the_distribution():
    """Pearson's chi-square with 5 degrees of freedom stays under its 99.9 % point."""
    p, rng, n = torch.tensor([0.0, 0.3, 0.02, 0.0, 0.18, 0.1, 0.05, 0.35, 0.0]), torch.Generator().manual_seed(0), 8000
    counts = torch.bincount(torch.tensor([draw(p, rng) for _ in range(n)]), minlength=len(p))
    assert counts[p == 0].sum() == 0
    expected = n * p[p > 0]
    assert float(((counts[p > 0] - expected) ** 2 / expected).sum()) < 20.5


@pytest.mark.parametrize("u", [0.0, ALMOST_ONE])
def test_the_ends_of_the_dice_never_draw_the_impossible(u, monkeypatch):
    """Sums in float32 differ by their order, so the last number can lie beyond the last cumulative probability."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.tensor(u))
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        p = torch.empty(1500).uniform_(generator=rng)
        p[:300] = p[-300:] = 0
        p /= p.sum()
        assert p[draw(p, rng)] > 0


@pytest.mark.parametrize("context", [1, 2, 3, 8])
@pytest.mark.parametrize("prompt", [1, 5, 20])
def test_writing_goes_on_past_the_context(context, prompt, lively):
    model = lively(Shape(11, 1, 2, 16, context))
    drawn = list(
        write(model, list(range(11))[:prompt] * 2, 3 * context + 2, Choice(), torch.Generator().manual_seed(0))
    )
    assert len(drawn) == 3 * context + 2
    assert all(0 <= one.token < 11 and one.cache.length <= context for one in drawn)


def test_a_full_cache_starts_again_from_the_latest_half(lively):
    model = lively(Shape(11, 1, 2, 16, 8))
    lengths = [drawn.cache.length for drawn in write(model, [0, 1], 14, Choice(), torch.Generator().manual_seed(0))]
    assert lengths == [2, 3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5]


@pytest.mark.parametrize("dialect", ["modern", "gpt2"])
def test_writing_with_a_cache_equals_recomputing_the_text(dialect, lively):
    model, tokens = lively(Shape(11, 2, 2, 16, 16, dialect)), [3, 1, 4]
    for drawn in write(model, [3, 1, 4], 13, Choice(0.0), torch.Generator()):
        with torch.no_grad():
            assert drawn.token == int(model(torch.tensor([tokens]))[0, -1].argmax())
        tokens.append(drawn.token)
    assert len(tokens) == 16


def test_same_dice_same_text(lively):
    model = lively(Shape(11, 1, 2, 16, 8))
    texts = [
        [one.token for one in write(model, [0], 40, Choice(), torch.Generator().manual_seed(seed))]
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]
