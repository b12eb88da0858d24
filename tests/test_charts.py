"""The chart vocabulary: what is sent to the browser is small, whole and JSON."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages._kit.charts import (
    MOST_POINTS,
    Sketch,
    axis,
    bars,
    chart,
    columns,
    curve,
    dots,
    heat,
    numbers,
    ranking,
    rounded,
    spikes,
)

NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20)


@given(NUMBERS)
def test_no_trace_breaks_json(numbers):
    xs = list(range(len(numbers)))
    traces = [
        dots(xs, numbers, "a", "a", errors=numbers),
        columns(xs, numbers, "b", "b"),
        curve(xs, numbers, "c", "c", filled=True),
    ]
    json.dumps(traces + bars([str(x) for x in xs], numbers), allow_nan=False)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e299, max_value=1e299))
def test_rounding_keeps_five_digits(value):
    assert rounded(value) == pytest.approx(value, rel=1e-4)
    assert rounded(math.nan) is None and rounded(math.inf) is None


def test_a_heat_map_keeps_its_range():
    values = np.array([[[[-2.0, 0.0, 2.0]]]])
    told = heat(values, ["map"], low=-2.0, high=2.0)
    assert list(base64.b64decode(told["bytes"])) == [0, 127, 255] and (told["low"], told["high"]) == (-2.0, 2.0)
    assert "low" not in heat(values, ["map"])


def test_spikes_are_separate_upright_lines():
    told = spikes([1.0, 2.0], 5.0, "levels", "c")
    assert told["x"] == [1.0, 1.0, None, 2.0, 2.0, None] and told["y"] == [0.0, 5.0, None] * 2


def test_axes_always_tell_their_unit():
    flat, across = (
        chart(axis("rank", "count"), axis("loss", "nats"), log_x=True),
        ranking(axis("reward", "points"), axis("word", "name")),
    )
    assert (
        flat["xaxis"]["title"]["text"] == "rank (count)"
        and flat["xaxis"]["type"] == "log"
        and "type" not in flat["yaxis"]
    )
    assert across["xaxis"]["title"]["text"] == "reward (points)" and across["yaxis"]["autorange"] == "reversed"


def test_a_sketch_sends_what_is_new_and_at_the_end_all():
    sketch = Sketch()
    for x in range(3000):
        sketch.point("loss", "a", x, float(x))
    first = sketch.take()
    assert len(first[0][1]["add"]["a"][0]) == 3000 and sketch.take() == []
    sketch.show("map", {"one": 1})
    whole = dict(sketch.take_whole())
    assert (
        whole["map"] == {"shown": {"one": 1}}
        and len(whole["loss"]["add"]["a"][0]) == MOST_POINTS
        and whole["loss"]["add"]["a"][0][-1] == 2999
    )


def test_a_film_replaces_all_frames():
    sketch = Sketch()
    sketch.frame("player", "old", view=1)
    sketch.film("player", [("0 ms", {"view": {"at": 0}}), ("1 ms", {"view": {"at": 1}})])
    ((panel, told),) = sketch.take()
    assert (panel, told["whole"]) == ("player", True)
    assert told["frames"] == [{"label": "0 ms", "view": {"at": 0}}, {"label": "1 ms", "view": {"at": 1}}]


@pytest.mark.parametrize("coarse", [False, True])
def test_numbers_come_back_within_half_a_step(coarse):
    values = np.array([[0.0, -3.0, 1.234], [2.9, 1e-4, -0.5]])
    told = numbers(values, coarse=coarse)
    kept = np.frombuffer(base64.b64decode(told["bytes"]), "i1" if coarse else "<i2").reshape(told["shape"])
    assert abs(kept * told["most"] / told["steps"] - values).max() <= told["most"] / told["steps"] / 2 + 1e-9
    assert numbers(np.zeros((2, 2)))["most"] == 1.0  # nothing to divide by
