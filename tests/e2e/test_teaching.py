"""What teaches, in a real browser: the walk-through by keyboard, what you saw, the glossary, the Start page, and what
survives.
"""

import re

import pytest
from playwright.sync_api import expect

from core.nanogpt.lesson import LESSON
from pages._kit.live import CONTROLS
from tests.e2e.conftest import violations, wait_until

pytestmark = pytest.mark.browser


def card(page):
    return page.locator(".viz-tour-card")


def test_the_walk_through_of_nanogpt_goes_by_keyboard(visit):
    """From the first step to the last without a mouse: it points, waits for a guess, runs, and tells who was right."""
    page = visit("?tab=nanogpt")
    page.locator("#nanogpt .viz-walk").focus()
    page.keyboard.press("Enter")
    for number, step in enumerate(LESSON.steps, 1):
        expect(card(page)).to_contain_text(f"Step {number} of {len(LESSON.steps)}")
        expect(card(page)).to_contain_text(step.text[:40])
        assert page.locator(".viz-lit").count() == 1
        if step.experiment:
            assert page.locator("#nanogpt .viz-card[aria-checked=true]").get_attribute("data-name") == step.experiment
        assert re.search(rf"#tab=nanogpt&step={number}$", page.url)
        if step.kind == "ask":
            expect(page.locator(".viz-next")).to_be_disabled()
            card(page).locator(".viz-answers button").first.focus()
            page.keyboard.press("Enter")
            expect(page.locator(".viz-verdict")).to_contain_text(re.compile(r"^(Right\.|It was “).*\d"), timeout=90_000)
        elif step.kind == "run":
            page.keyboard.press("ArrowRight")
            expect(page.locator("#nanogpt .viz-scene:not([hidden]) .viz-saw")).to_be_visible(timeout=90_000)
        card(page).focus()
        page.keyboard.press(" ")
    expect(card(page)).to_have_count(0)
    assert page.evaluate("document.activeElement.classList.contains('viz-walk')")
    minutes = f"{len(LESSON.steps)} steps, {LESSON.minutes} min"
    expect(page.locator("#nanogpt .viz-walk")).to_have_text(re.compile(f"{minutes}$"))


def test_a_guess_gives_the_persons_settings_back(visit):
    page = visit("?tab=nanogpt&run=train&n_layer=2&steps=30")
    page.locator("#nanogpt .viz-walk").click()
    page.keyboard.press("ArrowRight")
    card(page).locator(".viz-answers button").first.click()
    expect(page.locator("#nanogpt-train-steps-in")).to_have_value("40")
    expect(page.locator("#nanogpt-train-n_layer-in")).to_have_value("4")
    expect(page.locator(".viz-verdict")).to_contain_text("Right.", timeout=60_000)
    expect(card(page).locator(".viz-right")).to_have_text("how often each character occurs")
    expect(card(page).locator(".viz-answers button:visible")).to_have_count(1)  # the wrong ones make room
    page.keyboard.press("Escape")
    expect(page.locator("#nanogpt-train-steps-in")).to_have_value("30")
    expect(page.locator("#nanogpt-train-n_layer-in")).to_have_value("2")


def test_the_walk_through_remembers_and_can_be_linked(visit):
    page = visit("?tab=nanogpt&step=4")
    expect(card(page)).to_contain_text("Step 4 of")
    page.keyboard.press("Escape")
    expect(page.locator("#nanogpt .viz-walk")).to_contain_text("go on at step 4")


def test_escape_closes_a_definition_and_not_the_walk_through(visit):
    page = visit("?tab=nanogpt")
    page.locator("#nanogpt .viz-walk").click()
    term = card(page).locator(".viz-term").last
    term.click()
    box = page.locator(".viz-term-card").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 900, "above its word where there is no room below"
    page.keyboard.press("Escape")
    expect(page.locator(".viz-term-card")).to_have_count(0)
    expect(card(page)).to_be_visible()


