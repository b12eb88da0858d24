"""see, gap and binding: what the pictures show equals the plain way of computing it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.clip.binding import KINDS, ONE_OBJECT, BindingConfig, binding, only_maximum, scenes_for, wins
from core.clip.gap import GAP, Directions, GapConfig, gap, gap_of, mean_cosine, recalls, slid
from core.clip.see import (
    NAMED_MIXTURE,
    NAMED_RIGHT,
    NAMED_STICKER,
    PLACES,
    SeeConfig,
    area,
    corner,
    mixtures,
    others,
    picture_of,
    rim,
    see,
    stuck,
    taken_apart,
    windows,
    written,
)
from core.foundations.captioned_shapes import PAIRS, SHAPES, draw, render, tokens_of
from core.foundations.figures import by_figure
from core.foundations.small_clip import Clip, make, shipped_clip


@pytest.fixture(scope="module")
def lively_clip():
    """Every weight random: a fresh model's map of places is all zero."""
    model, rng = make(torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim and name.startswith("visual"):
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.2)
    return Clip(model.eval().requires_grad_(False))


# --- see --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["lively", "shipped"])
def test_the_shares_of_all_places_add_up_to_the_cosine(which, lively_clip):
    clip = lively_clip if which == "lively" else shipped_clip()
    pictures, texts = (
        render(draw(np.random.default_rng(3), 5, two=0.5)),
        clip.texts(["a red circle", "a blue star on the left", "a cross"]),
    )
    parts, bias = taken_apart(clip, pictures, texts)
    assert parts.shape == (5, 3, PLACES, PLACES)
    np.testing.assert_allclose(parts.sum((2, 3)) + bias, (clip.pictures(pictures) @ texts.T).numpy(), atol=1e-5)
    assert np.abs(parts).sum() > 0


def test_a_window_covers_its_place_and_nothing_else():
    picture = render(draw(np.random.default_rng(0), 1))[0]
    for row in (0, 3, PLACES - 1):
        for column, covered in enumerate(windows(picture, row)):
            touched = (covered != picture).any(0)
            ys, xs = np.nonzero(touched.numpy())
            if len(ys):
                assert (
                    ys.min() >= 4 * row - 2
                    and ys.max() < 4 * row + 6
                    and xs.min() >= 4 * column - 2
                    and xs.max() < 4 * column + 6
                )
            inside = covered[:, 4 * row + 1, 4 * column + 1]
            torch.testing.assert_close(inside, rim(picture).flatten())


def test_covering_gives_the_plain_difference():
    config = SeeConfig(sticker="none")
    *_, last = see(config)
    clip, (picture, _) = shipped_clip(), picture_of(config, 32)
    texts = clip.texts(last.captions)
    plain = (clip.pictures(picture) @ texts.T - clip.pictures(windows(picture[0], 2)[3:4]) @ texts.T)[0]
    np.testing.assert_allclose(last.covered[0, :, 2, 3], plain.numpy(), atol=1e-5)
    np.testing.assert_allclose(last.covered[0], last.covered[1])  # without a sticker both pictures are one


def test_an_empty_picture_has_nothing_to_cover():
    """On one color alone, covering with that color changes nothing."""
    blank = torch.full((3, 32, 32), 0.97)
    for row in range(PLACES):
        torch.testing.assert_close(windows(blank, row), blank.expand(PLACES, -1, -1, -1))


def test_a_sticker_lies_in_its_corner_and_covers_its_area():
    white = torch.full((1, 3, 32, 32), 1.0)
    for shape in SHAPES:
        config = SeeConfig(sticker_shape=shape, sticker_colour="blue", radius=5.0)
        there = corner("bottom right", 5.0)
        out = stuck(white, config, 5.0, *(np.array([value]) for value in there))
        cover = (1 - out[0, 0]) / (1 - 0.13)  # red channel: white 1, blue 0.13
        assert float(cover.sum()) == pytest.approx(area(shape, 5.0), rel=0.06)
        assert float(cover[:16, :].sum() + cover[:, :16].sum()) == 0


