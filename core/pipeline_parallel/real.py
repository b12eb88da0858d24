"""What a rank really does: its stages of a small transformer, run by torch.distributed.pipelining, each chunk of work
timed.

Time is taken around `forward_one_chunk`, `backward_one_chunk` and `backward_weight_one_chunk` of a stage themselves:
the profiler's spans of a schedule's actions contain the waiting for messages, and a chart of them shows hardly any
bubble. `time.monotonic` is one clock for all processes of a machine (on several machines only each rank's own durations
mean something).

`padded`: a chunk that is done sooner sleeps until its nominal time is over. Sleeping needs no core, so two cores carry
four ranks that seem to have a device each. Otherwise ("raw") the ranks share the cores of this machine.

Traps: the first step also finds out shapes, so it is not timed; gradients must be cleared between steps, since each
step divides what has accumulated by m; zero-bubble schedules call `backward_one_chunk(full_backward=False)` for I, and
on the first stage, whose input needs no gradient, do all of the work in W.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.foundations.corpus import load_corpus
from core.foundations.ranks import device
from core.foundations.transformer import Shape, Transformer
from core.pipeline_parallel.orders import stages_of

MOST_SECONDS = 15.0  # of one batch: ranks say nothing meanwhile

Chunk = tuple[
    int, str, int, float, float, float, int
]  # stage, kind, micro-batch, start, computed, end, activations then held


@dataclass(frozen=True)
class Plan:
    """One schedule on some ranks, and the model it trains."""

    schedule: str
    ranks: int
    micro: int
    layout: tuple[int, ...]  # layers of each stage
    seconds: dict[str, list[float]]  # kind -> nominal time on each stage
    sequences: int = 16  # of the whole batch
    width: int = 32
    context: int = 32
    seed: int = 0

    @property
    def chunks(self) -> int:
        return len(self.layout) // self.ranks

    def model(self) -> Transformer:
        """GPT-2's dialect: unlike ours it starts with no zero weights, so every gradient says something."""
        shape = Shape(len(load_corpus("play").symbols), sum(self.layout), 2, self.width, self.context, dialect="gpt2")
        return Transformer(shape, self.seed)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Windows of the play, and the same one character later."""
        ids, rng = load_corpus("play").train_ids, torch.Generator().manual_seed(self.seed)
        begins = torch.randint(len(ids) - self.context - 1, (self.sequences,), generator=rng)
        windows = ids[begins[:, None] + torch.arange(self.context + 1)]
        return windows[:, :-1], windows[:, 1:]


class Piece(nn.Module):
    """Some layers of the model in a row; the first piece also embeds, the last one also has the head."""

    def __init__(self, model: Transformer, layers: range) -> None:
        super().__init__()
        whole = len(model.blocks)
        self.blocks = nn.ModuleList(model.blocks[layer] for layer in layers)
        self.embed: nn.Module | None = model.embed if layers.start == 0 else None
        self.place: nn.Embedding | None = model.place if layers.start == 0 else None
        self.norm: nn.Module | None = model.norm if layers.stop == whole else None
        self.head: nn.Module | None = model.head if layers.stop == whole else None

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is not None and self.place is not None:
            x = self.embed(x) + self.place.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x, None, None, None)
        return x if self.norm is None or self.head is None else self.head(self.norm(x))


def pieces(model: Transformer, layout: tuple[int, ...]) -> list[Piece]:
    ends = list(accumulate(layout))
    return [Piece(model, range(end - layers, end)) for layers, end in zip(layout, ends, strict=True)]


def check_seconds(seconds: float) -> None:
    """A batch must not take so long that its ranks seem to hang."""
    if seconds > MOST_SECONDS:
        raise ValueError(
            f"a batch would take {seconds:.0f} seconds, and may take {MOST_SECONDS:g}: choose shorter nominal times or"
            " fewer micro-batches"
        )


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def schedule_of(plan: Plan, stages: list[Any]) -> Any:
    """PyTorch's own class."""
    from torch.distributed import pipelining as pp

    if plan.schedule in ("gpipe", "1f1b"):
        single = {"gpipe": pp.ScheduleGPipe, "1f1b": pp.Schedule1F1B}[plan.schedule]
        return single(stages[0], plan.micro, loss_fn=loss_of)
    several = {
        "interleaved": pp.ScheduleInterleaved1F1B,
        "split": pp.ScheduleInterleavedZeroBubble,
        "zbv": pp.ScheduleZBVZeroBubble,
    }[plan.schedule]
    return several(stages, plan.micro, loss_fn=loss_of)


