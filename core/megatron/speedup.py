r"""How much faster t ranks are: the matrices' time is divided by t, and then the sums must be sent.

A step of $L$ layers takes, on each of $t$ ranks,

$$T(t) = \frac{T_{\text{split}}}{t} + T_{\text{whole}} + 4L\left(2(t-1)\,\lambda + \frac{2(t-1)}{t}\,\frac{bsh \cdot
4\text{ bytes}}{\beta}\right).$$

$T_{\text{split}}$ is what lies between f and g, $T_{\text{whole}}$ is LayerNorm, dropout and the residual sums, which
every rank does (sequence parallelism divides them, too). An all-reduce in a ring has $2(t-1)$ rounds, each with the
latency $\lambda$, and sends $2(t-1)/t$ of its bytes at the bandwidth $\beta$. Arithmetic grows with $h^2$ and what is
sent with $h$, so wide layers on fast links gain, narrow ones on slow links lose.

What is measured here: the CPU seconds of each rank between the borders of the split part, forward and backward. They do
not depend on how many ranks share a core. Between f and g lies the link: the rank really sleeps for as long as the
formula says. What gloo itself needs to pass the numbers on within this machine is measured, too, after a barrier, and
is drawn apart: four ranks on two cores wait for each other there, which says nothing about a link. The dots are compute
plus link. Megatron's published numbers are of V100 cards in one server and of larger models.

A CPU core is some thousand times slower than a card, so a link here has time that it would not have beside a card. The
text under the chart says how fast a link must be here to be, for this core, what NVLink is for an A100.
Left out: that sending can overlap with computing, and that narrow matrices are computed less efficiently on cards.
Source: Shoeybi et al. 2019, arXiv:1909.08053, section 5 and appendix D; Narayanan et al. 2021, arXiv:2104.04473,
section 3.2.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.ranks import Group, device, warm
from core.foundations.roofline import MATRIX, roofline
from core.foundations.settings import seed_field
from core.megatron import formulas
from core.megatron.layer import Cut, Sizes, first_input, split_layers, whole_layers
from core.megatron.operators import ALL_GATHER, ALL_REDUCE, SPLIT, WHOLE, Wire, ring
from core.megatron.split import ABOVE, check_parts

COUNTS = (1, 2, 4)  # ranks that are measured
FURTHEST = 8  # the formula goes on
MOST_SECONDS = 60.0  # of sleeping in a run
MOST_FLOPS = 1e12  # of a run
AWAKE_SECONDS = 2e-4
A100_FLOPS, NVLINK_BYTES = 140e12, 300e9  # what Megatron reaches on an A100; NVLink 3, one direction


@dataclass(frozen=True)
class Link:
    """A wire between two neighbours in the ring."""

    latency_seconds: float
    bytes_per_second: float

    def seconds(self, kind: str, ranks: int, nbytes: float) -> float:
        """Of one collective; nbytes: of the whole tensor."""
        rounds = (2 if kind == ALL_REDUCE else 1) * (ranks - 1)
        return rounds * self.latency_seconds + ring(kind, ranks) * nbytes / self.bytes_per_second


# Nominal: the latency of one message as programs see it, and one direction's bandwidth.
LINKS = {
    "NVLink": Link(5 / 1e6, NVLINK_BYTES),
    "10 Gb/s": Link(30 / 1e6, 1.25e9),
    "1 Gb/s": Link(50 / 1e6, 0.125e9),
    "100 Mb/s": Link(100 / 1e6, 0.0125e9),
}
CHOSEN = "this link"

SPEEDUP = Figure(
    "speed-up on {ranks} ranks",
    "times",
    "theory",
    "T(1) / T(t) of How it works, from the time of 1 rank",
    headline=True,
)
SPLIT_TIME = Figure("computing between f and g, {ranks} ranks", "CPU ms", "theory")
WHOLE_TIME = Figure("computing outside of f and g, {ranks} ranks", "CPU ms", "theory")
LINK_TIME = Figure(
    "waiting for the link, {ranks} ranks",
    "ms",
    "theory",
    "4L (2(t-1) latency + 2(t-1)/t bytes / bandwidth); really slept",
    headline=True,
)
GLOO_TIME = Figure(
    "gloo itself, {ranks} ranks", "ms", None, "collectives within this machine, not part of the speed-up"
)
ALONE_TIME = Figure(
    "step on 1 rank", "CPU ms", "limit", "roofline: its FLOPs at the rate of a large matmul on the same rank"
)


@dataclass(frozen=True)
class SpeedupConfig(Config):
    """The link, and the layers."""

    latency: float = setting(
        50.0,
        "Latency (µs)",
        low=0,
        high=10_000,
        help="Of one message between two ranks. Higher makes splitting pay less, above all for small layers.",
    )
    bandwidth: float = setting(
        0.125,
        "Bandwidth (GB/s)",
        low=0.005,
        high=1000,
        help="Higher makes splitting pay more: 0.125 GB/s is 1 Gb/s Ethernet, 1.25 is 10 Gb/s, 300 is NVLink.",
    )
    width: int = setting(
        512,
        "Width",
        unit="number",
        low=16,
        high=1024,
        help="Work grows with the square of the width and what is sent only with the width, so wide layers gain more.",
    )
    context: int = setting(
        128, "Tokens", unit="token", low=8, high=256, help="More tokens mean more work and larger sums to send."
    )
    n_layer: int = setting(
        2,
        "Layers",
        unit="layer",
        low=1,
        high=4,
        help="More layers mean as many more steps of work and of waiting.",
        slider=True,
    )
    sequence: bool = setting(False, "Sequence parallel", help="Ticked, LayerNorm and dropout are split by tokens, too.")
    batch: int = setting(
        1,
        "Batch",
        unit="sequence",
        low=1,
        high=4,
        more=True,
        help="More sequences mean more work and larger sums to send.",
        slider=True,
    )
    n_head: int = setting(
        8,
        "Heads",
        unit="head",
        low=4,
        high=32,
        more=True,
        help="Attention is cut by heads, so their number must be a multiple of the ranks.",
        slider=True,
    )
    steps: int = setting(
        6,
        "Repetitions",
        unit="step",
        low=2,
        high=20,
        more=True,
        help="More repetitions give steadier times, since the fastest counts.",
    )
    seed: int = seed_field(high=2147473648)

    def check(self) -> None:
        check_parts(self.sizes, max(COUNTS), self.sequence)
        slept = (1 + self.steps) * sum(self.link_seconds(self.link, ranks) for ranks in COUNTS)
        if slept > MOST_SECONDS:
            raise ValueError(
                f"with this latency and bandwidth the ranks would wait {slept:.0f} seconds for the link, and"
                f" {MOST_SECONDS:.0f} are allowed"
            )
        flops = (1 + self.steps) * len(COUNTS) * config_flops(self)
        if flops > MOST_FLOPS:
            raise ValueError(
                f"these layers and repetitions need {flops / 1e9:,.0f} GFLOP, and {MOST_FLOPS / 1e9:,.0f} are allowed:"
                " choose less of either"
            )

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.n_layer, self.width, self.n_head, self.context, self.batch)

    @property
    def link(self) -> Link:
        return Link(self.latency / 1e6, 1e9 * self.bandwidth)

    def link_seconds(self, link: Link, ranks: int) -> float:
        """4 all-reduces a layer; with sequence parallelism their two halves, which take as long."""
        return 4 * self.n_layer * link.seconds(ALL_REDUCE, ranks, 4 * self.batch * self.context * self.width)


@dataclass(frozen=True)
class Times:
    """Seconds of one step on one rank."""

    ranks: int
    split: float  # computed between f and g
    whole: float  # computed outside
    link: float  # slept
    gloo: float  # the collectives themselves, within this machine

    @property
    def seconds(self) -> float:
        return self.split + self.whole + self.link


@dataclass(frozen=True)
class SpeedupStep(Step):
    """What is measured so far, and the formula's curves."""

    measured: tuple[Times, ...] = ()  # one for each number of ranks
    formula: tuple[
        Times, ...
    ] = ()  # the same by the formula, from one rank's time; before it is known, from the roofline
    curves: tuple[tuple[str, tuple[float, ...]], ...] = ()  # link -> speed-up on 1 to 8 ranks
    basis: str = ""  # where the formula's time of one rank comes from
    scaled: tuple[float, float, float] = (
        0.0,
        0.0,
        0.0,
    )  # FLOP/s of a rank, how many times an A100 is faster, GB/s that are NVLink for it