def test_a_word_is_ink_on_paper():
    word = written("blue", torch.tensor((0.0, 0.0, 1.0)).view(3, 1, 1), 40, 400)
    assert word.shape[1] == 40 and 40 < word.shape[2] <= 400
    assert (
        float(word[2].min()) == pytest.approx(1, abs=1e-5) and float(word[0].min()) < 0.2 and float(word[0].max()) == 1
    )
    config = SeeConfig(sticker="word", word="blue")
    out = stuck(torch.zeros(2, 3, 32, 32), config, 4.0, np.array([3.0, 29.0]), np.array([3.0, 29.0]))
    assert (out.flatten(1).amax(1) == 1).all()


def test_the_scenes_of_the_sweep_share_nothing_with_the_sticker():
    scenes = others(SeeConfig(sticker_colour="red", sticker_shape="star"), 50)
    assert all(scenes.pair(number)[0] != "red" and scenes.pair(number)[1] != "star" for number in range(50))


def test_mixtures_are_the_two_that_swap():
    config = SeeConfig(sticker_colour="blue", sticker_shape="square")
    assert {PAIRS[at] for at in mixtures(("red", "circle"), config)} - {("blue", "square")} == {
        ("red", "square"),
        ("blue", "circle"),
    }


def test_a_radius_of_ones_own_is_measured():
    *_, last = see(SeeConfig(radius=3.3, captions="a red circle\na blue square"))
    assert 3.3 in [radius for radius, *_ in last.sweep] and list(last.sweep) == sorted(last.sweep)
    assert [result.figure for result in last.figures] == [NAMED_RIGHT, NAMED_STICKER, NAMED_MIXTURE]


def test_the_sticker_is_the_larger_object_in_28_percent():
    """What would be named as the sticker if the larger object won; a vote by area would say 40 %."""
    *_, last = see(SeeConfig())
    figure = by_figure(last.figures)[NAMED_STICKER]
    assert "larger object in 28 %" in figure.source and figure.expected == pytest.approx(39.7, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"captions": "a red circle"}, "2 to 6"),
        ({"captions": "a red circle\nan apple"}, "does not know 'apple'"),
        ({"sticker": "word", "word": " "}, "at least one letter"),
        ({"picture": b"<svg></svg>"}, "not a picture"),
    ],
)
def test_bad_input_gets_its_sentence(settings, part, refusal):
    assert part in refusal(lambda: next(see(SeeConfig(**settings))))


# --- gap --------------------------------------------------------------------------------------------------------------


def test_the_gap_is_the_distance_of_the_means():
    """Without putting them back on the sphere, a shift leaves |g - shift| of it, exactly."""
    rng = torch.Generator().manual_seed(0)
    x, y = (F.normalize(torch.randn(50, 8, generator=rng) + torch.randn(8, generator=rng), dim=-1) for _ in range(2))
    assert gap_of(x, y) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum().sqrt()), abs=1e-6)
    line = F.normalize(y.mean(0) - x.mean(0), dim=0)
    for shift in (-1.0, 0.25, gap_of(x, y), 1.5):
        assert gap_of(x + shift * line, y) == pytest.approx(abs(gap_of(x, y) - shift), abs=1e-6)
        torch.testing.assert_close(slid(x, y, shift), F.normalize(x + shift * line, dim=-1))
    torch.testing.assert_close(slid(x, y, 0.0), x)
    torch.testing.assert_close(slid(x, y, 0.7).norm(dim=-1), torch.ones(50))


def test_recall_counts_equal_captions_as_one():
    vectors = torch.eye(4)
    assert recalls(vectors, vectors, ["a", "b", "c", "d"]) == (100.0, 100.0)
    turned = vectors[[1, 0, 2, 3]]
    assert recalls(vectors, turned, ["a", "b", "c", "d"]) == (50.0, 50.0)
    assert recalls(vectors, turned, ["a", "a", "c", "d"]) == (100.0, 100.0)


def test_mean_cosine_is_the_mean_over_all_pairs():
    x = F.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    plain = [float(x[i] @ x[j]) for i in range(12) for j in range(12) if i != j]
    assert mean_cosine(x) == pytest.approx(np.mean(plain), abs=1e-6)


