"""GLIDE: schedules, the learned one, both samplers, guidance and holes, against plain ways of computing them. Small
untrained denoisers; no weights' quality.
"""

import io
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from core.foundations.captioned_shapes import draw, render
from core.foundations.diffusion import noised, sampling, signal
from core.foundations.figures import by_figure
from core.foundations.muon import COEFFICIENTS, ROUNDS, orthogonal
from core.foundations.small_diffusion import roll
from core.glide import DenoiseConfig, GuidanceConfig, InpaintConfig, TrainConfig, guidance, inpaint, noise, train
from core.glide.guidance import asked_words, diversity, liking, pulled
from core.glide.inpaint import CELLS, default_hole, hole_of, keeping, pasted, rim
from core.glide.model import PATCH, Glide, answer_of, mostly_middle, picture_of, prompt_tokens
from core.glide.muon import MOMENTUM, Muon
from core.glide.noise import NoiseConfig
from core.glide.schedule import (
    LEVELS,
    PIECES,
    TIMES,
    Way,
    between,
    bound,
    grey_cost,
    interpolated,
    known_way,
    least,
    log_snr,
    prior_cost,
    spread,
)
from core.glide.train import FIRST_LOSS, NEW_RIGHT, SEEN_RIGHT, SURE_AT, Levels, pairs_for, student
from core.glide.unet import Attention
from core.glide.upsampler import Upsampler


@pytest.fixture(scope="module")
def denoiser():
    """All its weights are rolled, so that it answers something."""
    one = Glide(16, (16, 32))
    roll(one, torch.Generator().manual_seed(3))
    return one.eval().requires_grad_(False)


@pytest.fixture
def upsampler(monkeypatch):
    """An untrained one: these tests are not about its quality."""
    one = Upsampler().eval().requires_grad_(False)
    monkeypatch.setattr(sys.modules["core.glide.guidance"], "shipped_upsampler", lambda: one)


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_log_snr_is_the_ratio_of_variances(name):
    way = known_way(name)
    assert (np.diff(way) < 0).all()
    kept = signal({"linear": "linear", "cosine": "squaredcos_cap_v2"}[name]).double().numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-way)), kept, atol=1e-12)
    assert float(log_snr(torch.tensor(0.5))) == 0


def test_a_new_way_is_a_straight_line_between_its_ends():
    way = Way()
    low, high = way.both
    np.testing.assert_allclose(way.curve(), np.linspace(high, low, len(TIMES)), atol=1e-6)
    level, fall = way.at(torch.rand(50, generator=torch.Generator().manual_seed(0)).double())
    np.testing.assert_allclose(fall.detach().numpy(), high - low, atol=1e-9)
    assert level.max() <= high and level.min() >= low