# --- what the ranks do ------------------------------------------------------------------------------------------------


class TimedWire(Wire):
    """A wire that takes the time: computing on either side of the borders, sending, and the link, which it sleeps."""

    def __init__(self, ranks: int, link: Link, where: torch.device) -> None:
        super().__init__(ranks)
        self.link, self.where = link, where
        self.begin()

    def now(self) -> float:
        """CPU seconds of this thread; of a GPU, the time when all is done."""
        if self.where.type == "cuda":
            torch.cuda.synchronize(self.where)
            return time.perf_counter()
        return time.thread_time()

    def begin(self) -> None:
        """A new step. Every stretch keeps its own time, in the order in which they come."""
        self.computed: dict[str, list[float]] = {SPLIT: [], WHOLE: []}
        self.slept: list[float] = []
        self.sending: list[float] = []
        self.go_on(WHOLE)

    def stop(self) -> None:
        self.computed[self.part].append(self.now() - self.since)

    def go_on(self, part: str) -> None:
        self.part, self.since = part, self.now()

    def crossed(self, x: Tensor, then: str) -> Tensor:
        self.stop()
        self.go_on(then)
        return super().crossed(x, then)

    def collective(self, kind: str, x: Tensor, direction: str, then: str) -> Tensor:
        if self.ranks == 1:
            return self.crossed(x, then)
        self.stop()
        torch.distributed.barrier()  # so that nobody's time is another one's delay
        started = time.perf_counter()
        y = super().collective(kind, x, direction, then)
        if self.where.type == "cuda":
            torch.cuda.synchronize(self.where)
        sent = time.perf_counter()
        wait(self.link.seconds(kind, self.ranks, x.nbytes * (self.ranks if kind == ALL_GATHER else 1)))
        self.sending.append(sent - started)
        self.slept.append(time.perf_counter() - sent)
        self.go_on(then)
        return y


