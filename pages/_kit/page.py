"""The frame of every tab: question, predictions, controls, Run/Step/Stop/Reset, picture, lesson, code, take-away.

A tab is a `Page`: the topic's name, and for each experiment how its picture is laid out and how a Step is drawn.
Everything else (controls, API endpoint, link, command, code, download) comes from the topic's module in `core`.
"""

import dataclasses
import importlib
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core.foundations.experiment import Config, Experiment, Prediction, Recorder, experiments, kind, plural
from core.foundations.machine import this_machine
from core.foundations.turns import MOST_ACTIVE, turns
from pages._kit import links
from pages._kit.charts import Panel
from pages._kit.live import DEADLINE_SECONDS, Draw, fresh_id, live, log, signal, start_state, temporary_folder

LATEX = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]
LIMIT = f"Ready. A run ends after {DEADLINE_SECONDS / 60:.0f} minutes at the latest; up to {MOST_ACTIVE} runs take turns."
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Picture:
    """panels: how the main picture of an experiment is laid out, given its Config. draw: what one Step adds to it."""

    panels: Callable[[Any], list[Panel]]
    draw: Draw


@dataclass(frozen=True)
class Page:
    topic: str
    title: str
    pictures: Mapping[str, Picture]
    sources: Sequence[tuple[str, str]]  # (what, address)
    hand_over: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # file of a run -> (experiment, setting) that takes it

    @property
    def experiments(self) -> dict[str, Experiment]:
        return experiments(self.topic)

    @property
    def predictions(self) -> Sequence[Prediction]:
        return getattr(importlib.import_module(f"core.{self.topic}"), "PREDICTIONS", ())


@dataclass
class Parts:
    """The components of a built tab that its events need."""

    form: gr.HTML
    transport: gr.HTML
    picture: gr.HTML
    predictions: gr.HTML
    take: gr.HTML
    lesson: gr.Markdown
    code: gr.Code
    data: gr.DownloadButton
    files: gr.File
    uploads: dict[tuple[str, str], gr.File]  # (experiment, setting) -> where a file is given


# --- the form, made from the Config's settings ------------------------------------------------------------------------


def form_of(page: Page) -> list[dict[str, Any]]:
    """What assets/frame.js needs to build the controls of all experiments of a tab."""
    return [
        {"name": one.name, "question": one.question, "fields": [told_field(page, one, field) for field in one.settings]} for one in page.experiments.values()
    ]


def told_field(page: Page, one: Experiment, field: dataclasses.Field[Any]) -> dict[str, Any]:
    told = {name: field.metadata[name] for name in ("label", "unit", "low", "high", "more", "help", "when") if field.metadata[name]}
    if field.metadata["unit"]:
        told["units"] = plural(field.metadata["unit"])
    told |= {"name": field.name, "kind": kind(field).__name__, "dial": is_dial(field)}
    if field.metadata["choices"]:
        told["choices"] = list(field.metadata["choices"].items())
    if kind(field) is bytes:
        return told | {"file": upload_id(page, one, field)}
    return told | {"default": field.default}


def upload_id(page: Page, one: Experiment, field: dataclasses.Field[Any]) -> str:
    return f"{page.topic}-{one.name}-{field.name}"


def is_dial(field: dataclasses.Field[Any]) -> bool:
    """A slider is for few values that people like to drag; the number beside it takes anything."""
    low, high = field.metadata["low"], field.metadata["high"]
    return kind(field) in (int, float) and low is not None and high is not None and high <= 16 and low >= 0 and field.name != "learning_rate"


def config_from(page: Page, name: str, values: Mapping[str, Any], uploads: Mapping[tuple[str, str], bytes | None]) -> Config:
    """The Config of an experiment from what the form says and the files that were given."""
    one = page.experiments[name]
    told: dict[str, Any] = {}
    for field in one.settings:
        if kind(field) is bytes:
            told[field.name] = uploads.get((name, field.name)) or b""
        elif field.name in values:
            told[field.name] = values[field.name]
    return one.config_type(**told)


# --- the frame --------------------------------------------------------------------------------------------------------


def own(name: str, topic: str, *events: str, **more: Any) -> gr.HTML:
    """A component of our own: assets/*.js draws it, the events named here are those it may trigger."""
    return gr.HTML(
        html_template=f'<div class="viz-{name}" data-topic="{topic}"></div>', apply_default_css=False, elem_id=f"{topic}-{name}",
        js_on_load=f"Viz.{name}(element, props, watch, trigger, server, {list(events)})", **more,
    )  # fmt: skip