def test_a_reload_shows_the_chosen_experiment_and_keeps_the_other_ones_picture(visit):
    page = visit("?tab=nanogpt&run=generate&length=4")
    page.locator("#nanogpt").get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#nanogpt .viz-saw:visible")).to_contain_text("nats", timeout=60_000)
    page.locator("#nanogpt .viz-card[data-name=train]").click()
    expect(page.locator("#nanogpt [data-panel=rewind]")).to_be_visible()
    page.reload()
    page.locator("#nanogpt .viz-card[data-name=train][aria-checked=true]").wait_for()
    expect(page.locator("#nanogpt [data-panel=rewind]")).to_be_visible()
    expect(page.locator("#nanogpt [data-panel=writing]")).to_be_hidden()
    page.locator("#nanogpt .viz-card[data-name=generate]").click()
    expect(page.locator("#nanogpt .viz-saw:visible")).to_contain_text("nats")


def test_a_reload_keeps_the_card_that_was_chosen_though_a_link_names_the_tab(visit):
    page = visit("?tab=nanogpt")
    page.locator('.viz-card[data-name="generate"]').click()
    page.locator("#nanogpt-generate-length-in").wait_for(state="attached")
    page.reload()
    expect(page.locator('.viz-card[data-name="generate"]')).to_have_attribute("aria-checked", "true", timeout=30_000)


def test_a_slider_reaches_its_ends(visit):
    page = visit("?tab=nanogpt&run=generate")
    page.locator('.viz-fields[data-experiment="generate"] summary').click()
    slider = page.locator('.viz-fields[data-experiment="generate"]').get_by_label("Top-p, slider")
    assert slider.input_value() == "1"
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#nanogpt-generate-top_p-in")).to_have_value("0.01")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_walk_through_and_a_term_are_for_everybody(visit, dark):
    page = visit("?tab=nanogpt", dark=dark)
    page.locator("#nanogpt .viz-walk").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(900)
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.locator(".viz-idea .viz-term").first.click()
    expect(page.locator(".viz-term-card")).to_be_visible()
    assert violations(page) == []


def test_a_term_opens_its_definition_and_escape_closes_it(visit):
    page = visit("?tab=nanogpt")
    term = page.locator(".viz-idea .viz-term", has_text="loss").first
    term.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".viz-term-card")).to_contain_text("How wrong the model is")
    expect(page.locator(".viz-term-card")).to_contain_text("Also called: cross-entropy")
    page.keyboard.press("Escape")
    expect(page.locator(".viz-term-card")).to_have_count(0)
    assert term.evaluate("t => t === document.activeElement")


def test_pointing_at_a_term_opens_its_definition(visit):
    page = visit("?tab=nanogpt")
    page.locator("#nanogpt-idea .viz-term", has_text="loss").hover()
    expect(page.locator(".viz-term-card strong")).to_have_text("loss")


def test_how_it_works_begins_folded_and_reads_on(visit):
    page = visit("?tab=nanogpt")
    more = page.locator("#nanogpt-more")
    read_on = more.get_by_role("button", name="Read on", exact=True)
    expect(read_on).to_have_count(1, timeout=30_000)
    assert more.locator(".prose.viz-prose").bounding_box()["height"] < 80
    read_on.press("Enter")
    expect(more.get_by_role("button", name="Fold", exact=True)).to_have_attribute("aria-expanded", "true")
    assert more.locator(".prose.viz-prose").bounding_box()["height"] > 400


def test_after_a_reset_a_reload_tells_of_no_run(visit):
    page = visit("?tab=nanogpt&run=train&steps=3&n_layer=1&width=16")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#nanogpt .viz-saw:visible")).to_have_count(1, timeout=60_000)
    page.get_by_role("button", name="Reset", exact=True).click()
    expect(page.locator("#nanogpt .viz-status")).to_contain_text("Back at the start")
    page.reload()
    expect(page.locator("#nanogpt .viz-strip:visible")).to_have_count(1, timeout=30_000)
    assert "your run" not in page.locator("#nanogpt .viz-status").text_content()


