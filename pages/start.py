"""The Start page: what this is, one button that trains a GPT, the map of all topics, words for teachers, what is real
here.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from core.foundations.machine import this_machine
from core.foundations.turns import MOST_ACTIVE, turns
from pages._kit.live import DEADLINE_SECONDS, fresh_id
from pages._kit.page import QUIET, Page, own
from pages._kit.syllabus import Chapter

WRITTEN = 150  # characters that the shipped model writes for this page


def build(syllabus: Sequence[Chapter], pages: Mapping[str, Page]) -> None:
    """The page, filled when it is first seen; what our GPT writes follows when it is written."""
    place = own("start", "app", "mounted", "write")

    def fill() -> dict[str, Any]:
        return start_page(syllabus, pages)

    place.mounted(fill, None, place, **QUIET)
    place.write(written, None, place, **QUIET)


def start_page(syllabus: Sequence[Chapter], pages: Mapping[str, Page]) -> dict[str, Any]:
    """Everything that assets/js/start.js draws."""
    page: dict[str, Any] = {
        "id": fresh_id(),
        "title": "See how language models work, by running them.",
        "text": (
            f"{len(pages)} topics, {sum(len(page.experiments) for page in pages.values())} experiments. Each asks a "
            "question, you guess, a real model answers on this machine, and the formula stands beside the measurement."
        ),
        "written": "",
        "caption": "Our small GPT is writing …",
        "chapters": [
            {
                "title": chapter.title,
                "says": chapter.says,
                "topics": [topic_of(pages[topic]) for topic in chapter.topics],
            }
            for chapter in syllabus
        ],
        "boxes": boxes(),
    }
    return page | written() if written_now.cache_info().currsize else page


def written() -> dict[str, str]:
    """What our GPT wrote, and where and when."""
    caption = "Written by our small GPT on this machine, just after it started. It learned from a play and a manual."
    return {"written": written_now(), "caption": caption}


def topic_of(page: Page) -> dict[str, Any]:
    """One card of the map."""
    return {
        "topic": page.topic,
        "title": page.title,
        "question": page.lesson.question,
        "experiments": list(page.experiments),
        "thumb": list(page.thumb),
    }


def boxes() -> list[list[str]]:
    """[id, title, text] of the boxes under the map."""
    return [
        [
            "teach",
            "You teach a class",
            (
                "Put this address on the projector. Alt+P makes everything large, and “Walk me through it” on each tab"
                f" is your slide show: Space goes on. Up to {MOST_ACTIVE} runs take turns at once; the others wait in"
                f" line and see their place. A run ends after {DEADLINE_SECONDS / 60:.0f} minutes at the latest."
                " Settings travel in a link: copy it under “Take it with you”."
            ),
        ],
        [
            "real",
            "What is real here",
            (
                f"A number labeled “measured” was measured during your run on this machine ({this_machine().name})."
                " “Computed” comes from a formula, “simulated” from a simulation. The models are small enough to train"
                " while you watch; where a published model can be loaded, the tab says so."
            ),
        ],
        [
            "take",
            "Take it with you",
            (
                "Each run is also five lines of Python, a command for the terminal, a link and an API call. What you"
                " type is not kept: the server deletes the files of your last run within two hours, and your progress"
                " stays in your own browser."
            ),
        ],
    ]


@cache
def written_now() -> str:
    """What the shipped model writes: once in the life of the server."""
    from core.nanogpt import GenerateConfig, generate

    text = ""
    taken = turns(this_machine().device).take(generate(GenerateConfig(length=WRITTEN)))
    try:
        for step in taken:
            text += step.text
    finally:
        taken.close()
    return text
