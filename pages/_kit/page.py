"""The frame of every tab: question, idea and diagram, cards, controls, Run, picture, what you saw, code, take-away.

A tab is a `Page`: for each experiment how its picture is laid out and how a Step is drawn, and the topic's diagram.
Everything else (the lesson, controls, API endpoint, link, command, code, download) comes from the topic's module in
`core`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import gradio as gr

from core.foundations.experiment import Config, Experiment, experiments, kind
from core.foundations.lesson import Ask, Lesson, Look, lesson_of, verdict
from core.foundations.recorder import Recorder
from core.foundations.turns import MOST_ACTIVE
from pages._kit import links
from pages._kit.charts import Panel
from pages._kit.code import code_of, files_of, prose_of
from pages._kit.diagram import Diagram
from pages._kit.form import config_from, form_of, upload_id
from pages._kit.live import DEADLINE_SECONDS, Draw, fresh_id, live, signal, start_state, temporary_folder

T = TypeVar("T")

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
LIMIT = (
    f"Ready. A run ends after {DEADLINE_SECONDS / 60:.0f} minutes at the latest; up to {MOST_ACTIVE} runs take turns."
)
# What is quickly answered is asked and answered in one request; only runs wait in Gradio's queue. While one request of
# a kind is on its way, the last of those that were made meanwhile follows it.
QUIET: dict[str, Any] = {
    "api_visibility": "private", "show_progress": "hidden", "queue": False, "trigger_mode": "always_last",
}  # fmt: skip
MOST_PREVIEWS = 4  # computed at once; those that wait hold no thread, which runs and Stop need


@dataclass(frozen=True)
class Picture:
    """panels: how the main picture of an experiment is laid out, given its Config. draw: what one Step adds to it.

    lit: the parts of the diagram that a Step lights, each with a number to show in it or "". folded: ids of panels that
    stand under "More of this run", so that a page after a run is not too long.
    """

    panels: Callable[[Any], list[Panel]]
    draw: Draw
    lit: Callable[[Any], Mapping[str, str]] = lambda step: {step.part: ""} if step.part else {}
    folded: Sequence[str] = ()

    def layout(self, config: Any) -> list[Panel]:
        """The panels, those that are folded marked."""
        return [panel | {"more": True} if panel["id"] in self.folded else panel for panel in self.panels(config)]


@dataclass(frozen=True)
class Page:
    """thumb: a small picture for the Start page, [(svg tag, attributes, color name)]. diagram: of a Config of any of
    its experiments.
    """

    topic: str
    title: str
    pictures: Mapping[str, Picture]
    sources: Sequence[tuple[str, str]]  # (what, address)
    diagram: Callable[[Any], Diagram]
    hand_over: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    # file of a run -> (experiment, setting) that takes it
    thumb: Sequence[tuple[str, Mapping[str, Any], str]] = ()

    @property
    def experiments(self) -> dict[str, Experiment]:
        return experiments(self.topic)

    @property
    def lesson(self) -> Lesson:
        return lesson_of(self.topic)

    @property
    def questions(self) -> list[Ask]:
        return [step for step in self.lesson.steps if isinstance(step, Ask)]


@dataclass
class Parts:
    """The components of a built tab that its events need."""

    sources: gr.Markdown
    tour: gr.HTML
    idea: gr.Markdown
    diagram: gr.HTML
    cards: gr.HTML
    form: gr.HTML
    transport: gr.HTML
    picture: gr.HTML
    prose: gr.Markdown
    files: gr.HTML
    code: gr.Code
    take: gr.HTML
    data: gr.DownloadButton
    saved: gr.File
    uploads: dict[tuple[str, str], gr.File]  # (experiment, setting) -> where a file is given


# --- the frame --------------------------------------------------------------------------------------------------------


def own(name: str, topic: str, *events: str, inside: str = "", **more: Any) -> gr.HTML:
    """A component of our own: assets/js draws it, the events named here are those it may trigger.

    inside: HTML of ours that is there before the script.
    """
    names = "".join(f",'{event}'" for event in events)  # Gradio looks for their names in the script
    return gr.HTML(
        html_template=f"<div class=viz-{name} data-topic={topic}>{inside}</div>",
        apply_default_css=False,
        elem_id=f"{topic}-{name}",
        js_on_load=f"viz('{name}',element,props,watch,trigger,server{names})",
        **more,
    )


def build(page: Page) -> None:
    """Lay out a tab inside the current Gradio context and wire its events."""
    topic = page.topic
    with gr.Column(elem_classes="viz-page"):
        tour = own("tour", topic, inside=f"<div><p>{page.title}</p><h1>{page.lesson.question}</h1></div>")
        with gr.Row(elem_classes="viz-idea-row"):
            idea = gr.Markdown(elem_classes="viz-idea", elem_id=f"{topic}-idea")
            diagram = own("diagram", topic)
        cards = own("cards", topic, "about")
        with gr.Row(elem_classes="viz-stage"):
            with gr.Column(scale=3, min_width=270, elem_classes="viz-controls"):
                form, uploads = own("form", topic), uploads_of(page)
            with gr.Column(scale=9, min_width=300, elem_classes="viz-main"):
                transport = own(
                    "transport", topic, "start", "cancel", "reset", "preview", "take",
                    server_functions=[signal], limit=LIMIT,
                )  # fmt: skip
                picture = own("picture", topic, "mounted")
        with gr.Tabs(elem_id=f"{topic}-more", elem_classes="viz-tabs"):
            with gr.Tab("How it works"):
                prose = gr.Markdown(latex_delimiters=LATEX, elem_classes="viz-prose")
            with gr.Tab("The code that ran", elem_classes="viz-code"):
                files = own("files", topic)
                code = gr.Code(language="python", interactive=False, show_label=False, max_lines=40)
            with gr.Tab("Take it with you"):
                take = own("take", topic)
                data = gr.DownloadButton("Download the data (after a run)", interactive=False)
                saved = gr.File(label="Files of this run", interactive=False, file_count="multiple", visible=False)
            with gr.Tab("Sources"):
                sources = gr.Markdown()
    wire(
        page,
        Parts(
            sources,
            tour,
            idea,
            diagram,
            cards,
            form,
            transport,
            picture,
            prose,
            files,
            code,
            take,
            data,
            saved,
            uploads,
        ),
    )


def uploads_of(page: Page) -> dict[tuple[str, str], gr.File]:
    """Where files are given, by experiment and setting; the form shows those that matter."""
    return {
        (one.name, field.name): gr.File(
            label=field.metadata["label"],
            file_types=list(field.metadata["suffixes"]),
            type="binary",
            height=110,
            elem_id=upload_id(one, field),
            elem_classes="viz-away",
        )
        for one in page.experiments.values()
        for field in one.settings
        if kind(field) is bytes
    }


def idea_of(lesson: Lesson) -> str:
    """The idea and its formula as Markdown."""
    return f"{lesson.idea}\n\n$${lesson.formula}$$" if lesson.formula else lesson.idea


def cards_of(page: Page) -> list[dict[str, Any]]:
    """What assets/js/cards.js makes the cards from."""
    return [
        {
            "name": card.name,
            "title": card.title,
            "level": card.level,
            "seconds": card.seconds,
            "note": card.note,
            "question": page.experiments[card.name].question,
        }
        for card in page.lesson.experiments
    ]


def tour_of(page: Page) -> dict[str, Any]:
    """The steps of the walk-through; a question is numbered, since its answer is decided here."""
    steps: list[dict[str, Any]] = []
    for step in page.lesson.steps:
        told: dict[str, Any] = {"kind": step.kind, "text": step.text, "experiment": step.experiment}
        if isinstance(step, Look):
            told["at"] = step.at
        elif isinstance(step, Ask):
            told |= {"at": "run", "settings": dict(step.settings), "answers": list(step.answers)}
            told["question"] = page.questions.index(step)
        else:
            told |= {"at": step.watch, "settings": dict(step.settings)}
        steps.append(told)
    return {"steps": steps, "minutes": page.lesson.minutes}


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

    def experiment(self, message: Any) -> Experiment:
        """That a message is about. A message is what somebody sent, not always a page of ours."""
        name = message.get("experiment") if isinstance(message, dict) else None
        if not isinstance(name, str) or name not in self.page.experiments:
            raise ValueError(f"experiment must be one of {', '.join(self.page.experiments)}")
        return self.page.experiments[name]

    def read(self, message: dict[str, Any], given: Sequence[bytes | None]) -> tuple[Experiment, Config]:
        one, values = self.experiment(message), message.get("values", {})
        if not isinstance(values, dict):
            raise ValueError("values must be settings by name")
        return one, config_from(one, values, dict(zip(self.parts.uploads, given, strict=True)))

    def run(self, message: dict[str, Any], *given: bytes | None) -> Iterator[dict[Any, Any]]:
        """A run, from the button or from a step of the walk-through; an answered question comes with its "guess"."""
        page, parts = self.page, self.parts
        try:
            one, config = self.read(message, given)
        except ValueError as problem:
            yield {parts.transport: {"state": "idle", "status": str(problem), "bad": True}}
            return
        started = {"start": message["asked"]} if isinstance(message.get("asked"), int) else {}
        picture, guess = page.pictures[one.name], message.get("guess")
        first: dict[Any, Any] = self.drawn(config)
        for said in live(one, config, picture.layout(config), picture.draw, message.get("mode", "run"), picture.lit):
            told, first = first, {}
            if said.picture is not None:
                told[parts.picture] = said.picture
            if said.transport is not None:
                told[parts.transport] = said.transport | started
            if said.ended is None:
                yield told or {parts.data: gr.skip()}
                continue
            if guess:
                told[parts.tour] = verdict_of(page.questions[guess["question"]], guess, said.ended)
            with temporary_folder() as folder:
                data, files = said.ended.write(Path(folder))
                label = "Download the data of this run (JSON)"
                told[parts.data] = gr.update(value=str(data), interactive=True, label=label)
                told[parts.saved] = gr.update(value=[str(path) for path in files], visible=bool(files))
                told |= {self.handed[path.name]: str(path) for path in files if path.name in self.handed}
                yield told

    def drawn(self, config: Config) -> dict[Any, Any]:
        """The diagram with the sizes of this Config."""
        return {self.parts.diagram: self.page.diagram(config).as_dict()}

    def start_of(self, message: dict[str, Any], given: Sequence[bytes | None], preview: bool) -> dict[Any, Any]:
        parts = self.parts
        try:
            one, config = self.read(message, given)
            shown = start(self.page, one, config, preview=preview)
        except ValueError as problem:
            return {parts.transport: {"status": str(problem), "bad": True}}
        answer = {parts.picture: shown} | self.drawn(config)
        return answer if preview else answer | {parts.transport: {"status": "Back at the start."}}

    async def preview(self, message: dict[str, Any], *given: bytes | None) -> dict[Any, Any]:
        return await in_line(partial(self.start_of, message, given, preview=True))

    async def reset(self, message: dict[str, Any], *given: bytes | None) -> dict[Any, Any]:
        return await in_line(partial(self.start_of, message, given, preview=False))

    def mounted(self) -> dict[Any, Any]:
        """The first visit: the lesson, the form, and the start state of the first experiment."""
        page, parts, one = self.page, self.parts, next(iter(self.page.experiments.values()))
        config = one.config_type()
        return {
            parts.idea: idea_of(page.lesson),
            parts.cards: {"cards": cards_of(page)},
            parts.form: {"spec": form_of(page.experiments)},
            parts.tour: tour_of(page),
            parts.picture: start(page, one, config, preview=True),
        } | self.drawn(config)

    def about(self, message: dict[str, Any]) -> dict[Any, Any]:
        """What stands under the picture: an experiment's prose and a file of its code (the first, or the one that is
        asked for), the topic's sources. All of it each time, so that it belongs together.
        """
        parts = self.parts
        try:
            one, module = self.experiment(message), message.get("module")
        except ValueError:  # no page of ours asks that
            return {parts.sources: gr.skip()}
        sources = "\n".join(f"- [{what}]({address})" for what, address in self.page.sources)
        answer = {parts.prose: prose_of(one), parts.files: files_of(one, module), parts.code: code_of(one, module)}
        return answer | {parts.sources: sources}

    def take(self, request: gr.Request, message: dict[str, Any], *given: bytes | None) -> dict[str, str]:
        """Python, command and link for the form as it is."""
        try:
            one, config = self.read(message, given)
        except ValueError as problem:
            return dict.fromkeys(("python", "command", "link"), str(problem)) | {"left_out": ""}
        here = str(request.headers.get("referer") or "").split("?")[0].split("#")[0]
        return {
            "python": links.as_python(one, config),
            "command": links.as_command(one, config),
            "link": here + links.query_for(one, config),
            "left_out": links.left_out(config),
        }


def wire(page: Page, parts: Parts) -> None:
    """Tie the tab's events to their handlers."""
    on = Handlers(page, parts)
    asks = [parts.transport, *parts.uploads.values()]
    outputs = [parts.picture, parts.transport, parts.tour, parts.data, parts.saved, parts.diagram, *on.handed.values()]
    started = parts.transport.start(
        on.run, asks, outputs, trigger_mode="multiple", show_progress="minimal", show_progress_on=parts.transport,
        api_visibility="private", concurrency_id="runs", concurrency_limit=MOST_ACTIVE,
    )  # fmt: skip
    parts.transport.cancel(None, cancels=[started], api_visibility="private")
    shown = [parts.picture, parts.transport, parts.diagram]
    parts.transport.reset(on.reset, asks, shown, **QUIET)
    parts.transport.preview(on.preview, asks, shown, **QUIET)
    parts.transport.take(on.take, asks, parts.take, **QUIET)
    below = [parts.prose, parts.files, parts.code, parts.sources]
    parts.cards.about(on.about, parts.cards, below, **QUIET)
    lesson = [parts.idea, parts.cards, parts.form, parts.tour, parts.picture, parts.diagram]
    parts.picture.mounted(on.mounted, None, lesson, **QUIET)


@cache
def line() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(MOST_PREVIEWS)


async def in_line(work: Callable[[], T]) -> T:
    """Do something in a thread when it is its turn."""
    return await anyio.to_thread.run_sync(work, limiter=line())


STARTS: dict[tuple[str, str], dict[str, Any]] = {}
# start states at the defaults, by topic and experiment: every first visit needs them


def start(page: Page, one: Experiment, config: Config, *, preview: bool) -> dict[str, Any]:
    """The start state of an experiment, drawn. `preview`: a picture that is already there stays."""
    picture, key = page.pictures[one.name], (page.topic, one.name)
    if key in STARTS and config == one.config_type():
        shown = STARTS[key]
    else:
        shown = start_state(one, config, picture.layout(config), picture.draw)
        if config == one.config_type():
            STARTS[key] = shown
    return shown | {"id": fresh_id(), "open": shown["open"] | {"preview": preview}}


def verdict_of(asked: Ask, guess: dict[str, int], ended: Recorder) -> dict[str, Any]:
    """Which answer the run's own figures make right, and why."""
    right, because = verdict(asked, ended.outcome)
    return {"question": guess["question"], "answer": guess["answer"], "right": right, "because": because}
