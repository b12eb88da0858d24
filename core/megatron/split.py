r"""A layer split over ranks: columns, then rows, and one sum.

The MLP is $Z = \mathrm{GeLU}(XA)\,B$. Rank $i$ holds columns $A_i$ and rows $B_i$. It computes $Y_i =
\mathrm{GeLU}(XA_i)$, which are columns of the right $Y$, and $Y_i B_i$, which has the right shape and is only a part of
the sum:

$$Z = Y_1 B_1 + Y_2 B_2 + \dots$$

One all-reduce (g) adds the parts; on the way back another one (f) adds the gradients of $X$. Attention does the same,
by heads. So a layer costs 2 all-reduces forward and 2 backward, and each of $t$ ranks sends $8bsh\,(t-1)/t$ numbers:
$b$ texts of $s$ tokens, width $h$.

The other way round, rows first, each rank has a partial sum $X_i A_i$ *before* the activation, and

$$\mathrm{GeLU}(X_1 A_1 + X_2 A_2) \neq \mathrm{GeLU}(X_1 A_1) + \mathrm{GeLU}(X_2 A_2).$$

Sequence parallelism splits what is left, LayerNorm and dropout, by tokens: as many numbers are sent, and less is kept
for the backward pass. What goes over the wire is counted three times: by f and g, by torch's `CommDebugMode`, and by
the sockets of the processes.

Left out: the embedding and the output layer (split by words in Megatron), and that Megatron keeps only own tokens of
each gathered $X$ and gathers once more in the backward pass. gloo does a reduce-scatter as an all-reduce and throws
most of it away; NCCL does not.
Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3; Narayanan et al. 2021, arXiv:2104.04473, section 3.2;
Korthikanti et al. 2022, arXiv:2205.05198.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, device, warm
from core.foundations.settings import seed_field
from core.megatron import formulas
from core.megatron.film import ONE, TWO, Stage, apart, picture, shots, stages
from core.megatron.kept import ENTERED, INSIDE, NORMS, kept_bytes
from core.megatron.layer import Cut, Sizes, first_input, split_layers, sum_small_gradients, whole_layers
from core.megatron.operators import ALL_GATHER, ALL_REDUCE, BACKWARD, FORWARD, REDUCE_SCATTER, Wire, socket_bytes

RANKS = {"1": "1 rank", "2": "2 ranks", "4": "4 ranks"}
ACTIVATED = {"gelu": "GeLU", "relu": "ReLU", "none": "none"}
ABOVE = 1000  # added to the seed of X; the gradient from above has one more
KINDS = {
    "allreduce": ALL_REDUCE,
    "all_reduce": ALL_REDUCE,
    "allgather": ALL_GATHER,
    "all_gather": ALL_GATHER,
    "reduce_scatter": REDUCE_SCATTER,
}
GPT3, GPT3_TOKENS, CARDS, CARD_FLOPS = formulas.parameters(96, 12288), 300e9, 1024, 140e12
GPT3_IN_8 = (
    GPT3,
    GPT3 / 8,
    96 * formulas.sent_per_layer(formulas.GPT3, 8),
    formulas.training_days(GPT3_TOKENS, GPT3, CARDS, CARD_FLOPS),
    GPT3_TOKENS
    / 2048
    * formulas.training_flops(96, 12288, 1)
    / (CARDS * CARD_FLOPS)
    / 86_400,  # with attention's squares and the output layer
)
Counts = dict[str, int]  # "all-reduce, forward"

OF_SIZE, SAME = "of its size", "on paper the same as the unsplit layers; float32 rounds at 6e-8"
ERROR_ALL = Figure("error of the split layers", OF_SIZE, "theory", SAME, headline=True)
ERROR = Figure("error, {part}", OF_SIZE, "theory", SAME)
ROWS_FIRST = Figure(
    "error with rows cut first", OF_SIZE, "baseline", "columns first, as Megatron cuts the MLP", headline=True
)
CALLS = Figure("{collective}, all layers", "calls", "theory", "2 a layer; one rank sends nothing; CommDebugMode counts")
CALLS_OURS = Figure("collectives counted by f and g", "calls", "baseline", "counted by torch's CommDebugMode")
CALLS_TORCH = Figure("collectives of torch's own plan", "calls", "theory", "as many as f and g need")
SENT = Figure("sent by a rank for a layer", "elements", "theory", "8bsh(t-1)/t, Narayanan et al. 2021", headline=True)
HELD = Figure("weights held by a rank", "weights", "theory", "(12h² + 7h)/t + 6h a layer", headline=True)
SOCKETS = Figure("sent through the sockets", "bytes", "theory")
NORM_BYTES = Figure("saved by LayerNorm and dropout", "bytes", "theory")
INPUT_BYTES = Figure("saved inputs of the split parts", "bytes", "theory", "8bsh bytes, on every rank")
INSIDE_BYTES = Figure("saved inside the split parts", "bytes", "theory", "those of the unsplit layer / t")
LEDGER = {  # the rows of the ledger
    "weights held": HELD,
    "sent for a layer": SENT,
    "through the sockets": SOCKETS,
    f"kept: {NORMS}": NORM_BYTES,
    f"kept: {ENTERED}": INPUT_BYTES,
    f"kept: {INSIDE}": INSIDE_BYTES,
}


@dataclass(frozen=True)
class SplitConfig(Config):
    """Over how many ranks, and what the layers are."""

    ranks: str = setting(
        "4",
        "Ranks",
        choices=RANKS,
        help="A rank is a process. More of them hold and compute a smaller part of each matrix.",
        slider=True,
    )
    sequence: bool = setting(
        False,
        "Sequence parallel",
        help="Ticked, LayerNorm and dropout are split by tokens, so less is saved on each rank.",
    )
    activation: str = setting(
        "gelu", "Activation", choices=ACTIVATED, help="Without an activation the order of the cuts does not matter."
    )
    n_head: int = setting(
        8,
        "Heads",
        unit="head",
        low=1,
        high=32,
        help="Attention is cut by heads, so their number must be a multiple of the ranks.",
        slider=True,
    )
    width: int = setting(
        64,
        "Width",
        unit="number",
        low=8,
        high=256,
        help="Wider layers have more to split; what is sent grows with the width, the work with its square.",
    )
    n_layer: int = setting(
        2, "Layers", unit="layer", low=1, high=8, help="Each layer needs four more all-reduces.", slider=True
    )
    context: int = setting(
        32, "Tokens", unit="token", low=8, high=128, more=True, help="More tokens mean larger sums to send."
    )
    batch: int = setting(
        2,
        "Batch",
        unit="sequence",
        low=1,
        high=8,
        more=True,
        help="More sequences mean larger sums to send.",
        slider=True,
    )
    seed: int = seed_field(high=2147473648)

    def check(self) -> None:
        check_parts(self.sizes, int(self.ranks), self.sequence)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.n_layer, self.width, self.n_head, self.context, self.batch, self.activation)


def check_parts(sizes: Sizes, ranks: int, sequence: bool) -> None:
    """Everything that is split must come out even."""
    if sizes.h % sizes.a:
        raise ValueError(f"width must be a multiple of n_head, got width {sizes.h} and {sizes.a} heads")
    if sizes.a % ranks:
        raise ValueError(
            f"n_head must be a multiple of the ranks, since a head is not split: got {sizes.a} heads and {ranks} ranks"
        )
    if sequence and sizes.s % ranks:
        raise ValueError(
            f"context must be a multiple of the ranks for sequence parallelism, got {sizes.s} tokens and {ranks} ranks"
        )


@dataclass(frozen=True)
class SplitStep(Step):
    """One stage of the film, or the next measurement; all that is known so far comes with each."""

    ranks: int = 1
    stage: int | None = None  # number of the stage in `film`
    film: tuple[Stage, ...] = ()
    tiles: np.ndarray | None = None  # (tiles, tokens, columns): each rank's, then the unsplit layer's
    names: tuple[str, ...] = ()  # of the tiles
    reach: float = 1.0  # for the scale: three times the usual size of a number
    errors: tuple[tuple[str, float | None], ...] = ()  # against the unsplit layers
    counts: tuple[tuple[str, int, int | None], ...] = ()  # collective, by formula, counted
    ledger: tuple[tuple[str, str, float, float | None], ...] = ()  # what, unit, by formula, measured
    gpt3: tuple[float, ...] = (
        # weights, those of one of 8 ranks, numbers it sends for a text of 2,048 tokens, days of training, twice
        GPT3_IN_8
    )


# --- what the ranks do ------------------------------------------------------------------------------------------------


def job(rank: int, ranks: int, config: SplitConfig) -> Iterator[tuple[Any, ...]]:
    """Show one layer stage by stage, count one step of all layers, weigh what is kept, and let torch do the same."""
    check_parts(config.sizes, ranks, config.sequence)
    whole = whole_layers(config.sizes, config.seed).to(device(rank))
    x, above = (first_input(config.sizes, config.seed + ABOVE + number).to(device(rank)) for number in (0, 1))
    wire = Wire(ranks)
    cut = Cut(rank, wire, config.sequence)
    mine = split_layers(whole, cut)
    for tiles, error in shots(whole[0], mine[0], x):  # type: ignore[arg-type]
        yield "shot", *tiles, error
    wire.calls.clear()
    wire.sent = 0.0
    yield "held", sum(weight.numel() for weight in mine.parameters())
    own = cut.tokens(x).requires_grad_()
    result, counted, nbytes = one_step(mine, own, cut.tokens(above))
    sum_small_gradients(mine, cut)
    yield "counted", counted, dict(wire.calls), wire.sent, nbytes
    right = x.clone().requires_grad_()
    truth = whole(right)
    truth.backward(above)
    weights = torch.cat([weight.grad.flatten() for weight in mine.parameters()])  # type: ignore[union-attr]
    shares = torch.cat([weight.flatten() for weight in gradients_as(whole, cut).parameters()])
    yield "errors", apart(result, cut.tokens(truth)), apart(own.grad, cut.tokens(right.grad)), apart(weights, shares)  # type: ignore[arg-type]
    yield "kept", kept_bytes(mine[0], own), kept_bytes(whole[0], x)  # type: ignore[arg-type]
    yield from torch_does_it(config, cut, x, above, result)


def one_step(layers: nn.Sequential, x: torch.Tensor, above: torch.Tensor) -> tuple[torch.Tensor, Counts, int | None]:
    """Forward and backward. Collectives as torch sees them, and the bytes this process sent."""
    import torch.distributed as dist
    from torch.distributed.tensor.debug import CommDebugMode

    dist.barrier()
    sent = socket_bytes()
    with CommDebugMode() as forward:
        y = layers(x)
    with CommDebugMode() as backward:
        y.backward(above)
    after = socket_bytes()
    counted: Counts = {}
    for direction, mode in ((FORWARD, forward), (BACKWARD, backward)):
        for operation, calls in mode.get_comm_counts().items():
            kind = next(kind for part, kind in KINDS.items() if part in str(operation).split(".")[-1])
            counted[f"{kind}, {direction}"] = counted.get(f"{kind}, {direction}", 0) + calls
    return y.detach(), counted, None if sent is None or after is None else after - sent


def gradients_as(whole: nn.Sequential, cut: Cut) -> nn.Sequential:
    """The gradients of the whole layers in the places of their weights, so that they can be split like weights."""
    with torch.no_grad():
        for weight in whole.parameters():
            assert weight.grad is not None
            weight.copy_(weight.grad)
    return split_layers(whole, cut)


def torch_does_it(
    config: SplitConfig, cut: Cut, x: torch.Tensor, above: torch.Tensor, ours: torch.Tensor
) -> Iterator[tuple[Any, ...]]:
    """The same layers by torch's own tensor-parallel plan: its result beside ours, and its collectives."""
    from core.megatron.plan import by_torch

    layers = by_torch(whole_layers(config.sizes, config.seed).to(x.device), cut)
    own = cut.tokens(x).requires_grad_()
    result, counted, _ = one_step(layers, own, cut.tokens(above))
    yield "torch", apart(result, ours), counted


