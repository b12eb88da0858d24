"""Every experiment of every tab in a real browser: its start, a run, both themes, a phone, accessibility. A new topic
is tested by being there.
"""

import re

import pytest
from playwright.sync_api import expect

from core.foundations.lesson import lesson_of
from pages._kit.links import query_for
from tests.e2e.conftest import violations
from tests.test_experiments import EVERY, small

pytestmark = pytest.mark.browser

each = pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
DRAWN = ".viz-scene:not([hidden]) :is(canvas, svg.main-svg, .viz-choice, pre:not(:empty))"
STATES = """bar => { window.states = []; new MutationObserver(() => window.states.push(bar.dataset.state)).observe(bar, {attributeFilter: ["data-state"]}) }"""
# a canvas that is one color all over shows nothing
INKED = """tab => [...tab.querySelectorAll(".viz-scene:not([hidden]) canvas")].filter(c => c.offsetParent && c.width).map(c => {
  const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, first = data.slice(0, 4).join();
  for (let i = 0; i < data.length; i += 4) if (data.slice(i, i + 4).join() !== first) return true;
  return false;
})"""
WIDE = "formulas => formulas.filter(f => f.scrollWidth > f.clientWidth).map(f => f.textContent)"
HIGHEST = 2500  # px of a page after a run, at 1280 px with nothing unfolded


@each
def test_it_starts_with_a_picture_and_runs_to_what_it_showed(visit, one):
    page = visit(query_for(one, small(one)))
    tab, lesson = page.locator(f"#{one.topic}"), lesson_of(one.topic)
    expect(tab.locator(".viz-tour h1")).to_have_text(lesson.question)
    expect(tab.locator(".viz-asks")).to_have_text(one.question)
    expect(tab.locator(".viz-card[aria-checked=true] strong")).to_have_text(lesson.card(one.name).title)
    expect(tab.locator(DRAWN).first).to_be_visible()
    tab.locator(".viz-transport").evaluate(STATES)
    tab.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("() => window.states.length > 1 && window.states.at(-1) === 'idle'", timeout=90_000)
    status = tab.locator(".viz-status")
    assert "viz-bad" not in status.get_attribute("class"), status.text_content()
    scene = tab.locator(".viz-scene:not([hidden])")
    expect(scene.locator(".viz-saw p").first).to_contain_text(re.compile(r"\d"))
    expect(scene.locator(".viz-figure").first).to_be_visible()
    assert 1 <= scene.locator(".viz-figure").count() <= 4
    assert scene.locator(".viz-strip tbody tr").count() >= scene.locator(".viz-figure").count()
    expect(tab.locator(DRAWN).first).to_be_visible()
    page.wait_for_timeout(400)
    assert all(tab.evaluate(INKED)), "a canvas is empty"
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = false })")
    assert page.evaluate("document.documentElement.scrollHeight") <= HIGHEST
    unfold(page, one.topic)
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        assert violations(page, f"#{one.topic} .viz-stage") == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("topic", dict.fromkeys(one.topic for one in EVERY))
def test_a_tab_is_for_everybody(visit, topic):
    """WCAG 2 A and AA of the whole page, with prose and code; and no sideways scroll on a phone."""
    page = visit(f"?tab={topic}")
    unfold(page, topic)
    for name in ("How it works", "The code that ran"):
        page.locator(f"#{topic}-more").get_by_role("tab", name=name).click()
        page.wait_for_timeout(250)
        for dark in (False, True):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
            assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(f"#{topic} .viz-idea .katex-display").evaluate_all(WIDE) == []


def unfold(page, topic):
    page.locator(f"#{topic}").evaluate("tab => tab.querySelectorAll('details').forEach(fold => { fold.open = true })")
