"""Fleets, repeated text, curricula and scaling laws. The main tests: a fleet is what its models would have become
alone, and the papers' own numbers come out of our formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data_efficiency import CurriculumConfig, RepeatConfig, ScalingConfig, curriculum, repeat, scaling
from core.data_efficiency.chinchilla import (
    BESIROGLU,
    HOFFMANN,
    TABLE_3,
    Surface,
    advice,
    approach_1,
    isoflops,
    with_text,
)
from core.data_efficiency.curriculum import (
    LAYER_TOKENS,
    LOSS,
    SECONDS,
    Course,
    Skipping,
    planned_share,
    seen,
    tokens_needed,
    work_of,
)
from core.data_efficiency.fleet import Fleet, reading_order, spoken, text_once, whole
from core.data_efficiency.repeat import (
    R_TOKENS,
    Readers,
    Ruler,
    data_constrained_loss,
    effective_tokens,
    ruler_from,
    worth,
)
from core.data_efficiency.scaling import Run, chinchilla, fitted, forecast, kaplan
from core.foundations.corpus import load_corpus, split, windows_of
from core.foundations.recorder import Recorder, drain
from core.foundations.transformer import Shape, Transformer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data_efficiency.json").read_text())
SHAPE = Shape(vocabulary=11, n_layer=2, n_head=2, width=8, context=8)
SMALL = {"tokens": 512, "batch": 2, "width": 8, "context": 16, "seeds": 2}


def some_batch(models, batch=3, length=8, seed=0):
    drawn = torch.randint(11, (models, batch, length + 1), generator=torch.Generator().manual_seed(seed))
    return drawn[..., :-1], drawn[..., 1:]


def in_double(fleet, rates):
    """The same fleet with 64-bit numbers: AdamW divides by tiny numbers, which blows rounding up."""
    for stack in (fleet.weights, fleet.momentum, fleet.square):
        for name in stack:
            stack[name] = stack[name].double()
    fleet.rates = torch.tensor(rates, dtype=torch.float64)
    return fleet


def end_of(run, config):
    return drain(run(config), Recorder(run.experiment, config))


# --- the fleet --------------------------------------------------------------------------------------------------------


def test_a_fleet_is_what_its_models_would_have_become_alone():
    """Each with its own seed, learning rate and batches, against torch's own AdamW."""
    rates = [0.01, 0.003, 0.02]
    fleet = in_double(Fleet(SHAPE, [0, 1, 2], rates, weight_decay=0.3), rates)
    alone = [Transformer(SHAPE, seed).double() for seed in range(3)]
    optimizers = [
        torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.3)
        for model, rate in zip(alone, rates, strict=True)
    ]
    for step in range(8):
        inputs, targets = some_batch(3, seed=step)
        losses = fleet.one_step(inputs, targets)
        for model, optimizer, x, y, loss in zip(alone, optimizers, inputs, targets, losses, strict=True):
            optimizer.zero_grad()
            own = model.loss(x, y)
            own.backward()
            optimizer.step()
            assert float(own.detach()) == pytest.approx(float(loss), abs=1e-9)
    for number, model in enumerate(alone):
        for name, weight in model.named_parameters():
            assert torch.allclose(fleet.weights[name][number], weight, atol=1e-9), name


def test_a_fleet_in_float32_stays_with_its_models():
    fleet, model = Fleet(SHAPE, [4, 5], 0.01, weight_decay=0.0), Transformer(SHAPE, 5)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(5):
        inputs, targets = some_batch(2, seed=step)
        losses = fleet.one_step(inputs, targets)
        optimizer.zero_grad()
        own = model.loss(inputs[1], targets[1])
        own.backward()
        optimizer.step()
        assert float(own.detach()) == pytest.approx(float(losses[1]), abs=1e-5)


def test_the_models_of_a_fleet_do_not_see_each_other():
    inputs, targets = some_batch(2)
    changed = inputs.clone()
    changed[0] = (changed[0] + 1) % 11
    one, other = Fleet(SHAPE, [0, 1]), Fleet(SHAPE, [0, 1])
    for _ in range(3):
        one.one_step(inputs, targets)
        other.one_step(changed, targets)
    for name, weight in one.weights.items():
        assert torch.equal(weight[1], other.weights[name][1]), name
    assert not torch.equal(one.weights["embed.weight"][0], other.weights["embed.weight"][0])


