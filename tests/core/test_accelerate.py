"""The training loop on several processes: together they must learn what one process learns from the same global batch.

Started with torchrun: on a CPU, `accelerate launch --num_processes 2` starts one process and says nothing about it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SETTINGS = {"steps": 6, "n_layer": 1, "n_head": 2, "width": 16, "context": 16, "batch": 8, "learning_rate": 0.01}
WORKER = """
import sys
from pathlib import Path
from accelerate import PartialState
from core.__main__ import main

main(sys.argv[2:])
state = PartialState()
(Path(sys.argv[1]) / f"{state.process_index} of {state.num_processes}").touch()
"""


def last_of(folder, *launcher):
    """The last Step as the terminal form prints it, and which processes there were."""
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    words = [f"--{name}={value}" for name, value in SETTINGS.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, worker, folder, "nanogpt", "train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.strip().split("\n")
    assert len(lines) == 1, "of several processes one speaks"
    return json.loads(lines[0])["last"], sorted(path.name for path in folder.glob("* of *"))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, processes = last_of(tmp_path / "one")
    assert processes == ["0 of 1"]
    two, processes = last_of(tmp_path / "two", *TORCHRUN)
    assert processes == ["0 of 2", "1 of 2"]
    assert two["step"] == one["step"] == 6
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-3)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-3)
