"""Every experiment of every topic: defaults, bad values, stop, link, code, terminal. A new topic is tested by being
there.
"""

import contextlib
import dataclasses
import importlib
import inspect
import itertools
import json
import math
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core.__main__ import main
from core.foundations.experiment import Step, changed, experiments, kind, topics
from core.foundations.figures import Missing, Outcome
from core.foundations.lesson import Ask, Look, lesson_of, verdict
from core.foundations.recorder import Recorder, drain
from core.foundations.turns import turns
from pages._kit.charts import Sketch
from pages._kit.links import LONGEST_TEXT, as_command, as_python, from_query, query_for

ROOT = Path(__file__).parents[1]
EVERY = [one for topic in topics() for one in experiments(topic).values()]
NUMBERS = [(one, field) for one in EVERY for field in one.settings if kind(field) in (int, float)]
SMALL = {
    "steps": 4,
    "length": 8,
    "fork_at": 2,
    "n_layer": 1,
    "width": 16,
    "context": 16,
    "batch": 2,
    "samples": 2,
    "pairs_used": 12,
    "most_n": 16,
    "tokens": 1024,
    "nominal": 5.0,
    "rounds": 1,
    "merges": 30,
}  # where an experiment has such settings

each = pytest.mark.parametrize("one", EVERY, ids=lambda one: one.key)


def small(one):
    """The defaults, made quick."""
    return one.config_type(**{field.name: SMALL[field.name] for field in one.settings if field.name in SMALL})


def configs(one):
    """Any Config that can stand in a link: every setting in its range or among its choices, whatever fits together."""

    def values(field):
        low, high = field.metadata["low"], field.metadata["high"]
        if field.metadata["choices"]:
            return st.sampled_from(list(field.metadata["choices"]))
        if kind(field) is bool:
            return st.booleans()
        if kind(field) is int:
            return st.integers(math.ceil(low), math.floor(high))
        if kind(field) is float:
            return st.floats(low, high)
        return st.one_of(
            st.text(max_size=LONGEST_TEXT), st.text(max_size=9).map("-".__add__), st.text(" \n\t&=#%+", max_size=9)
        )

    def build(told):
        with contextlib.suppress(ValueError):
            return one.config_type(**told)
        return None

    told = {
        field.name: st.one_of(st.just(field.default), values(field))
        for field in one.settings
        if kind(field) is not bytes
    }
    return st.fixed_dictionaries(told).map(build).filter(lambda config: config is not None)


# --- running and drawing ----------------------------------------------------------------------------------------------


def check_figures(results):
    """Each has its kind, its unit and its source; one at least is a headline, at most four are; a gap only where a
    formula or a paper speaks.
    """
    assert results
    for figure, result in results.items():
        assert result.figure == figure and figure.unit and figure.label in ("measured", "computed", "simulated")
        assert figure.against in ("theory", "paper", "baseline", "limit", None)
        assert result.source or figure.against is None, f"{figure.name} does not say what it is compared with"
        assert (result.gap is None) or figure.against in ("theory", "paper")
        assert figure.against is not None or result.expected is None
    headlines = [figure.name for figure in results if figure.headline]
    assert 1 <= len(headlines) <= 4, f"one to four figures have headline=True, here {headlines}"


def check_plain(step):
    """Numbers, text, arrays or pictures: no live tensor, at any depth, and nothing that can be changed later."""
    assert isinstance(step, Step)

    def look(value, where):
        assert type(value).__module__.split(".")[0] != "torch", where
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                look(getattr(value, field.name), f"{where}.{field.name}")
        elif isinstance(value, dict):
            for key, item in value.items():
                look(item, f"{where}[{key!r}]")
        elif isinstance(value, tuple | list):
            for item in value:
                look(item, where)

    look(step, type(step).__name__)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.doing = "something else"
    assert "\n" not in step.doing


def check_updates(updates, panels):
    """Every panel, view and series that a Step draws into is there, and no number is NaN: JSON has none."""
    known = {panel["id"]: panel for panel in panels}
    lines = {view["id"]: view for panel in panels for view in panel.get("views", [])}
    for panel, data in updates:
        assert panel in known or panel in lines, f"no panel {panel!r}"
        spec = known.get(panel) or lines[panel]
        assert set(data) <= {"add", "whole", "levels", "marks", "text", "shown", "frames", "opens"}
        assert set(data.get("add", {})) <= {member["id"] for member in spec.get("series", [])}, f"a series of {panel!r}"
        for frame in data.get("frames", []):
            assert set(frame) <= {"label", "at", *(view["id"] for view in spec["views"])}, f"a view of {panel!r}"
    assert all(math.isfinite(number) for number in numbers_in(updates))