def test_work_in_parts_is_the_same_work(monkeypatch):
    """A fleet too large for one unit of work is trained and evaluated squad by squad."""
    inputs, targets = some_batch(3)
    ids = some_batch(1, 1, 100)[0].flatten()
    ends = []
    for limit in (1e9, 1.0):
        monkeypatch.setattr("core.data_efficiency.fleet.UNIT_FLOPS", limit)
        fleet = Fleet(SHAPE, [0, 1, 2])
        parts = list(fleet.step_in_parts(inputs, targets))
        evaluated = list(fleet.validate_in_parts(ids))
        assert len(parts) == (1 if limit > 1 else 3) and len(evaluated) == (1 if limit > 1 else 12)
        ends.append((parts[-1], evaluated[-1], fleet.weights["head.weight"]))
    assert np.allclose(ends[0][0], ends[1][0], atol=1e-6) and np.allclose(ends[0][1], ends[1][1], atol=1e-6)
    assert torch.allclose(ends[0][2], ends[1][2], atol=1e-6)


def test_a_fleet_judges_as_each_model_would():
    fleet = Fleet(SHAPE, [0, 1], [0.01, 0.05])
    for step in range(4):
        fleet.one_step(*some_batch(2, seed=step))
    ids = some_batch(1, 1, 90)[0].flatten()
    inputs, targets = windows_of(ids, 8)
    rows = fleet.per_example_loss(*some_batch(2))
    for number in range(2):
        model = fleet.alone(number)
        assert float(model.loss(inputs, targets)) == pytest.approx(fleet.validate(ids)[number], abs=1e-5)
        x, y = (part[number] for part in some_batch(2))
        assert [float(model.loss(x[i : i + 1], y[i : i + 1])) for i in range(3)] == pytest.approx(
            list(rows[number]), abs=1e-5
        )


@given(windows=st.integers(1, 60), share=st.integers(1, 60), length=st.integers(1, 200), seed=st.integers(0, 5))
def test_an_epoch_reads_every_window_once(windows, share, length, seed):
    unique = min(windows, share)
    order = reading_order(windows, unique, length, seed).tolist()
    assert len(order) == length
    for first in range(0, length - unique + 1, unique):
        assert len(set(order[first : first + unique])) == unique
    assert len(set(order)) == min(unique, length) and set(order) <= set(range(windows))


def test_a_smaller_text_is_a_part_of_the_larger_and_the_same_seed_draws_the_same():
    large, small = reading_order(50, 40, 40, 3), reading_order(50, 10, 40, 3)
    assert set(small.tolist()) < set(large.tolist())
    assert torch.equal(small, reading_order(50, 10, 40, 3))
    assert not torch.equal(small, reading_order(50, 10, 40, 4))


def test_seconds_are_spoken():
    assert (spoken(0.2), spoken(12.4), spoken(300)) == ("about 1 s", "about 12 s", "about 5 minutes")


# --- repeat -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["muennighoff_readme"])
def test_the_data_constrained_law_gives_the_numbers_of_its_authors(case):
    assert data_constrained_loss(case["parameters"], case["tokens"], case["unique"]) == pytest.approx(
        case["loss"], abs=1e-12
    )


@pytest.mark.parametrize(("epochs", "lengths", "percent"), GOLDEN["muennighoff_epochs"])
def test_what_repeated_tokens_are_worth(epochs, lengths, percent):
    assert effective_tokens(epochs, 1) == pytest.approx(lengths, abs=0.0051)
    assert 100 * worth(epochs) == pytest.approx(percent, abs=0.051)


@given(unique=st.floats(1, 1e12), epochs=st.floats(1, 1e4))
def test_a_repeated_token_is_worth_something_but_less_than_a_fresh_one(unique, epochs):
    value = effective_tokens(unique * epochs, unique)
    assert unique * (1 - 1e-9) <= value <= unique * min(epochs, 1 + R_TOKENS) * (1 + 1e-9)
    assert effective_tokens(unique * epochs * 2, unique) >= value
    assert effective_tokens(unique, unique * 2) == pytest.approx(unique)  # less read than there is: all of it is fresh


