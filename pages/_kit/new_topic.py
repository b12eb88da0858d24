"""A skeleton for a new topic that runs and whose tests pass: make new-topic NAME=rope.

It writes core/NAME, pages/NAME and tests/core/test_NAME.py, names the topic at the end of the syllabus in app.py, and
puts its row into the README. Everything in it is real, if small: it draws numbers and averages them. Replace it
piece by piece.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FILES = {
    "core/{name}/__init__.py": '''r"""{title}: one sentence that says what it is.

The lesson for readers: what it does, how, and the one formula,

$$\\bar x = \\frac{{1}}{{n}} \\sum_i x_i.$$

Code -> paper: `draws` -> n, `mean` -> $\\bar x$.
Left out: everything else.
Source: name the paper, with its section or equation.
"""

from core.{name}.average import AverageConfig, AverageStep, average

__all__ = ["AverageConfig", "AverageStep", "average"]
''',
    "core/{name}/average.py": '''"""The average: draw numbers, and see how fast their mean settles.

The mean of n numbers between 0 and 1 differs from 1/2 by about sqrt(1 / (12 n)).

Left out: other distributions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure

MEAN = Figure("mean of the draws", "of 1", "theory", "1/2, by symmetry", headline=True)
ERROR = Figure("distance from 1/2", "of 1", "theory", "sqrt(1 / (12 n)), its usual size", headline=True)


@dataclass(frozen=True)
class AverageConfig(Config):
    """What a person can set."""

    draws: int = setting(
        200, "Draws", unit="draw", low=10, high=10_000, help="More draws bring the mean closer to 1/2."
    )
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="The same seed draws the same numbers.")


@dataclass(frozen=True)
class AverageStep(Step):
    """The mean so far."""

    draw: int
    mean: float


@experiment("How fast does a mean settle?")
def average(config: AverageConfig) -> Iterator[AverageStep]:
    """Draw one number after the other."""
    rng, total = torch.Generator().manual_seed(config.seed), 0.0
    yield AverageStep(0, 0.0, doing="nothing drawn yet")
    for draw in range(1, config.draws + 1):
        total += float(torch.rand((), generator=rng))
        mean = total / draw
        results = (MEAN(mean, 0.5), ERROR(abs(mean - 0.5), math.sqrt(1 / (12 * draw))))
        figures = results if draw == config.draws else ()
        yield AverageStep(draw, mean, figures=figures, part="mean", doing=f"{{draw}} draws: mean {{mean:.3f}}")
''',
    "core/{name}/lesson.py": '''"""The lesson of the tab {title}."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.{name}.average import ERROR, MEAN


def how_close(run: Outcome) -> str:
    error = run[ERROR]
    way = "closer than usual" if error.measured < error.expected else "further away than usual"
    return (
        f"After {{run.config.draws}} draws the mean was {{run[MEAN].measured:.3f}}, {{error.measured:.3f}} from 1/2: "
        f"{{way}} for that many ({{error.expected:.3f}})."
    )


LESSON = Lesson(
    question="What does this topic answer?",
    idea="Say in at most seventy plain words what this topic is about, with the words of the field, so that somebody "
    "of sixteen can follow: numbers that are drawn at random have a mean, and the more there are, the closer it "
    "comes to the middle.",
    formula=r"\\bar x = \\frac{{1}}{{n}} \\sum_i x_i",
    experiments=(
        Card("average", "Watch a mean settle", "start", 1, "random numbers", (how_close,)),
    ),
    steps=(
        Look("Numbers come in on the left; their mean is what is left of them.", "diagram"),
        Ask(
            "After 100 draws, how far from 1/2 will the mean be?",
            "average",
            {{"draws": 100}},
            ("less than 0.02", "less than 0.1", "more"),
            lambda run: band(run[ERROR], 0.02, 0.1),
            lambda run: f"It was {{run[ERROR].measured:.3f}} away; {{run[ERROR].expected:.3f}} is usual.",
        ),
        Ask(
            "And after 10,000?",
            "average",
            {{"draws": 10_000}},
            ("less than 0.02", "less than 0.1", "more"),
            lambda run: band(run[ERROR], 0.02, 0.1),
            lambda run: f"It was {{run[ERROR].measured:.4f}} away; {{run[ERROR].expected:.4f}} is usual.",
        ),
        Look("The curve jumps at first and then hardly moves.", "mean", "average"),
    ),
)
''',
    "pages/{name}/__init__.py": '''"""The tab "{title}": a mean that settles."""

from core.{name} import AverageConfig, AverageStep
from pages._kit.charts import Panel, Sketch, axis, lines, series
from pages._kit.page import Page, Picture
from pages.{name}.diagram import diagram


def average_panels(config: AverageConfig) -> list[Panel]:
    x, y = axis("draw", "number", config.draws), axis("mean", "of 1")
    return [lines("mean", "The mean so far, and where it must go", x, y, [series("mean", "mean", "a")])]


def draw_average(step: AverageStep, sketch: Sketch) -> None:
    if step.draw == 0:
        sketch.levels("mean", {{"1/2": 0.5}})
    else:
        sketch.point("mean", "mean", step.draw, step.mean)


PAGE = Page(
    "{name}",
    "{title}",
    {{"average": Picture(average_panels, draw_average)}},
    (("Name the source", "https://example.org"),),
    diagram=diagram,
    thumb=(("path", {{"d": "M16 10 L36 34 L60 22 L104 25"}}, "a"),),
)
''',
    "pages/{name}/diagram.py": '''"""The diagram of the tab {title}."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box


