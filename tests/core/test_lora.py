"""LoRA: our layer against peft's, the toy's students against that layer, and the counts against what is published."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from core.foundations.figures import by_figure
from core.lora import CountConfig, ToyConfig, count, toy
from core.lora.adapter import LoRALinear, trained_numbers
from core.lora.controls import LORA, NAMES, Repetitions, mean_and_spread, seed_setting
from core.lora.controls import NUMBERS as CONTROL_NUMBERS
from core.lora.count import SHARE, TOTAL, TRAINED, Tally
from core.lora.lesson import CONTROLS
from core.lora.published import MODELS, TARGETS, build
from core.lora.tiny_network import HIDDEN, first_task, on_sphere, trained_base
from core.lora.toy import (
    DROP,
    NEW_TASK,
    NUMBERS,
    OLD_TASK,
    OLD_TASK_OFF,
    UNTRAINED,
    Students,
    Toy,
    steepest,
    true_change,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lora.json").read_text())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(d_in, d_out, seed=0):
    layer, numbers = nn.Linear(d_in, d_out, device="meta").to_empty(device="cpu"), rng(seed)
    with torch.no_grad():
        for part in layer.parameters():
            part.copy_(torch.randn(part.shape, generator=numbers))
    return layer


def lively(d_in=12, d_out=20, rank=3, alpha=6.0):
    """An adapted layer with a B that is not zero, so that there is something to see."""
    layer = LoRALinear(linear(d_in, d_out), rank, alpha, rng(1))
    with torch.no_grad():
        layer.B.copy_(torch.randn(layer.B.shape, generator=rng(2)))
    return layer


def figures(steps):
    return by_figure(result for step in steps for result in step.figures)


# --- the layer --------------------------------------------------------------------------------------------------------


def test_an_untrained_adapter_changes_nothing():
    base, x = linear(12, 20), torch.randn(7, 12, generator=rng(3))
    before = base(x)
    assert torch.equal(LoRALinear(base, 4, 16.0, rng())(x), before)


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (3, 6.0), (8, 0.5)])
def test_it_is_pefts_layer(rank, alpha):
    """The same A and B: the same output, the same gradients, the same merged weight."""
    from peft import LoraConfig, get_peft_model

    ours = lively(rank=rank, alpha=alpha)
    theirs = get_peft_model(nn.Sequential(linear(12, 20)), LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"]))
    layer = theirs.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        a.copy_(ours.A)
        b.copy_(ours.B)
    x, wish = torch.randn(9, 12, generator=rng(3)), torch.randn(9, 20, generator=rng(4))
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        (model(x) - wish).square().mean().backward()
    torch.testing.assert_close(ours.A.grad, a.grad)
    torch.testing.assert_close(ours.B.grad, b.grad)
    assert float(ours.A.grad.abs().max()) > 0
    ours.merge()
    layer.merge()
    torch.testing.assert_close(ours.base.weight, layer.base_layer.weight)


def test_only_a_and_b_learn():
    layer = lively()
    weight, bias = layer.base.weight.clone(), layer.base.bias.clone()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    a, b = layer.A.detach().clone(), layer.B.detach().clone()
    layer(torch.randn(5, 12, generator=rng(3))).square().sum().backward()
    optimizer.step()
    assert [name for name, part in layer.named_parameters() if part.grad is not None] == ["A", "B"]
    assert torch.equal(layer.base.weight, weight) and torch.equal(layer.base.bias, bias)
    assert not torch.equal(layer.A, a) and not torch.equal(layer.B, b)


def test_merged_and_unmerged_answer_alike():
    layer, x = lively(), torch.randn(7, 12, generator=rng(3))
    before, weight = layer(x), layer.base.weight.clone()
    layer.merge()
    layer.merge()  # once is enough
    assert not torch.allclose(layer.base.weight, weight, atol=0.1)
    torch.testing.assert_close(layer(x), before)
    layer.unmerge()
    torch.testing.assert_close(layer.base.weight, weight)
    torch.testing.assert_close(layer(x), before)


@given(st.integers(1, 12), st.integers(12, 40), st.integers(12, 40))
def test_the_formula_counts_what_learns(rank, d_in, d_out):
    layer = LoRALinear(nn.Linear(d_in, d_out, device="meta"), rank, 1.0, rng())
    assert (
        sum(part.numel() for part in layer.parameters() if part.requires_grad)
        == trained_numbers(rank, d_in, d_out)
        == rank * (d_in + d_out)
    )


@given(st.integers(1, 8))
def test_the_change_has_rank_r(rank):
    assert int(torch.linalg.matrix_rank(lively(rank=rank).change().detach().double(), atol=1e-5)) == rank


@pytest.mark.parametrize("rank", [0, 13, -1])
def test_a_rank_the_layer_cannot_have_is_refused(rank, refusal):
    said = refusal(LoRALinear, linear(12, 20), rank, 1.0, rng())
    assert said == f"rank must be from 1 to 12, the smaller side of a layer of 12 x 20, got {rank}"


# --- the toy ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default_run():
    return list(toy(ToyConfig()))


def test_students_learn_as_they_would_alone():
    """Each rank of the stack, after ten steps, has the change that a LoRALinear with the same A, trained by itself,
    has.
    """
    net, change = trained_base(0), true_change(trained_base(0), 2, rng())
    together = Students(net, (1, 3, 5), 8.0, rng())
    optimizer = torch.optim.Adam(together.parts, 0.02)
    alone = []
    for place, rank in enumerate(together.ranks):
        layer = linear(HIDDEN, HIDDEN)
        with torch.no_grad():
            layer.weight.copy_(net.w2)
            layer.bias.copy_(net.b2)
        one = LoRALinear(layer, rank, 8.0, rng())
        with torch.no_grad():
            one.A.copy_(together.a[place, :rank])
        alone.append((one, torch.optim.Adam([one.A, one.B], 0.02)))
    for step in range(10):
        hidden = net.hidden(on_sphere(64, rng(step)))
        wish = net.answer(hidden, net.w2 + change, net.b2)
        optimizer.zero_grad()
        (together.answers(hidden) - wish).square().mean(1).sum().backward()
        optimizer.step()
        for one, own in alone:
            own.zero_grad()
            (torch.relu(one(hidden)) @ net.w3 - wish).square().mean().backward()
            own.step()
    for place, (one, _) in enumerate(alone):
        assert float(one.change().detach().abs().max()) > 0.01
        torch.testing.assert_close(together.changes()[place].detach(), one.change().detach(), atol=1e-4, rtol=1e-3)


@given(st.integers(1, 6), st.integers(0, 3))
def test_the_true_change_has_rank_k_and_no_weakest_part(k, seed):
    values = torch.linalg.svdvals(true_change(trained_base(seed), k, rng(seed)).double())
    assert float(values[0]) == pytest.approx(float(values[k - 1]), rel=1e-3)
    assert float(values[k]) < 1e-4 * float(values[0])


def test_the_base_has_learnt_the_first_task():
    x = on_sphere(4096, rng(9))
    assert float(((trained_base(0)(x) > 0) == first_task(x)).float().mean()) > 0.9


def test_what_is_left_falls_when_r_reaches_k(default_run):
    end, told = default_run[-1], figures(default_run)
    assert end.ranks == tuple(range(1, 9))
    assert end.left[0] > 0.1 and max(end.left[1:]) < 0.001  # k = 2
    assert told[DROP].measured == 2 and not told[DROP].gap
    assert end.left_biases > 0.3 and end.left_layer < 0.05
    assert end.learned[:2] == pytest.approx(end.true, rel=0.05) and max(end.learned[2:]) < 1e-4
    gain, cost = (told[task].measured - told[task].expected for task in (NEW_TASK, OLD_TASK))
    assert gain > 5 > -2 > cost and told[NEW_TASK].gap is None


def test_a_rank_below_k_leaves_something_and_r_4_does_not():
    end = list(toy(ToyConfig(true_rank=4, rank=4)))[-1]
    assert min(end.left[:3]) > 0.01 > 0.001 > max(end.left[3:])
    assert end.learned[:4] == pytest.approx(end.true, rel=0.2)


def test_the_start_is_the_base(default_run):
    start, told = default_run[0], figures(default_run[:1])
    assert set(start.left) == {1.0} and start.left_biases == start.left_layer == 1.0
    assert told[UNTRAINED].measured == 0
    assert (start.maps[0] == start.maps[2]).all() and (start.maps[0] != start.maps[1]).any()
    assert start.accuracy_old == start.accuracy_off > start.accuracy_new


def test_without_the_adapter_the_old_task_is_back(default_run):
    assert figures(default_run)[OLD_TASK_OFF].gap == 0


def test_the_toys_counts(default_run):
    assert figures(default_run)[NUMBERS].measured == GOLDEN["toy_rank_2"]
    assert HIDDEN * HIDDEN + HIDDEN == NAMES["whole layer"] == GOLDEN["toy_layer"]


def test_the_seed_decides_the_toy():
    one, same, other = (list(toy(ToyConfig(steps=60, seed=seed)))[-1] for seed in (1, 1, 2))
    assert one.left == same.left and (one.maps == same.maps).all()
    assert one.left != other.left


def test_a_large_rank_learns_beside_the_charted_ones():
    steps = list(toy(ToyConfig(rank=32, steps=2)))
    assert steps[-1].ranks == (*range(1, 9), 32) and steps[-1].chosen == 32
    assert figures(steps)[NUMBERS].gap == 0


def test_numbers_that_blow_up_end_the_run():
    bench = Toy(ToyConfig())
    with torch.no_grad():
        bench.students.b.fill_(math.inf)
    assert bench.look(1).diverged


def test_the_steepest_fall():
    assert steepest((1, 2, 3, 32), (0.5, 0.1, 0.09, 1e-9)) == 2
    assert steepest((1, 2), (1e-9, 1e-9)) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"true_rank": 0},
        {"true_rank": 7},
        {"rank": 0},
        {"rank": 33},
        {"alpha": 0},
        {"alpha": math.nan},
        {"view": "both"},
    ],
)
def test_bad_settings_of_the_toy(settings, refusal):
    assert refusal(ToyConfig, **settings).startswith(f"{next(iter(settings))} must be ")


# --- the notebook's own toy -------------------------------------------------------------------------------------------


def test_untrained_adapters_leave_the_notebooks_base_alone():
    arms = {name: each for name, _, each in next(seed_setting(3, 0)).arms}
    assert arms["LoRA, r = 2"] == arms["biases only"] == arms["whole layer"] == arms["as it is"]


def test_each_way_of_adapting_changes_only_its_own_numbers():
    runs = Repetitions(2, 0)
    base = [part.clone() for part in runs.parts]
    list(runs.train([runs.a, runs.b, runs.biases, runs.layer_weight, runs.layer_bias], 1e-3, True, 7))
    assert all(torch.equal(now, before) for now, before in zip(runs.parts, base, strict=True))
    assert all(bool((part != 0).any()) for part in (runs.b, runs.biases, runs.layer_weight, runs.layer_bias))


def test_a_short_run_of_the_notebooks_toy():
    steps = list(seed_setting(2, 0, epochs=4))
    assert steps[-1].step == 2 * steps[-1].steps == 56
    told = figures(steps)
    assert told[CONTROL_NUMBERS].measured == told[CONTROL_NUMBERS].expected == GOLDEN["toy_rank_2"]
    mean = {name: 100 * mean_and_spread(each)[0] for name, _, each in steps[-1].arms}
    assert told[LORA].measured == pytest.approx(mean["LoRA, r = 2"])
    assert [told[figure].measured for figure in CONTROLS.values()] == pytest.approx(
        [mean[name] for name in ("inputs × 16", "biases only", "whole layer")]
    )
    assert {told[figure].expected for figure in CONTROLS.values()} == {told[LORA].measured}


@pytest.mark.slow
def test_in_the_notebooks_toy_lora_and_its_controls_tie():
    end = list(seed_setting(3, 0))[-1]
    mean = {name: mean_and_spread(each)[0] for name, _, each in end.arms}
    assert all(abs(mean["LoRA, r = 2"] - mean[name]) < 0.02 for name in ("inputs × 16", "biases only", "whole layer"))
    assert min(mean.values()) == mean["as it is"]


# --- the count --------------------------------------------------------------------------------------------------------


def counted(model, targets, rank):
    *_, end = count(CountConfig(model=model, targets=targets, rank=rank))
    return end


@pytest.mark.parametrize(("model", "targets", "trained"), [tuple(one) for one in GOLDEN["trained"]])
def test_published_counts(model, targets, trained):
    """peft counts the first rank, the formula gives the others."""
    wanted = {int(rank): numbers for rank, numbers in trained.items()}
    rank = next(iter(wanted))
    end = counted(model, targets, rank)
    assert end.trained == wanted[rank]
    assert {r: dict(end.ranks)[r] for r in wanted} == wanted
    told = figures([end])
    assert told[TRAINED].gap == told[TOTAL].gap == 0


@pytest.mark.parametrize("model", GOLDEN["base_parameters"])
def test_published_models_have_their_size(model):
    built = build(MODELS[model])
    assert sum(weight.numel() for weight in built.parameters()) == GOLDEN["base_parameters"][model]
    assert {weight.device.type for weight in built.parameters()} == {"meta"}


def test_gpt3_with_and_without_an_output_layer_of_its_own():
    gpt3 = MODELS["gpt-3"]
    apart = build(type(gpt3)(gpt3.label, gpt3.family, {**gpt3.numbers, "tie_word_embeddings": False}))
    tied = sum(weight.numel() for weight in build(gpt3).parameters())
    assert (
        sum(weight.numel() for weight in apart.parameters())
        == GOLDEN["gpt3_with_an_output_layer_of_its_own"]
        == tied + 50257 * 12288
    )


def test_the_default_is_the_notebooks_and_its_12_percent_are_corrected():
    steps = list(count(CountConfig()))
    end, told = steps[-1], figures(steps)
    assert (end.trained, end.total) == (GOLDEN["notebook_trained"], GOLDEN["notebook_all"])
    assert told[SHARE].measured == told[SHARE].expected == pytest.approx(GOLDEN["notebook_percent"], abs=1e-8)
    assert "0.124 %" in end.verdict and "97 times" in end.verdict
    assert counted("llama-2-7b", "qv", 8).total == GOLDEN["llama_2_7b_all_with_qv_8"]


def test_gpt3s_one_matrix_for_q_k_and_v_costs_less_than_the_papers_four():
    """The paper's table 5 says 18 M for r = 2 on four matrices: 8 r d in each of 96 layers. Here it is 6 r d."""
    assert counted("gpt-3", "qkvo", 2).trained == 96 * 6 * 2 * 12288 == 14_155_776
    assert pytest.approx(18e6, rel=0.05) == 96 * 8 * 2 * 12288


