r"""From 1 to 1,024 ranks: where the bytes go, measured where there are ranks, counted where there are none.

$$\text{bytes on one rank} = 16P, \quad 4P + \frac{12P}{N}, \quad 2P + \frac{14P}{N}, \quad \frac{16P}{N}$$

for stages 0 to 3 in the paper's mixed precision. With $P = 7.5$ billion and $N = 64$ that is 120, 31.4, 16.6 and 1.9 GB
($10^9$ bytes). Stages 1 and 2 have a floor that no number of ranks gets below, $4P$ and $2P$: whole weights are still
everywhere. Stage 3 has none in the formula.

The lines are held against four kinds of counts, and the chart says which is which:

- *measured*: the written-out ZeRO (`written.py`) trains a small model on 1, 2 and 4 real ranks; its storages are
  weighed.
- *counted*: the same code as rank 0 of up to 1,024, in a process group whose other ranks do not exist (the *fake*
  backend). The tensors of rank 0
  are real, and so are their bytes; what it receives is nothing.
- *counted, FSDP2*: PyTorch's own `FSDPMemTracker` follows a step of `fully_shard` on tensors without memory, for 4
  layers as wide as you like now.
- *kept*: the same for a model of 7.5 billion weights, which takes minutes; the command stands in `count.py`.

They show what the formula leaves out. Each rank must have a whole layer for a moment, in 16 bits to compute with and in
32 for its gradient: bytes that do not depend on $N$. At 1,024 ranks the states of the 7.5-billion model are 0.12 GB a
rank, and the moment's needs are many times that.

Code -> paper: `ranks` -> N_d; `billions` -> Psi; `MIXED` -> K = 12.
Left out: activations of a real batch (one window here), fragmentation, and the ranks of tensor and pipeline
parallelism.
Source: Rajbhandari et al. 2019, arXiv:1910.02054, Figure 1 and Table 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, warm
from core.foundations.settings import seed_field
from core.foundations.transformer import Shape
from core.zero.count import BIG, Count, count, imagined, kept, shapes
from core.zero.formulas import FULL, MIXED, STAGES, gigabytes, per_weight, words
from core.zero.training import Size

POWERS = tuple(2**power for power in range(11))  # 1 to 1,024 ranks
REAL = (1, 2, 4)
PAPER = (7.5, 64, (120.0, 31.4, 16.6, 1.9))  # billions, ranks, GB by stage, as printed in Figure 1
VOCABULARY = 50_304  # of the model that FSDP2 is counted with
SEVEN = "7.5 billion weights"

STATES = Figure("states on each rank, stage {stage}", "GB", "theory", label="computed", headline=True)
FULLEST = Figure(
    "AdamW's moments on the fullest rank",
    "bytes per weight",
    "theory",
    "8/N; ZeroRedundancyOptimizer deals out whole tensors of the 7.5-billion model",
    "computed",
)
FSDP_STATES = Figure("states of {model} on {ranks} ranks, FSDP2", "GB", "theory", label="simulated")
FSDP_PEAK = Figure("peak of {model} on {ranks} ranks, FSDP2", "GB", "baseline", label="simulated")


@dataclass(frozen=True)
class ScaleConfig(Config):
    """How many ranks, for a model of how many weights, on which memory."""

    ranks: int = setting(
        64,
        "Ranks",
        unit="rank",
        low=1,
        high=1024,
        help="More ranks make each one's share of the states smaller, down to what no rank can give away.",
        slider=True,
    )
    billions: float = setting(
        7.5,
        "Weights",
        unit="billion",
        low=0.1,
        high=2000,
        help="Twice the weights take twice the memory at every stage.",
    )
    card: float = setting(
        80.0,
        "Memory of a rank (GB)",
        low=1,
        high=1000,
        help="The line of the picture: the paper's V100 has 32 GB, an H100 80.",
    )
    n_layer: int = setting(
        4,
        "Layers counted now",
        unit="layer",
        low=1,
        high=6,
        more=True,
        help="More layers that FSDP2 is counted with take longer; the gathered one stays as large.",
        slider=True,
    )
    width: int = setting(
        4096,
        "Width counted now",
        unit="number",
        low=16,
        high=16_384,
        more=True,
        help="Wider layers make the gathered one larger.",
    )
    context: int = setting(
        1024,
        "Context counted now",
        unit="token",
        low=16,
        high=4096,
        more=True,
        help="A longer context needs more activations at the peak.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        self.wide()

    def wide(self) -> Shape:
        """What FSDP2 is counted with: as wide as a real model, and not as deep."""
        return Shape(VOCABULARY, self.n_layer, 2, self.width, self.context, dialect="gpt2")

    def small(self, ranks: int) -> Size:
        """What the written-out ZeRO trains, one window per rank.

        Its rows are long enough to be cut into 1,024 pieces.
        """
        return Size(4, 128, 16, ranks, 0.01, self.seed)

    def counted(self) -> tuple[int, ...]:
        """The numbers of ranks to be counted, besides those that are real."""
        return tuple(sorted({*POWERS, self.ranks} - set(REAL)))


@dataclass(frozen=True)
class ScaleStep(Step):
    """The curves are there at once; dots are added."""

    ranks: int = 0
    card: float = 0.0  # GB
    billions: float = 0.0
    curves: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] = ()  # stage, (ranks, GB)
    paper: tuple[tuple[int, float], ...] = ()  # stage, GB as the paper prints it
    measured: tuple[
        tuple[int, int, float], ...
    ] = ()  # stage, ranks, GB: bytes per weight of a small model, times this model's weights
    counted: tuple[tuple[int, int, float], ...] = ()  # the same on ranks that do not exist
    kept: tuple[Count, ...] = ()  # FSDP2 with 7.5 billion weights
    now: Count | None = None  # FSDP2 with the chosen layers and ranks
    at: int = 0  # a number of ranks for which all stages are known now


# --- in processes of their own ----------------------------------------------------------------------------------------


def job(rank: int, ranks: int, config: ScaleConfig) -> Iterator[tuple[Any, ...]]:
    """Real ranks: bytes per weight of the written-out ZeRO, stage by stage."""
    for stage in STAGES:
        yield "held", stage, ranks, held(config.small(ranks), stage, rank, ranks)


def held(size: Size, stage: int, rank: int, ranks: int) -> float:
    """Bytes per weight after the second backward pass, in mixed precision."""
    from core.zero.training import MOMENTS
    from core.zero.written import Written

    run, found = Written(size, stage, rank, ranks, mixed=True), dict[str, int]()
    for _ in range(2):
        run.one_step(lambda moment: found.__setitem__(moment, run.held().total))
    return found[MOMENTS[1]] / sum(weight.numel() for weight in size.model().parameters())


def alone(rank: int, ranks: int, config: ScaleConfig) -> Iterator[tuple[Any, ...]]:
    """One process as rank 0 of many that do not exist.

    The process group is a state of the whole process: hence not in the app's.
    """
    for many in config.counted():
        with imagined(many):
            for stage in STAGES:
                yield "held", stage, many, held(config.small(many), stage, 0, many)
    with imagined(config.ranks):
        yield "fullest", fullest(config.ranks)
        yield "count", count(config.wide(), 3, config.ranks)


def fullest(ranks: int) -> float:
    """Bytes per weight of AdamW's moments on the fullest rank, as ZeroRedundancyOptimizer deals out the 7.5-billion
    model's tensors.
    """
    import torch
    from torch.distributed.optim import ZeroRedundancyOptimizer

    tensors = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes(BIG)]
    dealt = ZeroRedundancyOptimizer(tensors, torch.optim.AdamW, foreach=False)._partition_parameters()
    loads = [sum(tensor.numel() for group in groups for tensor in group["params"]) for groups in dealt]
    return FULL[2] * max(loads) / sum(tensor.numel() for tensor in tensors)


# --- the experiment ---------------------------------------------------------------------------------------------------


def first_step(config: ScaleConfig) -> ScaleStep:
    """The formulas, the paper's numbers, and the counts that are kept."""
    weights, everyone = config.billions * 1e9, sorted({*POWERS, config.ranks})
    curves = tuple((stage, tuple((ranks, gigabytes(weights, stage, ranks)) for ranks in everyone)) for stage in STAGES)
    billions, _, printed = PAPER
    paper = tuple(zip(STAGES, printed, strict=True)) if config.billions == billions else ()
    told = ", ".join(f"{gigabytes(weights, stage, config.ranks):.3g}" for stage in STAGES)
    doing = (
        f"{config.billions:g} billion weights on {config.ranks} ranks: {told} GB a rank at stages 0, 1, 2, 3 by formula"
    )
    return ScaleStep(
        ranks=config.ranks,
        card=config.card,
        billions=config.billions,
        curves=curves,
        paper=paper,
        kept=kept(),
        at=config.ranks,
        doing=doing,
    )