def test_one_epoch_is_plain_chinchilla():
    """With nothing repeated and no excess weights the law is E + A/N^a + B/D^b."""
    plain = Surface("", math.exp(0.6254804), math.exp(6.255414), math.exp(7.3049974), 0.3526596, 0.3526596)
    assert data_constrained_loss(1e9, 100e9, 100e9) == pytest.approx(plain.loss(1e9, 100e9), rel=1e-12)


def test_the_ruler_finds_the_curve_it_is_laid_on():
    true = Ruler(1.2, 40.0)
    fresh = [(tokens, true.loss(tokens)) for tokens in (500, 1000, 4000, 9000, 16000, 30000)]
    found = ruler_from(fresh)
    assert (found.e, found.b) == pytest.approx((1.2, 40.0), rel=1e-6)
    assert found.tokens(found.loss(7000.0)) == pytest.approx(7000.0, rel=1e-9)
    assert math.isnan(found.tokens(1.1))
    assert ruler_from(fresh[:2]) is None


def test_full_data_equals_the_baseline():
    """The kind that reads every window once is the plain run on the whole budget, bit for bit."""
    corpus = load_corpus("play")
    config = RepeatConfig(**SMALL | {"tokens": 1024}, epochs=2)
    readers = Readers(config, corpus)
    plain = Fleet(config.shape(corpus), config.every_seed, config.learning_rate, config.weight_decay)
    inputs, targets = windows_of(corpus.train_ids, config.context)
    order = torch.stack([reading_order(len(inputs), 64, 64, seed) for seed in config.every_seed])
    for step in range(6):
        both = whole(readers.one_step())
        now = order[:, 2 * step : 2 * step + 2]
        scale = min((step + 1) / 30, math.sqrt(30 / (step + 1)))
        assert np.allclose(plain.one_step(inputs[now], targets[now], scale), both[:2], atol=1e-6)


def test_the_kinds_read_what_they_should():
    config = RepeatConfig(**SMALL | {"tokens": 1024}, epochs=40)
    readers = Readers(config, load_corpus("play"))
    assert config.kinds == (1, 2, 4, 8, 16, 40) and readers.unique == [64, 32, 16, 8, 4, 1]
    for number, unique in enumerate(readers.unique):
        for order in readers.orders[number * 2 : number * 2 + 2]:
            assert len(set(order.tolist())) == unique and len(order) == 64
    assert RepeatConfig(epochs=10).kinds == (1, 2, 4, 8, 10)


def test_the_law_says_for_one_epoch_what_was_measured():
    """The ruler is the fresh run itself, so there the gap can only be the fit's."""
    last = end_of(repeat, RepeatConfig(**SMALL | {"tokens": 6144, "batch": 4}, epochs=2)).last
    assert last.law[0] == pytest.approx(last.validation[0], abs=0.05)
    assert last.worth[0] == pytest.approx(100, abs=25)
    assert last.validation[0] < math.log(60) - 0.5, "it has learned something"


def test_reading_a_window_again_and_again_is_learning_it_by_heart():
    last = end_of(repeat, RepeatConfig(**SMALL | {"tokens": 6144, "batch": 4}, epochs=96)).last
    assert last.validation[-1] > last.validation[0] + 0.5
    assert last.worth[-1] < last.law_worth[-1][1]


# --- curriculum -------------------------------------------------------------------------------------------------------


def test_a_layer_that_keeps_all_tokens_is_a_plain_layer(lively):
    shape = Shape(11, 4, 2, 8, 8)
    model, plain = Skipping(shape), lively(shape)
    model.load_state_dict(plain.state_dict())
    tokens = some_batch(1)[0][0]
    assert torch.allclose(model(tokens), plain(tokens), atol=1e-6)
    assert torch.allclose(model(tokens, torch.arange(8).expand(2, 8)), plain(tokens), atol=1e-6)