def numbers_in(value):
    if isinstance(value, float):
        yield value
    elif isinstance(value, np.ndarray):
        yield from (float(number) for number in value.flat if value.dtype.kind == "f")
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from numbers_in(item)


def check_takeaways(sentences):
    assert 1 <= len(sentences) <= 3
    for sentence in sentences:
        assert re.search(r"\d", sentence) and sentence.endswith((".", "!")) and "\n" not in sentence, (
            f"a takeaway has a number of its run and ends with a period: {sentence!r}"
        )
        assert not re.search(r"\bnan\b|\binf\b|None", sentence), sentence


OUTCOMES: dict[str, Outcome] = {}  # of the runs of the next test, for those after it


def outcome_of(one):
    """Of a small run; it is made once."""
    if one.key not in OUTCOMES:
        OUTCOMES[one.key] = drain(one.run(small(one)), Recorder(one, small(one))).outcome
    return OUTCOMES[one.key]


@each
def test_a_run_is_drawn_reported_and_says_what_it_showed(one):
    """One small run, headless: its Steps are plain, each is drawn, its figures are honest, its questions are decided."""
    page, config = importlib.import_module(f"pages.{one.topic}").PAGE, small(one)
    picture, recorder, sketch = page.pictures[one.name], Recorder(one, config), Sketch()
    panels = picture.layout(config)
    parts = {shape.get("part") for shape in page.diagram(config).shapes}
    json.dumps(panels, allow_nan=False)
    assert set(picture.folded) <= {panel["id"] for panel in picture.panels(one.config_type())}
    for step in one.run(config):
        check_plain(step)
        recorder.add(step)
        picture.draw(step, sketch)
        check_updates(sketch.take(), panels)
        assert set(picture.lit(step)) <= parts, "a Step's part is no part= of a shape in diagram.py"
    check_updates(sketch.take_whole(), panels)
    OUTCOMES[one.key] = recorder.outcome
    assert recorder.steps >= 2
    check_figures(recorder.figures)
    json.dumps(recorder.report(), allow_nan=False)
    check_takeaways(recorder.report()["takeaways"])
    for ask in asks_of(one):
        right, because = verdict(ask, recorder.outcome)
        if right is not None:  # a figure may be missing at other settings than those of the question
            assert 0 <= right < len(ask.answers) and because.endswith("."), because


COLOR = re.compile(r"\b(blue|orange|green|grey|gray|purple|olive|pale|paler|dashed|dotted)\b", re.IGNORECASE)
INKS = {"a", "b", "c", "d", "e", "hot", "level", "text", "grid", "reader"}
KEYS = {"area", "line", "dashed", "dot", "ring", "frame", "pale"}


@each
def test_a_legend_says_what_colors_mean_and_no_title_has_to(one):
    page = importlib.import_module(f"pages.{one.topic}").PAGE
    panels = page.pictures[one.name].panels(one.config_type())
    for view in [*panels, *(view for panel in panels for view in panel.get("views", ()))]:
        for words in (view.get("title", ""), view.get("hint", "")):
            plain = re.sub("'[^']*'", "", words)  # a prompt may name a color
            assert not COLOR.search(plain), f"{words!r} names a color or a style: say it in legend= or in a label"
        for ink, meaning, *drawn in view.get("legend", ()):
            assert ink in INKS and meaning and set(drawn) <= KEYS


@each
@given(data=st.data())
def test_there_is_a_diagram_for_all_settings(one, data):
    page = importlib.import_module(f"pages.{one.topic}").PAGE
    json.dumps(page.diagram(data.draw(configs(one))).as_dict(), allow_nan=False)


@each
def test_the_diagram_holds_what_it_says(one):
    """It is drawn for every setting of the experiment: no shape leaves the picture, no word its box by much."""
    page = importlib.import_module(f"pages.{one.topic}").PAGE
    for config in (one.config_type(), small(one)):
        diagram = page.diagram(config)
        assert len(diagram.alt.split()) >= 5, "its words for those who cannot see it"
        for shape in diagram.shapes:
            if shape["kind"] == "arrow":
                assert all(0 <= x <= diagram.width and 0 <= y <= diagram.height for x, y in shape["points"])
                continue
            room = diagram.width if shape["kind"] == "label" else shape["w"]
            letter = 5.3 if shape["kind"] in ("group", "label") else 7.2  # about a letter's width, small or bold
            assert letter * len(shape["title"]) <= room + 10, shape["title"]
            assert 5.3 * len(shape.get("size", "")) <= room + 10, shape["size"]
            if shape["kind"] == "label":
                half = 2.65 * len(shape["title"])
                assert half - 6 <= shape["x"] <= diagram.width - half + 6, shape["title"]
            assert shape["x"] >= 0 and shape["x"] + shape["w"] <= diagram.width
            assert shape["y"] >= 0 and shape["y"] + shape["h"] <= diagram.height


