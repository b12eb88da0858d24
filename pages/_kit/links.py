"""Links: ?tab=nanogpt&run=train&n_layer=2&seed=7 sets the same fields as the tab, the terminal and the API."""

import shlex
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from core.foundations.experiment import Config, Experiment, changed, experiments, kind, value_from_text

LONGEST_TEXT = 300  # characters of a text setting that still go into a link


def query_for(one: Experiment, config: Config) -> str:
    """The link's query: the tab, the experiment, and every setting that is not at its default."""
    values = {name: value for name, value in changed(config).items() if fits(value)}
    return "?" + urlencode({"tab": one.topic, "run": one.name} | values)


def fits(value: Any) -> bool:
    return not isinstance(value, bytes) and not (isinstance(value, str) and len(value) > LONGEST_TEXT)


def from_query(query: Mapping[str, str], topics: Collection[str]) -> tuple[str | None, Experiment | None, dict[str, Any], str]:
    """(topic, experiment, values, sentence). A bad value leaves all settings at their defaults and says so.

    topics: the tabs there are.
    """
    topic = query.get("tab")
    if topic is None:
        return None, None, {}, ""
    if topic not in topics:
        return None, None, {}, f"This link names a tab that does not exist; tabs are {', '.join(topics)}."
    found = experiments(topic)
    name = query.get("run", next(iter(found)))
    if name not in found:
        return topic, None, {}, f"This link names an experiment that does not exist; here are {', '.join(found)}."
    one, values = found[name], {}
    try:
        for field in one.settings:
            if field.name in query and kind(field) is not bytes:
                values[field.name] = value_from_text(field, query[field.name])
        one.config_type(**values)
    except ValueError as problem:
        return topic, one, {}, f"This link has a bad value, so the defaults are used: {problem}."
    return topic, one, values, ""


def as_python(one: Experiment, config: Config) -> str:
    """Five lines that build this Config and run it."""
    told = ", ".join(f"{name}={value!r}" for name, value in changed(config).items() if fits(value))
    module, config_name = f"core.{one.topic}", one.config_type.__name__
    return (
        f"from {module} import {config_name}, {one.name}\n\n"
        f"config = {config_name}({told})\n"
        f"for step in {one.name}(config):\n"
        f"    print(step.doing)\n"
        f"print(step.figures)\n"
    )


def as_command(one: Experiment, config: Config) -> str:
    """The terminal form; a value that begins with a dash is tied to its option by an equals sign."""
    told = [(name, str(value)) for name, value in changed(config).items() if fits(value)]
    words = [f"--{name}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}" for name, value in told]
    return " ".join(["python -m core", one.topic, one.name, *words])
