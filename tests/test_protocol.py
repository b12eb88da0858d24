"""What Python sends to the browser is what assets/js/PROTOCOL.md and its schema say."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from core.foundations.experiment import experiments, find, topics
from pages._kit import bundle
from pages._kit.live import live
from pages._kit.page import start
from pages.nanogpt import PAGE
from tests.golden.messages import FILE

SCHEMA = json.loads((Path(__file__).parents[1] / "assets" / "js" / "protocol.schema.json").read_text())


def validator(name):
    return Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{name}"})


def check(picture, transport):
    """One message: its two parts, and the updates that travel as text."""
    if picture is not None:
        picture = json.loads(json.dumps(picture))  # as it travels: a tuple is a list
        validator("picture").validate(picture)
        for panel, update in json.loads(picture["updates"]):
            assert isinstance(panel, str)
            validator("update").validate(update)
    if transport is not None:
        validator("transport").validate(transport)


def test_the_schema_refuses_what_it_does_not_know():
    good = json.loads(FILE.read_text())[1]["picture"]
    check(good, None)
    for bad in (
        good | {"more": 1},
        {name: value for name, value in good.items() if name != "parts"},
        good | {"figures": [{"name": "loss"}]},
    ):
        assert not validator("picture").is_valid(bad)


@pytest.mark.parametrize(
    "one", [one for topic in topics() for one in experiments(topic).values()], ids=lambda one: one.key
)
def test_the_start_of_every_experiment_follows_the_protocol(one):
    import importlib

    page = importlib.import_module(f"pages.{one.topic}").PAGE
    check(start(page, one, one.config_type(), preview=True), None)


def test_the_bundle_is_of_the_modules_as_they_are():
    for path, sources in bundle.SOURCES.items():
        assert bundle.is_current(path), f"{sources[0].parent} has changed: make bundle"
        assert path.stat().st_size < sum(source.stat().st_size for source in sources)


def test_every_message_of_a_run_follows_the_protocol():
    one, picture = find("nanogpt", "train"), PAGE.pictures["train"]
    config = one.config_type(n_layer=1, steps=15, width=16)
    messages = list(live(one, config, picture.panels(config), picture.draw, "run", picture.lit))
    for message in messages:
        check(message.picture, message.transport)
    assert messages[1].picture["open"]["panels"] and messages[-1].picture["takeaways"]
    assert [bool(m.picture["takeaways"]) for m in messages[1:-1]] == [False] * (len(messages) - 2)
    assert any(m.picture["parts"].get("loss", "").startswith("training ") for m in messages[1:])


def test_the_recorded_messages_are_of_this_protocol():
    """Recorded by `python -m tests.golden.messages`; the browser's own tests draw them."""
    recorded = json.loads(FILE.read_text())
    for message in recorded:
        check(message["picture"], message["transport"])
    assert recorded[-1]["picture"]["takeaways"]
