"""match and real: the matrix of cosines, the softmax, the user's pictures, and the path to a model of the hub."""

import importlib
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from core.clip.match import CELLS, ODDS, TEMPLATES, MatchConfig, against_random, match, painting, softmax, wording
from core.clip.real import HUB, RealClip, from_folder, lines_of
from core.foundations.captioned_shapes import COLOURS, draw, render, tokens_of
from core.foundations.small_clip import shipped_clip

(REAL,) = HUB
match_module = importlib.import_module("core.clip.match")  # `core.clip.match` is the experiment


def png(colour, size=(40, 30)):
    kept = io.BytesIO()
    Image.new("RGB", size, colour).save(kept, "PNG")
    return kept.getvalue()


def first_of(config):
    return next(match(config))


def last_of(config):
    *_, last = match(config)
    return last


def test_the_softmax_is_torchs():
    cosines = np.random.default_rng(0).uniform(-1, 1, (4, 6))
    for scale in (1.0, 30.0, 100.0):
        theirs = F.softmax(scale * torch.from_numpy(cosines), dim=-1).numpy()
        np.testing.assert_allclose(softmax(cosines, scale), theirs, rtol=1e-12)


def test_the_first_step_is_the_matrix_of_the_models_cosines():
    step, clip = first_of(MatchConfig(drawn=3)), shipped_clip()
    mine = clip.pictures(torch.from_numpy(step.pixels)) @ clip.texts(step.captions).T
    np.testing.assert_allclose(step.cosines, mine.numpy(), atol=1e-6)
    assert step.cosines.shape == (3, len(step.captions)) and step.names == ("drawn 1", "drawn 2", "drawn 3")
    np.testing.assert_allclose(step.at_own.sum(1), 1)
    assert step.scale == clip.scale


def test_it_finds_the_caption_of_each_drawn_picture():
    """Four of the five drawn pictures have a caption with their color and shape among the default ones."""
    step = first_of(MatchConfig())
    best = [step.captions[row.argmax()].split()[-2:] for row in step.cosines[:4]]
    assert best == [["red", "circle"], ["blue", "square"], ["green", "star"], ["pink", "cross"]]


def test_odds_are_the_formula():
    step = first_of(MatchConfig())
    (figure,) = step.figures
    assert figure.figure == ODDS and figure.measured == pytest.approx(figure.expected, rel=1e-6)
    assert figure.gap == pytest.approx(0, abs=1e-6 * figure.expected)


def test_ranks_count_the_histogram():
    """The fraction of lower random captions agrees with the histogram to one bin."""
    clip, state = shipped_clip(), first_of(MatchConfig(drawn=2))
    seen = clip.pictures(torch.from_numpy(state.pixels))
    *_, last = against_random(clip, seen, state, 0)
    for row, cosines, heights in zip(last.lower, last.cosines, last.heights, strict=True):
        assert heights.sum() == match_module.RANDOM
        for share, cosine in zip(row, cosines, strict=True):
            at = int(np.searchsorted(match_module.EDGES, cosine)) - 1
            assert heights[:at].sum() <= share * match_module.RANDOM + 1e-6 <= heights[: at + 1].sum() + 1e-3


def test_same_seed_same_run():
    a, b = (last_of(MatchConfig(drawn=1, noise=0.5)) for _ in range(2))
    assert a.templates == b.templates and a.figures == b.figures
    assert (a.heights == b.heights).all()


def test_templates_are_words_of_the_world():
    for template in TEMPLATES:
        assert len(wording(template)) == 48 == len(set(wording(template)))
        tokens_of(wording(template))


def test_what_is_painted_is_seen():
    """Digits are rows of four squares; a painted square has the brush's color, the rest is background."""
    picture = painting("f000" + "0" * 60, "blue", "white", 32)
    side = 32 // CELLS
    np.testing.assert_allclose(picture[:, 0, 0], COLOURS["blue"])
    np.testing.assert_allclose(picture[:, 0, 4 * side - 1], COLOURS["blue"])
    assert float(picture[0, 0, 4 * side]) == pytest.approx(0.97) == float(picture[0, side, 0])
    step = first_of(MatchConfig(painted="f" * 64, colour="blue", drawn=0))
    assert step.names == ("painted",)


