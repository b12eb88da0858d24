r"""Time of a step: what a micro-batch costs one stage, how often it does, and what is waited for.

| part | seconds |
|---|---|
| matmuls | $3F/(t\,e\,\text{peak})$: $F = 2s\,b\,P_{matrices} + 4bs^2h$ forward per layer, twice that backward |
| other operations | $6K/\text{bandwidth}$: each of the $K$ bytes that a layer keeps is written and read once forward, twice backward |
| recomputation | one more forward pass of the layers (full) or of attention's core (selective) |
| tensor communication | 4 all-reduces per layer, 6 with full recomputation: $\frac{2(t-1)}{t} \cdot 2sbh$ bytes each |
| pipeline communication | $2v$ times $2sbh/t$ bytes per micro-batch |
| bubble | $\frac{p-1}{v}$ micro-batches' time |
| data communication | ring over $d$: $\frac{d-1}{d} P_r$ times the bytes of a gradient and of a weight |
| optimizer | every byte of its state read and written once |

A stage works through $m$ micro-batches; the last one has the logits on top, and the slowest sets the pace. Ranks are
numbered tensor first, then data, then pipeline, so what fits into one machine goes over its links, the rest over the
network. A group that crosses machines has the adapters of all its members in a machine: with $t = 8$ one for each copy,
with $t = 1$ (FSDP) all eight.
"""  # noqa: E501 (a table)

import math
from dataclasses import dataclass

from core.planner.job import Job, Plan
from core.planner.memory import layer_bytes, logits_bytes, stage_parameters

PARTS = (
    "matmuls",
    "other operations",
    "recomputation",
    "tensor communication",
    "pipeline communication",
    "bubble",
    "data communication",
    "optimizer",
)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one training step by part, and what it achieves."""

    parts: tuple[float, ...]  # in the order of PARTS
    model_flops: float  # of the whole step, without recomputation
    hardware_flops: float  # with it
    messages: float  # seconds of data-parallel messages, hidden ones included
    mfu: float  # model FLOPs over what all cards could do in that time
    micro_seconds: float  # of one micro-batch on one stage

    @property
    def seconds(self) -> float:
        return sum(self.parts)


def layer_flops(job: Job) -> tuple[float, float]:
    """Forward, of one text: with the weights, and in the core of attention (the whole square, as the papers count)."""
    return 2.0 * job.tokens * job.shape.layer_matrices(active=True), 4.0 * job.tokens**2 * job.shape.width


def head_flops(job: Job) -> float:
    return 2.0 * job.tokens * job.shape.embedding


def model_flops(job: Job) -> float:
    """Forward and backward, three times forward: 72BLsh^2 (1 + s/6h + V/12hL) for GPT."""
    return 3 * job.batch * (job.shape.layers * sum(layer_flops(job)) + head_flops(job))


def hardware_flops(job: Job, plan: Plan) -> float:
    """What is really computed: full recomputation gives Narayanan's 96BsLh^2 (1 + s/6h + V/16hL)."""
    matrices, core = layer_flops(job)
    again = {"none": 0.0, "selective": 0.0 if job.layer.fused else core, "full": matrices + core}[plan.recompute]
    return model_flops(job) + job.batch * job.shape.layers * again


def link_rate(job: Job, members: int, spacing: int = 1) -> float:
    """Bytes per second of a ring over a group of so many ranks, each `spacing` ranks from the next.

    Inside a machine it is the link. Across machines NCCL opens one ring per network adapter through all members that
    stand in a machine, so they have the adapters of all of them together, and no more than the link.
    """
    card = job.card
    if card.per_machine % (members * spacing) == 0:
        return 1e9 * card.link
    in_machine = math.gcd(members, max(1, card.per_machine // spacing))
    return 1e9 * min(card.link, card.network * in_machine)


def stage_rate(job: Job) -> float:
    """Bytes per second from a GPU to its partner in the next stage: one adapter, where they are in other machines."""
    return 1e9 * (job.card.link if job.card.per_machine % job.gpus == 0 else job.card.network)


def tensor_message(job: Job, plan: Plan) -> float:
    """Seconds of one all-reduce of a layer's output, or of the gather and scatter that sequence parallelism has in its
    place.
    """
    t = plan.tensor
    return 2 * (t - 1) / t * job.number * job.layer.sbh * plan.micro / link_rate(job, t)


def data_messages(job: Job, plan: Plan) -> float:
    """Seconds of the gradients' (and weights') way over the copies.

    ZeRO 2 and 3 send again for every micro-batch: they keep no whole gradient.
    """
    d, (weight, gradient, _) = plan.data, job.states
    if d == 1:
        return 0.0
    parameters = max(stage_parameters(job, plan, stage) for stage in {0, plan.pipeline - 1})
    m = job.micro_batches(plan)
    per_weight = {0: 2 * gradient, 1: gradient + weight, 2: m * gradient + weight, 3: m * (gradient + 2 * weight)}[
        plan.zero
    ]
    return (d - 1) / d * parameters * per_weight / link_rate(job, d, plan.tensor)


def layer_seconds(job: Job, plan: Plan) -> tuple[float, float, float, float]:
    """Of one layer and one micro-batch: products, other operations, recomputation, messages."""
    rate, bandwidth = job.efficiency * job.peak * plan.tensor, 1e9 * job.card.memory
    matrices, core = (plan.micro * flops / rate for flops in layer_flops(job))
    kept = layer_bytes(job, plan, "none")
    message = tensor_message(job, plan)
    again = {
        "none": 0.0,
        "selective": 0.0 if job.layer.fused else core + 2 * (kept - layer_bytes(job, plan, "selective")) / bandwidth,
        "full": matrices + core + 2 * kept / bandwidth,
    }[plan.recompute]
    return 3 * (matrices + core), 6 * kept / bandwidth, again, message * (6 if plan.recompute == "full" else 4)


def head_seconds(job: Job, plan: Plan) -> tuple[float, float]:
    """The output layer on the last stage: products, and reading and writing the logits."""
    products = 3 * plan.micro * head_flops(job) / (job.efficiency * job.peak * plan.tensor)
    return products, 3 * logits_bytes(job, plan)[1] / (1e9 * job.card.memory)


def step_time(job: Job, plan: Plan) -> StepTime:
    """All parts of a step on the stage that sets the pace."""
    p, v, m, layers = plan.pipeline, plan.interleave, job.micro_batches(plan), job.shape.layers / plan.pipeline
    products, others, again, tensor = (layers * part for part in layer_seconds(job, plan))
    head, scores = head_seconds(job, plan)
    sends = 2 * v * job.number * job.layer.sbh * plan.micro / plan.tensor / stage_rate(job) if p > 1 else 0.0
    one = products + others + again + tensor + sends
    bubble = (p - 1) / v * one
    messages = data_messages(job, plan)
    hidden = 0.0
    if job.overlap:  # ZeRO 3 talks all the time, the others during the last backward pass
        hidden = m * one if plan.zero == 3 else (m if plan.zero == 2 else 1) * 2 / 3 * (products + others) + again
    _, gradient, state = job.states
    share = 1 / plan.data if plan.zero else 1.0
    update = share * (gradient + 2 * state) * stage_parameters(job, plan, 0) / (1e9 * job.card.memory)
    parts = (
        m * (products + head),
        m * (others + scores),
        m * again,
        m * tensor,
        m * sends,
        bubble,
        max(0.0, messages - hidden),
        update,
    )
    seconds = sum(parts)
    useful = model_flops(job)
    return StepTime(parts, useful, hardware_flops(job, plan), messages, useful / (seconds * job.gpus * job.peak), one)
