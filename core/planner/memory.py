r"""Memory of one GPU, item by item, on the two stages that may be the fullest: the first of the pipeline, and the last.

| item | bytes |
|---|---|
| weights | $g_w P_r$, over $d$ with ZeRO 3 |
| gradients | $g_g P_r$, over $d$ with ZeRO 2 and 3 |
| optimizer | $g_o P_r$, over $d$ with ZeRO 1, 2 and 3 |
| activations | $\frac{L}{p} \cdot sbh\,A \cdot$ texts in flight, $A$ by Korthikanti's equations 1 to 6 |
| logits | $12sb\frac{V}{t}$ and the inputs of the last norm and product, on the last stage |
| unit in work | ZeRO 3: two units gathered; ZeRO 2 and 3: one gradient before it is divided; recomputation: what is there again of one layer |

$P_r$ are the weights of stage $r$ on one of its $t$ GPUs; $(g_w, g_g, g_o)$ = (2, 2, 12) in bf16. In flight on stage
$r$ are $\min(m, p - r)$ micro-batches, and interleaved with $v$ chunks $(2(p-r-1) + (v-1)p + 1)/v$ stages' worth of
them.

The logits are log-probabilities in 32 bits, kept, and for a moment their gradient and what it is made of (PyTorch's
cross-entropy; a fused one needs less). They are gone before the first layer is computed again, so of the two only the
larger counts.
"""  # noqa: E501 (a table)

from dataclasses import dataclass

from core.foundations.activation_bytes import per_sbh
from core.planner.job import Job, Plan

ITEMS = ("weights", "gradients", "optimizer", "activations", "logits", "unit in work")


@dataclass(frozen=True)
class Memory:
    """What one GPU of a stage holds, in bytes."""

    stage: int
    items: tuple[float, ...]  # in the order of ITEMS
    in_flight: float  # micro-batches whose activations are there at once
    parameters: float  # of this GPU, before ZeRO

    @property
    def total(self) -> float:
        return sum(self.items)


def stage_parameters(job: Job, plan: Plan, stage: int) -> float:
    """Weights of one GPU of a stage. Megatron keeps a second copy of a tied embedding on the last stage."""
    shape, t, last = job.shape, plan.tensor, plan.pipeline - 1
    layer = (shape.layer_matrices() + shape.split_biases) / t + shape.whole_vectors
    held = shape.layers / plan.pipeline * layer
    if stage == 0:
        held += shape.embedding / t + shape.positions * shape.width
    if stage == last:
        held += shape.last_norm + (0 if shape.tied and last == 0 else shape.embedding / t)
    return held


def in_flight(plan: Plan, micro_batches: int, stage: int) -> float:
    """Micro-batches' worth of a stage's activations that are there at the fullest moment."""
    behind = plan.pipeline - stage - 1
    if plan.interleave == 1:
        return min(micro_batches, behind + 1)
    chunks = 2 * behind + (plan.interleave - 1) * plan.pipeline + 1
    return min(micro_batches, chunks / plan.interleave)


def layer_bytes(job: Job, plan: Plan, recompute: str | None = None) -> float:
    """What one layer keeps of one micro-batch; of experts also what they were sent and what came back."""
    again = plan.recompute if recompute is None else recompute
    kept = per_sbh(job.layer, again, plan.tensor, plan.sequence)  # type: ignore[arg-type]
    if job.shape.experts and again != "full":
        kept += 2 * job.shape.chosen * job.number / (plan.tensor if plan.sequence else 1)
    return job.layer.sbh * plan.micro * kept


def logits_bytes(job: Job, plan: Plan) -> tuple[float, float]:
    """Kept: log-probabilities in 32 bits and two inputs. Passing: two more of the logits' size, on the way back."""
    whole = job.layer.sbh * plan.micro * 2 * job.number / (plan.tensor if plan.sequence else 1)
    scores = 4 * job.tokens * plan.micro * job.shape.vocabulary / plan.tensor
    return whole + scores, 2 * scores


def gathered_bytes(job: Job, plan: Plan) -> float:
    """What ZeRO has whole for a moment: at stage 3 the unit in work and the next one, at 2 and 3 a gradient."""
    shape, (weight, gradient, _) = job.shape, job.states
    largest = max(shape.layer_parameters, shape.embedding) / plan.tensor
    if plan.data == 1 or plan.zero < 2:
        return 0.0
    return (2 * weight if plan.zero == 3 else 0) * largest + gradient * largest


def again_bytes(job: Job, plan: Plan) -> float:
    """What recomputation brings back of one layer."""
    if plan.recompute == "none":
        return 0.0
    whole = layer_bytes(job, plan, "none")
    return whole if plan.recompute == "full" else whole - layer_bytes(job, plan)


def stage_memory(job: Job, plan: Plan, stage: int) -> Memory:
    """All items of one stage."""
    weight, gradient, optimizer = job.states
    parameters, share = stage_parameters(job, plan, stage), 1 / plan.data
    flying = in_flight(plan, job.micro_batches(plan), stage)
    activations = job.shape.layers / plan.pipeline * layer_bytes(job, plan) * flying
    if stage == 0 and job.layer.dropout:  # the mask of the dropout behind the embedding
        activations += job.layer.sbh * plan.micro * flying / (plan.tensor if plan.sequence else 1)
    logits, again = sum(logits_bytes(job, plan)) if stage == plan.pipeline - 1 else 0.0, again_bytes(job, plan)
    items = (
        weight * parameters * (share if plan.zero == 3 else 1),
        gradient * parameters * (share if plan.zero >= 2 else 1),
        optimizer * parameters * (share if plan.zero >= 1 else 1),
        activations,
        logits if logits >= again else 0.0,
        gathered_bytes(job, plan) + (again if again > logits else 0.0),
    )
    return Memory(stage, items, flying, parameters)


def fullest(job: Job, plan: Plan) -> Memory:
    """The first stage has the most in flight, the last one the logits."""
    stages = [stage_memory(job, plan, stage) for stage in {0, plan.pipeline - 1}]
    return max(stages, key=lambda one: one.total)


def zero_bytes(parameters: float, stage: int, ranks: int, states: tuple[int, int, int] = (2, 2, 12)) -> float:
    """ZeRO's own formula for weights, gradients and optimizer: 16P, 4P + 12P/N, 2P + 14P/N, 16P/N."""
    weight, gradient, optimizer = states
    shares = (ranks if stage == 3 else 1, ranks if stage >= 2 else 1, ranks if stage >= 1 else 1)
    return parameters * (weight / shares[0] + gradient / shares[1] + optimizer / shares[2])