def test_any_way_falls_and_its_speed_is_its_slope():
    way, rng = Way(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        way.parts.copy_(torch.randn(PIECES, generator=rng, dtype=torch.float64))
    times = torch.rand(200, generator=rng).double().sort().values
    level, fall = way.at(times)
    assert (level.diff() <= 0).all() and (fall > 0).all()
    little = 1e-7
    np.testing.assert_allclose(
        ((level - way.at(times + little)[0]) / little).detach().numpy(), fall.detach().numpy(), rtol=1e-4
    )


def test_cutting_keeps_the_ends():
    for name in ("linear", "cosine"):
        cut = between(known_way(name), (-5.0, 4.0))
        assert (cut[0], cut[-1]) == (4.0, -5.0) and (np.diff(cut) < 0).all()


def test_interpolation_is_numpys():
    table, levels = (
        torch.rand(len(LEVELS), 3, generator=torch.Generator().manual_seed(0)).double(),
        torch.tensor([-10.0, -3.3, 0.0, 9.99]),
    )
    for column in range(3):
        np.testing.assert_allclose(
            interpolated(table, levels)[:, column],
            np.interp(levels.numpy(), LEVELS, table[:, column].numpy()),
            rtol=1e-6,
        )
    rows = torch.tensor([0, 2, 1, 0])
    np.testing.assert_allclose(interpolated(table, levels, rows), interpolated(table, levels)[torch.arange(4), rows])


def test_no_way_spreads_less_than_the_least_and_the_bound_does_not_care():
    errors = np.exp(0.5 * LEVELS)[:, None] * np.array([[0.5, 1.0, 2.0]])
    ends = (-6.0, 5.0)
    best, lowest = least(ends, errors)
    ways = [
        best,
        between(known_way("linear"), ends),
        between(known_way("cosine"), ends),
        np.linspace(ends[1], ends[0], len(TIMES)),
    ]
    means, spreads = zip(*(spread(way, errors) for way in ways), strict=True)
    assert spreads[0] == pytest.approx(lowest, rel=0.03) and min(spreads[1:]) > lowest
    np.testing.assert_allclose(means, means[0], rtol=0.02)  # the integral holds only the ends


def test_a_constant_error_wants_a_straight_line():
    best, lowest = least((-4.0, 4.0), np.full((len(LEVELS), 2), 0.7))
    np.testing.assert_allclose(best, np.linspace(4, -4, len(TIMES)), atol=1e-6)
    assert lowest == pytest.approx(0, abs=1e-3)


def test_costs_at_both_ends():
    """With much noise a gray level is a guess among 256; with little it is known. The prior costs nothing once nothing
    is left.
    """
    grey, prior, ten = grey_cost(), prior_cost(0.5), list(LEVELS).index(10)
    assert float(grey[ten]) == pytest.approx(
        0.5 * math.log(2 * math.pi * math.e) - math.log(2 / 255 * math.exp(5)), abs=0.05
    )
    assert (grey.diff() < 0).all() and float(grey[0]) < math.log(256) and float(grey[-1]) == pytest.approx(0, abs=1e-6)
    assert float(prior[0]) == pytest.approx(0, abs=1e-4) and (prior.diff() > 0).all()
    whole = bound(torch.tensor([-10.0, 10.0]).double(), torch.tensor(1.0).double(), (grey, prior))
    assert float(whole) == pytest.approx(float(grey[ten] + 1 + prior[0]))


def test_the_noise_run_starts_with_its_picture_and_repeats():
    one, two = (next(noise(NoiseConfig(seed=4))) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_allclose(one.pixels[0, 0], one.pixels[0, 1], atol=0.1)  # at time 0 hardly any noise under both
    assert one.verdicts[0][1] == "red star"


# --- Muon and training ------------------------------------------------------------------------------------------------


def test_orthogonal_keeps_the_directions():
    """Singular vectors stay, singular values come near 1: also where they differ a hundredfold."""
    u, v = (torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)))[0] for seed in (0, 1))
    x = (u * torch.logspace(0, -1.5, 16)) @ v.T
    out = orthogonal(x[None])[0]
    inner = u.T @ out @ v
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3
    assert float(inner.diagonal().min()) > 0.6 and float(inner.diagonal().max()) < 1.3
    torch.testing.assert_close(
        orthogonal(x[None, :, :5].contiguous())[0].mT, orthogonal(x[:, :5].T[None].contiguous())[0]
    )


def test_rounds_on_the_small_square_are_the_rounds_on_the_matrix():
    x = torch.randn(3, 12, 40, generator=torch.Generator().manual_seed(0))
    a, b, c = COEFFICIENTS
    plain = x / x.norm(dim=(1, 2), keepdim=True)
    for _ in range(ROUNDS):
        square = plain @ plain.mT
        plain = a * plain + (b * square + c * square @ square) @ plain
    torch.testing.assert_close(orthogonal(x), plain, atol=1e-5, rtol=1e-4)


