r"""Pull the plug: a real training process is killed while it computes, and a new one goes on from its checkpoint.

Two processes train the same small GPT from the same seed. One is never stopped. The other is killed with SIGKILL, which no
program can catch, as when the power goes. A new process then starts from the last checkpoint on disk and puts back what
you ticked; whatever you did not tick is as in any process that has just started.

A cell of the ribbon is the state of a run after one step, told by the SHA-256 of all its weights. It is green where all bits are
those of the never-stopped run and orange where one is not. Steps between the last checkpoint and the kill are done twice:
on average half an interval is lost (the experiment `interval` weighs that against the price of saving).

A loss curve hides this. Without the states of the random generators the loss falls as nicely as before, yet from the first
step on it is another run: a bug seen in one of them cannot be found in the other.

Accidents: a kill in the middle of a save leaves an unfinished file and the checkpoint before it; a bit that flips, a file
cut short and a full disk are noticed and told, and the checkpoint before is used. With $P$ weights a checkpoint of AdamW is
$4P + 8P$ bytes and the generators' states; large models keep 16-bit weights besides a 32-bit copy, so 14 bytes each.

Left out: gradient scalers, the states of a GPU's generators, data loaders with workers of their own: each is one more thing to save.
Source: PyTorch documentation, "Reproducibility" and "Saving and loading a general checkpoint".
"""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from core.deterministic_resume import checkpoint as disk
from core.deterministic_resume.ribbon import Ribbon, Weaver
from core.deterministic_resume.training import PARTS, Training
from core.foundations.corpus import check_length, load_corpus
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.ranks import Group, scratch, warm
from core.foundations.roofline import roofline
from core.foundations.transformer import Shape

ACCIDENTS = {
    "none": "none: killed between two saves",
    "saving": "killed in the middle of the last save",
    "bit": "a bit of the last checkpoint flips",
    "cut": "the last checkpoint is cut short",
    "full": "no room on the disk for the last save",
}
TEXTS = {"play": "The Lantern of Saltmere (a play)", "reader": "The Harbour Reader (modern prose)"}
GENERATOR_BYTES = 5056  # state of one torch.Generator on a CPU
SHORT = {"weights": "weights", "optimizer": "optimizer", "schedule": "schedule", "rng": "random state", "data": "place in data"}
NEVER, KILLED, RESUMED = "never stopped", "killed", "resumed"
A_WHILE = 3600.0  # seconds: until it is killed


@dataclass(frozen=True)
class UnplugConfig(Config):
    """What is put back, what goes wrong, and the run."""

    weights: bool = setting(True, "Put back: weights")
    optimizer: bool = setting(True, "Put back: optimizer")
    schedule: bool = setting(True, "Put back: learning-rate schedule")
    rng: bool = setting(True, "Put back: random numbers", help="the generators' states")
    data: bool = setting(True, "Put back: place in the data")
    accident: str = setting("none", "Accident", choices=ACCIDENTS)
    kill_at: int = setting(30, "Killed after step", low=1, high=399, more=True)
    every: int = setting(8, "Save every", unit="step", low=1, high=200, more=True)
    last_step: int = setting(48, "Steps of the run", unit="step", low=2, high=400, more=True)
    one_out: bool = setting(True, "Also leave out each part alone", more=True, help="five more processes resume from the same checkpoint")
    dropout: float = setting(0.1, "Dropout", low=0, high=0.9, more=True, help="at 0 no random number is drawn after the start")
    learning_rate: float = setting(0.01, "Learning rate", low=1e-5, high=0.1, more=True)
    corpus: str = setting("play", "Text to learn", choices=TEXTS, more=True)
    n_layer: int = setting(2, "Layers", unit="layer", low=1, high=4, more=True)
    width: int = setting(32, "Width", unit="number", low=8, high=128, more=True)
    context: int = setting(32, "Context", unit="character", low=8, high=128, more=True)
    batch: int = setting(8, "Batch", unit="window", low=1, high=32, more=True)
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True)

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=2, width=self.width)
        if self.kill_at >= self.last_step:
            raise ValueError(f"kill_at must be less than the {self.last_step} steps of the run, got {self.kill_at}")
        if self.kill_at < self.every:
            raise ValueError(f"There would be no checkpoint to resume from: the first is saved after step {self.every}, and kill_at is {self.kill_at}")
        if self.accident != "none" and self.kill_at < 2 * self.every:
            raise ValueError(f"The only checkpoint would be lost: with this accident kill_at must be at least 2 x {self.every}, got {self.kill_at}")

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
        return {NEVER: (0, self.last_step), KILLED: (0, killed)} | dict.fromkeys(self.choices, (self.resumes_from, self.last_step))

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
        return Training(corpus, shape, batch=self.batch, steps=self.last_step, learning_rate=self.learning_rate, seed=self.seed)


