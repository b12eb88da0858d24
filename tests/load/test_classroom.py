"""Half a class over real connections: no errors, and everyone sees the model learn. The whole class: python -m
tests.load.classroom
"""

import subprocess
import sys

import pytest

from tests.bench.ledger import ROOT


@pytest.mark.load
@pytest.mark.timeout(900)
def test_twelve_students_press_run_at_once():
    ended = subprocess.run(
        [sys.executable, "-m", "tests.load.classroom", "--clients", "12"], cwd=ROOT, capture_output=True, text=True
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
