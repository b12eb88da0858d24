r"""Plan a training run: how much memory every GPU needs, how long a step takes, and which way to divide the work is the
best.

$N = d \cdot t \cdot p$ GPUs hold $d$ copies of the model, each cut into $p$ stages of layers, each layer over $t$ GPUs.
Memory and time follow from formulas (below the picture, each with this plan's numbers put in):

$$\text{bytes} = \underbrace{(g_w + g_g + g_o) P_r}_{\text{over } d \text{ by ZeRO}} + \underbrace{L A / p \cdot
\text{in flight}}_{\text{activations}} + ..$$

$$\text{step} = \Big(m + \frac{p-1}{v}\Big) \cdot \text{time of a micro-batch} + \dots$$

What to look for: tensor parallelism divides nearly everything and talks all the time, so it stays inside a machine. The
pipeline divides weights, not activations (the first stage has $p$ micro-batches in flight), and waits $(p-1)/(vm)$ of
the ideal time. ZeRO divides states over the copies, and no activations. Recomputation buys memory with a third more
arithmetic.

**The search** tries all divisions that fit heads, layers and batch, and shows the best of each $t \times p$.

**Is it true?** Three checks stand below. *Published runs:* one number, the fraction of the peak that matrix products
reach ($e$ = 0.63 on an A100), is chosen so that the 1.7B run of Narayanan et al. comes out; the 17 other runs are
predicted. All are Megatron on A100 GPUs, most with $t = 8$: for other GPUs nothing here was calibrated, and some
published runs on H100 are far slower than estimated. *Weighed:* a small GPT is trained here in the plan's
precision, and its bytes are counted. *Counted:* the model is built without memory and its weights are counted.

Code -> paper: `tensor` -> t, `pipeline` -> p, `data` -> d, `interleave` -> v, `micro_batch` -> b, `global_batch` -> B,
`sequence` -> s.
Left out: stages of unequal length; what transformers' own Llama keeps beside Megatron's layers (a fifth to a third more
activations); workspace of kernels and of NCCL, fragments (a part of the memory is kept free); latency of messages and
of kernel starts, so small micro-batches and small matrices look better than they are; expert and context parallelism
(experts are divided like other MLPs); offloading; causal attention's skipped half.
Source: Narayanan et al. 2021, arXiv:2104.04473; Korthikanti et al. 2022, arXiv:2205.05198; Rajbhandari et al. 2019,
arXiv:1910.02054.
"""

from collections.abc import Iterator

from core.foundations.experiment import experiment
from core.foundations.figures import Figure, Result
from core.planner.others import accelerate
from core.planner.papers import CALIBRATED, EFFICIENCY, KORTHIKANTI, TABLE_1, TABLE_5, Run
from core.planner.report import GB, PlanStep, Report
from core.planner.request import PlanConfig
from core.planner.search import Found
from core.planner.weigh import KINDS, counted, predicted, weigh

FORMULAS = "formulas of How it works"
MEMORY = Figure(
    "memory of a GPU", "GB", "limit", "the GPU's memory less what is kept free; no workspace", "computed", headline=True
)
STEP = Figure("time of a step", "s", None, FORMULAS, "computed", headline=True)
MFU = Figure(
    "model FLOPs utilization (MFU)",
    "%",
    None,
    "model FLOPs over the GPUs' peak, no recomputation counted",
    "computed",
    headline=True,
)
BEST_STEP = Figure("time of a step, best plan found", "s", "baseline", label="computed", headline=True)
STATES = Figure("states of a GPU", "GB", None, "weights, gradients, optimizer", "computed")
ACTIVATIONS = Figure("activations of a GPU", "GB", label="computed")
WHOLE_STATES = Figure(
    "weights, gradients, master copy and Adam",
    "GB",
    "baseline",
    "what accelerate estimate-memory prints for training with Adam: the largest part, not the sum",
    "computed",
)
PUBLISHED_SPEED = Figure("{run}", "TFLOP/s per GPU", "paper", label="computed")
PUBLISHED_TIME = Figure("{run}, time of a step", "s", "paper", label="computed")
WORST_GAP = Figure("worst gap to published runs", "%", label="computed")
MEAN_GAP = Figure("mean gap to published runs, either way", "%", label="computed")
SMALL_GPT = Figure(
    "small GPT, {kind}",
    "bytes",
    "theory",
    "the planner's formulas for a GPT of 867,072 weights, trained here on one device",
)
WEIGHTS = Figure("weights of the model", "count", "theory", "formula; counted by torch on the meta device")