def build(page: Page) -> None:
    """Lay out a tab inside the current Gradio context and wire its events."""
    topic, uploads = page.topic, {}
    with gr.Column(elem_classes="viz-page"):
        question = next(iter(page.experiments.values())).question
        gr.HTML(f'<h1>{page.title}</h1><h2 class="viz-question" data-topic="{topic}">{question}</h2>', elem_classes="viz-title")
        with gr.Accordion("Try this: predict, then run", open=False):
            predictions = own("predictions", topic)
        with gr.Row(elem_classes="viz-stage"):
            with gr.Column(scale=3, min_width=270, elem_classes="viz-controls"):
                form = own("form", topic)
                for one in page.experiments.values():
                    for field in one.settings:
                        if kind(field) is bytes:
                            uploads[one.name, field.name] = gr.File(label=field.metadata["label"], file_types=list(field.metadata["suffixes"]), type="binary",
                                                                    height=110, elem_id=upload_id(page, one, field), elem_classes="viz-away")  # fmt: skip
            with gr.Column(scale=8, min_width=300, elem_classes="viz-main"):
                transport = own("transport", topic, "start", "cancel", "reset", "preview", "take", server_functions=[signal], limit=LIMIT)
                picture = own("picture", topic, "mounted")
        with gr.Accordion("How it works", open=False):
            lesson = gr.Markdown(latex_delimiters=LATEX)
        with gr.Accordion("The code that ran", open=False):
            code = gr.Code(language="python", interactive=False, show_label=False, max_lines=40)
        with gr.Accordion("Take it with you: Python, command, link, data", open=False):
            take = own("take", topic)
            data = gr.DownloadButton("Download the data (after a run)", interactive=False)
            files = gr.File(label="Files of this run", interactive=False, file_count="multiple", visible=False)
        with gr.Accordion("Sources", open=False):
            gr.Markdown("\n".join(f"- [{what}]({address})" for what, address in page.sources))
    wire(page, Parts(form, transport, picture, predictions, take, lesson, code, data, files, uploads))


def lesson_of(one: Experiment) -> str:
    """The prose of the topic and of the module that runs."""
    topic, module = importlib.import_module(f"core.{one.topic}"), sys.modules[one.run.__module__]
    docs = [inspect.getdoc(part) or "" for part in ([topic] if topic is module else [topic, module])]
    return "\n\n---\n\n".join(re.sub(r"^(Code -> paper|Left out|Source):", r"\n**\1:**", doc, flags=re.M) for doc in docs)


def code_of(one: Experiment) -> str:
    return inspect.getsource(sys.modules[one.run.__module__])


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass
class Handlers:
    """What the tab's events call. Each message carries the form as it is; the server keeps nothing between them."""

    page: Page
    parts: Parts

    @property
    def handed(self) -> dict[str, gr.File]:
        """File of a run -> the upload that takes it over."""
        return {name: self.parts.uploads[target] for name, target in self.page.hand_over.items()}

    def read(self, message: dict[str, Any], given: Sequence[bytes | None]) -> tuple[Experiment, Config]:
        name = message.get("experiment")
        if name not in self.page.experiments:
            raise ValueError(f"experiment must be one of {', '.join(self.page.experiments)}")
        return self.page.experiments[name], config_from(self.page, name, message.get("values", {}), dict(zip(self.parts.uploads, given, strict=True)))

    def run(self, message: dict[str, Any], *given: bytes | None) -> Iterator[dict[Any, Any]]:
        """A run, from the button or from an answered prediction ("guess")."""
        page, parts = self.page, self.parts
        try:
            one, config = self.read(message, given)
        except ValueError as problem:
            yield {parts.transport: {"run": None, "state": "idle", "status": str(problem), "bad": True}}
            return
        picture, guess = page.pictures[one.name], message.get("guess")
        for said in live(one, config, picture.panels(config), picture.draw, message.get("mode", "run")):
            told: dict[Any, Any] = {}
            if said.picture is not None:
                told[parts.picture] = said.picture
            if said.transport is not None:
                told[parts.transport] = said.transport
            if said.ended is None:
                yield told or {parts.data: gr.skip()}
                continue
            if guess:
                told[parts.predictions] = verdict(page.predictions[guess["question"]], guess, said.ended)
            with temporary_folder() as folder:
                data, files = said.ended.write(Path(folder))
                told[parts.data] = gr.update(value=str(data), interactive=True, label="Download the data of this run (JSON)")
                told[parts.files] = gr.update(value=[str(path) for path in files], visible=bool(files))
                told |= {self.handed[path.name]: str(path) for path in files if path.name in self.handed}
                yield told

    def start_of(self, message: dict[str, Any], given: Sequence[bytes | None], preview: bool) -> dict[Any, Any]:
        parts = self.parts
        try:
            one, config = self.read(message, given)
            drawn = start(self.page, one, config, preview=preview)
        except ValueError as problem:
            return {parts.transport: {"status": str(problem), "bad": True}}
        told = {parts.picture: drawn, parts.lesson: lesson_of(one), parts.code: code_of(one)}
        return told if preview else told | {parts.transport: {"status": "Back at the start."}}

    def preview(self, message: dict[str, Any], *given: bytes | None) -> dict[Any, Any]:
        return self.start_of(message, given, preview=True)

    def reset(self, message: dict[str, Any], *given: bytes | None) -> dict[Any, Any]:
        return self.start_of(message, given, preview=False)

    def mounted(self) -> dict[Any, Any]:
        """The first visit: the form, the predictions, the lesson, the code, and the start state of the first experiment."""
        page, parts, one = self.page, self.parts, next(iter(self.page.experiments.values()))
        asked = [{"question": p.question, "answers": list(p.answers), "experiment": p.experiment, "settings": dict(p.settings)} for p in page.predictions]
        told = {parts.form: {"spec": form_of(page)}, parts.predictions: {"questions": asked}, parts.lesson: lesson_of(one), parts.code: code_of(one)}
        return told | {parts.picture: start(page, one, one.config_type(), preview=True)}

    def take(self, request: gr.Request, message: dict[str, Any], *given: bytes | None) -> dict[str, str]:
        """Python, command and link for the form as it is."""
        try:
            one, config = self.read(message, given)
        except ValueError as problem:
            return dict.fromkeys(("python", "command", "link"), str(problem))
        here = str(request.headers.get("referer") or "").split("?")[0].split("#")[0]
        return {"python": links.as_python(one, config), "command": links.as_command(one, config), "link": here + links.query_for(one, config)}


