"""The floor under every measured time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.roofline import Roofline, best_seconds, roofline


def test_it_is_measured_once_and_plausible():
    assert roofline() is roofline()
    assert 1e8 < roofline().flops_per_second < 1e16 and 1e8 < roofline().bytes_per_second < 1e14


@given(st.floats(0, 1e15), st.floats(0, 1e12))
def test_the_floor_is_the_slower_of_the_two(flops, nbytes):
    roof = Roofline(2e9, 1e9)
    assert roof.floor_seconds(flops, nbytes) == pytest.approx(max(flops / 2e9, nbytes / 1e9))
    assert roof.ridge == 2


def test_real_work_is_not_faster_than_its_floor():
    """A copy moves its bytes twice; half the measured rate is allowed for the noise of a busy machine."""
    source = torch.ones(4_000_000)
    target = torch.empty_like(source)
    assert best_seconds(lambda: target.copy_(source), 5) > 0.05 * roofline().floor_seconds(0, 2 * source.nbytes)