# --- figures ----------------------------------------------------------------------------------------------------------


def gap_percent(run: Run) -> float:
    """By how much the estimated speed differs from the published one."""
    ratio = run.estimate() / run.published
    return 100 * ((1 / ratio if run.paper == KORTHIKANTI else ratio) - 1)


def published_figures(report: Report) -> list[Result]:
    """The runs of this model, where there are any, and the worst of all."""
    figures = list[Result]()
    for run in (*TABLE_1, *TABLE_5):
        if run.shape == report.config.model:
            name = f"{run.name} on {run.gpus:,} A100" + (", selective + sequence" if run.theirs else "")
            figure = PUBLISHED_TIME if run.paper == KORTHIKANTI else PUBLISHED_SPEED
            figures.append(figure.of(run=name)(run.estimate(), run.published, source=run.paper))
    gaps = [
        gap_percent(run) for run in (*TABLE_1, *TABLE_5) if not (run.shape == CALIBRATED and run.paper != KORTHIKANTI)
    ]
    source = f"{len(gaps)} published runs on A100; efficiency {EFFICIENCY} from one other run"
    figures.append(WORST_GAP(max(gaps, key=abs), source=source))
    figures.append(MEAN_GAP(sum(abs(gap) for gap in gaps) / len(gaps), source=source))
    return figures


def plan_figures(report: Report) -> list[Result]:
    """This plan, the best one, and what fills the memory."""
    memory, time, best = report.memory, report.time, report.search.ranked[:1]
    figures = [
        MEMORY(memory.total / GB, report.job.limit / GB),
        STEP(time.seconds),
        MFU(100 * time.mfu),
        *(BEST_STEP(found.seconds, time.seconds, source=f"this plan; the best: {found.plan.words}") for found in best),
        STATES(sum(memory.items[:3]) / GB),
        ACTIVATIONS(memory.items[3] / GB, source=f"{memory.in_flight:g} micro-batches in flight"),
    ]
    printed = next((one.states for one in report.others if one.name == "accelerate estimate"), None)
    if printed is not None:
        whole = report.job.shape.parameters * sum(report.job.states)
        figures.append(WHOLE_STATES(whole / GB, printed / GB))
    return figures


def measured_figures(report: Report) -> list[Result]:
    """The small model's bytes and the big one's weights."""
    forecast = predicted(report.job, report.plan)
    figures = [
        SMALL_GPT.of(kind=kind)(report.weighed[kind], forecast[kind]) for kind in KINDS if kind in report.weighed
    ]
    if report.counted is not None:
        figures.append(WEIGHTS(report.counted[2], report.counted[3]))
    return figures


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How do I divide this model over these GPUs: does it fit, how fast is it, and is there a better way?")
def plan(config: PlanConfig) -> Iterator[PlanStep]:
    """The plan by formula; the search, cell by cell; a small model weighed; the big one counted; the other
    calculators.
    """
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
    yield report.step(
        doing=(
            f"{report.search.tried:,} plans tried; the fastest that fits: {best.plan.words}"
            if best
            else report.verdict()
        )
    )
    for weighed in weigh(report.job, report.plan, config.seed):
        if weighed is not None:
            report.weighed[weighed[0]] = weighed[1]
            yield report.step(doing=f"a small GPT, trained: {weighed[0]} take {weighed[1]:,.0f} bytes")
        else:
            yield PlanStep()
    shape = report.job.shape
    for layers, weights in counted(shape):
        report.counted = (layers, shape.layers, weights, shape.parameters)
        yield (
            report.step(doing=f"{layers} of {shape.layers} layers counted: {weights:,} weights")
            if layers % 16 == 0
            else PlanStep()
        )
    report.others = (*report.others, accelerate(report.job))
    figures = (*plan_figures(report), *published_figures(report), *measured_figures(report))
    yield report.step(figures=figures, doing=report.verdict())
