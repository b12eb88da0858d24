"""One running app and one browser for all tests of this folder. Without a browser they say why they are skipped."""

import os
import shutil
import socket
import threading
import time
import urllib.request
from importlib import resources

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path():
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))),
        None,
    )


@pytest.fixture(scope="session")
def url():
    import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = app.assemble(app.SYLLABUS)
    app.launch(blocks, prevent_thread_lock=True, server_port=port, quiet=True)
    for thread in threading.enumerate():
        if thread.name == "warm":  # the tests are about the tabs, not about the first seconds after the start
            thread.join(180)
    yield f"http://127.0.0.1:{port}/"
    blocks.close()


@pytest.fixture(scope="session")
def chromium():
    path = browser_path()
    if path is None:
        reason = "no Chromium on this machine: install Debian's `chromium`, or Chrome, to run the browser tests"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a busy machine takes its time; a page that is right is not slower for it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, url):
    """visit("?tab=nanogpt") -> a page.

    Fails on a script error, in a message's handler too, and on any request to another host.
    """
    contexts, errors, strangers = [], [], []

    def open_page(query="?tab=nanogpt&run=train", width=1280, height=900, dark=False):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                strangers.append(request.url) if not request.url.startswith((url, "data:", "blob:")) else None
            ),
        )
        page.goto(url + query)
        for drawn in (".viz-scene:not([hidden]) :is(canvas, pre, .viz-plot, .viz-card)", ".viz-cards [role=radio]"):
            page.locator(drawn).locator("visible=true").first.wait_for()  # the first tab is made, too, and hidden
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert strangers == []


def downloaded(page, link):
    """The download that a click on a link starts. The run's last message comes twice and draws the links anew: a click
    just then would meet no link.
    """
    page.wait_for_load_state("networkidle")
    with page.expect_download() as download:
        link.click()
    return download.value


def violations(page, place=None):
    """What axe-core finds against WCAG 2.1 A and AA on the page, or in the first element of a selector."""
    if not page.evaluate("!!window.axe"):
        page.add_style_tag(content="* {transition: none !important}")  # or it is caught between two colors
        page.add_script_tag(content=(resources.files("axe_core_python") / "axe.min.js").read_text())
    page.wait_for_timeout(150)
    found = page.evaluate(
        """place => axe.run(place ?? document,
        {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], resultTypes: ["violations"]})""",
        place,
    )
    return [
        f"{v['id']}: {n['html'][:160]} {n['any'][0]['message'] if n['any'] else ''}"
        for v in found["violations"]
        for n in v["nodes"]
    ]


def wait_until(true, seconds=30.0):
    """Poll a condition of the server's; True once it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return bool(true())


def status_code(address, data=None):
    try:
        return urllib.request.urlopen(
            urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"}), timeout=20
        ).status
    except urllib.error.HTTPError as error:
        return error.code