@experiment("How far down do the bytes go with more ranks?")
def scale(config: ScaleConfig) -> Iterator[ScaleStep]:
    """Formulas at once; then real ranks; then ranks that do not exist."""
    warm()
    now = first_step(config)
    yield now
    for ranks in REAL:
        with Group(job, ranks, (config,), gloo=True) as group:
            for said in group.listen():
                if said is None or said.rank:
                    yield ScaleStep()
                    continue
                _, stage, _, found = said.value
                now = replace(
                    now,
                    measured=(*now.measured, (stage, ranks, found * config.billions)),
                    at=ranks if stage == STAGES[-1] else 0,
                )
                yield replace(now, doing=f"{ranks} real rank{'s' * (ranks > 1)}, " + beside(stage, ranks, found))
    share = 0.0
    with Group(alone, 1, (config,)) as group:
        for said in group.listen():
            if said is None:
                yield ScaleStep()
                continue
            kind, *more = said.value
            if kind == "held":
                stage, ranks, found = more
                now = replace(
                    now,
                    counted=(*now.counted, (stage, ranks, found * config.billions)),
                    at=ranks if stage == STAGES[-1] else 0,
                )
                yield replace(now, doing=f"rank 0 of {ranks}, " + beside(stage, ranks, found))
            elif kind == "fullest":
                share, now = more[0], replace(now, at=0)
                yield replace(
                    now,
                    doing=(
                        f"ZeroRedundancyOptimizer: the fullest of {config.ranks} ranks has {share:.3f} bytes of moments"
                        " per weight"
                    ),
                )
            else:
                now = replace(now, now=more[0])
                yield replace(
                    now,
                    doing=(
                        f"FSDP2 as rank 0 of {config.ranks}: {total(more[0].peak):.2f} GB at the peak, counted by"
                        " FSDPMemTracker"
                    ),
                )
    yield replace(
        now,
        at=config.ranks,
        figures=tuple(figures(config, now, share)),
        doing="done: the states shrink with the ranks, the moment's needs do not",
    )


