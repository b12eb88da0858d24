"""A live run: take turns, send small messages, obey Step and Stop, keep the deadline, free everything however it ends.

The browser holds the picture and the server holds nothing between runs. While a run is on, its `Control` is known under
a random name that only the run's own page is told; the page's Step, Go on and Stop speak to it.
"""

import json
import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core.foundations.experiment import Config, Experiment, Step, finite
from core.foundations.lesson import takeaways
from core.foundations.machine import this_machine
from core.foundations.recorder import Recorder
from core.foundations.turns import turns
from pages._kit.charts import Panel, Sketch

log = logging.getLogger("everything_about_llms")

MESSAGES_PER_SECOND = 8.0
DEADLINE_SECONDS = 300.0  # a run ends by then, whatever it was asked
PAUSE_SECONDS = 120.0  # a paused run nobody continues ends by then
KEPT_STEPS = 20_000  # of a run's data download


@dataclass
class Control:
    """What the page may tell its run."""

    paused: bool = False
    credit: int = 0  # units to run before pausing again
    stopped: bool = False
    changed: threading.Event = field(default_factory=threading.Event)

    def signal(self, action: str) -> None:
        if action == "stop":
            self.stopped = True
        elif action == "go":
            self.paused = False
        elif action == "step":
            self.paused, self.credit = True, self.credit + 1
        self.changed.set()


CONTROLS: dict[str, Control] = {}  # runs that are on now, by their random names


def signal(message: Any) -> bool:
    """Called by the page. An unknown name (a run that has ended) is nothing to do, nor is another kind of message."""
    control = CONTROLS.get(str(message.get("run"))) if isinstance(message, dict) else None
    if control is not None:
        control.signal(str(message.get("action")))
    return control is not None


class Pace:
    """Says yes at most `per_second` times a second; the first time always."""

    def __init__(self, per_second: float) -> None:
        self.gap, self.next = 1 / per_second, 0.0

    def ready(self) -> bool:
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + self.gap
        return True


@dataclass(frozen=True)
class Message:
    """One message to the page: for the picture, for the transport (the buttons), and, at the end, the run itself."""

    picture: dict[str, Any] | None = None
    transport: dict[str, Any] | None = None
    ended: "KeepingRecorder | None" = None


Draw = Callable[[Any, Sketch], None]
Lit = Callable[[Any], Mapping[str, str]]  # the parts of the diagram that a Step lights, each with what to show in it


def start_state(one: Experiment, config: Config, panels: list[Panel], draw: Draw) -> dict[str, Any]:
    """The picture of an experiment's first Step: what a tab shows on its first visit and after Reset."""
    recorder, sketch = Recorder(one, config), Sketch()
    step = turns(this_machine().device).first(one.run(config))
    if step is not None:
        recorder.add(step)
        draw(step, sketch)
    return picture_message(one, recorder, sketch.take(), [], {}) | {"open": {"scene": one.name, "panels": panels}}


