"""The experiment: everything a user can run is a frozen `Config` and a generator of frozen `Step`s.

    @dataclass(frozen=True)
    class TilesConfig(Config):
        tokens: int = setting(128, "Tokens", unit="token", low=1, high=4096)

    @experiment("Does attention in tiles give the same answer?")
    def tiles(config: TilesConfig) -> Iterator[TileStep]: ...

From that pair come the tab, the link, the terminal form, the API endpoint, "Copy as Python", the data download and the
generic tests. The first `Step` is the start state, so it must be there within a second; each unit of work between two
`yield`s stays under about 0.2 s, so that many users can take turns; `finally` frees what the generator owns.
"""

import dataclasses
import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

Label = Literal["measured", "computed", "simulated"]


@dataclass(frozen=True)
class Compared:
    """A theory's number next to a run's number. Either side may be missing; the gap is derived.

    `label` says what the right-hand number is: measured on this machine just now, computed from a formula or
    a data set, or simulated. `source` names where the prediction comes from.
    """

    name: str
    unit: str
    predicted: float | None
    measured: float | None
    source: str
    label: Label = "measured"

    @property
    def gap(self) -> float | None:
        """measured - predicted, in the figure's own unit; None where a side is missing."""
        return None if self.predicted is None or self.measured is None else self.measured - self.predicted

    def as_dict(self) -> dict[str, str | float | None]:
        return {
            "name": self.name,
            "unit": self.unit,
            "label": self.label,
            "predicted": self.predicted,
            "measured": self.measured,
            "gap": self.gap,
            "source": self.source,
        }


@dataclass(frozen=True)
class Step:
    """What one unit of work yields. Topics add fields: plain numbers, strings, NumPy arrays or PIL images."""

    figures: tuple[Compared, ...] = dataclasses.field(default=(), kw_only=True)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict, kw_only=True)  # what a run hands over, by file name
    doing: str = dataclasses.field(default="", kw_only=True)  # one line for the log: what was just done
    diverged: bool = dataclasses.field(default=False, kw_only=True)  # the run ends here because its numbers blew up

    def plain(self) -> dict[str, Any]:
        """The fields that fit into JSON: numbers, strings, booleans and tuples of them."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in named.items() if name not in ("figures", "files", "doing", "diverged") and is_plain(value)}


def is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


# --- the settings of a Config -----------------------------------------------------------------------------------------


def setting(
    default: Any,
    label: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Mapping[str, str] | None = None,
    more: bool = False,
    help: str = "",
    suffixes: tuple[str, ...] = (),
    when: tuple[str, str] | None = None,
) -> Any:
    """A field of a `Config`: its default, and all that the tab, the terminal and the checks need to know.

    unit: in the singular ("layer"). low, high: what is allowed, both ends included; for `str` and `bytes` the length.
    choices: value -> what people read. more: stands under "More" on the tab. suffixes: file endings of a `bytes` field.
    when: (field, value), the setting matters only if that field has that value.
    """
    told = {"label": label, "unit": unit, "low": low, "high": high, "choices": choices, "more": more, "help": help}
    return dataclasses.field(default=default, metadata=told | {"suffixes": suffixes, "when": when})


@dataclass(frozen=True)
class Config:
    """What a user can set. Every value is checked on the way in; a bad one is a `ValueError` with one sentence."""

    def __post_init__(self) -> None:
        for field in settings(type(self)):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        self.check()

    def check(self) -> None:
        """Raise `ValueError` where settings are right one by one and wrong together."""


def settings(config_type: type[Config]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config_type)


def kind(field: dataclasses.Field[Any]) -> type:
    """int, float, bool, str or bytes: a setting has the type of its default."""
    return type(field.default)


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the field's type, or a ValueError that says what was wrong and what is allowed."""
    wanted = kind(field)
    if wanted in (int, float):
        value = checked_number(field, value, wanted)
    elif not isinstance(value, wanted):
        raise ValueError(f"{field.name} must be {ARTICLES[wanted]}, got {shown(value)}")
    choices = field.metadata["choices"]
    if choices is not None and value not in choices:
        raise ValueError(f"{field.name} must be one of {', '.join(choices)}, got {shown(value)}")
    if wanted in (str, bytes) and choices is None:
        limit = field.metadata["high"]
        if limit is not None and len(value) > limit:
            if limit < 1e5:
                raise ValueError(f"{field.name} must be at most {limit:g} characters, got {len(value)}")
            raise ValueError(f"{field.name} must be at most {limit / 1e6:g} MB, got {len(value) / 1e6:.3g} MB")
    return value


ARTICLES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", bytes: "a file"}


def checked_number(field: dataclasses.Field[Any], value: Any, wanted: type) -> int | float:
    """A number within its bounds; an int may come as a float without a fraction, as browsers send it."""
    if isinstance(value, int) and abs(value) > 1e300:
        value = math.inf if value > 0 else -math.inf  # beyond all floats
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{field.name} must be {ARTICLES[wanted]}, got {shown(value)}")
    low, high, unit = field.metadata["low"], field.metadata["high"], field.metadata["unit"]
    if low is not None and value < low:
        raise ValueError(f"{field.name} must be at least {counted(low, unit)}, got {value:g}")
    if high is not None and value > high:
        raise ValueError(f"{field.name} must be at most {counted(high, unit)}, got {value:g}")
    if wanted is int and value != int(value):
        raise ValueError(f"{field.name} must be a whole number, got {value:g}")
    return wanted(value)