def beside(stage: int, ranks: int, found: float) -> str:
    return f"stage {stage}: {found:.3f} bytes per weight, by formula {per_weight(stage, ranks, MIXED):.3f}"


def total(kinds: tuple[tuple[str, int], ...]) -> float:
    """GB of all kinds."""
    return sum(nbytes for _, nbytes in kinds) / 1e9


def figures(config: ScaleConfig, now: ScaleStep, fullest_bytes: float) -> Iterator[Result]:
    """The states against the formula; the peaks against it too, which is what the formula leaves out."""
    held = {(stage, ranks): size for stage, ranks, size in (*now.measured, *now.counted)}
    how = "measured" if config.ranks in REAL else "counted"
    for stage in STAGES:
        source = f"{words(stage, MIXED)}, P = {config.billions:g} billion, N = {config.ranks}"
        by_formula = gigabytes(config.billions * 1e9, stage, config.ranks)
        yield STATES.of(stage=stage)(
            held[stage, config.ranks], by_formula, source=f"{source}; {how} per weight of a small model"
        )
    yield FULLEST(fullest_bytes, 8 / config.ranks)
    counts = [(f"{config.n_layer} layers", "FSDPMemTracker on fake tensors", now.now)]
    counts += [
        (SEVEN, "FSDPMemTracker, stored in core/zero/counted.json", one)
        for one in now.kept
        if one.stage == 3 and one.ranks in (64, 1024)
    ]
    for model, how, one in counts:
        if one is not None:
            states = 16 * one.weights / one.ranks / 1e9
            source = f"16P/N, P = {one.weights / 1e9:.3g} billion; {how}"
            yield FSDP_STATES.of(model=model, ranks=one.ranks)(total(one.after[:3]), states, source=source)
            yield FSDP_PEAK.of(model=model, ranks=one.ranks)(total(one.peak), states, source=source)
