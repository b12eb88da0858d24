"""The rules of the house, each with its reason where it breaks."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW_TO_IMPORT = {"transformers", "diffusers", "peft", "bitsandbytes", "open_clip", "accelerate", "sklearn"}
OURS = ("app.py", "core", "pages", "tests", "assets")
SOURCES = sorted(path for folder in ("core", "pages") for path in (ROOT / folder).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def here(path):
    return path.relative_to(ROOT).as_posix()


def length_of(node):
    return node.end_lineno - node.lineno + 1


def assert_none(found):
    """Nothing was found against the rule; else all of it is told, which `== []` cuts short."""
    found = sorted(found)
    assert not found, "\n" + "\n".join(found)


@pytest.fixture(scope="module")
def app():
    """The syllabus and what `import app` brought in, from a process of its own."""
    code = (
        "import json, sys, app; print(json.dumps([[topic for chapter in app.SYLLABUS for topic in chapter.topics],"
        " sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    topics, modules = json.loads(done.stdout.strip().split("\n")[-1])
    return topics, set(modules)


# --- one slug, three places -------------------------------------------------------------------------------------------


def slugs(folder, prefix=""):
    found = (
        path.stem
        for path in (ROOT / folder).glob(f"{prefix}*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    return {name.removeprefix(prefix) for name in found if not name.removeprefix(prefix).startswith("_")}


@pytest.mark.slow
def test_a_topic_has_its_name_three_times(app):
    topics, _ = app
    core, pages = slugs("core") - {"foundations", "glossary"}, slugs("pages") - {"start"}
    syllabus = set(topics)
    tests, missing = slugs("tests/core", "test_"), []
    for topic in sorted(core | pages | syllabus):
        missing += [f"core/{topic}.py is missing: the topic's backend"] if topic not in core else []
        missing += [f"pages/{topic}.py is missing: the topic's tab"] if topic not in pages else []
        missing += [f"tests/core/test_{topic}.py is missing: the topic's tests"] if topic not in tests else []
        missing += (
            [f"app.py does not name {topic} in its SYLLABUS: nobody can reach the tab"] if topic not in syllabus else []
        )
    assert_none(missing)
    assert len(topics) == len(syllabus), "a topic stands in the syllabus twice"


# --- small files, small functions, names that say something -----------------------------------------------------------


def test_files_are_short_enough_to_read():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert_none(f"{here(path)} has {number} lines" for path, number in lines.items() if number > 462)


def test_functions_are_short_enough_to_read():
    functions = [(path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    assert_none(
        f"{here(path)}: {node.name} has {length_of(node)} lines" for path, node in functions if length_of(node) > 60
    )


def test_no_file_is_a_drawer_for_odds_and_ends():
    """A file is named by a noun for what it holds."""
    drawers = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
    files = [path for part in OURS for path in ([ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*"))]
    assert_none(here(path) for path in files if path.stem in drawers)


def test_what_is_public_in_core_says_what_it_is():
    """A docstring, or so small that it says it itself."""
    silent = []
    for path, tree in TREES.items():
        if path.is_relative_to(ROOT / "core") and not path.stem.startswith(
            "lesson"
        ):  # there names say what is returned
            for node in tree.body:
                public = isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
                if public and ast.get_docstring(node) is None and length_of(node) > 8:
                    silent.append(f"{here(path)}: {node.name} ({length_of(node)} lines)")
    assert_none(silent)


def test_no_mode_of_torch_is_held_across_a_yield():
    """All runs share one thread per device: a mode that is on at a yield is on for another user's run."""
    held = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            mode = isinstance(node, ast.With) and re.search(
                r"no_grad|inference_mode|autocast|set_grad_enabled", ast.dump(node.items[0])
            )
            if mode and any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(node)):
                held.append(f"{here(path)}:{node.lineno}")
    assert_none(held)


def test_core_seeds_nothing_globally():
    """Randomness is a seed in the Config, turned into a torch.Generator."""
    seeds = re.compile(r"\b(torch\.manual_seed|np\.random\.seed|random\.seed|seed_everything|set_seed)\(")
    found = [
        here(path) for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines() if seeds.search(line)
    ]
    assert_none(found)


# --- imports ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_starting_the_app_imports_nothing_slow(app):
    """They are imported inside the function that needs them, and warmed behind the running server."""
    _, modules = app
    assert_none(SLOW_TO_IMPORT & modules)


def test_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    assert kept and int(kept[1]) >= 4


def test_a_topic_that_imports_another_breaks_a_contract(tmp_path):
    """The contracts name topics by a wildcard: a new one is bound without being written down."""
    shutil.copytree(ROOT / "core", tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "pages", tmp_path / "pages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "core" / "newcomer").mkdir()
    (tmp_path / "core" / "newcomer" / "__init__.py").write_text("import core.lora.toy\n")
    (tmp_path / "pages" / "newcomer.py").write_text("import pages.lora\n")
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=tmp_path, capture_output=True, text=True)
    assert "core.newcomer -> core.lora.toy" in done.stdout and "pages.newcomer -> pages.lora" in done.stdout


# --- what is shipped --------------------------------------------------------------------------------------------------


def test_the_space_runs_the_gradio_that_is_tested():
    """A Space installs the sdk_version of README.md, a laptop the pin of requirements.txt: both must be this one."""
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]
    asked = re.search(r"^sdk_version: *['\"]?([\d.]+)", front, re.M)
    pinned = re.search(
        r"^gradio(?:\[[^]]*\])?==([\d.]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M
    )
    assert asked and pinned
    assert asked[1] == pinned[1] == version("gradio")


def test_no_file_under_git_is_over_10_mb():
    """A Space refuses larger files outside LFS."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in names if name and (ROOT / name).exists()}
    assert sizes
    assert_none(f"{name} has {size / 1e6:.1f} MB" for name, size in sizes.items() if size > 10_000_000)
