"""Links: ?tab=nanogpt&run=train&n_layer=2&seed=7 sets the same fields as the tab, the terminal and the API."""

import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from core.foundations.experiment import (
    Config,
    Experiment,
    changed,
    checked,
    config_of,
    defaults,
    experiments,
    kind,
    settings,
    shown,
    value_from_text,
)

LONGEST_TEXT = 300  # characters of a text setting that still go into a link
NO_SETTINGS = re.compile(r"tab|run|step|present|view|_.*|utm_.*")  # the page's own, and those that other sites add


def query_for(one: Experiment, config: Config) -> str:
    """The link's query: the tab, the experiment, and every setting that is not at its default."""
    values = {name: value for name, value in changed(config).items() if fits(value)}
    return "?" + urlencode({"tab": one.topic, "run": one.name} | values)


def fits(value: Any) -> bool:
    return not isinstance(value, bytes) and not (isinstance(value, str) and len(value) > LONGEST_TEXT)


def left_out(config: Config) -> str:
    """What a link, a command and Python lines cannot take: long texts and files. One sentence, or nothing."""
    labels = [
        field.metadata["label"].removeprefix("or ")
        for field in settings(type(config))
        if field.name in changed(config) and not fits(getattr(config, field.name))
    ]
    if not labels:
        return ""
    return (
        f"Not in these lines: {', '.join(labels)} (a file, or a text of over {LONGEST_TEXT} characters). "
        "Who uses them must give it again; without it the run is refused or starts from the default."
    )


def from_query(
    query: Mapping[str, str], topics: Collection[str]
) -> tuple[str | None, Experiment | None, dict[str, Any], str]:
    """(topic, experiment, values, sentence). Bad values leave all settings at their defaults; the sentence names each.

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
    one, values, problems = found[name], {}, []
    for field in one.settings:
        if field.name in query and kind(field) is not bytes:
            try:
                values[field.name] = checked(field, value_from_text(field, query[field.name]))
            except ValueError as problem:
                problems.append(str(problem))
    try:
        config_of(one.config_type, values)
    except ValueError as problem:
        problems.append(str(problem))
    if problems:
        return topic, one, {}, f"This link has a bad value, so the defaults are used: {'; '.join(problems)}."
    unknown = [shown(key) for key in query if key not in values and not NO_SETTINGS.fullmatch(key)]
    usual = defaults(one.config_type, values)  # a choice in the link brings defaults that the form must show
    values |= {f.name: usual[f.name] for f in one.settings if f.name not in values and usual[f.name] != f.default}
    if unknown:
        return topic, one, values, f"This link names what “{one.name}” does not have: {', '.join(unknown)}."
    return topic, one, values, ""


def as_python(one: Experiment, config: Config) -> str:
    """Five lines that build this Config and run it."""
    values = [(field, getattr(config, field.name)) for field in one.settings]
    told = ", ".join(f"{field.name}={value!r}" for field, value in values if value != field.default and fits(value))
    module, config_name = f"core.{one.topic}", one.config_type.__name__
    return (
        f"from {module} import {config_name}, {one.name}\n\n"
        f"config = {config_name}({told})\n"
        f"for step in {one.name}(config):\n"
        "    print(step.doing)\n"
        "print(step.figures)\n"
    )


def as_command(one: Experiment, config: Config) -> str:
    """The terminal form; a value that begins with a dash is tied to its option by an equals sign."""
    told = [(name, str(value)) for name, value in changed(config).items() if fits(value)]
    words = [f"--{name}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}" for name, value in told]
    return " ".join(["python -m core", one.topic, one.name, *words])
