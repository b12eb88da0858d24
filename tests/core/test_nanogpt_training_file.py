"""A run that goes on from a training file equals the unbroken one, and a file that does not fit is refused."""

import dataclasses
import json
from functools import cache

import pytest
import safetensors.torch
import torch

from core.foundations.corpus import load_corpus
from core.foundations.weights import from_bytes
from core.nanogpt.forking import FILE_SIZE, SAME_END, ForkConfig, fork
from core.nanogpt.trainer import Trainer, shape_of
from core.nanogpt.training import LOSS, TRAINING_LOSS, TrainConfig, train
from core.nanogpt.training_file import NAME, Done, bytes_needed, restored, saved

SMALL = {"n_layer": 2, "width": 16, "context": 16, "batch": 4, "steps": 40}


def trainer_of(config):
    corpus = load_corpus(config.corpus, config.own_text)
    return Trainer(corpus, shape_of(config, corpus), config, config.learning_rate, config.optimizer)


@cache
def run(**changes):
    """All steps of a run; the file of its snapshot at step 12 or later is `file_of(steps)`."""
    return tuple(train(TrainConfig(**SMALL | changes)))


def file_of(steps, at):
    return next(step.files[NAME] for step in steps if step.files and step.step >= at)


def losses_of(steps, after):
    return [(step.step, step.loss) for step in steps if step.loss is not None and step.step > after]


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adamw", "dialect": "gpt2", "dropout": 0.2}], ids=["muon", "dropout"]
)
def test_a_continued_run_equals_the_unbroken_one(changes):
    unbroken = run(**changes)
    file = file_of(unbroken, 12)
    continued = tuple(train(TrainConfig(**SMALL | changes, start="file", start_file=file)))
    begun = continued[0].step
    assert 12 <= begun < 40
    assert losses_of(continued, begun) == losses_of(unbroken, begun)
    ends = [from_bytes(steps[-1].files["model.safetensors"]).weights for steps in (unbroken, continued)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    whole = [safetensors.torch.load(steps[-1].files[NAME]) for steps in (unbroken, continued)]
    assert whole[0].keys() == whole[1].keys()
    assert all(torch.equal(whole[0][name], whole[1][name]) for name in whole[0])
    by_name = [{r.figure: r.measured for r in steps[-1].figures} for steps in (unbroken, continued)]
    assert by_name[0][LOSS] == by_name[1][LOSS]
    assert continued[0].figures == unbroken[0].figures  # what is known of the untrained model


def test_more_steps_train_a_finished_run_further():
    ended = run()[-1].files[NAME]
    further = tuple(train(TrainConfig(**SMALL | {"steps": 60}, start="file", start_file=ended)))
    assert (further[0].step, further[-1].step) == (40, 60)


def test_weights_alone_are_not_enough():
    """The control: without the optimizers' memory the run goes another way, so equality above means something."""
    unbroken = run()
    file = file_of(unbroken, 12)
    tensors = safetensors.torch.load(file)
    for name in tensors:
        if name.startswith("optimizer") and not name.endswith("step"):
            tensors[name] = torch.zeros_like(tensors[name])
    bare = tuple(train(TrainConfig(**SMALL, start="file", start_file=resealed(file, tensors))))
    assert losses_of(bare, bare[0].step)[2:] != losses_of(unbroken, bare[0].step)[2:]


def resealed(file, tensors=None, **told):
    """The file with other tensors, or with other words in its header."""
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])["__metadata__"]
    metadata = json.dumps(json.loads(header["training"]) | told)
    return safetensors.torch.save(tensors or safetensors.torch.load(file), metadata={"training": metadata})


BAD = {
    "none": (b"", {}, "start 'file' needs a training file"),
    "no safetensors": (b"abc", {}, "not a whole safetensors file"),
    "a model to write with": ("model", {}, "holds no run to go on with"),
    "other settings": ("file", {"width": 32, "batch": 8}, "set what its run had: width 16, batch 4"),
    "another text": ("file", {"corpus": "own", "own_text": "ab cd " * 300}, "set what its run had: corpus play"),
    "over": ("file", {"steps": 12}, "steps must be more than"),
    "over in time": ("file", {"seconds": 1e-9}, "seconds must be more than"),
}