def test_muon_is_torchs_for_a_matrix():
    start, rng = torch.randn(32, 48, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    one = Muon([ours, torch.nn.Parameter(torch.zeros(1))], 0.01)
    two = torch.optim.Muon([theirs], 0.01, weight_decay=0.0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(32, 48, generator=rng)
        theirs.grad = ours.grad.clone()
        one.step()
        two.step()
    moved = (ours - start).detach()
    assert (ours - theirs).norm() < 0.02 * moved.norm()  # theirs reckons in bfloat16


def test_the_network_reads_words_as_diffusers_does():
    """Words among the keys of an attention: diffusers' processor for GLIDE's kind, with our weights."""
    from diffusers.models.attention_processor import Attention as Theirs
    from diffusers.models.attention_processor import AttnAddedKVProcessor

    rng = torch.Generator().manual_seed(0)
    ours = Attention(32, 24)
    for weight in ours.parameters():
        weight.data.normal_(0, 0.2, generator=rng)
    theirs = Theirs(
        32,
        heads=2,
        dim_head=16,
        bias=True,
        norm_num_groups=1,
        added_kv_proj_dim=24,
        residual_connection=True,
        processor=AttnAddedKVProcessor(),
    )
    (q, k, v), (word_k, word_v) = ours.places.weight.chunk(3), ours.words.weight.chunk(2)
    biases, word_biases = ours.places.bias.chunk(3), ours.words.bias.chunk(2)
    theirs.group_norm.load_state_dict(ours.norm.state_dict())
    for layer, weight, bias in zip((theirs.to_q, theirs.to_k, theirs.to_v, theirs.add_k_proj, theirs.add_v_proj), (q, k, v, word_k, word_v),
                                   (*biases, *word_biases), strict=True):  # fmt: skip
        layer.load_state_dict({"weight": weight, "bias": bias})
    theirs.to_out[0].load_state_dict(ours.out.state_dict())
    x, words = torch.randn(2, 32, 4, 4, generator=rng), torch.randn(2, 5, 24, generator=rng)
    torch.testing.assert_close(ours(x, words), theirs(x, encoder_hidden_states=words), atol=1e-5, rtol=1e-4)


def test_an_untrained_network_answers_0():
    denoiser = Glide(16, (16, 32))
    x = denoiser.noise(2, 0)
    assert denoiser.places == x.shape[1:] and not denoiser(x, 500, denoiser.states(["a red circle", ""])).any()


def test_levels_in_the_middle_come_more_often():
    t = mostly_middle(20_000, torch.Generator().manual_seed(0))
    assert int(t.min()) >= 0 and int(t.max()) < 1000
    assert float(((t >= 269) & (t < 731)).float().mean()) == pytest.approx(
        0.6827, abs=0.015
    )  # one standard deviation, as logistic(1) is 0.731


def test_muon_moves_matrices_as_one_and_others_by_adam():
    rng = torch.Generator().manual_seed(0)
    matrix, bias = (torch.nn.Parameter(torch.randn(*size, generator=rng)) for size in ((32, 16, 3, 3), (32,)))
    start = matrix.detach().clone(), bias.detach().clone()
    muon = Muon([matrix, bias], 0.01)
    matrix.grad, bias.grad = torch.randn(matrix.shape, generator=rng), torch.randn(32, generator=rng)
    muon.step()
    moved = (start[0] - matrix.detach()).reshape(32, -1) / (0.01 * 0.2 * 144**0.5)
    values = torch.linalg.svdvals(moved)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    np.testing.assert_allclose((start[1] - bias.detach()).numpy(), 0.01 * bias.grad.sign().numpy(), rtol=1e-3)


def test_pairs_are_half_seen():
    from core.foundations.captioned_shapes import HELD_OUT

    pairs = pairs_for(24, 2)
    assert [pair in HELD_OUT for pair in pairs] == [False] * 12 + [True] * 12


def test_levels_sort_errors_by_noise():
    from core.foundations.small_diffusion import Lesson
    from core.glide.train import EDGES, TrainStep

    levels = Levels()
    for step in range(1, 4):
        levels.add(Lesson(step, 1.0, np.array([1.0, 3.0, 5.0]), np.array([0.5, 0.5, 0.999])))
    told = levels.told(TrainStep())
    middle, low = np.digitize(0.0, EDGES) - 1, np.digitize(math.log(999), EDGES) - 1
    assert told.at_first[middle] == pytest.approx(2) and told.by_level[low] == pytest.approx(5)


def test_training_repeats_and_its_first_loss_is_known():
    config = TrainConfig(steps=2, batch=4, width=16)
    one, two = (list(train(config)) for _ in range(2))
    assert [step.loss for step in one if step.loss] == [step.loss for step in two if step.loss]
    np.testing.assert_array_equal(one[-1].pixels, two[-1].pixels)
    figures = by_figure(one[-1].figures)
    assert {FIRST_LOSS, SEEN_RIGHT, NEW_RIGHT} <= figures.keys() and SURE_AT not in figures
    assert figures[NEW_RIGHT].expected == figures[SEEN_RIGHT].measured
    assert len(one[-1].files["model.safetensors"]) > 100_000


def test_the_student_is_drawn_from_the_seed():
    a, b, c = (student(TrainConfig(width=16, seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(
        a["unet.enter.weight"], c["unet.enter.weight"]
    )


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_scale_0_is_without_words_and_1_is_with_them(denoiser):
    states, start = denoiser.states(["a red star"] * 2), denoiser.noise(2, 0)
    kinds = denoiser.schedule, denoiser.predicts
    for scale, alone in ((0.0, denoiser.nothing(2)), (1.0, states)):
        *_, last = sampling(denoiser.network(states), start, kinds, 4, scale, clip=True)
        *_, plain = sampling(lambda x, t, alone=alone: (denoiser(x, t, alone),) * 2, start, kinds, 4, 1.0, clip=True)
        torch.testing.assert_close(last.after, plain.after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("gradient", ["clean", "noisy"])
def test_clips_pull_is_the_gradient_of_its_score(denoiser, upsampler, gradient):
    """Against a difference quotient along the pull itself."""
    from core.foundations.small_clip import shipped_clip

    clip = shipped_clip()
    text, x, t = clip.texts(["a green star"]), denoiser.noise(1, 0) * 0.4, 500
    free, told = pulled(denoiser, clip, text, gradient)(x, t)
    kept = float(signal(denoiser.schedule)[t])
    torch.testing.assert_close(free, denoiser(x, t, denoiser.nothing(1)), atol=1e-5, rtol=1e-4)
    free, told = (picture_of(denoiser, x, answer, kept) for answer in (free, told))
    slope = (told - free) / ((1 - kept) / (math.sqrt(kept) if gradient == "noisy" else 1))

    def score(x):
        return float(
            clip.scale
            * liking(
                clip,
                picture_of(denoiser, x, denoiser(x, t, denoiser.nothing(1)), kept) if gradient == "noisy" else x,
                text,
            )
        )

    start, way = (x if gradient == "noisy" else free), slope / slope.norm()
    little = 0.01
    with torch.no_grad():
        measured = (score(start + little * way) - score(start - little * way)) / (2 * little)
    assert measured == pytest.approx(float(slope.norm()), rel=0.1)


def test_diversity_is_what_the_judge_can_tell_apart():
    """Pictures of one pair differ less to the judge than pictures of any pair, and not at all from themselves."""
    one = draw(np.random.default_rng(0), 20, pairs=[("red", "star")] * 20, side=16)
    alike, mixed = (
        F.interpolate(render(scenes), scale_factor=2) for scenes in (one, draw(np.random.default_rng(0), 20, side=16))
    )
    assert diversity(alike) < 0.6 * diversity(mixed)
    assert diversity(alike[:1].expand(4, -1, -1, -1)) == pytest.approx(0, abs=1e-3)


def test_what_the_judge_can_grade(refusal):
    assert asked_words("A drawing of a RED star, on the left.") == ("red", "star")
    assert asked_words("there is a circle") == ("", "circle")
    assert "must name a color or a shape" in refusal(asked_words, "on the left")


@pytest.mark.parametrize("predicts", ["sample", "epsilon", "v_prediction"])
def test_answers_and_pictures_are_each_others_inverse(denoiser, predicts, monkeypatch):
    monkeypatch.setattr(denoiser, "predicts", predicts, raising=False)
    x, x0 = denoiser.noise(2, 0), denoiser.noise(2, 1)
    torch.testing.assert_close(picture_of(denoiser, x, answer_of(denoiser, x, x0, 0.3), 0.3), x0, atol=1e-5, rtol=1e-4)


# --- holes ------------------------------------------------------------------------------------------------------------


def test_the_brush_paints_squares():
    hole = hole_of("8" + "0" * 63)
    assert hole.shape == (1, 1, 32, 32) and float(hole.sum()) == 4 and float(hole[0, 0, :2, :2].sum()) == 4
    ring = hole_of(default_hole())
    assert float(ring.sum()) == 4 * (CELLS - 4) ** 2 and float(ring[0, 0, :4].sum() + ring[0, 0, :, -4:].sum()) == 0


@pytest.mark.parametrize(
    ("painted", "part"), [("", "no hole"), ("0" * 64, "no hole"), ("f" * 64, "Nothing is kept"), ("xyz", "hexadecimal")]
)
def test_a_bad_hole_gets_its_sentence(painted, part, refusal):
    assert part in refusal(hole_of, painted)
    assert part in refusal(lambda: next(inpaint(InpaintConfig(painted=painted))))


def test_keeping_is_replacing_the_kept_part_with_its_own_noise(denoiser):
    """Our way, in the predicted picture, is the usual one: before each step the kept part of x_t is the given picture
    with its first noise.
    """
    rng = torch.Generator().manual_seed(5)
    given, hole = torch.rand(1, 3, 16, 16, generator=rng), (torch.rand(1, 1, 16, 16, generator=rng) > 0.5).float()
    known, mask, start = (
        denoiser.encode(given),
        F.pixel_unshuffle(hole.expand(1, 3, -1, -1), PATCH),
        denoiser.noise(1, 1),
    )
    network, kinds = denoiser.network(denoiser.states(["a red star"])), (denoiser.schedule, denoiser.predicts)
    every, first = signal(denoiser.schedule), 900
    x = torch.where(mask > 0, start, noised(known, start, every[first]))
    seen = []
    for moment in sampling(keeping(denoiser, network, known, mask), x, kinds, 10, 2.0, clip=True):
        seen.append(moment)
        expected = noised(known, start, moment.kept)
        torch.testing.assert_close(
            torch.where(mask > 0, 0.0, moment.x), torch.where(mask > 0, 0.0, expected), atol=2e-3, rtol=0
        )
    assert seen[0].t == first
    ours = pasted(denoiser.small(seen[-1].after), given[0], hole)
    kept = hole.expand_as(ours) == 0
    assert torch.equal(ours[kept], given.expand_as(ours)[kept])  # bit for bit
    assert not torch.equal(ours, given)


def test_after_the_enlargement_the_kept_pixels_are_still_the_given_ones(denoiser, monkeypatch):
    """A picture of nothing but noise, so that no pixel could be right by chance."""
    monkeypatch.setattr(denoiser, "side", 32)
    monkeypatch.setattr(sys.modules["core.glide.inpaint"], "shipped_glide", lambda: denoiser)
    given = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(given).save(file, "PNG")
    *_, last = inpaint(InpaintConfig(picture=file.getvalue(), steps=2, samples=2))
    kept = np.broadcast_to(hole_of(default_hole())[0].numpy() == 0, (2, 2, 3, 32, 32))
    whole = np.broadcast_to(np.float32(given.transpose(2, 0, 1)) / 255, kept.shape)
    np.testing.assert_array_equal(last.finals[kept], whole[kept])
    assert np.abs(last.finals - whole)[~kept].mean() > 0.1


def test_the_rim_counts_only_neighbours_across_it():
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., 2:] = 1
    picture = torch.zeros(2, 3, 4, 4)
    picture[..., 2:] = 0.5
    picture[..., 3] = 1.0  # a jump inside the hole does not count
    assert rim(picture, hole) == pytest.approx(0.5)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: DenoiseConfig(prompt="a" * 5000), "at most 200 characters"),
        (lambda: DenoiseConfig(scale=1e9), "scale must be at most 20"),
        (lambda: DenoiseConfig(steps=0), "steps must be at least 1 step"),
        (lambda: GuidanceConfig(samples=3), "samples must be even"),
        (lambda: TrainConfig(width=24), "multiple of 16"),
        (lambda: prompt_tokens(" "), "empty"),
        (lambda: prompt_tokens("a red elephant"), "'elephant'"),
        (lambda: next(guidance(GuidanceConfig(prompt="in the middle"))), "must name"),
        (lambda: next(noise(NoiseConfig(picture=b"GIF89a"))), "not a picture"),
    ],
)
def test_bad_input_gets_its_sentence(make, part, refusal):
    assert part in refusal(make)
