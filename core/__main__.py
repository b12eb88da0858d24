"""python -m core TOPIC EXPERIMENT [--field value]: progress on stderr, one JSON object as the last line on stdout.

Without arguments it lists the topics and their experiments; a topic alone prints its lesson. `--save FOLDER` writes the
files a run hands over (a model). Started by torchrun, an experiment that uses several ranks runs on those: every
process is one rank of its `job`.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from tqdm import tqdm
from tyro.constructors import PrimitiveConstructorSpec

from core.foundations.experiment import (
    Config,
    Experiment,
    config_of,
    counted,
    experiments,
    find,
    kind,
    topics,
    value_from_text,
)
from core.foundations.lesson import Ask, as_dict, lesson_of
from core.foundations.ranks import Job, under_torchrun
from core.foundations.recorder import Recorder


def main(arguments: list[str]) -> None:
    """Exit code 2 and the sentence that the tab shows, if something is wrong."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return listing()
    try:
        if len(arguments) == 1:
            return print_lesson(arguments[0])
        one = find(arguments[0], arguments[1])
        typed: Any = tyro.cli(
            arguments_of(one),
            prog=f"python -m core {one.topic} {one.name}",
            description=one.question,
            args=arguments[2:],
        )
        folder = typed.save
        config = config_from_typed(one, {name: value for name, value in vars(typed).items() if name != "save"})
        job = getattr(sys.modules[one.config_type.__module__], "job", None)
        if job is not None and "RANK" in os.environ:
            return as_rank(job, config)
        run(one, config, folder)
    except ValueError as problem:
        fail(str(problem))


def listing() -> None:
    for topic in topics():
        for one in experiments(topic).values():
            print(f"{topic} {one.name:<12} {one.question}")


def print_lesson(topic: str) -> None:
    """The lesson of a topic to read; its last line is one JSON object."""
    lesson = lesson_of(topic)
    print(lesson.question, "", lesson.idea, lesson.formula, "", "Experiments:", sep="\n")
    for card in lesson.experiments:
        print(f"  python -m core {topic} {card.name:<14} {card.title} ({card.note}; {card.level}, {card.seconds} s)")
    print("\nSteps:")
    for number, step in enumerate(lesson.steps, 1):
        print(f"  {number}. {step.text}")
        if isinstance(step, Ask):
            print("     " + " · ".join(step.answers))
    print(json.dumps(as_dict(topic), ensure_ascii=False))


def fail(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def arguments_of(one: Experiment) -> type:
    """A dataclass for tyro with one option per setting. tyro hands the text through; `value_from_text` reads it."""
    options: list[tuple[str, Any, Any]] = []
    for field in one.settings:
        words = {int: "INT", float: "NUMBER", bool: "BOOL", str: "TEXT", bytes: "FILE"}
        choices = field.metadata["choices"]
        told = [field.metadata["label"], field.metadata["help"], span(field)]
        spec = as_text("{" + ",".join(choices) + "}" if choices else words[kind(field)])
        annotation = Annotated[object, spec, tyro.conf.arg(help="; ".join(part for part in told if part))]
        options.append(
            (field.name, annotation, dataclasses.field(default="" if kind(field) is bytes else field.default))
        )
    save = Annotated[
        Path | None, tyro.conf.arg(metavar="FOLDER", help="write the files that the run hands over into this folder")
    ]
    options.append(("save", save, dataclasses.field(default=None)))
    return dataclasses.make_dataclass(one.name, options)


def as_text(metavar: str) -> PrimitiveConstructorSpec[object]:
    return PrimitiveConstructorSpec(
        1, metavar, lambda words: Typed(words[0]), lambda value: True, lambda value: [str(value)]
    )


class Typed(str):
    """Text as it was typed, apart from a default."""


def span(field: dataclasses.Field[Any]) -> str:
    low, high = field.metadata["low"], field.metadata["high"]
    if kind(field) not in (int, float) or low is None or high is None:
        return ""
    return f"{low:g} to {counted(high, field.metadata['unit'])}"


def config_from_typed(one: Experiment, typed: dict[str, Any]) -> Config:
    """The Config from what was typed: the same sentences as on the tab when a value is bad."""
    values: dict[str, Any] = {}
    for field in one.settings:
        value = typed[field.name]
        if not isinstance(value, Typed):
            continue
        if kind(field) is bytes:
            try:
                values[field.name] = Path(value).read_bytes()
            except OSError:
                raise ValueError(f"{field.name} must be a file that can be read, got {value}") from None
        else:
            values[field.name] = value_from_text(field, str(value))
    return config_of(one.config_type, values)


def run(one: Experiment, config: Config, folder: Path | None) -> None:
    """Drain the generator with a progress bar, then print its report."""
    recorder = Recorder(one, config)
    main_process = os.environ.get("RANK", "0") == "0"  # accelerate launch starts several; one of them speaks
    with tqdm(one.run(config), file=sys.stderr, unit=" steps", disable=not main_process, mininterval=0.2) as steps:
        for step in steps:
            recorder.add(step)
            if step.doing:
                steps.set_description_str(step.doing.replace("\n", " "), refresh=False)
    if not main_process:
        return
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in recorder.files.items():
            (folder / name).write_bytes(data)
    print(json.dumps(recorder.report(), ensure_ascii=False))


def as_rank(job: Job, config: Config) -> None:
    """Under torchrun: this process is one rank of the job that the tab gives to processes of its own. One JSON line per
    value.
    """
    for value in under_torchrun(job, config):
        line = json.dumps({"rank": int(os.environ["RANK"]), "said": value}, ensure_ascii=False, default=in_words)
        sys.stdout.write(line + "\n")  # in one piece: the lines of several ranks do not mix


def in_words(value: Any) -> str:
    """What JSON does not know: an array by its shape."""
    return f"{value.dtype} {'x'.join(map(str, value.shape))}" if hasattr(value, "shape") else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
