"""One running app and one browser for all tests of this folder. Without a browser they say why they are skipped."""

import os
import shutil
import socket
import threading
import time
import urllib.request

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browser_path():
    return next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None)


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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, url):
    """visit("?tab=nanogpt") -> a page. Fails on a script error and on any request to another host."""
    contexts, errors, strangers = [], [], []

    def open_page(query="", width=1280, height=900, dark=False):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: strangers.append(request.url) if not request.url.startswith((url, "data:", "blob:")) else None)
        page.goto(url + query)
        for drawn in (".viz-scene:not([hidden]) :is(canvas, pre, .viz-plot, .viz-card)", ".viz-form [role=radio]"):
            page.locator(drawn).locator("visible=true").first.wait_for()  # the first tab is made, too, and hidden
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert strangers == []


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
        return urllib.request.urlopen(urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"}), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
