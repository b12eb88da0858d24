"""“Look inside the model”: the map of an opened transformer, by mouse, by keyboard, and on a phone; and what it writes."""

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import violations

pytestmark = pytest.mark.browser

PANEL = "#nanogpt .viz-panel[data-panel=pass]"


def opened(page):
    page.locator("#nanogpt").get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#nanogpt .viz-saw:visible")).to_contain_text("matters most here", timeout=30_000)
    return page.locator(PANEL)


def press(panel, name):
    panel.get_by_role("button", name=name, exact=True).click()


def still(page):
    """The flight is over."""
    page.wait_for_timeout(800)


def picture(panel):
    return panel.locator("canvas").evaluate("c => c.toDataURL()")


def test_it_is_seen_from_far_before_anybody_runs_it(visit):
    page = visit("?tab=nanogpt")
    expect(page.locator(f"{PANEL} .viz-anatomy-next")).to_contain_text("99.6 %")
    expect(page.locator(PANEL).get_by_role("button", name="Layer 6")).to_be_visible()


def test_layers_and_heads_are_opened_and_knocked_out(visit):
    page = visit("?tab=nanogpt")
    panel = opened(page)
    far = picture(panel)
    press(panel, "Layer 2")
    still(page)
    near = picture(panel)
    press(panel, "Head 2")
    still(page)
    assert len({far, near, picture(panel)}) == 3
    press(panel, "Knock out")
    press(panel, "Head 2")
    expect(panel.locator(".viz-anatomy-side")).to_contain_text("Without head 2 of layer 2 the likeliest is “'”")
    expect(panel.locator(".viz-anatomy-side")).to_contain_text("4.54 nats")
    expect(panel.locator(".viz-anatomy-row").first).to_contain_text(re.compile(r"99\.6 % → \d"))
    press(panel, "Head 2")
    expect(panel.locator(".viz-anatomy-side")).to_contain_text("Nothing is knocked out")
    assert violations(page, PANEL) == []


def test_a_click_goes_closer_and_a_cell_says_where_it_comes_from(visit):
    page = visit("?tab=nanogpt")
    panel = opened(page)
    canvas = panel.locator("canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.62, "y": box["height"] * 0.25})  # layer 2
    still(page)
    expect(panel.get_by_role("button", name="Layer 2", exact=True)).to_have_attribute("aria-pressed", "true")
    press(panel, "Head 2")
    still(page)
    note = panel.locator(".viz-anatomy-note")
    canvas.hover(position={"x": box["width"] * 0.71, "y": box["height"] * 0.5})
    expect(note).to_contain_text(re.compile(r"of what “.”( \(token \d+\))? takes in|nobody sees the future"))
    canvas.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    expect(note).to_contain_text("agree: (")


def test_the_keyboard_opens_reads_and_goes_back(visit):
    page = visit("?tab=nanogpt")
    panel = opened(page)
    panel.get_by_role("button", name="Layer 2", exact=True).focus()
    page.keyboard.press("Enter")
    head = panel.get_by_role("button", name="Head 2", exact=True)
    head.focus()
    page.keyboard.press("Enter")
    expect(head).to_be_focused()  # the buttons were drawn anew
    panel.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    note = panel.locator(".viz-anatomy-note")
    expect(note).to_contain_text("comes from “t”")  # the last token's largest share
    page.keyboard.press("ArrowUp")
    expect(note).to_contain_text("of what “e” (token 17) takes in")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(panel.get_by_role("button", name="Whole model")).to_have_attribute("aria-pressed", "true")


def test_the_film_flies_through_one_layer_and_says_what_it_does(visit):
    page = visit("?tab=nanogpt", width=390, height=844)
    panel = opened(page)
    slider = panel.get_by_role("slider", name="stage")
    slider.focus()
    page.keyboard.press("Home")
    seen = set()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
        seen.add(panel.locator("pre").first.text_content())
    assert len(seen) == 10
    expect(panel.locator("pre").first).to_contain_text("The largest is")
    panel.get_by_role("button", name="Play").click()
    page.wait_for_timeout(600)
    assert int(panel.locator(".viz-player").get_attribute("data-drawn")) > 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_another_text_is_another_picture(visit):
    page = visit("?tab=nanogpt")
    panel = opened(page)
    press(panel, "Layer 3")
    page.locator("#nanogpt-inside-text-in").fill("Enter BRAMB")
    page.locator("#nanogpt").get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#nanogpt .viz-status")).to_contain_text("“L” comes next", timeout=30_000)
    expect(panel.locator(".viz-anatomy-token").first).to_have_text("L")
    expect(panel.get_by_role("button", name="Whole model")).to_have_attribute("aria-pressed", "true")


def test_one_prompt_becomes_five_texts(visit):
    page = visit("?tab=nanogpt&run=decode&length=40")
    page.locator("#nanogpt").get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#nanogpt .viz-saw:visible")).to_contain_text("Beam search with 4 texts", timeout=60_000)
    texts = [page.locator(f"[data-panel=text_{way}] pre").text_content() for way in ("greedy", "beam", "draw", "yours")]
    assert all(len(text) == 40 for text in texts) and len(set(texts)) >= 3
    rule = page.locator("[data-panel=rules] pre").first
    page.get_by_role("slider", name="rule").focus()
    page.keyboard.press("Home")
    expect(rule).to_contain_text("gives each of its 103 tokens a probability")
    page.keyboard.press("ArrowRight")
    expect(rule).to_contain_text("All logits are divided by 0.7")