SMALL = ("gpt-2", "roberta-base")


@pytest.mark.parametrize(
    ("model", "targets"),
    [(model, targets) for model in SMALL for targets in TARGETS] + [("qwen2.5-0.5b", "everything")],
)
def test_layer_by_layer_counts_what_peft_counts_at_once(model, targets):
    """With full names in the whole model, without our pattern."""
    from peft import LoraConfig, get_peft_model

    told = MODELS[model]
    whole = build(told)
    path, names = told.family.layers, told.family.matrices(targets)
    full = [f"{path}.{layer}.{name}" for layer in range(len(whole.get_submodule(path))) for name in names]
    saved = list(told.family.embeddings(whole)) if targets == "everything" else None
    adapted = get_peft_model(
        whole, LoraConfig(r=4, target_modules=full, modules_to_save=saved, fan_in_fan_out=told.family.transposed)
    )
    end = counted(model, targets, 4)
    assert (end.trained, end.total) == adapted.get_nb_trainable_parameters()
    assert sum(one for *_, one in end.kinds) + end.embeddings == end.trained


@hypothesis_settings(max_examples=10)
@given(st.sampled_from(SMALL), st.sampled_from(list(TARGETS)), st.integers(1, 128))
def test_the_formula_is_the_count(model, targets, rank):
    end = counted(model, targets, rank)
    assert all(by_formula == found for *_, by_formula, found in end.kinds)
    assert dict(end.ranks)[rank] == end.trained


