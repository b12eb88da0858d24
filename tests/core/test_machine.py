"""What the machine says about itself, in the cases this machine is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.foundations.machine import fast_dtype, gpu_warning, this_machine

ROOT = Path(__file__).parents[2]

WARNINGS = {
    "no GPU": (None, "none", None, None),
    "no GPU, a CUDA build": (None, "none", "12.6", None),
    "a Space without a GPU": (None, "cpu-basic", None, None),
    "a bigger Space without a GPU": (None, "cpu-upgrade", None, None),
    "an empty promise": (None, "", None, None),
    "a driver and a CPU build": (
        "550.54",
        "none",
        None,
        ("an NVIDIA GPU (driver 550.54)", "a CPU build", "pip install torch"),
    ),
    "an old driver and a CUDA build": (
        "470.82",
        "none",
        "12.6",
        ("an NVIDIA GPU (driver 470.82)", "CUDA 12.6", "update the driver"),
    ),
    "a Space that promises a T4, a CPU build": (None, "t4-small", None, ("a GPU (t4-small)", "a CPU build")),
    "a Space that promises a T4, a CUDA build": (None, "t4-small", "12.6", ("a GPU (t4-small)", "CUDA 12.6")),
}


@pytest.mark.parametrize(("driver", "accelerator", "built_for", "told"), WARNINGS.values(), ids=WARNINGS)
def test_a_gpu_that_cannot_be_used_is_told(driver, accelerator, built_for, told):
    warning = gpu_warning(driver, accelerator, built_for)
    if told is None:
        assert warning is None
    else:
        assert "\n" not in warning and "runs on the CPU" in warning and "To fix it, " in warning
        assert [part for part in told if part not in warning] == []


@pytest.mark.parametrize(("capability", "dtype"), [(None, "float32"), (7, "float16"), (8, "bfloat16"), (9, "bfloat16")])
def test_fast_dtype(capability, dtype):
    assert fast_dtype(capability) == dtype


def test_this_machine_is_told_in_one_line():
    machine = this_machine()
    assert machine.cores >= 1 and machine.ram_gib > 0.1
    assert machine.device == ("cuda" if machine.gpu else "cpu")
    assert "\n" not in machine.name and machine.processor in machine.name and machine.torch_version in machine.name


@pytest.mark.slow
def test_torchvision_imports_beside_any_torch():
    """`import core` first, then the libraries that pull torchvision in; nothing is said about it (peft says something
    else).
    """
    done = subprocess.run(
        [sys.executable, "-c", "import core, torchvision, open_clip, peft"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not re.search(r"torchvision|nms|Warning|Traceback|core/", done.stderr), done.stderr
