"""Settings, their sentences, and the report: what every experiment relies on."""

import json
import math
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.foundations import lesson
from core.foundations.experiment import (
    Config,
    Experiment,
    Step,
    changed,
    config_of,
    counted,
    experiments,
    find,
    following,
    setting,
    topics,
    value_from_text,
)
from core.foundations.figures import Figure, Missing, Outcome, band, by_figure
from core.foundations.lesson import Card, Lesson
from core.foundations.recorder import Recorder, drain
from core.nanogpt import ForkConfig, GenerateConfig, TrainConfig

NAN = float("nan")


@dataclass(frozen=True)
class SomeConfig(Config):
    count: int = setting(3, "Count", unit="thing", low=1, high=9)
    share: float = setting(0.5, "Share", low=0, high=1)
    on: bool = setting(True, "On")
    name: str = setting("x", "Name")


@dataclass(frozen=True)
class SomeStep(Step):
    loss: float
    pairs: tuple = ()
    picture: object = None


def some(*steps):
    return Experiment("some", "thing", "Does it?", SomeConfig, lambda config: iter(steps))


# --- figures ----------------------------------------------------------------------------------------------------------

THEORY = Figure("loss", "nats", "theory", "a formula", headline=True)


@pytest.mark.parametrize(
    ("expected", "measured", "gap"),
    [(2.0, 2.5, 0.5), (0.0, 0.0, 0.0), (None, 1.0, None), (1.0, None, None), (None, None, None)],
)
def test_the_gap_is_measured_minus_expected(expected, measured, gap):
    assert THEORY(measured, expected).gap == gap


@pytest.mark.parametrize(("against", "gap"), [("theory", 0.5), ("paper", 0.5), ("baseline", None), ("limit", None)])
def test_only_a_theory_and_a_paper_have_a_gap(against, gap):
    result = Figure("loss", "nats", against, "a source")(2.5, 2.0)
    assert result.gap == result.as_dict()["gap"] == gap and result.as_dict()["against"] == against
    assert (result.as_dict()["predicted"], result.as_dict()["measured"], result.as_dict()["headline"]) == (
        2.0,
        2.5,
        False,
    )


def test_a_nan_makes_the_gap_nan():
    assert math.isnan(THEORY(NAN, 1.0).gap)


def test_a_figure_refuses_what_it_does_not_declare(refusal):
    assert refusal(Figure, "loss", "nats", "guess").startswith("against must be one of")
    assert refusal(Figure, "loss", "nats", None, "", "felt").startswith("label must be one of")
    assert refusal(Figure("loss", "nats"), 1.0, 2.0).endswith("or give no expected number")
    assert refusal(Figure("loss of {who}", "nats"), 1.0).endswith("call .of(...) first")


def test_a_family_is_asked_by_its_member():
    family = Figure("speed-up, {ranks} ranks", "times", "theory", "the number of ranks")
    run = Outcome(by_figure([family.of(ranks=2)(1.9, 2.0), family.of(ranks=4)(3.5, 4.0)]), None, None)
    assert run[family.of(ranks=4)].measured == 3.5 and family.of(ranks=8) not in run


@pytest.mark.parametrize(
    "ask", [lambda run: run[THEORY].measured, lambda run: run[THEORY].expected, lambda run: run[THEORY].difference]
)
@pytest.mark.parametrize("results", [[], [THEORY(None, None)], [THEORY(NAN, NAN)]], ids=["not there", "None", "NaN"])
def test_what_is_missing_is_missing_in_one_way(ask, results):
    with pytest.raises(Missing, match=r"^The run ended before it had measured “loss”, so this stays open\.$"):
        ask(Outcome(by_figure(results), None, None))


def test_a_reading_of_a_baseline_has_a_difference_and_a_ratio():
    reading = Outcome(by_figure([Figure("loss", "nats", "baseline", "A")(1.5, 2.0)]), None, None)[
        Figure("loss", "nats", "baseline", "A")
    ]
    assert (reading.difference, reading.ratio) == (-0.5, 0.75)