# --- what the app sees ------------------------------------------------------------------------------------------------

ERRORS = ("attention", "MLP", "all layers", "gradient of X", "gradients of weights", "torch's own plan", TWO)


@dataclass
class Account:
    """What the ranks have said so far. Of errors the largest counts, of bytes and numbers rank 0's."""

    config: SplitConfig
    film: tuple[Stage, ...] = field(init=False)
    shots: dict[tuple[str, str], dict[int, tuple[np.ndarray, np.ndarray | None]]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    told: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = int(self.config.ranks)
        self.film = stages(self.ranks, self.config.sequence, self.config.activation)

    def hear(self, rank: int, kind: str, *more: Any) -> SplitStep | None:
        """A Step, where what a rank says completes something."""
        if kind == "shot":
            block, key, tile, truth, error = more
            if error is not None:
                self.worst(block, error)
            shot = self.shots.setdefault((block, key), {})
            shot[rank] = tile, truth
            return self.shown(block, key, shot) if len(shot) == self.ranks else None
        if kind == "errors":
            for name, far in zip(ERRORS[2:5], more, strict=True):
                self.worst(name, far)
        if kind == "torch":
            self.worst(ERRORS[5], more[0])
        if rank == 0:
            self.told[kind] = more
            return self.step(SAID[kind])
        return None

    def worst(self, name: str, error: float) -> None:
        self.errors[name] = max(error, self.errors.get(name, 0.0))

    def shown(self, block: str, key: str, shot: dict[int, tuple[np.ndarray, np.ndarray | None]]) -> SplitStep:
        number = next(number for number, stage in enumerate(self.film) if (stage.block, stage.key) == (block, key))
        tiles, truth = [shot[rank][0] for rank in range(self.ranks)], shot[0][1]
        assert truth is not None
        names = (*(f"rank {rank}" for rank in range(self.ranks)), "unsplit")
        reach = 3 * float(np.sqrt(np.square(truth).mean()))
        if key == "error":
            right = self.shots[block, "sum"][0][1]
            assert right is not None
            tiles, names, reach = [sum(tiles[1:], tiles[0])], (ONE, TWO), 3 * float(np.sqrt(np.square(right).mean()))
        return self.step(
            f"{block}: {self.film[number].caption}",
            stage=number,
            tiles=np.stack([*tiles, truth]),
            names=names,
            reach=reach or 1.0,
        )

    def step(self, doing: str, **more: Any) -> SplitStep:
        errors = tuple((name, self.errors.get(name)) for name in ERRORS)
        return SplitStep(
            ranks=self.ranks,
            film=self.film,
            errors=errors,
            counts=self.counts(),
            ledger=self.ledger(),
            doing=doing,
            **more,
        )

    def counts(self) -> tuple[tuple[str, int, int | None], ...]:
        """Collectives of all layers: 2 all-reduces each way a layer, or 2 of each half each way."""
        each = 2 * self.config.n_layer * (self.ranks > 1)
        kinds = (ALL_GATHER, REDUCE_SCATTER) if self.config.sequence else (ALL_REDUCE,)
        seen = self.told["counted"][0] if "counted" in self.told else None
        names = [f"{kind}, {direction}" for direction in (FORWARD, BACKWARD) for kind in kinds]
        return tuple((name, each, None if seen is None else seen.get(name, 0)) for name in names)

    def ledger(self) -> tuple[tuple[str, str, float, float | None], ...]:
        """Formula beside measurement, of one rank."""
        config, t = self.config, self.ranks
        sizes = config.sizes
        sent = formulas.sent_per_layer(sizes, t)
        _, _, numbers, nbytes = self.told.get("counted", (None,) * 4)
        (held,) = self.told.get("held", (None,))
        kept, whole = self.told.get("kept", (None, None))
        part = t if config.sequence else 1
        rows = [("weights held", "weights", config.n_layer * formulas.held_parameters(config.width, t), held)]
        rows += [("sent for a layer", "numbers", sent, None if numbers is None else numbers / config.n_layer)]
        rows += [("through the sockets", "bytes", 4 * config.n_layer * sent, nbytes)]
        rows += [(f"kept: {NORMS}", "bytes", formulas.norm_bytes(sizes, 4) / part, kept and kept[NORMS])]
        rows += [(f"kept: {ENTERED}", "bytes", formulas.entered_bytes(sizes, 4), kept and kept[ENTERED])]
        rows += [(f"kept: {INSIDE}", "bytes", whole[INSIDE] / t, kept[INSIDE])] if kept else []
        return tuple(rows)

    def figures(self) -> Iterator[Result]:
        # is it the same?
        for name in ERRORS[:-1]:
            yield error_figure(name)(self.errors[name], 0.0)
        yield ROWS_FIRST(self.errors[TWO], self.errors[ERRORS[1]])
        # collectives
        for kind, formula, counted in self.counts():
            yield CALLS.of(collective=kind)(counted, formula)
        seen, ours, _, _ = self.told["counted"]
        yield CALLS_OURS(sum(ours.values()), sum(seen.values()))
        by_formula = sum(formula for _, formula, _ in self.counts())
        yield CALLS_TORCH(sum(self.told["torch"][1].values()), by_formula)
        # what a rank holds and sends
        sequence = self.config.sequence
        sources = {
            f"kept: {NORMS}": "2bsh(4 + 1) + 16bs bytes" + (" / t" if sequence else ", on every rank"),
            "through the sockets": "8bsh(t-1)/t in bytes; gloo adds headers"
            + (", and does a reduce-scatter as an all-reduce" if sequence else ""),
        }
        for what, _, expected, measured in self.ledger():
            yield LEDGER[what](measured, expected, source=sources.get(what))


def error_figure(name: str) -> Figure:
    return ERROR_ALL if name == ERRORS[2] else ERROR.of(part=name)


SAID = {
    "held": "each rank holds its columns and rows; LayerNorms and two biases are on every rank",
    "counted": "one step of all layers, forward and backward, counted",
    "errors": "compared with the unsplit layers: output, gradient of X, gradients of all weights",
    "kept": "weighed what one layer keeps for the backward pass",
    "torch": "the same by torch's own plan, ColwiseParallel and RowwiseParallel",
}


@experiment("How do several machines compute one layer together?")
def split(config: SplitConfig) -> Iterator[SplitStep]:
    """The film of the first layer, then counts, errors, bytes and torch's plan."""
    warm()
    account = Account(config)
    x = first_input(config.sizes, config.seed + ABOVE)[:, 0]
    tiles = np.stack([picture(x)] * (account.ranks + 1))
    names = (*(f"rank {rank}" for rank in range(account.ranks)), "unsplit")
    yield account.step(
        f"{RANKS[config.ranks]}: what comes in, and which part of each matrix a rank will hold",
        tiles=tiles,
        names=names,
        reach=3.0,
    )
    with Group(job, account.ranks, (config,), gloo=True) as group:
        for said in group.listen():
            step = account.hear(said.rank, *said.value) if said is not None else None
            if step is not None:
                yield step
            elif said is None:
                yield account.step("")
    right, wrong = account.errors[ERRORS[1]], account.errors[TWO]
    yield account.step(
        f"done: columns first is off by {right:.1g} of its size, rows first by {wrong:.1g}",
        figures=tuple(account.figures()),
    )
