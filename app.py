"""Everything about LLMs: the syllabus, and the lines that assemble it. Start: python app.py"""

import gc

gc.disable()  # importing makes a great many objects and no garbage: starting is a fifth faster without looking for it

import importlib  # noqa: E402
import inspect  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import threading  # noqa: E402
from typing import Any  # noqa: E402

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the app asks no other host for anything by itself
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr  # noqa: E402

from core.foundations.machine import this_machine  # noqa: E402
from core.foundations.turns import turns  # noqa: E402
from core.glossary import glossary_as_dicts  # noqa: E402
from pages import start  # noqa: E402
from pages._kit.api import endpoint  # noqa: E402
from pages._kit.links import from_query  # noqa: E402
from pages._kit.page import build, own  # noqa: E402
from pages._kit.page import start as start_of  # noqa: E402
from pages._kit.syllabus import Chapter  # noqa: E402
from pages._kit.theme import STYLE, head, theme  # noqa: E402

SYLLABUS = [
    Chapter("Getting started", "how a GPT learns, from characters to sentences", ("nanogpt",)),
    Chapter("Fine-tuning", "teach a finished model something new", ("lora", "qlora", "rlhf")),
    Chapter("Multimodal models", "pictures and words in one model", ("clip", "glide", "dalle2", "stable_diffusion")),
    Chapter(
        "Engineering magics",
        "how models too large for one machine are trained and run",
        (
            "zero",
            "megatron",
            "pipeline_parallel",
            "deterministic_resume",
            "flash_attention",
            "kv_cache",
            "gradient_checkpointing",
            "data_efficiency",
            "planner",
        ),
    ),
]

MAX_UPLOAD = "32mb"
SLOW_IMPORTS = (
    "transformers.models.llama.modeling_llama",
    "peft",
    "bitsandbytes",
    "open_clip",
    "diffusers.models.unets.unet_2d_condition",
)


# What the page never reads, or reads with just this default when it is not there.
UNREAD_PROPS = (
    "_retryable", "_undoable", "_selectable", "likeable", "streamable", "autoscroll", "preserved_by_key",
    "component_class_name",
)  # fmt: skip
UNREAD = (
    "api_info",
    "api_info_as_input",
    "api_info_as_output",
    "example_inputs",
    "component_class_id",
    "key",
    "skip_api",
)
DEFAULTS: dict[str, Any] = {"css_template": "", "props": {}, "padding": False, "buttons": [], "elem_classes": []}
FALSE = ("rtl", "line_breaks", "header_links")  # of prose: what is not there is false, too
OF_EVENTS = ("max_batch_size", "stream_every", "component_prop_inputs")


class SlimBlocks(gr.Blocks):
    """Blocks whose config leaves out what the page never reads: with 17 tabs it would be half a megabyte a visit."""

    def get_config_file(self) -> Any:
        config = super().get_config_file()
        for component in config["components"]:
            api, props = component["type"] == "api", component["props"]
            for name in UNREAD:
                if not (
                    api and name == "api_info"
                ):  # the API page and the clients read the name, the value and the type
                    component.pop(name, None)
            for name in ("_api_info", "_selectable", "label") if api else UNREAD_PROPS:
                props.pop(name, None)
            if component["type"] in ("html", "row", "column", "tabitem", "tabs"):
                for name, default in DEFAULTS.items():
                    if props.get(name) == default:
                        del props[name]
            if component["type"] == "markdown":
                for name in FALSE:
                    if props.get(name) is False:
                        del props[name]
        config["dependencies"] = [
            {
                name: value
                for name, value in event.items()
                if value is not None and name not in OF_EVENTS and (value is not False or name == "queue")
            }
            for event in config["dependencies"]
        ]
        # the page draws none of the endpoints' parameters; /config, which the clients read, keeps them
        unseen = {component["id"] for component in config["components"] if component["type"] == "api"}
        pages: Any = config["page"]
        for page in pages.values():
            page["components"] = [number for number in page["components"] if number not in unseen]
            children = page["layout"]["children"]
            page["layout"]["children"] = [child for child in children if child["id"] not in unseen]
        return config

    def get_api_info(self, all_endpoints: bool = False, page: str | None = None) -> Any:
        """Gradio's, with the names of the parameters in place of "parameter_459", without descriptions that are empty
        and examples beside a default; where a default depends on a choice, it says so.
        """
        info = super().get_api_info(all_endpoints, page)
        for described in info["named_endpoints"].values():
            for parameter in described["parameters"]:
                parameter["label"] = parameter["parameter_name"]
                if parameter.get("parameter_default"):  # it stands in the examples; without one Gradio takes this
                    parameter.pop("example_input", None)
                if parameter.get("parameter_default", 0) is None:
                    parameter["python_type"]["description"] = "None: what suits the model"
            for value in (*described["parameters"], *described["returns"]):
                if not value["python_type"].get("description"):
                    value["python_type"].pop("description", None)
        return info


