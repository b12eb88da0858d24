"""The judge: its card's numbers measured again, its training, and what it does with flaws."""

import re

import numpy as np
import pytest
import torch

from core.foundations.captioned_shapes import HELD_OUT, PAIRS, draw, prompt, render
from core.foundations.judge import Judge, accuracy, shipped_judge, train
from core.foundations.weights import SHIPPED

CARD = (SHIPPED / "shapes-judge" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("side", "place"), [(32, 0), (16, 1)])
def test_the_cards_number(side, place):
    told = [float(number) for number in re.findall(r"\*\*([\d.]+)\*\* %", CARD)][place]
    assert 100 * accuracy(shipped_judge(), 2000, side=side)[2] == pytest.approx(told, abs=0.05)


def test_the_cards_size():
    counted = sum(weight.numel() for weight in shipped_judge().parameters())
    assert f"{counted:,} parameters" in CARD
    assert (SHIPPED / "shapes-judge" / "model.safetensors").stat().st_size < 10_000_000


def test_it_is_no_less_sure_of_pairs_that_others_never_see():
    scenes = draw(np.random.default_rng(0), 200, held_out=True)
    colour, shape = shipped_judge().verdict(render(scenes))
    assert ((colour == scenes.colour[:, 0]) & (shape == scenes.shape[:, 0])).mean() > 0.99
    assert {scenes.pair(number) for number in range(200)} == set(HELD_OUT)


def test_noise_does_not_confuse_it():
    scenes, rng = draw(np.random.default_rng(1), 200), torch.Generator().manual_seed(0)
    pictures = render(scenes)
    colour, shape = shipped_judge().verdict(pictures + 0.05 * torch.randn(pictures.shape, generator=rng))
    assert ((colour == scenes.colour[:, 0]) & (shape == scenes.shape[:, 0])).mean() > 0.98


def test_an_untrained_judge_guesses():
    """The card's number is the training's, not the architecture's or the test's."""
    assert accuracy(Judge(), 400)[2] < 0.1
    assert len({prompt(*pair) for pair in PAIRS}) == 48


def test_the_same_seed_gives_the_same_judge_whatever_others_draw(capsys):
    first = train(2, batch=4, seed=5)
    torch.rand(3)
    second = train(2, batch=4, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(train(2, batch=4, seed=6).parameters()))
