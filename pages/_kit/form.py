"""The form of a tab: what assets/js/form.js builds the controls from, and the Config from what it says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from core.foundations.experiment import Config, Experiment, config_of, kind, plural, value_from_text

MOST_VISIBLE = 5  # controls of an experiment; the others stand under "more settings"
TOLD = ("label", "unit", "low", "high", "more", "help", "when", "slider", "sets")


def form_of(experiments: Mapping[str, Experiment]) -> list[dict[str, Any]]:
    """The controls of all experiments of a tab."""
    return [{"name": name, "question": one.question, "fields": fields_of(one)} for name, one in experiments.items()]


def fields_of(one: Experiment) -> list[dict[str, Any]]:
    """At most five controls are visible; those that depend on another one are not counted."""
    fields, visible = [], 0
    for field in one.settings:
        told = field_as_dict(one, field)
        if not told.get("more") and not told.get("when"):
            visible += 1
            if visible > MOST_VISIBLE:
                told["more"] = True
        fields.append(told)
    return fields


def field_as_dict(one: Experiment, field: dataclasses.Field[Any]) -> dict[str, Any]:
    """One control as plain data: what is false or empty is left out."""
    told: dict[str, Any] = {
        name: field.metadata[name] for name in TOLD if field.metadata[name] not in (None, "", False, {})
    }
    told |= {name: field.metadata[name] for name in ("low", "high") if field.metadata[name] is not None}  # 0 is a limit
    if field.metadata["unit"]:
        told["units"] = plural(field.metadata["unit"])
    told |= {"name": field.name, "kind": kind(field).__name__}
    if field.metadata["choices"]:
        told["choices"] = list(field.metadata["choices"].items())
    if kind(field) is bytes:
        return told | {"file": upload_id(one, field)}
    return told | {"default": field.default}


def upload_id(one: Experiment, field: dataclasses.Field[Any]) -> str:
    return f"{one.topic}-{one.name}-{field.name}"


def config_from(one: Experiment, values: Mapping[str, Any], uploads: Mapping[tuple[str, str], bytes | None]) -> Config:
    """The Config of an experiment from what the form says and the files that were given.

    Numbers come as they were typed.
    """
    settings: dict[str, Any] = {}
    for field in one.settings:
        value = values.get(field.name)
        if kind(field) is bytes:
            settings[field.name] = uploads.get((one.name, field.name)) or b""
        elif kind(field) in (int, float) and isinstance(value, str):
            settings[field.name] = value_from_text(field, value)
        elif field.name in values:
            settings[field.name] = value
    return config_of(one.config_type, settings)