def test_a_dropped_token_passes_the_layer_unchanged_and_the_mask_still_hides_the_future(lively):
    shape = Shape(11, 3, 2, 8, 8)
    model = Skipping(shape)
    model.load_state_dict(lively(shape).state_dict())
    tokens, kept = some_batch(1)[0][0], torch.tensor([[1, 4, 6]])
    passed = {}
    for name, block in zip("abc", model.blocks, strict=True):
        block.register_forward_hook(lambda module, given, out, name=name: passed.update({name: out}))
    logits = model(tokens, kept)
    assert passed["b"].shape[1] == 3
    entering = passed["a"]
    model.blocks[2].register_forward_pre_hook(lambda module, given: passed.update({"into last": given[0]}))
    model(tokens, kept)
    others = [0, 2, 3, 5, 7]
    assert torch.equal(passed["into last"][:, others], entering[:, others])
    assert not torch.allclose(passed["into last"][:, kept[0]], entering[:, kept[0]])
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    assert torch.allclose(model(later, kept)[:, :5], logits[:, :5], atol=1e-6)


def test_a_curriculum_that_starts_with_everything_is_the_baseline():
    """start = 1: the three fleets read the same and see the same, so they end with the same loss, bit for bit."""
    run = end_of(curriculum, CurriculumConfig(**SMALL | {"batch": 4}, n_layer=3, start=1.0))
    for name in ("short sequences first", "random token dropping"):
        assert run.figures[LOSS.of(trick=name)].measured == run.figures[LOSS.of(trick=name)].expected
        assert run.figures[SECONDS.of(trick=name)].expected == 100
    assert run.figures[LAYER_TOKENS].measured == 100


@given(start=st.floats(0.05, 1), until=st.floats(0.05, 1), n_layer=st.integers(1, 6))
def test_the_planned_share_is_the_area_under_the_plan(start, until, n_layer):
    config = CurriculumConfig(start=start, until=until, n_layer=n_layer)
    steps = (np.arange(4000) + 0.5) / 4000
    mean = float(np.mean([config.part(progress) for progress in steps]))
    expected = 100 * (1 - max(0, n_layer - 2) / n_layer * (1 - mean))
    assert planned_share(config) == pytest.approx(expected, abs=0.02)


def test_the_curricula_see_what_they_should():
    corpus, config = load_corpus("play"), CurriculumConfig(**SMALL, n_layer=4, start=0.5)
    baseline, short, drop = (Course(kind, config, corpus) for kind in ("baseline", "short", "drop"))
    assert (baseline.now(), short.now(), drop.now()) == ((16, 16), (8, 8), (16, 8))
    for course in (baseline, short, drop):
        list(course.one_step())
    assert (
        seen(config, "baseline", 0).all()
        and seen(config, "short", 0)[:, :8].all()
        and not seen(config, "short", 0)[:, 8:].any()
    )
    assert seen(config, "drop", 0)[[0, 3]].all() and seen(config, "drop", 0)[1:3].sum(1).tolist() == [8.0, 8.0]
    assert all(seen(config, kind, config.until).all() for kind in ("baseline", "short", "drop"))
    assert (baseline.tokens, short.tokens, drop.tokens) == (32, 16, 32)
    assert (baseline.layer_tokens, drop.layer_tokens) == (4 * 32, 2 * 32 + 2 * 16)


def test_the_work_of_a_window_is_six_flops_per_weight_and_token():
    """Against the matrices of a real model, attention over the past apart."""
    shape = Shape(11, 4, 2, 8, 16)
    matrices = sum(weight.numel() for name, weight in Transformer(shape).named_parameters() if name != "embed.weight")
    attention = 6 * 4 * 8 * 16 * 16
    assert work_of(shape, 16, 16) == 6 * matrices * 16 + attention
    assert work_of(shape, 16, 8) < work_of(shape, 16, 16)


def test_where_a_curve_reaches_a_loss():
    curve = [(100, 0.1, 4.0), (200, 0.2, 3.0), (300, 0.3, 2.0)]
    assert tokens_needed(curve, 2.5) == 250 and tokens_needed(curve, 2.0) == 300 and tokens_needed(curve, 1.9) is None


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_chinchilla_s_surface():
    for parameters, tokens, loss in GOLDEN["hoffmann_losses"]:
        assert HOFFMANN.loss(parameters, tokens) == pytest.approx(loss, abs=5e-6)
    assert (HOFFMANN.alpha * HOFFMANN.a / (HOFFMANN.beta * HOFFMANN.b)) ** (
        1 / (HOFFMANN.alpha + HOFFMANN.beta)
    ) == pytest.approx(1.34471, abs=5e-6)


