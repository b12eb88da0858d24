"""The field's words: what a learner reads here must be found in a paper, a library's documentation or a search engine.

Every text that a person can see (docstrings, labels, helps, titles, lessons, status lines, the browser's texts, the README) and every public
name is read. The left word fails, the right one is what to write. Exceptions stand below, each with its reason.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("core", "pages") for path in (ROOT / folder).rglob("*.py")) + [ROOT / "app.py"]
SCRIPTS = sorted((ROOT / "assets" / "js").rglob("*.js"))
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

WORDS = {
    r"corrections? of the weights": "training steps, updates",
    r"optimizer's memory": "optimizer states",
    r"means of the gradients?": "first and second moment",
    r"\bdice\b": "random generator, seed",
    r"\blearnt\b": "learned",
    r"\bforetold|\bforetell": "predicted, predict",
    r"\b[Mm]end(s|ed|ing)?\b": "fix",
    r"\b[Jj]udged\b": "classified, evaluated",
    r"tables? of scores": "attention scores, score matrix",
    r"shared out": "sharded, partitioned",
    r"for who\b|\bwho is paid|^[Ww]anted is|\b[Mm]easured are\b|[Ww]anted is a": "a plain subject, verb and object",
    r"\bgathered apart\b": "explain, or drop",
    r"left of the change": "remaining error",
    r"the guide is content": "CLIP gives it its highest score",
    r"in float64's sight": "in float64",
    r"\bladder\b": "n-gram baselines",
    r"\bstep_back\b": "ddim_step",
    r"\b[Bb]ricks?\b": "saved activations",
    r"(?<!\w)surprises? of\b|mean surprise\b": "surprisal",
    r"is asked of\b": "say who does what",
    r"\b(darker|lighter)\b": "stronger, weaker: on a dark page more is brighter",
}  # fmt: skip
NAMES = {
    "dice": "rng",
    "learnt": "learned",
    "ladder": "ngram_baselines",
    "surprise": "surprisal",
    "step_back": "ddim_step",
    "painter": "denoiser, pipeline",
    "preferred": "chosen",
    "missed": "value_loss",
    "mend": "fix",
    "mended": "fixed, rescaled",
    "judged": "classified, evaluated",
    "bricks": "tensors",
}
# (file, pattern or name): why it may stay
ALLOWED: dict[tuple[str, str], str] = {}


def texts_of(path):
    """(line, text) of every string in a module that can reach a person, f-strings in their parts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def public_names_of(path):
    """Functions, classes, their fields and parameters, as far as they do not begin with an underscore."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        if isinstance(node, ast.FunctionDef):
            yield from ((node.lineno, argument.arg) for argument in (*node.args.args, *node.args.kwonlyargs))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id


def here(path):
    return path.relative_to(ROOT).as_posix()


def found_in(path, lines):
    return [
        f"{here(path)}:{line}: “{match[0]}”: write {better}"
        for line, text in lines
        for pattern, better in WORDS.items()
        if (here(path), pattern) not in ALLOWED and (match := re.search(pattern, text))
    ]


def test_what_a_person_reads_uses_the_field_s_words():
    found = [line for path in SOURCES for line in found_in(path, texts_of(path))]
    for path in (*SCRIPTS, *PROSE):
        found += found_in(path, enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    assert not found, "\n" + "\n".join(found)


def test_public_names_are_the_field_s():
    found = [
        f"{here(path)}:{line}: {name}: write {NAMES[name]}"
        for path in SOURCES
        for line, name in public_names_of(path)
        if name in NAMES and (here(path), name) not in ALLOWED
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("drawn by the dice", True),
        ("a seed", False),
        ("It was mended.", True),
        ("Mend: update the driver", True),
        ("Each brick is a tensor", True),
        ("All are judged on unseen text", True),
        ("We recommend it.", False),
        ("The table of scores", True),
    ],
)
def test_the_list_finds_what_it_should(text, fails):
    assert any(re.search(pattern, text) for pattern in WORDS) == fails


def test_every_exception_is_needed():
    for (file, key), reason in ALLOWED.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert reason and (re.search(key, text) or key in text), f"{file} no longer has {key}"
