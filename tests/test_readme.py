"""The README's table and the syllabus say the same."""

import importlib
import inspect
import sys
from pathlib import Path

import app
from core.foundations.experiment import experiments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_has_a_row_for_each_experiment():
    for chapter in app.SYLLABUS:
        for topic in chapter.topics:
            title = importlib.import_module(f"pages.{topic}").PAGE.title
            for one in experiments(topic).values():
                file = Path(inspect.getsourcefile(sys.modules[one.run.__module__])).relative_to(ROOT).as_posix()
                assert f"| {title} | {one.name} | {one.question} | `{file}` |" in README


def test_commands_are_those_that_ci_runs():
    command = "pip install -r requirements.txt -r tests/requirements.txt && make test"
    assert command in README
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


def test_front_matter_names_the_pinned_gradio():
    pinned = next(line.split("==")[1] for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("gradio=="))
    assert f"sdk_version: {pinned}\n" in README
