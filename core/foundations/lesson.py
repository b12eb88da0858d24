"""The lesson: what a person is led through in a topic. Plain data and small functions, one `LESSON` in each
`core/<topic>/lesson.py`.

The tab, the terminal (`python -m core TOPIC`), the Start page and the README's table are made from it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from core.foundations.experiment import Experiment, experiments
from core.foundations.figures import Missing, Outcome

Level = Literal["start", "deeper", "expert"]
# One sentence with the numbers of a run; "" says nothing; raises Missing where a figure is missing.
Says = Callable[[Outcome], str]


@dataclass(frozen=True)
class Card:
    """An experiment of the lesson.

    title: what one does there ("Teach a model a new text"). note: what it works on, a few words. seconds: of a default
    run. modules: what belongs to it beside its own file, as names in `core` ("foundations.transformer"); the tab shows
    them all. takeaways: one to three sentences after a run, with its own numbers.
    """

    name: str
    title: str
    level: Level
    seconds: int
    note: str
    takeaways: tuple[Says, ...]
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """A step of the walk-through that points at a part of the page.

    at: idea, diagram, cards, controls, run, picture, saw, figures, more, or the id of a panel or of a setting.
    experiment: the one that must be chosen for it; the first one if not said.
    """

    text: str
    at: str = "picture"
    experiment: str = ""

    @property
    def kind(self) -> str:
        return "look"


@dataclass(frozen=True)
class Run:
    """A step that sets and runs an experiment.

    settings: what differs from the defaults. watch: where to look meanwhile.
    """

    text: str
    experiment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    watch: str = "picture"

    @property
    def kind(self) -> str:
        return "run"


@dataclass(frozen=True)
class Ask:
    """A guess before a run. The run's own figures decide which answer was right: none is stored."""

    text: str
    experiment: str
    settings: Mapping[str, Any]
    answers: tuple[str, ...]
    right: Callable[[Outcome], int]  # -> index of the right answer
    because: Says  # -> one sentence with the run's numbers

    @property
    def kind(self) -> str:
        return "ask"


@dataclass(frozen=True)
class Lesson:
    """question: what the topic answers. idea: at most 70 words in plain English. formula: one, in TeX without the
    dollars.
    """

    question: str
    idea: str
    formula: str
    experiments: tuple[Card, ...]
    steps: tuple[Look | Run | Ask, ...]

    def card(self, name: str) -> Card:
        for card in self.experiments:
            if card.name == name:
                return card
        raise ValueError(f"the lesson has no card {name!r}; a card's name is that of its @experiment function")

    @property
    def minutes(self) -> int:
        """Of the walk-through: the runs, and half a minute to read each step."""
        seconds = {card.name: card.seconds for card in self.experiments}
        runs = sum(seconds[step.experiment] for step in self.steps if not isinstance(step, Look))
        return max(1, round((runs + 30 * len(self.steps)) / 60))


@cache
def lesson_of(topic: str) -> Lesson:
    """The lesson of a topic."""
    experiments(topic)  # refuses an unknown topic
    lesson: Lesson = importlib.import_module(f"core.{topic}.lesson").LESSON
    return lesson


def takeaways(one: Experiment, outcome: Outcome) -> list[str]:
    """What the run showed, in its own numbers; of a run that ended early, what it can say."""
    said = []
    for says in lesson_of(one.topic).card(one.name).takeaways:
        try:
            said.append(says(outcome))
        except Missing:
            continue
    return [sentence for sentence in said if sentence] or [
        f"The run ended after {outcome.steps} steps, before it had measured what this experiment is about."
    ]


def verdict(asked: Ask, outcome: Outcome) -> tuple[int | None, str]:
    """(index of the right answer, why); (None, the reason) where a figure is missing. The one place that decides."""
    try:
        return asked.right(outcome), asked.because(outcome)
    except Missing as missing:
        return None, str(missing)


def as_dict(topic: str) -> dict[str, Any]:
    """The lesson as plain data: the last line of `python -m core TOPIC`."""
    lesson = lesson_of(topic)
    return {
        "topic": topic,
        "idea": lesson.idea,
        "steps": [{"kind": step.kind, "text": step.text} for step in lesson.steps],
        "experiments": [
            {"name": card.name, "title": card.title, "level": card.level, "seconds": card.seconds}
            for card in lesson.experiments
        ],
    }
