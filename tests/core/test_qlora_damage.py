"""What rounding does to a model's words, and what LoRA repairs of it; the lesson of the whole tab."""

import sys

import pytest
import torch

from core.foundations import base_model
from core.foundations.corpus import load_corpus
from core.foundations.experiment import find, settings
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.foundations.turns import without_pauses
from core.lora.tuning import adapt, layer_shapes
from core.qlora import DamageConfig, damage
from core.qlora.damage import (
    FLIPS,
    FLIPS_AFTER,
    GAIN,
    GAP,
    GAP_CLOSED,
    DamageStep,
    repair_figures,
    round_in_place,
    rounds_of,
)
from core.qlora.judging import look
from core.qlora.lesson import LESSON, damage_repair

pytest.importorskip("bitsandbytes.functional")

FOUR_BITS = ("nf4", "fp4")


def run(experiment, config):
    return drain(experiment(config), Recorder(experiment.experiment, config)).figures


def base():
    return without_pauses(base_model.load_base("shipped"))


@pytest.mark.parametrize("kind", FOUR_BITS)
def test_in_place_is_what_linear4bit_does(kind):
    """Logits, and the gradients that an adapter gets through the frozen weights."""
    import bitsandbytes as bnb

    ids, answers, gradients = torch.arange(200, 232)[None], [], []
    for way in ("in place", "Linear4bit"):
        model = base().model
        shapes = layer_shapes(model, "all")
        for name, layer in list(model.named_modules()):
            if name in shapes and way == "in place":
                round_in_place(layer, kind)
            elif name in shapes:
                four = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32, quant_type=kind
                )
                four.weight = bnb.nn.Params4bit(
                    layer.weight.detach(), requires_grad=False, quant_type=kind, compress_statistics=False, blocksize=64
                )
                model.set_submodule(name, four.to("cpu"))
        adapted = adapt(
            model, 4, 8.0, list(shapes), 0
        ).train()  # in evaluation, AVX512-BF16 processors round to bfloat16
        logits = adapted(input_ids=ids, use_cache=False).logits
        logits.logsumexp(-1).sum().backward()
        answers.append(logits.detach())
        gradients.append({name: weight.grad for name, weight in adapted.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-4)
    assert gradients[0].keys() == gradients[1].keys() and all("lora_" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4)


@pytest.fixture
def by_layer(monkeypatch):
    """A judgement per layer instead of per matrix, to be quick."""
    monkeypatch.setattr(sys.modules["core.qlora.damage"], "MOST_SINGLE", 0)


SMALL = {"steps": 2, "evaluated": 1, "context": 16, "batch": 1, "rank": 2}


def test_the_first_step_is_full_precision_and_each_judgement_has_one_more_matrix():
    steps = [step for step in damage(DamageConfig(**SMALL)) if step.loss is not None]
    assert [step.matrices for step in steps] == list(range(29)) and {step.of for step in steps} == {28}
    assert steps[0].flips == 0 and steps[0].words == () and steps[0].full_loss == steps[0].loss
    assert steps[-1].loss != steps[0].loss


def test_the_same_seed_gives_the_same_run(by_layer):
    told = [
        [
            (step.loss, step.flips, step.words, step.tuned_loss, step.control_loss)
            for step in damage(DamageConfig(**SMALL))
        ]
        for _ in range(2)
    ]
    assert told[0] == told[1]
    other = [step.tuned_loss for step in damage(DamageConfig(**SMALL, seed=1)) if step.tuned_loss]
    assert other[-1] != [row[3] for row in told[0] if row[3]][-1]


def test_8_bits_hurt_less_than_4_less_than_2():
    ids, flips = base_model.windows_of(base().ids(load_corpus("reader").validation)[:513], 64), []
    before = without_pauses(look(base().model, *ids))
    for kind in ("int8", "nf4", "nf2"):
        model = base().model
        shapes = layer_shapes(model, "all")
        for name, layer in model.named_modules():
            if name in shapes:
                round_in_place(layer, kind)
        flips.append(int((without_pauses(look(model, *ids)).likeliest != before.likeliest).sum()))
    assert flips == sorted(set(flips))


def test_lora_repairs_much_of_what_2_bits_lost(by_layer):
    """Decided by the control: the same LoRA on the model in full precision."""
    figures = run(damage, DamageConfig(kind="nf2", steps=6, evaluated=4, context=64, batch=3, learning_rate=0.01))
    gain, gap = figures[GAIN], figures[GAP]
    assert gain.expected > 0.5 and gain.measured > 0.25 * gain.expected
    assert figures[GAP_CLOSED].measured == pytest.approx(100 * (1 - gap.measured / gap.expected))
    assert figures[GAP_CLOSED].measured > 25
    assert 0 < figures[FLIPS_AFTER].measured < figures[FLIPS_AFTER].expected == figures[FLIPS].measured


def full_and_quantized(cost):
    return DamageStep(loss=3.0, flips=0.0), DamageStep(loss=3.0 + cost, flips=0.15)


def test_what_further_training_gains_is_no_repair():
    """The default run: quantizing added 0.0233 nats and LoRA took 0.0234 away, but the gap closed by 6 %."""
    full, quantized = full_and_quantized(0.0233)
    tuned, control = DamageStep(loss=3.0233 - 0.0234), 3.0233 - 0.0234 - 0.0219
    figures = by_figure(repair_figures(full, quantized, tuned, control, 0.13))
    assert figures[GAIN].measured == pytest.approx(figures[GAIN].expected, abs=2e-4)
    assert figures[GAP_CLOSED].measured == pytest.approx(6.0, abs=0.1)
    assert figures[FLIPS_AFTER].measured == pytest.approx(13.0) and figures[FLIPS_AFTER].expected == 15.0


def test_without_a_control_or_without_damage_nothing_can_be_called_repair():
    full, quantized = full_and_quantized(0.0233)
    assert [each.figure for each in repair_figures(full, quantized, full, None, None)] == [GAIN]
    figures = by_figure(repair_figures(*full_and_quantized(-0.001), full, 3.0, 0.1))
    assert figures[GAP_CLOSED].measured is None


def test_with_an_untouched_model_both_adapters_do_the_same(monkeypatch, by_layer):
    """The control differs from the quantized run in the rounding alone."""
    monkeypatch.setattr(sys.modules["core.qlora.damage"], "round_in_place", lambda layer, kind: None)
    steps = [step for step in damage(DamageConfig(**SMALL)) if step.tuned_loss is not None]
    assert len(steps) >= 2 and all(step.tuned_loss == step.control_loss for step in steps)
    assert steps[-1].tuned_loss != steps[0].tuned_loss


def test_embedding_and_output_layer_stay():
    untouched, steps = base().model.state_dict(), damage(DamageConfig(**SMALL, control=False))
    model, shapes = base().model, layer_shapes(base().model, "all")
    steps.close()
    assert len(shapes) == 28 and not any("lm_head" in name or "embed" in name for name in shapes)
    for name, layer in model.named_modules():
        if name in shapes:
            round_in_place(layer, "nf4")
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, untouched[name])}
    assert changed == {f"{name}.weight" for name in shapes}