def test_the_second_direction_is_sklearns():
    """The first principal component of what is left without the line between the means; across that line, the means
    coincide.
    """
    from sklearn.decomposition import PCA

    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(60, 9, generator=rng) * torch.arange(1, 10) + shift for shift in (0, 2))
    mine, line = Directions(x, y), (y.double().mean(0) - x.double().mean(0)).numpy()
    line /= np.linalg.norm(line)
    both = torch.cat([x, y]).double().numpy()
    rest = both - np.outer(both @ line, line)
    flat = np.concatenate([mine.of(x), mine.of(y)])
    np.testing.assert_allclose(np.abs(flat[:, 1]), np.abs(PCA(1).fit_transform(rest)[:, 0]), atol=1e-8)
    means = mine.of(y).mean(0) - mine.of(x).mean(0)
    np.testing.assert_allclose(means, (gap_of(x, y), 0), atol=1e-8)


def test_the_slide_ends_closed_and_the_same_run_twice():
    one, two = (list(gap(GapConfig(pairs=48))) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    frames = [step for step in one if step.shift is not None]
    closed = next(step for step in frames if step.formula == 0)
    assert closed.gap < 0.1 * frames[0].gap and closed.gap == min(step.gap for step in frames)
    assert one[-1].untrained_gap > 0.5  # two cones, before any training
    figures = by_figure(one[-1].figures)
    assert figures[GAP].expected == one[-1].untrained_gap > 5 * figures[GAP].measured, "there is no gap to close here"


# --- binding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_right_and_wrong_captions(kind):
    """Both are words of the world and differ; the same words where a bag of words has to guess."""
    scenes, right, wrong = scenes_for(kind, 40, np.random.default_rng(0))
    assert len(scenes) == len(right) == len(wrong) == 40
    tokens_of(right + wrong)
    for a, b in zip(right, wrong, strict=True):
        assert a != b
        assert (sorted(a.replace("an ", "a ").split()) == sorted(b.replace("an ", "a ").split())) == kind.same_words
    assert (scenes.count == (2 if kind.two else 1)).all()


def test_swapped_twice_is_the_right_caption_again():
    """Exchanging colors and exchanging shapes together is exchanging the objects."""
    by_name = {kind.name: kind for kind in KINDS}
    scenes, right, _ = scenes_for(by_name["colours swapped"], 30, np.random.default_rng(1))
    for number in range(30):
        swapped = replace(scenes, colour=scenes.colour[:, ::-1])
        assert (
            by_name["shapes swapped"].captions(swapped, number, np.random.default_rng(0))[1]
            == by_name["objects exchanged"].captions(scenes, number, np.random.default_rng(0))[1]
        )
        assert by_name["colours swapped"].captions(swapped, number, np.random.default_rng(0))[1] == right[number]


def test_the_maximum_alone_is_the_tower_without_its_map(lively_clip):
    pictures = render(draw(np.random.default_rng(0), 4, two=0.5))
    tower = lively_clip.model.visual
    with torch.no_grad():
        where = tower.where(tower.features(2 * pictures - 1))
        whole = tower(2 * pictures - 1)
    torch.testing.assert_close(only_maximum(lively_clip, pictures), F.normalize(whole - where, dim=-1))


def test_a_guess_is_at_chance():
    """An untrained model picks the right caption in about half of the scenes."""
    clip = Clip(make(torch.Generator().manual_seed(5)).eval())
    scenes, right, wrong = scenes_for(KINDS[3], 200, np.random.default_rng(0))
    seen = clip.pictures(render(scenes))
    share = float(((seen * clip.texts(right)).sum(-1) > (seen * clip.texts(wrong)).sum(-1)).float().mean())
    assert 0.35 < share < 0.65


def test_the_control_is_easy_and_the_run_repeats():
    one, two = (list(binding(BindingConfig(scenes=32))) for _ in range(2))
    assert [step.doing for step in one] == [step.doing for step in two]
    figures = by_figure(one[-1].figures)
    assert figures[wins("new colour")].measured > 80
    assert figures[ONE_OBJECT].measured > 90
    assert sum(figure.headline for figure in figures) == 4
