"""Every experiment of every topic: defaults, bad values, stop, link, code, terminal. A new topic is tested by being there."""

import contextlib
import dataclasses
import inspect
import json
import math
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core.__main__ import main
from core.foundations.experiment import Recorder, Step, changed, drain, experiments, kind, topics
from core.foundations.turns import turns
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
        return st.one_of(st.text(max_size=LONGEST_TEXT), st.text(max_size=9).map("-".__add__), st.text(" \n\t&=#%+", max_size=9))

    def build(told):
        with contextlib.suppress(ValueError):
            return one.config_type(**told)
        return None

    told = {field.name: st.one_of(st.just(field.default), values(field)) for field in one.settings if kind(field) is not bytes}
    return st.fixed_dictionaries(told).map(build).filter(lambda config: config is not None)


# --- running ----------------------------------------------------------------------------------------------------------


@each
def test_a_run_ends_with_figures(one):
    config = small(one)
    recorder = drain(one.run(config), Recorder(one, config))
    assert recorder.steps >= 2 and recorder.figures
    assert any(figure.gap is not None for figure in recorder.figures.values()), "one figure needs a theory and a measurement"
    for name, figure in recorder.figures.items():
        assert figure.name == name and figure.unit and figure.source and figure.label in ("measured", "computed", "simulated")
    json.dumps(recorder.report(), allow_nan=False)


@each
def test_every_step_is_plain(one):
    """Numbers, text, arrays or pictures: no live tensor, and nothing that can be changed later."""
    for step in one.run(small(one)):
        assert isinstance(step, Step)
        for field in dataclasses.fields(step):
            assert type(getattr(step, field.name)).__module__.split(".")[0] != "torch", field.name
        with pytest.raises(dataclasses.FrozenInstanceError):
            step.doing = "something else"
        assert "\n" not in step.doing


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


@each
def test_the_code_to_copy_runs(one, capsys):
    config = small(one)
    exec(compile(as_python(one, config), "copied", "exec"), {"__name__": "copied"})
    assert "Compared(" in capsys.readouterr().out.strip().split("\n")[-1]


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


REPORT = {"topic", "experiment", "config", "steps", "seconds", "last", "figures"}
FIGURE = {"name", "unit", "label", "predicted", "measured", "gap", "source"}


def check_report(text, one):
    report = json.loads(text)
    assert set(report) == REPORT
    assert (report["topic"], report["experiment"]) == (one.topic, one.name)
    assert report["config"].keys() == {field.name for field in one.settings}
    assert report["steps"] >= 2 and report["figures"]
    for figure in report["figures"]:
        assert set(figure) == FIGURE


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
    assert [field.name for field in one.settings if f"--{field.name.replace('_', '-')}" not in told.replace("_", "-")] == []


def test_the_list_tells_every_experiment_and_its_question(capsys):
    main([])
    lines = capsys.readouterr().out.strip().split("\n")
    assert [(line.split()[:2], line.split(maxsplit=2)[2]) for line in lines] == [([one.topic, one.name], one.question) for one in EVERY]


@pytest.mark.parametrize("words", [["cooking"], ["cooking", "bake"], ["nanogpt", "bake"]])
def test_unknown_names_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and " must be one of " in capsys.readouterr().err


def terminal(*words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "core", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


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
    assert bad.stderr.strip() == f"{NUMBERS[0][1].name} must be a {'whole ' if kind(NUMBERS[0][1]) is int else ''}number, got 'many'"


# --- predictions and prose --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", topics())
def test_predictions_ask_what_can_be_set(topic):
    asked = getattr(sys.modules[f"core.{topic}"], "PREDICTIONS", ())
    assert len(asked) >= 3
    for prediction in asked:
        experiments(topic)[prediction.experiment].config_type(**prediction.settings)
        assert 2 <= len(prediction.answers) <= 4 and prediction.question.endswith("?")


@each
def test_an_experiment_has_a_question_and_a_lesson(one):
    assert one.question.endswith("?")
    lesson = inspect.getdoc(sys.modules[f"core.{one.topic}"])
    assert [part for part in ("Code -> paper:", "Left out:", "Source:") if part not in lesson] == []
    assert not set(lesson) & set("\t\x08\x0c\r"), "a backslash of a formula was read as an escape: write r-strings"