def picture_message(
    one: Experiment,
    recorder: Recorder,
    updates: list[Any],
    lines: list[str],
    parts: Mapping[str, str],
    ended: bool = False,
) -> dict[str, Any]:
    """One message for the picture (PROTOCOL.md). Takeaways come with the last one.

    `updates` travel as one string: Gradio sends the difference of two messages, and gets that of lists within lists
    wrong.
    """
    figures = [finite(figure.as_dict()) for figure in recorder.figures.values()]
    told = orjson.dumps(updates, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return {
        "id": fresh_id(),
        "scene": one.name,
        "updates": told,
        "log": lines,
        "figures": figures,
        "takeaways": takeaways(one, recorder.outcome) if ended else [],
        "parts": dict(parts),
        "machine": this_machine().name,
    }


def fresh_id() -> str:
    """Gradio delivers the last message of a run twice; the page takes each id once."""
    return secrets.token_hex(4)


def live(one: Experiment, config: Config, panels: list[Panel], draw: Draw, mode: str, lit: Lit) -> Iterator[Message]:
    """Run an experiment and yield what the page needs to know."""
    name, control = secrets.token_urlsafe(12), Control(paused=mode == "step", credit=int(mode == "step"))
    CONTROLS[name] = control
    try:
        yield from watched(one, config, panels, draw, lit, name, control)
    finally:
        del CONTROLS[name]


def watched(
    one: Experiment, config: Config, panels: list[Panel], draw: Draw, lit: Lit, name: str, control: Control
) -> Iterator[Message]:
    recorder, sketch, pace, lines = KeepingRecorder(one, config), Sketch(), Pace(MESSAGES_PER_SECOND), list[str]()
    deadline = time.monotonic() + DEADLINE_SECONDS

    def words(status: str) -> dict[str, Any]:
        return {"run": name, "state": "paused" if control.paused else "running", "status": status}

    yield Message(transport=words("starting …"))
    opening: dict[str, Any] | None = {"open": {"scene": one.name, "panels": panels, "preview": False}}
    parts: dict[str, str] = {}
    ending, bad, doing = "", False, "running"
    taken = turns(this_machine().device).take(one.run(config))
    try:
        for step in taken:
            recorder.add(step)
            draw(step, sketch)
            parts |= lit(step)
            if step.doing:
                lines.append(step.doing)
                doing = step.doing
            # the first Step is the start state; silent ones are places to take turns, and nothing to stop at
            if control.paused and recorder.steps > 1 and step.doing:
                control.credit -= 1
            waits = control.paused and control.credit <= 0 and not control.stopped
            if opening is not None or waits or pace.ready():
                message = picture_message(one, recorder, sketch.take(), lines, parts) | (opening or {})
                yield Message(message, words(doing))
                opening, lines, parts = None, [], {}
            if waits and not (yield from resting(control, deadline)):
                ending = "ended: it was paused for too long"
                break
            if control.stopped:
                ending = f"stopped after {recorder.steps} steps; what was computed stays"
                break
            if time.monotonic() > deadline:
                ending = f"ended at the limit of {DEADLINE_SECONDS / 60:.0f} minutes per run; what was computed stays"
                break
    except ValueError as problem:
        ending, bad = str(problem), True
    except Exception:
        log.exception("run of %s failed", one.key)
        ending, bad = "Something went wrong inside this run. It has been logged; your settings are kept.", True
    finally:
        taken.close()
    last = {"run": name, "state": "idle", "status": ending, "bad": bad}
    if recorder.last is None:
        yield Message(None, last)
        return
    message = picture_message(one, recorder, sketch.take_whole(), lines, parts, ended=True)
    last |= {"status": ending or recorder.last.doing or "done", "bad": bad or recorder.last.diverged}
    yield Message(message, last, recorder)


def resting(control: Control, deadline: float) -> Generator[Message, None, bool]:
    """Wait, paused, until a step is asked for or the run goes on. False: nobody came, or the deadline passed.

    An empty message each half second gives a closed browser the chance to end the run.
    """
    limit = min(deadline, time.monotonic() + PAUSE_SECONDS)
    while control.paused and control.credit <= 0 and not control.stopped:
        control.changed.wait(0.5)
        control.changed.clear()
        if time.monotonic() > limit:
            return False
        yield Message()
    return True


class KeepingRecorder(Recorder):
    """A recorder that also keeps the Steps' plain fields, for the data download."""

    def __init__(self, one: Experiment, config: Config) -> None:
        super().__init__(one, config)
        self.kept: list[dict[str, Any]] = []

    def add(self, step: Step) -> None:
        super().add(step)
        if len(self.kept) < KEPT_STEPS:
            self.kept.append({k: v for k, v in finite(step.plain()).items() if v is not None and v != ""})

    def write(self, folder: Path) -> tuple[Path, list[Path]]:
        """The data of the run as JSON, and the files it hands over."""
        data = folder / f"{self.experiment.key}.json"
        data.write_text(
            json.dumps(
                self.report() | {"machine": this_machine().name, "data": self.kept}, ensure_ascii=False, indent=1
            )
        )
        files = []
        for name, content in self.files.items():
            files.append(folder / name)
            files[-1].write_bytes(content)
        return data, files


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="run-")
