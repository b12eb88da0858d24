"""Muon in float32 and in batches: against torch.optim.Muon, against the plain rounds, and what it is for."""

import pytest
import torch

from core.foundations.muon import COEFFICIENTS, ROUNDS, Muon, orthogonal


def plainly(x):
    """The rounds as published, one matrix at a time, in float64."""
    a, b, c = COEFFICIENTS
    x = x.double() / (x.double().norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


@pytest.mark.parametrize("size", [(8, 8), (24, 64), (64, 24), (256, 64)])
def test_the_gram_rounds_equal_the_plain_ones(size):
    x = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    for matrix, move in zip(x, orthogonal(x), strict=True):
        torch.testing.assert_close(move.double(), plainly(matrix), atol=2e-4, rtol=0)


def test_every_direction_moves_about_equally_far():
    x = torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, -2, 32)[:, None]
    assert torch.linalg.svdvals(x[0])[0] / torch.linalg.svdvals(x[0])[-1] > 50
    values = torch.linalg.svdvals(orthogonal(x))
    assert values.min() > 0.3 and values.max() < 1.3


@pytest.mark.parametrize("sizes", [[(16, 16)], [(64, 16), (16, 64), (64, 16)]])
def test_it_moves_as_torch_s_muon_within_bfloat16(sizes):
    rng = torch.Generator().manual_seed(2)
    start = [torch.randn(size, generator=rng) for size in sizes]
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    mine, torchs = Muon(ours, 0.02), torch.optim.Muon(theirs, 0.02, weight_decay=0.0, adjust_lr_fn="original")
    for _ in range(4):
        gradients = [torch.randn(size, generator=rng) for size in sizes]
        for weights, optimizer in ((ours, mine), (theirs, torchs)):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() / (other - before).norm() < 0.03  # bfloat16 has three digits


def test_a_weight_without_a_gradient_stays():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    Muon([weight], 0.1).step()
    assert torch.equal(weight, torch.ones(4, 4))