def diagram(config: Any) -> Diagram:
    """With the sizes of the Config."""
    shapes = [
        box(10, 30, 110, 50, "numbers", f"{{config.draws}} draws", color="d"),
        arrow((120, 55), (168, 55)),
        box(170, 30, 110, 50, "mean", "of all so far", part="mean", color="a"),
    ]
    return Diagram(shapes, 290, 110, f"{{config.draws}} numbers go into one mean.")
''',
    "tests/core/test_{name}.py": '''"""{title}: against what must be equal."""

import pytest

from core.{name} import AverageConfig, average
from core.{name}.average import ERROR, MEAN


def test_the_mean_is_the_mean_of_the_draws():
    *_, last = average(AverageConfig(draws=50))
    assert [result.figure for result in last.figures] == [MEAN, ERROR]
    assert last.figures[0].measured == last.mean and last.figures[0].gap == pytest.approx(0, abs=0.2)


def test_the_seed_decides_the_draws():
    ends = [list(average(AverageConfig(draws=20, seed=seed)))[-1].mean for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]
''',
}  # fmt: skip


def write(name: str, root: Path = ROOT) -> list[Path]:
    """The files of the skeleton. Refuses a name that is taken or that Python could not import."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"a topic's name is lower case letters, digits and _, got {name!r}")
    paths = {root / path.format(name=name): text for path, text in FILES.items()}
    taken = [path for path in (*paths, root / "core" / name) if path.exists()]
    if taken:
        raise ValueError(f"there is a {taken[0].relative_to(root)} already")
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name, title=name.replace("_", " ").capitalize()), encoding="utf-8")
    return list(paths)


def enroll(name: str, root: Path = ROOT) -> None:
    """The last chapter of the syllabus gains the topic; move it to where it belongs."""
    app = root / "app.py"
    text = app.read_text(encoding="utf-8")
    end = text.index("]\n", text.index("SYLLABUS = ["))
    last = text.rindex('",', 0, end) + 2
    app.write_text(text[:last] + f'\n            "{name}",' + text[last:], encoding="utf-8")


def main(name: str) -> None:
    for path in write(name):
        print("wrote", path.relative_to(ROOT))
    enroll(name)
    print("named it in SYLLABUS in app.py")
    for tool in (["ruff", "format", "--quiet", "."], ["pages._kit.readme"]):
        subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, check=True)
    print("put its row into README.md")
    print(
        "Its title stands in PAGE (pages/), its place is the last chapter of SYLLABUS: change both, then `make readme`."
    )
    print(f"See it: python -m pages._kit.preview {name}. Test it: make topic NAME={name}. Then: make check")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as problem:
        sys.exit(str(problem))