@pytest.mark.parametrize(("given", "changes", "sentence"), BAD.values(), ids=BAD)
def test_a_file_that_does_not_fit_gets_one_sentence(given, changes, sentence, refusal):
    files = {"file": file_of(run(), 12), "model": run()[-1].files["model.safetensors"]}
    config = TrainConfig(**SMALL | changes, start="file", start_file=files.get(given, given))
    assert sentence in refusal(lambda: next(train(config)))


def test_own_text_has_to_be_the_same(refusal):
    own = {"corpus": "own", "own_text": "the sea is salt. " * 40}
    file = file_of(run(**own), 12)
    other = TrainConfig(**SMALL | own | {"own_text": "the sea is silt. " * 40}, start="file", start_file=file)
    assert "this is another one" in refusal(lambda: next(train(other)))
    assert next(train(TrainConfig(**SMALL | own, start="file", start_file=file))).step >= 12


@pytest.mark.parametrize(
    "told",
    [
        {"step": -1},
        {"step": 3.5},
        {"busy": None},
        {"busy": -1.0},
        {"busy": 1e308},
        {"losses": []},
        {"losses": [float("nan")]},
        {"losses": "long"},
        {"settings": None},
    ],
)
def test_a_header_that_lies_gets_one_sentence(told, refusal):
    file = resealed(file_of(run(), 12), **told)
    assert refusal(restored, trainer_of(TrainConfig(**SMALL)), file)


def test_half_a_character_in_a_header_does_not_stop_the_answer(refusal):
    file = file_of(run(), 12)
    settings = json.loads(json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])["__metadata__"]["training"])[
        "settings"
    ]
    told = refusal(restored, trainer_of(TrainConfig(**SMALL)), resealed(file, settings=settings | {"seed": "\ud800"}))
    told.encode()


def changed(name, tensor):
    file = file_of(run(), 12)
    tensors = safetensors.torch.load(file)
    first = next(key for key in sorted(tensors) if key.startswith(name))
    return resealed(file, tensors | {first: tensor(tensors[first])})


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("model", lambda t: t[:1], "another shape"),
        ("model", lambda t: t.double(), "another shape"),
        ("model", lambda t: t * float("inf"), "numbers beyond"),
        ("model", lambda t: t * 1e20, "numbers beyond"),
        ("optimizer", lambda t: t.flatten()[:1].repeat(3), "another shape"),
        ("batches", torch.zeros_like, "random numbers"),
        ("dropout", lambda t: t[:5], "another shape"),
    ],
)
def test_a_damaged_file_gets_one_sentence(name, tensor, sentence, refusal):
    assert sentence in refusal(restored, trainer_of(TrainConfig(**SMALL)), changed(name, tensor))


def test_the_size_is_what_the_formula_says():
    trainer = trainer_of(TrainConfig(**SMALL))
    list(trainer.one_step(1.0))
    file = saved(trainer, Done(1, 0.0, (4.0,)))
    assert 0 < len(file) - bytes_needed(trainer) < 40_000  # its header and the random generators


def test_a_run_too_large_for_an_upload_hands_over_no_training_file():
    assert saved(trainer_of(TrainConfig(n_layer=8, width=384)), Done()) is None


def test_fork_refuses_a_run_that_is_too_large_before_it_starts(refusal):
    config = ForkConfig(n_layer=8, width=384, change="file")
    assert "larger than 32 MB" in refusal(lambda: next(fork(config)))


def test_a_short_run_s_training_loss_is_of_its_own_steps():
    last = list(train(TrainConfig(**SMALL | {"steps": 2})))[-1]
    own = {result.figure: result.measured for result in last.figures}[TRAINING_LOSS]
    losses = [loss for _, loss in losses_of(train(TrainConfig(**SMALL | {"steps": 2})), 0)][:2]
    assert own == pytest.approx(sum(losses) / 2)


def test_fork_measures_that_a_file_loses_nothing():
    last = list(fork(ForkConfig(**SMALL, fork_at=20, change="file")))[-1]
    figures = {result.figure: result for result in last.figures}
    assert figures[SAME_END].measured == 0
    assert figures[FILE_SIZE].measured > figures[FILE_SIZE].expected
    assert last.loss_a == last.loss_b


def test_what_must_be_the_same_names_every_setting():
    """A new setting is compared, unless somebody decides that it may change on the way."""
    from core.nanogpt.training_file import FREE, settings_of

    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(settings_of(trainer_of(TrainConfig(**SMALL)))) == names - FREE | {"text"}
