"""Training, forking, generating: each against what must be equal, and each figure against a slower way to the same
number.
"""

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.corpus import batch_of, load_corpus, ngram_baselines, split, the_play
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import Ask, verdict
from core.foundations.transformer import Shape, Transformer
from core.foundations.turns import without_pauses
from core.foundations.weights import from_bytes, shipped
from core.nanogpt import ForkConfig, GenerateConfig, TrainConfig, fork, generate, train, trainer
from core.nanogpt.forking import CHANGES, LOSS_B, SAME_LOSS, SAME_WEIGHTS
from core.nanogpt.generating import COPIED, SURPRISAL, copied_length
from core.nanogpt.lesson import BY_HEART, LESSON, blew_up, learned_by_heart, rung, what_it_knows, what_the_change_did
from core.nanogpt.trainer import Trainer, shape_of
from core.nanogpt.training import FIRST_LOSS, LAST_LOSS, LOSS, NGRAMS, PARAMETERS, TABLE, TRAINING_LOSS
from pages.nanogpt.diagram import diagram

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "nanogpt.json").read_text())
SMALL = {
    "corpus": "own",
    "own_text": the_play()[:4000],
    "n_layer": 1,
    "n_head": 2,
    "width": 16,
    "context": 16,
    "batch": 4,
}


def trainer_of(**changes):
    config = TrainConfig(**SMALL | changes)
    corpus = load_corpus(config.corpus, config.own_text)
    return Trainer(corpus, shape_of(config, corpus), config, config.learning_rate, config.optimizer)


def trained(**changes):
    return list(train(TrainConfig(**SMALL | {"steps": 20} | changes)))


def losses(steps):
    """The loss of each batch; the last Step tells the last one again."""
    return [step.loss for step in steps if step.loss is not None and step.validation_loss is None]


def figures(steps):
    return by_figure(result for step in steps for result in step.figures)


def loss_of(trainer, scale=1.0):
    *_, loss = trainer.one_step(scale)
    return loss


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("dialect", ["modern", "gpt2"])
def test_it_learns_one_batch_by_heart(optimizer, dialect, monkeypatch):
    one = trainer_of(width=32, learning_rate=0.02, optimizer=optimizer, dialect=dialect)
    batch = batch_of(one.data, 16, 4, torch.Generator().manual_seed(0))
    monkeypatch.setattr(trainer, "batch_of", lambda *asked: batch)
    found = [loss_of(one) for _ in range(120)]
    assert found[0] == pytest.approx(math.log(len(one.corpus.symbols)), abs=0.1)
    assert found[-1] < 0.1


def test_a_run_starts_at_ln_v_and_learns():
    steps = trained(steps=60)
    first, told = steps[0], figures(steps)
    assert told[FIRST_LOSS].measured == pytest.approx(told[FIRST_LOSS].expected, abs=1e-5)
    assert told[FIRST_LOSS].expected == first.baselines["ln V"] == math.log(len(first.symbols))
    assert told[PARAMETERS].gap == 0
    assert told[LOSS].measured == steps[-1].validation_loss < first.validation_loss - 0.3
    assert told[LOSS].gap is None, "a table is a baseline, no theory"
    assert told[TRAINING_LOSS].measured == pytest.approx(sum(losses(steps)[-10:]) / 10)
    assert [steps[-1].step, steps[-1].progress, steps[-1].diverged] == [60, 1.0, False]


def test_the_seed_decides_every_loss():
    one, same, other = (losses(trained(seed=seed, dropout=0.2)) for seed in (1, 1, 2))
    assert one == same
    assert one != other and len(one) == len(other)


