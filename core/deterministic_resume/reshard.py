r"""A checkpoint that changes its number of ranks: saved by two processes, loaded by two, four and one.

With sharded training (ZeRO-3, FSDP) no process has the whole model: each of $N$ ranks holds a slice of every tensor and
of its optimizer state. `torch.distributed.checkpoint` lets every rank write its own slices, and writes down in
`.metadata` which piece of which tensor is where. A rank that loads asks for the slices it needs now, wherever they lie,
so the number of ranks may change.

What is loaded is what was saved, bit for bit: bytes are copied, not computed. From the next step on there is a
difference. Each rank takes the gradient of its part of the batch, and the parts are added:

$$g = \tfrac12\,(g_{12} + g_{34}) \;\text{ on 2 ranks}, \qquad g = \tfrac14\,(g_1 + g_2 + g_3 + g_4) \;\text{ on 4},
\qquad g = g_{1234} \;\text{ on 1}.$$

On paper these are equal. In float32 they are the same numbers added in another order, so their last digits differ, and
then everything that is computed from them. On the same number of ranks the order is the same, and the run goes on bit
for bit.

Code -> names: `fully_shard` (FSDP2) slices the first dimension of each tensor; `get_state_dict` and `set_state_dict`
collect weights and AdamW's moments.
Left out: tensor and pipeline parallelism, `async_save` (copies to memory first, and writes while training goes on).
Source: PyTorch documentation, torch.distributed.checkpoint; Rajbhandari et al. 2019, arXiv:1910.02054, section 5; Zhao
et al. 2023, arXiv:2304.11277.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.deterministic_resume.ribbon import Ribbon, Weaver
from core.deterministic_resume.training import Training
from core.foundations.corpus import load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, scratch, warm
from core.foundations.roofline import roofline
from core.foundations.settings import context_field, layers_field, seed_field
from core.foundations.transformer import Shape

ALWAYS, MOST = 2, 4  # ranks that save; most ranks that load
COUNTS = {1: "1 rank", 2: "2 ranks", 4: "4 ranks"}
STRAIGHT = "2 ranks, never stopped"

AT_CHECKPOINT = Figure("weights that differ at the checkpoint, {ranks}", "weights", "theory", "loading copies bytes")
AFTER_SAME = Figure(
    "weights that differ at the end, 2 ranks", "weights", "theory", "the same order of sums", headline=True
)
OTHER_ORDER = "against the never-stopped run on 2 ranks: float32 rounds, and the order of sums is another one"
AFTER = Figure("weights that differ at the end, {ranks}", "weights", None, OTHER_ORDER, headline=True)
LARGEST = Figure("largest difference of a weight at the end, {ranks}", "weight", None, OTHER_ORDER)
HELD = Figure(
    "weights held by rank 0 of 4", "weights", "theory", "a quarter of each tensor's rows, rounded up", headline=True
)
CHECKPOINT_BYTES = Figure("size of the checkpoint", "bytes", "theory")
SAVE_TIME = Figure(
    "time of the save", "ms", "limit", "roofline: bytes read and written once in memory; the rest is planning and files"
)


@dataclass(frozen=True)
class ReshardConfig(Config):
    """How long the run trains before and after its checkpoint, and what it is."""

    before: int = setting(
        4,
        "Steps before the checkpoint",
        unit="step",
        low=1,
        high=40,
        help="More steps before the checkpoint only move it later.",
    )
    steps: int = setting(
        8, "Steps after it", unit="step", low=1, high=60, help="More steps after it let the last digits grow."
    )
    width: int = setting(
        32, "Width", unit="number", low=8, high=128, help="A wider model can store more; each step takes longer."
    )
    n_layer: int = layers_field(more=False)
    quarters: int = setting(
        2,
        "Sequences per rank (with 4 ranks)",
        unit="sequence",
        low=1,
        high=8,
        help="The batch is four times that: it must go into 1, 2 and 4 equal parts.",
        slider=True,
    )
    learning_rate: float = setting(
        0.01,
        "Learning rate",
        low=1e-5,
        high=0.1,
        help="How far each update goes: too low learns slowly, too high blows up.",
    )
    context: int = context_field()
    seed: int = seed_field()

    def check(self) -> None:
        Shape(vocabulary=2, n_layer=self.n_layer, n_head=2, width=self.width)

    def begin(self) -> Training:
        corpus = load_corpus("play")
        shape = Shape(len(corpus.symbols), self.n_layer, 2, self.width, self.context)
        return Training(
            corpus, shape, batch=4 * self.quarters, steps=10**9, learning_rate=self.learning_rate, seed=self.seed
        )


@dataclass(frozen=True)
class ReshardStep(Step):
    """One more state of a run, or the slices a group of ranks holds."""

    row: str = ""
    step: int | None = None
    hash: str | None = None
    equal: bool | None = None
    distance: float | None = None
    loss: float | None = None
    saved_at: int = 0
    last_step: int = 0
    complete: str = ""  # the group whose slices are all told with this Step
    ribbon: Ribbon | None = None
    slices: tuple[
        tuple[str, tuple[tuple[str, int], ...]], ...
    ] = ()  # "rank 1 of 4" and the numbers it holds of each tensor
    written: tuple[tuple[str, int], ...] = ()  # files of the checkpoint and their bytes


# --- what the ranks do ------------------------------------------------------------------------------------------------


class Sharded:
    """A training run of which every rank holds its slices and takes its share of the batch."""

    def __init__(self, config: ReshardConfig, rank: int, ranks: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.rank, self.ranks, self.training = rank, ranks, config.begin()
        mesh = init_device_mesh("cpu", (ranks,))
        for block in self.training.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.training.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(
            self.training.model.parameters(), lr=config.learning_rate, weight_decay=0.0, foreach=False
        )

    def one_step(self) -> float:
        """Forward and backward pass on this rank's share; the backward pass adds up the gradients of all ranks."""
        inputs, targets = self.training.next_batch()
        share = slice(self.rank * len(inputs) // self.ranks, (self.rank + 1) * len(inputs) // self.ranks)
        loss = self.training.model.loss(inputs[share], targets[share])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def flat(self) -> Float[Any, "P"]:
        """All weights, gathered from all ranks."""
        return torch.cat([whole(weight).detach().flatten() for weight in self.training.model.parameters()]).numpy()

    def slices(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, local(weight).numel()) for name, weight in self.training.model.named_parameters())

    def save(self, folder: Path) -> None:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        weights, means = get_state_dict(self.training.model, self.optimizer)
        dcp.save({"weights": weights, "optimizer": means, "read": self.training.read}, checkpoint_id=folder)

    def load(self, folder: Path) -> None:
        """Every rank fetches the slices that are its own now."""
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        weights, means = get_state_dict(self.training.model, self.optimizer)
        state: dict[str, Any] = {"weights": weights, "optimizer": means, "read": 0}
        dcp.load(state, checkpoint_id=folder)
        set_state_dict(
            self.training.model, self.optimizer, model_state_dict=state["weights"], optim_state_dict=state["optimizer"]
        )
        self.training.read = int(state["read"])


