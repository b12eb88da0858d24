"""DALL·E 2: the priors, the arc between embeddings, principal components, and the three experiments, against the plain
way of computing each.
"""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from core.dalle2.blend import BlendConfig, blend, changed, changes, difference, toward, weight_of
from core.dalle2.chain import AGAIN, AS_ASKED, WAYS, ChainConfig, chain, fitting
from core.dalle2.decoder import shipped_decoder
from core.dalle2.decoding import decoding, mean_cosine, slerp
from core.dalle2.prior import (
    KEPT,
    LEVELS,
    AutoregressivePrior,
    DiffusionPrior,
    best_of,
    lessons,
    load,
    save,
    shipped_autoregressive,
    shipped_prior,
)
from core.dalle2.variations import Components, VariationsConfig, named_after, picture_of, variations
from core.foundations.captioned_shapes import captions, draw, prompt, render
from core.foundations.diffusion import sampling, trailing
from core.foundations.small_clip import shipped_clip


def unit(n, width=64, seed=0):
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def priors():
    """Untrained ones, the codes fitted to real embeddings."""
    autoregressive = AutoregressivePrior(torch.Generator().manual_seed(1))
    autoregressive.fit(shipped_clip().pictures(render(draw(np.random.default_rng(3), 400))))
    return DiffusionPrior(torch.Generator().manual_seed(1)).eval(), autoregressive.eval()


# --- priors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [shipped_prior, shipped_autoregressive], ids=["diffusion", "autoregressive"])
def test_what_a_prior_imagines_has_the_length_of_an_embedding(prior):
    texts = shipped_clip().texts(["a red circle", "a blue star on the left"])
    one, again, other = (prior().imagine(texts, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one.norm(dim=-1), torch.ones(2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("which", [0, 1])
def test_best_of_takes_the_nearest_to_the_text(priors, which):
    texts, prior = unit(5), priors[which]
    chosen = best_of(prior, texts, seed=4, tries=3)
    every = torch.stack([prior.imagine(texts, 4 + 1000 * number) for number in range(3)])
    torch.testing.assert_close((chosen * texts).sum(-1), (every * texts).sum(-1).amax(0))


def test_the_diffusion_prior_is_told_the_text_and_can_do_without(priors):
    network = priors[0].network(unit(3))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    free, told = network(x, 500)
    with torch.no_grad():
        torch.testing.assert_close(told, priors[0](x, torch.full((3,), 500), unit(3)))
        torch.testing.assert_close(free, priors[0](x, torch.full((3,), 500), torch.zeros(3, 64)))
    assert not torch.allclose(free, told)


def test_a_code_sees_the_text_and_the_codes_before_it(priors):
    """Changing code k changes no logits up to and including those of code k itself."""
    prior = priors[1]
    codes = torch.randint(0, LEVELS, (2, KEPT - 1), generator=torch.Generator().manual_seed(0))
    other = codes.clone()
    other[:, 10] = (other[:, 10] + 7) % LEVELS
    with torch.no_grad():
        before, after = prior(unit(2), codes), prior(unit(2), other)
        assert before.shape == (2, KEPT, LEVELS)
        torch.testing.assert_close(before[:, :11], after[:, :11])
        assert not torch.allclose(before[:, 11], after[:, 11])
        assert not torch.allclose(before[:, 0], prior(unit(2, seed=9), codes)[:, 0])


def test_codes_are_sklearns_components_rounded_to_levels(priors):
    from sklearn.decomposition import PCA

    prior, vectors = priors[1], shipped_clip().pictures(render(draw(np.random.default_rng(3), 400)))
    theirs = PCA(KEPT, svd_solver="full").fit(vectors.double().numpy())
    np.testing.assert_allclose(np.abs((prior.basis.double().numpy() * theirs.components_).sum(1)), 1, atol=1e-3)
    codes = prior.codes(vectors)
    assert codes.min() == 0 and codes.max() == LEVELS - 1
    torch.testing.assert_close(
        prior.codes(prior.mean + prior.levels.gather(1, codes[0][:, None])[:, 0] @ prior.basis), codes[0]
    )  # a level is its own code
    assert float((prior.vectors(codes) * vectors).sum(-1).mean()) > 0.98
    gone = [float((prior.vectors(codes[:, :count]) * vectors).sum(-1).mean()) for count in (1, 4, 16, KEPT)]
    assert gone == sorted(gone)


def test_a_guess_costs_ln_32(priors):
    """With all logits equal the loss is the logarithm of the number of levels."""
    prior = AutoregressivePrior()
    prior.load_state_dict(priors[1].state_dict())
    with torch.no_grad():
        prior.out.weight.zero_()
    vectors = shipped_clip().pictures(render(draw(np.random.default_rng(4), 20)))
    assert float(prior.loss(vectors, unit(20), torch.Generator()).detach()) == pytest.approx(math.log(LEVELS), abs=1e-5)


def test_training_learns_and_repeats(monkeypatch):
    from core.dalle2 import prior as module

    monkeypatch.setattr(module, "FITTED", 256)
    monkeypatch.setattr(module, "BATCH", 32)
    runs = []
    for _ in range(2):
        models = DiffusionPrior(torch.Generator().manual_seed(0)), AutoregressivePrior(torch.Generator().manual_seed(0))
        runs.append([update for update, _ in lessons(*models, 12, seed=2)])
    assert runs[0] == runs[1]
    assert runs[0][-1].diffusion < 0.6 * runs[0][0].diffusion and runs[0][-1].autoregressive < runs[0][0].autoregressive


def test_a_prior_comes_back_from_its_file(priors, tmp_path):
    for prior in priors:
        save(prior, tmp_path)
        again = load(type(prior)(), tmp_path)
        for name, weight in prior.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], weight, atol=1e-3, rtol=2e-3)
    assert {file.name for file in tmp_path.iterdir()} == {"prior.safetensors", "autoregressive.safetensors"}


# --- the arc ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 500), share=st.floats(0, 1))
def test_the_arc_keeps_its_length_and_its_pace(seed, share):
    a, b = unit(2, 16, seed)
    angle = math.acos(float((a.double() * b.double()).sum()))
    point = slerp(a, b, share)
    assert float(point.norm()) == pytest.approx(1, abs=1e-5)
    assert float((point * a).sum()) == pytest.approx(math.cos(share * angle), abs=1e-5)
    torch.testing.assert_close(slerp(a, b, share), slerp(b, a, 1 - share), atol=1e-5, rtol=0)
    torch.testing.assert_close(slerp(a, b, 0.0), a, atol=1e-6, rtol=0)
    torch.testing.assert_close(slerp(a, b, 1.0), b, atol=1e-6, rtol=0)
    torch.testing.assert_close(slerp(a, a, share), a, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 500), share=st.floats(0, 0.95))