def counted(number: float, unit: str) -> str:
    """'1 layer', '8 layers', '0.5', '2 nats per character'."""
    amount = f"{number:g}" if abs(number) < 1e5 or number != int(number) else str(int(number))
    return f"{amount} {unit if number == 1 else plural(unit)}".strip()


def plural(unit: str) -> str:
    """'layers', 'micro-batches', 'GPUs'; symbols like GB, ms and TFLOP/s stay."""
    word = unit.replace("-", "").isalpha() and (unit.islower() or unit == "GPU") and len(unit) > 2
    return unit + ("es" if unit.endswith("ch") else "s") * (word and not unit.endswith("s"))


def shown(value: object) -> str:
    """What the user gave, short enough for one sentence."""
    text = "nothing" if value is None or value == "" else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def value_from_text(field: dataclasses.Field[Any], text: str) -> Any:
    """A value typed in a link or a terminal, as the field's type."""
    wanted = kind(field)
    if wanted is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(f"{field.name} must be true or false, got {shown(text)}")
        return text.lower() in ("true", "1", "yes")
    if wanted in (int, float):
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"{field.name} must be {ARTICLES[wanted]}, got {shown(text)}") from None
        if wanted is int and abs(number) < 1e300 and text.strip().lstrip("+-").isdigit():
            return int(text)
        return number
    return text


# --- the experiment ---------------------------------------------------------------------------------------------------


Run = Callable[[Any], Iterator[Any]]  # a generator function: Config -> Steps


@dataclass(frozen=True)
class Experiment:
    """A topic's generator function with its name, its question and its Config."""

    topic: str
    name: str
    question: str
    config_type: type[Config]
    run: Run

    @property
    def key(self) -> str:
        """The API endpoint's name: nanogpt_train."""
        return f"{self.topic}_{self.name}"

    @property
    def settings(self) -> tuple[dataclasses.Field[Any], ...]:
        return settings(self.config_type)

    def setting(self, name: str) -> dataclasses.Field[Any]:
        return next(field for field in self.settings if field.name == name)


@dataclass(frozen=True)
class Prediction:
    """A question to answer before the run. The run's own figures decide which answer was right: none is stored."""

    question: str
    experiment: str
    settings: Mapping[str, Any]
    answers: tuple[str, ...]
    right: Callable[[Mapping[str, Compared]], int]  # the figures of the run, by name -> index of the right answer
    because: Callable[[Mapping[str, Compared]], str]  # ... -> one sentence with the run's numbers


def experiment(question: str) -> Callable[[Run], Run]:
    """Mark a generator function `run(config: SomeConfig) -> Iterator[SomeStep]` as an experiment of its topic."""

    def mark(run: Run) -> Run:
        config_type = get_type_hints(run)["config"]
        topic = run.__module__.split(".")[1]
        run.experiment = Experiment(topic, run.__name__, question, config_type, run)  # type: ignore[attr-defined]
        return run

    return mark


@cache
def topics() -> tuple[str, ...]:
    """The names of all topics: the modules and packages of `core` but for `foundations`."""
    import core

    return tuple(sorted(name for _, name, _ in pkgutil.iter_modules(core.__path__) if name not in ("foundations", "__main__")))


@cache
def experiments(topic: str) -> dict[str, Experiment]:
    """The experiments of one topic, in the order in which its module names them."""
    if topic not in topics():
        raise ValueError(f"topic must be one of {', '.join(topics())}, got {shown(topic)}")
    module = importlib.import_module(f"core.{topic}")
    found = [getattr(thing, "experiment", None) for thing in vars(module).values()]
    return {one.name: one for one in found if isinstance(one, Experiment)}


def find(topic: str, name: str) -> Experiment:
    found = experiments(topic)
    if name not in found:
        raise ValueError(f"experiment must be one of {', '.join(found)}, got {shown(name)}")
    return found[name]


class Recorder:
    """Watches the Steps of a run go by and keeps what its report needs."""

    def __init__(self, one: Experiment, config: Config) -> None:
        self.experiment, self.config = one, config
        self.steps, self.started = 0, time.monotonic()
        self.last: Step | None = None
        self.figures: dict[str, Compared] = {}
        self.files: dict[str, bytes] = {}

    def add(self, step: Step) -> None:
        self.steps, self.last = self.steps + 1, step
        self.figures.update({figure.name: figure for figure in step.figures})
        self.files.update(step.files)

    def report(self) -> dict[str, Any]:
        """The result as plain data: the last line of the terminal form, the API's answer, the head of the download."""
        return {
            "topic": self.experiment.topic,
            "experiment": self.experiment.name,
            "config": config_as_dict(self.config),
            "steps": self.steps,
            "seconds": round(time.monotonic() - self.started, 3),
            "last": finite(self.last.plain()) if self.last else {},
            "figures": [finite(figure.as_dict()) for figure in self.figures.values()],
        }


def finite(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become None."""
    return {name: finite_value(value) for name, value in data.items()}


def finite_value(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(finite_value(item) for item in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_as_dict(config: Config) -> dict[str, Any]:
    """The settings as plain data; of a file, only its size is told."""
    values = {field.name: getattr(config, field.name) for field in settings(type(config))}
    return {name: f"{len(value)} bytes" if isinstance(value, bytes) else value for name, value in values.items()}


def drain(steps: Iterator[Step], recorder: Recorder) -> Recorder:
    for step in steps:
        recorder.add(step)
    return recorder


def changed(config: Config) -> dict[str, Any]:
    """The settings that differ from their defaults: what a link and a command need to say."""
    return {f.name: getattr(config, f.name) for f in settings(type(config)) if getattr(config, f.name) != f.default}
