"""The world: pictures that are covered as exactly as a finer grid says, captions that are true, pairs that are never
shown.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.captioned_shapes import (
    BEGINNINGS,
    COLOURS,
    CONTEXT,
    END,
    GREY,
    GROUNDS,
    HELD_OUT,
    LARGE_16,
    PAIRS,
    PLACES,
    RELATIONS,
    SEEN,
    SHAPES,
    SIZES,
    START,
    VOCABULARY,
    WORDS,
    asked_pair,
    captions,
    distance,
    draw,
    place_of,
    prompt,
    render,
    tokens_of,
)

seeds = st.integers(0, 2**32 - 1)


def scenes_of(seed, n=8, **told):
    return draw(np.random.default_rng(seed), n, **told)


# --- pictures ---------------------------------------------------------------------------------------------------------


def covered(scenes, number, fine=8):
    """The share of each pixel inside the shape's outline, counted on a grid of fine x fine points per pixel."""
    side = scenes.side
    points = (torch.arange(side * fine) + 0.5) / fine
    radius = float(scenes.radius[number, 0])
    px = ((points[None] - float(scenes.x[number, 0])) / radius).expand(len(points), -1)
    py = ((points[:, None] - float(scenes.y[number, 0])) / radius).expand(-1, len(points))
    inside = (distance(SHAPES[scenes.shape[number, 0]], px, py) <= 0).float()
    return inside.view(side, fine, side, fine).mean((1, 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_anti_aliasing_agrees_with_supersampling(shape):
    """A pixel is covered by its distance to the outline. Exact along straight edges, a little off at corners."""
    scenes = scenes_of(1, 6, pairs=[("purple", shape)] * 6)
    pictures = render(scenes)
    for number in range(6):
        ground, tint = list(GROUNDS.values())[scenes.ground[number]], torch.tensor(COLOURS["purple"])
        share = ((pictures[number] - ground) / (tint - ground)[:, None, None])[1]
        gap = (share - covered(scenes, number)).abs()
        assert gap.max() < 0.35 and gap.mean() < 0.006, (gap.max(), gap.mean())


def test_half_a_pixel_is_half_covered():
    """A square whose edge runs through the middle of a column of pixels."""
    scenes = scenes_of(0, 1, pairs=[("red", "square")])
    edge = 0.84 * 8
    scenes.radius[0, 0], scenes.x[0, 0], scenes.y[0, 0], scenes.ground[0] = 8, 4.5 + edge, 16, 0
    red = render(scenes)[0, 0, 16]
    assert red[4] == pytest.approx((COLOURS["red"][0] + GROUNDS["black"]) / 2, abs=1e-5)
    assert red[3] == pytest.approx(GROUNDS["black"]) and red[5] == pytest.approx(COLOURS["red"][0])


@given(seeds, st.sampled_from([16, 32]))
def test_pictures_stay_in_range_and_objects_in_the_picture(seed, side):
    scenes = scenes_of(seed, two=0.5 if side == 32 else 0.0, grey=0.3, side=side)
    pictures = render(scenes)
    assert pictures.shape == (8, 3, side, side) and pictures.min() >= 0 and pictures.max() <= 1
    border = torch.cat([pictures[..., 0, :], pictures[..., -1, :], pictures[..., :, 0], pictures[..., :, -1]], -1)
    ground = torch.tensor([list(GROUNDS.values())[one] for one in scenes.ground]).float().view(-1, 1, 1)
    assert (border - ground).abs().mean() < 0.15, "objects do not leave the picture"
    if side == 16:
        assert (scenes.radius >= LARGE_16[0]).all() and (scenes.radius <= LARGE_16[1]).all()


@pytest.mark.parametrize("side", [128, 224])
@given(seed=seeds)
def test_a_larger_canvas_has_the_same_scenes(side, seed):
    scenes = scenes_of(seed, two=0.5)
    large = render(scenes.at(side))
    assert large.shape[-1] == side
    assert float((torch.nn.functional.interpolate(large, (32, 32), mode="area") - render(scenes)).abs().mean()) < 0.01


def test_what_a_text_asks_for():
    assert asked_pair("this is a Red diamond, on white.") == ("red", "diamond")
    assert asked_pair("a picture of a red circle, on black.") == ("red", "circle") and asked_pair(
        "a picture of a small blue star."
    ) == ("blue", "star")
    for text in (
        "a cross",
        "there is a circle",
        "a red circle left of a blue square",
        "a red circle above a red circle",
    ):
        assert asked_pair(text) is None


@given(seeds)
def test_two_objects_do_not_touch(seed):
    scenes = scenes_of(seed, two=1.0)
    assert (scenes.count == 2).all()
    apart = np.maximum(np.abs(scenes.x[:, 0] - scenes.x[:, 1]), np.abs(scenes.y[:, 0] - scenes.y[:, 1]))
    assert (apart >= 13.9).all(), "their centres are in two halves"


@given(seeds)
def test_the_same_dice_draw_the_same_world(seed):
    first, second = scenes_of(seed, two=0.5), scenes_of(seed, two=0.5)
    assert torch.equal(render(first), render(second))
    assert captions(first, np.random.default_rng(seed)) == captions(second, np.random.default_rng(seed))


# --- what is never shown ----------------------------------------------------------------------------------------------


@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_held_out_pairs_are_never_drawn_nor_named(seed, two, grey):
    scenes = scenes_of(seed, 40, two=two, grey=grey)
    drawn = {scenes.pair(number, thing) for number in range(40) for thing in range(scenes.count[number])}
    assert not drawn & HELD_OUT and all(colour == "" or (colour, shape) in SEEN for colour, shape in drawn)
    told = " | ".join(captions(scenes, np.random.default_rng(seed), 1.0)) + " "
    assert not [pair for pair in HELD_OUT if " ".join(pair) in told]


def test_held_out_pairs_can_be_asked_for_and_every_word_is_known_without_them():
    scenes = scenes_of(0, 200, held_out=True)
    assert {scenes.pair(number) for number in range(200)} == HELD_OUT
    assert {colour for colour, _ in SEEN} == set(COLOURS) and {shape for _, shape in SEEN} == set(SHAPES)
    assert len(PAIRS) == 48 and len(SEEN) == 40


# --- captions ---------------------------------------------------------------------------------------------------------


@given(seeds)
def test_captions_are_true(seed):
    """Every word of a caption is checked against the numbers of its scene."""
    scenes = scenes_of(seed, 12, two=0.4, grey=0.2)
    for number, words in enumerate(captions(scenes, np.random.default_rng(seed), 1.0)):
        x, y, side = scenes.x[number], scenes.y[number], scenes.side
        for thing in range(scenes.count[number]):
            assert " ".join(part for part in scenes.pair(number, thing) if part) in words
        assert words.endswith(f" on {tuple(GROUNDS)[scenes.ground[number]]}")
        if scenes.count[number] == 2:
            told = [relation for relation in RELATIONS if f" {relation} " in words]
            truth = {"left of": x[0] < x[1], "right of": x[0] > x[1], "above": y[0] < y[1], "below": y[0] > y[1]}
            assert len(told) == 1 and truth[told[0]]
        else:
            radius = scenes.radius[number, 0]
            assert any(f" {size} " in f" {words} " and low <= radius <= high for size, (low, high) in SIZES.items())
            assert place_of(x[0], y[0], side) in words


def test_places_are_where_they_say():
    told = [place_of(x, y, 32) for x, y in ((16, 16), (6, 16), (26, 16), (16, 6), (16, 26))]
    assert told == list(PLACES)


def test_captions_leave_things_out():
    """A picture knows more than its caption: of 400, told 0.4, each thing is missing in about 60 %."""
    scenes = scenes_of(2, 400)
    words = captions(scenes, np.random.default_rng(2), 0.4)
    grounds = sum(" on black" in one or " on white" in one for one in words) / 400
    sizes = sum(" large " in one or " small " in one for one in words) / 400
    assert 0.3 < grounds < 0.5 and 0.3 < sizes < 0.5
    assert all(any(one.startswith(beginning) for one in words) for beginning in BEGINNINGS)


def test_grey_is_told_as_no_colour():
    scenes = scenes_of(3, 50, grey=1.0)
    assert (scenes.colour == GREY).all()
    assert not set(" ".join(captions(scenes, np.random.default_rng(0), 1.0)).split()) & set(COLOURS)


# --- tokens -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=CONTEXT - 2))
def test_tokens_round_trip(words):
    row = tokens_of([" ".join(words)])[0].tolist()
    assert row[0] == START and row[len(words) + 1] == END and not any(row[len(words) + 2 :])
    assert [WORDS[number - 1] for number in row[1 : len(words) + 1]] == words
    assert max(row) == END == VOCABULARY - 1, "the text tower reads its state at the largest number"


@given(seeds)
def test_every_caption_of_the_world_fits(seed):
    assert tokens_of(captions(scenes_of(seed, two=0.5, grey=0.3), np.random.default_rng(seed), 1.0)).shape == (
        8,
        CONTEXT,
    )


def test_case_and_punctuation_do_not_matter():
    assert torch.equal(tokens_of(["A red circle, on black."]), tokens_of(["a red circle on black"]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (" . , ", "is empty"),
        ("a mauve circle", "'mauve'"),
        ("rot " * 3000, "'rot'"),
        ("red " * 5000, "at most 22 words, got 5000"),
        ("x" * 5000, "does not know"),
    ],
)
def test_texts_it_cannot_read_get_one_sentence(text, told, refusal):
    assert told in refusal(tokens_of, [text])


def test_what_it_does_not_know_is_said_with_what_it_knows():
    with pytest.raises(ValueError, match=r"'mauve', 'hexagon'; it knows: red, orange"):
        tokens_of(["a mauve hexagon"])


def test_prompts_have_the_right_article():
    assert prompt("orange", "star") == "an orange star" and prompt("red", "star") == "a red star"