OTHER = {
    "seed": 3,
    "steps": 6,
    "length": 12,
    "tokens": 2048,
    "width": 32,
    "batch": 3,
    "rounds": 2,
    "samples": 3,
    "merges": 60,
}
MOST_TRIES = 3


def variations(one):
    """Other settings of an experiment: several at once, then one after the other."""
    first = small(one)
    changes = [{field.name: OTHER[field.name] for field in one.settings if field.name in OTHER}]
    for field in sorted(one.settings, key=lambda field: field.name not in ("prompt", "text")):
        value, choices, high = getattr(first, field.name), field.metadata["choices"], field.metadata["high"]
        if field.name in ("prompt", "text"):
            changes.append({field.name: "a blue circle on the right"})
        elif choices and field.metadata["when"] is None:
            changes += [{field.name: other} for other in choices if other not in (value, "own", "file")][:1]
        elif kind(field) in (int, float) and field.name not in SMALL and field.name != "seed":
            changes.append({field.name: min(2 * value + 1, high)})
    for change in changes:
        with contextlib.suppress(ValueError):
            yield dataclasses.replace(first, **change)


def spoken(one, outcome):
    """What each takeaway says of a run; "" where it is silent."""
    said = []
    for says in lesson_of(one.topic).card(one.name).takeaways:
        try:
            said.append(says(outcome))
        except Missing:
            said.append("")
    return said


def with_other_numbers(outcome):
    """The same run, had it measured something else."""
    other = {
        figure: dataclasses.replace(result, measured=None if result.measured is None else 1.37 * result.measured + 0.61)
        for figure, result in outcome.figures.items()
    }
    return dataclasses.replace(outcome, figures=other)


@each
def test_a_takeaway_is_another_sentence_for_other_numbers(one):
    """No sentence that would stand there whatever was measured: it changes with the figures, or from run to run; and two runs differ."""

    first = outcome_of(one)
    before, other = spoken(one, first), spoken(one, with_other_numbers(first))
    fixed = {sentence for sentence, changed in zip(before, other, strict=True) if sentence and sentence == changed}
    same = before
    for config in itertools.islice(variations(one), MOST_TRIES):
        try:
            again = spoken(one, drain(one.run(config), Recorder(one, config)).outcome)
        except ValueError:  # right one by one and wrong together
            continue
        check_takeaways([sentence for sentence in again if sentence])
        fixed &= set(again)
        if again != before:
            same = None
        if not fixed and same is None:
            return
    assert not fixed, fixed
    assert same is None, same


@each
def test_closing_after_the_first_step_leaves_nothing(one):
    seats = turns("cpu")
    list(seats.take(step for step in ()))  # the worker's thread exists from here on
    next(one.run(small(one)))
    before = set(threading.enumerate())
    taken = seats.take(one.run(small(one)))
    next(taken)
    assert seats.active == 1
    taken.close()
    seats.worker.submit(int).result()  # behind the closing
    assert seats.active == 0
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(("one", "field"), NUMBERS, ids=lambda part: getattr(part, "key", None) or part.name)
def test_a_bad_number_gets_one_sentence(one, field, refusal):
    low, high = field.metadata["low"], field.metadata["high"]
    bad = [math.nan, "many", None, math.inf, -math.inf, 1e300]
    bad += [] if low is None else [low - 1]
    bad += [] if high is None else [high + 1]
    for value in bad:
        assert refusal(one.config_type, **{field.name: value}).startswith(f"{field.name} must be ")


# --- the link, the code, the command ----------------------------------------------------------------------------------


def followed(one, config):
    query = dict(parse_qsl(query_for(one, config).removeprefix("?"), keep_blank_values=True))
    return from_query(query, topics())


@each
@given(data=st.data())
def test_a_link_brings_the_settings_back(one, data):
    config = data.draw(configs(one))
    topic, found, values, problem = followed(one, config)
    assert (topic, found, problem) == (one.topic, one, "")
    assert found.config_type(**values) == config


@each
def test_a_link_with_a_bad_value_says_so(one):
    for field in (field for field in one.settings if kind(field) in (int, float)):
        topic, found, values, problem = from_query({"tab": one.topic, "run": one.name, field.name: "many"}, topics())
        assert (topic, found, values) == (one.topic, one, {})
        assert f"{field.name} must be a" in problem and "\n" not in problem