def keep_signatures(app: gr.Blocks) -> None:
    """For each new visitor Gradio looks up the signature of the class of each of 1,106 components, and nobody else is
    served meanwhile: 67 ms, and 32 ms when they are kept (`inspect.signature` takes what stands in `__signature__`).
    """
    for made in {type(block) for block in app.blocks.values()}:
        made.__init__.__signature__ = inspect.signature(made.__init__)  # type: ignore[misc, attr-defined]


def assemble(syllabus: list[Chapter]) -> gr.Blocks:
    """The Start page, all chapters as tabs, every experiment as an API endpoint."""
    pages = {topic: importlib.import_module(f"pages.{topic}").PAGE for chapter in syllabus for topic in chapter.topics}
    with SlimBlocks(title="Everything about LLMs", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        if this_machine().warning:
            gr.Markdown(f"**{this_machine().warning}**", elem_classes="viz-banner")
        with gr.Tabs(elem_id="chapters", elem_classes="viz-tabs") as chapters:
            with gr.Tab("Start", id="start", elem_id="start"):
                start.build(syllabus, pages)
            inner = []
            for number, chapter in enumerate(syllabus):
                with gr.Tab(chapter.title, id=f"chapter-{number}", elem_id=f"chapter-{number}"):
                    with gr.Tabs(elem_classes="viz-tabs") as tabs:
                        for topic in chapter.topics:
                            with gr.Tab(pages[topic].title, id=topic, elem_id=topic):
                                build(pages[topic])
                    inner.append(tabs)
        for page in pages.values():
            for one in page.experiments.values():
                endpoint(one)
        rows = [["start", []], *([f"chapter-{number}", chapter.topics] for number, chapter in enumerate(syllabus))]
        script = f"async () => (await vizReady).tabs({json.dumps(rows)})"
        app.load(None, None, [chapters, *inner], js=script, api_visibility="private")

        def follow(request: gr.Request) -> dict[str, Any]:
            return follow_link(list(pages), request) | {"glossary": glossary_as_dicts()}

        app.load(follow, None, own("link", "app"), queue=False, show_progress="hidden", api_visibility="private")
    keep_signatures(app)
    return app


def follow_link(topics: list[str], request: gr.Request) -> dict[str, Any]:
    """What the link asks for, for the page to set; a bad link leaves the defaults and says why."""
    topic, one, values, problem = from_query(dict(request.query_params), topics)
    asked = {"topic": topic or (topics[0] if problem else None), "problem": problem}
    return asked | ({"experiment": one.name, "values": values} if one else {})


def warm(syllabus: list[Chapter]) -> None:
    """Import what is slow behind the running server, so that the first Run does not wait for it."""
    gc.enable()
    for number, topic in enumerate(topic for chapter in syllabus for topic in chapter.topics):
        if number == 1:
            # The first tab needs none of these. On the runs' own thread: two threads cannot import some at once.
            for name in SLOW_IMPORTS:
                turns(this_machine().device).worker.submit(importlib.import_module, name).result()
        page = importlib.import_module(f"pages.{topic}").PAGE
        for name, one in page.experiments.items():
            try:
                start_of(page, one, one.config_type(), preview=True)
            except Exception:  # a tab that cannot start must not keep the others cold
                logging.getLogger("everything_about_llms").exception("warming %s %s failed", topic, name)


def launch(app: gr.Blocks, syllabus: list[Chapter] = SYLLABUS, **changes: Any) -> Any:
    """Every setting that matters is said here, since Gradio's defaults differ between a laptop and a Space."""
    app.queue(api_open=False, max_size=64, default_concurrency_limit=8)
    settings: dict[str, Any] = {
        "theme": theme(),
        "head": head(),
        "css_paths": STYLE,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": MAX_UPLOAD,
        "footer_links": ["api", "settings"],
        "quiet": False,
        "server_port": int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    }
    waits = not changes.pop("prevent_thread_lock", False)
    served = app.launch(prevent_thread_lock=True, **settings | changes)
    threading.Thread(target=warm, args=(syllabus,), daemon=True, name="warm").start()
    if waits:
        app.block_thread()
    return served


if __name__ == "__main__":
    launch(assemble(SYLLABUS))
