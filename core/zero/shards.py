r"""One model, four ways to lay it on the ranks: what each rank really holds, and what it really sends.

With plain data parallelism every rank holds all $P$ weights, their gradients and the optimizer states: $16P$ bytes,
the same on every rank. ZeRO keeps of that only what a rank needs at the moment. Stage 1 partitions the optimizer
states, stage 2 the gradients too, stage 3 the weights too; whoever needs a whole layer gathers it, uses it and frees
it.

$$16P \;\to\; 8P + \tfrac{8P}{N} \;\to\; 4P + \tfrac{12P}{N} \;\to\; \tfrac{16P}{N} \qquad (\text{32 bits: } 4 + 4 + 8
\text{ bytes})$$

$$16P \;\to\; 4P + \tfrac{12P}{N} \;\to\; 2P + \tfrac{14P}{N} \;\to\; \tfrac{16P}{N} \qquad (\text{the paper, mixed: } 2
+ 2 + 12)$$

Each stage runs twice here: as PyTorch has it (`library.py`), in 32 bits, and written out on flat rows (`written.py`),
in 32 bits and in the paper's mixed precision. What PyTorch does differently from the paper can be seen in bytes and in
elements sent: stage 1 deals out whole tensors, sums gradients for everybody and broadcasts new weights; its stage 2
frees the weights between steps.

The stages must compute the same. On four ranks they do so bit for bit if sums are added in the same order; gloo's ring
adds every part of a row in another order, and which part a number is in depends on the stage. Both are measured, by
SHA-256 and largest difference.

Code -> paper: `ranks` -> N_d; P -> Psi; `MIXED` -> 2, 2, K = 12; a *unit* is a layer, or all that is outside of the
layers.
Left out: activations, which ZeRO partitions another way (P_a), offloading, and overlap of sending with computing.
Source: Rajbhandari et al. 2019, arXiv:1910.02054, sections 3.1, 5 and 7; Zhao et al. 2023, arXiv:2304.11277 (FSDP).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, warm
from core.foundations.settings import context_field, seed_field
from core.foundations.transformer import Shape
from core.zero.formulas import FULL, KINDS, MIXED, STAGES, VOLUME, per_weight, words
from core.zero.training import Frame, Size

LIBRARY, WRITTEN, PAPER = "PyTorch", "written out", "written out, mixed"
PRECISION = {LIBRARY: FULL, WRITTEN: FULL, PAPER: MIXED}
Bytes = tuple[int, int, int]  # weights, gradients, optimizer

PER_WEIGHT = "bytes per weight"
HELD_PLAIN = Figure("held by each rank without ZeRO", PER_WEIGHT, "theory", headline=True)
HELD_THREE = Figure("held by each rank at stage 3", PER_WEIGHT, "theory", headline=True)
HELD = Figure("held by each rank at stage {stage}, {code}", PER_WEIGHT, "theory")
HELD_TWO = Figure(
    "held by each rank at stage 2, PyTorch",
    PER_WEIGHT,
    None,
    "FSDP2 frees the gathered weights between steps, so it holds what stage 3 holds; the paper's stage 2 keeps them",
)
MOST = Figure(
    "most at any moment, stage {stage}", PER_WEIGHT, "baseline", "its states by formula; a gathered layer comes on top"
)
SECTION_7 = "section 7: 2P, 2P, 2P and 3P at stages 0 to 3"
SENT_THREE = Figure("sent per step at stage 3", "elements per weight", "paper", SECTION_7, headline=True)
SENT = Figure("sent per step at stage {stage}, {code}", "elements per weight", "paper", SECTION_7)
DIFFER_ORDERED = Figure(
    "weights that differ between the stages, sums in one order",
    "weights",
    "theory",
    "all stages compute the same, and added in the order of the ranks it rounds the same",
)
AS_GLOO = "all stages compute the same; gloo adds each part of a tensor in another order, and float32 rounds"
DIFFER = Figure("weights that differ between the stages", "weights", None, AS_GLOO)
APART = Figure("largest difference between the stages", "weight", None, AS_GLOO, headline=True)


@dataclass(frozen=True)
class ShardsConfig(Config):
    """The ranks, the model, and how long it trains."""

    ranks: int = setting(
        4,
        "Ranks",
        unit="rank",
        low=2,
        high=4,
        help="A rank is a process. More of them leave each a smaller slice of the model.",
        slider=True,
    )
    steps: int = setting(
        3,
        "Steps",
        unit="step",
        low=3,
        high=20,
        help="More steps let differences of rounding grow; the last one is measured.",
    )
    n_layer: int = setting(
        4,
        "Layers",
        unit="layer",
        low=1,
        high=6,
        help="With more layers, the one that is gathered is a smaller part of the model.",
        slider=True,
    )
    width: int = setting(
        32, "Width", unit="number", low=8, high=128, help="A wider model can store more; each step takes longer."
    )
    windows: int = setting(
        8,
        "Sequences per step",
        unit="sequence",
        low=2,
        high=32,
        help="Of all ranks together, so a multiple of their number; more takes longer.",
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
        if self.windows % self.ranks:
            raise ValueError(
                f"windows must be a multiple of ranks, so that every rank gets as many, got {self.windows} windows and"
                f" {self.ranks} ranks"
            )

    def size(self) -> Size:
        return Size(self.n_layer, self.width, self.context, self.windows, self.learning_rate, self.seed)


@dataclass(frozen=True)
class Trained:
    """The weights after the last step, beside those of PyTorch's stage 0 whose sums were added in the same way."""

    code: str
    stage: int
    in_order: bool  # of the ranks
    hash: str
    differing: int
    distance: float


