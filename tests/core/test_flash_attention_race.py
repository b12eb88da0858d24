"""The race: every way gives the same, peaks equal the formulas, what does not fit or takes too long is never
started.
"""

import importlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.flash_attention import RaceConfig, race
from core.flash_attention import ways as ways_module
from core.flash_attention.race import GROWTH, PAPER_MS, PEAK, README_MEMORY, TIME
from core.flash_attention.ways import WAYS, PeakBytes, Work, attend, inputs_of, longest, peak_bytes, ran
from core.foundations.figures import by_figure

race_module = importlib.import_module("core.flash_attention.race")  # the package has functions of the same names
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "flash_attention.json").read_text())


def figures_of(steps):
    return by_figure(result for step in steps for result in step.figures)


@pytest.mark.parametrize("causal", [False, True])
def test_every_way_gives_the_same_output_and_gradients(causal):
    work = Work(2, 150, 16, causal)
    here = [way for way in WAYS if ran(way, work)]
    assert {"naive", "math", "tiled"} <= set(here)
    outs, gradients = {}, {}
    for way in here:
        given = inputs_of(work, 0)
        outs[way] = attend(way, given.q, given.k, given.v, causal)
        if way != "tiled":
            gradients[way] = torch.autograd.grad(outs[way], (given.q, given.k, given.v), given.gradient)
    close = {"rtol": 1e-3, "atol": 1e-4} if outs["naive"].dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    for way in here:
        torch.testing.assert_close(outs[way], outs["naive"], **close)
    for mine in gradients.values():
        for a, b in zip(mine, gradients["naive"], strict=True):
            torch.testing.assert_close(a, b, **close)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has other backends")
