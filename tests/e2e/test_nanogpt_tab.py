"""The tab in a real browser, as a student uses it."""

import inspect
import json
import pickle
import re

import pytest
from playwright.sync_api import expect

from core.foundations.machine import this_machine
from core.foundations.turns import MOST_ACTIVE, turns
from core.nanogpt.lesson import LESSON
from pages._kit import live
from tests.e2e.conftest import downloaded, wait_until

pytestmark = pytest.mark.browser


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def status(page):
    return page.locator(".viz-status")


def choose(page, name):
    page.locator(f'.viz-card[data-name="{name}"]').click()


def more(page, name):
    page.locator("#nanogpt-more").get_by_role("tab", name=name).click()


def fill(page, experiment, **values):
    for name, value in values.items():
        field = page.locator(f"#nanogpt-{experiment}-{name}-in")
        if not field.is_visible():
            page.locator(f'.viz-fields[data-experiment="{experiment}"] summary').click()
        field.select_option(value) if field.evaluate("e => e.tagName") == "SELECT" else field.fill(str(value))


def idle():
    return not live.CONTROLS and turns(this_machine().device).active == 0


def test_first_visit_shows_the_start_state(visit):
    page = visit("?tab=nanogpt")
    expect(page.locator("#nanogpt h1")).to_have_text("What has a model learned when its loss falls?")
    expect(page.locator("#nanogpt-idea")).to_contain_text("guesses the next token")
    expect(page.locator(".viz-idea .viz-term").first).to_be_visible()
    expect(page.locator(".viz-diagram svg")).to_be_visible()
    assert page.locator(".viz-card").count() == len(LESSON.experiments)
    expect(page.locator(".viz-anatomy-next")).to_contain_text("The next token")
    expect(page.get_by_role("button", name="Layer 6")).to_be_visible()
    choose(page, "train")
    expect(page.locator(".viz-strip:visible")).to_contain_text("loss before training")
    page = visit("?tab=nanogpt&run=train")
    assert "know nothing 4.09" in page.locator(".viz-scene:not([hidden]) .viz-view canvas").first.get_attribute(
        "aria-label"
    )


def test_run_ends_with_figures_data_and_a_model(visit, tmp_path):
    page = visit("?tab=nanogpt&run=train&steps=40&n_layer=2")
    press(page, "Run")
    expect(status(page)).to_contain_text("done: validation loss", timeout=60_000)
    strip = page.locator(".viz-scene:not([hidden]) .viz-strip")
    for name in ("loss before training", "parameters", "validation loss of a trigram table", "training speed"):
        expect(strip).to_contain_text(name)
    expect(strip).to_contain_text("torch")  # the machine stands beside what was measured on it
    more(page, "Take it with you")
    data = json.loads(
        downloaded(page, page.get_by_role("button", name="Download the data of this run")).path().read_text()
    )
    assert data["config"]["steps"] == 40 and len(data["data"]) > 40
    assert {figure["name"] for figure in data["figures"]} >= {"loss before training", "parameters"}
    expect(page.locator(".viz-take")).to_contain_text("python -m core nanogpt train --n_layer 2 --steps 40")
    expect(page.locator(".viz-take")).to_contain_text("?tab=nanogpt&run=train&n_layer=2&steps=40")
    assert wait_until(idle)