def test_snapshots_show_the_model_as_it_is():
    shots = [step.snapshot for step in trained(steps=40) if step.snapshot]
    assert [shots[0].step, shots[-1].step] == [0, 40] and len(shots) > 2
    for shot in shots:
        assert shot.maps.shape == (1, 2, len(shot.probe), len(shot.probe))
        assert shot.maps.astype(float).sum(-1) == pytest.approx(1.0, abs=5e-3)
        assert len(shot.axes) == len(set(SMALL["own_text"])) and len(shot.sample) > 50


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_batch_in_parts_is_the_same_batch(optimizer, monkeypatch):
    whole = trainer_of(batch=7, optimizer=optimizer)
    loss = loss_of(whole, 0.1)
    monkeypatch.setitem(trainer.UNIT_FLOPS, "cpu", 1)
    parts = trainer_of(batch=7, optimizer=optimizer)
    *waits, in_parts = parts.one_step(0.1)
    assert waits == [None] * 6
    assert in_parts == pytest.approx(loss, abs=1e-5)
    for (name, one), other in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0, msg=lambda told, name=name: f"{name}: {told}")
    assert without_pauses(parts.validate()) == pytest.approx(without_pauses(whole.validate()), abs=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("dialect", ["modern", "gpt2"])
def test_a_far_too_high_learning_rate_ends_politely(optimizer, dialect):
    *_, last = steps = trained(steps=30, learning_rate=10.0, optimizer=optimizer, dialect=dialect)
    assert last.figures
    assert [step.diverged for step in steps[:-1]] == [False] * (len(steps) - 1)
    if last.diverged:
        assert "a smaller learning rate will hold" in last.doing
    else:
        assert last.step == 30


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e6])
def test_a_loss_that_runs_away_ends_the_run(loss, monkeypatch):
    monkeypatch.setattr(Trainer, "one_step", lambda self, scale: iter([loss]))
    *_, last = steps = trained()
    assert last.diverged and last.step == 1 and len(steps) == 2
    assert last.figures and "the loss went to" in last.doing


def test_a_figure_named_validation_loss_is_one(monkeypatch):
    """The loss of a batch is none, and a run that is given up is not evaluated."""
    monkeypatch.setattr(Trainer, "one_step", lambda self, scale: iter([1e6]))
    told = figures(trained())
    assert LOSS not in told, "a run that was given up has no validation loss"
    assert told[LAST_LOSS].measured == 1e6


def test_with_seconds_the_time_decides():
    started = time.monotonic()
    *_, last = trained(seconds=0.3, steps=1_000_000)
    assert last.progress == 1.0 and last.step > 3 and last.validation_loss is not None
    assert time.monotonic() - started < 20


def test_a_trained_model_can_be_handed_to_generate():
    *_, last = trained()
    file = from_bytes(last.files["model.safetensors"])
    assert json.loads(last.files["config.json"]) == file.shape.as_dict() | {"symbols": file.symbols, "corpus": "own"}
    first, *rest = generate(
        GenerateConfig(model="own", model_file=last.files["model.safetensors"], prompt="the", length=30)
    )
    assert first.text == "the" and len(rest) == 30
    assert set("".join(step.text for step in rest)) <= set(SMALL["own_text"])
    assert COPIED not in figures(rest), "what an own model learned from is not known"


def test_gpt2_has_no_rotary_positions_to_complain_about():
    """Three numbers per head are odd: rotary positions turn pairs, learned positions need none."""
    assert len(losses(trained(dialect="gpt2", width=24, n_head=8, steps=2))) == 2


# --- forking ----------------------------------------------------------------------------------------------------------


def forked(**changes):
    return list(fork(ForkConfig(**SMALL | {"steps": 8, "fork_at": 4} | changes)))


@pytest.mark.parametrize("change", CHANGES)
def test_one_change_and_nothing_else_parts_the_runs(change, monkeypatch):
    monkeypatch.setattr("core.nanogpt.trainer.SAMPLE_LENGTH", 1)  # 18 samples take most of the time
    steps = forked(change=change)
    pairs = {step.step: (step.loss_a, step.loss_b) for step in steps if step.loss_a is not None}
    assert [a == b for step, (a, b) in sorted(pairs.items()) if step <= 4] == [True] * 4
    parted = any(a != b for step, (a, b) in pairs.items() if step > 4)
    assert parted == (change != "file")  # a run that goes through a file stays the same
    told = figures(steps)
    assert told[SAME_LOSS].measured == told[SAME_LOSS].gap == 0
    assert told[SAME_WEIGHTS].measured == 0
    assert (told[LOSS_B].measured != told[LOSS_B].expected) == (change != "file")
    assert all(step.equal for step in steps)


def test_a_has_the_losses_of_a_run_that_was_never_forked():
    alone = losses(trained(steps=8))
    assert [step.loss_a for step in forked() if step.loss_a is not None and step.validation_a is None] == alone


