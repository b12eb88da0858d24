"""What is to be trained, on what, and one way to divide it: the letters of all formulas of this topic.

`Job`: the model, the GPU, N of them, s tokens per text, B texts per step, and how its numbers are stored. `Plan`: d
copies of the model
(data parallel), each over p stages (pipeline) of t GPUs (tensor parallel); b texts per micro-batch, so $m = B/(db)$
micro-batches.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from core.foundations.activation_bytes import Layer, Recompute
from core.foundations.published_shapes import ModelShape
from core.planner.cards import Card

PRECISIONS = {
    "bf16": "bf16, master copy in fp32",
    "bf16-fp32": "bf16, gradients and master in fp32",
    "fp32": "fp32 (products in TF32)",
}
STATES: dict[str, tuple[int, int, int]] = {
    "bf16": (2, 2, 12),
    "bf16-fp32": (2, 4, 12),
    "fp32": (4, 4, 8),
}  # bytes of a weight, its gradient, its optimizer
ATTENTION = {
    "usual": "GPT: written out, Llama: fused",
    "written": "written out: s x s scores kept",
    "fused": "fused (FlashAttention)",
}
ZERO = {"0": "0: nothing", "1": "1: optimizer", "2": "2: and gradients", "3": "3: and weights"}
RECOMPUTE = {"none": "nothing", "selective": "core of attention", "full": "whole layers"}


@dataclass(frozen=True)
class Plan:
    """One way to divide the work."""

    data: int  # d
    tensor: int  # t
    pipeline: int  # p
    interleave: int  # v: chunks of layers per stage
    zero: int
    recompute: Recompute
    micro: int  # b
    sequence: bool  # sequence parallel: over the same t GPUs

    @property
    def gpus(self) -> int:
        return self.data * self.tensor * self.pipeline

    @property
    def words(self) -> str:
        """'d 24, t 8, p 8, v 2, ZeRO 1, recompute full, b 1'."""
        stages = f"p {self.pipeline}" + (f", v {self.interleave}" if self.interleave > 1 else "")
        return f"d {self.data}, t {self.tensor}, {stages}, ZeRO {self.zero}, recompute {self.recompute}, b {self.micro}"


@dataclass(frozen=True)
class Job:
    """The model, the machine and the batch: what all plans have in common."""

    shape: ModelShape
    card: Card
    gpus: int
    tokens: int  # s, of a text
    batch: int  # B, texts of a step
    precision: str = "bf16"
    attention: Literal["written", "fused"] = "fused"
    dropout: bool = False
    overlap: bool = True  # data-parallel messages go out during the backward pass
    efficiency: float = 0.7  # of the card's peak that matrix products reach: an assumption
    reserve: float = 10.0  # % of the memory left free for workspace, buffers and fragments: an assumption

    @property
    def states(self) -> tuple[int, int, int]:
        return STATES[self.precision]

    @property
    def number(self) -> int:
        """Bytes of an activation."""
        return 4 if self.precision == "fp32" else 2

    @property
    def peak(self) -> float:
        """FLOP/s of the card's data sheet."""
        return 1e12 * (self.card.teraflops_fp32 if self.precision == "fp32" else self.card.teraflops)

    @property
    def limit(self) -> float:
        """Bytes a plan may use."""
        return self.card.gigabytes * 1e9 * (1 - self.reserve / 100)

    @cached_property
    def layer(self) -> Layer:
        """One layer and one text, in the letters of `activation_bytes`.

        A token that passes through c experts fills c MLPs.
        """
        shape = self.shape
        fused, dropout = self.attention == "fused", self.dropout and shape.dialect == "gpt"
        mlp = shape.mlp * (shape.chosen if shape.experts else 1)
        return Layer(
            self.tokens,
            1,
            shape.width,
            shape.heads,
            fused,
            dropout,
            self.number,
            1,
            shape.dialect,
            mlp,
            shape.key_heads,
        )

    def micro_batches(self, plan: Plan) -> int:
        return self.batch // (plan.data * plan.micro)


def divisors(number: int) -> list[int]:
    small = [one for one in range(1, int(number**0.5) + 1) if number % one == 0]
    return sorted({*small, *(number // one for one in small)})


def smallest_interleave(layers_of_stage: int, stages: int, micro_batches: int) -> int:
    """The smallest number of chunks above 1 that divides a stage's layers, where there are stages and whole rounds of
    micro-batches; else 1.
    """
    if stages == 1 or micro_batches % stages:
        return 1
    return next((chunks for chunks in divisors(layers_of_stage) if chunks > 1), 1)


def check_plan(job: Job, plan: Plan) -> None:
    """Raise `ValueError` with one sentence where the plan does not divide the job."""
    shape, d, t, p, v = job.shape, plan.data, plan.tensor, plan.pipeline, plan.interleave
    if plan.gpus != job.gpus:
        raise ValueError(f"data x tensor x pipeline must be the {job.gpus} GPUs, got {d} x {t} x {p} = {plan.gpus}")
    if shape.heads % t or shape.key_heads % t:
        heads = f"{shape.heads} heads" + (
            f" and the {shape.key_heads} heads of keys" if shape.key_heads != shape.heads else ""
        )
        raise ValueError(f"tensor must divide the {heads} of {shape.name}, got {t}")
    if shape.layers % p:
        near = sorted(divisors(shape.layers), key=lambda one: abs(one - p))[:2]
        raise ValueError(
            f"pipeline must divide the {shape.layers} layers of {shape.name} (as {' and '.join(map(str, sorted(near)))}"
            f" do), got {p}"
        )
    if shape.layers % (p * v):
        raise ValueError(
            f"pipeline x interleave must divide the {shape.layers} layers of {shape.name}, got {p} x {v} = {p * v}"
        )
    if job.batch % (d * plan.micro):
        raise ValueError(
            f"global_batch must be a multiple of data x micro_batch, got {job.batch} texts for {d} x {plan.micro} ="
            f" {d * plan.micro}"
        )
    if v > 1 and p == 1:
        raise ValueError(f"interleave must be 1 where the pipeline has one stage, got {v}")
    if v > 1 and job.micro_batches(plan) % p:
        raise ValueError(
            f"interleaved stages need micro-batches in multiples of pipeline, got {job.micro_batches(plan)} for {p}"
            " stages: choose another micro_batch"
        )


def fits_together(job: Job, plan: Plan) -> bool:
    """Whether `check_plan` has nothing to say."""
    try:
        check_plan(job, plan)
    except ValueError:
        return False
    return True