@pytest.mark.parametrize(("surface", "name"), [(HOFFMANN, "hoffmann_optimum"), (BESIROGLU, "besiroglu_optimum")])
def test_both_optima_at_the_budget_of_gopher(surface, name):
    parameters, tokens = surface.optimum(5.76e23)
    assert parameters == pytest.approx(GOLDEN[name]["parameters"], rel=0.002)
    assert tokens == pytest.approx(GOLDEN[name]["tokens"], rel=0.002)
    assert tokens / parameters == pytest.approx(GOLDEN[name]["ratio"], abs=0.06)


@given(power=st.floats(18, 30), shift=st.floats(0.5, 2))
def test_the_optimum_is_the_lowest_point_of_its_isoflop_line(power, shift):
    for surface in (HOFFMANN, BESIROGLU):
        flops = 10**power
        parameters, tokens = surface.optimum(flops)
        assert 6 * parameters * tokens == pytest.approx(flops, rel=1e-9)
        assert surface.loss(parameters, tokens) <= surface.loss(parameters * shift, tokens / shift) + 1e-12


def test_table_3_of_chinchilla():
    """As printed, by approach 1: the listed budgets are 6 N D to 5 %, and the line through them gives each row back."""
    assert [list(row) for row in TABLE_3] == GOLDEN["chinchilla_table_3"]
    for parameters, flops, tokens in TABLE_3:
        assert 6 * parameters * tokens == pytest.approx(flops, rel=0.05)
        assert approach_1(flops)[0] == pytest.approx(parameters, rel=0.015)
        assert approach_1(flops)[1] == pytest.approx(tokens, rel=0.06)


def test_advice_with_little_text_repeats_it():
    """The README of datablations: with 25 billion tokens of text, 6.8 billion parameters for 9.1 epochs."""
    found = with_text(6 * 8.67e9 * 178e9, 25e9)
    assert (found.parameters / 1e9, found.epochs) == pytest.approx((6.8, 9.1), abs=0.06)
    plenty = with_text(1e20, 1e15)
    assert plenty.epochs == 1.0
    assert [one.who for one in advice(1e22, 0)] == ["Hoffmann's approach 1", HOFFMANN.name, BESIROGLU.name]


def test_isoflop_lines_turn_at_their_best():
    for line in isoflops(5.76e23):
        lowest = line.parameters[int(np.argmin(line.losses))]
        assert line.best[1] <= min(line.losses) + 1e-12
        assert lowest / 1.2 < line.best[0] < lowest * 1.2


SIX = np.array([(size, tokens) for size in (1728.0, 4992.0, 16128.0) for tokens in (14336.0, 57344.0)]).T


@pytest.mark.parametrize(
    ("law", "constants"), [(kaplan, (15.0, 17.0, -2.2, -2.1)), (chinchilla, (0.3, 2.0, 4.0, -1.0))]
)
def test_a_fit_finds_the_law_that_made_the_losses(law, constants):
    losses = law(np.array(constants), *SIX)
    found = fitted(law, *SIX, losses)
    assert law(found, 33408.0, 114688.0) == pytest.approx(float(law(np.array(constants), 33408.0, 114688.0)), abs=2e-3)


def test_kaplan_s_limits():
    """With endless text only the size counts, with endless weights only the text: two power laws."""
    p = np.array([15.0, 17.0, math.log(0.1), math.log(0.12)])
    assert kaplan(p, 1e4, 1e30) == pytest.approx((math.exp(15) / 1e4) ** 0.1, rel=1e-3)
    assert kaplan(p, 1e30, 1e5) == pytest.approx((math.exp(17) / 1e5) ** 0.12, rel=1e-3)


