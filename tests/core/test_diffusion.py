"""The written-out diffusion against diffusers' schedulers, and against itself: closed form and step by step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.diffusion import (
    KINDS,
    STEPS,
    both_of,
    ddim_step,
    guided,
    leading,
    noised,
    sampling,
    signal,
    velocity,
)

BETAS = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {},
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def scheduler_of(kind, predicts, **changes):
    from diffusers import DDIMScheduler

    told = {
        "beta_schedule": kind,
        "prediction_type": predicts,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
    }
    return DDIMScheduler(**BETAS[kind], **(told | changes))


def made_up(x, t):
    """A network that says something else at every x and t."""
    return torch.sin(3 * x + t / 100), torch.cos(2 * x - t / 300)


# --- forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_signal_is_diffusers(kind):
    torch.testing.assert_close(signal(kind), scheduler_of(kind, "epsilon").alphas_cumprod, atol=2e-6, rtol=2e-4)
    assert (signal(kind).diff() < 0).all() and signal(kind)[0] > 0.99


def test_an_unknown_schedule_is_refused(refusal):
    assert "one of linear, scaled_linear" in refusal(signal, "quadratic")


@given(kind=st.sampled_from(KINDS), t=st.integers(0, 60), seed=st.integers(0, 99))
def test_noising_step_by_step_is_the_closed_form(kind, t, seed):
    """x_t from x_{t-1}, each time with fresh noise, is x_0 and one noise: the same mean factor, the same variance."""
    kept = signal(kind).double()
    beta = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.randn(5, generator=rng, dtype=torch.float64)
    x, summed, variance = x0, torch.zeros(5, dtype=torch.float64), 0.0
    for step in range(t + 1):
        fresh = torch.randn(5, generator=rng, dtype=torch.float64)
        x = (1 - beta[step]).sqrt() * x + beta[step].sqrt() * fresh
        summed = (1 - beta[step]).sqrt() * summed + beta[step].sqrt() * fresh
        variance = float((1 - beta[step]) * variance + beta[step])
    assert variance == pytest.approx(1 - float(kept[t]), abs=1e-9)
    torch.testing.assert_close(x, noised(x0, summed / math.sqrt(variance), kept[t]))


@given(kept=st.floats(0.01, 0.99), seed=st.integers(0, 99), predicts=st.sampled_from(PREDICTIONS))
def test_what_a_network_may_predict_gives_the_other_two(kept, seed, predicts):
    rng = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 7, generator=rng, dtype=torch.float64)
    x = noised(x0, noise, torch.tensor(kept, dtype=torch.float64))
    told = {
        "epsilon": noise,
        "sample": x0,
        "v_prediction": velocity(x0, noise, torch.tensor(kept, dtype=torch.float64)),
    }[predicts]
    picture, found = both_of(x, told, torch.tensor(kept, dtype=torch.float64), predicts)
    torch.testing.assert_close(picture, x0)
    torch.testing.assert_close(found, noise)


# --- backward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 1.0, 0.3])
def test_sampling_is_diffusers_ddim(kind, predicts, eta):
    scheduler = scheduler_of(kind, predicts)
    scheduler.set_timesteps(10)
    x = theirs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    for moment, t in zip(
        sampling(made_up, x, (kind, predicts), 10, 2.5, eta, torch.Generator().manual_seed(1)),
        scheduler.timesteps,
        strict=True,
    ):
        assert moment.t == int(t)
        torch.testing.assert_close(moment.x, theirs, atol=2e-4, rtol=2e-4)
        theirs = moment.x  # each step on its own: a made-up network lets small differences grow
        free, told = made_up(theirs, int(t))
        fresh = torch.randn(x.shape, generator=rng) if eta else None
        theirs = scheduler.step(guided(free, told, 2.5), t, theirs, eta=eta, variance_noise=fresh).prev_sample
        x = moment.after
        torch.testing.assert_close(x, theirs, atol=2e-4 * float(theirs.abs().max()), rtol=2e-4)


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_clipping_is_diffusers_with_the_clipped_output_used(predicts):
    scheduler = scheduler_of("squaredcos_cap_v2", predicts, clip_sample=True)
    scheduler.set_timesteps(8)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    clipped = False
    for moment, t in zip(
        sampling(made_up, x, ("squaredcos_cap_v2", predicts), 8, 3.0, clip=True), scheduler.timesteps, strict=True
    ):
        free, told = made_up(moment.x, int(t))
        theirs = scheduler.step(guided(free, told, 3.0), t, moment.x, use_clipped_model_output=True)
        torch.testing.assert_close(moment.after, theirs.prev_sample, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moment.x0, theirs.pred_original_sample, atol=1e-4, rtol=1e-4)
        assert float(moment.x0.abs().max()) <= 1
        clipped |= float(moment.x0.abs().max()) == 1
    assert clipped


@pytest.mark.parametrize(
    ("steps", "offset"), [*((steps, offset) for steps in (1, 2, 7, 25, 50, 400) for offset in (0, 1)), (1000, 0)]
)
def test_the_visited_steps_are_diffusers_leading_ones(steps, offset):
    scheduler = scheduler_of("linear", "epsilon", steps_offset=offset)
    scheduler.set_timesteps(steps)
    assert leading(steps, offset) == [int(t) for t in scheduler.timesteps]


def test_no_visited_step_lies_beyond_the_schedule():
    assert max(leading(1000, 1)) == STEPS - 1 and len(leading(1000, 1)) == 1000


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_guidance_0_ignores_1_follows(share, seed):
    free, told = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(guided(free, told, 0.0), free)
    torch.testing.assert_close(guided(free, told, 1.0), told)
    torch.testing.assert_close(guided(free, told, share), torch.lerp(free, told, share))


def test_a_step_back_with_the_truth_stays_on_the_path():
    """With the true picture and noise, DDIM without fresh noise lands on x_s exactly; with it, the variance is kept."""
    every = signal("squaredcos_cap_v2")
    x0, noise, fresh = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(0))
    kept, earlier = float(every[700]), float(every[300])
    torch.testing.assert_close(ddim_step(x0, noise, kept, earlier), noised(x0, noise, earlier))
    assert float(ddim_step(x0, noise, kept, earlier, 1.0, fresh).var()) == pytest.approx(1, abs=0.03)
    assert torch.equal(ddim_step(x0, noise, kept, earlier, 0.0, fresh), ddim_step(x0, noise, kept, earlier))


def test_fresh_noise_comes_from_the_dice_alone():
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    kinds = ("linear", "epsilon")
    runs = [
        [moment.after for moment in sampling(made_up, x, kinds, 5, 1.0, 1.0, torch.Generator().manual_seed(seed))]
        for seed in (7, 7, 8)
    ]
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][-1], runs[2][-1])
