r"""Forking: two runs with one difference, equal to the last bit until the moment they part.

Two trainers start from the same seed and take the same steps, one after the other. At every step before the fork their
losses must be the same floating-point number, and at the fork every weight must have the same bits: that is measured,
not assumed. Then one thing is changed in B, and whatever differs from there on has that one cause.

The cosine schedule goes on as planned after the fork, so a change that is made late has little time to act.

Left out: several seeds. One pair of curves shows that a change has an effect, not how reliable that effect is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from core.foundations.corpus import load_corpus, ngram_baselines
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses, without_pauses
from core.nanogpt.trainer import TextConfig, Trainer, schedule, shape_of
from core.nanogpt.training import FIRST_LOSS
from core.nanogpt.training_file import Done, bytes_needed, fits, restored, saved

CHANGES = {
    "no_residual": "cut the residual connections",
    "no_norm": "take out the layer norms (queries and keys stay normalized)",
    "no_positions": "take away the positions",
    "learning_rate": "multiply the learning rate",
    "heads": "regroup into other heads",
    "tying": "tie the output layer to the embedding",
    "file": "write the run to a file, and go on from it",
}

SAME_LOSS = Figure(
    "largest loss difference before the fork",
    "nats per character",
    "theory",
    "same seed, same steps: the same numbers",
    headline=True,
)
SAME_WEIGHTS = Figure(
    "weights that differ at the fork", "weights", "theory", "same seed, same steps: the same bits", headline=True
)
LOSS_B = Figure(
    "validation loss of B", "nats per character", "baseline", "A, the same run without the change", headline=True
)
SAME_END = Figure(
    "weights that differ at the end", "weights", "theory", "B went through a file: the same bits as A", headline=True
)
FILE_SIZE = Figure(
    "size of the training file",
    "bytes",
    "baseline",
    "4 bytes for each weight and each number that an optimizer keeps of it; the rest: header, random generators",
)
LAST_LOSS_B = Figure(
    "last training loss of B", "nats per character", "baseline", "A on the same batch; both before that step's update"
)


@dataclass(frozen=True)
class ForkConfig(TextConfig):
    """What both runs share, the one change, and when it is made."""

    change: str = setting(
        "no_residual",
        "Change in B",
        choices=CHANGES,
        help="The one thing that is done to B at the fork; A goes on as before.",
    )
    times: float = setting(
        8.0,
        "Learning rate times",
        low=0.001,
        high=1000.0,
        when=("change", "learning_rate"),
        help="B's learning rate is multiplied by this from the fork on.",
    )
    heads: int = setting(
        1,
        "Heads in B",
        unit="head",
        low=1,
        high=64,
        when=("change", "heads"),
        help="B's weights are regrouped into this many heads; no weight changes its value.",
    )
    fork_at: int = setting(
        70,
        "Fork at step",
        unit="step",
        low=1,
        high=100_000,
        help="The step after which B differs. Later means less time to recover.",
    )
    steps: int = setting(
        140, "Training steps", unit="step", low=2, high=100_000, help="How many steps A and B take, each."
    )
    n_head: int = setting(
        2,
        "Attention heads",
        unit="head",
        low=1,
        high=16,
        more=True,
        help="Heads of both models before the fork.",
        slider=True,
    )
    width: int = setting(
        64, "Width", unit="number", low=8, high=384, more=True, help="How many numbers stand for one character."
    )
    learning_rate: float = setting(
        0.02, "Learning rate", low=1e-6, high=10.0, more=True, help="How far each step moves the weights, in both runs."
    )

    def check(self) -> None:
        super().check()
        if self.fork_at >= self.steps:
            raise ValueError(f"fork_at must be less than steps, got {self.fork_at} of {self.steps} steps")
        if self.change == "heads" and self.width % (2 * self.heads):
            raise ValueError(f"heads must divide half the width, got {self.heads} heads for width {self.width}")


@dataclass(frozen=True)
class ForkStep(Step):
    """One step of both runs, or a look at them; what did not happen in it is None."""

    step: int
    loss_a: float | None = None  # nats per character on the same batch
    loss_b: float | None = None
    forked: bool = False
    equal: bool = True  # so far, bit for bit
    validation_a: float | None = None
    validation_b: float | None = None
    sample_a: str | None = None
    sample_b: str | None = None
    fork_at: int | None = None  # on the first Step
    levels: tuple[float, float] | None = None  # on the first Step: entropy of single characters, and of triples


def part_ways(trainer: Trainer, config: ForkConfig, done: Done) -> tuple[Trainer, int]:
    """The one change, made to the running trainer: its weights, momenta and random generator stay as they are.

    Or the trainer is written to a file, and a new one goes on from that. Returns who goes on, and the file's bytes.
    """
    if config.change == "file":
        file = saved(trainer, done)
        assert file is not None  # `fork` has looked
        new = Trainer(trainer.corpus, trainer.model.shape, config, config.learning_rate)
        restored(new, file)
        return new, len(file)
    model: Transformer = trainer.model
    match config.change:
        case "learning_rate":
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["initial_lr"] *= config.times
        case "heads":
            model.reshape(n_head=config.heads)
        case "no_residual":
            model.reshape(residual=False)
        case "no_positions":
            model.reshape(positions=False)
        case "no_norm":
            model.reshape(norm=False)
        case "tying":
            model.head = None
            model.reshape(tied=True)
    return trainer, 0


def differing_weights(a: Transformer, b: Transformer) -> int:
    """How many weights of two models differ in any bit."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return sum(int((p.view(torch.int32) != q.view(torch.int32)).sum()) for p, q in pairs)


