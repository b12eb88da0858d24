"""Record the messages of a small run for the tests of the browser's side. python -m tests.golden.messages"""

import dataclasses
import json
from pathlib import Path

from core.foundations.experiment import find
from pages._kit.live import live
from pages.nanogpt import PAGE

FILE = Path(__file__).with_suffix(".json")


def messages():
    """The messages of a run that writes three tokens, as the page gets them."""
    one, picture = find("nanogpt", "generate"), PAGE.pictures["generate"]
    config = one.config_type(length=3)
    sent = live(one, config, picture.panels(config), picture.draw, "run", picture.lit)
    return [{"picture": message.picture, "transport": message.transport} for message in sent]


def short(message):
    """Without what is long and drawn on a canvas."""
    picture = message["picture"]
    if picture is None:
        return message
    updates = json.loads(picture["updates"])
    for _, update in updates:
        for frame in update.get("frames", []):
            frame.pop("looks", None)
    return message | {"picture": picture | {"updates": json.dumps(updates)}}


if __name__ == "__main__":
    FILE.write_text(json.dumps([short(message) for message in messages()], indent=1, default=dataclasses.asdict))