def test_a_cpu_runs_its_own_flash_kernel_and_no_efficient_one():
    told = {way: ran(way, Work(2, 64, 32, True)) for way in (*WAYS, "free")}
    assert told["flash"] == told["free"] == "flash kernel for CPUs"
    assert told["math"] == told["naive"] == "separate operations: matmul, softmax, matmul"
    assert told["efficient"] is None and told["cudnn"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the math backend works in 32 bits")
@given(st.integers(1, 3), st.integers(32, 200), st.sampled_from([8, 16, 32]), st.booleans(), st.booleans())
def test_naive_s_peak_is_the_formula_to_the_byte_and_flash_holds_no_table(heads, length, width, causal, backward):
    work = Work(heads, length, width, causal)
    peaks = {}
    for way in ("naive", "flash"):
        given = inputs_of(work, 0)
        watch = PeakBytes(given.q, given.k, given.v, given.gradient)
        with watch:
            out = attend(way, given.q, given.k, given.v, causal)
            if backward:
                out.backward(given.gradient)
        peaks[way] = watch.peak
        del out
    if length >= width or not causal:
        assert peaks["naive"] == peak_bytes("naive", work, backward, 4)
    assert 0 <= peaks["flash"] - peak_bytes("flash", work, backward, 4) <= 2 * 4 * work.numbers


@pytest.mark.skipif(torch.cuda.is_available(), reason="counted for the CPU's kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_the_math_way_holds_32_bit_tables_also_for_16_bit_inputs(dtype, causal, monkeypatch):
    monkeypatch.setattr(ways_module, "number_type", lambda: dtype)
    work = Work(2, 512, 32, causal)
    given = inputs_of(work, 0)
    watch = PeakBytes(*vars(given).values())
    with watch:
        out = attend("math", given.q, given.k, given.v, causal)
    assert watch.peak == peak_bytes("math", work, False, dtype.itemsize)
    with watch:
        out.backward(given.gradient)
    assert watch.peak == peak_bytes("math", work, True, dtype.itemsize)


def test_out_of_memory_is_a_result_and_longer_texts_are_not_tried(monkeypatch):
    def tight(way, q, k, v, causal):
        if way == "naive" and q.shape[2] >= 256:
            raise torch.OutOfMemoryError
        return attend(way, q, k, v, causal)

    monkeypatch.setattr(race_module, "attend", tight)
    steps = list(race(RaceConfig(most_n=512, repeats=1, patience=2.0)))
    assert sum("out of memory" in step.doing for step in steps) == 1
    assert [(n, why) for way, n, why, _ in steps[-1].left if way == "naive"] == [(256, "memory"), (512, "memory")]
    assert {n for way, n, *_ in steps[-1].results if way == "naive"} == {128}


def test_views_share_and_the_freed_are_gone():
    watch = PeakBytes()
    with watch:
        a = torch.zeros(100)
        b = a.view(10, 10).t()
        assert watch.now == 400
        del a, b
        assert watch.now == 0
        torch.zeros(50)
    assert watch.peak == 400


@given(st.sampled_from(["naive", "math", "flash", "tiled"]), st.integers(1, 8), st.floats(1e6, 1e11))
def test_the_longest_text_is_the_longest_that_fits(way, heads, nbytes):
    work = Work(heads, 1, 32, True)
    length = longest(way, work, nbytes, 4)
    assert (
        peak_bytes(way, Work(heads, length, 32, True), True, 4)
        <= nbytes
        < peak_bytes(way, Work(heads, length + 1, 32, True), True, 4)
    )


def test_what_does_not_fit_is_refused_before_it_is_tried(monkeypatch, refusal):
    monkeypatch.setattr(race_module, "free_bytes", lambda: 2e6)
    monkeypatch.setattr(race_module, "attend", lambda *given: pytest.fail("it was tried"))
    told = refusal(lambda: next(race(RaceConfig(runners="naive", most_n=65_536))))
    assert told.startswith(
        "naive attention over 65,536 tokens needs 107.5 GB of memory, and 0.0 GB are free here: most_n may be at most 2"
    )
    assert refusal(lambda: next(race(RaceConfig(most_n=65_536)))).startswith(
        "SDPA flash attention over 65,536 tokens needs 0.1 GB of memory"
    )


def test_where_only_naive_does_not_fit_it_is_marked_and_never_run(monkeypatch):
    monkeypatch.setattr(race_module, "free_bytes", lambda: 1.5e6)
    tried, real = [], race_module.attend
    monkeypatch.setattr(
        race_module, "attend", lambda way, q, *rest: tried.append((way, q.shape[2])) or real(way, q, *rest)
    )
    *_, last = race(RaceConfig(most_n=512, repeats=1, patience=2.0))
    assert {length for way, length, why, need in last.left if way == "naive" and why == "memory" and need > 1.5e6} == {
        256,
        512,
    }
    assert 128 <= last.limit < 256
    assert {length for way, length in tried if way == "naive"} == {128} and ("flash", 512) in tried


def test_who_would_be_too_slow_stays_out(monkeypatch):
    monkeypatch.setattr(race_module, "timed", lambda work: work() or 0.01)
    *_, last = race(RaceConfig(most_n=1024, repeats=1, patience=0.05, runners="naive"))
    assert last.left == () and [n for _, n, *_ in last.results] == [128, 256, 512, 1024]
    monkeypatch.setattr(race_module, "timed", lambda work: work() or 0.02)
    *_, last = race(RaceConfig(most_n=1024, repeats=1, patience=0.05, runners="naive"))
    assert [length for _, length, why, _ in last.left if why == "time"] == [256, 512, 1024]
    assert [n for way, n, *_ in last.results] == [128]


def test_a_runner_this_device_lacks_gets_one_sentence(monkeypatch, refusal):
    monkeypatch.setattr(race_module, "ran", lambda way, work: None)
    told = refusal(lambda: next(race(RaceConfig(runners="efficient"))))
    assert told == "SDPA memory-efficient attention cannot be had on this device: choose another runner"


def test_the_figures_of_the_race_say_what_grew():
    steps = list(race(RaceConfig(most_n=512, repeats=1, patience=2.0)))
    figures = figures_of(steps)
    assert figures[PEAK.of(way="naive")].gap == 0 or torch.cuda.is_available()
    growth = figures[GROWTH.of(way="naive attention")]
    assert growth.measured > 3 and growth.expected == 4
    if not torch.cuda.is_available():
        time = figures[TIME.of(way="naive")]
        assert 0 < time.expected < time.measured  # no faster than this machine's floor
    first = steps[0]
    assert (
        not first.results
        and first.limit > 1000
        and len(first.peaks[0][1]) == len(first.lengths) == len(first.floors[0])
    )


def test_the_published_numbers_are_those_shown():
    told = GOLDEN["figure_2_gpt2_medium_a100"]
    assert told["milliseconds"] == PAPER_MS
    assert {int(length): times for length, times in GOLDEN["readme_memory_saved"].items()} == README_MEMORY
    moved, work = told["gigabytes_moved"], told["tokens"] ** 2 * told["heads"] * told["batch"] * 2 / 1e9
    assert 10 < moved["naive"] / work < 30  # forward and backward move a table in 16 bits about 19 times
