r"""Lose a rank: what dies with it, stage by stage.

What saves memory is that nothing is there twice; so what a rank holds dies with it. Four ranks hold the same training
run five times, in five ways. Then one of them is killed with SIGKILL. The others wait for its word, notice that the
connection is broken, and hand in what they have. (Had they waited in a sum, only its neighbours in the ring would have
noticed, and the others waited on: real runs have time limits for that.)

| | what was only there | what is left |
|---|---|---|
| stage 0 | nothing | everything, three times |
| stage 1 | AdamW's moments of some tensors | all weights |
| stage 2 | a quarter of the moments, and of the gradients during a step | all weights |
| stage 3 | a quarter of every tensor, and of its moments | no whole tensor |
| stage 3, every slice on two ranks | nothing | everything |

The missing numbers become zero, the model is evaluated, and training goes on. PyTorch's `ZeroRedundancyOptimizer` is
stage 1, `fully_shard` is stage 3, and hybrid sharding (a mesh of 2 x 2) keeps each slice twice, for twice the memory;
stage 2 is the one written out here, because FSDP2's does not hold whole weights between steps: with it one loses what
one loses at stage 3.

What helps is a second copy: on another rank (at once, and it costs memory) or in files (`torch.distributed.checkpoint`,
and it costs the steps since). A large run needs one at every stage, because a lost rank also stops the others: all of
them wait for its part of the sums.

Code -> PyTorch: `first_number` asks the DTensor itself which rows it holds.
Left out: machines with several ranks, which go together; spare ranks that take over.
Source: Rajbhandari et al. 2019, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277, section 3.2.2 (hybrid sharding).
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.corpus import batch_of, load_corpus, windows_of
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, scratch, warm
from core.foundations.settings import layers_field, seed_field
from core.foundations.transformer import Shape
from core.zero.holders import RANKS, WAYS, Spans, Tensors, grid, lost_share, planned
from core.zero.state import Piece, Rest, State, parts_of, together
from core.zero.training import Size

EVALUATED = 2048  # characters of the validation text

PLAN = "who holds what, by formula"
LOST_THREE = Figure("weights lost at stage 3", "%", "theory", PLAN, headline=True)
LOST_WEIGHTS = Figure("weights lost, {way}", "%", "theory", PLAN)
LOST_MOMENTS = Figure("AdamW's moments lost, {way}", "%", "theory", PLAN)
CUT_TENSORS = Figure("tensors with missing rows, stage 3", "tensors", "theory", "fully_shard cuts every tensor")
NATS, BEFORE = "nats per character", "the loss before the kill"
LOSS_THREE = Figure("loss after the kill at stage 3", NATS, "baseline", BEFORE, headline=True)
LOSS_AFTER = Figure("loss after the kill, {way}", NATS, "baseline", BEFORE)
LOSS_LATER = Figure("loss some steps later, {way}", NATS, "baseline")
LOSS_REPLICA = Figure("loss when every slice was on two ranks", NATS, "baseline", BEFORE, headline=True)
LOSS_CHECKPOINT = Figure("loss from the last checkpoint", NATS, "baseline", headline=True)


@dataclass(frozen=True)
class LoseConfig(Config):
    """Which rank goes, after how much training."""

    lost: int = setting(
        2,
        "Rank that is lost",
        low=0,
        high=RANKS - 1,
        help="Which of the four ranks is killed; the first is 0.",
        slider=True,
    )
    before: int = setting(
        200,
        "Steps before, on one process",
        unit="step",
        low=1,
        high=600,
        help="More steps make a better model, which has more to lose.",
    )
    since: int = setting(
        4,
        "Steps on four ranks",
        unit="step",
        low=1,
        high=20,
        help="More steps after the checkpoint are lost when the run goes back to it.",
    )
    steps: int = setting(
        20, "Steps afterwards", unit="step", low=1, high=40, help="More steps show how far the damaged models recover."
    )
    n_layer: int = layers_field(4, high=6, more=False)
    width: int = setting(
        32, "Width", unit="number", low=8, high=64, help="A wider model can store more; each step takes longer."
    )
    context: int = setting(
        32,
        "Context",
        unit="character",
        low=8,
        high=64,
        more=True,
        help="How many tokens back the model can look; more takes longer.",
    )
    learning_rate: float = setting(
        0.01,
        "Learning rate",
        low=1e-5,
        high=0.1,
        more=True,
        help="How far each update goes: too low learns slowly, too high blows up.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=2, width=self.width)

    def size(self) -> Size:
        return Size(self.n_layer, self.width, self.context, 8, self.learning_rate, self.seed)


@dataclass(frozen=True)
class LoseStep(Step):
    """Who holds what, by way; what is dead; how well the model does."""

    tensors: Tensors = ()
    weights: tuple[tuple[str, Spans], ...] = ()  # by way
    means: tuple[tuple[str, Spans], ...] = ()
    dead: tuple[
        tuple[str, tuple[tuple[str, bool, int, int], ...]], ...
    ] = ()  # by way: tensor, means or weights, from, to
    gone: int | None = None  # the rank that is no more
    grid: Float[np.ndarray, "2 W T C"] | None = None  # who holds what, where it has changed; values as in `holders`
    losses: tuple[tuple[str, tuple[float, ...]], ...] = ()  # by line: validation loss 0, 1, 2 ... steps after
    trained: int = 0  # steps on one process so far
    evaluated: float | None = None  # validation loss now


# --- what the ranks do ------------------------------------------------------------------------------------------------


def hold(rank: int, ranks: int, config: LoseConfig, start: State, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Train a little in every way, then wait for a word from the rank that will not speak again."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    from core.zero.library import Library
    from core.zero.slices import pieces, put
    from core.zero.written import Written

    size, runs = config.size(), {}
    for way, stage in zip(WAYS, (0, 1, 2, 3, 3), strict=True):
        run = (
            Written(size, 2, rank, ranks)
            if stage == 2
            else Library(size, stage, rank, ranks, replicas=2 if way == WAYS[4] else 1)
        )
        put(run, start)
        if way == WAYS[3]:
            dcp.save({"weights": dict(run.model.state_dict())}, checkpoint_id=folder)
        for _ in range(config.since):
            run.one_step()
        runs[way] = list(pieces(run))
        yield "holds", way, [replace(piece, values=piece.values[:, :0]) for piece in runs[way]]
    dist.barrier()
    yield ("ready",)
    started = time.monotonic()
    try:
        while rank != config.lost:
            dist.recv(
                torch.zeros(1), src=config.lost
            )  # it never comes; on the CPU, where gloo sees at once that a connection is closed
        time.sleep(3600)
    except RuntimeError as problem:
        yield "noticed", time.monotonic() - started, str(problem).split("\n")[0]
    for way in WAYS:
        yield "left", way, runs[way]
    time.sleep(3600)  # until the group is ended: a goodbye would wait for the dead


# --- one process with the whole model ---------------------------------------------------------------------------------


class Alone:
    """The same training in one process, from any state."""

    def __init__(self, size: Size, seed: int, state: State | None = None) -> None:
        corpus = load_corpus("play")
        self.size, self.text, self.rng, self.count = size, corpus.train_ids, torch.Generator().manual_seed(seed), 0
        self.evaluated = windows_of(corpus.validation_ids, size.context, EVALUATED)
        self.model = size.model()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=size.learning_rate, weight_decay=0.0, foreach=False
        )
        if state is not None:
            self.put(state)

    @torch.no_grad()
    def put(self, state: State) -> None:
        for weight, (_, values, means) in zip(self.model.parameters(), parts_of(self.size, state), strict=True):
            weight.copy_(values)
            self.optimizer.state[weight] = {
                "step": torch.tensor(float(state.count)),
                "exp_avg": means[0].clone(),
                "exp_avg_sq": means[1].clone(),
            }
        self.count = state.count

    def one_step(self) -> None:
        loss = self.model.loss(*batch_of(self.text, self.size.context, self.size.windows, self.rng))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.count += 1

    def judge(self) -> float:
        with torch.no_grad():
            return float(self.model.loss(*self.evaluated))

    def state(self) -> State:
        def row(tensors: Iterator[Tensor]) -> np.ndarray:
            return torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy()

        means = [
            row(self.optimizer.state[weight][mean] for weight in self.model.parameters())
            for mean in ("exp_avg", "exp_avg_sq")
        ]
        return State(row(iter(self.model.parameters())), np.stack(means), self.count)


# --- what the app sees ------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What the ranks have said, and what came of it."""

    config: LoseConfig
    step: LoseStep
    sizes: tuple[tuple[str, int], ...]
    held: dict[tuple[str, bool], dict[tuple[str, int], tuple[int, int]]] = field(default_factory=dict)
    handed: dict[str, list[Piece]] = field(default_factory=dict)
    rests: dict[str, Rest] = field(default_factory=dict)
    planned_dead: dict[tuple[str, bool], float] = field(default_factory=dict)

    def see(self, rank: int, way: str, held: list[Piece]) -> None:
        for piece in held:
            self.held.setdefault((way, piece.means), {})[piece.name, rank] = (piece.start, piece.stop)

    def spans(self, means: bool) -> tuple[tuple[str, Spans], ...]:
        """What was really there."""
        return tuple(
            (
                way,
                tuple(
                    (name, tuple(self.held[way, means].get((name, rank), (0, 0)) for rank in range(RANKS)))
                    for name, _ in self.sizes
                ),
            )
            for way in WAYS
        )

    def look(self) -> LoseStep:
        """The grid as it is now."""
        now = self.step
        return replace(now, grid=grid(now.tensors, now.weights, now.means, now.gone))

    def figures(self, checkpoint: float) -> Iterator[Result]:
        losses, whole = dict(self.step.losses), sum(size for _, size in self.sizes)
        # what died
        for way in WAYS:
            rest = self.rests[way]
            weights, moments = self.planned_dead[way, False], self.planned_dead[way, True]
            lost = LOST_THREE if way == "stage 3" else LOST_WEIGHTS.of(way=way)
            yield lost(100 * rest.weights_dead / whole, 100 * weights / whole)
            if rest.means_dead or moments:  # none die where no weights do, but at stages 1 and 2
                yield LOST_MOMENTS.of(way=way)(100 * rest.means_dead / whole, 100 * moments / whole)
        cut = {name for name, means, *_ in self.rests["stage 3"].dead if not means}
        yield CUT_TENSORS(len(cut), len(self.sizes))
        # how it goes on
        straight = losses["nothing lost"]
        for way in WAYS[1:4]:
            after = LOSS_THREE if way == "stage 3" else LOSS_AFTER.of(way=way)
            yield after(losses[way][0], straight[0])
            yield LOSS_LATER.of(way=way)(losses[way][-1], straight[-1], source="nothing lost, after as many steps")
        yield LOSS_REPLICA(losses["replica"][0], straight[0])
        source = f"before the kill; the checkpoint is {self.config.since} steps older"
        yield LOSS_CHECKPOINT(checkpoint, straight[0], source=source)


