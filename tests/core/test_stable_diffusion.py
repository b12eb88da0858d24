"""Stable Diffusion: our arithmetic is diffusers' arithmetic, and what the figures claim holds where the answer is
known.
"""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.foundations.captioned_shapes import draw, render
from core.foundations.diffusion import both_of, ddim_step, leading, sampling, signal, trailing, velocity
from core.foundations.figures import by_figure
from core.stable_diffusion.denoise import DenoiseConfig, DenoiseStep, by_hand, denoise, right_from
from core.stable_diffusion.latents import (
    COMPRESSION,
    KINDS,
    LatentsConfig,
    compression,
    explained_by,
    latents,
    linear,
    noise_bound,
    pictures_of,
    psnr,
    round_trip,
    shrunk,
)
from core.stable_diffusion.model import SCHEDULER, pipeline, shipped_denoiser
from core.stable_diffusion.schedulers import (
    DEFAULTS_CHANGE,
    EULER,
    OUTSIDE,
    WRITTEN_OUT,
    SchedulersConfig,
    scheduler_of,
    schedulers,
    walk,
)
from core.stable_diffusion.terminal_snr import (
    LEFT,
    LEVELS,
    READ,
    SNR,
    Grounds,
    TerminalSnrConfig,
    normal_share,
    rim,
    terminal_snr,
    zero_terminal,
)

SHARES = st.floats(0.01, 0.99)
NUMBERS = st.floats(-3, 3)


@pytest.fixture(scope="module")
def denoiser():
    return shipped_denoiser()


def figures(steps):
    return by_figure(result for step in steps for result in step.figures)


def gaussian(deviation, kind="scaled_linear"):
    """The exact network for data of a normal distribution: v of the mean of all that x could come from."""
    every = signal(kind).double()

    def told(x, t):
        kept = every[t]
        x0 = kept.sqrt() * deviation**2 / (kept * deviation**2 + 1 - kept) * x
        noise = (x - kept.sqrt() * x0) / (1 - kept).sqrt()
        v = velocity(x0, noise, kept)
        return v, v

    return told


# --- the loop is the pipeline's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_our_loop_draws_the_picture_of_diffusers_pipeline(denoiser, scale):
    prompts, steps = ["a red circle", "a small blue star on the left on white"], 6
    pipe, noise = pipeline(denoiser), denoiser.noise(2, 5)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(prompts, num_inference_steps=steps, guidance_scale=scale, latents=noise, output_type="latent").images
    *_, last = sampling(
        denoiser.network(denoiser.states(prompts)),
        noise,
        (denoiser.schedule, denoiser.predicts),
        steps,
        scale,
        offset=denoiser.offset,
    )
    torch.testing.assert_close(
        last.after, theirs, atol=5e-4, rtol=1e-3
    )  # rounding: other batches, other orders of sums
    pictures = pipe(prompts, num_inference_steps=steps, guidance_scale=scale, latents=noise, output_type="pt").images
    torch.testing.assert_close(denoiser.paint(prompts, steps, scale, 5), pictures, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 4, 5, 10, 25, 50])
def test_trailing_visits_what_diffusers_visits(steps):
    theirs = scheduler_of("DDIM", "trailing")
    theirs.set_timesteps(steps)
    assert trailing(steps) == theirs.timesteps.tolist() and trailing(steps)[0] == 999


@pytest.mark.parametrize("rescaled", [False, True])
def test_sampling_from_the_last_step_is_diffusers_trailing(denoiser, rescaled):
    """With the schedule as it is, and with the one that ends at zero signal."""
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**SCHEDULER | {"timestep_spacing": "trailing", "rescale_betas_zero_snr": rescaled})
    theirs.set_timesteps(4)
    every = zero_terminal(signal("scaled_linear")) if rescaled else signal("scaled_linear")
    network, x = denoiser.network(denoiser.states(["a blue square"])), denoiser.noise(1, 2)
    also = x
    for moment in sampling(
        network, x, (denoiser.schedule, denoiser.predicts), 4, 2.0, visited=trailing(4), every=every
    ):
        free, told = network(also, moment.t)
        also = theirs.step(free + 2.0 * (told - free), moment.t, also).prev_sample
        torch.testing.assert_close(moment.after, also, atol=5e-4, rtol=1e-3)


