"""The README's table of experiments, from the lessons. python -m pages._kit.readme writes it; a test compares."""

import inspect
import sys
from pathlib import Path

from core.foundations.experiment import Experiment, experiments
from core.foundations.lesson import lesson_of

ROOT = Path(__file__).parents[2]
FILE = ROOT / "README.md"
BEGIN, END = "<!-- table: make readme -->", "<!-- end of table -->"


def table() -> str:
    """A row per experiment, in the order of the tabs."""
    import app

    rows = ["| tab | experiment | what one does | level | question | file | seconds |", "|---|---|---|---|---|---|---|"]
    for chapter in app.SYLLABUS:
        for topic in chapter.topics:
            rows += [row(topic, one) for one in experiments(topic).values()]
    return "\n".join(rows)


def row(topic: str, one: Experiment) -> str:
    from importlib import import_module

    title, card = import_module(f"pages.{topic}").PAGE.title, lesson_of(topic).card(one.name)
    file = Path(inspect.getsourcefile(sys.modules[one.run.__module__]) or "").relative_to(ROOT).as_posix()
    return f"| {title} | {one.name} | {card.title} | {card.level} | {one.question} | `{file}` | {card.seconds} |"


def with_table(text: str) -> str:
    """The README with the table of now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    FILE.write_text(with_table(FILE.read_text(encoding="utf-8")), encoding="utf-8")
