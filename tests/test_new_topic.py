"""make new-topic writes a skeleton that runs, follows all rules and passes its tests.

Tried in a copy of the project.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pages._kit import new_topic

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The files under git in a folder of their own, with a topic more."""
    folder = tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(ROOT / name) if name.startswith("assets/") else (folder / name).write_bytes(
                (ROOT / name).read_bytes()
            )
    run(folder, "-m", "pages._kit.new_topic", "settling")
    return folder


def run(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_new_topic_runs_from_the_terminal(copy):
    *_, last = run(copy, "-m", "core", "settling", "average", "--draws", "50").strip().split("\n")
    assert '"takeaways": ["After 50 draws the mean was 0.' in last


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_topic_passes_lint_and_its_tests(copy):
    run(copy, "-m", "ruff", "check", ".")
    run(copy, "-m", "ruff", "format", "--check", ".")
    if (ROOT / ".mypy_cache").exists():  # what `make check` has left: without it this takes two minutes
        shutil.copytree(ROOT / ".mypy_cache", copy / ".mypy_cache")
    run(copy, "-m", "mypy", "core/settling", "pages/settling")
    out = run(
        copy,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not browser",
        "-k",
        "settling or test_readme or contract or three_times",
        "tests/core/test_settling.py",
        "tests/test_experiments.py",
        "tests/test_readme.py",
        "tests/test_architecture.py",
    )
    assert "[100%]" in out and "FAILED" not in out
    assert "settling" in (copy / "app.py").read_text() and "| Settling | average |" in (copy / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "lower case letters"), ("Rope", "lower case letters"), ("a-b", "lower case letters"), ("nanogpt", "already")],
)
def test_a_bad_name_is_refused_in_one_sentence(name, sentence, refusal):
    assert sentence in refusal(new_topic.write, name)