def wire(page: Page, parts: Parts) -> None:
    """Tie the tab's events to their handlers."""
    on = Handlers(page, parts)
    asks = [parts.transport, *parts.uploads.values()]
    outputs = [parts.picture, parts.transport, parts.predictions, parts.data, parts.files, *on.handed.values()]
    started = parts.transport.start(
        on.run, asks, outputs, trigger_mode="multiple", show_progress="minimal", show_progress_on=parts.transport, api_visibility="private",
        concurrency_id="runs", concurrency_limit=MOST_ACTIVE,
    )  # fmt: skip
    parts.transport.cancel(None, cancels=[started], api_visibility="private")
    shown = [parts.picture, parts.transport, parts.lesson, parts.code]
    parts.transport.reset(on.reset, asks, shown, **QUIET)
    parts.transport.preview(on.preview, asks, shown, **QUIET)
    parts.transport.take(on.take, asks, parts.take, **QUIET)
    parts.picture.mounted(on.mounted, None, [parts.picture, parts.form, parts.predictions, parts.lesson, parts.code], **QUIET)


STARTS: dict[tuple[str, str], dict[str, Any]] = {}  # start states at the defaults, by topic and experiment: every first visit needs them


def start(page: Page, one: Experiment, config: Config, *, preview: bool) -> dict[str, Any]:
    """The start state of an experiment, drawn. `preview`: a picture that is already there stays."""
    picture, key = page.pictures[one.name], (page.topic, one.name)
    if key in STARTS and config == one.config_type():
        drawn = STARTS[key]
    else:
        drawn = start_state(one, config, picture.panels(config), picture.draw)
        if config == one.config_type():
            STARTS[key] = drawn
    return drawn | {"id": fresh_id(), "open": drawn["open"] | {"preview": preview}}


def verdict(asked: Prediction, guess: dict[str, int], ended: Recorder) -> dict[str, Any]:
    """Which answer the run's own figures make right, and why."""
    told: dict[str, Any] = {"question": guess["question"], "answer": guess["answer"], "right": None, "because": "The run ended before it could decide."}
    try:
        return told | {"right": asked.right(ended.figures), "because": asked.because(ended.figures)}
    except KeyError:  # stopped before its figures were there
        return told


# --- the API ----------------------------------------------------------------------------------------------------------


def endpoint(one: Experiment) -> None:
    """One public endpoint per experiment, named like `nanogpt_train`: its settings in, the terminal's JSON out.

    It yields {"steps", "doing"} while it runs (at most twice a second) and the whole result at the end.
    """
    fields = [field for field in one.settings if kind(field) is not bytes]

    def call(*values: Any) -> Iterator[dict[str, Any]]:
        try:
            config = one.config_type(**dict(zip([field.name for field in fields], values, strict=True)))
        except ValueError as problem:
            raise gr.Error(str(problem), print_exception=False) from None
        recorder, told, deadline = Recorder(one, config), 0.0, time.monotonic() + DEADLINE_SECONDS
        taken = turns(this_machine().device).take(one.run(config))
        try:
            for step in taken:
                recorder.add(step)
                if time.monotonic() > told + 0.5:
                    told = time.monotonic()
                    yield {"steps": recorder.steps, "doing": step.doing}
                if time.monotonic() > deadline:
                    break
        except ValueError as problem:
            raise gr.Error(str(problem), print_exception=False) from None
        except Exception:
            log.exception("run of %s failed", one.key)
            raise gr.Error("Something went wrong inside this run; it has been logged.", print_exception=False) from None
        finally:
            taken.close()
        yield recorder.report()

    words = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [inspect.Parameter(field.name, words, default=field.default, annotation=kind(field)) for field in fields]
    call.__signature__ = inspect.Signature(signature, return_annotation=dict)  # type: ignore[attr-defined]
    call.__annotations__ = {field.name: kind(field) for field in fields} | {"return": dict}
    call.__doc__ = one.question
    gr.api(call, api_name=one.key, concurrency_id="runs", concurrency_limit=MOST_ACTIVE)
