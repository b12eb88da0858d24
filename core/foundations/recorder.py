"""The recorder: watches the Steps of a run go by and keeps what its report needs."""

import time
from collections.abc import Iterator
from typing import Any

from core.foundations.experiment import Config, Experiment, Step, config_as_dict, finite
from core.foundations.figures import Figure, Outcome, Result, by_figure
from core.foundations.lesson import takeaways


class Recorder:
    """Of one run: the newest result of each figure, the files it hands over, the last Step."""

    def __init__(self, one: Experiment, config: Config) -> None:
        self.experiment, self.config = one, config
        self.steps, self.started = 0, time.monotonic()
        self.last: Step | None = None
        self.figures: dict[Figure, Result] = {}
        self.files: dict[str, bytes] = {}

    def add(self, step: Step) -> None:
        self.steps, self.last = self.steps + 1, step
        self.figures.update(by_figure(step.figures))
        self.files.update(step.files)

    @property
    def outcome(self) -> Outcome:
        """What questions and takeaways may ask."""
        return Outcome(self.figures, self.config, self.last, self.steps)

    def report(self) -> dict[str, Any]:
        """The result as plain data: the last line of the terminal form, the API's answer, the head of the download."""
        return {
            "topic": self.experiment.topic,
            "experiment": self.experiment.name,
            "config": config_as_dict(self.config),
            "steps": self.steps,
            "seconds": round(time.monotonic() - self.started, 3),
            "last": finite(self.last.plain()) if self.last else {},
            "figures": [finite(result.as_dict()) for result in self.figures.values()],
            "takeaways": takeaways(self.experiment, self.outcome),
        }


def drain(steps: Iterator[Step], recorder: Recorder) -> Recorder:
    """Run to the end."""
    for step in steps:
        recorder.add(step)
    return recorder
