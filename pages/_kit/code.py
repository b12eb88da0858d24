"""The prose and the code of an experiment: all modules that belong to it, the one that ran first."""

import importlib
import inspect
import re
import sys
from types import ModuleType
from typing import Any

from core.foundations.experiment import Experiment
from core.foundations.lesson import lesson_of

LABELS = r"^(Code -> paper|Left out|Source|Read in this order):"


def modules_of(one: Experiment) -> list[ModuleType]:
    """The file of the experiment, and those that its card names."""
    names = [one.run.__module__, *(f"core.{name}" for name in lesson_of(one.topic).card(one.name).modules)]
    return [importlib.import_module(name) for name in dict.fromkeys(names)]


def path_of(module: ModuleType) -> str:
    """core/nanogpt/training.py"""
    name = module.__name__.replace(".", "/")
    return f"{name}/__init__.py" if hasattr(module, "__path__") else f"{name}.py"


def prose_of(one: Experiment) -> str:
    """How it works: the docstrings of the topic and of all modules of the experiment, as Markdown."""
    topic = importlib.import_module(f"core.{one.topic}")
    parts = []
    for module in dict.fromkeys([topic, *modules_of(one)]):
        doc = re.sub(LABELS, r"\n**\1:**", inspect.getdoc(module) or "", flags=re.M)
        parts.append(doc if module is topic else f"#### `{path_of(module)}`\n\n{doc}")
    return "\n\n---\n\n".join(parts)


def module_of(one: Experiment, name: Any = "") -> ModuleType:
    """One of the experiment's modules, its own if none is named.

    Other names are not found: no path is read.
    """
    own = sys.modules[one.run.__module__]
    return next((module for module in modules_of(one) if module.__name__ == name), own)


def code_of(one: Experiment, name: Any = "") -> str:
    """The source of one of the experiment's modules."""
    return inspect.getsource(module_of(one, name))


def files_of(one: Experiment, name: Any = "") -> dict[str, object]:
    """What assets/js/files.js makes its row of names from, and which one is shown."""
    modules = [[module.__name__, path_of(module)] for module in modules_of(one)]
    return {"experiment": one.name, "modules": modules, "shown": module_of(one, name).__name__}
