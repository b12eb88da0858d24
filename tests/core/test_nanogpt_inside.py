"""The pass that is written out: equal to the model's, also with parts knocked out; and true sentences about it."""

import copy
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.foundations.figures import by_figure
from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import shipped
from core.nanogpt.forward_pass import divergence, forward_pass, largest_difference, logit_lens
from core.nanogpt.inside import (
    CHANGED,
    EXACT,
    MATTERS,
    MOST_TOKENS,
    SETTLED,
    SURE,
    InsideConfig,
    inside,
    knocked_out,
    parts_of,
    stages,
)

SHAPES = {
    "modern": Shape(20, 3, 2, 16, 24),
    "gpt2": Shape(20, 3, 2, 16, 24, "gpt2", bias=True, tied=True),
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


def test_what_is_said_to_be_knocked_out_is():
    assert knocked_out(InsideConfig(knock="nothing"), 5) == frozenset()
    assert knocked_out(InsideConfig(knock="head", layer=2, head=3), 5) == {(1, "2")}
    assert knocked_out(InsideConfig(knock="attention", layer=2), 2) == {(1, "0"), (1, "1")}
    assert knocked_out(InsideConfig(knock="mlp", layer=1), 5) == {(0, "mlp")}
    assert len(parts_of(Transformer(SHAPES["modern"]))) == 3 * (2 + 1)


def test_the_stages_show_the_tensors_and_say_their_numbers():
    shape = SHAPES["modern"]
    model, rng = Transformer(shape), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.5)
    tokens, whole = tuple("abcdefgh"), forward_pass(model, IDS)
    told = {stage.name: stage for stage in stages(InsideConfig(layer=2, head=2), model, tokens, whole)}
    shares = told["mask and softmax"].maps[0]
    torch.testing.assert_close(shares.sum(-1), torch.ones(8))
    assert float(shares.triu(1).abs().max()) == 0.0
    most = int(shares[-1].argmax())
    assert f"“{tokens[most]}” {float(shares[-1, most]):.0%}" in told["mask and softmax"].says
    scores = told["scores"].maps[0]
    assert f"{float(scores[-1].max()):.2f}" in told["scores"].says and float(scores.triu(1).abs().max()) > 0
    torch.testing.assert_close(told["the weighted sum"].maps[0], shares @ told["query, key and value"].maps[2])
    added, row = told["the residual connection"].maps
    torch.testing.assert_close(row - added, told["what reaches layer 2"].maps[0])


def run(**settings):
    *steps, last = inside(InsideConfig(**settings))
    return steps, last, by_figure(last.figures)


def test_a_run_opens_the_shipped_model():
    steps, last, figures = run(text="Enter BRAMB", knock="nothing")
    frames = [step for step in steps if step.stage]
    assert len(frames) == 10 and all(step.values.shape[1] == 11 == len(step.rows) for step in frames)
    assert 0 < figures[EXACT].measured < 1e-4 and figures[EXACT].expected == 0
    assert last.lens[-1][0] == frames[-1].candidates[0][0] == "L"
    assert figures[SURE].measured == pytest.approx(100 * frames[-1].candidates[0][1])
    assert figures[SURE].measured > 90
    guesses = [guess for guess, _, _ in last.lens]
    settled = int(figures[SETTLED].measured)
    assert set(guesses[settled:]) == {"L"} and (settled == 0 or guesses[settled - 1] != "L")
    assert last.matters.shape == (6, 6) and figures[MATTERS].measured == last.matters.max() > np.median(last.matters)
    assert CHANGED not in figures and frames[-1].without == ()


def test_a_run_without_a_part_says_what_it_changed():
    _, last, figures = run(text="Enter BRAMB", knock="mlp", layer=1)
    assert figures[CHANGED].measured == pytest.approx(last.matters[0, -1])


def test_the_helps_say_how_many_the_shipped_model_has():
    shape, helps = shipped("nanogpt").shape, {one.name: one.metadata["help"] for one in fields(InsideConfig)}
    assert f"has {shape.n_layer}." in helps["layer"] and f"has {shape.n_head} in each" in helps["head"]


def test_only_the_latest_tokens_are_looked_at():
    steps, _, _ = run(text="x" * 50 + "Enter BRAMB")
    assert len(steps[0].rows) == MOST_TOKENS and "".join(steps[0].rows).endswith("BRAMB")


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
