"""The pairs of the RLHF tab in a real browser: clicks by mouse and keyboard teach the model, and go on to the next
experiment.
"""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(visit, url):
    """tab("&run=preferences") -> a page on the RLHF tab, and its picture and status line."""

    def open_tab(query):
        page = visit()
        page.goto(f"{url}?tab=rlhf{query}")
        page.wait_for_selector("#rlhf-picture .viz-choice")
        page.wait_for_selector("#rlhf-cards [role=radio]")
        return page, page.locator("#rlhf-picture"), page.locator("#rlhf-transport .viz-status")

    return open_tab


def clicks(page, experiment="preferences"):
    return page.locator(f"#rlhf-{experiment}-clicks-in").input_value()


def test_the_user_chooses_by_mouse_and_by_keyboard(tab):
    page, picture, status = tab("&run=preferences")
    note, cards = picture.locator(".viz-pairs .viz-note"), picture.locator(".viz-choice")
    expect(note).to_contain_text("Click a card: after 6 clicks a model learns your taste")
    first = cards.nth(0).text_content()
    cards.nth(1).click()
    expect(note).to_contain_text("You have chosen 1 of 40 times. 5 more")
    assert page.locator("#rlhf-preferences-rule-in").input_value() == "you" and cards.nth(0).text_content() != first
    for _ in range(4):
        cards.nth(0).click()
    expect(note).to_contain_text("1 more, and the model begins to learn")
    cards.nth(0).click()
    expect(status).to_contain_text("of the choices when left out", timeout=60_000)
    assert cards.nth(0).evaluate("card => card === document.activeElement"), (
        "the run replaced the picture; the focus came back"
    )
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(note).to_contain_text("You have chosen 8 of 40 times")
    expect(status).to_contain_text("of the choices when left out", timeout=60_000)
    assert clicks(page) == clicks(page, "dpo") == clicks(page, "ppo") == clicks(page, "hacking") == "baaaaaba"
    page.get_by_role("button", name="Take back the last choice").click()
    expect(note).to_contain_text("You have chosen 7 of 40 times")
    assert clicks(page) == "baaaaab"


def test_too_few_clicks_get_one_sentence_and_nothing_is_lost(tab):
    page, picture, status = tab("&run=preferences&rule=you")
    page.locator("#rlhf-transport .viz-run").click()
    expect(status).to_contain_text("At least 2 choices are needed", timeout=60_000)
    expect(picture.locator(".viz-pairs .viz-note")).to_contain_text("You have chosen 0 of 40 times")
    assert picture.locator(".viz-choice").count() == 2


def test_a_link_holds_the_clicks(tab):
    page, picture, _ = tab("&run=preferences&rule=you&clicks=abba")
    expect(picture.locator(".viz-pairs .viz-note")).to_contain_text("You have chosen 4 of 40 times")
    assert clicks(page) == "abba"