def whole(weight: Tensor) -> Tensor:
    return weight.full_tensor()  # a DTensor


def local(weight: Tensor) -> Tensor:
    return weight.to_local()


def straight(rank: int, ranks: int, config: ReshardConfig, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Train, save on the way, and go on as if nothing had been saved."""
    run = Sharded(config, rank, ranks)
    yield "slices", run.slices()
    for step in range(config.before + config.steps + 1):
        loss = run.one_step() if step else None
        weights = run.flat()
        if rank == 0:
            yield "state", step, loss, weights
        if step == config.before:
            started = time.perf_counter()
            run.save(folder)
            yield "saved", time.perf_counter() - started


def resumed(rank: int, ranks: int, config: ReshardConfig, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Load with however many ranks there are now, and go on."""
    run = Sharded(config, rank, ranks)
    run.load(folder)
    yield "slices", run.slices()
    for step in range(config.before, config.before + config.steps + 1):
        loss = run.one_step() if step > config.before else None
        weights = run.flat()
        if rank == 0:
            yield "state", step, loss, weights


# --- what the app sees ------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What all groups have said so far."""

    config: ReshardConfig
    weaver: Weaver
    shapes: dict[str, tuple[int, ...]]
    held: dict[int, int] = field(default_factory=dict)  # number of ranks -> weights that rank 0 holds
    slices: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    written: tuple[tuple[str, int], ...] = ()
    save_seconds: float = 0.0

    def step(self, doing: str, **more: Any) -> ReshardStep:
        seen: dict[str, Any] = {
            "saved_at": self.config.before,
            "last_step": self.config.before + self.config.steps,
            "ribbon": self.weaver.ribbon(),
        }
        return ReshardStep(**seen, slices=tuple(self.slices.items()), written=self.written, doing=doing, **more)

    def listen(self, group: Group, row: str) -> Iterator[ReshardStep]:
        """One group's run as Steps."""
        self.slices = {}
        for said in group.listen():
            if said is None:
                yield self.step("")
                continue
            kind, *more = said.value
            if kind == "slices":
                self.slices = dict(sorted((self.slices | {f"rank {said.rank} of {group.ranks}": more[0]}).items()))
                held = sum(number for _, number in more[0])
                if said.rank == 0:
                    self.held[group.ranks] = held
                complete = row if len(self.slices) == group.ranks else ""
                yield self.step(f"{row}: rank {said.rank} holds {held:,} weights", complete=complete)
            elif kind == "saved":
                self.save_seconds = max(self.save_seconds, more[0])
                yield self.step(f"{row}: rank {said.rank} has written its slices")
            else:
                for name, cell in self.weaver.add(row, *more):
                    apart = (
                        ""
                        if row == STRAIGHT
                        else ", the same bits"
                        if cell.equal
                        else f", up to {cell.distance:.1e} apart"
                    )
                    yield self.step(
                        f"{name}: step {cell.step}{apart}",
                        row=name,
                        step=cell.step,
                        hash=cell.hash,
                        equal=cell.equal,
                        distance=cell.distance,
                        loss=cell.loss,
                    )

    def figures(self) -> Iterator[Result]:
        names, size = self.weaver.names, sum(number for _, number in self.weaver.names)
        for count in (2, 4, 1):
            cells = self.weaver.rows[f"loaded on {COUNTS[count]}"]
            yield AT_CHECKPOINT.of(ranks=COUNTS[count])(cells[0].differing, 0)
            if count == ALWAYS:
                yield AFTER_SAME(cells[-1].differing, 0)
            else:
                yield AFTER.of(ranks=COUNTS[count])(cells[-1].differing)
                yield LARGEST.of(ranks=COUNTS[count])(cells[-1].distance)
        yield HELD(self.held[4], sum(piece(shape, 0, 4) for shape in self.shapes.values()))
        nbytes = sum(size for _, size in self.written)
        source = f"12 bytes x {size:,} weights; the rest says what is where"
        yield CHECKPOINT_BYTES(nbytes, 12 * size + 4 * len(names), source=source)
        yield SAVE_TIME(1e3 * self.save_seconds, 1e3 * roofline().floor_seconds(0, 2 * nbytes))


@experiment("Can a run go on with another number of ranks?")
def reshard(config: ReshardConfig) -> Iterator[ReshardStep]:
    """Save on two ranks, load on two, four and one, and compare all weights bit by bit."""
    warm()
    training = config.begin()
    shapes = {name: tuple(weight.shape) for name, weight in training.model.named_parameters()}
    account = Account(config, Weaver(training.names(), STRAIGHT), shapes)
    for rank in range(ALWAYS):
        account.slices[f"rank {rank} of {ALWAYS}"] = tuple(
            (name, piece(shape, rank, ALWAYS)) for name, shape in shapes.items()
        )
    ((_, first),) = account.weaver.add(STRAIGHT, 0, None, training.flat())
    yield account.step(
        "two ranks will start from these weights", row=STRAIGHT, step=0, hash=first.hash, complete="by formula"
    )
    account.weaver.rows.clear()
    with scratch() as folder:
        with Group(straight, ALWAYS, (config, folder / "checkpoint"), folder=folder, gloo=True) as group:
            yield from account.listen(group, STRAIGHT)
        account.written = tuple(sorted((path.name, path.stat().st_size) for path in (folder / "checkpoint").iterdir()))
        for count in (2, 4, 1):
            with Group(resumed, count, (config, folder / "checkpoint"), folder=folder, gloo=True) as group:
                yield from account.listen(group, f"loaded on {COUNTS[count]}")
    roofline()
    yield account.step("measured how fast this machine's memory is")
    yield account.step(
        "done: loading changes no bit; computing with other shares does", figures=tuple(account.figures())
    )


def piece(shape: tuple[int, ...], rank: int, ranks: int) -> int:
    """Numbers of a tensor that a rank holds: `fully_shard` cuts the first dimension as `torch.chunk` does."""
    rows = -(-shape[0] // ranks)
    return max(0, min(rows, shape[0] - rank * rows)) * math.prod(shape[1:])
