"""The frame of the page in a real browser: presenter mode, bad links; and what the server offers."""

import itertools
import json
import urllib.request

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from core.foundations.experiment import experiments, topics
from core.foundations.machine import this_machine
from core.foundations.turns import MOST_ACTIVE, turns
from pages._kit.charts import axis, chart, ranking
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
  Viz.transport(host, {value: null, limit: "Ready"}, nothing, nothing, {});
  const pressable = () => [...host.querySelectorAll(".viz-run, .viz-step, .viz-reset")].map(button => !button.disabled);
  const before = pressable();
  Viz.form(host, {value: {spec: [{name: "one", question: "", fields: []}]}}, nothing);
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


LEGEND = """async layout => {
  const place = document.body.appendChild(document.createElement("div")), dot = {type: "scatter", mode: "markers", x: [1, 2], y: [-1, -1.17], colour: "a"};
  place.style.width = "260px";
  const view = Viz.views.plot(place, {id: "p", title: "axes", layout}), found = [];
  for (const names of [["up"], ["up", "down and a long name", "another long name"]]) {
    view.show([{p: names.map(name => ({...dot, name}))}], 0, 0);
    do await new Promise(done => setTimeout(done, 900)); while (!place.querySelector(".bglayer .bg"));  // plotly comes when it is first needed
    const box = what => place.querySelector(what).getBoundingClientRect();
    found.push([box(".nsewdrag").top - box(".bglayer .bg").top, box(".nsewdrag").height - box(".bglayer .bg").height]);
  }
  return found;
}"""


def test_axes_stay_with_their_points_when_a_legend_takes_more_lines(visit):
    """Plotly moved the axes of a chart whose legend grew and left the points where they were."""
    found = visit("?tab=nanogpt").evaluate(LEGEND, chart(axis("x", "count"), axis("y", "count"), legend=True))
    assert all(abs(number) <= 1.5 for pair in found for number in pair), found


MARKUP = """async layout => {
  const place = document.body.appendChild(document.createElement("div"));
  const names = ["<b>bold</b>", "a<br>b", "&lt;script&gt;", "<img src=x onerror=window.hacked=1>"];
  Viz.views.plot(place, {id: "p", title: "markup", layout}).show([{p: [{type: "bar", orientation: "h", x: [4, 3, 2, 1], y: names, colour: "a", name: "<i>n</i>"}]}], 0, 0);
  while (!place.querySelector("[role=img]")) await new Promise(requestAnimationFrame);
  return [[...place.querySelectorAll(".ytick text")].map(t => t.textContent), window.hacked];
}"""


def test_labels_are_no_markup(visit):
    labels, hacked = visit("?tab=nanogpt").evaluate(MARKUP, ranking(axis("x", "count"), axis("y", "token"), left=200))
    assert set(labels) == {"<b>bold</b>", "a<br>b", "&lt;script&gt;", "<img src=x onerror=window.hacked=1>"}
    assert hacked is None


LEAKS = """async layout => {
  const rest = () => new Promise(done => setTimeout(done, 30)), host = document.body.appendChild(document.createElement("div"));
  const bytes = btoa(String.fromCharCode(...new Uint8Array(48))), picture = {wide: 4, high: 4, bytes};
  const data = {
    matrix: {shape: [1, 1, 4, 4], bytes: btoa(String.fromCharCode(...new Uint8Array(16))), names: ["m"]},
    plot: [{type: "bar", x: [1], y: [1], colour: "a", name: "n"}], pictures: {pictures: [picture]}, draw: [{id: "a", kind: "text", text: "a", x: 0, y: 0}],
    gantt: {span: 4, unit: "s", rows: [{name: "r", bars: [[0, 1, "a", "b"]]}]}, text: "t", reader: {text: "t", shade: 0}, lines: null,
    brush: {picture, field: "painted", cells: 4},
  };
  const once = async () => {
    for (const [type, value] of Object.entries(data)) {
      const place = host.appendChild(document.createElement("div"));
      place.dataset.topic = "nanogpt";
      const spec = {id: "v", type, title: type, layout, x: {title: "x"}, y: {title: "y"}, series: [{id: "a", label: "a", colour: "a"}]};
      const view = Viz.views[type](place, spec, () => {});
      view.grown?.([{v: value}]);
      view.show?.([{v: value}], 0, 0);
      view.update?.({text: "t", add: {a: [[1, 2], [1, 2]]}});
      await rest();
      view.destroy();
      place.remove();
    }
  };
  for (let k = 0; k < 3; k++) await once();
  return once;
}"""


def test_a_view_that_is_destroyed_leaves_nothing(visit):
    """60 runs once left 143 nodes and 9 listeners each: counted by the browser itself, after it has collected its
    garbage.
    """
    page = visit("?tab=nanogpt")
    devtools, layout = page.context.new_cdp_session(page), chart(axis("x", "count"), axis("y", "count"))

    def count():
        for _ in range(3):
            devtools.send("HeapProfiler.collectGarbage")
        page.wait_for_timeout(300)
        counters = devtools.send("Memory.getDOMCounters")
        return counters["nodes"], counters["jsEventListeners"]

    page.evaluate(LEAKS, layout)  # what is made once: plotly.js, the first of each view
    before = count()
    for _ in range(4):
        page.evaluate(LEAKS, layout)
    after = count()
    runs = 4 * 3
    assert after[0] - before[0] <= 3 * runs and after[1] - before[1] <= runs, (before, after)