@pytest.mark.parametrize(("value", "index"), [(-1.0, 0), (0.0, 1), (0.4, 1), (0.5, 2), (math.inf, 2)])
def test_a_band_counts_the_edges_that_are_reached(value, index):
    assert band(value, 0.0, 0.5) == index


# --- bad values -------------------------------------------------------------------------------------------------------

BAD = [
    (TrainConfig, {"n_layer": 0}, "n_layer must be at least 1 layer, got 0"),
    (TrainConfig, {"n_layer": 9}, "n_layer must be at most 8 layers, got 9"),
    (TrainConfig, {"n_layer": "abc"}, "n_layer must be a whole number, got 'abc'"),
    (TrainConfig, {"n_layer": "4"}, "n_layer must be a whole number, got '4'"),
    (TrainConfig, {"n_layer": 2.5}, "n_layer must be a whole number, got 2.5"),
    (TrainConfig, {"n_layer": 0.5}, "n_layer must be a whole number, got 0.5"),
    (TrainConfig, {"n_layer": True}, "n_layer must be a whole number, got True"),
    (TrainConfig, {"n_layer": None}, "n_layer must be a whole number, got nothing"),
    (TrainConfig, {"n_layer": NAN}, "n_layer must be a whole number, got nan"),
    (TrainConfig, {"n_layer": 1e400}, "n_layer must be at most 8 layers, got inf"),
    (TrainConfig, {"seed": 1e30}, "seed must be at most 4294967295, got 1e+30"),
    (TrainConfig, {"seed": -1}, "seed must be at least 0, got -1"),
    (TrainConfig, {"learning_rate": NAN}, "learning_rate must be a number, got nan"),
    (TrainConfig, {"learning_rate": 0}, "learning_rate must be at least 1e-06, got 0"),
    (TrainConfig, {"dropout": 1.0}, "dropout must be at most 0.9, got 1"),
    (
        TrainConfig,
        {"width": 60, "n_head": 8},
        "width must be a multiple of the number of heads, got width 60 and 8 heads",
    ),
    (TrainConfig, {"width": 24, "n_head": 8}, "width / heads must be even for rotary positions, got 24 / 8"),
    (
        TrainConfig,
        {"corpus": "bible"},
        "corpus must be one of play, python, reader, play+python, tinyshakespeare, own, got 'bible'",
    ),
    (TrainConfig, {"corpus": 3}, "corpus must be text, got 3"),
    (TrainConfig, {"own_file": "a path"}, "own_file must be a file, got 'a path'"),
    (TrainConfig, {"own_text": "ab" * 3_000_000}, "own_text must be at most 5 MB, got 6 MB"),
    (ForkConfig, {"steps": 10, "fork_at": 10}, "fork_at must be less than steps, got 10 of 10 steps"),
    (ForkConfig, {"change": "heads", "heads": 5}, "heads must divide half the width, got 5 heads for width 64"),
    (GenerateConfig, {"top_p": 0}, "top_p must be at least 0.01, got 0"),
    (GenerateConfig, {"temperature": "x" * 100}, "temperature must be a number, got '" + "x" * 36 + "..."),
    (SomeConfig, {"on": "yes"}, "on must be true or false, got 'yes'"),
    (SomeConfig, {"on": 1}, "on must be true or false, got 1"),
]


@pytest.mark.parametrize(("config", "values", "sentence"), BAD, ids=[sentence[:60] for _, _, sentence in BAD])
def test_a_bad_value_gets_its_sentence(config, values, sentence, refusal):
    assert refusal(config, **values) == sentence