def test_own_pictures_come_first_and_what_was_done_is_said():
    step = first_of(MatchConfig(picture_1=png("red"), picture_3=png("blue", (32, 32)), drawn=1))
    assert step.names == ("yours 1", "yours 3", "drawn 1")
    assert step.notes == ("yours 1: made 32 x 32 of 40 x 30 pixels; only its middle square is used",)
    np.testing.assert_allclose(step.pixels[0, :, 5, 5], (1, 0, 0))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"captions": "a red circle"}, "2 to 8 different lines, got 1"),
        ({"captions": "a red circle\na purple dog"}, "does not know 'dog'"),
        ({"captions": "x"}, "2 to 8"),
        ({"drawn": 0}, "no picture"),
        ({"painted": "zz"}, "hexadecimal"),
        ({"picture_1": b"GIF89a"}, "not a picture"),
        ({"picture_2": png("red")[:60]}, "damaged"),
        ({"picture_1": png("red", (40, 1))}, "at least 8 pixels"),
    ],
)
def test_bad_input_gets_its_sentence(settings, part, refusal):
    assert part in refusal(lambda: first_of(MatchConfig(**settings)))


def test_lines_are_counted_once(refusal):
    assert lines_of(" a \n\nb\na", 3, "captions") == ["a", "b"]


# --- the path to the hub ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP saved in the hub's own format, with a tokenizer of five words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel

    place, start, end = tmp_path_factory.mktemp("clip"), "<|startoftext|>", "<|endoftext|>"
    words = {word: number for number, word in enumerate(["a", "red", "blue", "circle", "<unk>", start, end])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, words[start]), (end, words[end])]
    )
    tokenizer.save(str(place / "tokenizer.json"))
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    text = size | {"vocab_size": 7, "max_position_embeddings": 12, "eos_token_id": 6, "bos_token_id": 5}
    config = CLIPConfig(text_config=text, vision_config=size | {"image_size": 64, "patch_size": 16}, projection_dim=8)
    model, rng = CLIPModel(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim:
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.2)
    model.save_pretrained(place, safe_serialization=True)
    return place


def test_a_real_clip_is_read_from_the_hubs_format(folder):
    """Our wrapper against transformers' own whole forward pass: the same cosines."""
    clip = from_folder(folder)
    assert isinstance(clip, RealClip) and clip.side == 64
    pictures, texts = render(draw(np.random.default_rng(0), 3)), ["a red circle", "blue", "a blue circle"]
    mine = clip.pictures(pictures) @ clip.texts(texts).T
    shown = F.interpolate(pictures, (64, 64), mode="bilinear", antialias=True)
    mean, deviation = (
        torch.tensor(told).view(1, 3, 1, 1)
        for told in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    for number, text in enumerate(texts):  # without padding
        ids = torch.tensor([clip.tokenizer.encode(text).ids])
        ids = ids[:, : int((ids[0] == 6).nonzero()[0]) + 1]
        with torch.no_grad():
            theirs = clip.model(input_ids=ids, pixel_values=(shown - mean) / deviation)
        torch.testing.assert_close(mine[:, number], theirs.logits_per_image[:, 0] / clip.scale, atol=1e-5, rtol=1e-5)


def test_long_texts_are_cut_and_keep_their_end(folder):
    ids = from_folder(folder).tokenizer.encode("red " * 50).ids
    assert len(ids) == 12 and ids[-1] == 6


def test_match_and_see_run_on_a_real_model(folder, monkeypatch):
    from core.clip.see import SeeConfig, see

    monkeypatch.setattr("core.foundations.hub.hub_folder", lambda name: folder)
    monkeypatch.setattr(match_module, "RANDOM", 20)
    steps = list(match(MatchConfig(model=REAL, captions="a dog\na cat that was never seen", drawn=2)))
    done = [step for step in steps if step.cosines is not None]
    assert done[0].pixels.shape == (2, 3, 64, 64) and done[-1].templates and done[-1].figures
    shown = [
        step
        for step in see(SeeConfig(model=REAL, sticker="word", word="iPod", captions="an apple\nan iPod"))
        if step.cosines is not None
    ]
    assert shown[0].parts is None and shown[-1].figures
    assert not np.isnan(shown[-1].covered).any()
