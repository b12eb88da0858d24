"""The pass that is written out: equal to the model's, also with parts knocked out; and true sentences about it."""

import copy
import json
import math
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import verdict
from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import gpt2_from_folder
from core.nanogpt.film import stages
from core.nanogpt.forward_pass import divergence, forward_pass, largest_difference, logit_lens
from core.nanogpt.generating import shipped_writer
from core.nanogpt.inside import (
    EXACT,
    MATTERS,
    MOST_TOKENS,
    NEEDED,
    SETTLED,
    SURE,
    InsideConfig,
    filmed,
    inside,
    opened,
    parts_of,
    taken_out,
)
from core.nanogpt.lesson import LESSON, what_matters_here

SHAPES = {
    "modern": Shape(20, 3, 2, 16, 24),
    "gpt2": Shape(20, 3, 2, 16, 24, "gpt2", bias=True, tied=True),
    "llama": Shape(20, 3, 4, 16, 24, "llama", tied=True, kv_heads=2, hidden=40, theta=1e5),
    "bare": Shape(20, 2, 2, 16, 24, residual=False, norm=False, positions=False),
}
IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    """Every weight random: a fresh model is partly zero, and a zero hides what is wrong."""
    model, rng = Transformer(SHAPES[request.param]), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.3)
    return model.eval()


def test_every_tensor_is_the_models_own(model):
    whole = forward_pass(model, IDS)
    assert largest_difference(model, IDS, whole) < 1e-5
    torch.testing.assert_close(whole.logits, model(IDS[None])[0], atol=1e-5, rtol=1e-5)


def test_a_wrong_formula_would_be_found(model):
    whole = forward_pass(model, IDS)
    layer = whole.layers[0]
    bent = copy.copy(layer)
    object.__setattr__(bent, "shares", torch.softmax(layer.scores, -1))  # without the mask
    object.__setattr__(whole, "layers", (bent, *whole.layers[1:]))
    assert largest_difference(model, IDS, whole) > 1e-2


@pytest.mark.parametrize("part", ["0", "1", "mlp"])
def test_knocking_out_is_the_model_with_those_weights_at_zero(model, part):
    for layer in range(model.shape.n_layer):
        cut, block = copy.deepcopy(model), None
        block = cut.blocks[layer]
        with torch.no_grad():
            if part == "mlp":
                block.down.weight.zero_()
                if block.down.bias is not None:
                    block.down.bias.zero_()
            else:
                width = model.shape.width // model.shape.n_head
                block.attention.out.weight[:, int(part) * width : (int(part) + 1) * width] = 0
        ours = forward_pass(model, IDS, frozenset({(layer, part)}))
        torch.testing.assert_close(ours.logits, cut(IDS[None])[0], atol=1e-5, rtol=1e-5)
        assert (ours.logits[-1] - forward_pass(model, IDS).logits[-1]).abs().max() > 1e-4


def test_the_lens_ends_with_the_prediction_and_begins_with_the_embedding(model):
    whole = forward_pass(model, IDS)
    lens = logit_lens(model, whole)
    assert len(lens) == model.shape.n_layer + 1
    torch.testing.assert_close(lens[-1], whole.p)
    cut = copy.deepcopy(model)
    cut.blocks = torch.nn.ModuleList(cut.blocks[:1])
    torch.testing.assert_close(lens[1], torch.softmax(cut(IDS[None])[0, -1], -1), atol=1e-6, rtol=1e-4)


def test_the_divergence_is_pytorchs():
    p, other = (torch.softmax(torch.randn(9, generator=torch.Generator().manual_seed(s)), -1) for s in (1, 2))
    assert divergence(p, other) == pytest.approx(float(F.kl_div(other.log(), p, reduction="sum")), rel=1e-5)
    assert divergence(p, p) == 0.0
    assert math.isfinite(divergence(p, torch.eye(9)[0]))


def test_layers_before_the_first_that_is_knocked_out_are_taken_as_they_are(model):
    whole = forward_pass(model, IDS)
    for part in parts_of(model):
        out = taken_out(model, part)
        alone, after = forward_pass(model, IDS, out), forward_pass(model, IDS, out, whole)
        torch.testing.assert_close(alone.logits, after.logits)
        assert all(after.layers[n] is whole.layers[n] for n in range(part[0]))


def test_a_knocked_out_layer_hands_its_rows_on(model):
    without = forward_pass(model, IDS, taken_out(model, (1, "all")))
    layer = without.layers[1]
    if model.shape.residual:
        assert torch.equal(layer.left, layer.came)
    assert len(parts_of(model)) == model.shape.n_layer * (model.shape.n_head + 2)


def lively_pass():
    shape = SHAPES["modern"]
    model, rng = Transformer(shape), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.5)
    return model.eval(), forward_pass(model, IDS)


