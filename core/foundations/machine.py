"""What this machine is. It stands beside every measured number, since a measurement without its machine says little."""

import functools
import importlib.util
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """What a measured number was measured on."""

    processor: str
    cores: int  # logical processors this process may use
    ram_gib: float
    gpu: str | None  # None: torch has no GPU to use
    vram_gib: float
    driver: str | None  # of an NVIDIA GPU, whether torch can use it or not
    torch_version: str
    fast_dtype: str  # the dtype in which matrix products are fast here: float32, float16 or bfloat16
    warning: str | None  # a GPU is there and torch cannot use it: what is wrong and how to fix it

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def name(self) -> str:
        """One line for a caption: '2 cores of AMD EPYC, 23 GiB RAM, no GPU, torch 2.13.0'."""
        gpu = f"{self.gpu} ({self.vram_gib:.0f} GiB)" if self.gpu else "no GPU"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{cores} of {self.processor}, {self.ram_gib:.0f} GiB RAM, {gpu}, torch {self.torch_version}"


@functools.cache
def this_machine() -> Machine:
    """Looked up once; asking the driver takes a moment."""
    import psutil

    driver = nvidia_driver()
    usable = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if usable else None
    return Machine(
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        ram_gib=psutil.virtual_memory().total / 2**30,
        gpu=properties.name if properties else None,
        vram_gib=properties.total_memory / 2**30 if properties else 0.0,
        driver=driver,
        torch_version=torch.__version__,
        fast_dtype=fast_dtype(properties.major if properties else None),
        warning=None if usable else gpu_warning(driver, os.environ.get("ACCELERATOR", "none"), torch.version.cuda),
    )


def fast_dtype(compute_capability: int | None) -> str:
    """bfloat16 has hardware from Ampere (8.0) on; a T4 (7.5) has only float16; on a CPU float16 is 5-10x slower."""
    if compute_capability is None:
        return "float32"
    return "bfloat16" if compute_capability >= 8 else "float16"


def gpu_warning(driver: str | None, accelerator: str, built_for: str | None) -> str | None:
    """One sentence when a GPU is in the machine and torch cannot use it, else None.

    `driver` is the NVIDIA driver's version if one answers, `accelerator` what a Hugging Face Space promises
    ('none', 't4-small' ...), `built_for` the CUDA version of the installed torch (None: a CPU build).
    """
    promised = accelerator not in ("", "none", "cpu-basic", "cpu-upgrade")
    if driver is None and not promised:
        return None
    there = f"an NVIDIA GPU (driver {driver})" if driver else f"a GPU ({accelerator})"
    if built_for is None:
        return (
            f"This machine has {there}, but the installed torch is a CPU build, so all runs on the CPU. To fix it,"
            " pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"
        )
    return (
        f"This machine has {there}, but torch was built for CUDA {built_for} and cannot use it, so everything runs on"
        " the CPU. To fix it, update the driver, or install the CUDA 12.6 build as pre-requirements.txt does."
    )


def nvidia_driver() -> str | None:
    """The driver's version as nvidia-smi tells it, None where there is no NVIDIA GPU."""
    if not Path("/proc/driver/nvidia").exists() and os.name != "nt":
        return None
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.split("\n")[0].strip() or None if answer.returncode == 0 else None


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def mend_torchvision() -> torch.library.Library | None:
    """Let `import torchvision` succeed beside a torch its C++ operators were not built for (a CPU torch, say).

    transformers, peft, diffusers and open_clip import torchvision for its Python transforms; its import stops at
    "operator torchvision::nms does not exist" when the compiled operators cannot load. Then the schemas of the two
    operators that the import looks up are declared, without an implementation. With matching wheels nothing is done.
    The caller keeps the returned library alive.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return None
    for folder in found.submodule_search_locations:
        for compiled in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(compiled))
                return None
            except OSError:
                continue
    schemas = torch.library.Library("torchvision", "DEF")
    schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return schemas
