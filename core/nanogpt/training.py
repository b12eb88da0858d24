"""Training: the same step again and again (`trainer.py`), and what the model knows at each moment.

A run first measures the untrained model: its loss must be ln V. Sixteen times on the way, and at the end, it judges the
model on the validation text, lets it write from always the same seed, and keeps its attention and its embeddings for
the slider. Two losses are told: of the batch that a step learns from, and of the validation text, which is never
learned from. Where the first falls and the second rises, the model learns its text by heart: overfitting.

Left out: several seeds; one curve says little about a small difference.
Source: nanoGPT's train.py for the shape of the loop.
"""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.foundations.corpus import load_corpus, ngram_baselines
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.turns import with_pauses, without_pauses
from core.foundations.weights import MODEL_FILE_BYTES
from core.nanogpt.trainer import Snapshot, TextConfig, Trainer, schedule, shape_of
from core.nanogpt.training_file import NAME, Done, restored, saved

SNAPSHOTS = 12  # how often a run pauses to write a sample and keep what the slider shows
SNAPSHOT_APART = 12  # ... and the fewest steps between two of them
LATEST = 10  # batches whose mean loss stands beside the validation loss

FIRST_LOSS = Figure(
    "loss before training", "nats per character", "theory", "ln V: all characters equally likely", headline=True
)
PARAMETERS = Figure(
    "parameters", "weights", "theory", "12 L C^2 in the layers and V C per table; norms left out", "computed"
)
LOSS = Figure(
    "validation loss", "nats per character", "baseline", "counting triples in the training text", headline=True
)
CHOICES = Figure(
    "as unsure as between", "equally likely characters", "baseline", "e^loss; at first, all characters", headline=True
)
TRAINING_LOSS = Figure(
    f"training loss, last {LATEST} steps", "nats per character", "baseline", "the validation loss", headline=True
)
TABLE = Figure(
    "validation loss of a {n}gram table",
    "nats per character",
    None,
    "counted in the training text, with Witten-Bell smoothing",
    "computed",
)
SPEED = Figure("training speed", "characters per second")
LAST_LOSS = Figure(
    "last loss before the run stopped",
    "nats per character",
    "baseline",
    "ln V: all characters equally likely",
    headline=True,
)
NGRAMS = ("uni", "bi", "tri")


@dataclass(frozen=True)
class TrainConfig(TextConfig):
    """The text, the model, and how long and how it is trained."""

    steps: int = setting(
        250,
        "Training steps",
        unit="step",
        low=1,
        high=1_000_000,
        help="One step is one change of the weights. More steps lower the loss, ever more slowly.",
    )
    learning_rate: float = setting(
        0.02,
        "Learning rate",
        low=1e-6,
        high=10.0,
        more=True,
        help="How far each step moves the weights. Too small is slow; too large, and the loss jumps up.",
    )
    seconds: float = setting(
        0.0,
        "Seconds",
        unit="second",
        low=0,
        high=86_400,
        more=True,
        help="Above 0, the run takes this much computing time, whatever the steps say.",
    )
    optimizer: str = setting(
        "muon",
        "Optimizer",
        choices={"muon": "Muon for the matrices, AdamW for the rest", "adamw": "AdamW for all, at a sixth of the rate"},
        more=True,
        help="The rule that turns gradients into changes of the weights.",
    )
    dialect: str = setting(
        "modern",
        "Dialect",
        choices={"modern": "modern (rotary positions, squared ReLU)", "gpt2": "GPT-2 (learned positions, GELU)"},
        more=True,
        help="Two ways to build the same kind of model: today's, and GPT-2's of 2019.",
    )
    dropout: float = setting(
        0.0,
        "Dropout",
        low=0,
        high=0.9,
        more=True,
        help="The fraction of activations set to 0 while training. It slows learning by heart.",
        slider=True,
    )
    start: str = setting(
        "nothing",
        "Start from",
        choices={"nothing": "nothing: random weights", "file": "a training file: a run goes on where it stopped"},
        more=True,
        help=(
            "A run hands over a training.safetensors, if that has at most 32 MB. With it, with the same settings and"
            " with the same text, a run goes on as if it had never stopped; more training steps than before train it"
            " further."
        ),
    )
    start_file: bytes = setting(
        b"", "Training file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("start", "file")
    )


@dataclass(frozen=True)
class TrainStep(Step):
    """One training step, a snapshot, or a part of either; what did not happen in it is None."""

    step: int
    progress: float  # 0 to 1
    loss: float | None = None  # nats per character on this step's batch
    validation_loss: float | None = None  # nats per character on text that is never learned from
    learning_rate: float = 0.0
    tokens_per_second: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)  # losses of n-gram tables, on the first Step
    symbols: str = ""  # on the first Step
    snapshot: Snapshot | None = None