@experiment("If a rank dies, what dies with it?")
def lose(config: LoseConfig) -> Iterator[LoseStep]:
    """Who holds what by formula; training; the kill; what is left, and how it goes on."""
    warm()
    size = config.size()
    alone = Alone(size, config.seed)
    tensors = tuple((name, tuple(weight.shape)) for name, weight in alone.model.named_parameters())
    weights, means = planned(tensors)
    account = Account(
        config,
        LoseStep(tensors=tensors, weights=weights, means=means),
        tuple((name, int(np.prod(shape))) for name, shape in tensors),
    )
    for way, spans in weights:
        account.planned_dead[way, False] = lost_share(spans, config.lost)
    for way, spans in means:
        account.planned_dead[way, True] = lost_share(spans, config.lost)
    yield replace(
        account.look(), evaluated=alone.judge(), doing=f"{len(tensors)} tensors on {RANKS} ranks: who will hold what"
    )
    for step in range(1, config.before + 1):
        alone.one_step()
        yield LoseStep(
            trained=step,
            doing=f"step {step} on one process",
            evaluated=alone.judge() if step % 10 == 0 or step == config.before else None,
        )
    with scratch() as folder:
        with Group(hold, RANKS, (config, alone.state(), folder / "checkpoint"), folder=folder, gloo=True) as group:
            yield from killed(account, group)
        old = from_checkpoint(size, folder / "checkpoint", alone.state())
    yield from go_on(account, old)


