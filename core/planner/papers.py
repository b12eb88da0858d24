"""Runs that were published with their plan and their speed, to hold the formulas against.

Narayanan 2021 gives neither the micro-batch nor the number of chunks: 1 text is assumed, and the smallest interleaving
that divides the layers and the micro-batches. It counts recomputed FLOPs, too. Korthikanti 2022 gives seconds.
"""

from dataclasses import dataclass

from core.foundations.published_shapes import SHAPES
from core.planner.cards import CARDS
from core.planner.job import Job, Plan
from core.planner.timing import step_time

NARAYANAN = "Narayanan et al. 2021, table 1"
KORTHIKANTI = "Korthikanti et al. 2022, table 5"
CALIBRATED = "megatron-1.7b"  # the one run that the assumed efficiency comes from
EFFICIENCY = 0.63  # of the peak, so that this run comes out


@dataclass(frozen=True)
class Run:
    """A published run."""

    shape: str
    gpus: int
    batch: int
    tensor: int
    pipeline: int
    interleave: int
    micro: int
    published: float  # TFLOP/s per GPU (Narayanan), seconds per step (Korthikanti)
    paper: str
    theirs: bool = (
        False  # Korthikanti's selective recomputation and sequence parallelism, in place of full recomputation
    )

    @property
    def plan(self) -> Plan:
        data = self.gpus // (self.tensor * self.pipeline)
        return Plan(
            data,
            self.tensor,
            self.pipeline,
            self.interleave,
            0,
            "selective" if self.theirs else "full",
            self.micro,
            self.theirs,
        )

    def job(self, efficiency: float = EFFICIENCY) -> Job:
        """Attention written out with dropout, as it was then; messages not hidden."""
        return Job(
            SHAPES[self.shape],
            CARDS["a100-80"],
            self.gpus,
            2048,
            self.batch,
            "bf16",
            "written",
            True,
            False,
            efficiency,
        )

    def estimate(self, efficiency: float = EFFICIENCY) -> float:
        """In the paper's unit."""
        job = self.job(efficiency)
        time = step_time(job, self.plan)
        return time.seconds if self.paper == KORTHIKANTI else time.hardware_flops / time.seconds / job.gpus / 1e12

    @property
    def name(self) -> str:
        return SHAPES[self.shape].name.removeprefix("Megatron, ")


def narayanan(
    shape: str, tensor: int, pipeline: int, gpus: int, batch: int, teraflops: float, interleave: int = 1
) -> Run:
    return Run(shape, gpus, batch, tensor, pipeline, interleave, 1, teraflops, NARAYANAN)


TABLE_1 = (
    narayanan("megatron-1.7b", 1, 1, 32, 512, 137),
    narayanan("megatron-3.6b", 2, 1, 64, 512, 138),
    narayanan("megatron-7.5b", 4, 1, 128, 512, 142),
    narayanan("megatron-18b", 8, 1, 256, 1024, 135),
    narayanan("megatron-39b", 8, 2, 512, 1536, 138, 2),
    narayanan("megatron-76b", 8, 4, 1024, 1792, 140, 3),
    narayanan("megatron-146b", 8, 8, 1536, 2304, 148, 2),
    narayanan("megatron-310b", 8, 16, 1920, 2160, 155, 2),
    narayanan("megatron-530b", 8, 35, 2520, 2520, 163, 3),
    narayanan("megatron-1t", 8, 64, 3072, 3072, 163, 2),
)
TABLE_5 = tuple(
    Run(shape, gpus, batch, 8, gpus // 8, interleave, micro, seconds, KORTHIKANTI, theirs)
    for shape, gpus, batch, interleave, micro, full, ours in (
        ("megatron-22b", 8, 4, 1, 4, 1.42, 1.10),
        ("gpt-3", 64, 64, 3, 1, 18.13, 13.75),
        ("megatron-530b", 280, 280, 3, 1, 49.05, 37.83),
        ("megatron-1t", 512, 512, 1, 1, 94.42, 71.49),
    )
    for seconds, theirs in ((full, False), (ours, True))
)