def test_stop_keeps_what_was_computed_and_frees_the_seat(visit):
    page = visit("?tab=nanogpt&run=train&steps=100000")
    press(page, "Run")
    expect(status(page)).to_contain_text("loss", timeout=20_000)
    press(page, "Stop")
    expect(status(page)).to_contain_text("what was computed stays")
    assert wait_until(idle, 5)
    assert "training" in page.locator(".viz-scene:not([hidden]) .viz-view canvas").first.get_attribute("aria-label")
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_step_pauses_after_each_unit_and_reset_is_the_same_start(visit):
    page = visit("?tab=nanogpt&run=train&n_layer=1&seed=5")
    expect(page.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text(
        "56,832"
    )  # parameters of one layer: the link's start is drawn
    sample = page.locator(".viz-scene:not([hidden]) .viz-view pre").first
    untrained = sample.text_content()
    for expected in ("step 1:", "step 2:", "step 3:"):
        press(page, "Step")
        expect(status(page)).to_contain_text(expected)
        expect(page.locator(".viz-transport")).to_have_attribute("data-state", "paused")
    press(page, "Go on")
    expect(status(page)).to_contain_text(re.compile(r"step [1-9]\d"))
    press(page, "Reset")
    expect(status(page)).to_contain_text("Back at the start")
    expect(sample).to_have_text(untrained, use_inner_text=False)
    assert wait_until(idle)


def test_closing_the_page_ends_its_run(visit):
    page = visit("?tab=nanogpt&run=train&steps=100000")
    press(page, "Run")
    expect(status(page)).to_contain_text("loss", timeout=20_000)
    assert not idle()
    page.close()
    assert wait_until(idle, 10)


def test_two_students_do_not_meet(visit):
    one, two = (visit(f"?tab=nanogpt&run=train&n_layer=1&steps=25&seed={seed}") for seed in (1, 2))
    for page in (one, two):
        press(page, "Run")
    for page in (one, two):
        expect(status(page)).to_contain_text("done", timeout=60_000)
    samples = [page.locator(".viz-scene:not([hidden]) .viz-view pre").first.text_content() for page in (one, two)]
    assert samples[0] != samples[1]
    assert one.locator("#nanogpt-train-seed-in").input_value() == "1"


def test_who_waits_sees_their_place_and_can_leave(visit, url):
    from gradio_client import Client

    client = Client(url, verbose=False)
    jobs = [client.submit(steps=100_000, n_layer=1, width=16, api_name="/nanogpt_train") for _ in range(MOST_ACTIVE)]
    try:
        assert wait_until(lambda: turns(this_machine().device).active == MOST_ACTIVE)
        page = visit()
        press(page, "Run")
        expect(status(page)).to_contain_text("you are number 1 of 1 in the queue", timeout=15_000)
        press(page, "Stop")
        expect(status(page)).to_contain_text("stopped while waiting")
    finally:
        for job in jobs:
            job.cancel()
    assert wait_until(idle)


def test_rewind_by_keyboard_and_slider(visit):
    page = visit("?tab=nanogpt&run=train&n_layer=1&steps=60")
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    sample, slider = (
        page.locator(".viz-scene:not([hidden]) .viz-view pre").first,
        page.get_by_role("slider", name="training step"),
    )
    last = sample.text_content()
    expect(page.locator(".viz-scene:not([hidden]) .viz-caption")).to_have_text("step 60")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".viz-scene:not([hidden]) .viz-caption")).to_have_text("step 0")
    assert sample.text_content() != last
    page.keyboard.press("ArrowRight")
    expect(page.locator(".viz-scene:not([hidden]) .viz-caption")).not_to_have_text("step 0")
    page.get_by_role("button", name="Play").click()
    expect(page.locator(".viz-scene:not([hidden]) .viz-caption")).to_have_text("step 60", timeout=20_000)
    assert sample.text_content() == last


def test_picture_survives_a_hidden_tab_and_a_resize(visit):
    page = visit()
    canvas = page.locator(".viz-scene:not([hidden]) .viz-view canvas").first
    page.evaluate("document.querySelector('.viz-page').style.display = 'none'")
    page.set_viewport_size({"width": 900, "height": 800})
    page.evaluate("document.querySelector('.viz-page').style.display = ''")
    page.wait_for_function(
        "c => Math.abs(c.width / devicePixelRatio - c.parentElement.clientWidth) < 2", arg=canvas.element_handle()
    )
    box = canvas.bounding_box()
    assert 0 < box["width"] < 900


def test_link_sets_the_fields_and_a_bad_one_says_so(visit):
    page = visit("?tab=nanogpt&run=fork&n_layer=2&change=no_norm&seed=7")
    expect(page.locator("#nanogpt-fork-n_layer-in")).to_have_value("2")
    expect(page.locator("#nanogpt-fork-change-in")).to_have_value("no_norm")
    expect(page.locator(".viz-asks")).to_contain_text("one change")
    page = visit("?tab=nanogpt&run=train&n_layer=99")
    expect(status(page)).to_contain_text("n_layer must be at most 8 layers, got 99")
    expect(page.locator("#nanogpt-train-n_layer-in")).to_have_value("4")