@dataclass(frozen=True)
class ShardsStep(Step):
    """All that is known so far; a tuple grows with every Step."""

    ranks: int = 0
    weights: int = 0  # P
    units: int = 0  # layers, and one for all that is outside of them
    held: tuple[tuple[str, int, tuple[Bytes, ...]], ...] = ()  # code, stage, by rank, after the backward pass
    sent: tuple[
        tuple[str, int, tuple[tuple[str, int, int], ...], float], ...
    ] = ()  # code, stage, (collective, how often, numbers), in P
    films: tuple[tuple[int, tuple[Frame, ...]], ...] = ()  # of rank 0, by stage; told once, when there are all four
    trained: tuple[Trained, ...] = ()


# --- what the ranks do ------------------------------------------------------------------------------------------------


def job(rank: int, ranks: int, config: ShardsConfig) -> Iterator[tuple[Any, ...]]:
    """All stages, one after the other: PyTorch's, then those written out."""
    from core.zero.library import Library
    from core.zero.written import Written

    if config.windows % ranks:
        raise ValueError(
            f"windows must be a multiple of ranks, so that every rank gets as many, got {config.windows} windows and"
            f" {ranks} ranks"
        )
    size = config.size()
    for stage in STAGES:
        one = Library(size, stage, rank, ranks)
        for _ in range(config.steps - 1):
            one.one_step()
        yield from watched(one, LIBRARY, stage, film=rank == 0)
        yield from told(one, LIBRARY, stage, in_order=False)
    for stage in STAGES:
        other = Written(size, stage, rank, ranks, mixed=True)
        other.one_step()
        yield from watched(other, PAPER, stage, film=False)
    for stage in STAGES:
        one = Library(size, stage, rank, ranks, in_order=True)
        for _ in range(config.steps):
            one.one_step()
        yield from told(one, LIBRARY, stage, in_order=True)
    for stage in STAGES:
        other = Written(size, stage, rank, ranks, in_order=True)
        for _ in range(config.steps):
            other.one_step()
        yield from told(other, WRITTEN, stage, in_order=True)
        for unit in other.units:
            unit.in_order = False  # one more step as a ring adds, to count
        yield from watched(other, WRITTEN, stage, film=False)


def watched(run: Any, code: str, stage: int, *, film: bool) -> Iterator[tuple[Any, ...]]:
    """One more step, and what it held and sent."""
    from core.zero.watch import watched_step

    traffic, frames, held = watched_step(run, film=film)
    yield "held", code, stage, (held.weights, held.gradients, held.optimizer)
    if run.rank == 0:
        yield (
            "sent",
            code,
            stage,
            tuple((KINDS[name], traffic.counts[name], number) for name, number in traffic.numbers.items()),
            traffic.sent,
        )
    if frames:
        yield "film", stage, tuple(frames)


def told(run: Any, code: str, stage: int, *, in_order: bool) -> Iterator[tuple[Any, ...]]:
    weights = run.flat()
    if run.rank == 0:
        yield "trained", code, stage, in_order, weights