def test_turning_toward_a_difference_is_adding_it(seed, share):
    """slerp(z, d; s) is z + w (t2 - t1), brought back to length 1, with the w that is shown."""
    z, old, new = unit(3, 16, seed)
    weight = weight_of(z, difference(old, new), float((new - old).norm()), share)
    torch.testing.assert_close(
        slerp(z, difference(old, new), share), F.normalize(z + weight * (new - old), dim=0), atol=1e-4, rtol=1e-3
    )
    assert weight_of(z, difference(old, new), 1.0, 0.0) == 0


def test_the_walk_begins_at_the_picture():
    z, d = unit(2)
    walk = toward(z, d, (0.0, 0.5, 1.0))
    torch.testing.assert_close(walk[0], z)
    torch.testing.assert_close(walk[2], d)


def test_mean_cosine_is_the_mean_over_all_pairs():
    x = unit(9, 5)
    assert mean_cosine(x) == pytest.approx(
        np.mean([float(x[i] @ x[j]) for i in range(9) for j in range(9) if i != j]), abs=1e-6
    )


# --- decoding ---------------------------------------------------------------------------------------------------------


def drawn(decoder, vectors, steps, seed):
    """The plain loop, one set of vectors alone, from the schedule's very last step on."""
    kinds, x = (decoder.schedule, decoder.predicts), decoder.noise(len(vectors), seed)
    for moment in sampling(decoder.network(decoder.states(vectors).detach()), x, kinds, steps, 2.0, clip=decoder.clip,
                           visited=trailing(steps)):  # fmt: skip
        x = moment.after
    assert trailing(steps)[0] == 999
    return decoder.decode(x)


def test_sets_side_by_side_are_what_each_is_alone():
    decoder, a, b = shipped_decoder(), unit(2, seed=1), unit(1, seed=2)
    noise = decoder.noise(2, 5)
    *_, (step, number, shown) = decoding(decoder, [a, b], noise, 4, 2.0)
    assert (step, number) == (3, 1)
    torch.testing.assert_close(shown[0], drawn(decoder, a, 4, 5), atol=1e-5, rtol=1e-5)
    *_, (_, _, alone) = decoding(decoder, [b], noise, 4, 2.0)
    torch.testing.assert_close(shown[1], alone[0], atol=1e-5, rtol=1e-5)


