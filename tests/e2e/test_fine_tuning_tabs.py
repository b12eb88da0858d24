"""The three tabs of Fine-tuning in a real browser: clicks that teach, adapters that travel, bad input that gets its
sentence.
"""

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import downloaded

pytestmark = pytest.mark.browser


def press(tab, name):
    tab.get_by_role("button", name=name, exact=True).click()


def status(tab):
    return tab.locator(".viz-status")


@pytest.fixture
def open_tab(visit):
    """open_tab("lora", "text", "&steps=3") -> the page, and the part of it that is this tab."""

    def opened(topic, experiment, more=""):
        page = visit(f"?tab={topic}&run={experiment}{more}")
        return page, page.locator(f"#{topic}")

    return opened


def field(page, topic, experiment, name):
    """The control of a setting, unfolded if it stands under More."""
    found = page.locator(f"#{topic}-{experiment}-{name}-in")
    if not found.is_visible():
        page.locator(f'.viz-fields[data-experiment="{experiment}"] summary').click()
    return found


def figure(tab, name):
    """The measured number of a row of the strip, as it is shown."""
    return (
        tab.locator(
            ".viz-scene:not([hidden]) .viz-strip tr",
            has=tab.page.locator("th", has_text=re.compile("^" + re.escape(name))),
        )
        .locator("td")
        .nth(0)
    )


def ended(tab):
    expect(tab.locator(".viz-transport")).to_have_attribute("data-state", "idle", timeout=90_000)
    assert "viz-bad" not in status(tab).get_attribute("class"), status(tab).text_content()


# --- LoRA -------------------------------------------------------------------------------------------------------------


def test_the_seeds_twelve_percent_is_a_hundred_times_too_much(open_tab):
    _, tab = open_tab("lora", "count")
    press(tab, "Run")
    expect(tab.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text("8,388,608", timeout=60_000)
    expect(tab.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text("0.1243")
    expect(status(tab)).to_contain_text("says about 12 %: 97 times too much")
    ended(tab)


def test_an_adapter_travels(open_tab, tmp_path):
    """Trained, downloaded, uploaded on a fresh page: the dial turns without training, and a wrong file gets its
    sentence.
    """
    page, tab = open_tab("lora", "text", "&steps=3&length=4&rank=2")
    press(tab, "Run")
    expect(status(tab)).to_contain_text("done", timeout=90_000)
    expect(figure(tab, "change by an untrained adapter")).to_have_text("0")
    expect(figure(tab, "change by the adapter at alpha x 0")).to_have_text("0")
    tab.get_by_role("tab", name="Take it with you").click()
    adapter = tmp_path / "adapter_model.safetensors"
    downloaded(page, tab.locator("a[download='adapter_model.safetensors']").last).save_as(adapter)
    page, tab = open_tab("lora", "text", "&steps=3&length=4")
    field(page, "lora", "text", "adapter").select_option("file")
    upload = page.locator("#lora-text-adapter_file input[type=file]")
    upload.set_input_files(adapter)
    page.locator("#lora-text-adapter_file").get_by_text("adapter_model").first.wait_for()
    press(tab, "Run")
    expect(status(tab)).to_contain_text("done", timeout=90_000)
    expect(tab.locator(".viz-scene:not([hidden]) .viz-log")).to_contain_text("nothing is trained")
    page, tab = open_tab("lora", "text")
    field(page, "lora", "text", "adapter").select_option("file")
    page.locator("#lora-text-adapter_file input[type=file]").set_input_files(
        {"name": "x.safetensors", "mimeType": "application/octet-stream", "buffer": b"no"}
    )
    page.locator("#lora-text-adapter_file").get_by_text("x", exact=False).first.wait_for()
    press(tab, "Run")
    expect(status(tab)).to_contain_text("not a whole safetensors file")


BAD = [
    ("lora", "text", {"rank": 0}, "rank must be at least 1"),
    ("lora", "text", {"rank": 200}, "rank must be at most 192"),
    ("lora", "text", {"alpha": ""}, "alpha must be a number, got nothing"),
    ("lora", "text", {"corpus": "own", "own_text": "\U0001f600\U0001f600"}, "different characters"),
    ("lora", "text", {"corpus": "own", "own_text": "to be or not to be"}, "too short"),
    ("rlhf", "preferences", {"rule": "you", "clicks": "a"}, "choices are needed"),
    ("rlhf", "preferences", {"rule": "you", "clicks": "axb"}, "clicks must be letters a and b"),
]


@pytest.mark.parametrize(("topic", "experiment", "values", "expected"), BAD, ids=lambda part: str(part)[:40])
def test_bad_input_gets_one_sentence_and_keeps_everything(open_tab, topic, experiment, values, expected):
    page, tab = open_tab(topic, experiment)
    for name, value in values.items():
        control = field(page, topic, experiment, name)
        control.select_option(value) if control.evaluate("e => e.tagName") == "SELECT" else control.fill(str(value))
    press(tab, "Run")
    expect(status(tab)).to_contain_text(expected, timeout=30_000)
    expect(tab.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    assert not re.search(r"Traceback|/home|site-packages|\.py", status(tab).inner_text())
    for name, value in values.items():
        assert page.locator(f"#{topic}-{experiment}-{name}-in").input_value() == str(value)


# --- RLHF -------------------------------------------------------------------------------------------------------------


def test_clicks_teach_the_model_and_go_from_one_experiment_to_the_next(open_tab):
    page, tab = open_tab("rlhf", "preferences", "&steps=10")
    clicks = page.locator("#rlhf-preferences-clicks-in")
    for number, letter in enumerate("abbaab", 1):
        tab.locator(f'.viz-scene:not([hidden]) .viz-choice[data-name="{letter}"]').click()
        expect(clicks).to_have_value("abbaab"[:number])
    expect(page.locator("#rlhf-preferences-rule-in")).to_have_value("you")
    expect(tab.locator(".viz-scene:not([hidden]) .viz-note")).to_contain_text("You have chosen 6 of")
    expect(tab.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text(
        "0.6931", timeout=60_000
    )  # the first loss, ln 2
    ended(tab)
    tab.locator(".viz-scene:not([hidden]) .viz-choice").first.focus()
    page.keyboard.press("ArrowRight")
    expect(clicks).to_have_value("abbaabb")
    press(tab, "Take back the last choice")
    expect(clicks).to_have_value("abbaab")
    tab.locator('.viz-card[data-name="ppo"]').click()
    expect(page.locator("#rlhf-ppo-clicks-in")).to_have_value("abbaab")
    expect(page.locator("#rlhf-ppo-rule-in")).to_have_value("you")


def test_a_link_carries_a_taste(open_tab):
    _, tab = open_tab("rlhf", "preferences", "&rule=you&clicks=abab&steps=5")
    expect(tab.locator(".viz-scene:not([hidden]) .viz-note")).to_contain_text("You have chosen 4 of")
    press(tab, "Run")
    expect(tab.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text("0.6931", timeout=60_000)
    ended(tab)