def test_a_reload_keeps_form_text_and_picture_and_says_that_the_run_ended(visit):
    page = visit("?tab=nanogpt&run=train&steps=100000&n_layer=1")
    page.locator("#nanogpt-train-corpus-in").select_option("own")
    text = " ".join(f"line {i} of a text that a student pasted." for i in range(40))
    page.locator("#nanogpt-train-own_text-in").fill(text)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".viz-status")).to_contain_text(re.compile(r"step [2-9]\d"), timeout=60_000)
    page.wait_for_timeout(500)
    page.reload()
    expect(page.locator("#nanogpt-train-own_text-in")).to_have_value(text)
    expect(page.locator("#nanogpt-train-steps-in")).to_have_value("100000")
    expect(page.locator(".viz-status")).to_contain_text("so your run ended")
    assert "training:" in page.locator(".viz-scene:not([hidden]) .viz-view canvas").first.get_attribute("aria-label")
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_a_reload_in_the_walk_through_keeps_what_a_link_had_set_and_what_was_typed(visit):
    page = visit("?tab=nanogpt&run=train&n_layer=1&steps=15")
    page.locator("#nanogpt-train-width-in").fill("32")
    page.locator("#nanogpt .viz-walk").click()
    page.keyboard.press("ArrowRight")
    card(page).locator(".viz-answers button").first.click()
    expect(page.locator("#nanogpt-train-n_layer-in")).to_have_value("4")
    page.reload()
    expect(card(page)).to_contain_text("Step 2 of")
    for name, value in {"n_layer": "1", "steps": "15", "width": "32"}.items():
        expect(page.locator(f"#nanogpt-train-{name}-in")).to_have_value(value)


def test_whoever_looks_back_while_a_guess_runs_finds_it_again(visit):
    page = visit("?tab=nanogpt&step=2")
    card(page).locator(".viz-answers button").first.click()
    expect(page.locator("#nanogpt .viz-status")).to_contain_text("step", timeout=60_000)
    expect(page.locator(".viz-next")).to_be_disabled()  # its run decides first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".viz-verdict")).to_contain_text("Right.", timeout=60_000)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".viz-verdict")).to_contain_text("Right.")


def test_after_stop_one_may_guess_again(visit):
    page = visit("?tab=nanogpt&step=4")
    card(page).locator(".viz-answers button").first.click()
    expect(page.locator("#nanogpt .viz-status")).to_contain_text("step", timeout=60_000)
    page.locator("#nanogpt").get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".viz-verdict")).to_contain_text("Guess again, or go on.", timeout=30_000)
    assert wait_until(lambda: not CONTROLS)
    expect(page.locator(".viz-next")).to_be_enabled()
    card(page).locator(".viz-answers button").nth(2).click()
    expect(page.locator(".viz-verdict")).to_contain_text("Right.", timeout=90_000)


def test_another_tab_ends_the_walk_through(visit):
    page = visit("?tab=nanogpt&step=2")
    card(page).locator(".viz-answers button").first.click()
    page.locator("#chapter-1-button").click()
    expect(page.locator("#lora h1")).to_be_visible()
    expect(card(page)).to_have_count(0)
    assert page.url.endswith("#tab=lora")
    assert wait_until(lambda: not CONTROLS)
    page.locator("#lora .viz-walk").click()
    expect(card(page)).to_have_count(1)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_card_of_the_walk_through_has_room_for_its_words(visit, width):
    page = visit("?tab=nanogpt&step=2", width=width, height=800)
    text, whole = (page.locator(part).bounding_box() for part in (".viz-tour-text", ".viz-tour-card"))
    assert text["width"] > 0.75 * whole["width"] and whole["height"] < 370


def test_another_link_is_obeyed_though_a_form_was_kept(visit, url):
    page = visit("?tab=nanogpt&run=train&n_layer=1")
    page.locator("#nanogpt-train-steps-in").fill("77")
    page.goto(url + "?tab=nanogpt&run=train&n_layer=3")
    expect(page.locator("#nanogpt-train-n_layer-in")).to_have_value("3")
    expect(page.locator("#nanogpt-train-steps-in")).to_have_value("250")


