r"""Pull the plug: a real training process is killed while it computes, and a new one goes on from its checkpoint.

Two processes train the same small GPT from the same seed. One is never stopped. The other is killed with SIGKILL, which
no program can catch, as when the power goes. A new process then starts from the last checkpoint on disk and puts back
what you ticked; whatever you did not tick is as in any process that has just started.

A cell of the ribbon is the state of a run after one step, identified by the SHA-256 of all its weights. It is green
where all bits are those of the never-stopped run and orange where one is not. Steps between the last checkpoint and the
kill are done twice: on average half an interval is lost (the experiment `interval` weighs that against the price of
saving).

A loss curve hides this. Without the states of the random generators the loss falls as nicely as before, yet from the
first step on it is another run: a bug seen in one of them cannot be found in the other.

Accidents: a kill in the middle of a save leaves an unfinished file and the checkpoint before it; a bit that flips, a
file cut short and a full disk are noticed and told, and the checkpoint before is used. With $P$ weights a checkpoint of
AdamW is $4P + 8P$ bytes and the generators' states; large models keep 16-bit weights besides a 32-bit copy, so 14 bytes
each.

Left out: gradient scalers, the states of a GPU's generators, data loaders with workers of their own: each is one more
thing to save.
Source: PyTorch documentation, "Reproducibility" and "Saving and loading a general checkpoint".
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from core.deterministic_resume import checkpoint as disk
from core.deterministic_resume.processes import KILLED, NEVER, RESUMED, SHORT, UnplugConfig, damage, resume, train
from core.deterministic_resume.ribbon import Ribbon, Weaver
from core.foundations.corpus import check_length, load_corpus
from core.foundations.experiment import Step, experiment
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, scratch, warm
from core.foundations.roofline import roofline

GENERATOR_BYTES = 5056  # state of one torch.Generator on a CPU

NEVER_STOPPED = "the run that was never stopped"
EQUAL_RESUMED = Figure("states equal bit for bit after the resume", "states", "baseline", NEVER_STOPPED, headline=True)
EQUAL = Figure("states equal bit for bit, {row}", "states", "baseline", NEVER_STOPPED)
DIFFERING = Figure(
    "weights that differ at the end", "weights", None, "resumed against never stopped, bit for bit", headline=True
)
LAST_LOSS = Figure("last loss of the resumed run", "nats per character", "baseline", NEVER_STOPPED, headline=True)
FIRST_DIFFERENCE = Figure("first step that differs", "step")
DONE_TWICE = Figure(
    "steps done twice", "steps", "theory", "step of the kill - step of the last whole checkpoint", headline=True
)
SIGNAL = Figure(
    "signal that ended the process", "signal number", "theory", "SIGKILL is number 9; no program can catch it"
)
CHECKPOINT_BYTES = Figure("size of a checkpoint", "bytes", "theory")
SAVE_TIME = Figure(
    "fastest save",
    "ms",
    "limit",
    "roofline: each byte read and written once in memory; the rest is the hash, the file system and the disk",
)


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
    ledger: tuple[
        tuple[str, float, float | None], ...
    ] = ()  # part of a checkpoint, its bytes by formula and in the file
    news: tuple[str, ...] = ()  # what happened, sentence by sentence
    blind: float | None = None  # on the first Step: the loss of knowing nothing, ln V, in nats per character


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
        """One more state of a run.

        The killed run may be ahead of the other for a moment: then it waits to be compared.
        """
        for name, cell in self.weaver.add(row, step, loss, weights):
            told = (
                "the same bits as the never-stopped run"
                if cell.equal
                else f"up to {cell.distance:.1e} away from the never-stopped run"
            )
            doing = f"{name}: step {cell.step}" + ("" if name == NEVER else f", {told}")
            yield self.step(
                doing,
                row=name,
                step=cell.step,
                hash=cell.hash,
                equal=cell.equal,
                distance=cell.distance,
                loss=cell.loss,
            )

    def step(self, doing: str, **more: Any) -> UnplugStep:
        ledger = tuple(
            (SHORT[part], float(nbytes), float(self.sizes[part]) if self.sizes else None)
            for part, nbytes in self.formula.items()
        )
        seen: dict[str, Any] = {
            "ribbon": self.weaver.ribbon(),
            "plan": tuple(self.config.plan.items()),
            "saves": tuple(self.saves),
            "news": tuple(self.news),
        }
        return UnplugStep(
            **seen, killed_at=self.killed_at, resumed_at=self.resumed_at, ledger=ledger, doing=doing, **more
        )

    def happened(self, sentence: str) -> UnplugStep:
        self.news.append(sentence)
        return self.step(sentence)


def until_killed(group: Group, story: Story, folder: Path) -> Generator[UnplugStep, None, None]:
    """Both processes at once; the second one is killed when it has told its last step, or is halfway through its last
    save.
    """
    config, saving = story.config, False
    unfinished = disk.tensors_file(folder, config.last_save).with_suffix(".safetensors.unfinished")
    for said in group.listen():
        if saving and unfinished.exists() and unfinished.stat().st_size:
            saving, story.killed_at = False, config.last_save
            group.kill(1)
            yield story.happened(
                f"Killed in the middle of saving step {config.last_save}: {unfinished.stat().st_size:,} bytes were"
                " written, under a name that nobody loads."
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
            story.save_seconds, story.save_bytes, story.sizes = (
                min(more[0], story.save_seconds or more[0]),
                more[1],
                more[2],
            )
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


def figures_of(story: Story, end: str) -> Iterator[Result]:
    """What the run shows, by number. `end`: how the killed process ended, as the system tells it."""
    config, rows = story.config, story.weaver.rows
    assert story.killed_at is not None and story.resumed_at is not None
    # the resumed run beside the never-stopped one
    last, different = rows[RESUMED][-1], story.weaver.first_difference(RESUMED)
    for row, cells in rows.items():
        if row not in (NEVER, KILLED):
            equal = EQUAL_RESUMED if row == RESUMED else EQUAL.of(row=row)
            yield equal(sum(cell.equal for cell in cells), len(cells))
    yield DIFFERING(last.differing)
    if last.loss is not None:
        yield LAST_LOSS(last.loss, rows[NEVER][-1].loss)
    where = f"{different.tensor} differs most" if different else "none differs"
    yield FIRST_DIFFERENCE(different.step if different else None, source=f"hash of all weights; {where}")
    # the kill, and what a checkpoint weighs
    yield DONE_TWICE(story.killed_at - story.resumed_at, story.killed_at - config.resumes_from)
    yield SIGNAL(9.0 if end == "was killed by SIGKILL" else 0.0, 9.0)
    size = sum(number for _, number in story.weaver.names)
    source = f"12 bytes x {size:,} weights, {GENERATOR_BYTES:,} per generator; the rest is names and places"
    yield CHECKPOINT_BYTES(story.save_bytes, sum(story.formula.values()), source=source)
    yield SAVE_TIME(1e3 * story.save_seconds, 1e3 * roofline().floor_seconds(0, 2 * story.save_bytes))


def start_of(config: UnplugConfig) -> tuple[Story, UnplugStep]:
    """The first state of all runs, and what a checkpoint will weigh."""
    check_length(load_corpus(config.corpus), config.context)
    training = config.begin()
    names = training.names()
    size = sum(number for _, number in names)
    formula = {
        "weights": 4 * size,
        "optimizer": 8 * size + 4 * len(names),
        "schedule": 0,
        "rng": GENERATOR_BYTES * config.n_layer,
        "data": 0,
    }
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
