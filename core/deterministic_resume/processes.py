"""The processes of `unplug`: their orders, what they do, and which accident the last checkpoint meets."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.deterministic_resume import checkpoint as disk
from core.deterministic_resume.training import PARTS, Training
from core.foundations.corpus import load_corpus
from core.foundations.experiment import Config, setting
from core.foundations.settings import batch_field, context_field, layers_field, seed_field, width_field
from core.foundations.transformer import Shape

ACCIDENTS = {
    "none": "none: killed between two saves",
    "saving": "killed in the middle of the last save",
    "bit": "a bit of the last checkpoint flips",
    "cut": "the last checkpoint is cut short",
    "full": "no room on the disk for the last save",
}
TEXTS = {"play": "The Lantern of Saltmere (a play)", "reader": "The Harbour Reader (modern prose)"}
SHORT = {
    "weights": "weights",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "rng": "random state",
    "data": "position in data",
}
NEVER, KILLED, RESUMED = "never stopped", "killed", "resumed"
A_WHILE = 3600.0  # seconds: until it is killed


@dataclass(frozen=True)
class UnplugConfig(Config):
    """What is put back, what goes wrong, and the run."""

    weights: bool = setting(
        True, "Put back: weights", help="Unticked, the new process starts from its own first weights."
    )
    optimizer: bool = setting(True, "Put back: optimizer", help="Unticked, AdamW starts with moments of 0.")
    schedule: bool = setting(
        True, "Put back: learning-rate schedule", help="Unticked, the learning rate starts its schedule again."
    )
    rng: bool = setting(
        True,
        "Put back: random generators",
        help="Unticked, dropout draws other zeros than in the run that was never stopped.",
    )
    data: bool = setting(
        True, "Put back: position in the data", help="Unticked, the new process reads the text from its start."
    )
    accident: str = setting(
        "none",
        "Accident",
        choices=ACCIDENTS,
        help="What goes wrong with the last checkpoint before the new process needs it.",
    )
    kill_at: int = setting(
        30,
        "Killed after step",
        low=1,
        high=399,
        more=True,
        help="The later after a save, the more steps must be done twice.",
    )
    every: int = setting(
        8,
        "Save every",
        unit="step",
        low=1,
        high=200,
        more=True,
        help="Saving more often loses fewer steps and takes more time.",
    )
    last_step: int = setting(
        48, "Steps of the run", unit="step", low=2, high=400, more=True, help="More steps let small differences grow."
    )
    one_out: bool = setting(
        True,
        "Also leave out each part alone",
        more=True,
        help="Ticked, five more processes resume, each without one part of the state.",
    )
    dropout: float = setting(
        0.1,
        "Dropout",
        low=0,
        high=0.9,
        more=True,
        help="At 0 no random number is drawn after the start, so the generators do not matter.",
        slider=True,
    )
    learning_rate: float = setting(
        0.01,
        "Learning rate",
        low=1e-5,
        high=0.1,
        more=True,
        help="How far each update goes: too low learns slowly, too high blows up.",
    )
    corpus: str = setting("play", "Text to learn", choices=TEXTS, more=True, help="What the small GPT learns.")
    n_layer: int = layers_field()
    width: int = width_field()
    context: int = context_field()
    batch: int = batch_field()
    seed: int = seed_field()

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=2, width=self.width)
        if self.kill_at >= self.last_step:
            raise ValueError(f"kill_at must be less than the {self.last_step} steps of the run, got {self.kill_at}")
        if self.kill_at < self.every:
            raise ValueError(
                f"There would be no checkpoint to resume from: the first is saved after step {self.every}, and kill_at"
                f" is {self.kill_at}"
            )
        if self.accident != "none" and self.kill_at < 2 * self.every:
            raise ValueError(
                f"The only checkpoint would be lost: with this accident kill_at must be at least 2 x {self.every}, got"
                f" {self.kill_at}"
            )

    @property
    def ticked(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if getattr(self, part))

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The runs that resume, and what each puts back."""
        alone = {f"without {SHORT[part]}": tuple(other for other in PARTS if other != part) for part in PARTS}
        return {RESUMED: self.ticked} | (alone if self.one_out else {})

    @property
    def plan(self) -> dict[str, tuple[int, int]]:
        """The ribbon's rows, and from which step to which each will go."""
        killed = self.last_save if self.accident == "saving" else self.kill_at
        return {NEVER: (0, self.last_step), KILLED: (0, killed)} | dict.fromkeys(
            self.choices, (self.resumes_from, self.last_step)
        )

    @property
    def last_save(self) -> int:
        return self.kill_at // self.every * self.every

    @property
    def resumes_from(self) -> int:
        return self.last_save - (self.every if self.accident != "none" else 0)

    def begin(self) -> Training:
        """The run as a process that has just started has it: everything from the seed."""
        corpus = load_corpus(self.corpus)
        shape = Shape(len(corpus.symbols), self.n_layer, 2, self.width, self.context, dropout=self.dropout)
        return Training(
            corpus, shape, batch=self.batch, steps=self.last_step, learning_rate=self.learning_rate, seed=self.seed
        )


