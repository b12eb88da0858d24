"""When splitting pays: the link's formula, the waits that are really waited, and times that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.figures import Outcome
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder
from core.megatron import SpeedupConfig, formulas, speedup
from core.megatron.layer import Sizes
from core.megatron.lesson import LESSON
from core.megatron.operators import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER
from core.megatron.speedup import (
    COUNTS,
    FURTHEST,
    GLOO_TIME,
    LINK_TIME,
    LINKS,
    SPEEDUP,
    Account,
    Link,
    Times,
    config_flops,
    fastest,
)

QUICK = {"n_layer": 1, "width": 32, "n_head": 4, "context": 16, "steps": 2, "latency": 300.0}


def ran(config):
    recorder, steps = Recorder(speedup.experiment, config), []
    for step in speedup(config):
        recorder.add(step)
        steps.append(step)
    return recorder.figures, steps


@pytest.fixture(scope="module", params=[False, True], ids=["tensor", "sequence"])
def run(request):
    config = SpeedupConfig(sequence=request.param, **QUICK)
    return config, *ran(config)


def test_the_link_is_really_waited_out(run):
    """Never shorter than the formula: 4 collectives a layer, or 8 halves that take as long."""
    _, figures, _ = run
    for ranks in COUNTS[1:]:
        told = figures[LINK_TIME.of(ranks=ranks)]
        assert told.expected == pytest.approx(
            1e3 * 4 * (2 * (ranks - 1) * 300e-6 + 2 * (ranks - 1) / ranks * 16 * 32 * 4 / 0.125e9)
        )
        assert told.measured >= told.expected


def test_what_is_measured_is_the_formula_and_what_it_leaves_out(run):
    _, figures, steps = run
    found = {times.ranks: times for times in steps[-1].measured}
    assert tuple(found) == COUNTS and found[1].link == found[1].gloo == 0.0
    for times in found.values():
        assert times.split > 0 and times.whole > 0 and times.seconds == times.split + times.whole + times.link
    for ranks in COUNTS[1:]:
        assert figures[SPEEDUP.of(ranks=ranks)].measured == pytest.approx(found[1].seconds / found[ranks].seconds)
        assert figures[GLOO_TIME.of(ranks=ranks)].measured > 0


def test_the_first_step_has_curves_and_no_measurement(run):
    _, _, steps = run
    first = steps[0]
    assert first.measured == () and first.curves and first.basis != steps[-1].basis
    for _, speeds in (*first.curves, *steps[-1].curves):
        assert len(speeds) == FURTHEST and speeds[0] == pytest.approx(1)


@given(st.floats(0, 1e-2), st.floats(1e6, 1e12), st.sampled_from([2, 4, 8]), st.integers(1, 10**7))
def test_halves_of_an_all_reduce(latency, bandwidth, ranks, nbytes):
    link = Link(latency, bandwidth)
    halves = link.seconds(REDUCE_SCATTER, ranks, nbytes) + link.seconds(ALL_GATHER, ranks, nbytes)
    assert link.seconds(ALL_REDUCE, ranks, nbytes) == pytest.approx(halves)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 8), st.integers(1, 64))
def test_the_links_bytes_are_the_papers_volume(ranks, layers, times):
    """Without latency a step waits for 4 bytes times 8bsh(t-1)/t a layer."""
    config = SpeedupConfig(n_layer=min(4, layers), width=8 * times + 8, latency=0.0, bandwidth=1.0, steps=2)
    assert 1e9 * config.link_seconds(config.link, ranks) == pytest.approx(
        4 * config.n_layer * formulas.sent_per_layer(config.sizes, ranks)
    )


def test_without_a_link_to_wait_for_only_the_rest_is_not_divided():
    account = Account(SpeedupConfig())
    account.told = {1: {0: [((0.05, 0.03), (0.01,), (), ()), ((0.04, 0.05), (0.02,), (), ())]}}
    assert account.times(1) == Times(1, pytest.approx(0.07), pytest.approx(0.01), 0, 0)
    perfect = account.curve(Link(0.0, 1e30))
    assert perfect[3] == pytest.approx(0.08 / (0.07 / 4 + 0.01))
    assert fastest(((3.0, 1.0), (2.0, 5.0))) == 3.0


def test_links_come_in_the_order_of_their_speed():
    account = Account(SpeedupConfig(latency=0.0))
    gains = [account.curve(link)[3] for link in LINKS.values()]
    assert gains == sorted(gains, reverse=True)


def test_flops_of_a_layer():
    assert formulas.layer_flops(Sizes(1, 512, 8, 128, 1)) == 72 * 128 * 512**2 + 6 * 128**2 * 512
    assert config_flops(SpeedupConfig(n_layer=3)) == 3 * formulas.layer_flops(SpeedupConfig().sizes)


def test_bad_settings_get_one_sentence(refusal):
    assert refusal(SpeedupConfig, latency=1e9) == "latency must be at most 10000, got 1e+09"
    assert refusal(SpeedupConfig, bandwidth=0) == "bandwidth must be at least 0.005, got 0"
    assert "wait" in refusal(SpeedupConfig, latency=10_000.0, bandwidth=0.005, n_layer=4, steps=20)
    assert "GFLOP" in refusal(SpeedupConfig, width=1024, n_layer=4, context=256, batch=4)
    assert "6 heads and 4 ranks" in refusal(SpeedupConfig, n_head=6, width=600)


@pytest.mark.parametrize("gain", [0.5, 1.5, 3.0])
def test_the_answer_follows_the_speed_up(gain, run):
    """Which answer is right depends on this machine's speed, so the figure is set."""
    config, figures, _ = run
    figures = figures | {SPEEDUP.of(ranks=4): SPEEDUP.of(ranks=4)(gain, gain)}
    asks = [step for step in LESSON.steps if isinstance(step, Ask) and step.experiment == "speedup"]
    assert len(asks) == 2
    for ask in asks:
        index, because = verdict(ask, Outcome(figures, config, None))
        assert index == (gain >= 1) + (gain >= 2) and f"{gain:.2g} times as fast" in because
    said = takeaways(speedup.experiment, Outcome(figures, config, None))[0]
    assert ("slower than one" in said) == (gain < 1)