def test_embeddings_trained_whole_are_most_of_it():
    with_them, without = counted("qwen1.5-1.8b", "everything", 8), counted("qwen1.5-1.8b", "linear", 8)
    assert with_them.trained - without.trained == with_them.embeddings == 2 * 151936 * 2048
    assert with_them.trained / with_them.total > 0.25 > 0.005 > without.trained / without.total


def test_a_rank_above_the_thinnest_matrix_is_refused(refusal):
    said = refusal(Tally, CountConfig(model="qwen2.5-0.5b", targets="qkvo", rank=129))
    assert said == "rank must be at most 128, the smaller side of v_proj in Qwen2.5, 0.5B, got 129"
    assert counted("qwen2.5-0.5b", "qkvo", 128).trained > 0


@pytest.mark.parametrize("settings", [{"rank": 0}, {"rank": 257}, {"targets": "nothing"}, {"model": "gpt-5"}])
def test_bad_settings_of_the_count(settings, refusal):
    assert refusal(CountConfig, **settings).startswith(f"{next(iter(settings))} must be ")


# --- the pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("toy", {"steps": 3}),
        ("toy", {"steps": 3, "rank": 12, "true_rank": 6}),
        ("count", {"model": "gpt-2"}),
        ("count", {"model": "gpt-2", "targets": "everything"}),
    ],
)
def test_a_picture_draws_every_step(name, settings):
    """Everything that is sent is JSON without NaN, and goes to a panel that is there."""
    from pages._kit.charts import Sketch
    from pages.lora import PAGE

    one = PAGE.experiments[name]
    config, sketch = one.config_type(**settings), Sketch()
    panels = PAGE.pictures[name].panels(config)
    ids = {panel["id"] for panel in panels} | {view["id"] for panel in panels for view in panel.get("views", ())}
    sent = []
    for step in one.run(config):
        PAGE.pictures[name].draw(step, sketch)
        sent += sketch.take()
    assert sent and {id for id, _ in sent} <= ids
    json.dumps([panels, sent], allow_nan=False)


def test_the_controls_picture_draws_every_step():
    from pages._kit.charts import Sketch
    from pages.lora.toy import draw_toy, toy_panels

    sketch, ids = Sketch(), {panel["id"] for panel in toy_panels(ToyConfig(view="seed_setting"))}
    for step in seed_setting(2, 0, epochs=1):
        draw_toy(step, sketch)
    sent = sketch.take()
    assert {id for id, _ in sent} == ids
    json.dumps(sent, allow_nan=False)
