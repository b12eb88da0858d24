"""Everything about LLMs: the syllabus, and the lines that assemble it. Start: python app.py"""

import gc

gc.disable()  # importing makes a great many objects and no garbage: starting is a fifth faster without looking for it

import importlib  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import threading  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the app asks no other host for anything by itself
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr  # noqa: E402

from core.foundations.machine import this_machine  # noqa: E402
from core.foundations.turns import turns  # noqa: E402
from pages._kit.links import from_query  # noqa: E402
from pages._kit.page import build, endpoint, own, start  # noqa: E402
from pages._kit.theme import STYLE, head, theme  # noqa: E402


@dataclass(frozen=True)
class Chapter:
    title: str
    topics: tuple[str, ...]


SYLLABUS = [
    Chapter("Getting started", ("nanogpt",)),
    Chapter("Fine-tuning", ("lora", "qlora", "rlhf")),
    Chapter("Multimodal models", ("clip", "glide", "dalle2", "stable_diffusion")),
    Chapter(
        "Engineering magics",
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
SLOW_IMPORTS = ("transformers.models.llama.modeling_llama", "peft", "bitsandbytes", "open_clip", "diffusers.models.unets.unet_2d_condition")


UNREAD = ("_retryable", "_undoable", "likeable", "streamable", "autoscroll", "preserved_by_key", "component_class_name")  # by any component used here


class SlimBlocks(gr.Blocks):
    """Blocks whose config leaves out what the page never reads; with sixteen tabs it would be half a megabyte per visitor."""

    def get_config_file(self) -> Any:
        config = super().get_config_file()
        for component in config["components"]:
            kept = ("api_info",) if component["type"] == "api" else ()  # which the API page and the clients do read, as the name and the value
            for name in ("api_info", "api_info_as_input", "api_info_as_output", "example_inputs", "component_class_id", "key", "skip_api"):
                if name not in kept:
                    component.pop(name, None)
            for name in ("_api_info",) if kept else UNREAD:
                component["props"].pop(name, None)
            component["props"].pop("_selectable", None)
        config["dependencies"] = [{name: value for name, value in one.items() if value is not None and value is not False} for one in config["dependencies"]]
        return config


def assemble(syllabus: list[Chapter]) -> gr.Blocks:
    """All chapters as tabs, every experiment as an API endpoint."""
    pages = {topic: importlib.import_module(f"pages.{topic}").PAGE for chapter in syllabus for topic in chapter.topics}
    with SlimBlocks(title="Everything about LLMs", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        if this_machine().warning:
            gr.Markdown(f"**{this_machine().warning}**", elem_classes="viz-banner")
        with gr.Tabs(elem_id="chapters") as chapters:
            inner = []
            for number, chapter in enumerate(syllabus):
                with gr.Tab(chapter.title, id=f"chapter-{number}", elem_id=f"chapter-{number}"):
                    with gr.Tabs() as tabs:
                        for topic in chapter.topics:
                            with gr.Tab(pages[topic].title, id=topic, elem_id=topic):
                                build(pages[topic])
                    inner.append(tabs)
        for page in pages.values():
            for one in page.experiments.values():
                endpoint(one)
        ids = json.dumps([[f"chapter-{number}", chapter.topics] for number, chapter in enumerate(syllabus)])
        app.load(None, None, [chapters, *inner], js=f"() => Viz.tabs({ids})", api_visibility="private")

        def follow(request: gr.Request) -> dict[str, Any]:
            return follow_link(list(pages), request)

        app.load(follow, None, own("link", "app"), queue=False, show_progress="hidden", api_visibility="private")
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
        if number == 1:  # the first tab needs none of these. On the runs' own thread: some of them cannot be imported by two threads at once
            for name in SLOW_IMPORTS:
                turns(this_machine().device).worker.submit(importlib.import_module, name).result()
        page = importlib.import_module(f"pages.{topic}").PAGE
        for name, one in page.experiments.items():
            try:
                start(page, one, one.config_type(), preview=True)
            except Exception:  # a tab that cannot start must not keep the others cold
                logging.getLogger("everything_about_llms").exception("warming %s %s failed", topic, name)


def launch(app: gr.Blocks, syllabus: list[Chapter] = SYLLABUS, **changes: Any) -> Any:
    """Every setting that matters is said here, since Gradio's defaults differ between a laptop and a Space."""
    app.queue(api_open=False, max_size=64, default_concurrency_limit=8)
    settings: dict[str, Any] = {
        "theme": theme(), "head": head(), "css_paths": STYLE, "ssr_mode": False, "pwa": False, "mcp_server": False, "run_history": False,
        "enable_monitoring": False, "show_error": False, "max_file_size": MAX_UPLOAD, "footer_links": ["api", "settings"], "quiet": False,
        "server_port": int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    }  # fmt: skip
    waits = not changes.pop("prevent_thread_lock", False)
    served = app.launch(prevent_thread_lock=True, **settings | changes)
    threading.Thread(target=warm, args=(syllabus,), daemon=True, name="warm").start()
    if waits:
        app.block_thread()
    return served


if __name__ == "__main__":
    launch(assemble(SYLLABUS))