def test_a_fork_that_was_never_reached_was_not_measured(monkeypatch):
    """A run given up before its fork knows nothing about the weights there."""
    monkeypatch.setattr(Trainer, "one_step", lambda self, scale: iter([1e6]))
    *_, last = steps = forked()
    assert last.diverged and last.step == 1
    assert figures(steps)[SAME_WEIGHTS].measured is None
    assert not last.forked


# --- generating -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written():
    return list(generate(GenerateConfig(length=300, seed=3)))


def test_what_was_drawn_surprises_by_the_entropy_it_was_drawn_from(written):
    one = figures(written)[SURPRISAL]
    assert 0.05 < one.expected < 4
    noise, away = (float(number) for number in re.findall(r"\d\.\d+", one.source))
    assert 0 < noise < 0.2 and abs(one.gap) < 3 * noise, "they agree within the noise of drawing"
    assert away == pytest.approx(abs(one.gap) / noise, rel=0.15)


def test_each_step_tells_what_was_considered(written):
    for step in written[1:]:
        symbols, shares = zip(*step.candidates, strict=True)
        assert list(shares) == sorted(shares, reverse=True) and sum(shares) < 1 + 1e-5
        if step.text in symbols:
            assert step.surprisal == pytest.approx(-math.log(shares[symbols.index(step.text)]), abs=1e-5)
        assert step.attention.astype(float).sum(-1).max() < 1.01
    assert [step.position for step in written] == list(range(301))


def longest_common(text, learned):
    """By brute force: every stretch of the text, the longest first."""
    stretches = (text[at : at + length] for length in range(len(text), 0, -1) for at in range(len(text) - length + 1))
    return next((len(stretch) for stretch in stretches if stretch in learned), 0)


def test_the_longest_copy_is_the_longest(written):
    from core.foundations.weights import shipped

    text, learned = "".join(step.text for step in written[1:121]), load_corpus(shipped("nanogpt").corpus).train
    found = written[120].copied
    assert any(text[at : at + found] in learned for at in range(len(text) - found + 1))
    assert not any(text[at : at + found + 1] in learned for at in range(len(text) - found))
    assert figures(written)[COPIED].measured == written[-1].copied >= found


@given(text=st.text("ab", max_size=30), learned=st.text("ab", max_size=30))
def test_the_longest_copy_equals_brute_force(text, learned):
    copy, longest = "", 0
    for symbol in text:
        copy = copied_length(copy + symbol, learned)
        longest = max(longest, len(copy))
    assert longest == longest_common(text, learned)


def test_at_temperature_zero_nothing_surprises():
    steps = list(generate(GenerateConfig(temperature=0.0, length=20)))
    assert figures(steps)[SURPRISAL].measured == 0
    again = list(generate(GenerateConfig(temperature=0.0, length=20, seed=9)))
    assert [step.text for step in steps] == [step.text for step in again]


def test_a_prompt_of_unknown_characters_starts_a_new_line():
    first = next(generate(GenerateConfig(prompt="漢字", length=1)))
    assert first.text == "\n"
    assert first.note == first.doing == "This model has never seen “漢”, “字”, so they are left out."


def test_what_a_prompt_loses_is_said():
    """Cyrillic letters vanished without a word."""
    first = next(generate(GenerateConfig(prompt="Hello wörld, Привет мир", length=1)))
    assert first.text == "Hello wrld,  " and "“ö”, “П”, “р”, “и”, “в” and others" in first.note
    assert next(generate(GenerateConfig(prompt="Hello", length=1))).note == ""


def test_an_own_model_needs_a_file(refusal):
    told = refusal(lambda: next(generate(GenerateConfig(model="own"))))
    assert told.startswith("model 'own' needs a model file")


# --- the lesson -------------------------------------------------------------------------------------------------------


def outcome(*results, **settings):
    return Outcome(by_figure(results), TrainConfig(**settings), None, 9)


def evaluated(loss, training_loss=None):
    tables = (TABLE.of(n=n)(level) for n, level in zip(NGRAMS, (3.0, 2.4, 1.9), strict=True))
    return outcome(LOSS(loss, 1.9), *tables, TRAINING_LOSS(loss if training_loss is None else training_loss, loss))