def train(rank: int, ranks: int, config: UnplugConfig, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Rank 0 trains to the end.

    Rank 1 saves now and then, and after `kill_at` steps computes on, unheard, until it is killed.
    """
    training = config.begin()
    yield "cell", 0, None, training.flat()
    for step in range(1, config.last_step + 1):
        loss = training.one_step()
        if rank == 1 and step > config.kill_at:
            time.sleep(A_WHILE)
        yield "cell", step, loss, training.flat()
        if rank == 1 and step % config.every == 0:
            yield from save(config, training, step, folder)


def save(config: UnplugConfig, training: Training, step: int, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Write a checkpoint; the last one may meet its accident."""
    accident = config.accident if step == config.last_save else "none"
    checkpoint = training.checkpoint(step)
    if accident == "saving":
        yield "saving", step
    if accident == "full":
        import resource  # not on every system

        # a limit on the size of files stops the write where a full disk would
        resource.setrlimit(
            resource.RLIMIT_FSIZE,
            (sum(tensor.nbytes for tensor in checkpoint.tensors.values()) // 2, resource.RLIM_INFINITY),
        )
    started = time.perf_counter()
    try:
        nbytes = disk.save(folder, checkpoint, halfway=(lambda: time.sleep(A_WHILE)) if accident == "saving" else None)
    except disk.NoRoom as refused:
        yield "refused", step, str(refused)
        return
    sizes = {part: sum(t.nbytes for name, t in checkpoint.tensors.items() if name.startswith(part)) for part in PARTS}
    yield "saved", step, time.perf_counter() - started, nbytes, sizes


def resume(
    rank: int, ranks: int, config: UnplugConfig, folder: Path, choices: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[Any, ...]]:
    """A new process: everything as at the start, then what is to be put back, then on to the end."""
    training = config.begin()
    saved, problems = disk.newest(folder)
    training.restore(saved, choices[rank])
    yield "found", saved.step, problems
    yield "cell", saved.step, None, training.flat()
    for step in range(saved.step + 1, config.last_step + 1):
        loss = training.one_step()
        yield "cell", step, loss, training.flat()


def damage(config: UnplugConfig, folder: Path) -> str:
    """What happens to the last checkpoint while nobody looks."""
    path = disk.tensors_file(folder, config.last_save)
    if config.accident == "bit":
        data = bytearray(path.read_bytes())
        place = int(np.random.default_rng(config.seed).integers(len(data) // 2, len(data)))
        data[place] ^= 1
        path.write_bytes(data)
        return f"One bit of the checkpoint of step {config.last_save} is flipped: byte {place:,} of {len(data):,}."
    if config.accident == "cut":
        whole = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(whole * 3 // 5)
        return f"The checkpoint of step {config.last_save} is cut: {whole * 3 // 5:,} of {whole:,} bytes stay."
    return ""