BAD = [
    ({"steps": 0}, "steps must be at least 1 step, got 0"),
    ({"steps": -3}, "steps must be at least 1 step, got -3"),
    ({"width": 65, "n_head": 3}, "width must be a multiple of the number of heads"),
    ({"seed": 1e30}, "seed must be at most 4294967295"),
    ({"n_layer": 99}, "n_layer must be at most 8 layers, got 99"),
    ({"steps": ""}, "steps must be a whole number, got nothing"),
    ({"corpus": "own", "own_text": ""}, "your own text is empty"),
    ({"corpus": "own", "own_text": "a"}, "2 different characters"),
    ({"corpus": "own", "own_text": "aaaaaaaaaaaa"}, "2 different characters"),
    ({"corpus": "own", "own_text": "to be or not to be"}, "paste at least 81 characters and set the context to 8"),
    ({"learning_rate": "1,000"}, "learning_rate must be a number: '1,000' could mean 1 or 1000"),
    ({"n_layer": "two"}, "n_layer must be a whole number, got 'two'"),
]


def test_bad_input_gets_one_sentence_and_keeps_everything(visit):
    page = visit()
    for values, expected in BAD:
        page.locator('.viz-fields[data-experiment="train"] .viz-defaults').evaluate("b => b.click()")
        fill(page, "train", **values)
        press(page, "Run")
        expect(status(page)).to_contain_text(re.compile(re.escape(expected), re.IGNORECASE))
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        for name, value in values.items():
            assert page.locator(f"#nanogpt-train-{name}-in").input_value() == str(value)
        assert not re.search(r"Traceback|/home|site-packages|\.py", status(page).inner_text())
    assert page.locator(".viz-scene:not([hidden]) canvas").count() > 0


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("big.txt", b"word " * 1_200_000, "at most 5 MB"),
        ("latin.txt", "caf\u00e9 \u00fcber".encode("latin-1") * 50, "UTF-8"),
    ],
)
def test_bad_text_file(visit, name, content, expected):
    page = visit()
    fill(page, "train", corpus="own")
    page.locator("#nanogpt-train-own_file input[type=file]").set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": content}
    )
    page.locator("#nanogpt-train-own_file").get_by_text(name.split(".")[0]).wait_for()
    press(page, "Run")
    expect(status(page)).to_contain_text(expected)


def test_learning_rate_ten_stops_and_keeps_the_curve(visit):
    page = visit("?tab=nanogpt&run=train&learning_rate=10")
    press(page, "Run")
    expect(status(page)).to_contain_text("a smaller learning rate", timeout=60_000)
    assert "training" in page.locator(".viz-scene:not([hidden]) .viz-view canvas").first.get_attribute("aria-label")
    assert wait_until(idle)


def test_own_text_trains(visit):
    page = visit("?tab=nanogpt&run=train&n_layer=1&steps=15&context=16")
    text = " ".join(f"line {i} of a text that a student pasted." for i in range(60))
    fill(page, "train", corpus="own", own_text=text)
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)


def test_trained_model_can_be_downloaded_uploaded_and_written_with(visit, tmp_path):
    page = visit("?tab=nanogpt&run=train&n_layer=1&steps=20")
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    choose(page, "generate")
    fill(page, "generate", model="own", length=20)
    press(page, "Run")  # the model just trained was handed over
    expect(status(page)).to_contain_text("20 of 20", timeout=30_000)
    more(page, "Take it with you")
    model = tmp_path / "model.safetensors"
    downloaded(page, page.locator("a[download='model.safetensors']").last).save_as(model)
    page = visit("?tab=nanogpt&run=generate&length=20")
    fill(page, "generate", model="own")
    upload = page.locator("#nanogpt-generate-model_file input[type=file]")
    upload.set_input_files(model)
    page.locator("#nanogpt-generate-model_file").get_by_text("model", exact=False).first.wait_for()
    press(page, "Run")
    expect(status(page)).to_contain_text("20 of 20", timeout=30_000)


