r"""Plan a training run: how much memory every GPU needs, how long a step takes, and which way to divide the work is the best.

$N = d \cdot t \cdot p$ GPUs hold $d$ copies of the model, each cut into $p$ stages of layers, each layer over $t$ GPUs. Memory and time
follow from formulas (below the picture, each with this plan's numbers put in):

$$\text{bytes} = \underbrace{(g_w + g_g + g_o) P_r}_{\text{over } d \text{ by ZeRO}} + \underbrace{L A / p \cdot \text{in flight}}_{\text{activations}} + ..$$

$$\text{step} = \Big(m + \frac{p-1}{v}\Big) \cdot \text{time of a micro-batch} + \dots$$

What to look for: tensor parallelism divides nearly everything and talks all the time, so it stays inside a machine. The pipeline divides
weights, not activations (the first stage has $p$ micro-batches in flight), and waits $(p-1)/(vm)$ of the ideal time. ZeRO divides states
over the copies, and no activations. Recomputation buys memory with a third more arithmetic.

**The search** tries all divisions that fit heads, layers and batch, and shows the best of each $t \times p$.

**Is it true?** Three checks stand below. *Published runs:* one number, the share of the peak that matrix products reach ($e$ = 0.69 on an
A100), is chosen so that the 1.7B run of Narayanan et al. comes out; the 17 other runs are predicted. *Weighed:* a small GPT is trained
here in the plan's precision, and its bytes are counted. *Counted:* the model is built without memory and its weights are counted.

Code -> paper: `tensor` -> t, `pipeline` -> p, `data` -> d, `interleave` -> v, `micro_batch` -> b, `global_batch` -> B, `sequence` -> s.
Left out: workspace of kernels and of NCCL, fragments (a share is kept free); latency of messages and of kernel starts, so small
micro-batches and small matrices look better than they are; expert and context parallelism (experts are divided like other MLPs);
offloading; causal attention's skipped half.
Source: Narayanan et al. 2021, arXiv:2104.04473; Korthikanti et al. 2022, arXiv:2205.05198; Rajbhandari et al. 2019, arXiv:1910.02054.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.published_shapes import SHAPES, ModelShape
from core.planner.cards import CARDS, Card
from core.planner.job import ATTENTION, PRECISIONS, RECOMPUTE, ZERO, Job, Plan, check_plan, smallest_interleave
from core.planner.lines import lines
from core.planner.memory import Memory, fullest, stage_memory
from core.planner.others import Other, accelerate, others
from core.planner.papers import CALIBRATED, EFFICIENCY, KORTHIKANTI, TABLE_1, TABLE_5, Run
from core.planner.search import Found, Search
from core.planner.timing import StepTime, step_time
from core.planner.weigh import KINDS, counted, predicted, weigh

GB = 1e9
MODELS = {name: shape.name for name, shape in SHAPES.items() if shape.parameters > 6.5e9} | {"custom": "my own (below)"}
GPUS = {name: card.name for name, card in CARDS.items()} | {"custom": "my own (below)"}
BEST = 8  # plans in the ranking
OWN, OWN_CARD = ("model", "custom"), ("card", "custom")


@dataclass(frozen=True)
class PlanConfig(Config):
    """The model, the machine, the plan. The default is the 145.6B run of Narayanan et al. 2021, table 1."""

    model: str = setting("megatron-146b", "Model", choices=MODELS)
    card: str = setting("a100-80", "GPU", choices=GPUS)
    gpus: int = setting(1536, "GPUs N", unit="GPU", low=1, high=65_536)
    tensor: int = setting(8, "Tensor parallel t", unit="GPU", low=1, high=1024)
    pipeline: int = setting(8, "Pipeline stages p", unit="stage", low=1, high=1024)
    zero: str = setting("0", "ZeRO divides", choices=ZERO)
    recompute: str = setting("full", "Recompute", choices=RECOMPUTE)
    data: int = setting(0, "Data parallel d", unit="replica", low=0, high=65_536, more=True, help="0: N / (t p)")
    interleave: int = setting(0, "Interleave v", unit="chunk", low=0, high=64, more=True, help="chunks of layers per stage; 0: the fewest above 1 that divide")
    micro_batch: int = setting(1, "Micro-batch b", unit="text", low=1, high=4096, more=True)
    global_batch: int = setting(2304, "Global batch B", unit="text", low=1, high=1_000_000, more=True)
    sequence: int = setting(2048, "Sequence s", unit="token", low=16, high=1_048_576, more=True)
    sequence_parallel: bool = setting(False, "Sequence parallel", more=True, help="over the same t GPUs")
    precision: str = setting("bf16", "Precision", choices=PRECISIONS, more=True)
    attention: str = setting("usual", "Attention", choices=ATTENTION, more=True)
    dropout: bool = setting(True, "Dropout (GPT)", more=True)
    overlap: bool = setting(False, "Hide data messages", more=True, help="behind the last backward pass; ZeRO 3: all the time")
    efficiency: float = setting(100 * EFFICIENCY, "Products reach, % of peak", low=1, high=100, more=True, help="an assumption, calibrated on one A100 run")
    reserve: float = setting(10.0, "Memory kept free, %", low=0, high=90, more=True, help="workspace, NCCL, fragments: an assumption")
    layers: int = setting(80, "Layers L", unit="layer", low=1, high=1024, more=True, when=OWN)
    hidden: int = setting(8192, "Width h", low=64, high=131_072, more=True, when=OWN)
    heads: int = setting(64, "Heads a", unit="head", low=1, high=1024, more=True, when=OWN)
    key_heads: int = setting(8, "Heads of keys k", unit="head", low=1, high=1024, more=True, when=OWN, help="fewer than a: GQA")
    ffn: int = setting(28_672, "MLP width f", low=64, high=524_288, more=True, when=OWN)
    mlp: str = setting("swiglu", "MLP", choices={"swiglu": "SwiGLU (Llama)", "gelu": "GELU (GPT)"}, more=True, when=OWN)
    tied: bool = setting(False, "Tied embeddings", more=True, when=OWN)
    vocabulary: int = setting(128_256, "Vocabulary V", unit="token", low=256, high=2_000_000, more=True, when=OWN)
    experts: int = setting(0, "Experts E", unit="expert", low=0, high=1024, more=True, when=OWN, help="0: none; each an MLP of width f")
    chosen: int = setting(2, "Experts per token", unit="expert", low=1, high=64, more=True, when=OWN)
    card_memory: float = setting(80.0, "GPU memory", unit="GB", low=1, high=2000, more=True, when=OWN_CARD)
    card_teraflops: float = setting(989.0, "Peak, 16 bits dense", unit="TFLOP/s", low=1, high=100_000, more=True, when=OWN_CARD)
    card_bandwidth: float = setting(3350.0, "Memory bandwidth", unit="GB/s", low=10, high=100_000, more=True, when=OWN_CARD)
    card_link: float = setting(450.0, "Link, one direction", unit="GB/s", low=0.1, high=10_000, more=True, when=OWN_CARD)
    card_network: float = setting(50.0, "Network per GPU", unit="GB/s", low=0.01, high=10_000, more=True, when=OWN_CARD)
    card_per_machine: int = setting(8, "GPUs per machine", unit="GPU", low=1, high=1024, more=True, when=OWN_CARD)
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, more=True, help="of the small model that is weighed")

    @property
    def shape(self) -> ModelShape:
        """The chosen shape, or the user's own."""
        if self.model != "custom":
            return SHAPES[self.model]
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got {self.hidden} and {self.heads} heads")
        if self.heads % self.key_heads:
            raise ValueError(f"heads must be a multiple of key_heads, got {self.heads} and {self.key_heads}")
        if self.experts and self.chosen > self.experts:
            raise ValueError(f"chosen must be at most the {self.experts} experts, got {self.chosen}")
        gelu, experts = self.mlp == "gelu", (self.experts, self.chosen if self.experts else 0)
        positions = self.sequence if gelu else 0
        dialect: Any = "gpt" if gelu else "llama"
        return ModelShape("my own", dialect, self.layers, self.hidden, self.heads, self.key_heads, self.ffn, self.vocabulary, self.tied, positions, *experts)

    @property
    def hardware(self) -> Card:
        if self.card != "custom":
            return CARDS[self.card]
        rates = (self.card_memory, self.card_teraflops, self.card_teraflops / 2, self.card_bandwidth, self.card_link, self.card_network)
        return Card("my own GPU", *rates, self.card_per_machine, "your own numbers; fp32 at half the rate")

    def job(self) -> Job:
        shape = self.shape
        attention: Any = self.attention if self.attention != "usual" else "written" if shape.dialect == "gpt" else "fused"
        return Job(shape, self.hardware, self.gpus, self.sequence, self.global_batch, self.precision, attention, self.dropout, self.overlap,
                   self.efficiency / 100, self.reserve)  # fmt: skip

    def plan(self) -> Plan:
        """The division that was asked for; d follows from the others unless it is given."""
        divided = self.tensor * self.pipeline
        if not self.data and self.gpus % divided:
            raise ValueError(f"gpus must be a multiple of tensor x pipeline, got {self.gpus} for {self.tensor} x {self.pipeline} = {divided}")
        recompute: Any = self.recompute
        data = self.data or self.gpus // divided
        micro_batches = self.global_batch // (data * self.micro_batch)
        chunks = self.interleave or smallest_interleave(self.shape.layers // self.pipeline or 1, self.pipeline, micro_batches)
        sequence = self.sequence_parallel and self.tensor > 1
        return Plan(data, self.tensor, self.pipeline, chunks, int(self.zero), recompute, self.micro_batch, sequence)


Row = tuple[str, tuple[float, ...]]


@dataclass(frozen=True)
class PlanStep(Step):
    """What is known so far. Bytes in GB (1e9), times in seconds."""

    memory: tuple[Row, ...] = ()  # who (this plan's stages, the best plan), items in the order of memory.ITEMS
    card: float = 0.0  # GB
    limit: float = 0.0  # GB, of which plans may use so many
    times: tuple[Row, ...] = ()  # who, parts in the order of timing.PARTS
    mfus: tuple[float, ...] = ()  # of those
    wish: tuple[int, int] = (0, 0)  # t and p that were asked for
    grid: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # all t, all p
    cells: tuple[tuple[int, int, bool, float, float, str], ...] = ()  # t, p, fits, MFU, GB, plan
    best: tuple[tuple[int, int, int, int, int, str, int, float, float, float], ...] = ()  # d, t, p, v, ZeRO, recompute, b, seconds, MFU, GB
    tried: int = 0
    verdict: str = ""
    formulas: tuple[tuple[str, str, str, str, str], ...] = ()  # name, letters, numbers, value, source
    published: tuple[tuple[str, str, float, float], ...] = ()  # paper, run, published, estimated, TFLOP/s per GPU or seconds
    weighed: tuple[tuple[str, float, float | None], ...] = ()  # kind, bytes predicted, measured
    counted: tuple[int, int, int, int] | None = None  # layers so far, of, weights so far, by formula
    others: tuple[tuple[str, float | None, float | None, str], ...] = ()  # calculator, GB of states, GB of activations, why


class Report:
    """A plan with all that follows from it."""

    def __init__(self, config: PlanConfig) -> None:
        self.config, self.job, self.plan = config, config.job(), config.plan()
        check_plan(self.job, self.plan)
        self.memory: Memory = fullest(self.job, self.plan)
        self.time: StepTime = step_time(self.job, self.plan)
        self.search = Search(self.job, self.plan)
        self.published = tuple((run.paper, run.name + (", theirs" if run.theirs else ""), run.published, run.estimate()) for run in (*TABLE_1, *TABLE_5))
        self.weighed: dict[str, float] = {}
        self.counted: tuple[int, int, int, int] | None = None
        self.others: tuple[Other, ...] = others(self.job, self.plan)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.job.limit

    def step(self, **told: Any) -> PlanStep:
        """Everything, small enough to be told again each time."""
        job, plan, search = self.job, self.plan, self.search
        best = search.ranked[0].plan if search.ranked else None
        stages = [("first stage", stage_memory(job, plan, 0)), ("last stage", stage_memory(job, plan, plan.pipeline - 1))][: plan.pipeline]
        bars = [(name if plan.pipeline > 1 else "this plan", memory) for name, memory in stages]
        bars += [("best found", fullest(job, best))] if best else []
        rows = [("this plan", self.time)] + ([("best found", step_time(job, best))] if best else [])
        cells = tuple((c.tensor, c.pipeline, c.fits, c.best.mfu, c.best.nbytes / GB, c.best.plan.words) for c in search.cells if c.best is not None)
        forecast = predicted(job, plan)
        return PlanStep(
            tuple((name, tuple(item / GB for item in memory.items)) for name, memory in bars), job.card.gigabytes, job.limit / GB,
            tuple((name, time.parts) for name, time in rows), tuple(time.mfu for _, time in rows), (plan.tensor, plan.pipeline), search.grid, cells,
            tuple(ranked_row(one) for one in search.ranked[:BEST]), search.tried, self.verdict(),
            tuple(line.row() for line in lines(job, plan, self.memory, self.time)), self.published,
            tuple((kind, forecast[kind], self.weighed.get(kind)) for kind in KINDS), self.counted,
            tuple((one.name, in_gigabytes(one.states), in_gigabytes(one.activations), one.why) for one in self.others), **told,
        )  # fmt: skip

    def verdict(self) -> str:
        """One sentence: whether it fits, and if not, which plan does."""
        need, limit, card = self.memory.total / GB, self.job.limit / GB, self.job.card.name
        if self.fits:
            speed = f"A step takes {self.time.seconds:.3g} s, MFU {self.time.mfu:.1%}."
            return f"It fits: {need:.1f} of {limit:.1f} GB ({card}, {self.job.reserve:g} % kept free). {speed}"
        told = f"It does not fit: {need:,.1f} GB for {limit:.1f} ({card}, {self.job.reserve:g} % kept free). "
        return told + (self.nearest() if self.search.done else "Looking for plans that do.")

    def nearest(self) -> str:
        """The plan that fits and differs least, or the one that needs the least."""
        near, least = self.search.nearest, self.search.least
        if near is not None:
            return f"The nearest plan that does: {near.plan.words}, {near.nbytes / GB:.1f} GB."
        if least is not None:
            return f"None does: the least any plan needs on {self.job.gpus:,} of them is {least.nbytes / GB:,.1f} GB ({least.plan.words})."
        return "No division of these GPUs divides heads, layers and batch."


def ranked_row(one: Found) -> tuple[int, int, int, int, int, str, int, float, float, float]:
    plan = one.plan
    return plan.data, plan.tensor, plan.pipeline, plan.interleave, plan.zero, plan.recompute, plan.micro, one.seconds, one.mfu, one.nbytes / GB


def in_gigabytes(nbytes: float | None) -> float | None:
    return None if nbytes is None else nbytes / GB


# --- figures ----------------------------------------------------------------------------------------------------------


def gap_percent(run: Run) -> float:
    """By how much the estimated speed differs from the published one."""
    ratio = run.estimate() / run.published
    return 100 * ((1 / ratio if run.paper == KORTHIKANTI else ratio) - 1)


def published_figures(report: Report) -> list[Compared]:
    """The runs of this model, where there are any, and the worst of all."""
    figures = []
    for run in (*TABLE_1, *TABLE_5):
        if run.shape != report.config.model:
            continue
        theirs = ", selective + sequence" if run.theirs else ""
        name = f"{run.name} on {run.gpus:,} A100{theirs}, {'seconds' if run.paper == KORTHIKANTI else 'TFLOP/s'}"
        unit = "s" if run.paper == KORTHIKANTI else "TFLOP/s per GPU"
        figures.append(Compared(name, unit, run.published, run.estimate(), run.paper + " (published); this planner (computed)", "computed"))
    foreseen = [gap_percent(run) for run in (*TABLE_1, *TABLE_5) if not (run.shape == CALIBRATED and run.paper != KORTHIKANTI)]
    worst = max(foreseen, key=abs)
    mean = sum(abs(gap) for gap in foreseen) / len(foreseen)
    source = f"{len(foreseen)} published runs on A100; efficiency {EFFICIENCY} from one other run"
    figures.append(Compared("worst gap to published runs", "%", 0.0, worst, source, "computed"))
    figures.append(Compared("mean gap to published runs, either way", "%", 0.0, mean, source, "computed"))
    return figures


def plan_figures(report: Report) -> list[Compared]:
    """This plan, the best one, and what fills the memory."""
    memory, time, best = report.memory, report.time, report.search.ranked[:1]
    source = "formulas of How it works"
    figures = [
        Compared("memory of a GPU", "GB", report.job.limit / GB, memory.total / GB, "predicted: what may be filled; workspace left out", "computed"),
        Compared("states of a GPU", "GB", None, sum(memory.items[:3]) / GB, "weights, gradients, optimizer", "computed"),
        Compared("activations of a GPU", "GB", None, memory.items[3] / GB, f"{memory.in_flight:g} micro-batches in flight", "computed"),
        Compared("step", "s", None, time.seconds, source, "computed"),
        Compared("MFU", "%", None, 100 * time.mfu, "model FLOPs over peak, no recomputation counted", "computed"),
    ]
    for found in best:
        figures.append(Compared("step of the best plan", "s", time.seconds, found.seconds, f"beside this plan; {found.plan.words}", "computed"))
    adam = next((one.states for one in report.others if one.name == "accelerate estimate"), None)
    if adam is not None:
        whole = report.job.shape.parameters * sum(report.job.states)
        source = "predicted: weights + gradients + optimizer; right: accelerate's own function, the largest of its parts"
        figures.append(Compared("training with Adam by accelerate", "GB", whole / GB, adam / GB, source, "computed"))
    return figures


def measured_figures(report: Report) -> list[Compared]:
    """The small model's bytes and the big one's weights."""
    forecast = predicted(report.job, report.plan)
    source = "the planner's formulas for a GPT of 867,072 weights, trained here on one device"
    figures = [Compared(f"small GPT, {kind}", "bytes", forecast[kind], report.weighed[kind], source) for kind in KINDS if kind in report.weighed]
    if report.counted is not None:
        figures.append(Compared("weights of the model", "count", report.counted[3], report.counted[2], "formula; counted by torch on the meta device"))
    return figures


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How do I divide this model over these GPUs: does it fit, how fast is it, and is there a better way?")
def plan(config: PlanConfig) -> Iterator[PlanStep]:
    """The plan by formula; the search, cell by cell; a small model weighed; the big one counted; the other calculators."""
    report = Report(config)
    cells = report.search.run()
    next(cells, None)
    yield report.step(doing=report.verdict())
    shown = 0
    for cell in cells:
        shown += cell.tried
        if shown > 40:
            shown = 0
            yield report.step(doing=f"{report.search.tried:,} plans tried")
    best: Found | None = report.search.ranked[0] if report.search.ranked else None
    yield report.step(doing=f"{report.search.tried:,} plans tried; the fastest that fits: {best.plan.words}" if best else report.verdict())
    for weighed in weigh(report.job, report.plan, config.seed):
        if weighed is not None:
            report.weighed[weighed[0]] = weighed[1]
            yield report.step(doing=f"a small GPT, trained: {weighed[0]} take {weighed[1]:,.0f} bytes")
        else:
            yield PlanStep()
    shape = report.job.shape
    for layers, weights in counted(shape):
        report.counted = (layers, shape.layers, weights, shape.parameters)
        yield report.step(doing=f"{layers} of {shape.layers} layers counted: {weights:,} weights") if layers % 16 == 0 else PlanStep()
    report.others = (*report.others, accelerate(report.job))
    figures = (*plan_figures(report), *published_figures(report), *measured_figures(report))
    yield report.step(figures=figures, doing=report.verdict())