def killed(account: Account, group: Group) -> Iterator[LoseStep]:
    """Wait until all ranks are ready, kill one, and take what the others hand in."""
    ready, left = set[int](), 0
    for said in group.listen():
        if said is None:
            yield LoseStep()
            continue
        kind, *more = said.value
        if kind == "holds":
            account.see(said.rank, *more)
            if said.rank == 0:
                yield LoseStep(doing=f"{more[0]}: four ranks have trained {account.config.since} steps")
        elif kind == "ready":
            ready.add(said.rank)
            if len(ready) == RANKS:
                account.step = replace(account.step, weights=account.spans(False), means=account.spans(True))
                yield replace(account.look(), doing="all ranks hold their parts")
                group.kill(account.config.lost)
                account.step = replace(account.step, gone=account.config.lost)
                yield replace(account.look(), doing=f"rank {account.config.lost} is killed")
        elif kind == "noticed":
            yield LoseStep(doing=f"rank {said.rank} noticed after {more[0] * 1e3:.0f} ms: {plain(more[1])}")
        else:
            account.handed.setdefault(more[0], []).extend(more[1])
            left += 1
            if left == (RANKS - 1) * len(WAYS):
                return


def plain(words: str) -> str:
    """gloo's words without the place in its source, and without the port."""
    return words.split("] ", 1)[-1].split(" [")[0][:80]