@pytest.mark.parametrize(
    ("number", "unit", "words"),
    [(1, "layer", "1 layer"), (8, "micro-batch", "8 micro-batches"), (2, "GPU", "2 GPUs"), (80, "GB", "80 GB"), (3, "ms", "3 ms"), (2, "s", "2 s"),
     (9, "TFLOP/s", "9 TFLOP/s"), (100000, "token", "100000 tokens"), (0.5, "", "0.5")],
)  # fmt: skip
def test_words_have_a_plural_and_symbols_have_none(number, unit, words):
    assert counted(number, unit) == words


def test_a_long_prompt_is_counted_in_characters(refusal):
    """0.002 MB is no unit for what someone types."""
    told = refusal(GenerateConfig, prompt="a" * 2500)
    assert "2000" in told.replace(",", "") and "MB" not in told


@dataclass(frozen=True)
class FollowingConfig(Config):
    model: str = setting("small", "Model", choices={"small": "a", "large": "b"}, sets={"large": {"steps": 5}})
    steps: int = setting(40, "Steps", low=1, high=100)
    seed: int = setting(0, "Seed", low=0, high=9)


@pytest.mark.parametrize(
    ("given_values", "steps"),
    [({}, 40), ({"model": "large"}, 5), ({"model": "large", "steps": 40}, 40), ({"seed": 3}, 40)],
)
def test_a_choice_brings_the_defaults_of_others(given_values, steps):
    config = config_of(FollowingConfig, given_values)
    assert config.steps == steps
    assert changed(config) == given_values
    assert config_of(FollowingConfig, changed(config)) == config
    assert following(FollowingConfig) == {"steps"}


def test_good_values_take_the_setting_s_type():
    config = SomeConfig(count=4.0, share=1)
    assert (config.count, type(config.count), type(config.share)) == (4, int, float)
    assert changed(config) == {"count": 4, "share": 1.0}
    with pytest.raises(AttributeError):
        config.count = 5


EVERY_SETTING = [(one, field) for topic in topics() for one in experiments(topic).values() for field in one.settings]
ANYTHING = st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.binary())


@given(where=st.sampled_from(EVERY_SETTING), value=ANYTHING)
@example(where=EVERY_SETTING[-2], value="a\nb" * 1000)
def test_any_value_is_taken_or_refused_in_one_sentence(where, value, refusal):
    one, field = where
    try:
        one.config_type(**{field.name: value})
    except ValueError:
        refusal(one.config_type, **{field.name: value})


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["huge", "minus huge"])
def test_a_number_beyond_all_floats_is_refused_in_one_sentence(value, refusal):
    assert refusal(TrainConfig, n_layer=value).startswith("n_layer must be at ")


# --- values typed in a link or a terminal -----------------------------------------------------------------------------

TYPED = [
    ("count", "4", 4),
    ("count", "4.0", 4.0),
    ("count", " +4 ", 4),
    ("share", "1e-3", 0.001),
    ("share", "1", 1.0),
    ("share", "0,5", 0.5),
    ("share", ",25", 0.25),
    ("share", "0,001", 0.001),
    ("share", "0.125", 0.125),
    ("on", "True", True),
    ("on", "no", False),
    ("on", "0", False),
    ("name", "4", "4"),
    ("name", "", ""),
]


@pytest.mark.parametrize(("name", "text", "value"), TYPED)
def test_values_from_text(name, text, value):
    assert value_from_text(some().setting(name), text) == value


MISTYPED = [
    ("count", "four", "count must be a whole number, got 'four'"),
    ("count", "", "count must be a whole number, got nothing"),
    ("share", "half", "share must be a number, got 'half'"),
    ("on", "maybe", "on must be true or false, got 'maybe'"),
    ("count", "1.000", "count must be a whole number: '1.000' could mean 1 or 1000, please write one of them"),
    ("count", "1,000", "count must be a whole number: '1,000' could mean 1 or 1000, please write one of them"),
    ("share", "1,000", "share must be a number: '1,000' could mean 1 or 1000, please write one of them"),
    ("share", "1.000.000", "share must be a number: '1.000.000' could mean 1 or 1000000, please write one of them"),
    ("share", "1,2,3", "share must be a number, got '1,2,3'"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), MISTYPED)