# --- chain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["a blue star", "a large red circle on the left on white", "a star", "there is a small cross at the top"]
)
def test_real_pictures_that_fit_say_all_that_was_asked(words):
    scenes, whole = fitting(words, 24, 3)
    assert len(scenes) == 24 and whole == 24
    told = [set(caption.split()) for caption in captions(scenes, np.random.default_rng(0), told=1.0)]
    asked = {word for word in words.split() if word not in ("a", "on", "the", "there", "is", "at")}
    assert all(asked <= caption for caption in told)


def test_a_caption_that_nothing_fits_says_so():
    scenes, whole = fitting("a large small red circle", 24, 3)
    assert len(scenes) == 24 and whole == 0
    assert len(fitting("a large small red circle", 192, 3)[0]) == 32  # hardly any: no more than needed


def test_the_chain_repeats_and_its_first_noise_is_the_decoders():
    config = ChainConfig(steps=3, prior_steps=4, pictures=2)
    one, two = (list(chain(config)) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    ends = [[step for step in run if step.pixels is not None][-1].pixels for run in (one, two)]
    assert np.array_equal(*ends)
    first = one[0].pixels
    assert np.array_equal(first[0], first[2]) and np.array_equal(
        first[0], shipped_decoder().decode(shipped_decoder().noise(2, 0)).numpy()
    )
    text = shipped_clip().texts([config.prompt])[0]
    np.testing.assert_allclose(one[0].maps[0], text.numpy(), atol=1e-6)
    last = [step for step in one if step.pixels is not None][-1]
    assert last.pixels.shape == (3, 2, 3, 32, 32) and len(last.seen) == 3
    plain = drawn(shipped_decoder(), text.expand(2, -1), 3, 0)
    np.testing.assert_allclose(last.pixels[2], plain.numpy(), atol=1e-4)  # no prior: the text embedding, decoded


def test_cosines_to_the_nearest_are_the_plain_ones():
    steps = list(chain(ChainConfig(steps=1, prior_steps=3, pictures=1, prompt="a star")))
    told = dict(steps[-1].nearest)
    first = dict(steps[0].nearest)  # what needs no prior is known at once
    assert first == {name: told[name] for name in ("real pictures", "no prior")}
    scenes, _ = fitting("a star", 192, 0)
    real = shipped_clip().pictures(render(scenes))
    text = shipped_clip().texts(["a star"])
    assert told["no prior"] == pytest.approx(float((real @ text.T).max()), abs=1e-5)
    assert len(real) == 192
    others = [max(float(real[i] @ real[j]) for j in range(192) if j != i) for i in range(0, 192, 48)]
    cosines = (real @ real.T).fill_diagonal_(-1).amax(1)
    np.testing.assert_allclose(cosines[::48], others, atol=1e-5)
    assert told["real pictures"] == pytest.approx(float(cosines.mean()), abs=1e-5)
    imagined = shipped_prior().imagine(text.expand(32, -1), 0, 3)
    assert told["diffusion prior"] == pytest.approx(float((imagined @ real.T).amax(1).mean()), abs=1e-4)
    figures = {result.figure for step in steps for result in step.figures}
    assert not any(AS_ASKED.of(way=way) in figures for way in WAYS) and AGAIN.of(way=WAYS[0]) in figures


def test_the_grounds_stand_where_their_pictures_are():
    first = next(chain(ChainConfig()))
    scenes, _ = fitting("a yellow triangle", 192, 0)
    told = {name: (x, y) for name, x, y in first.grounds}
    for number, name in enumerate(("black", "white")):
        np.testing.assert_allclose(told[name], first.real[scenes.ground == number].mean(0), atol=1e-6)
    assert [name for name, *_ in next(chain(ChainConfig(prompt="a yellow triangle on white"))).grounds] == ["white"]


def test_the_lesson_tells_the_true_sizes():
    import core.dalle2 as topic

    told = " ".join(topic.__doc__.split())
    for model, words in (
        (shipped_decoder(), "It has {} million parameters"),
        (shipped_prior(), "the diffusion prior {} million"),
        (shipped_autoregressive(), "the autoregressive one {} million"),
    ):
        assert words.format(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}") in told


# --- variations -------------------------------------------------------------------------------------------------------


def test_all_components_are_the_whole_embedding():
    vectors = shipped_clip().pictures(render(draw(np.random.default_rng(1), 150, held_out=None)))
    components = Components.of(vectors)
    torch.testing.assert_close(components.cut(vectors, 64), vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(components.directions @ components.directions.T, torch.eye(64), atol=1e-5, rtol=0)
    assert components.share[-1] == pytest.approx(1) and (np.diff(components.share) >= -1e-9).all()
    needed = components.needed(0.99)
    assert components.share[needed - 1] >= 0.99 > components.share[needed - 2]
    kept = [float((components.cut(vectors, k) * vectors).sum(-1).mean()) for k in (1, 8, 24, 64)]
    assert kept == sorted(kept)


def test_names_of_shortened_embeddings():
    scenes = draw(np.random.default_rng(2), 60, held_out=None)
    vectors = shipped_clip().pictures(render(scenes))
    told = named_after(Components.of(vectors), vectors, scenes)
    names = shipped_clip().texts([prompt(*scenes.pair(number)) for number in range(60)])
    assert told.shape == (3, 64) and told[0, -1] > 95 and (told[1:].min(0) >= told[0]).all()
    assert float((vectors * names).sum(-1).min()) > 0.5


def test_variations_repeat_and_the_sweep_ends_with_the_whole():
    config = VariationsConfig(steps=2, pictures=3)
    one, two = (list(variations(config)) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    last = one[-1]
    assert [k for k, *_ in last.sweep][-1] == 64 and last.sweep[-1][1] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(
        last.sweep_pixels[-1], last.pixels, atol=1e-4
    )  # the same noise, all components: the variations themselves


def test_a_picture_of_ones_own_goes_through():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 64), (255, 0, 0)).save(buffer, "PNG")
    pixels, note = picture_of(VariationsConfig(picture=buffer.getvalue()))
    assert pixels.shape == (1, 3, 32, 32) and "middle square" in note and pixels[0, 0].min() == 1


# --- blend ------------------------------------------------------------------------------------------------------------


def test_the_walks_repeat_and_stand_on_the_sphere():
    config = BlendConfig(steps=2, frames=5)
    one, two = (list(blend(config)) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    last = one[-1]
    for walk in (last.between, last.words):
        np.testing.assert_allclose(np.linalg.norm(walk.vectors, axis=1), 1, atol=1e-5)
        assert walk.pixels.shape == (5, 3, 32, 32) and len(walk.seen) == len(walk.to_a) == 5
    np.testing.assert_allclose(last.between.vectors[0], last.words.vectors[0], atol=1e-6)
    np.testing.assert_allclose(
        last.between.pixels[0], last.words.pixels[0], atol=1e-4
    )  # both begin with the first picture and the same noise
    ends = shipped_clip().pictures(torch.from_numpy(last.ends))
    np.testing.assert_allclose(last.between.vectors[[0, -1]], ends.numpy(), atol=1e-5)


def test_what_the_second_caption_brings():
    told = [
        changed(BlendConfig(words_from=a, words_to=b))
        for a, b in (("a red circle", "a green circle"), ("a star", "a cross"), ("a red star", "a blue cross"))
    ]
    assert told == [(0, "green"), (1, "cross"), None]
    assert changes((("red", "star"), ("red", "star"), ("blue", "star"))) == "red star → blue star"


@pytest.mark.parametrize(
    ("run", "part"),
    [
        (lambda: chain(ChainConfig(prompt="a dog")), "does not know 'dog'"),
        (lambda: chain(ChainConfig(prompt="  ")), "prompt is empty"),
        (lambda: chain(ChainConfig(prompt="x" * 5000)), "at most 200 characters"),
        (lambda: chain(ChainConfig(model="kandinsky-2-2", prompt="")), "1 to 60 words"),
        (lambda: blend(BlendConfig(words_to="a red circle")), "say the same"),
        (lambda: blend(BlendConfig(words_to="a red cat")), "does not know 'cat'"),
        (lambda: variations(VariationsConfig(picture=b"GIF89a")), "not a picture"),
        (lambda: blend(BlendConfig(picture_b=b"<svg/>")), "not a picture"),
    ],
)
def test_bad_input_gets_its_sentence(run, part, refusal):
    assert part in refusal(lambda: next(run()))