# --- latents ----------------------------------------------------------------------------------------------------------


def test_compression_is_counted(denoiser):
    pictures = render(draw(np.random.default_rng(0), 3))
    assert compression(512, 8, 4) == 48 == 512 * 512 * 3 / (64 * 64 * 4)
    assert compression(32, 4, 4) == 12 == pictures.numel() / round_trip(denoiser, pictures)[0].numel()


def test_psnr_of_known_errors():
    grey = torch.full((2, 3, 8, 8), 0.5)
    assert psnr(grey, grey + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(grey, grey + 0.001) == pytest.approx(60, abs=1e-2)
    assert psnr(grey, grey) == pytest.approx(99, abs=1e-3)


def test_shrinking_keeps_what_is_flat_and_nothing_finer():
    flat = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(2, 3, 32, 32)
    torch.testing.assert_close(shrunk(flat, 256), flat, atol=1e-6, rtol=0)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * torch.ones(1, 3, 1, 1)
    assert psnr(shrunk(board, 256), board) < 7


def test_a_linear_code_is_found_and_a_random_one_is_not():
    rng = torch.Generator().manual_seed(0)
    z, weights = torch.randn(6, 4, 8, 8, generator=rng), torch.randn(4, 3, generator=rng)
    colours = torch.einsum("nchw,ck->nkhw", z, weights) + 0.3
    pictures = colours.repeat_interleave(4, 2).repeat_interleave(4, 3)
    formula = linear(pictures, z)
    torch.testing.assert_close(formula[:4], weights.double(), atol=1e-5, rtol=0)
    assert explained_by(formula, pictures, z) == pytest.approx(1, abs=1e-6)
    other = torch.randn(6, 4, 8, 8, generator=rng)
    assert explained_by(linear(pictures, other), pictures, other) < 0.1


def test_the_bound_of_noise_is_what_a_linear_code_reaches():
    """Any k of n orthonormal directions of uniform noise, the rest left at its mean."""
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(240, 240, generator=rng, dtype=torch.float64))[0][:, :20]
    noise = torch.rand(2000, 240, generator=rng, dtype=torch.float64)
    again = 0.5 + (noise - 0.5) @ axes @ axes.T
    assert -10 * math.log10(float((again - noise).square().mean())) == pytest.approx(noise_bound(20 / 240), abs=0.05)
    assert noise_bound(1 / 12) == pytest.approx(11.17, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_one(kind):
    one, same, other = (pictures_of(kind, 3, seed, 32) for seed in (0, 0, 1))
    assert one.shape == (3, 3, 32, 32) and 0 <= float(one.min()) < float(one.max()) <= 1
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert pictures_of(kind, 1, 0, 64).shape == (1, 3, 64, 64)


def test_a_run_of_latents_says_what_the_autoencoder_does(denoiser):
    steps = list(latents(LatentsConfig(scenes=16)))
    first, last = steps[0], steps[-1]
    picture = torch.from_numpy(first.pixels)[None]
    z, again = round_trip(denoiser, picture)
    np.testing.assert_array_equal(first.latents, z[0].numpy())
    assert first.psnr == pytest.approx(psnr(picture, again), abs=1e-4)
    z[:, 2] = 0
    with torch.no_grad():
        np.testing.assert_allclose(first.without[2], denoiser.decode(z)[0].numpy(), atol=1e-5)
    assert figures(steps)[COMPRESSION].measured == figures(steps)[COMPRESSION].expected == 12 and last.classified == 16
    assert [step.doing for step in steps] == [step.doing for step in latents(LatentsConfig(scenes=16))]


def test_an_upload_goes_through_and_a_bad_one_gets_its_sentence(refusal):
    told = io.BytesIO()
    Image.new("RGBA", (60, 40), (255, 0, 0, 128)).save(told, "PNG")
    first = next(latents(LatentsConfig(picture=told.getvalue())))
    assert "32 x 32 of 60 x 40" in first.note and "white" in first.note
    np.testing.assert_allclose(first.pixels[:, 5, 5], (1, 0.498, 0.498), atol=0.01)
    assert "not a picture" in refusal(lambda: next(latents(LatentsConfig(picture=b"<svg></svg>"))))
    assert "damaged" in refusal(lambda: next(latents(LatentsConfig(picture=told.getvalue()[:60]))))


# --- denoise ----------------------------------------------------------------------------------------------------------


@given(
    x=NUMBERS,
    free=NUMBERS,
    told=NUMBERS,
    kept=SHARES,
    more=st.floats(0, 1),
    scale=st.floats(0, 20),
    predicts=st.sampled_from(["v_prediction", "epsilon"]),
)
def test_one_number_by_hand_is_the_tensors_step(x, free, told, kept, more, scale, predicts):
    earlier = kept + more * (0.999 - kept)
    one = [torch.tensor([value], dtype=torch.float64) for value in (x, free, told)]
    mixed = one[1] + scale * (one[2] - one[1])
    x0, noise = both_of(one[0], mixed, torch.tensor(kept, dtype=torch.float64), predicts)
    sums = dict(by_hand(x, free, told, kept, earlier, scale, predicts))
    assert sums["x0"] == pytest.approx(float(x0), abs=1e-9, rel=1e-9)
    assert sums["after"] == pytest.approx(float(ddim_step(x0, noise, kept, earlier)), abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_denoise_is_diffusers_step_by_step(denoiser, eta):
    config = DenoiseConfig(prompt="a large green star", steps=5, eta=eta, seed=3)
    steps = list(denoise(config))
    assert [step.t for step in steps[:-1]] == leading(5, 1) and steps[-1].off < 1e-5
    if not eta:
        sums = dict(steps[-1].sums)
        assert sums["after"] == pytest.approx(sums["theirs"], abs=1e-5)
        painted = denoiser.paint([config.prompt], 5, config.scale, 3)[0].numpy()
        np.testing.assert_allclose(steps[-1].pictures[4], painted, atol=1e-5)
    assert [step.doing for step in steps] == [step.doing for step in denoise(config)]


def test_right_from_the_first_step_after_the_last_wrong_one():
    def told(*sure):
        return right_from([DenoiseStep(number=number, sure=one) for number, one in enumerate(sure, 1)])

    assert (told(0.9, 0.9), told(0.9, 0.1, 0.8), told(0.9, 0.2)) == (1, 3, 3)


@pytest.mark.parametrize("run", [lambda prompt: denoise(DenoiseConfig(prompt=prompt)), lambda prompt: schedulers(SchedulersConfig(prompt=prompt)),
                                 lambda prompt: terminal_snr(TerminalSnrConfig(prompt=prompt))])  # fmt: skip
@pytest.mark.parametrize(
    ("prompt", "part"),
    [("", "empty"), ("a red unicorn", "unicorn"), ("red " * 60, "at most 22 words"), ("red " * 1250, "at most 300")],
)
def test_a_bad_prompt_gets_its_sentence(run, prompt, part, refusal):
    assert part in refusal(lambda: next(run(prompt)))


# --- schedulers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_euler_is_ddim_in_other_variables(denoiser, spacing):
    network, noise = denoiser.network(denoiser.states(["a red circle"])), denoiser.noise(1, 0)
    *_, ddim = walk("DDIM", network, noise, 5, 3.0, 0, spacing)
    *_, euler = walk("Euler", network, noise, 5, 3.0, 0, spacing)
    torch.testing.assert_close(euler.x, ddim.x0, atol=2e-5, rtol=1e-4)


def test_where_the_answer_is_known_the_orders_are_as_told():
    """Data of a normal distribution: the curve from noise only scales, so the exact end is known."""
    noise, deviation = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 2.0
    kept = float(signal("scaled_linear")[-1])
    exact = deviation * noise / math.sqrt(kept * deviation**2 + 1 - kept)

    def error(name, steps):
        *_, told = walk(name, gaussian(deviation), noise, steps, 1.0, 0, "trailing")
        return float(((told.x0 if name == "DDIM" else told.x) - exact).norm() / exact.norm())

    first, second = (error("DDIM", steps) for steps in (10, 20))
    assert 1.6 < first / second < 2.4
    assert error("DPM-Solver++", 10) < first / 2


def test_the_scripts_defaults_are_what_the_lesson_says():
    told, right = scheduler_of("script").config, scheduler_of("DDIM").config
    assert (told.clip_sample, told.set_alpha_to_one, told.steps_offset) == (True, True, 0)
    assert (right.clip_sample, right.set_alpha_to_one, right.steps_offset) == (False, False, 1)
    assert (told.beta_start, told.beta_end, told.beta_schedule) == (
        right.beta_start,
        right.beta_end,
        right.beta_schedule,
    )


def test_a_small_grid_and_the_same_one_again():
    config = SchedulersConfig(steps=4, others=1, prompt="a blue star")
    one, two = (list(schedulers(config)) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    last, told = one[-1], figures(one)
    assert [(solver, count) for solver, count, *_ in last.table] == [
        (solver, count) for count in (1, 2, 4) for solver in ("DDPM", "DDIM", "Euler", "DPM-Solver++")
    ]
    assert told[WRITTEN_OUT].measured < 1e-4 and told[EULER].measured < 1e-3
    assert told[OUTSIDE].expected == pytest.approx(31.73, abs=0.01)
    assert told[DEFAULTS_CHANGE].measured > 0 and len(last.script) == 3
    assert all(np.isfinite(pictures).all() for pictures in last.pictures), "a single step, too"
    away = {(solver, count): distance for solver, count, _, _, distance in last.table}
    assert all(away[solver, 1] > away[solver, 4] for solver in ("DDIM", "Euler", "DPM-Solver++"))


# --- terminal_snr -----------------------------------------------------------------------------------------------------


def test_the_last_step_of_stable_diffusion():
    """Lin et al. 2023, table 1, from the betas; and the linear schedule of DDPM beside it."""
    kept = float(signal("scaled_linear")[-1])
    assert kept**0.5 == pytest.approx(0.068265, abs=2e-6) and kept / (1 - kept) == pytest.approx(0.004682, abs=1e-6)
    assert float(signal("linear")[-1]) ** 0.5 == pytest.approx(0.006353, abs=2e-6)


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_rescaling_is_algorithm_1(kind):
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    every = signal(kind)
    betas = 1 - every.double() / torch.cat([torch.ones(1, dtype=torch.float64), every.double()[:-1]])
    mine = zero_terminal(every)
    torch.testing.assert_close(mine, (1 - rescale_zero_terminal_snr(betas)).cumprod(0).float(), atol=1e-6, rtol=1e-4)
    assert (
        float(mine[-1]) == 0
        and float(mine[0]) == pytest.approx(float(every[0]), abs=1e-6)
        and bool((mine[1:] <= mine[:-1]).all())
    )


def test_the_normal_distribution():
    assert normal_share(0) == 0.5 and normal_share(1.959964) == pytest.approx(0.975, abs=1e-6)


def test_an_ideal_network_is_the_share_of_noise_on_the_side_of_white(denoiser):
    """The formula against counting: noise with a trace, on which side of the middle does it lie?"""
    grounds, kept = Grounds(denoiser), float(signal("scaled_linear")[-1])
    noise = denoiser.noise(4000, 0)
    for level in (-4.0, 1.0):
        x = (1 - kept) ** 0.5 * noise + kept**0.5 * grounds.trace(level)
        counted = float((grounds.side_of(x - kept**0.5 * grounds.middle) > 0).double().mean())
        assert counted == pytest.approx(grounds.white_share(level, kept), abs=0.03)
    assert torch.equal(grounds.trace(0.0), torch.zeros_like(grounds.black))


def test_the_rim_is_the_ground():
    scenes = draw(np.random.default_rng(0), 12, held_out=None)
    torch.testing.assert_close(rim(render(scenes)), torch.tensor([0.04, 0.97])[torch.from_numpy(scenes.ground)])


def test_the_trace_is_found_again_and_the_same_run_twice():
    config = TerminalSnrConfig(steps=4, pictures=5)
    one, two = (list(terminal_snr(config)) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    told = figures(one)
    left, read = told[LEFT], told[READ]
    assert left.measured == pytest.approx(left.expected, abs=0.006)
    assert read.measured == pytest.approx(read.expected, abs=5)
    assert abs(told[SNR].gap) < 1e-6 and sum(figure.headline for figure in told) == 4
    assert [level for level, *_ in one[-1].levels] == list(LEVELS) and one[-1].rescaled_row.shape == (5, 3, 32, 32)
