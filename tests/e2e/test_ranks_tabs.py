"""Tabs whose runs are several processes: two browsers at once, a rank that dies in the middle, Stop and a closed
page.
"""

import os
import signal

import psutil
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import wait_until

pytestmark = pytest.mark.browser

TABS = (("zero", "shards"), ("megatron", "split"), ("pipeline_parallel", "bubble"))


def ranks():
    """The ranks that live now: the nursery's children are leaders, and theirs are ranks."""
    from core.foundations.ranks import NURSERY

    if NURSERY.process is None:
        return []
    leaders = psutil.Process(NURSERY.process.pid).children()
    return [rank for leader in leaders if leader.is_running() for rank in leader.children()]


def alive():
    try:
        return ranks()
    except psutil.NoSuchProcess:
        return ranks()


@pytest.fixture
def running(visit):
    """running("zero", "shards") -> the tab's page and part, with its ranks at work."""

    def start(topic, experiment):
        page = visit(f"?tab={topic}&run={experiment}")
        tab = page.locator(f"#{topic}")
        tab.get_by_role("button", name="Run", exact=True).click()
        return page, tab

    yield start
    assert wait_until(lambda: not alive(), 20), "no rank stays when the runs are over"


def test_two_browsers_run_ranks_at_the_same_time(running):
    tabs = [running(*TABS[0])[1], running(*TABS[2])[1]]
    for tab in tabs:
        expect(tab.locator(".viz-transport")).to_have_attribute("data-state", "idle", timeout=150_000)
        expect(tab.locator(".viz-status")).to_contain_text("done")


@pytest.mark.parametrize(("topic", "experiment"), TABS)
def test_a_rank_that_dies_is_named(running, topic, experiment):
    _, tab = running(topic, experiment)
    assert wait_until(alive, 60)
    os.kill(alive()[-1].pid, signal.SIGKILL)
    expect(tab.locator(".viz-status")).to_contain_text("was killed by SIGKILL, so the group was ended", timeout=30_000)
    tab.get_by_role("button", name="Run", exact=True).click()  # and the next run works
    assert wait_until(alive, 60)
    tab.get_by_role("button", name="Stop", exact=True).click()


def test_stop_and_a_closed_page_end_the_ranks(running):
    for leave in (
        lambda page, tab: tab.get_by_role("button", name="Stop", exact=True).click(),
        lambda page, tab: page.close(),
    ):
        page, tab = running(*TABS[0])
        assert wait_until(alive, 60)
        leave(page, tab)
        assert wait_until(lambda: not alive(), 30)