@dataclass(frozen=True)
class UnplugStep(Step):
    """One more cell, or news of the processes."""

    row: str = ""
    step: int | None = None
    hash: str | None = None
    equal: bool | None = None
    distance: float | None = None
    loss: float | None = None
    ribbon: Ribbon | None = None
    plan: tuple[tuple[str, tuple[int, int]], ...] = ()  # the rows, and from which step to which each will go
    saves: tuple[int, ...] = ()  # steps of which a checkpoint was written
    killed_at: int | None = None
    resumed_at: int | None = None
    ledger: tuple[tuple[str, float, float | None], ...] = ()  # part of a checkpoint, its bytes by formula and in the file
    news: tuple[str, ...] = ()  # what happened, sentence by sentence
    blind: float | None = None  # on the first Step: the loss of knowing nothing, ln V, in nats per character


# --- what the processes do --------------------------------------------------------------------------------------------


def train(rank: int, ranks: int, config: UnplugConfig, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Rank 0 trains to the end. Rank 1 saves now and then, and after `kill_at` steps computes on, unheard, until it is killed."""
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
        resource.setrlimit(resource.RLIMIT_FSIZE, (sum(tensor.nbytes for tensor in checkpoint.tensors.values()) // 2, resource.RLIM_INFINITY))
    started = time.perf_counter()
    try:
        nbytes = disk.save(folder, checkpoint, halfway=(lambda: time.sleep(A_WHILE)) if accident == "saving" else None)
    except disk.NoRoom as refused:
        yield "refused", step, str(refused)
        return
    sizes = {part: sum(t.nbytes for name, t in checkpoint.tensors.items() if name.startswith(part)) for part in PARTS}
    yield "saved", step, time.perf_counter() - started, nbytes, sizes


def resume(rank: int, ranks: int, config: UnplugConfig, folder: Path, choices: tuple[tuple[str, ...], ...]) -> Iterator[tuple[Any, ...]]:
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


# --- what the app sees ------------------------------------------------------------------------------------------------


@dataclass
class Story:
    """What all processes have said so far, and the Steps made of it."""

    config: UnplugConfig
    weaver: Weaver
    formula: dict[str, int]  # bytes of each part of a checkpoint
    saves: list[int] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    save_seconds: float = 0.0
    save_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    killed_at: int | None = None
    resumed_at: int | None = None

    def cells(self, row: str, step: int, loss: float | None, weights: Float[np.ndarray, "P"]) -> Iterator[UnplugStep]:
        """One more state of a run. The killed run may be ahead of the other for a moment: then it waits to be compared."""
        for name, cell in self.weaver.add(row, step, loss, weights):
            told = "the same bits as the never-stopped run" if cell.equal else f"up to {cell.distance:.1e} away from the never-stopped run"
            doing = f"{name}: step {cell.step}" + ("" if name == NEVER else f", {told}")
            yield self.step(doing, row=name, step=cell.step, hash=cell.hash, equal=cell.equal, distance=cell.distance, loss=cell.loss)

    def step(self, doing: str, **more: Any) -> UnplugStep:
        ledger = tuple((SHORT[part], float(nbytes), float(self.sizes[part]) if self.sizes else None) for part, nbytes in self.formula.items())
        seen: dict[str, Any] = {"ribbon": self.weaver.ribbon(), "plan": tuple(self.config.plan.items()), "saves": tuple(self.saves), "news": tuple(self.news)}
        return UnplugStep(**seen, killed_at=self.killed_at, resumed_at=self.resumed_at, ledger=ledger, doing=doing, **more)

    def happened(self, sentence: str) -> UnplugStep:
        self.news.append(sentence)
        return self.step(sentence)


def until_killed(group: Group, story: Story, folder: Path) -> Generator[UnplugStep, None, None]:
    """Both processes at once; the second one is killed when it has told its last step, or is halfway through its last save."""
    config, saving = story.config, False
    unfinished = disk.tensors_file(folder, config.last_save).with_suffix(".safetensors.unfinished")
    for said in group.listen():
        if saving and unfinished.exists() and unfinished.stat().st_size:
            saving, story.killed_at = False, config.last_save
            group.kill(1)
            yield story.happened(
                f"Killed in the middle of saving step {config.last_save}: {unfinished.stat().st_size:,} bytes were written, under a name that nobody loads."
            )
        if said is None:
            yield story.step("")
            continue
        kind, step, *more = said.value
        if kind == "cell":
            yield from story.cells((NEVER, KILLED)[said.rank], step, *more)
            if said.rank == 1 and step == config.kill_at:
                story.killed_at = step
                group.kill(1)
                yield story.happened(f"SIGKILL after step {step}: the process is gone, and so is all it had in memory.")
        elif kind == "saved":
            story.saves.append(step)
            story.save_seconds, story.save_bytes, story.sizes = min(more[0], story.save_seconds or more[0]), more[1], more[2]
            yield story.step(f"saved the state after step {step}: {more[1]:,} bytes")
        elif kind == "refused":
            yield story.happened(f"{more[0]}.")
        else:
            saving = True


def after_it(story: Story, folder: Path, choices: dict[str, tuple[str, ...]]) -> Iterator[UnplugStep]:
    """New processes, each with its choice of parts, from the same checkpoint."""
    rows, config = list(choices), story.config
    with Group(resume, len(rows), (config, folder, tuple(choices.values())), folder=folder) as group:
        for said in group.listen():
            if said is None:
                yield story.step("")
                continue
            kind, step, *more = said.value
            if kind == "cell":
                yield from story.cells(rows[said.rank], step, *more)
            elif story.resumed_at is None:
                story.resumed_at = step
                story.news += [f"{problem}." for problem in more[0]]
                yield story.happened(f"A new process resumes from the checkpoint of step {step}.")


def figures_of(story: Story, end: str) -> Iterator[Compared]:
    """What the run shows, by number. `end`: how the killed process ended, as the system tells it."""
    config, rows, steps, never = story.config, story.weaver.rows, "steps", "the never-stopped run"
    assert story.killed_at is not None and story.resumed_at is not None
    yield Compared(
        "signal that ended the process", "signal number", 9.0, 9.0 if end == "was killed by SIGKILL" else 0.0, "SIGKILL is number 9; no program can catch it"
    )
    lost = story.killed_at - config.resumes_from
    yield Compared("steps done twice", steps, lost, story.killed_at - story.resumed_at, "step of the kill - step of the last whole checkpoint")
    for row in (row for row in rows if row not in (NEVER, KILLED)):
        cells, different = rows[row], story.weaver.first_difference(row)
        yield Compared(f"{row}: equal states", "states", len(cells), sum(cell.equal for cell in cells), never)
        if row == RESUMED:
            yield Compared("resumed: last loss", "nats per character", rows[NEVER][-1].loss, cells[-1].loss, never)
            yield Compared("weights that differ at the end", "weights", 0, cells[-1].differing, never)
            told = f"hash of all weights; {different.tensor} differs most" if different else "hash of all weights; none differs"
            yield Compared("first differing step", "step", None, different.step if different else None, told)
    size = sum(number for _, number in story.weaver.names)
    told = f"12 bytes x {size:,} weights, {GENERATOR_BYTES:,} per generator; the rest is names and places"
    yield Compared("bytes of a checkpoint", "bytes", sum(story.formula.values()), story.save_bytes, told)
    floor = roofline().floor_seconds(0, 2 * story.save_bytes)
    told = "roofline: each byte read and written once in memory; the rest is the hash, the file system and waiting for the disk"
    yield Compared("fastest save", "ms", 1e3 * floor, 1e3 * story.save_seconds, told)


def start_of(config: UnplugConfig) -> tuple[Story, UnplugStep]:
    """The first state of all runs, and what a checkpoint will weigh."""
    check_length(load_corpus(config.corpus), config.context)
    training = config.begin()
    names = training.names()
    size = sum(number for _, number in names)
    formula = {"weights": 4 * size, "optimizer": 8 * size + 4 * len(names), "schedule": 0, "rng": GENERATOR_BYTES * config.n_layer, "data": 0}
    story = Story(config, Weaver(names, NEVER), formula)
    *_, first = *story.cells(NEVER, 0, None, training.flat()), *story.cells(KILLED, 0, None, training.flat())
    story.weaver.rows = {NEVER: [], KILLED: []}
    blind = math.log(training.model.shape.vocabulary)
    return story, replace(first, blind=blind, doing="two processes will start from these weights")


@experiment("What must a checkpoint hold, so that a killed run goes on as if nothing had happened?")
def unplug(config: UnplugConfig) -> Iterator[UnplugStep]:
    """Train in two processes, kill one, resume it, and compare every step bit by bit."""
    warm()
    story, first = start_of(config)
    yield first
    choices = config.choices
    with scratch() as folder:
        with Group(train, 2, (config, folder), folder=folder) as group:
            yield from until_killed(group, story, folder)
        sentence = damage(config, folder)
        if sentence:
            yield story.happened(sentence)
        story.weaver.rows |= {row: [] for row in choices}
        yield from after_it(story, folder, choices)
    roofline()
    yield story.step("measured how fast this machine's memory is")
    whole = all(cell.equal for cell in story.weaver.rows[RESUMED])
    told = "every step has the bits of the never-stopped run" if whole else "the resumed run is another run"
    yield story.step(f"done: {told}", figures=tuple(figures_of(story, group.ended.get(1, ""))))
