"""CLIP's training: the loss is open_clip's, equal captions are left out, the parts make the whole, the card's numbers
are the file's.
"""

import json
import math
import re

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from core.clip.binding import SAME_VECTOR, WINS_MAXIMUM, BindingConfig, binding, wins
from core.clip.contrast import Contrast, contrast, schedule
from core.clip.train import FIRST_LOSS, GALLERY, Observer, TrainConfig, TrainStep, gallery, retrieval, train
from core.clip.worlds import Digits, Shapes, equal_captions, scanned, shapes_lot, twins_of
from core.foundations.captioned_shapes import GREY, HELD_OUT, PAIRS, draw, tokens_of
from core.foundations.figures import by_figure
from core.foundations.small_clip import Clip, encode_texts, make, shipped_clip
from core.foundations.turns import without_pauses
from core.foundations.weights import SHIPPED

FOLDER = SHIPPED / "shapes-clip"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


def unit(seed, n=6, width=5):
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=rng), dim=-1)


def learner(**changed):
    told = {"width": 16, "rate": 0.01, "scale": 10.0, "learn_scale": True, "most_scale": 100.0, "mask": True, "seed": 0}
    return Contrast(Shapes(), **(told | changed))


def loss_of(one, lot, scale):
    """One optimizer step."""
    *_, loss = one.one_step(lot, scale)
    return loss


# --- the loss ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(1, 100))
def test_the_loss_is_open_clips(seed, scale):
    pictures, texts = unit(seed), unit(seed + 1)
    wanted = open_clip.ClipLoss()(pictures, texts, torch.tensor(scale))
    assert torch.allclose(contrast(pictures, texts, torch.tensor(scale)), wanted, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10**6))
def test_the_loss_is_symmetric_in_the_towers(seed):
    pictures, texts, same = (
        unit(seed),
        unit(seed + 1),
        torch.rand(6, 6, generator=torch.Generator().manual_seed(seed)) < 0.3,
    )
    same = (same | same.T).fill_diagonal_(False)
    assert torch.allclose(
        contrast(pictures, texts, torch.tensor(9.0), same), contrast(texts, pictures, torch.tensor(9.0), same.T)
    )


@pytest.mark.parametrize("n", [2, 7, 64])
def test_equal_similarities_cost_ln_n(n):
    alike = torch.ones(n, 3) / math.sqrt(3)
    assert float(contrast(alike, alike, torch.tensor(14.3))) == pytest.approx(math.log(n), abs=1e-5)


def test_a_left_out_caption_is_as_if_it_were_not_there():
    """Pictures 0 and 1 have equal captions: the row of picture 0 is the softmax over the captions but 1."""
    pictures, texts, same = unit(0), unit(1), torch.zeros(6, 6, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    logits = 8.0 * pictures @ texts.T
    rows = [-(logits[i, i] - logits[i, [j for j in range(6) if not same[i, j]]].logsumexp(0)) for i in range(6)]
    columns = [-(logits[i, i] - logits[[j for j in range(6) if not same[j, i]], i].logsumexp(0)) for i in range(6)]
    wanted = (sum(rows) + sum(columns)) / 12
    assert torch.allclose(contrast(pictures, texts, torch.tensor(8.0), same), wanted, rtol=1e-5)
    assert not torch.allclose(contrast(pictures, texts, torch.tensor(8.0)), wanted, rtol=1e-3)


def test_equal_captions_put_a_floor_under_the_loss():
    """Perfect embeddings, k = 3 equal captions of 6: without leaving out, those cost ln 3 each."""
    pairs = torch.eye(4)[[0, 0, 0, 1, 2, 3]]
    tokens = torch.tensor([[1], [1], [1], [2], [3], [4]])
    assert float(contrast(pairs, pairs, torch.tensor(100.0))) == pytest.approx(math.log(3) / 2, abs=1e-4)
    assert float(contrast(pairs, pairs, torch.tensor(100.0), equal_captions(tokens))) == pytest.approx(0, abs=1e-4)


def test_equal_captions_are_found_off_the_diagonal_only():
    same = equal_captions(tokens_of(["a red star", "a star", "a red star"]))
    assert same.tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_captions_that_say_the_same_are_equal():
    scenes = draw(np.random.default_rng(0), 4, pairs=[("red", "star")] * 4)
    lot = shapes_lot(
        scenes, ["a red star", "there is a red star", "a picture of a red star on black", "this is a red star on black"]
    )
    assert equal_captions(lot.said).nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


# --- an optimizer step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [3, 64])
def test_towers_in_parts_give_the_gradients_of_the_whole(monkeypatch, at_once):
    monkeypatch.setattr("core.clip.contrast.AT_ONCE", at_once)
    ours, whole = learner(), learner()
    lot = ours.world.lot(np.random.default_rng(0), 8, 100)
    pictures = F.normalize(whole.model.encode_image(2 * lot.pictures - 1), dim=-1)
    texts = F.normalize(whole.model.encode_text(lot.tokens), dim=-1)
    loss = contrast(pictures, texts, whole.model.logit_scale.exp(), equal_captions(lot.said))
    loss.backward()
    gradients = {}
    ours.optimizer.register_step_pre_hook(
        lambda *_: gradients.update({name: weight.grad.clone() for name, weight in ours.model.named_parameters()})
    )
    assert loss_of(ours, lot, 1.0) == pytest.approx(loss.item(), rel=1e-5)
    assert len(gradients) > 30
    for name, weight in whole.model.named_parameters():
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-3, atol=1e-6), name


