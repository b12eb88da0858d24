"""A step under observation: what is whole, what is sliced, and how much has been sent, at every turn of the step.

The hooks stand where each unit (a layer, or all that is outside of the layers) begins and ends its forward pass, begins
its backward pass, and is in the middle of it. What FSDP2 did before a hook is seen by it: a gathered unit has plain
tensors for weights, a freed one `DTensor`s that hold a slice. Buffers that live within a collective are not seen here;
`scale` counts them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._pytree import tree_leaves

from core.zero.formulas import SENT
from core.zero.library import Library, local
from core.zero.training import MOMENTS, Frame, Share, Trainee


class Traffic(CommDebugMode):
    """CommDebugMode, and how many numbers went through each kind of collective: the whole row, not a rank's piece."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__ if hasattr(func, "_overloadpacket") else ""
        if name in SENT and str(func).startswith("c10d."):
            self.counts[name] += 1
            self.numbers[name] += max(
                sum(leaf.numel() for leaf in tree_leaves(arg) if isinstance(leaf, Tensor)) for arg in args[:2]
            )
        return super().__torch_dispatch__(func, types, args, kwargs)

    @property
    def sent(self) -> int:
        return sum(SENT[name] * number for name, number in self.numbers.items())


@dataclass
class Film:
    """Frames of one step of one rank."""

    run: Library
    traffic: Traffic
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        units: list[nn.Module] = [self.run.model, *self.run.model.blocks]
        prefixes = [f"blocks.{number}." for number in range(len(units) - 1)]
        self.rows = [
            [name for name in self.run.named if not name.startswith("blocks.")],
            *([name for name in self.run.named if name.startswith(prefix)] for prefix in prefixes),
        ]
        self.units = units

    def take(self, doing: str, unit: int = -1) -> None:
        shares = tuple(self.share(names) for names in self.rows)
        held = self.run.held()
        self.frames.append(
            Frame(doing, unit, shares, (held.weights, held.gradients, held.optimizer), self.traffic.sent)
        )

    def share(self, names: list[str]) -> Share:
        """How much of a unit is on this rank now."""
        now, states = dict(self.run.model.named_parameters()), self.run.states()
        size = sum(self.run.named[name].numel() for name in names)
        weights = sum(local(now[name]).numel() for name in names)
        gradients = sum(max(held_gradient(now[name]), held_gradient(self.run.named[name])) for name in names)
        means = sum(
            local(states[weight]["exp_avg"]).numel()
            for weight in (self.run.named[name] for name in names)
            if weight in states
        )
        return weights / size, gradients / size, means / size

    @contextmanager
    def on(self) -> Iterator[None]:
        """The hooks, for one step."""
        handles: list[Any] = []
        for number, module in enumerate(self.units):
            handles.append(module.register_forward_pre_hook(lambda *_, number=number: self.take("forward", number)))
            handles.append(
                module.register_forward_hook(lambda *told, number=number: self.end_of_forward(number, told[-1]))
            )
            if number:
                handles.append(
                    module.attention.register_forward_hook(  # type: ignore[union-attr]
                        lambda *told, number=number: self.on_way_back(number, told[-1])
                    )
                )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end_of_forward(self, number: int, output: Tensor) -> None:
        """The unit has gone forward.

        FSDP2's own hook on this output comes first, so when the gradient arrives the unit is gathered again.
        """
        self.take("forward ends", number)
        self.on_way_back(number, output)

    def on_way_back(self, number: int, output: Tensor) -> None:
        output.register_hook(lambda gradient: self.take("backward", number))  # type: ignore[no-untyped-call]


def held_gradient(weight: Tensor) -> int:
    return 0 if weight.grad is None else local(weight.grad).numel()


def gathered(weight: Tensor) -> bool:
    return not isinstance(weight, DTensor)


def watched_step(run: Trainee, *, film: bool) -> tuple[Traffic, list[Frame], Any]:
    """One step: the collectives, the frames (of a `Library` only), and what was held after the backward pass."""
    traffic, held = Traffic(), dict[str, Any]()
    shown = Film(run, traffic) if film and isinstance(run, Library) else None

    def pause(moment: str) -> None:
        held[moment] = run.held()
        if shown is not None and moment != MOMENTS[0]:
            shown.take(moment)

    with traffic:
        if shown is None:
            run.one_step(pause)
        else:
            with shown.on():
                run.one_step(pause)
    return traffic, [] if shown is None else shown.frames, held[MOMENTS[1]]
