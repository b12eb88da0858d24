"""python -m tests.bench [--quick] [--record]: every benchmark, one after the other, each in a process of its own."""

import subprocess
import sys

from tests.bench.ledger import ROOT

BENCHES = (
    "startup",
    "browser",
    "first_step",
    "model_room",
    "generation",
    "training",
    "lora",
    "real_model",
    "nf4",
    "attention",
    "decode",
    "clip",
    "painting",
    "ranks",
    "pipeline",
    "quality",
)

if __name__ == "__main__":
    failed = [
        name
        for name in BENCHES
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *sys.argv[1:]], cwd=ROOT).returncode
    ]
    sys.exit(f"did not run to the end: {', '.join(failed)}" if failed else 0)