def test_texts_without_padding_are_open_clips_texts():
    model = make(torch.Generator().manual_seed(1), 16)
    tokens = tokens_of(["a red circle", "there is a large blue star in the middle on white", "cross"])
    assert torch.allclose(encode_texts(model, tokens), model.encode_text(tokens), atol=1e-5)


def test_the_scale_stays_within_its_cap():
    one = learner(most_scale=10.0, rate=0.5)
    lot = one.world.lot(np.random.default_rng(0), 4, 0)
    for _ in range(4):
        loss_of(one, lot, 1.0)
        assert 1 <= one.clip.scale <= 10.0001
    fixed = learner(learn_scale=False)
    loss_of(fixed, lot, 1.0)
    assert fixed.clip.scale == pytest.approx(10)


def test_it_learns_a_batch_by_heart():
    one = learner(seed=3)
    lot = one.world.lot(np.random.default_rng(1), 8, 0)
    losses = [loss_of(one, lot, 0.5) for _ in range(40)]
    assert losses[0] > 1.5 and losses[-1] < 0.1


@given(st.integers(1, 5000))
def test_the_rate_climbs_and_falls(steps):
    rates = [schedule(step, steps) for step in {0, steps // 20, steps // 2, steps - 1}]
    assert all(0 < rate <= 1 for rate in rates)
    assert schedule(steps - 1, steps) <= max(0.02, schedule(0, steps)) or steps < 20


# --- what it learns from ----------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_twins_differ_in_one_thing_and_are_no_held_out_pair(seed, grown):
    rng = np.random.default_rng(seed)
    scenes = draw(rng, 30, two=0.4, grey=0.2)
    twins = twins_of(scenes, rng, grown)
    for number in range(30):
        pairs = [[one.pair(number, thing) for thing in range(one.count[number])] for one in (scenes, twins)]
        changed = sum(a[part] != b[part] for a, b in zip(*pairs, strict=True) for part in (0, 1))
        moved = int((scenes.x[number] != twins.x[number]).any() or (scenes.y[number] != twins.y[number]).any())
        assert changed + moved + int(scenes.ground[number] != twins.ground[number]) <= 1
        assert not HELD_OUT & {pair for pair in pairs[1] if pair[0]}
    assert ((twins.colour == GREY) == (scenes.colour == GREY)).all()


@pytest.mark.parametrize("step", [0, 300, 5000])
def test_training_never_shows_a_held_out_pair(step):
    lot = Shapes(grey=0.0).lot(np.random.default_rng(0), 200, step)
    told = " | ".join(lot.captions) + " "
    assert not [pair for pair in HELD_OUT if " ".join(pair) in told]
    assert ("above" in told) == (step > 0), "one object comes first"


def test_the_quizzes_ask_what_they_say():
    for kind, held_out in zip(Shapes.quizzes, (False, True), strict=True):
        assert all((PAIRS[answer] in HELD_OUT) == held_out for answer in Shapes().quiz(kind, 60, 1).answers)
    digits = Digits()
    quiz = digits.quiz("unseen digits", 297, 0)
    pictures, labels = scanned()
    assert len(pictures) == 1797 and np.bincount(quiz.answers).tolist() == np.bincount(labels[:297]).tolist()
    lot = digits.lot(np.random.default_rng(0), 500, 0)
    known = {tuple(row) for row in pictures[:297, 0].flatten(1).numpy().round(4).tolist()}
    assert not [row for row in lot.pictures[:, 0].flatten(1).numpy().round(4).tolist() if tuple(row) in known], (
        "the test's scans are not trained on"
    )
    assert digits.tokens(["a handwritten number seven"]).argmax().item() == 5


# --- the run ----------------------------------------------------------------------------------------------------------

SMALL = {"steps": 4, "batch": 6, "width": 16}


def test_the_same_seed_gives_the_same_run_whatever_others_draw():
    def losses(seed):
        told = []
        for step in train(TrainConfig(**SMALL, seed=seed)):
            torch.rand(1)
            told += [step.loss] if step.loss is not None else []
        return told

    assert len(losses(1)) == 4 and losses(1) == losses(1) != losses(2)


@pytest.mark.parametrize("world", ["shapes", "digits"])
def test_a_run_hands_over_the_model_it_evaluated(world):
    *_, last = train(TrainConfig(**SMALL, world=world))
    from safetensors.torch import load

    config = json.loads(last.files["config.json"])
    model = make(torch.Generator(), config["width"], config["vocabulary"])
    model.load_state_dict({name: weight.float() for name, weight in load(last.files["model.safetensors"]).items()})
    observer = Observer(Digits() if world == "digits" else Shapes())
    look = observer.look(Clip(model.eval(), observer.world.tokens), 4)
    assert np.abs(look.tables - last.look.tables).max() < 0.01, "as good as it was, in float16"
    assert by_figure(last.figures)[FIRST_LOSS].measured > 1


def test_the_first_loss_is_near_the_log_of_what_counts():
    """A batch of digits: of 64 captions those equal to the own one are left out."""
    told = {}
    for mask in (True, False):
        *_, last = train(TrainConfig(world="digits", steps=1, mask=mask, width=16))
        told[mask] = by_figure(last.figures)[FIRST_LOSS]
    assert told[False].expected == pytest.approx(math.log(64)) and told[True].expected < math.log(64) - 0.05
    assert all(abs(figure.gap) < 0.8 for figure in told.values())


def test_the_floor_is_told_where_equal_captions_count():
    first = next(train(TrainConfig(world="digits", mask=False, steps=1, width=16)))
    height = dict(first.levels)["no lower with equal captions:"]
    assert 1.6 < height < 2.1, "about ln 6.4 for 64 captions of 10 kinds"
    assert len(next(train(TrainConfig(world="digits", steps=1, width=16))).levels) == 1


def test_a_loss_that_blows_up_ends_the_run(monkeypatch):
    """Weights that are no numbers any more: the run says so and ends, with a figure."""
    step = Contrast.one_step

    def broken(self, lot, scale):
        self.model.logit_scale.data.fill_(math.nan)
        return step(self, lot, scale)

    monkeypatch.setattr(Contrast, "one_step", broken)
    *_, last = train(TrainConfig(**SMALL))
    assert last.diverged and last.step == 1 and "smaller learning rate" in last.doing and last.figures


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"width": 20}, "width must be a multiple of 8 channels, got 20"),
        ({"batch": 1}, "batch must be at least 2 pairs, got 1"),
        ({"grey": 1.5}, "grey must be at most 1, got 1.5"),
        ({"scale": 1e9}, "scale must be at most 100, got 1e+09"),
        ({"world": "cats"}, "world must be one of shapes, digits, got 'cats'"),
        ({"steps": 0}, "steps must be at least 1 step, got 0"),
    ],
)
def test_bad_settings_get_their_sentence(settings, told, refusal):
    assert refusal(TrainConfig, **settings) == told


