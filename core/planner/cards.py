"""GPUs as their makers describe them: memory, rates of arithmetic and of memory, links. GB is 1e9 bytes, everything
dense, one direction.

What a card reaches is less: kernels are not perfect (`Job.efficiency` says by how much), links have overheads, and a
driver keeps some memory for itself. The network is what one GPU has of its machine's: eight adapters for eight GPUs, or
one for all.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU, and where it stands."""

    name: str
    gigabytes: float
    teraflops: float  # of 16-bit products
    teraflops_fp32: float  # of 32-bit products: TF32 from Ampere on
    memory: float  # GB/s
    link: float  # GB/s to a neighbour in the same machine, one direction
    network: float  # GB/s to another machine, one direction, per GPU
    per_machine: int
    source: str


CARDS = {
    "t4": Card(
        "T4, 16 GB",
        16,
        65,
        8.1,
        320,
        16,
        1.5625,
        8,
        "NVIDIA T4 data sheet (fp16, PCIe 3.0); 8 T4 share 100 Gbit/s in AWS g4dn.metal",
    ),
    "a100-40": Card(
        "A100, 40 GB", 40, 312, 156, 1555, 300, 25, 8, "NVIDIA A100 data sheet; DGX A100: 8 x 200 Gbit/s for 8 GPUs"
    ),
    "a100-80": Card(
        "A100, 80 GB",
        80,
        312,
        156,
        2039,
        300,
        25,
        8,
        "NVIDIA A100 data sheet; Narayanan et al. 2021, section 5: 8 x 200 Gbit/s for 8 GPUs",
    ),
    "h100": Card(
        "H100, 80 GB",
        80,
        989,
        494.5,
        3350,
        450,
        50,
        8,
        "NVIDIA H100 SXM data sheet; DGX H100: 8 x 400 Gbit/s for 8 GPUs",
    ),
    "h200": Card(
        "H200, 141 GB", 141, 989, 494.5, 4800, 450, 50, 8, "NVIDIA H200 data sheet; DGX H200: 8 x 400 Gbit/s for 8 GPUs"
    ),
    "b200": Card(
        "B200, 180 GB",
        180,
        2250,
        1125,
        8000,
        900,
        50,
        8,
        "NVIDIA DGX B200 data sheet, a half of its sparse rates; 8 x 400 Gbit/s for 8 GPUs",
    ),
}