# --- what the app sees ------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What the ranks have said so far."""

    config: ShardsConfig
    step: ShardsStep
    held: dict[tuple[str, int], dict[int, Bytes]] = field(default_factory=dict)
    films: dict[int, tuple[Frame, ...]] = field(default_factory=dict)
    first: dict[bool, Float[np.ndarray, "P"]] = field(default_factory=dict)  # weights of stage 0, by order of the sums

    def hear(self, rank: int, kind: str, *more: Any) -> Iterator[ShardsStep]:
        """Take one message of a rank; yields a Step when it completes something."""
        now = self.step
        if kind == "held":
            code, stage, nbytes = more
            row = self.held.setdefault((code, stage), {})
            row[rank] = nbytes
            if len(row) < self.config.ranks:
                return
            everyone = tuple(row[rank] for rank in sorted(row))
            self.step = replace(now, held=(*now.held, (code, stage, everyone)))
            most = max(sum(one) for one in everyone) / now.weights
            doing = (
                f"{code}, stage {stage}: the fullest rank holds {most:.2f} bytes per weight, the formula says"
                f" {self.formula(code, stage):.2f}"
            )
        elif kind == "sent":
            code, stage, counted, numbers = more
            self.step = replace(now, sent=(*now.sent, (code, stage, counted, numbers / now.weights)))
            doing = (
                f"{code}, stage {stage}: {', '.join(f'{count} {name}' for name, count, _ in counted)};"
                f" {numbers / now.weights:.2f} elements per weight sent"
            )
        elif kind == "film":
            stage, frames = more
            self.films[stage] = frames
            complete = tuple(self.films.items()) if len(self.films) == len(STAGES) else ()
            yield replace(now, films=complete, doing=f"stage {stage}: {len(frames)} moments of one step seen on rank 0")
            return
        else:
            one = self.compared(*more)
            self.step = replace(now, trained=(*now.trained, one))
            apart = "the bits of stage 0" if not one.differing else f"up to {one.distance:.1e} from stage 0"
            doing = (
                f"{one.code}, stage {one.stage},"
                f" {'sums in the order of the ranks' if one.in_order else 'sums as they come'}: {apart}"
            )
        yield replace(self.step, doing=doing)

    def formula(self, code: str, stage: int) -> float:
        return per_weight(stage, self.config.ranks, PRECISION[code])

    def compared(self, code: str, stage: int, in_order: bool, weights: Float[np.ndarray, "P"]) -> Trained:
        import hashlib

        first = self.first.setdefault(in_order, weights)
        differing = int((first.view(np.uint32) != weights.view(np.uint32)).sum())
        return Trained(
            code,
            stage,
            in_order,
            hashlib.sha256(weights.tobytes()).hexdigest()[:12],
            differing,
            float(np.abs(first - weights).max()),
        )

    def figures(self) -> Iterator[Result]:
        weights, ranks = self.step.weights, self.config.ranks
        # what the fullest rank holds, and the most at any moment
        for code, stage, everyone in sorted(self.step.held, key=lambda row: (row[0] != LIBRARY, row[1])):
            held = max(sum(one) for one in everyone) / weights
            if (code, stage) == (LIBRARY, 2):
                yield HELD_TWO(held)
            elif code != WRITTEN:  # in 32 bits it is what the chart shows
                source = f"{words(stage, PRECISION[code])}, N = {ranks}; the fullest rank after the backward pass"
                yield held_figure(code, stage)(held, self.formula(code, stage), source=source)
        for stage, frames in list(self.films.items())[2:]:
            most = max(frame.nbytes for frame in frames) / weights
            yield MOST.of(stage=stage)(most, self.formula(LIBRARY, stage))
        # what was sent
        for code, stage, _, numbers in sorted(self.step.sent, key=lambda row: (row[0] != LIBRARY, row[1])):
            if code == LIBRARY or (code, stage) == (WRITTEN, 1):
                yield sent_figure(code, stage)(numbers, VOLUME[stage])
        # is it the same model?
        ordered, as_they_come = (
            [one for one in self.step.trained if one.in_order == in_order] for in_order in (True, False)
        )
        yield DIFFER_ORDERED(max(one.differing for one in ordered), 0)
        yield DIFFER(max(one.differing for one in as_they_come))
        yield APART(max(one.distance for one in as_they_come))


def held_figure(code: str, stage: int) -> Figure:
    on_cards = {(LIBRARY, 0): HELD_PLAIN, (LIBRARY, 3): HELD_THREE}
    return on_cards.get((code, stage), HELD.of(stage=stage, code=code))


def sent_figure(code: str, stage: int) -> Figure:
    return SENT_THREE if (code, stage) == (LIBRARY, 3) else SENT.of(stage=stage, code=code)


@experiment("How many bytes does each rank hold, and does the model stay the same?")
def shards(config: ShardsConfig) -> Iterator[ShardsStep]:
    """Formulas at once; then the four stages on real ranks."""
    warm()
    weights = sum(weight.numel() for weight in config.size().model().parameters())
    account = Account(config, ShardsStep(ranks=config.ranks, weights=weights, units=config.n_layer + 1))
    yield replace(
        account.step,
        doing=f"{weights:,} weights: 16 bytes each on every rank without ZeRO, {16 / config.ranks:g} with all of it",
    )
    with Group(job, config.ranks, (config,), gloo=True) as group:
        for said in group.listen():
            if said is None:
                yield ShardsStep()
            else:
                yield from account.hear(said.rank, *said.value)
    apart = max(one.distance for one in account.step.trained)
    yield replace(
        account.step,
        doing=f"done: all stages computed the same model, to {apart:.0e}",
        figures=tuple(account.figures()),
    )
