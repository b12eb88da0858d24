"""words and img2img: our attention and our loop equal diffusers'; maps add up, and what is put in is what is used."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.captioned_shapes import CONTEXT, draw, render
from core.foundations.diffusion import leading, noised, sampling, signal
from core.foundations.figures import by_figure
from core.stable_diffusion.attention import Reuse, Watch, Watched, aligned, laid_out, watched
from core.stable_diffusion.img2img import FAR, Img2imgConfig, changing, given_picture, img2img, left_out, psnr
from core.stable_diffusion.model import SCHEDULER, ids_of, pipeline, shipped_denoiser
from core.stable_diffusion.words import (
    OWN_MAPS,
    WordsConfig,
    changed_outside,
    columns_of,
    drawing,
    gathered,
    heat_of,
    in_rows,
    object_in,
    on_object,
    overlaid,
    relative,
    words,
)

FIRST, SECOND = "a red circle on white", "a green circle on white"


@pytest.fixture(scope="module")
def denoiser():
    return shipped_denoiser()


# --- attention --------------------------------------------------------------------------------------------------------


def test_our_attention_gives_what_diffusers_gives(denoiser):
    x, states = denoiser.noise(2, 3), denoiser.states([FIRST, "a green star"])
    with torch.no_grad():
        plain = denoiser(x, 481, states)
        watch = Watch()
        with watched(denoiser.unet, watch, (".attn1", ".attn2")):
            ours = denoiser(x, 481, states)
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-4)
    assert len(watch.maps) == 4  # of words: the 8 x 8 level down and twice up, and the middle
    assert sorted({maps.shape[1] for maps in watch.maps}) == [16, 64]


def test_at_every_place_the_maps_of_all_tokens_add_up_to_one(denoiser):
    network = Watched(denoiser, denoiser.states([FIRST]), 1)
    network(denoiser.noise(1, 0), 981)
    assert network.seen.shape == (1, CONTEXT, 8, 8)
    torch.testing.assert_close(network.seen.sum(1), torch.ones(1, 8, 8), atol=1e-5, rtol=0)


def test_the_network_is_left_as_it_was(denoiser):
    before = dict(denoiser.unet.attn_processors)
    with pytest.raises(ZeroDivisionError), watched(denoiser.unet, Watch()):
        raise ZeroDivisionError
    Watched(denoiser, denoiser.states([FIRST]), 1, [Reuse(1, 1)], [list(range(CONTEXT))])(denoiser.noise(1, 0), 1)
    assert all(denoiser.unet.attn_processors[name] is own for name, own in before.items())


def test_a_map_is_laid_out_row_by_row():
    maps = torch.zeros(1, 64, 3)
    maps[0, 8 * 5 + 2, 1] = 1
    assert laid_out(maps, 8, 8)[0, 1].nonzero().tolist() == [[5, 2]]


def test_tokens_find_their_partners():
    assert aligned([1, 5, 6, 2], [1, 5, 7, 2]) == [0, 1, 2, 3]  # one replaced
    assert aligned([1, 5, 6, 2], [1, 9, 5, 6, 2]) == [0, -1, 1, 2, 3]  # one added
    assert aligned([1, 5, 6, 2], [1, 6, 2]) == [0, 2, 3]  # one left out
    assert aligned([1, 2], [1, 2]) == [0, 1]


def test_reused_maps_are_the_first_ones(denoiser):
    """With partners for all tokens the second picture reads where the first one does; without them where it likes."""
    plan, x = [Reuse(), Reuse(), Reuse(0.5, 0.5)], denoiser.noise(1, 1).expand(3, -1, -1, -1)
    partners = [list(range(CONTEXT))] * 3
    network = Watched(denoiser, denoiser.states([FIRST, "a green star", "a green star"]), 2, plan, partners)
    network(x, 961)
    torch.testing.assert_close(network.seen[2], network.seen[0], atol=1e-6, rtol=0)
    assert (network.seen[1] - network.seen[0]).abs().max() > 1e-3
    network(x, 961)  # half of the steps are over
    torch.testing.assert_close(network.seen[2], network.seen[1], atol=1e-6, rtol=0)


def test_a_token_without_a_partner_keeps_its_own_map(denoiser):
    partners = list(range(CONTEXT))
    partners[2] = -1
    network = Watched(
        denoiser, denoiser.states([FIRST, SECOND, SECOND]), 1, [Reuse(), Reuse(), Reuse(1.0)], [partners] * 3
    )
    x = denoiser.noise(1, 1).expand(3, -1, -1, -1)
    seen = []
    with torch.no_grad():
        plan = network.plan
        network(x, 961)
        seen = network.seen
    assert plan[2].words == 1 and (seen[2, 3] - seen[0, 3]).abs().max() < 1e-6
    assert (seen[2, 2] - seen[0, 2]).abs().max() > 1e-4


def test_the_same_prompt_with_its_own_maps_is_the_same_picture(denoiser):
    config = WordsConfig(prompt=FIRST, changed=SECOND, steps=4)
    _, moments = drawing(denoiser, config, 0, [Reuse(), Reuse(), Reuse(1, 1), Reuse(1, 1)], again=True)
    *_, last = moments
    torch.testing.assert_close(last.after[3], last.after[0], atol=1e-4, rtol=1e-4)
    assert (last.after[2] - last.after[1]).abs().max() > 1e-3


def test_without_reuse_the_pictures_are_those_of_the_plain_loop(denoiser):
    config = WordsConfig(prompt=FIRST, changed=SECOND, steps=3)
    _, moments = drawing(denoiser, config, 5, [Reuse(), Reuse()])
    *_, last = moments
    plain = denoiser.paint([FIRST, SECOND], steps=3, scale=config.scale, seed=5)  # its noise differs from row to row
    with torch.no_grad():
        torch.testing.assert_close(denoiser.decode(last.after[:1]), plain[:1], atol=1e-3, rtol=1e-3)


# --- heat -------------------------------------------------------------------------------------------------------------


def test_every_token_belongs_to_one_name(denoiser):
    columns = columns_of(denoiser, "a red circle above a blue square")
    assert [name for name, _ in columns] == [
        "start",
        "a",
        "red",
        "circle",
        "above",
        "a (2)",
        "blue",
        "square",
        "end",
        "padding",
    ]
    assert sorted(place for _, places in columns for place in places) == list(range(CONTEXT))
    full = "red " * (CONTEXT - 2)
    assert columns_of(denoiser, full)[-1] == ("end", [CONTEXT - 1])


def test_heat_adds_up_and_is_relative_to_its_mean():
    maps = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
    heat = gathered(maps, [("a", [0]), ("b", [1, 2]), ("c", [3, 4])])
    torch.testing.assert_close(heat.sum(0), maps.sum(0))
    torch.testing.assert_close(relative(heat).mean((1, 2)), torch.ones(3))
    rows = in_rows(relative(torch.rand(6, 8, 8)))
    assert rows.shape == (2, 4, 8, 8) and (rows[1, 2:] == 1).all()


def test_even_heat_lies_on_the_object_as_its_area_and_shows_nothing():
    picture = render(draw(np.random.default_rng(1), 1))[0]
    inside = object_in(picture)
    even = torch.full((2, 8, 8), 0.3)
    torch.testing.assert_close(on_object(even, inside), inside.float().mean().expand(2))
    shown = overlaid(picture, even)
    torch.testing.assert_close(shown[:, 0], shown[:, 2])  # gray
    hot = even.clone()
    hot[0, :4] = 0.9
    assert overlaid(picture, hot)[0, 0, :8].mean() > overlaid(picture, hot)[0, 2, :8].mean() + 0.3


def test_the_object_is_what_was_drawn():
    scenes = draw(np.random.default_rng(4), 6)
    for number, picture in enumerate(render(scenes)):
        inside = object_in(picture)
        x, y = int(scenes.x[number, 0]), int(scenes.y[number, 0])
        assert inside[y, x] and 1.0 < float(inside.sum()) / scenes.radius[number, 0] ** 2 < 4.2


def test_only_pixels_away_from_the_object_count():
    picture, other = torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[10:20, 10:20] = True
    other[:, 9:21, 9:21] = 1  # the object, and a rim of one pixel
    assert changed_outside(picture, other, inside) == 0
    other[:, 0] = 0.5
    assert changed_outside(picture, other, inside) == pytest.approx(100 * 32 / (32 * 32 - 144))


def test_words_ends_with_what_it_measured():
    steps = list(words(WordsConfig(steps=3, rounds=2)))
    figures = by_figure(result for step in steps for result in step.figures)
    assert figures[heat_of("end")].expected == pytest.approx(steps[-1].area)
    assert figures[OWN_MAPS].measured < 1e-3
    assert len(steps[-1].sweep) == 7 and steps[-1].sweep[0][1] == 0
    assert sum(part for _, _, part in steps[-1].shares) == pytest.approx(100, abs=0.01)
    again = list(words(WordsConfig(steps=3, rounds=2)))
    assert np.array_equal(steps[-1].pixels, again[-1].pixels) and steps[-1].sweep == again[-1].sweep


# --- img2img ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 100), st.floats(0.02, 1.0))
def test_the_steps_are_those_that_diffusers_visits(steps, strength):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    skip = max(steps - min(int(steps * strength), steps), 0)
    assert left_out(steps, strength) == skip
    assert leading(steps, 1)[left_out(steps, strength) :] == scheduler.timesteps[skip:].tolist()


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_our_loop_is_the_image_to_image_pipeline(denoiser, strength):
    from diffusers import StableDiffusionImg2ImgPipeline

    theirs = StableDiffusionImg2ImgPipeline(**pipeline(denoiser).components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    config = Img2imgConfig(prompt=SECOND, strength=strength, steps=8)
    picture, _ = given_picture(config, denoiser)
    latents, noise = denoiser.encode(picture), denoiser.noise(1, 7)
    *_, last = changing(denoiser, config, latents, noise, strength)
    told = theirs(
        config.prompt,
        image=latents,
        strength=strength,
        num_inference_steps=8,
        guidance_scale=config.scale,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    )
    torch.testing.assert_close(last.after, told.images, atol=1e-3, rtol=1e-3)


def test_skipped_steps_are_the_rest_of_the_whole(denoiser):
    """From where the whole loop was, the loop with skipped steps goes on to the same end."""
    network, kinds = denoiser.network(denoiser.states([FIRST])), (denoiser.schedule, denoiser.predicts)
    whole = list(sampling(network, denoiser.noise(1, 0), kinds, 6, 2.0, offset=1))
    *_, last = sampling(network, whole[2].x, kinds, 6, 2.0, offset=1, skip=2)
    assert torch.equal(last.after, whole[-1].after)


def test_strength_says_how_much_is_left(denoiser):
    config = Img2imgConfig(steps=10, strength=0.5)
    latents, noise = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    first = next(changing(denoiser, config, latents, noise, 0.5))
    assert first.t == 401 and float(first.x.mean()) == pytest.approx(
        float(signal("scaled_linear")[401].sqrt()), abs=1e-6
    )
    torch.testing.assert_close(first.x, noised(latents, noise, float(signal("scaled_linear")[401])))


def test_psnr_of_a_tenth_is_20():
    assert psnr(torch.zeros(2, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)) == pytest.approx(20, abs=1e-4)


def test_img2img_ends_with_what_it_measured():
    steps = list(img2img(Img2imgConfig(steps=5, rounds=3, strength=0.5)))
    far = by_figure(steps[-1].figures)[FAR]
    assert far.measured == pytest.approx(far.expected, rel=0.12)
    assert [strength for strength, *_ in steps[-1].sweep] == [0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
    assert steps[-1].row.shape == (7, 3, 32, 32) and steps[0].start == leading(5, 1)[3]
    drawn = [step for step in steps if step.row is None]
    assert [step.step for step in drawn] == [3, 4, 5]
    again = list(img2img(Img2imgConfig(steps=5, rounds=3, strength=0.5)))
    assert np.array_equal(steps[-1].row, again[-1].row)


def test_the_users_picture_is_taken(denoiser):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "PNG")
    picture, note = given_picture(Img2imgConfig(picture=file.getvalue()), denoiser)
    assert picture.shape == (1, 3, 32, 32) and "32 x 32" in note and float(picture[0, 0].min()) == 1
    last = list(img2img(Img2imgConfig(picture=file.getvalue(), steps=2, rounds=1)))[-1]
    assert all(np.isnan(old) for *_, old, _ in last.sweep)  # nobody knows what it shows


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: next(words(WordsConfig(prompt="a red dragon"))), "does not know 'dragon'"),
        (lambda: next(words(WordsConfig(changed=" "))), "empty"),
        (lambda: next(words(WordsConfig(prompt="red " * 30))), "at most 22 words"),
        (lambda: WordsConfig(prompt="a" * 5000), "at most 200 characters"),
        (lambda: next(img2img(Img2imgConfig(prompt=""))), "empty"),
        (lambda: Img2imgConfig(strength=0.02, steps=10), "at least 1 / steps"),
        (lambda: next(img2img(Img2imgConfig(picture=b"GIF89a"))), "not a picture"),
        (lambda: Img2imgConfig(model="someone/else"), "must be one of"),
    ],
)
def test_bad_input_gets_its_sentence(make, part, refusal):
    assert part in refusal(make)


def test_an_empty_prompt_is_refused_by_name(denoiser, refusal):
    assert "prompt is empty" in refusal(lambda: ids_of(denoiser, "  "))