class Clock:
    """Wraps the methods of a rank's stages that compute; `log` is what they did since it was cleared."""

    def __init__(self, plan: Plan, stages: list[Any], here: torch.device) -> None:
        self.plan, self.stages, self.here, self.padded, self.log = plan, stages, here, False, list[Chunk]()
        for stage in stages:
            for name, kind in (
                ("forward_one_chunk", "F"),
                ("backward_one_chunk", "B"),
                ("backward_weight_one_chunk", "W"),
            ):
                setattr(stage, name, self.timed(stage, getattr(stage, name), kind))

    def timed(self, stage: Any, method: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(micro: int, *given: Any, **named: Any) -> Any:
            if self.here.type == "cuda":
                # NCCL's wait blocks only the stream, so the message must arrive before the clock starts
                torch.cuda.synchronize(self.here)
            started = time.monotonic()
            result = method(micro, *given, **named)
            if self.here.type == "cuda":
                torch.cuda.synchronize(self.here)
            which = kind if named.get("full_backward", True) else "I"
            computed = time.monotonic()
            rest = started + self.plan.seconds[which][stage.stage_index] - computed
            if self.padded and rest > 0:
                time.sleep(rest)
            self.log.append((stage.stage_index, which, micro, started, computed, time.monotonic(), self.held()))
            return result

        return call

    def held(self) -> int:
        """Chunks whose activations this rank keeps: before their backward pass, or before its second half."""
        return sum(len(stage.fwd_cache) + len(stage.backward_state) for stage in self.stages)


class Worker:
    """One rank of one plan."""

    def __init__(self, rank: int, plan: Plan) -> None:
        from torch.distributed.pipelining import PipelineStage

        self.plan, self.here = plan, device(rank)
        model = plan.model().to(self.here)
        self.inputs, self.targets = (part.to(self.here) for part in plan.batch())
        self.names = {id(weight): name for name, weight in model.named_parameters()}
        self.loss_alone, self.alone = self.on_one_device(model)
        cut = pieces(model, plan.layout)
        mine = stages_of(plan.schedule, rank, plan.ranks, plan.chunks)
        self.weights = [weight for number in mine for weight in cut[number].parameters()]
        stages = [PipelineStage(cut[number], number, len(cut), self.here) for number in mine]
        self.schedule, self.clock = schedule_of(plan, stages), Clock(plan, stages, self.here)
        self.begins, self.closes = 0 in mine, len(cut) - 1 in mine

    def on_one_device(self, model: Transformer) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of the whole batch without any pipeline."""
        loss = model.loss(self.inputs, self.targets)
        loss.backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        model.zero_grad()
        return float(loss.detach()), gradients

    def step(self, padded: bool) -> float | None:
        """All micro-batches forward and backward; the loss where the last stage is. Gradients lie in the weights
        then.
        """
        import torch.distributed as dist

        for weight in self.weights:
            weight.grad = None
        self.clock.log.clear()
        self.clock.padded = padded
        losses = list[Tensor]()
        given = (self.inputs,) if self.begins else ()
        named: dict[str, Any] = {"target": self.targets, "losses": losses} if self.closes else {}
        dist.barrier()
        self.schedule.step(*given, **named, return_outputs=False)
        return float(torch.stack(losses).detach().mean()) if self.closes else None

    def difference(self) -> tuple[float, float]:
        """Largest difference of a gradient to one device's, and the largest gradient there."""
        pairs = [(weight.grad, self.alone[self.names[id(weight)]]) for weight in self.weights]
        apart = max(float((grad - alone).abs().max()) if grad is not None else float("inf") for grad, alone in pairs)
        return apart, max(float(alone.abs().max()) for _, alone in pairs)


def play(rank: int, plan: Plan, padded: int, raw: int) -> Iterator[tuple[Any, ...]]:
    """A rank's part: one step that is not timed, then so many rounds that are.

    Yields ("chunks", schedule, padded?, round, chunks) and, after the padded rounds, ("equal", schedule, loss, loss on
    one device, largest difference of a gradient, largest gradient).
    """
    worker, loss = Worker(rank, plan), None
    worker.step(False)
    for number in range(padded + raw):
        loss = worker.step(number < padded)
        yield "chunks", plan.schedule, number < padded, number, tuple(worker.clock.log)
    yield "equal", plan.schedule, loss, worker.loss_alone, *worker.difference()