@experiment("What has a model learned when its loss falls?")
def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Train a GPT from nothing on a text, live."""
    # the text, the untrained model, and what simple tables would reach
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    trainer = Trainer(corpus, shape_of(config, corpus), config, config.learning_rate, config.optimizer)
    if config.seconds and trainer.accelerator.num_processes > 1:
        raise ValueError("several processes must take the same number of steps: give steps, and leave seconds at 0")
    baselines, first_loss = ngram_baselines(corpus), without_pauses(trainer.validate(4096))
    first = start_figures(trainer, baselines, first_loss)
    # or, instead of the untrained one, the run in a training file
    done = gone_on(trainer, config) if config.start == "file" else Done()
    step, busy, losses = done.step, done.busy, list(done.losses)
    progress = busy / config.seconds if config.seconds else step / config.steps
    pictured, loss = (step, progress), without_pauses(trainer.validate(4096)) if step else first_loss
    look = without_pauses(look_of(trainer, done))
    yield TrainStep(step, progress, None, loss, baselines=baselines, symbols=corpus.symbols, figures=first, **look)
    while progress < 1:
        # one training step, in parts that give turns to others
        started = time.perf_counter()
        scale = schedule(progress, step)
        for part in trainer.one_step(scale):
            busy += time.perf_counter() - started
            if part is None:
                yield TrainStep(step, progress)
            else:
                losses = [*losses[1 - LATEST :], part]
            started = time.perf_counter()
        step += 1
        progress = busy / config.seconds if config.seconds else step / config.steps
        rate, speed = config.learning_rate * scale, step * config.batch * config.context / busy
        if not losses[-1] <= 8 * baselines["ln V"]:  # not a number, or far worse than knowing nothing
            yield stopped(step, progress, losses[-1], rate, baselines)
            return
        yield TrainStep(
            step, progress, losses[-1], None, rate, speed, part="update", doing=f"step {step}: loss {losses[-1]:.3f}"
        )
        # now and then: judge on the validation text, write a sample, keep a picture
        due = int(progress * SNAPSHOTS) > int(pictured[1] * SNAPSHOTS) and step - pictured[0] >= SNAPSHOT_APART
        if progress < 1 and due:
            pictured = (step, progress)
            validation = yield from with_pauses(trainer.validate(4096), TrainStep(step, progress, part="loss"))
            yield TrainStep(step, progress)  # a place to take turns: the sample is a unit of its own
            writing = TrainStep(step, progress, part="predict")
            look = yield from with_pauses(look_of(trainer, Done(step, busy, tuple(losses))), writing)
            doing = f"step {step}: validation loss {validation:.3f}"
            yield TrainStep(step, progress, None, validation, rate, speed, part="predict", doing=doing, **look)
    # the whole validation text at the end
    judging = TrainStep(step, 1.0, part="loss", doing="judging on the validation text")
    validation = yield from with_pauses(trainer.validate(), judging)
    look = yield from with_pauses(look_of(trainer, Done(step, busy, tuple(losses))), judging)
    figures, doing = (
        end_figures(baselines, validation, sum(losses) / len(losses), speed),
        f"done: validation loss {validation:.3f}",
    )
    yield TrainStep(step, 1.0, losses[-1], validation, 0.0, speed, part="predict", figures=figures, doing=doing, **look)


def look_of(trainer: Trainer, done: Done) -> Generator[None, None, dict[str, Any]]:
    """What the slider shows of this moment, and the files of it: the model, and the run to go on with."""
    snapshot = yield from trainer.snapshot(done.step)
    yield
    run = saved(trainer, done)
    return {"snapshot": snapshot, "files": trainer.files() | ({NAME: run} if run is not None else {})}


def gone_on(trainer: Trainer, config: TrainConfig) -> Done:
    """The trainer put where the run in the file was; one sentence where this run would be over at once."""
    if not config.start_file:
        raise ValueError("start 'file' needs a training file: upload a training.safetensors that was downloaded here")
    done = restored(trainer, config.start_file)
    if config.seconds and done.busy >= config.seconds:
        raise ValueError(f"seconds must be more than {done.busy:.3g}, which this run has had, got {config.seconds:g}")
    if not config.seconds and done.step >= config.steps:
        raise ValueError(f"steps must be more than {done.step}, which this run has done, got {config.steps}")
    return done


def stopped(step: int, progress: float, loss: float, rate: float, baselines: dict[str, float]) -> TrainStep:
    """The last Step of a run whose numbers blew up."""
    return TrainStep(
        step,
        progress,
        loss,
        learning_rate=rate,
        diverged=True,
        figures=(LAST_LOSS(loss, baselines["ln V"]),),
        doing=f"step {step}: the loss went to {loss:.3g}, so the run stops; a smaller learning rate will hold",
    )


def start_figures(trainer: Trainer, baselines: dict[str, float], first_loss: float) -> tuple[Result, ...]:
    """What a formula says of the untrained model: its loss and its size."""
    shape, counted = trainer.model.shape, sum(p.numel() for p in trainer.model.parameters())
    learned_positions = shape.context * shape.width if trainer.model.place is not None else 0
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2) + learned_positions
    return FIRST_LOSS(first_loss, baselines["ln V"]), PARAMETERS(counted, shape.matrix_parameters + tables)


def end_figures(baselines: dict[str, float], loss: float, training_loss: float, speed: float) -> tuple[Result, ...]:
    """The trained model beside tables of the same text, and beside the text it learned from."""
    tables = tuple(TABLE.of(n=n)(baselines[f"{n}gram"]) for n in NGRAMS)
    return (
        LOSS(loss, baselines["trigram"]),
        CHOICES(math.exp(loss), math.exp(baselines["ln V"])),
        TRAINING_LOSS(training_loss, loss),
        *tables,
        SPEED(speed),
    )