def test_the_stages_say_the_numbers_of_their_tensors():
    model, whole = lively_pass()
    tokens, layer = tuple("abcdefgh"), whole.layers[1]
    told = {stage.name: stage.says for stage in stages(model, tokens, whole, (1, 1))}
    shares, scores = layer.shares[1], layer.scores[1]
    torch.testing.assert_close(shares.sum(-1), torch.ones(8))
    assert float(shares.triu(1).abs().max()) == 0.0 and float(scores.triu(1).abs().max()) > 0
    most = int(shares[-1].argmax())
    assert f"“{tokens[most]}” {float(shares[-1, most]):.0%}" in told["mask and softmax"]
    assert f"{float(scores[-1].max()):.2f}" in told["scores"]
    assert "head 2 hands on 8 numbers" in told["the weighted sum"]
    assert "layer 2" in " ".join(told)


def test_what_the_browser_gets_is_enough_to_compute_the_rest_again():
    """The formulas of the lesson, from q, k, v and what is added; assets/js/anatomy/model.js does the same."""
    _, whole = lively_pass()
    sent = opened(whole, 0)
    row = sent[0]["came"]
    for number, layer in enumerate(whole.layers):
        told = sent[number]
        scores = told["q"] @ told["k"].transpose(0, 2, 1) / math.sqrt(told["q"].shape[-1])
        powers = np.exp(scores) * np.tri(len(row))
        shares = powers / powers.sum(-1, keepdims=True)
        np.testing.assert_allclose(shares, layer.shares, atol=1e-5)
        np.testing.assert_allclose(shares @ told["v"], layer.mixed, atol=1e-4)
        np.testing.assert_allclose(row, layer.came, atol=1e-4)
        row = row + told["attended"] + told["thought"]
        np.testing.assert_allclose(row, layer.left, atol=1e-4)


def test_of_a_wide_model_one_layer_is_opened(monkeypatch):
    _, whole = lively_pass()
    assert list(opened(whole, 1)) == [0, 1, 2]
    monkeypatch.setattr(
        sys.modules["core.nanogpt.inside"], "MOST_NUMBERS", 1000
    )  # the package has a function of that name
    alone = opened(whole, 1)
    assert list(alone) == [1]
    np.testing.assert_array_equal(alone[1]["came"], whole.layers[1].came)


def run(**settings):
    *steps, last = inside(InsideConfig(**settings))
    return steps, last, by_figure(last.figures)


def test_a_run_opens_the_shipped_model():
    steps, last, figures = run(text="Enter BRAMB")
    first, full = next(step for step in steps if step.stages), steps[-1]
    assert first.stages[0].place == "whole" and not first.tensors  # seen from far at once
    assert len(full.stages) == 11 and full.shares.shape == (6, 5, 11, 11) and len(full.tensors) == 6
    assert 0 < figures[EXACT].measured < 1e-4 and figures[EXACT].expected == 0
    assert full.lens[-1][0] == full.candidates[0][0] == "L"
    assert figures[SURE].measured == pytest.approx(100 * full.candidates[0][1])
    assert figures[SURE].measured > 90
    guesses = [guess for guess, _, _ in full.lens]
    settled = int(figures[SETTLED].measured)
    assert set(guesses[settled:]) == {"L"} and (settled == 0 or guesses[settled - 1] != "L")
    single = [one.nats for one in full.knocked if one.part != "all"]
    assert len(single) == 6 * 6 and len(full.knocked) == 6 * 7
    assert figures[MATTERS].measured == max(single) > np.median(single)
    assert last.knocked[0].nats == max(single)
    assert figures[NEEDED].measured == sum(nats > 0.1 for nats in single) and figures[NEEDED].expected == 36
    outcome = Outcome(figures, InsideConfig(), last)
    part = last.knocked[0]
    assert f"of layer {part.layer + 1} matters most here" in what_matters_here(outcome)


@pytest.mark.parametrize(("needed", "right"), [(36, 0), (28, 0), (27, 1), (9, 1), (8, 2), (0, 2)])
def test_the_count_decides_how_many_it_needs(needed, right):
    ask = next(step for step in LESSON.steps if step.experiment == "inside")
    assert verdict(ask, Outcome(by_figure([NEEDED(needed, 36)]), InsideConfig(), None))[0] == right


def test_the_question_counts_the_parts_of_the_shipped_model():
    shape = shipped_writer().model.shape
    ask = next(step for step in LESSON.steps if step.experiment == "inside")
    assert f"{shape.n_layer * shape.n_head} heads and {shape.n_layer} MLPs" in ask.text
    assert ask.text.count("The lanter") == InsideConfig().text.count("The lanter") == 1


