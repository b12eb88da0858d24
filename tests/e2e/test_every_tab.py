"""Every experiment of every tab in a real browser: its start, a run, both themes, a phone, accessibility. A new topic is tested by being there."""

from importlib import resources

import pytest
from playwright.sync_api import expect

from pages._kit.links import query_for
from tests.test_experiments import EVERY, small

pytestmark = pytest.mark.browser

each = pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)
FOLDS = ("Try this: predict, then run", "How it works", "The code that ran", "Take it with you", "Sources")
DRAWN = ".viz-scene:not([hidden]) :is(canvas, svg.main-svg, .viz-card, pre:not(:empty))"

STATES = """bar => { window.states = []; new MutationObserver(() => window.states.push(bar.dataset.state)).observe(bar, {attributeFilter: ["data-state"]}) }"""


@each
def test_it_starts_with_a_picture_and_runs_to_its_figures(visit, one):
    page = visit(query_for(one, small(one)))
    tab = page.locator(f"#{one.topic}")
    expect(tab.locator(".viz-question")).to_have_text(one.question)
    expect(tab.locator(DRAWN).first).to_be_visible()
    tab.locator(".viz-transport").evaluate(STATES)
    tab.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("() => window.states.length > 1 && window.states.at(-1) === 'idle'", timeout=90_000)
    status = tab.locator(".viz-status")
    assert "viz-bad" not in status.get_attribute("class"), status.text_content()
    expect(tab.locator(".viz-scene:not([hidden]) .viz-strip tbody tr").first).to_be_visible()
    expect(tab.locator(DRAWN).first).to_be_visible()


@each
def test_it_is_for_everybody(visit, one):
    """WCAG 2 A and AA as axe-core checks them, with everything unfolded, light and dark; and no sideways scroll on a phone."""
    page = visit(query_for(one, one.config_type()))
    for fold in FOLDS:
        page.locator(f"#{one.topic}").get_by_role("button", name=fold).click()
    page.wait_for_timeout(500)
    page.add_style_tag(content="* {transition: none !important}")  # or a busy machine is caught between two colours
    page.add_script_tag(content=(resources.files("axe_core_python") / "axe.min.js").read_text())
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(300)
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        told = [f"{v['id']}: {n['html'][:160]} {n['any'][0]['message'] if n['any'] else ''}" for v in found["violations"] for n in v["nodes"]]
        assert told == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