def test_a_stopped_run_goes_on_from_its_training_file(visit, tmp_path):
    settings = "?tab=nanogpt&run=train&n_layer=1&width=16&context=16&steps=60"
    page = visit(settings)
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    ended = status(page).inner_text()
    page = visit(settings.replace("60", "100000"))
    press(page, "Run")
    expect(status(page)).to_contain_text(re.compile(r"step [1-9]\d\d"), timeout=30_000)
    press(page, "Stop")
    expect(status(page)).to_contain_text("what was computed stays")
    more(page, "Take it with you")
    assert page.locator("a[download='training.safetensors']").count()
    file = tmp_path / "training.safetensors"
    page = visit(settings)
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    more(page, "Take it with you")
    downloaded(page, page.locator("a[download='training.safetensors']").last).save_as(file)
    page = visit(settings)
    fill(page, "train", start="file")
    page.locator("#nanogpt-train-start_file input[type=file]").set_input_files(file)
    page.locator("#nanogpt-train-start_file").get_by_text("training", exact=False).first.wait_for()
    press(page, "Run")
    expect(status(page)).to_contain_text("steps must be more than 60, which this run has done, got 60")
    fill(page, "train", steps=80)
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    assert status(page).inner_text() != ended
    fill(page, "train", width=32)
    press(page, "Run")
    expect(status(page)).to_contain_text("To go on with this training file, set what its run had: width 16")


def test_a_pickle_is_refused(visit):
    page = visit("?tab=nanogpt&run=generate&model=own")
    page.locator("#nanogpt-generate-model_file input[type=file]").set_input_files(
        {"name": "evil.safetensors", "mimeType": "application/octet-stream", "buffer": pickle.dumps({"a": 1})}
    )
    page.locator("#nanogpt-generate-model_file").get_by_text("evil").first.wait_for()
    press(page, "Run")
    expect(status(page)).to_contain_text("not a whole safetensors file")


def test_generate_can_be_walked_through(visit):
    page = visit("?tab=nanogpt&run=generate&length=30&temperature=0.7")
    press(page, "Run")
    expect(status(page)).to_contain_text("30 of 30", timeout=30_000)
    expect(page.locator(".viz-plot .trace.bars, .viz-plot .bars").first).to_be_attached()
    letters = page.locator(".viz-reader span")
    assert letters.count() == 31  # the prompt and thirty characters
    letters.nth(3).click()
    expect(letters.nth(3)).to_have_class(re.compile("viz-now"))
    expect(page.locator(".viz-scene:not([hidden]) .viz-strip")).to_contain_text("mean surprisal")


def test_fork_is_equal_until_it_parts(visit):
    page = visit("?tab=nanogpt&run=fork&n_layer=1&steps=20&fork_at=10")
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)
    row = page.locator(".viz-scene:not([hidden]) .viz-strip tr", has_text="largest loss difference before the fork")
    expect(row.locator("td").nth(0)).to_have_text("0")


def test_a_decimal_comma_is_a_decimal_comma(visit):
    """The browser's own number field dropped it: 0,01 ran with a learning rate of 1."""
    page = visit("?tab=nanogpt&run=train&n_layer=1&steps=2")
    fill(page, "train", learning_rate="0,01")
    more(page, "Take it with you")
    expect(page.locator(".viz-take")).to_contain_text("--learning_rate 0.01")
    press(page, "Run")
    expect(status(page)).to_contain_text("done", timeout=60_000)


def test_all_files_of_an_experiment_can_be_read(visit):
    from core.foundations import transformer
    from core.nanogpt import generating

    page = visit("?tab=nanogpt&run=generate")
    expect(page.locator("#nanogpt .md.prose", has_text="Generating: one token after the other")).to_be_visible()
    expect(page.locator("#nanogpt .md.prose", has_text="A decoder-only transformer")).to_be_visible()
    expect(page.locator(".katex").first).to_be_visible()
    more(page, "The code that ran")
    first = inspect.getsource(generating).splitlines()[0][4:40]
    expect(page.locator(".cm-content")).to_contain_text(first)
    page.get_by_role("button", name="core/foundations/transformer.py").click()
    expect(page.locator(".cm-content")).to_contain_text(inspect.getsource(transformer).splitlines()[0][4:40])