def test_the_head_that_the_tour_shows_looks_two_places_back():
    steps, last, _ = run()
    assert (last.layer, last.head) == (1, 1)
    assert (
        "head 2 of layer 2"
        in verdict(
            next(step for step in LESSON.steps if step.experiment == "inside"),
            Outcome(by_figure(last.figures), None, last),
        )[1]
    )
    shares = steps[-1].shares[1, 1]
    tokens = steps[-1].tokens
    assert tokens[-1] == "r" and tokens[int(shares[-1].argmax())] == "t" and shares[-1].argmax() == len(tokens) - 3
    assert steps[-1].candidates[0][0] == "n"


def test_what_is_knocked_out_is_what_the_pass_says():
    steps, _, _ = run(text="Enter BRAMB")
    model, symbols = shipped_writer().model, shipped_writer().symbols
    ids = torch.tensor(shipped_writer().ids("Enter BRAMB"))
    whole = forward_pass(model, ids).p
    for one in steps[-1].knocked[::5]:
        p = forward_pass(model, ids, taken_out(model, (one.layer, one.part))).p
        assert one.nats == pytest.approx(divergence(whole, p), rel=1e-3, abs=1e-6)
        assert one.best == symbols[int(p.argmax())] and one.best_p == pytest.approx(float(p.max()), rel=1e-3)
        for (symbol, _), q in zip(steps[-1].candidates, one.p, strict=True):
            assert q == pytest.approx(float(p[symbols.index(symbol)]), rel=1e-2, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "chosen"), [({"layer": 3, "head": 5}, (2, 4)), ({"layer": 4}, (3, None)), ({"head": 1}, (None, 0))]
)
def test_the_film_goes_where_it_is_told_and_else_where_it_matters_most(settings, chosen):
    steps, _, _ = run(text="Enter BRAMB", **settings)
    full = steps[-1]
    found = (full.layer, full.head)
    assert found == filmed(InsideConfig(**settings), list(full.knocked))
    assert all(want in (None, got) for want, got in zip(chosen, found, strict=True))
    nats = {(one.layer, one.part): one.nats for one in full.knocked}
    rivals = [n for (layer, part), n in nats.items() if part.isdigit() and chosen[0] in (None, layer)
              and chosen[1] in (None, int(part))]  # fmt: skip
    assert nats[full.layer, str(full.head)] == max(rivals)


def test_only_the_latest_tokens_are_looked_at():
    steps, _, _ = run(text="x" * 50 + "Enter BRAMB")
    assert len(steps[0].tokens) == MOST_TOKENS and "".join(steps[0].tokens).endswith("BRAMB")
    assert (
        f"the last {MOST_TOKENS} tokens" in next(f for f in fields(InsideConfig) if f.name == "text").metadata["help"]
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layer": 9}, "layer must be at most 6, as many as this model has, got 9"),
        ({"head": 7}, "head must be at most 5, as many as this model has, got 7"),
        ({"text": "漢字"}, "text must have at least one character that the model knows"),
        ({"model": "own"}, "model 'own' needs a model file"),
    ],
)
def test_what_is_not_there_gets_its_sentence(settings, sentence, refusal):
    assert refusal(lambda: list(inside(InsideConfig(**settings)))).startswith(sentence)


def test_unknown_characters_are_named():
    steps, _, _ = run(text="Hello wörld")
    assert steps[0].doing.startswith("This model has never seen “ö”")


def test_the_recorded_model_is_what_python_makes():
    """tests/golden/anatomy.json, which the browser's tests open: `python -m tests.golden.anatomy` writes it."""
    from tests.golden import anatomy

    recorded = json.loads(anatomy.FILE.read_text())
    for was, now in zip(recorded["wanted"], anatomy.wanted(), strict=True):
        for name, values in now.items():
            np.testing.assert_allclose(was[name], values, atol=1e-4)
    frames = anatomy.told()
    assert [frame["map"]["place"] for frame in frames] == [frame["map"]["place"] for frame in recorded["frames"]]
    assert frames[0]["map"]["give"].keys() == recorded["frames"][0]["map"]["give"].keys()


def test_the_tensors_of_a_gpt2_are_those_of_transformers(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=3, n_head=2, initializer_range=0.4)
    theirs = GPT2LMHeadModel._from_config(sizes, attn_implementation="eager").eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        told = theirs(IDS[None], output_hidden_states=True, output_attentions=True)
    whole = forward_pass(gpt2_from_folder(tmp_path), IDS)
    torch.testing.assert_close(whole.embedded, told.hidden_states[0][0], atol=1e-5, rtol=1e-4)
    for layer, shares, left in zip(whole.layers[:-1], told.attentions, told.hidden_states[1:], strict=False):
        torch.testing.assert_close(layer.shares, shares[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layer.left, left[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(whole.layers[-1].shares, told.attentions[-1][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.logits, told.logits[0], atol=1e-3, rtol=1e-3)