def test_a_link_names_every_bad_value_and_what_the_experiment_does_not_have():
    link = {"tab": "nanogpt", "run": "train", "n_layer": "99", "steps": "0,5", "width": "NaN"}
    assert from_query(link, topics())[2:] == (
        {},
        "This link has a bad value, so the defaults are used: n_layer must be at most 8 layers, got 99; "
        "width must be a whole number, got 'NaN'; steps must be a whole number, got 0.5.",
    )
    link = {"tab": "nanogpt", "run": "train", "n_layer": "2", "layers": "3", "utm_source": "mail", "__theme": "dark"}
    *_, values, problem = from_query(link, topics())
    assert values == {"n_layer": 2}
    assert problem == "This link names what “train” does not have: 'layers'."


def test_a_link_that_chooses_a_model_shows_the_defaults_it_brings():
    link = {"tab": "lora", "run": "text", "model": "smollm2", "batch": "5"}
    *_, values, problem = from_query(link, topics())
    assert problem == "" and values["batch"] == 5 and values["steps"] == 12 and values["context"] == 32
    one = experiments("lora")["text"]
    assert parse_qsl(query_for(one, one.config_type(**values))[1:])[2:] == [("batch", "5"), ("model", "smollm2")]


@pytest.mark.parametrize("topic", topics())
def test_the_code_to_copy_runs_and_every_signature_is_true(topic, tmp_path):
    """In a Python of its own, where a call that does not fit its signature's types and shapes is an error."""
    files = []
    for one in experiments(topic).values():
        files.append(tmp_path / f"{one.name}.py")
        files[-1].write_text(as_python(one, small(one)))
    command = [sys.executable, "-m", "tests.shapes", *files]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum("Result(" in line for line in done.stdout.splitlines()) >= len(files)


@each
@given(data=st.data())
def test_the_code_to_copy_builds_the_same_settings(one, data):
    config = data.draw(configs(one))
    namespace = {}
    exec(as_python(one, config).split("\nfor ")[0], namespace)
    assert namespace["config"] == config