# --- the shipped weights ----------------------------------------------------------------------------------------------


def on_card(words):
    return float(re.search(rf"\*\*([\d.]+)\*\*[^|*\n]*{words}", CARD)[1])


def on_card_before(words):
    return float(re.search(rf"{words} in \*\*([\d.]+)\*\*", CARD)[1])


def test_the_cards_zero_shot_numbers():
    named = dict(without_pauses(Observer(Shapes()).named(shipped_clip(), TrainStep(), at_end=True)))
    for kind in Shapes.quizzes:
        assert 100 * named[kind] == pytest.approx(on_card(f"% of 400 pictures of {kind}"), abs=0.3)
    assert named["never seen pairs"] >= 0.98


def test_the_cards_retrieval_and_gap():
    found, gap = without_pauses(retrieval(shipped_clip(), gallery(), TrainStep()))
    assert 100 * found == pytest.approx(on_card(f"% of {GALLERY} pictures"), abs=0.5)
    assert gap == pytest.approx(on_card("between the centres"), abs=0.003)


def test_the_cards_binding():
    *_, last = binding(BindingConfig())
    figures = by_figure(last.figures)
    swapped, relation = (figures[wins(kind)].measured for kind in ("colours swapped", "relation"))
    assert swapped == pytest.approx(on_card_before("colours swapped"), abs=0.6)
    assert relation == pytest.approx(on_card_before("relation turned round"), abs=0.6)
    assert max(swapped, figures[WINS_MAXIMUM.of(kind="colours swapped")].measured) < 65, "with the map or without it"
    assert figures[SAME_VECTOR].measured > 0.99 > 0.8 > figures[SAME_VECTOR].expected


def test_the_cards_size_and_scale():
    clip = shipped_clip()
    assert f"{sum(weight.numel() for weight in clip.model.parameters()):,} parameters" in CARD
    assert clip.scale == pytest.approx(on_card("logit scale"), abs=0.05)
    assert (FOLDER / "model.safetensors").stat().st_size < 10_000_000
    assert json.loads((FOLDER / "config.json").read_text())["width"] == 96