def test_a_handler_that_throws_reaches_the_window(visit):
    """Gradio swallows it; here it fails every browser test."""
    page = visit("?tab=nanogpt")
    page.evaluate(
        "window.addEventListener('error', event => { window.heard = event.message; event.preventDefault(); })"
    )
    page.evaluate("""() => { const host = document.body.appendChild(document.createElement("div")); host.innerHTML = '<div class="viz-picture" data-topic="x"></div>';
      Viz.picture(host, {value: {id: "1", scene: "s", open: {scene: "s", panels: [{id: "a", type: "text", title: "t"}], preview: false},
        updates: '[["b", {"text": "x"}]]'}}, () => {}, () => {}); }""")
    page.wait_for_function("window.heard")
    assert "has no panel “b”" in page.evaluate("window.heard")


def test_unknown_tab_in_a_link(visit):
    page = visit("?tab=nowhere")
    expect(page.locator(".viz-status")).to_contain_text("names a tab that does not exist")


def test_public_api_is_one_endpoint_per_experiment(url):
    info = json.load(urllib.request.urlopen(url + "gradio_api/info"))
    assert set(info["named_endpoints"]) == {f"/{one.key}" for topic in topics() for one in experiments(topic).values()}
    assert [p["label"] for p in info["named_endpoints"]["/lora_count"]["parameters"]] == ["model", "targets", "rank"]


def test_the_page_about_the_api_opens(visit):
    page = visit()
    page.get_by_role("button", name="Use via API").click()
    expect(page.get_by_text(f"{sum(len(experiments(topic)) for topic in topics())} API endpoints")).to_be_visible()
    expect(page.locator("main, .api-docs").get_by_text("/nanogpt_train").first).to_be_visible()


def test_the_page_carries_only_what_it_draws(url):
    """What is quickly answered does not wait in the queue, and the endpoints' parameters are no components of a page."""
    page = urllib.request.urlopen(url).read().decode()
    config = json.JSONDecoder().raw_decode(page.split("window.gradio_config = ", 1)[1])[0]
    assert len(page) < 470_000
    assert "api" not in {component["type"] for component in config["components"]}
    queued = {target[1] for event in config["dependencies"] if event.get("queue") for target in event["targets"]}
    assert queued == {"start"}


def test_api_gives_the_terminals_json_and_the_same_sentences(url):
    client = Client(url, verbose=False)
    report = client.predict(corpus="play", n_layer=1, steps=8, api_name="/nanogpt_train")
    assert set(report) == {"topic", "experiment", "config", "steps", "seconds", "last", "figures", "takeaways"}
    assert report["config"]["n_layer"] == 1 and report["last"]["step"] == 8
    with pytest.raises(Exception, match="n_layer must be at most 8 layers, got 99"):
        client.predict(n_layer=99, api_name="/nanogpt_train")


def test_quick_clicks_end_with_the_picture_and_the_code_of_the_last_one(visit):
    page = visit("?tab=nanogpt&run=train")
    page.locator("#nanogpt .viz-card[data-name=train][aria-checked=true]").wait_for()
    page.evaluate("""() => { for (const name of ["generate", "train", "fork", "generate", "fork"])
        document.querySelector(`#nanogpt .viz-card[data-name=${name}]`).click(); }""")
    expect(page.locator("#nanogpt [data-panel=sample_b]")).to_be_visible()
    expect(page.locator("#nanogpt-more .prose").first).to_contain_text("Forking: two runs with one difference")
    expect(page.locator("#nanogpt [data-panel=writing]")).to_be_hidden()


def test_a_preview_needs_no_place_among_the_runs(visit, url):
    """With all seats taken the other tabs still show their start."""
    device = turns(this_machine().device)
    held = [device.take(word for word in itertools.repeat("")) for _ in range(MOST_ACTIVE)]
    for run in held:
        next(run)
    try:
        page = visit("?tab=nanogpt&run=generate&prompt=Hello")
        expect(page.locator("#nanogpt [data-panel=writing]")).to_contain_text("Hello")
    finally:
        for run in held:
            run.close()


def test_server_is_closed_where_it_should_be(url):
    assert status_code(url + "gradio_api/run/nanogpt_train", b'{"data": []}') == 404  # no way past the queue
    assert status_code(url + "monitoring/summary") in (403, 404)
    assert status_code(url + "gradio_api/file=/etc/passwd") == 403
    assert len(urllib.request.urlopen(url + "config").read()) < 300_000


def test_upload_has_a_limit(url):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'
        + b"0" * 36_000_000
        + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(
        url + "gradio_api/upload", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413
