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
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from core.foundations.figures import Result


@dataclass(frozen=True)
class Step:
    """What one unit of work yields. Topics add fields: plain numbers, strings, NumPy arrays or PIL images."""

    figures: tuple[Result, ...] = dataclasses.field(default=(), kw_only=True)
    files: Mapping[str, bytes] = dataclasses.field(
        default_factory=dict, kw_only=True
    )  # what a run hands over, by file name
    doing: str = dataclasses.field(default="", kw_only=True)  # one line for the log: what was just done
    diverged: bool = dataclasses.field(default=False, kw_only=True)  # the run ends here because its numbers blew up
    part: str = dataclasses.field(default="", kw_only=True)  # the part of the topic's diagram that did this work

    def plain(self) -> dict[str, Any]:
        """The fields that fit into JSON: numbers, strings, booleans and tuples of them."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in named.items() if name not in BASE_FIELDS and is_plain(value)}


BASE_FIELDS = frozenset(field.name for field in dataclasses.fields(Step))


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
    slider: bool = False,
    sets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """A field of a `Config`: its default, and all that the tab, the terminal and the checks need to know.

    unit: in the singular ("layer"). low, high: what is allowed, both ends included; for `str` and `bytes` the length.
    choices: value -> what people read. more: stands under "More" on the tab. suffixes: file endings of a `bytes` field.
    when: (field, value), the setting matters only if that field has that value. slider: few values that people like to
    drag. sets: value of a choice -> the defaults that other settings have with it.
    """
    number = isinstance(default, int | float) and not isinstance(default, bool) and choices is None
    if number and (low is None or high is None):
        raise ValueError(f"the setting “{label}” is a number and needs low and high")
    told = {"label": label, "unit": unit, "low": low, "high": high, "choices": choices, "more": more, "help": help}
    return dataclasses.field(
        default=default, metadata=told | {"suffixes": suffixes, "when": when, "slider": slider, "sets": sets or {}}
    )


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


def defaults(config_type: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of all settings beside these values: a choice may bring its own for others (`sets`)."""
    usual = {field.name: field.default for field in settings(config_type)}
    for field in settings(config_type):
        for choice, brought in field.metadata["sets"].items():
            if values.get(field.name, field.default) == choice:
                usual |= brought
    return usual


def config_of(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    """The Config with these values, and for the others the defaults that go with them."""
    return config_type(**defaults(config_type, values) | dict(values))


def following(config_type: type[Config]) -> set[str]:
    """The settings whose default depends on a choice."""
    return {name for field in settings(config_type) for brought in field.metadata["sets"].values() for name in brought}


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
    if wanted is str and any("\ud800" <= symbol <= "\udfff" for symbol in value):
        raise ValueError(
            f"{field.name} holds half of a character (a lone surrogate), which no page can show: type it again"
        )
    return value


ARTICLES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", bytes: "a file"}


def checked_number(field: dataclasses.Field[Any], value: Any, wanted: type) -> int | float:
    """A number within its bounds; an int may come as a float without a fraction, as browsers send it."""
    if isinstance(value, int) and abs(value) > 1e300:
        value = math.inf if value > 0 else -math.inf  # beyond all floats
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{field.name} must be {ARTICLES[wanted]}, got {shown(value)}")
    if wanted is int and math.isfinite(value) and value != int(value):
        raise ValueError(f"{field.name} must be a whole number, got {value:g}")
    low, high, unit = field.metadata["low"], field.metadata["high"], field.metadata["unit"]
    if low is not None and value < low:
        raise ValueError(f"{field.name} must be at least {counted(low, unit)}, got {value:g}")
    if high is not None and value > high:
        raise ValueError(f"{field.name} must be at most {counted(high, unit)}, got {value:g}")
    return wanted(value)


def counted(number: float, unit: str) -> str:
    """'1 layer', '8 layers', '0.5', '2 nats per character'."""
    amount = f"{number:g}" if abs(number) < 1e5 or number != int(number) else str(int(number))
    return f"{amount} {unit if number == 1 else plural(unit)}".strip()


def quoted(token: str) -> str:
    """“a token” for a sentence; a line break is shown."""
    return f"“{token}”".replace("\n", "↵")


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
        return number_from_text(field.name, text, wanted)
    return text


def number_from_text(name: str, text: str, wanted: type) -> int | float:
    """A number as people type it, `0,01` included.

    Where a comma or a point could mean thousands, a sentence asks which is meant.
    """
    typed = text.strip()
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}([.,]\d{3})+", typed) and (
        wanted is int or "," in typed or typed.count(".") > 1
    ):
        whole = re.sub(r"[.,]", "", typed)
        start = re.split(r"[.,]", typed)[0]
        raise ValueError(
            f"{name} must be {ARTICLES[wanted]}: {shown(typed)} could mean {start} or {whole}, please write one of them"
        )
    try:
        number = float(typed.replace(",", ".") if re.fullmatch(r"[+-]?\d*,\d+", typed) else typed)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} must be {ARTICLES[wanted]}, got {shown(text)}")
    if wanted is int and abs(number) < 1e300 and typed.lstrip("+-").isdigit():
        return int(typed)
    return number


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
    """The names of all topics: the packages of `core` but for `foundations`."""
    import core

    return tuple(
        sorted(name for _, name, package in pkgutil.iter_modules(core.__path__) if package and name != "foundations")
    )


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


def changed(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults that go with them: what a link and a command need to say."""
    usual, values = defaults(type(config), vars(config)), vars(config)
    return {
        field.name: values[field.name] for field in settings(type(config)) if values[field.name] != usual[field.name]
    }