def test_bad_text_gets_its_sentence(name, text, sentence, refusal):
    assert refusal(value_from_text, some().setting(name), text) == sentence


@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_a_number_of_many_digits_is_refused_in_one_sentence(digits, refusal):
    field = find("nanogpt", "train").setting("seed")
    assert refusal(lambda: TrainConfig(seed=value_from_text(field, "9" * digits))).startswith(
        "seed must be at most 4294967295, got "
    )


@given(value=st.integers(0, 2**32 - 1))
def test_whole_numbers_come_back_from_text(value):
    assert value_from_text(find("nanogpt", "train").setting("seed"), str(value)) == value


# --- the registry -----------------------------------------------------------------------------------------------------


def test_a_topic_names_its_experiments_in_its_order():
    assert "nanogpt" in topics() and not {"foundations", "__main__"} & set(topics())
    assert list(experiments("nanogpt")) == ["inside", "train", "tokens", "generate", "decode", "fork"]
    one = find("nanogpt", "train")
    assert (one.key, one.config_type) == ("nanogpt_train", TrainConfig)


def test_unknown_names_are_refused_and_the_known_ones_told(refusal):
    assert refusal(experiments, "cooking") == f"topic must be one of {', '.join(topics())}, got 'cooking'"
    known = "inside, train, tokens, generate, decode, fork"
    assert refusal(find, "nanogpt", "bake") == f"experiment must be one of {known}, got 'bake'"


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.fixture
def report_of(monkeypatch):
    """report_of(step, ...) -> the report of an experiment with one takeaway."""
    card = Card("thing", "Do a thing", "start", 1, "a thing", (lambda run: f"The loss is {run[THEORY].measured}.",))
    monkeypatch.setattr(lesson, "lesson_of", lambda topic: Lesson("Does it?", "", "", (card,), ()))

    def report(*steps):
        one = some(*steps)
        return drain(one.run(None), Recorder(one, SomeConfig())).report()

    return report


def test_the_report_keeps_the_last_step_and_the_newest_figures(report_of):
    old, new = (THEORY(measured, 1.0) for measured in (3.0, 2.0))
    report = report_of(
        SomeStep(3.0, figures=(old,), files={"a": b"1"}),
        SomeStep(2.0, pairs=(("a", 0.5),), picture=object(), figures=(new,), doing="done"),
    )
    assert report["steps"] == 2
    assert report["last"] == {"loss": 2.0, "pairs": (("a", 0.5),)}
    assert [figure["gap"] for figure in report["figures"]] == [1.0]
    assert report["takeaways"] == ["The loss is 2.0."]
    assert report["config"] == {"count": 3, "share": 0.5, "on": True, "name": "x"}


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")], ids=str)
def test_the_report_is_json_whatever_the_numbers(bad, report_of):
    report = report_of(SomeStep(bad, pairs=(("a", bad), ("b", 0.5)), picture=object(), figures=(THEORY(bad, 1.0),)))
    told = json.loads(json.dumps(report, allow_nan=False))
    assert told["last"] == {"loss": None, "pairs": [["a", None], ["b", 0.5]]}
    assert (told["figures"][0]["measured"], told["figures"][0]["gap"]) == (None, None)


def test_a_run_of_nothing_has_a_report_and_says_why_it_shows_nothing(report_of):
    report = report_of()
    assert report["last"] == {}
    assert report["takeaways"] == ["The run ended after 0 steps, before it had measured what this experiment is about."]


def test_half_a_character_is_refused_in_every_text(refusal):
    """JSON can carry a lone surrogate; a page that gets it back would wait for ever."""
    from core.nanogpt import GenerateConfig

    assert "half of a character" in refusal(GenerateConfig, prompt="ab\ud83dc")