def test_flipped_words_are_shown_with_their_context(by_layer):
    prompt = "The boat and the sea"
    last = [step for step in damage(DamageConfig(kind="nf2", prompt=prompt, **SMALL, control=False)) if step.words][-1]
    assert last.prompt_tokens >= len(last.words) > 0
    for before, was, now in last.words:
        assert prompt.startswith(before) and was != now
    assert [called for called, _ in last.continued] == [
        "full precision",
        "quantised",
        "quantized, with 2 steps of LoRA",
    ]


@pytest.mark.parametrize("prompt", ["", "🦊" * 400, "\n\n"])
def test_any_prompt_will_do(prompt, by_layer):
    steps = [step for step in damage(DamageConfig(prompt=prompt, **SMALL, control=False)) if step.words is not None]
    assert steps[0].prompt_tokens <= 64 and bool(steps[0].continued) == bool(prompt)


def test_a_rank_above_the_layer(refusal):
    assert refusal(run, damage, DamageConfig(rank=200)).startswith("rank must be at most 192")


def test_a_deep_model_is_quantised_a_few_layers_at_a_time():
    names = [f"model.layers.{layer}.mlp.{part}" for layer in range(40) for part in ("up", "down")]
    assert rounds_of(names[:64]) == [[name] for name in names[:64]]
    rounds = rounds_of(names)
    assert len(rounds) == 10 and rounds[:2] == [names[:8], names[8:16]]
    assert [name for names_now in rounds for name in names_now] == names


def test_look_agrees_with_the_base_s_own_loss():
    one = base()
    ids = torch.arange(300, 300 + 16 * 5 + 1)
    seen = without_pauses(look(one.model, *base_model.windows_of(ids, 16)))
    assert seen.loss == pytest.approx(without_pauses(base_model.validate(one.model, ids, 16)), rel=1e-5)
    assert (seen.lead >= 0).all() and seen.likeliest.shape == (5, 16)


# --- the lesson -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(4))
def test_the_lessons_questions_are_decided_by_their_runs(place, by_layer):
    """Each reads figures that its experiment has, also of a short run."""
    asked = [step for step in LESSON.steps if isinstance(step, Ask)][place]
    one = find("qlora", asked.experiment)
    names = {field.name for field in settings(one.config_type)}
    short = {
        name: value for name, value in (SMALL | {"steps": 1, "evaluated": 4, "context": 64}).items() if name in names
    }
    config = one.config_type(**short | {name: value for name, value in asked.settings.items() if name != "steps"})
    outcome = drain(one.run(config), Recorder(one, config)).outcome
    index, why = verdict(asked, outcome)
    assert 0 <= index < len(asked.answers) and why.endswith(".")
    assert all("  " not in sentence for sentence in takeaways(one, outcome))


@pytest.mark.parametrize(
    ("closed", "words"),
    [(95.0, "nearly all"), (60.0, "part of the damage"), (6.0, "hardly any"), (-20.0, "a larger gap than before")],
)
def test_the_control_decides_what_is_called_repair(closed, words):
    figures = by_figure((GAIN(0.02, 0.02), GAP_CLOSED(closed), GAP(0.02 * (1 - closed / 100), 0.02)))
    assert words in damage_repair(Outcome(figures, DamageConfig(), None))