def test_back_goes_to_the_tab_before(visit):
    page = visit("?tab=nanogpt")
    page.locator("#chapter-1-button").click()
    expect(page.locator("#lora h1")).to_be_visible()
    page.locator("#qlora-button").click()
    expect(page.locator("#qlora h1")).to_be_visible()
    page.go_back()
    expect(page.locator("#lora h1")).to_be_visible()
    page.go_back()
    expect(page.locator("#nanogpt h1")).to_be_visible()
    page.go_forward()
    expect(page.locator("#lora h1")).to_be_visible()


def test_copy_works_without_https(visit):
    """On a class-room network the page is no secure context, and browsers hide the clipboard there."""
    page = visit("?tab=nanogpt&run=train&n_layer=2")
    page.locator("#nanogpt-more").get_by_role("tab", name="Take it with you").click()
    expect(page.locator(".viz-take")).to_contain_text("--n_layer 2")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.evaluate(
        "document.execCommand = what => { window.copied = [what, document.activeElement.value]; return true }"
    )
    page.get_by_role("button", name="In a terminal: copy").click()
    expect(page.get_by_role("button", name="In a terminal: copy")).to_have_text("Copied")
    assert page.evaluate("window.copied") == ["copy", "python -m core nanogpt train --n_layer 2"]


def test_what_a_link_leaves_out_is_said(visit):
    page = visit("?tab=nanogpt&run=train")
    page.locator("#nanogpt-train-corpus-in").select_option("own")
    page.locator("#nanogpt-train-own_text-in").fill("a text of some length. " * 30)
    page.locator("#nanogpt-more").get_by_role("tab", name="Take it with you").click()
    expect(page.locator(".viz-left-out")).to_contain_text("Not in these lines: Your own text")


@pytest.mark.parametrize("width", [1280, 390])
def test_no_tab_hides_behind_dots(visit, width):
    page = visit("?tab=planner", width=width)
    for name in ("zero", "data_efficiency", "planner"):
        box = page.locator(f"#{name}-button").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.get_by_role("tab", name="...").count() == 0


def test_on_a_phone_run_and_picture_come_first_and_the_settings_open(visit):
    page = visit("?tab=nanogpt&run=train", width=390, height=844)
    settings = page.get_by_role("button", name="Settings", exact=True).first
    expect(page.locator("#nanogpt-train-steps-in")).not_to_be_visible()
    settings.click()
    expect(page.locator("#nanogpt-train-steps-in")).to_be_visible()
    assert settings.get_attribute("aria-expanded") == "true"
    order = [
        page.locator(what).bounding_box()["y"]
        for what in ("#nanogpt-idea", "#nanogpt .viz-card-row", "#nanogpt .viz-run")
    ]
    assert order == sorted(order)


def start_page(visit, **how):
    page = visit("?tab=nanogpt", **how)
    page.locator("#start-button").click()
    page.locator(".viz-topic").first.wait_for()
    return page


def test_the_start_page_shows_all_topics_and_what_was_done(visit):
    page = visit("?tab=nanogpt&run=generate&length=5")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".viz-saw:visible")).to_have_count(1, timeout=60_000)
    page.locator("#start-button").click()
    expect(page.locator(".viz-topic")).to_have_count(17)
    expect(page.locator(".viz-topic", has_text="nanoGPT")).to_contain_text(f"✓ 1 of {len(LESSON.experiments)}")
    expect(page.locator(".viz-written pre")).not_to_be_empty(timeout=60_000)
    page.locator(".viz-topic", has_text="KV caching").click()
    expect(page.locator("#kv_cache h1")).to_be_visible()


def test_the_start_button_trains_a_gpt(visit):
    page = start_page(visit)
    page.get_by_role("button", name=re.compile("Train a GPT now")).click()
    expect(page.locator("#nanogpt .viz-status")).to_contain_text(re.compile(r"step \d"), timeout=60_000)
    page.locator("#nanogpt").get_by_role("button", name="Stop", exact=True).click()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_start_page_is_for_everybody(visit, width, dark):
    page = start_page(visit, width=width, dark=dark)
    page.wait_for_timeout(400)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_link_opens_a_tab_directly_and_no_link_the_start_page(visit, url):
    page = visit("?tab=nanogpt")
    page.goto(url)
    expect(page.locator(".viz-hero h1")).to_be_visible()
