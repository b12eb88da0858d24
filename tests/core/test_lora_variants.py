"""LoRA's descendants: what peft makes of each switch is what the lesson says, and the figures are measured."""

import math

import pytest
import torch

from core.foundations.base_model import load_base
from core.foundations.corpus import load_corpus
from core.foundations.figures import Outcome, by_figure
from core.foundations.turns import without_pauses
from core.lora.lesson import variants_best, variants_trade
from core.lora.tuning import Tuner, adapter_weights, largest_difference, layer_shapes, logits_of, lora_layers
from core.lora.variants import (
    FORGOTTEN,
    LEARNED,
    NEW,
    OLD,
    UNTRAINED,
    VARIANTS,
    WEIGHTS,
    VariantsConfig,
    formula,
    made,
    variants,
)

QUICK = VariantsConfig(steps=2, batch=1, context=16, rank=4)
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def base():
    return without_pauses(load_base("shipped"))


def lively(model):
    """B alive, as after training."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn(weight.shape, generator=rng) * 0.05)
    return model


def parts(model):
    layer = lora_layers(model)[LAYER]
    return layer, layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "full"])
def test_an_untrained_adapter_changes_nothing(base, variant):
    ids = base.ids(load_corpus("play").validation)[:32]
    model = made(base, variant, QUICK)
    apart = largest_difference(logits_of(model, ids), logits_of(base.model, ids))
    assert apart < 1e-4 if variant == "pissa" else apart == 0
    assert adapter_weights(model) == formula(base, variant, QUICK.rank)


@pytest.mark.parametrize(("variant", "scale"), [("lora", 16 / 4), ("plus", 16 / 4), ("rslora", 16 / math.sqrt(4))])
def test_the_layer_is_w_x_plus_the_scaled_product(base, variant, scale):
    layer, w, a, b = parts(lively(made(base, variant, QUICK)))
    x = torch.randn(3, w.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ (w + scale * b @ a).T, atol=1e-4, rtol=1e-4)


def test_dora_learns_length_and_direction_apart(base):
    layer, w, a, b = parts(lively(made(base, "dora", QUICK)))
    changed = w + 16 / 4 * b @ a
    length = layer.lora_magnitude_vector["default"].weight
    x = torch.randn(3, w.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = x @ (length[:, None] * changed / changed.norm(dim=1, keepdim=True)).T
        torch.testing.assert_close(layer(x), wanted, atol=1e-4, rtol=1e-4)


def test_pissa_takes_the_largest_singular_values_out_of_w(base):
    _, rest, a, b = parts(made(base, "pissa", QUICK))
    w = base.model.get_submodule(LAYER).weight
    with torch.no_grad():
        product = 16 / 4 * b @ a
        torch.testing.assert_close(rest + product, w, atol=1e-5, rtol=0)
        values, own = torch.linalg.svdvals(w), torch.linalg.svdvals(product)
    torch.testing.assert_close(own[:4], values[:4], atol=1e-3, rtol=1e-3)
    assert own[4:].max() < 1e-3
    torch.testing.assert_close(torch.linalg.svdvals(rest)[0], values[4], atol=1e-3, rtol=1e-3)


def test_only_b_is_faster_in_lora_plus(base):
    ids = base.ids(load_corpus("play").train[:4000])
    how = {"context": 16, "batch": 1, "learning_rate": 0.01, "steps": 4, "seed": 0}
    tuner = Tuner(made(base, "plus", QUICK), ids, **how, faster=4.0)
    without_pauses(tuner.one_step())
    names = {id(weight): name for name, weight in tuner.model.named_parameters()}
    for group in tuner.optimizer.param_groups:
        own = {"lora_B" in names[id(weight)] for weight in group["params"]}
        assert len(own) == 1 and group["lr"] == pytest.approx(0.01 / 3 * (4 if own == {True} else 1))
    assert len(tuner.optimizer.param_groups) == 2


def test_who_changes_the_base_has_a_copy(base):
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    list(variants(QUICK))
    for variant in ("pissa", "full"):
        lively(made(base, variant, QUICK))
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())
    shared = made(base, "lora", QUICK)
    assert parts(shared)[1].data_ptr() == base.model.get_submodule(LAYER).weight.data_ptr()
    assert layer_shapes(base.model, "all")[LAYER] == (192, 576)


def test_a_run_measures_all_variants():
    *_, last = steps = list(variants(QUICK))
    told = by_figure(last.figures)
    base_new, base_old = steps[0].base
    for name in VARIANTS.values():
        assert told[NEW.of(variant=name)].expected == base_new and told[OLD.of(variant=name)].expected == base_old
        assert told[WEIGHTS.of(variant=name)].gap == 0
    assert told[UNTRAINED.of(variant="LoRA")].measured == 0 < told[UNTRAINED.of(variant="PiSSA")].measured < 1e-3
    ended = next(step for step in reversed(steps) if step.ended).ended
    assert [one.variant for one in ended] == list(VARIANTS)
    losses = {one.variant: one.new for one in ended}
    assert len(set(losses.values())) == len(losses)


def test_a_rate_too_high_is_said():
    *_, last = variants(VariantsConfig(steps=6, batch=1, context=16, learning_rate=1.0, alpha=1000.0))
    assert last.diverged and "a smaller learning rate will hold" in last.doing


def outcome_of(*results):
    return Outcome(by_figure(results), None, None)


def test_what_is_said_follows_the_numbers():
    assert "learns less and forgets less" in variants_trade(outcome_of(LEARNED(90.0), FORGOTTEN(0.15, 0.33)))
    assert "forgets less and learns no less" in variants_trade(outcome_of(LEARNED(99.0), FORGOTTEN(0.15, 0.33)))
    assert "does not forget less" in variants_trade(outcome_of(LEARNED(90.0), FORGOTTEN(0.35, 0.33)))
    results = [
        figure.of(variant=name)(value + number / 10, 3.0)
        for number, name in enumerate(VARIANTS.values())
        for figure, value in ((NEW, 3.0), (OLD, 3.1))
    ]
    assert "which also forgot least" in variants_best(outcome_of(*results))