def wait(seconds: float) -> None:
    """Sleep. The system wakes us a little late, so the last 0.2 ms are waited out awake."""
    end = time.perf_counter() + seconds
    if seconds > AWAKE_SECONDS:
        time.sleep(seconds - AWAKE_SECONDS)
    while time.perf_counter() < end:
        pass


def best_rate(wire: TimedWire) -> float:
    """FLOP/s of a large matmul on this rank, in the same seconds as everything here: what `roofline.py` takes by the
    wall clock.
    """
    a, seconds = torch.ones(MATRIX, MATRIX, device=wire.where), []
    for _ in range(8):
        started = wire.now()
        a @ a
        seconds.append(wire.now() - started)
    return float(2 * MATRIX**3 / min(seconds))


def job(rank: int, ranks: int, config: SpeedupConfig) -> Iterator[tuple[Any, ...]]:
    """The step again and again, with its time in parts. The first one warms up and does not count."""
    check_parts(config.sizes, ranks, config.sequence)
    where = device(rank)
    wire = TimedWire(ranks, config.link, where)
    cut = Cut(rank, wire, config.sequence)
    layers = split_layers(whole_layers(config.sizes, config.seed).to(where), cut)
    x, above = (cut.tokens(first_input(config.sizes, config.seed + ABOVE + number).to(where)) for number in (0, 1))
    if ranks == 1:
        yield "rate", best_rate(wire)
    for step in range(config.steps + 1):
        layers.zero_grad()
        wire.begin()
        layers(x.detach().requires_grad_()).backward(above)
        wire.stop()
        if step:
            yield (
                "times",
                *(
                    tuple(stretches)
                    for stretches in (wire.computed[SPLIT], wire.computed[WHOLE], wire.slept, wire.sending)
                ),
            )