def test_the_band_grows_with_the_spread_of_the_seeds():
    law = np.array([15.0, 17.0, -2.2, -2.1])
    bands = []
    for spread in (0.003, 0.03):
        runs = [Run(int(n), int(d), float(kaplan(law, n, d)), spread) for n, d in SIX.T]
        *_, found = forecast(runs, 3, seed=0)
        low, high = found.band(33408, 114688.0)
        bands.append(high - low)
        assert low - 1e-3 < kaplan(law, 33408, 114688.0) < high + 1e-3
    assert bands[1] > 3 * bands[0] > 0


# --- the experiments --------------------------------------------------------------------------------------------------


RUNS = {
    "repeat": (repeat, RepeatConfig(**SMALL, epochs=4)),
    "curriculum": (curriculum, CurriculumConfig(**SMALL | {"batch": 4}, n_layer=3)),
    "scaling": (scaling, ScalingConfig(**SMALL)),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_same_run_bit_for_bit(name):
    run, config = RUNS[name]
    first, again = ([step.validation for step in run(config) if step.validation is not None] for _ in range(2))
    assert first == again and len(first) > 3
    other = type(config)(**{field: getattr(config, field) for field in config.__dataclass_fields__} | {"seed": 1})
    assert [step.validation for step in run(other) if step.validation is not None] != first


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_blows_up_ends_and_says_so(name, monkeypatch):
    """Losses that are no numbers reach neither a fit nor a picture."""
    run, config = RUNS[name]
    monkeypatch.setattr(
        "core.data_efficiency.fleet.Fleet.on_same",
        lambda self, inputs, targets: np.full((self.size, len(inputs)), math.nan),
    )
    *_, last = run(config)
    assert last.diverged and "smaller learning rate" in last.doing


def test_the_seventh_run_is_predicted_before_it_runs():
    run, config = RUNS["scaling"]
    steps = list(run(config))
    predicted = next(number for number, step in enumerate(steps) if step.lines)
    assert len(steps[predicted].runs) == 6 and len(steps[-1].runs) == 7
    assert [(one.parameters, one.tokens) for one in steps[-1].runs] == [
        (size, tokens // 32 * 32) for size, tokens in steps[0].plan
    ]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_type", [RepeatConfig, CurriculumConfig, ScalingConfig])
def test_a_budget_of_nothing_is_refused(config_type, refusal):
    assert refusal(config_type, tokens=0) == "tokens must be at least 64 characters, got 0"
    assert "one batch" in refusal(config_type, tokens=64)
    assert refusal(config_type, width=10) == "width must be a multiple of 4, got 10"


def test_large_budgets_of_nothing_are_refused(refusal):
    assert refusal(ScalingConfig, zettaflops=0) == "zettaflops must be at least 0.001 ZFLOP, got 0"
    assert (
        refusal(ScalingConfig, text=0.0001)
        == "text must be 0 for no limit or at least 0.001 billion tokens, got 0.0001"
    )


def test_more_epochs_than_text_are_refused(refusal):
    told = refusal(RepeatConfig, tokens=1024, batch=2, context=16, epochs=65)
    assert (
        told
        == "epochs must be at most 64: beyond, the repeated text is shorter than one window of 16 characters, got 65"
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_corpus_too_small_to_split_is_refused(name, refusal):
    run, config = RUNS[name]
    tiny = type(config)(corpus="own", own_text="to be or not to be", tokens=1024, batch=2, context=16)
    assert refusal(next, run(tiny)).startswith("Your text is too short: it has 18 characters")


@pytest.mark.parametrize("name", ["repeat", "scaling"])
def test_a_budget_beyond_the_text_is_refused(name, refusal):
    run, config = RUNS[name]
    short = type(config)(corpus="own", own_text="abcd efgh " * 300, tokens=65_536, context=32)
    assert (
        refusal(next, run(short))
        == "tokens must be at most 2688, the characters that this text has to be learned from once, got 65536"
    )
    assert text_once(split("own", ["abcd efgh " * 300]), 32, 2688) == 84


def test_a_text_with_too_many_symbols_is_refused(refusal):
    text = "".join(chr(0x4E00 + number) for number in range(600)) * 20
    assert "at most 400 different characters" in refusal(
        next, repeat(RepeatConfig(corpus="own", own_text=text, tokens=4096))
    )