@pytest.mark.parametrize(("loss", "right"), [(3.01, 0), (2.99, 1), (2.41, 1), (2.39, 2), (1.91, 2), (1.89, 3)])
def test_the_tables_that_are_beaten_decide_what_is_known(loss, right):
    assert verdict(ASKS[1], evaluated(loss))[0] == rung(evaluated(loss)) == right
    assert ASKS[1].answers[right] in what_it_knows(evaluated(loss))


def of_b(a, b):
    return Outcome(by_figure([LOSS_B(b, a)]), ForkConfig(), None, 9)


@pytest.mark.parametrize(
    ("b", "word"), [(1.5, "helped"), (1.99, "hardly"), (2.01, "hardly"), (2.06, "harm"), (2.51, "harm")]
)
def test_the_loss_of_b_decides_what_the_change_did(b, word):
    assert word in what_the_change_did(of_b(2.0, b))


@pytest.mark.parametrize(("loss", "right"), [(3.4, 0), (2.9, 0), (2.0, 1), (1.0, 2)])
def test_the_loss_decides_what_was_learned_first(loss, right):
    run = evaluated(loss)
    run = replace(run, figures=run.figures | by_figure([FIRST_LOSS(4.09, 4.09)]))
    assert verdict(ASKS[0], run)[0] == right


def test_the_play_has_the_characters_that_the_question_counts():
    assert len(load_corpus("play").symbols) == 60 and "all 60 different" in ASKS[0].text


def test_only_a_text_that_is_learned_by_heart_is_called_so():
    assert learned_by_heart(evaluated(2.0, 2.0 - BY_HEART + 0.01)) == ""
    assert "by heart" in learned_by_heart(evaluated(2.8, 0.6))
    assert "1e+03" in blew_up(outcome(LAST_LOSS(1000.0, 4.1)))


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.experiment)
def test_a_figure_that_is_missing_leaves_a_question_open_with_the_reason(ask):
    right, because = verdict(ask, outcome())
    assert right is None and because.startswith("The run ended before it had measured “")


# --- golden numbers ---------------------------------------------------------------------------------------------------

PRESETS = {
    "cpu_preset_parameters": (Shape(65, 4, 4, 128, 64, "gpt2", bias=False, tied=True), False),
    "baby_gpt_parameters": (Shape(65, 6, 6, 384, 256, "gpt2", bias=False, tied=True), False),
    "gpt2_parameters": (Shape(50257, 12, 12, 768, 1024, "gpt2", bias=True, tied=True), True),
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_known_models(name, monkeypatch):
    """nanoGPT counts its two small presets without the position table. On the meta device nothing is allocated."""
    monkeypatch.setattr(Transformer, "initialise", lambda self, seed: None)
    shape, with_places = PRESETS[name]
    with torch.device("meta"):
        model = Transformer(shape)
    counted = sum(weight.numel() for weight in model.parameters())
    assert counted - (0 if with_places else model.place.weight.numel()) == GOLDEN[name]


def test_ln_65():
    """The first loss on Tiny Shakespeare, whose alphabet has 65 characters."""
    text = "".join(map(chr, range(65))) * 3
    assert round(ngram_baselines(split("one", [text]))["ln V"], 4) == GOLDEN["ln_65"]


def test_the_lessons_example_of_a_pair_is_in_the_play():
    text = load_corpus("play").train
    share = text.count("th") / text[:-1].count("t")
    (explained,) = [step.text for step in LESSON.steps if "Counting pairs means" in step.text]
    assert f"h comes after t {share:.0%} of 100".replace("%", " times") in explained.replace("\n", " ")
    assert f"{-math.log(share):.2f} nats" in explained


def test_the_diagram_has_the_sizes_of_the_model_that_writes():
    def heads(config):
        return next(shape["size"] for shape in diagram(config).shapes if shape.get("part") == "attention")

    shape = shipped("nanogpt").shape
    assert heads(GenerateConfig()) == f"{shape.n_head} heads"
    assert heads(GenerateConfig(model="gpt2")) == "12 heads"
    assert heads(TrainConfig(n_head=4)) == "4 heads"
