"""What a visitor waits for, in Chromium. python -m tests.bench.browser

first picture  from the tab being made in the page until its start state is drawn (goal: under 1 s on an idle machine)
whole page     from the address being opened until then, the empty browser cache and Gradio's own scripts included
first change   from pressing Run until the status tells of the first step (goal: under 1 s)
player         frames a second while the rewind plays (goal: near 60, what the screen can show)
model room     frames a second while the film flies through the opened model (goal: the same)
5,000 points   milliseconds of script to redraw the live chart with 5,000 points in each of two lines
"""

import os
import subprocess
import sys
import time
from statistics import median

from tests.bench.ledger import ROOT, Line, options, report
from tests.bench.startup import answer, free_port
from tests.e2e.conftest import FLAGS, browser_path

MARK = """addEventListener('load', () => { const seen = setInterval(() => {
  if (!window.made && document.querySelector('.viz-picture')) window.made = performance.now();
  if (document.querySelector('.viz-scene canvas')?.width > 300) { window.drawn = performance.now(); clearInterval(seen); } }, 5); });"""
PLAY = """() => new Promise((done) => { const root = document.querySelector('.viz-scene:not([hidden]) .viz-player'), from = performance.now();
  root.querySelector('[aria-label=Play]').click();
  const wait = setInterval(() => { if (root.querySelector('[aria-label=Play]')) { clearInterval(wait);
    done(+root.dataset.drawn / (performance.now() - from) * 1000); } }, 10); })"""
FLY = """() => new Promise((done) => { const root = document.querySelector('.viz-scene:not([hidden]) .viz-player');
  const before = +(root.dataset.drawn || 0), from = performance.now();
  root.querySelector('[aria-label=Play]').click();
  setTimeout(() => done((+root.dataset.drawn - before) / (performance.now() - from) * 1000), 5000); })"""
CHART = """() => { const place = document.body.appendChild(document.createElement('div')); place.style.width = '800px';
  const chart = Viz.views.lines(place, { id: 'c', title: '', x: { title: 'x' }, y: { title: 'y' },
    series: [{ id: 'a', label: 'a', colour: 'a' }, { id: 'b', label: 'b', colour: 'b' }] });
  const xs = [...Array(5000).keys()], add = { a: [xs, xs.map(Math.sin)], b: [xs, xs.map(Math.cos)] };
  return new Promise((done) => { const times = []; let from = 0;
    chart.update({ add });
    const again = (n) => requestAnimationFrame(() => { if (n) { from = performance.now(); chart.update({ add: {} });
      requestAnimationFrame(() => { times.push(performance.now() - from); again(n - 1); }); } else { place.remove(); done(times); } });
    again(40); }); }"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    arguments = options(__doc__).parse_args()
    rounds, port = 1 if arguments.quick else 5, free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    with (
        subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as server,
        sync_playwright() as playwright,
    ):
        while answer(port, "/")[0] != 200:
            time.sleep(0.05)
        time.sleep(8)  # the first visitor after a start waits for imports; this is the second
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        picture, page_load, change = list[float](), list[float](), list[float]()
        for _ in range(rounds):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.add_init_script(MARK)
            page.goto(f"http://127.0.0.1:{port}/?tab=nanogpt&run=train&steps=80")
            page.wait_for_function("window.drawn")
            picture.append(page.evaluate("window.drawn - window.made") / 1000)
            page_load.append(page.evaluate("window.drawn") / 1000)
            page.wait_for_timeout(1500)
            started = time.perf_counter()
            page.get_by_role("button", name="Run", exact=True).click()
            page.wait_for_function("/step \\d/.test(document.querySelector('.viz-status').textContent)")
            change.append(time.perf_counter() - started)
            page.wait_for_function("/done/.test(document.querySelector('.viz-status').textContent)", timeout=120_000)
            if len(change) < rounds:
                page.context.close()
        frames, redraw = page.evaluate(PLAY), median(page.evaluate(CHART))
        page.locator(".viz-card[data-name=inside]").click()
        page.get_by_role("button", name="Layer 6").wait_for()
        page.get_by_role("button", name="Run", exact=True).click()
        page.wait_for_function("/comes next/.test(document.querySelector('.viz-status').textContent)")
        page.wait_for_timeout(500)
        flight = page.evaluate(FLY)
        browser.close()
        server.kill()
    report(
        "browser",
        [
            Line("tab made to first picture", "s", median(picture), None, None, "under 1", median(picture) < 1),
            Line("address opened to first picture, empty cache", "s", median(page_load), None, None),
            Line("Run pressed to first step", "s", median(change), None, None, "under 1", median(change) < 1),
            Line("player, frames", "1/s", frames, None, None, "near 60", frames > 50),
            Line("model room, frames", "1/s", flight, None, None, "near 60", flight > 50),
            Line(
                "two lines of 5,000 points, one redraw, wait for the screen included",
                "ms",
                redraw,
                None,
                None,
                "under 33",
                redraw < 33,
            ),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