def from_checkpoint(size: Size, folder: Path, start: State) -> State:
    """The weights in the files, read without any rank; AdamW's moments are those of `start`, since no step came
    between.
    """
    import torch.distributed.checkpoint as dcp

    model = size.model()
    weights = {"weights": dict(model.state_dict())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there are no other ranks, and that is what is wanted
        dcp.load(weights, checkpoint_id=folder, no_dist=True)
    row = torch.cat([weights["weights"][name].flatten() for name, _ in model.named_parameters()]).numpy()
    return State(row, start.means, start.count)


def go_on(account: Account, old: State) -> Iterator[LoseStep]:
    """Judge what is left of every way, then train on from there, one line after the other."""
    config, size = account.config, account.config.size()
    count = old.count + config.since
    for way in WAYS:
        rest = account.rests[way] = together(account.sizes, count, account.handed.pop(way))
        account.step = replace(account.step, dead=(*account.step.dead, (way, rest.dead)))
        whole = sum(number for _, number in account.sizes)
        yield replace(
            account.step,
            doing=(
                f"{way}: {100 * rest.weights_dead / whole:.1f} % of the weights and {100 * rest.means_dead / whole:.1f}"
                " % of the moments are lost"
            ),
        )
    lines = {"nothing lost": account.rests[WAYS[0]].state} | {way: account.rests[way].state for way in WAYS[1:4]}
    lines |= {"replica": account.rests[WAYS[4]].state, "checkpoint": old}
    for line, state in lines.items():
        alone, found = Alone(size, config.seed + 1, state), list[float]()
        for step in range(config.steps + 1):
            if step:
                alone.one_step()
            found.append(alone.judge())
            now = (*account.step.losses, (line, tuple(found)))
            yield replace(
                account.step,
                losses=now,
                doing=f"{line}: loss {found[-1]:.3f}, {step} steps later" if step in (0, config.steps) else "",
            )
        account.step = replace(account.step, losses=now)
    yield replace(
        account.step,
        figures=tuple(account.figures(dict(account.step.losses)["checkpoint"][0])),
        doing="done: whatever existed in only one copy is lost",
    )