@experiment("What does one change do, when everything else is the same to the last bit?")
def fork(config: ForkConfig) -> Iterator[ForkStep]:
    """Two runs from the same seed, in step; at the fork, one thing changes in B."""
    # two trainers that are equal to the last bit
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    a, b = (Trainer(corpus, shape_of(config, corpus), config, config.learning_rate) for _ in range(2))
    if config.change == "file" and not fits(b):
        raise ValueError("The file of this run would be larger than 32 MB: set fewer layers or a smaller width")
    baselines = ngram_baselines(corpus)
    before = without_pauses(a.validate(4096))
    first = FIRST_LOSS(before, baselines["ln V"])
    yield ForkStep(
        0,
        validation_a=before,
        validation_b=without_pauses(b.validate(4096)),
        sample_a=without_pauses(a.sample()),
        sample_b=without_pauses(b.sample()),
        fork_at=config.fork_at,
        levels=(baselines["unigram"], baselines["trigram"]),
        figures=(first,),
    )
    # the same steps for both; after the fork the same steps with one difference
    largest_gap, differing, size = 0.0, 0, 0
    for step in range(1, config.steps + 1):
        scale, losses = schedule((step - 1) / config.steps, step - 1), list[float]()
        for trainer in (a, b):
            for part in trainer.one_step(scale):
                if part is not None:
                    losses.append(part)
                if part is None or trainer is a:
                    yield ForkStep(step)  # a place to take turns, between parts and between the two runs
        forked = step > config.fork_at
        if not forked:
            largest_gap = max(largest_gap, abs(losses[0] - losses[1]))
        if step == config.fork_at:
            differing = differing_weights(a.model, b.model)
            b, size = part_ways(b, config, Done(step, 0.0, (losses[1],)))
        diverged = not all(loss < 8 * baselines["ln V"] for loss in losses)
        yield ForkStep(
            step,
            losses[0],
            losses[1],
            forked,
            equal=largest_gap == 0,
            diverged=diverged,
            part="update",
            doing=f"step {step}: A {losses[0]:.3f}, B {losses[1]:.3f}",
        )
        if diverged or step == config.steps or step % max(1, config.steps // 8) == 0:
            yield from look(a, b, step, forked, largest_gap)
        if diverged:
            break
    kept = (differing, size) if step >= config.fork_at else None
    yield from judge(a, b, step, losses, largest_gap, kept, diverged)


def look(a: Trainer, b: Trainer, step: int, forked: bool, largest_gap: float) -> Iterator[ForkStep]:
    """Both samples."""
    now = ForkStep(step, forked=forked, equal=largest_gap == 0)
    sample = yield from with_pauses(a.sample(), now)
    yield replace(now, sample_a=sample, doing="writing a sample with A")
    sample = yield from with_pauses(b.sample(), now)
    yield replace(now, sample_b=sample, doing="writing a sample with B")


def judge(
    a: Trainer,
    b: Trainer,
    step: int,
    losses: list[float],
    largest_gap: float,
    at_fork: tuple[int, int] | None,
    diverged: bool,
) -> Iterator[ForkStep]:
    """Validation loss of both runs on the same text, and what was measured before the fork.

    at_fork: how many weights differed there, and the bytes of the file that B went through; None where it was not
    reached.
    """
    ends: list[float] = []
    for trainer in (a, b):
        ends.append(
            (yield from with_pauses(trainer.validate(16_384), ForkStep(step, doing="judging on the validation text")))
        )
    figures: tuple[Result, ...] = (
        SAME_LOSS(largest_gap, 0.0),
        SAME_WEIGHTS(float(at_fork[0]) if at_fork else None, 0.0),
        LOSS_B(ends[1], ends[0]),
        LAST_LOSS_B(losses[1], losses[0]),
    )
    if at_fork and at_fork[1]:
        figures += (
            SAME_END(float(differing_weights(a.model, b.model)), 0.0),
            FILE_SIZE(float(at_fork[1]), float(bytes_needed(b))),
        )
    yield ForkStep(
        step,
        losses[0],
        losses[1],
        at_fork is not None and step > 0,
        largest_gap == 0,
        ends[0],
        ends[1],
        diverged=diverged,
        figures=figures,
        doing=f"done: validation loss A {ends[0]:.3f}, B {ends[1]:.3f}",
    )
