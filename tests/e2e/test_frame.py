"""The frame of the page in a real browser: presenter mode, bad links; and what the server offers."""

import itertools
import json
import urllib.request

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from core.foundations.experiment import experiments, topics
from pages._kit.charts import axis, chart
from tests.e2e.conftest import status_code

pytestmark = pytest.mark.browser


def test_presenter_mode_by_key_and_by_link(visit):
    page = visit("?tab=nanogpt")
    size = "parseFloat(getComputedStyle(document.querySelector('.viz-status')).fontSize)"
    small = page.evaluate(size)
    page.keyboard.press("Alt+p")
    page.wait_for_function(f"{size} > {1.2 * small}")  # Gradio lets a block's letters grow over 150 ms
    page.keyboard.press("Alt+p")
    page = visit("?tab=nanogpt&present=1")
    expect(page.locator("body.presenter")).to_be_attached()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


EARLY = """() => {
  const host = document.body.appendChild(document.createElement("div")), nothing = () => {};
  host.innerHTML = '<div class="viz-transport" data-topic="early"></div><div class="viz-form" data-topic="early"></div>';
  Viz.transport(host, {value: null, limit: ""}, nothing, nothing, {});
  const pressable = () => [...host.querySelectorAll(".viz-run, .viz-step, .viz-reset")].map(button => !button.disabled);
  const before = pressable();
  Viz.form(host, {value: {spec: [{name: "one", question: "", fields: []}]}}, nothing, nothing);
  return [before, pressable()];
}"""


def test_nothing_can_be_run_before_its_settings_are_there(visit):
    assert visit("?tab=nanogpt").evaluate(EARLY) == [[False] * 3, [True] * 3]


LABELS = """async () => {
  const place = document.body.appendChild(document.createElement("div")), text = {type: "scatter", mode: "text", x: [1], y: [1], colour: "text"};
  const traces = ["●", "first", "second", "third"].map(name => ({...text, text: [name]}));
  Viz.views.plot(place, {id: "p", title: "labels", layout: {xaxis: {title: {text: "x"}}, yaxis: {title: {text: "y"}}}}).show([{p: traces}], 0);
  while (!place.querySelector("[role=img]")) await new Promise(requestAnimationFrame);
  return [...place.querySelectorAll(".textpoint")].map(label => label.getBoundingClientRect()).map(box => [box.top, box.bottom]);
}"""


def test_names_of_points_do_not_lie_on_each_other_and_signs_stay_where_they_are(visit):
    sign, *names = visit("?tab=nanogpt").evaluate(LABELS)
    assert names[0] == sign  # it came first: it needs no other place
    for (_, bottom), (top, _) in itertools.pairwise(sorted(names)):
        assert bottom - top <= 3  # px: letters do not fill their box


RESIZED = """async layout => {
  const place = document.body.appendChild(document.createElement("div")), bar = {type: "bar", x: [1], y: [1], colour: "a"};
  const traces = ["as it is", "with the sticker", "with two of them"].map(name => ({...bar, name})), found = [];
  for (const width of [700, 230, 700, 400]) {
    place.style.width = width + "px";
    if (!found.length) Viz.views.plot(place, {id: "p", title: "legend", layout}).show([{p: traces}], 0);
    await new Promise(done => setTimeout(done, 1000));
    const box = what => place.querySelector(what).getBoundingClientRect();
    found.push([box(".main-svg").width, box(".legend").bottom - box(".nsewdrag").top, box(".legend").height]);
  }
  return found;
}"""


def test_a_legend_stands_above_its_chart_at_every_width(visit):
    found = visit("?tab=nanogpt").evaluate(RESIZED, chart(axis("x", "count"), axis("y", "count"), legend=True))
    assert [width for width, _, _ in found] == [700, 230, 700, 400]
    assert found[1][2] > found[0][2]  # it takes more lines where there is less room
    assert all(into <= 1 for _, into, _ in found)  # px


def test_unknown_tab_in_a_link(visit):
    page = visit("?tab=nowhere")
    expect(page.locator(".viz-status")).to_contain_text("names a tab that does not exist")


def test_public_api_is_one_endpoint_per_experiment(url):
    info = json.load(urllib.request.urlopen(url + "gradio_api/info"))
    assert set(info["named_endpoints"]) == {f"/{one.key}" for topic in topics() for one in experiments(topic).values()}


def test_api_gives_the_terminals_json_and_the_same_sentences(url):
    client = Client(url, verbose=False)
    report = client.predict(corpus="play", n_layer=1, steps=8, api_name="/nanogpt_train")
    assert set(report) == {"topic", "experiment", "config", "steps", "seconds", "last", "figures"}
    assert report["config"]["n_layer"] == 1 and report["last"]["step"] == 8
    with pytest.raises(Exception, match="n_layer must be at most 8 layers, got 99"):
        client.predict(n_layer=99, api_name="/nanogpt_train")


def test_server_is_closed_where_it_should_be(url):
    assert status_code(url + "gradio_api/run/nanogpt_train", b'{"data": []}') == 404  # no way past the queue
    assert status_code(url + "monitoring/summary") in (403, 404)
    assert status_code(url + "gradio_api/file=/etc/passwd") == 403
    assert len(urllib.request.urlopen(url + "config").read()) < 300_000


def test_upload_has_a_limit(url):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n' + b"0" * 36_000_000 + b"\r\n--x--\r\n"
    request = urllib.request.Request(url + "gradio_api/upload", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413
