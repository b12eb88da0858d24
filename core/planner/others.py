"""What well-known calculators print for the same plan, by their formulas, and why it is not what stands here.

They are written down as they were read (the versions are named), with the true number of weights where theirs is not
the point. accelerate is installed here, so its own function is called.
"""

from dataclasses import dataclass

from core.planner.job import Job, Plan
from core.planner.memory import fullest, stage_memory


@dataclass(frozen=True)
class Other:
    """A calculator's bytes per GPU: weights with gradients and optimizer, and activations; None where it has none."""

    name: str
    states: float | None
    activations: float | None
    why: str


def playbook_parameters(width: int, layers: int, vocabulary: int) -> float:
    """12h^2 + 13h per layer and Vh: no shared keys, no gate, no output layer of its own."""
    return layers * (12 * width**2 + 13 * width) + vocabulary * width


def playbook(job: Job, plan: Plan) -> Other:
    """The widget of the Ultra-Scale Playbook: t and p divide none of the states; with sequence parallelism the scores
    stay whole.
    """
    shape, d, (weight, gradient, optimizer) = job.shape, plan.data, job.states
    n = playbook_parameters(shape.width, shape.layers, shape.vocabulary)
    shares = (d if plan.zero >= 3 else 1, d if plan.zero >= 2 else 1, d if plan.zero >= 1 else 1)
    states = n * (weight / shares[0] + gradient / shares[1] + optimizer / shares[2])
    activations = shape.layers * playbook_layer(job, plan)
    return Other(
        "Playbook widget",
        states,
        activations,
        "N = 12Lh^2 whatever the model; states not divided by t, nothing by p; 5as^2b not by t",
    )


def playbook_layer(job: Job, plan: Plan) -> float:
    """sbh (10 + 24/t) or, sequence parallel, 34 sbh/t; the scores divided by t only without it."""
    t, layer = plan.tensor, job.layer
    scores = 5 * layer.a * layer.s**2 * plan.micro
    if plan.recompute == "full":
        return 2 * layer.sbh * plan.micro
    if plan.sequence:
        return 34 * layer.sbh * plan.micro / t + (scores if plan.recompute == "none" else 0)
    return layer.sbh * plan.micro * (10 + 24 / t) + (scores / t if plan.recompute == "none" else 0)


def eleuther(job: Job, plan: Plan) -> Other:
    """EleutherAI's calc_transformer_mem.py: gradients in 32 bits, whole below ZeRO 2; ZeRO 3 divides weights by t, p
    and all GPUs.
    """
    n, divided = job.shape.parameters, plan.tensor * plan.pipeline
    weights = 2 * n / divided / (job.gpus if plan.zero == 3 else 1)
    gradients = 4 * n / (job.gpus if plan.zero >= 2 else 1)
    optimizer = 12 * n / (job.gpus if plan.zero >= 1 else 1)
    layer = job.layer
    per_token = 34 + (5 * layer.square if plan.recompute == "none" else 0)
    activations = layer.sbh * plan.micro * job.shape.layers * per_token
    why = (
        "gradients and optimizer not divided by t p; with ZeRO by all GPUs; recomputed layers still keep 34 sbh;"
        " activations not divided"
    )
    return Other("EleutherAI cookbook", weights + gradients + optimizer, activations, why)


def deepspeed(job: Job, plan: Plan) -> Other:
    """estimate_zero2/3_model_states_mem_needs: 2P + 18P/N and 4 x the largest layer + 18P/N."""
    n = job.shape.parameters
    if plan.zero < 2:
        return Other("DeepSpeed estimator", None, None, "has none for stages 0 and 1")
    kept = 2 * n if plan.zero == 2 else 4 * max(job.shape.layer_parameters, job.shape.embedding)
    return Other(
        "DeepSpeed estimator",
        kept + 18 * n / job.gpus,
        None,
        "18 bytes where the paper has 16 (gradients in fp32 as well); N is all GPUs; no activations",
    )


def megatron(job: Job, plan: Plan) -> Other:
    """theoretical_memory_usage.py: 18 bytes, or 6 + 12/d; always 34 sbh/t (SwiGLU: 18 + 4f/h), or 10 + 24/t and 5 %."""
    shape, t, p, v = job.shape, plan.tensor, plan.pipeline, plan.interleave
    block = shape.layers * shape.layer_parameters + shape.last_norm
    shard = (block / p + shape.embedding * (1 if shape.tied or p > 1 else 2)) / t
    each = 18 if plan.zero == 0 else 6 + 12 / plan.data
    whole = job.layer.sbh * plan.micro
    theirs = plan.sequence and plan.recompute == "selective"
    activations = whole * shape.layers * (18 + 4 * shape.mlp / shape.width if theirs else 10 + 24 / t)
    activations += (8 * job.tokens * plan.micro + whole) * p
    activations *= 1 + (p - 1) / (p * v) if v > 1 else min(1, job.micro_batches(plan) / p)
    if p == 1:
        scores = job.tokens * plan.micro * shape.vocabulary
        activations += 4 * (whole + scores) if theirs else 2 * (whole + scores / t)
    activations = activations / t if theirs else 1.05 * activations
    return Other(
        "Megatron report",
        shard * each,
        activations,
        "18 bytes (gradients in fp32), only ZeRO 0 and 1; knows only selective + sequence; the rest is 10 + 24/t",
    )


def accelerate_adam(parameters: int, precision: str) -> int:
    """accelerate's own number for training with Adam: the largest of its parts, not their sum."""
    from accelerate.commands.estimate import estimate_training_usage

    parts = estimate_training_usage(4 * parameters, "float32" if precision == "fp32" else "bfloat16")
    return max(parts.values())


def accelerate(job: Job) -> Other:
    """`accelerate estimate-memory`, called here."""
    states = accelerate_adam(job.shape.parameters, job.precision)
    each = states / job.shape.parameters
    why = f"the largest part, not the sum: {each:.0f} bytes per weight; one GPU, no activations"
    return Other("accelerate estimate", float(states), None, why)


def ours(job: Job, plan: Plan) -> Other:
    memory = fullest(job, plan)
    first = stage_memory(job, plan, memory.stage)
    return Other(
        "this plan", sum(first.items[:3]), sum(first.items[3:5]), f"stage {memory.stage + 1} of {plan.pipeline}"
    )


def others(job: Job, plan: Plan) -> tuple[Other, ...]:
    """All but accelerate's, which takes an import."""
    return ours(job, plan), playbook(job, plan), eleuther(job, plan), deepspeed(job, plan), megatron(job, plan)