@each
@settings(max_examples=15, phases=[Phase.generate])  # reading a command takes a while, so no failure is shrunk
@given(data=st.data())
def test_the_command_to_copy_builds_the_same_settings(one, data):
    """Also where a text begins with a dash, as an option does."""
    config, ran = data.draw(configs(one)), []
    words = shlex.split(as_command(one, config))
    assert words[:3] == ["python", "-m", "core"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.__main__.run", lambda one, config, folder: ran.append(config))
        main(words[3:])
    assert ran == [config]


# --- the terminal -----------------------------------------------------------------------------------------------------


def typed(one):
    return [word for name, value in changed(small(one)).items() for word in (f"--{name}", str(value))]


REPORT = {"topic", "experiment", "config", "steps", "seconds", "last", "figures", "takeaways"}
FIGURE = {"name", "unit", "label", "against", "predicted", "measured", "gap", "source", "headline"}


def check_report(text, one):
    report = json.loads(text)
    assert set(report) == REPORT
    assert (report["topic"], report["experiment"]) == (one.topic, one.name)
    assert report["config"].keys() == {field.name for field in one.settings}
    assert report["steps"] >= 2 and report["figures"]
    for figure in report["figures"]:
        assert set(figure) == FIGURE
    check_takeaways(report["takeaways"])


@each
def test_the_terminal_form_ends_in_one_json_object(one, capsys, tmp_path):
    main([one.topic, one.name, *typed(one), "--save", str(tmp_path / "files")])
    told = capsys.readouterr()
    *_, last = told.out.strip().split("\n")
    check_report(last, one)
    assert (tmp_path / "files").is_dir()


@each
def test_the_terminal_refuses_with_the_same_sentence(one, capsys, refusal):
    field = next(field for field in one.settings if kind(field) in (int, float))
    with pytest.raises(SystemExit) as left:
        main([one.topic, one.name, f"--{field.name}", "1e30"])
    assert left.value.code == 2
    assert capsys.readouterr().err.strip() == refusal(one.config_type, **{field.name: 1e30})


@each
def test_help_tells_every_setting(one, capsys):
    with pytest.raises(SystemExit) as left:
        main([one.topic, one.name, "--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0 and one.question in " ".join(told.split())
    assert [
        field.name for field in one.settings if f"--{field.name.replace('_', '-')}" not in told.replace("_", "-")
    ] == []


def test_the_list_tells_every_experiment_and_its_question(capsys):
    main([])
    lines = capsys.readouterr().out.strip().split("\n")
    assert [(line.split()[:2], line.split(maxsplit=2)[2]) for line in lines] == [
        ([one.topic, one.name], one.question) for one in EVERY
    ]


@pytest.mark.parametrize("words", [["cooking"], ["cooking", "bake"], ["nanogpt", "bake"]])
def test_unknown_names_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and " must be one of " in capsys.readouterr().err


def terminal(*words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "core", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_a_real_terminal():
    """The whole way once, for what a call inside this process cannot show: the streams and the exit code."""
    one = EVERY[0]
    done = terminal(one.topic, one.name, *typed(one))
    assert done.returncode == 0
    check_report(done.stdout.strip().split("\n")[-1], one)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    bad = terminal(one.topic, one.name, f"--{NUMBERS[0][1].name}", "many")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert (
        bad.stderr.strip()
        == f"{NUMBERS[0][1].name} must be a {'whole ' if kind(NUMBERS[0][1]) is int else ''}number, got 'many'"
    )


# --- lessons and prose ------------------------------------------------------------------------------------------------


def asks_of(one):
    return [step for step in lesson_of(one.topic).steps if isinstance(step, Ask) and step.experiment == one.name]


@pytest.mark.parametrize("topic", topics())
def test_a_lesson_can_be_followed(topic):
    """Its steps name experiments, settings and places that are there; its cards are the experiments, in the tab's
    order.
    """
    lesson, page = lesson_of(topic), importlib.import_module(f"pages.{topic}").PAGE
    assert [card.name for card in lesson.experiments] == list(experiments(topic)) == list(page.pictures)
    assert lesson.question.endswith("?") and lesson.formula
    assert 20 <= len(lesson.idea.split()) <= 75, f"an idea has at most 75 words, this one {len(lesson.idea.split())}"
    assert 4 <= len(lesson.steps) <= 8, f"a lesson has 4 to 8 steps, this one {len(lesson.steps)}"
    assert sum(isinstance(step, Ask) for step in lesson.steps) >= 2, "at least two steps of a lesson are Asks"
    assert lesson.experiments[0].level == "start" or len(lesson.experiments) == 1
    for card in lesson.experiments:
        assert card.takeaways and card.note and len(card.title.split()) <= 8, card.title
        assert card.level in ("start", "deeper", "expert") and card.seconds > 0
        for module in card.modules:
            importlib.import_module(f"core.{module}")
    for step in lesson.steps:
        if isinstance(step, Look):
            assert step.at in PLACES or step.at in panels_of(page) | settings_of(topic), step.at
        else:
            experiments(topic)[step.experiment].config_type(**step.settings)
        if isinstance(step, Ask):
            assert 2 <= len(step.answers) <= 4 and step.text.endswith("?")
            empty = Outcome({}, None, None)
            right, because = verdict(step, empty)
            assert right is None and because.startswith("The run ended before it had measured “"), (
                "a missing figure leaves it open"
            )


PLACES = {"idea", "diagram", "cards", "controls", "run", "picture", "saw", "figures", "more"}


def panels_of(page):
    found = set()
    for name, picture in page.pictures.items():
        for panel in picture.panels(page.experiments[name].config_type()):
            found |= {panel["id"], *(view["id"] for view in panel.get("views", []))}
    return found


def settings_of(topic):
    return {field.name for one in experiments(topic).values() for field in one.settings}


@pytest.mark.parametrize("topic", topics())
def test_the_terminal_prints_the_lesson(topic, capsys):
    main([topic])
    *prose, last = capsys.readouterr().out.strip().split("\n")
    told = json.loads(last)
    assert set(told) == {"topic", "idea", "steps", "experiments"} and told["topic"] == topic
    assert all(set(step) == {"kind", "text"} and step["kind"] in ("look", "ask", "run") for step in told["steps"])
    assert all(set(card) == {"name", "title", "level", "seconds"} for card in told["experiments"])
    assert lesson_of(topic).question in prose[0] and told["idea"] in "\n".join(prose)


@each
def test_an_experiment_has_a_question_and_a_lesson(one):
    assert one.question.endswith("?")
    lesson = inspect.getdoc(sys.modules[f"core.{one.topic}"])
    missing = [part for part in ("Code -> paper:", "Left out:", "Source:") if part not in lesson]
    assert not missing, (
        f"core/{one.topic}/__init__.py: its docstring needs a paragraph that begins with {' and '.join(missing)}"
    )
    assert not set(lesson) & set("\t\x08\x0c\r"), "a backslash of a formula was read as an escape: write r-strings"