# --- what the app sees ------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """Of each stretch of each rank the fastest repetition counts (disturbances only slow down), of the ranks the
    slowest one.
    """

    config: SpeedupConfig
    told: dict[int, dict[int, list[tuple[tuple[float, ...], ...]]]] = field(
        default_factory=dict
    )  # ranks -> rank -> repetitions

    def __post_init__(self) -> None:
        self.floor = config_flops(self.config) / roofline().flops_per_second

    def times(self, ranks: int) -> Times:
        best = [
            tuple(fastest(stretches) for stretches in zip(*repetitions, strict=True))
            for repetitions in self.told[ranks].values()
        ]
        return Times(ranks, *(max(column) for column in zip(*best, strict=True)))

    def formula(self, link: Link, ranks: int) -> Times:
        alone = self.times(1) if 1 in self.told else Times(1, self.floor, 0.0, 0.0, 0.0)
        whole = alone.whole / (ranks if self.config.sequence else 1)
        return Times(ranks, alone.split / ranks, whole, self.config.link_seconds(link, ranks), 0.0)

    def curve(self, link: Link) -> tuple[float, ...]:
        alone = self.formula(link, 1).seconds
        return tuple(alone / self.formula(link, ranks).seconds for ranks in range(1, FURTHEST + 1))

    def step(self, doing: str, **more: Any) -> SpeedupStep:
        same = [name for name, link in LINKS.items() if link == self.config.link]
        chosen = {f"{CHOSEN}: {same[0]}" if same else CHOSEN: self.config.link}
        links = {name: link for name, link in LINKS.items() if name not in same}
        speed = config_flops(self.config) / self.formula(self.config.link, 1).seconds
        slower = A100_FLOPS / speed
        return SpeedupStep(
            measured=tuple(self.times(ranks) for ranks in self.told),
            formula=tuple(self.formula(self.config.link, ranks) for ranks in COUNTS),
            curves=tuple((name, self.curve(link)) for name, link in (chosen | links).items()),
            basis="measured on one rank" if 1 in self.told else "the roofline's floor of one rank",
            scaled=(speed, slower, NVLINK_BYTES / slower / 1e9),
            doing=doing,
            **more,
        )

    def figures(self) -> Iterator[Result]:
        times = {ranks: self.times(ranks) for ranks in COUNTS}
        alone = times[1]
        for ranks in COUNTS[1:]:
            ideal, here = self.formula(self.config.link, ranks), times[ranks]
            yield SPEEDUP.of(ranks=ranks)(alone.seconds / here.seconds, alone.seconds / ideal.seconds)
            divided = f"measured on 1 rank / {ranks}"
            yield SPLIT_TIME.of(ranks=ranks)(1e3 * here.split, 1e3 * ideal.split, source=divided)
            outside = divided if self.config.sequence else "as on 1 rank: every rank does it"
            yield WHOLE_TIME.of(ranks=ranks)(1e3 * here.whole, 1e3 * ideal.whole, source=outside)
            yield LINK_TIME.of(ranks=ranks)(1e3 * here.link, 1e3 * ideal.link)
            yield GLOO_TIME.of(ranks=ranks)(1e3 * here.gloo)
        yield ALONE_TIME(1e3 * alone.seconds, 1e3 * self.floor)


def fastest(repetitions: tuple[tuple[float, ...], ...]) -> float:
    """Each stretch of a step at its fastest."""
    return sum(min(stretch) for stretch in zip(*repetitions, strict=True))


def config_flops(config: SpeedupConfig) -> float:
    return config.n_layer * formulas.layer_flops(config.sizes)


@experiment("When does it pay to split a layer?")
def speedup(config: SpeedupConfig) -> Iterator[SpeedupStep]:
    """The formula's curves, then the same step on 1, 2 and 4 ranks."""
    warm()
    account = Account(config)
    yield account.step("the formula, from the least time that one rank can need")
    for ranks in COUNTS:
        with Group(job, ranks, (config,), gloo=True) as group:
            for said in group.listen():
                if said is None:
                    yield SpeedupStep()
                    continue
                if said.value[0] == "rate":
                    account.floor = config_flops(config) / said.value[1]
                    continue
                repetitions = account.told.setdefault(ranks, {}).setdefault(said.rank, [])
                repetitions.append(said.value[1:])
                if said.rank == ranks - 1:
                    yield account.step(
                        f"{ranks} {'rank' if ranks == 1 else 'ranks'}: repetition {len(repetitions)} of {config.steps}"
                    )
    found = account.times(max(COUNTS))
    gain = account.times(1).seconds / found.seconds
    yield account.step(
        f"done: {max(COUNTS)} ranks are {gain:.2g} times as fast as one", figures=tuple(account.figures())
    )
