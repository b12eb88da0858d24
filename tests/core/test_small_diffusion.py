"""The small denoisers: the written-out loop against diffusers' pipeline, the text tower against CLIP's, weights from the
dice alone.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from core.foundations.captioned_shapes import CONTEXT, WORDS, render, tokens_of
from core.foundations.diffusion import signal, velocity
from core.foundations.small_clip import shipped_clip
from core.foundations.small_diffusion import (
    EMPTY,
    Average,
    Denoiser,
    agreement,
    asked_for,
    errors_of,
    rate_at,
    roll,
    tokens_or_nothing,
)
from core.stable_diffusion.autoencoder import standardise
from core.stable_diffusion.model import pipeline, shipped_denoiser, text_encoder, tokenizer


class Says(Denoiser):
    """A denoiser whose network says one thing."""

    def __init__(self, told):
        nn.Module.__init__(self)
        self.told = told

    def forward(self, x, t, states):
        return self.told


# --- training ---------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_v():
    every = signal("scaled_linear")
    x0, noise, wrong = torch.randn(3, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([20, 500, 800, 990])
    truth = velocity(x0, noise, every[t].view(-1, 1, 1, 1))
    assert errors_of(Says(truth), x0, noise, t, every, None).abs().max() == 0
    errors = errors_of(Says(truth + 0.1 * wrong), x0, noise, t, every, None)
    torch.testing.assert_close(errors, (0.1 * wrong).square().mean((1, 2, 3)))


def test_the_average_follows_slowly_and_starts_with_the_weights():
    layer = nn.Linear(2, 1)
    roll(layer, torch.Generator().manual_seed(0))
    average, expected = Average(layer), layer.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            layer.weight += 1
        average.follow(layer, step)
        share = min(0.999, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * layer.weight.detach()
    torch.testing.assert_close(average.weights["weight"], expected)
    assert (average.weights["weight"] < layer.weight).all()


def test_the_rate_warms_up_and_ends_near_nothing():
    rates = [rate_at(step, 2000, 1.0) for step in range(2000)]
    assert rates[0] == pytest.approx(1 / 125) and max(rates) > 0.9 and rates[-1] < 0.011  # a sixteenth of 2,000
    assert rates[:125] == sorted(rates[:125]) and rates[125:] == sorted(rates[125:], reverse=True)
    assert rate_at(0, 100_000, 1.0) == pytest.approx(1 / 300)
    assert rate_at(0, 1, 1.0) > 0


def test_weights_come_from_the_dice_alone():
    one, two, other = (nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Conv1d(7, 3, 2)) for _ in range(3))
    for module, seed in ((one, 3), (two, 3), (other, 4)):
        roll(module, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, other[0].weight)
    assert float(one[0].weight.detach().abs().max()) <= 5**-0.5 and not one[0].bias.any()
    assert float(one[2].weight.detach().abs().max()) <= 14**-0.5 and torch.equal(one[1].weight, torch.ones(7))


# --- words ------------------------------------------------------------------------------------------------------------


def test_no_words_are_start_and_end():
    texts = ["a red circle", "", "  "]
    tokens = tokens_or_nothing(texts)
    assert torch.equal(tokens[0], tokens_of(["a red circle"])[0])
    assert tokens[1].tolist() == tokens[2].tolist() == EMPTY
    dropped = tokens_or_nothing(["a red circle", "a blue star"], torch.tensor([True, False]))
    assert dropped[0].tolist() == EMPTY and torch.equal(dropped[1], tokens_of(["a blue star"])[0])


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@given(
    chosen=st.lists(st.sampled_from(WORDS), min_size=1, max_size=CONTEXT - 2), upper=st.booleans(), comma=st.booleans()
)
def test_the_pipelines_tokenizer_counts_as_we_do(words, chosen, upper, comma):
    text = (", " if comma else " ").join(chosen)
    text = text.upper() if upper else text
    told = words([text], padding="max_length", max_length=CONTEXT, truncation=True).input_ids
    assert told == tokens_of([text]).tolist()
    assert words([""], padding="max_length", max_length=CONTEXT, truncation=True).input_ids == [EMPTY]


def test_the_text_encoder_is_clips_text_tower():
    """Its last states, read at the end and projected, are what CLIP calls the text."""
    clip, texts = shipped_clip(), ["a red circle", "there is a large blue star on the left on white", "this is a cross"]
    tokens = tokens_of(texts)
    with torch.no_grad():
        states = text_encoder()(tokens)[0]
        read = states[torch.arange(3), tokens.argmax(1)] @ clip.model.text_projection
        torch.testing.assert_close(read, clip.model.encode_text(tokens), atol=2e-5, rtol=1e-4)


# --- the pipeline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "scale"), [(25, 3.0), (7, 1.5)])
def test_the_written_out_loop_is_diffusers_pipeline(steps, scale):
    denoiser, prompts = shipped_denoiser(), ["a red circle", "a blue star on the left"]
    pipe = pipeline(denoiser)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=denoiser.noise(2, 5),
        height=32,
        width=32,
        output_type="pt",
    ).images
    mine = denoiser.paint(prompts, steps=steps, scale=scale, seed=5)
    apart = (mine - theirs).abs()
    assert float(apart.max()) < 5e-3 and float(apart.mean()) < 2e-5  # each step may enlarge what float32 rounds away
    assert float((mine[0] - mine[1]).abs().max()) > 0.1


def test_standardised_latents_decode_to_the_same_pictures():
    """Mean 0 and deviation 1 per channel, folded into the weights: what is decoded stays the same."""
    from diffusers import AutoencoderKL

    from core.stable_diffusion.autoencoder import CONFIG

    vae = AutoencoderKL(**CONFIG).eval()
    roll(vae, torch.Generator().manual_seed(0))
    with torch.no_grad():
        vae.quant_conv.bias += torch.linspace(-1, 1, 8)
        pictures = render(asked_for(24, False)[0])
        before = vae.decode(vae.encode(2 * pictures - 1).latent_dist.mean).sample
        standardise(vae, pictures)
        latents = vae.encode(2 * pictures - 1).latent_dist
        after = vae.decode(latents.mean).sample
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_agreement_is_the_judges():
    """All right on the drawings themselves, none where every picture shows the next scene's object."""
    scenes, prompts = asked_for(60, True)
    pictures = render(scenes)
    assert agreement(pictures, scenes) > 0.95 and len(set(prompts)) == 8
    order = torch.tensor(
        [next(other for other in range(60) if scenes.pair(other) != scenes.pair(number)) for number in range(60)]
    )
    assert agreement(pictures[order], scenes) < 0.05
