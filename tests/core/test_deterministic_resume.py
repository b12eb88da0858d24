"""Stop at k and resume == never stopped, bit for bit; files that are whole or not there; formulas against simulations.

The kills are real.
"""

import errno
import itertools
import json
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.deterministic_resume import (
    ChaosConfig,
    IntervalConfig,
    ReshardConfig,
    UnplugConfig,
    chaos,
    interval,
    reshard,
    unplug,
)
from core.deterministic_resume import checkpoint as disk
from core.deterministic_resume.chaos import RESULTS_FIXED, one_by_one, ordered
from core.deterministic_resume.interval import (
    BEST_DALY,
    BEST_YOUNG,
    LLAMA_FAILURES,
    LOST_BEST,
    daly_interval,
    daly_waste,
    scene,
    simulate,
    young_interval,
    young_waste,
)
from core.deterministic_resume.lesson import LESSON
from core.deterministic_resume.reshard import HELD, piece
from core.deterministic_resume.ribbon import Weaver, hash_of
from core.deterministic_resume.training import PARTS, Training
from core.deterministic_resume.unplug import (
    CHECKPOINT_BYTES,
    DIFFERING,
    DONE_TWICE,
    EQUAL_RESUMED,
    FIRST_DIFFERENCE,
    SIGNAL,
)
from core.foundations.corpus import Corpus
from core.foundations.experiment import experiments
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.ranks import NURSERY, Group, scratch
from core.foundations.recorder import Recorder, drain
from core.foundations.transformer import Shape

TEXT = "the quick brown fox jumps over the lazy dog. " * 12
QUICK = {"n_layer": 1, "width": 16, "context": 16, "batch": 2}
RESUMED = "resumed"


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def begin(dropout=0.2, steps=12):
    corpus = Corpus("test", TEXT, TEXT[:60], "".join(sorted(set(TEXT))))
    shape = Shape(len(corpus.symbols), 1, 2, 16, 8, dropout=dropout)
    return Training(corpus, shape, batch=3, steps=steps, learning_rate=0.02, seed=3)


def ran(run, config):
    recorder = Recorder(run.experiment, config)
    steps = []
    for step in run(config):
        recorder.add(step)
        steps.append(step)
    return recorder.figures, steps


def sample(step=4):
    """A checkpoint of a real run, by way of the steps it took."""
    training = begin()
    for _ in range(step):
        training.one_step()
    return training.checkpoint(step)


# --- a state, taken out and put back ---


@given(stop=st.integers(0, 11))
def test_stopped_anywhere_and_resumed_is_never_stopped(stop, tmp_path_factory):
    """Through a real file, into a process's fresh state."""
    straight, stopped = begin(), begin()
    losses = [straight.one_step() for _ in range(12)]
    for _ in range(stop):
        stopped.one_step()
    folder = tmp_path_factory.mktemp("run")
    if stop:
        disk.save(folder, stopped.checkpoint(stop))
        resumed = begin()
        resumed.restore(disk.load(folder, stop), tuple(PARTS))
    else:
        resumed = begin()
    assert [resumed.one_step() for _ in range(stop, 12)] == losses[stop:]
    assert hash_of(resumed.flat()) == hash_of(straight.flat())


@pytest.mark.parametrize("missing", PARTS)
def test_every_part_is_needed(missing):
    straight, resumed, saved = begin(), begin(), sample(4)
    for _ in range(6):
        straight.one_step()
    resumed.restore(saved, tuple(part for part in PARTS if part != missing))
    for _ in range(2):
        resumed.one_step()
    assert hash_of(resumed.flat()) != hash_of(straight.flat())


def test_without_dropout_the_generators_are_not_needed():
    straight, resumed = begin(dropout=0.0), begin(dropout=0.0)
    for step in range(6):
        straight.one_step()
        if step == 3:
            saved = straight.checkpoint(4)
            resumed.restore(
                disk.Checkpoint(4, {name: tensor.clone() for name, tensor in saved.tensors.items()}, saved.rest),
                ("weights", "optimizer", "schedule", "data"),
            )
    for _ in range(2):
        resumed.one_step()
    assert hash_of(resumed.flat()) == hash_of(straight.flat())


def test_the_data_goes_on_into_the_next_pass():
    training = begin()
    passes = len(training.inputs)
    seen = [row for _ in range(2 * passes // 3 + 1) for row in training.next_batch()[0].tolist()]
    assert sorted(seen[:passes]) == sorted(training.inputs.tolist()) == sorted(seen[passes : 2 * passes])
    assert seen[:passes] != seen[passes : 2 * passes]


# --- files ---


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = sample()
    nbytes = disk.save(tmp_path, saved)
    loaded, problems = disk.newest(tmp_path)
    assert (loaded.step, loaded.rest, problems) == (4, saved.rest, [])
    assert loaded.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], saved.tensors[name]) for name in saved.tensors)
    assert nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        disk.save(tmp_path, disk.Checkpoint(step, {"a": torch.ones(step)}, {}))
    assert disk.steps(tmp_path) == [4, 3]
    assert len(list(tmp_path.iterdir())) == 4


@given(data=st.data())
def test_a_flipped_bit_is_found_wherever_it_is(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2):
        disk.save(folder, disk.Checkpoint(step, {"a": torch.arange(50.0)}, {"data": step}))
    path = data.draw(st.sampled_from([disk.tensors_file(folder, 2), disk.rest_file(folder, 2)]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1 - (path.suffix == ".json")))  # JSON's last byte is the line break
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    loaded, problems = disk.newest(folder)
    assert (loaded.step, len(problems)) == (1, 1) and problems[0].startswith("The checkpoint of step 2 is ")


@given(share=st.floats(0, 0.999), which=st.booleans())
def test_a_file_cut_short_is_found(share, which, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2):
        disk.save(folder, disk.Checkpoint(step, {"a": torch.arange(50.0)}, {"data": step}))
    path = disk.tensors_file(folder, 2) if which else disk.rest_file(folder, 2)
    path.write_bytes(path.read_bytes()[: int(share * (path.stat().st_size - 1))])
    loaded, problems = disk.newest(folder)
    assert loaded.step == 1 and "is cut short" in problems[0]


def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path, refusal):
    assert refusal(disk.newest, tmp_path) == "There is no checkpoint to resume from"
    disk.save(tmp_path, disk.Checkpoint(7, {"a": torch.ones(9)}, {}))
    path = disk.tensors_file(tmp_path, 7)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    assert (
        refusal(disk.newest, tmp_path)
        == f"The checkpoint of step 7 is cut short: {len(content) - 4} of {len(content)} bytes are there, and there is"
        " no other to resume from"
    )
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its SHA-256 is " in refusal(disk.newest, tmp_path)
    path.unlink()
    assert "its tensors are missing" in refusal(disk.newest, tmp_path)


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_the_checkpoint_before(problem, tmp_path, monkeypatch, refusal):
    disk.save(tmp_path, disk.Checkpoint(1, {"a": torch.ones(9)}, {}))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr(os, "fsync", full)
    told = refusal(disk.save, tmp_path, disk.Checkpoint(2, {"a": torch.ones(9)}, {}))
    assert (
        told
        == "There is no room on the disk for the checkpoint of step 2 (0.00 MB); the checkpoints before it are kept"
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_problem_of_the_disk_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        disk.save(tmp_path, disk.Checkpoint(2, {"a": torch.ones(9)}, {}))
    assert list(tmp_path.iterdir()) == []


def save_slowly(rank, ranks, folder):
    """Save one checkpoint, and the next one only by half."""
    disk.save(folder, disk.Checkpoint(1, {"a": torch.ones(9)}, {"data": 1}))
    yield "saving"
    disk.save(folder, disk.Checkpoint(2, {"a": torch.zeros(9)}, {"data": 2}), halfway=lambda: time.sleep(60))


def test_killed_in_the_middle_of_a_save_the_last_good_one_loads():
    with scratch() as folder:
        with Group(save_slowly, 1, (folder,), folder=folder) as group:
            for said in group.listen():
                if said is None and disk.steps(folder) and not group.killed:  # the first one is whole
                    unfinished = [path for path in folder.glob("*.unfinished") if path.stat().st_size]
                    if unfinished:
                        group.kill(0)
        assert group.ended == {0: "was killed by SIGKILL"} and unfinished
        loaded, problems = disk.newest(folder)
        assert (loaded.step, loaded.rest, problems) == (1, {"data": 1}, []) and loaded.tensors["a"].sum() == 9


# --- unplug ---


def nothing_left():
    """No process, once the last one has had a moment to end, and no folder."""
    end = time.monotonic() + 5
    while (family := psutil.Process(NURSERY.process.pid).children(recursive=True)) and time.monotonic() < end:
        time.sleep(0.01)
    return not family and not list(Path(tempfile.gettempdir()).glob("ranks-*"))


def test_a_killed_run_goes_on_bit_for_bit():
    figures, steps = ran(unplug, UnplugConfig(**QUICK, last_step=14, kill_at=10, every=4))
    rows = dict(steps[-1].ribbon.rows)
    assert [cell.step for cell in rows["killed"]] == list(range(11)) and all(cell.equal for cell in rows["killed"])
    assert [cell.step for cell in rows[RESUMED]] == list(range(8, 15)) and all(cell.equal for cell in rows[RESUMED])
    assert [cell.hash for cell in rows[RESUMED]] == [cell.hash for cell in rows["never stopped"][8:]]
    for part in ("optimizer", "schedule", "random state", "position in data"):
        assert [cell.equal for cell in rows[f"without {part}"]] == [True] + [False] * 6
    assert not any(cell.equal for cell in rows["without weights"])
    assert figures[SIGNAL].measured == 9
    assert figures[DONE_TWICE].gap == 0 and figures[DONE_TWICE].measured == 2
    assert 0 < figures[CHECKPOINT_BYTES].gap < 4000  # names and places of the tensors
    assert nothing_left()


@pytest.mark.parametrize(
    ("accident", "words", "twice"),
    [
        ("saving", "Killed in the middle of saving step 8", 4),
        ("bit", "The checkpoint of step 8 is damaged: its SHA-256 is ", 5),
        ("cut", "The checkpoint of step 8 is cut short: ", 5),
        ("full", "There is no room on the disk for the checkpoint of step 8 ", 5),
    ],
)
def test_after_an_accident_the_checkpoint_before_is_used(accident, words, twice):
    figures, steps = ran(
        unplug, UnplugConfig(**QUICK, last_step=12, kill_at=9, every=4, accident=accident, one_out=False)
    )
    assert any(sentence.startswith(words) for sentence in steps[-1].news)
    assert steps[-1].resumed_at == 4 and figures[DONE_TWICE].measured == twice
    assert figures[EQUAL_RESUMED].measured == figures[EQUAL_RESUMED].expected > 0 == figures[DIFFERING].measured
    assert nothing_left()


def test_what_is_not_ticked_is_found_by_step_and_tensor():
    config = UnplugConfig(**QUICK, last_step=8, kill_at=5, every=4, data=False, one_out=False)
    figures, steps = ran(unplug, config)
    assert figures[FIRST_DIFFERENCE].measured == 5
    tensor = dict(steps[-1].ribbon.rows)[RESUMED][1].tensor
    assert tensor in figures[FIRST_DIFFERENCE].source and tensor in dict(config.begin().names())


def test_the_same_seed_gives_the_same_ribbon():
    def hashes():
        _, steps = ran(unplug, UnplugConfig(**QUICK, last_step=6, kill_at=4, every=3, rng=False, one_out=False))
        return [(row, cell.step, cell.hash, cell.loss) for row, cells in steps[-1].ribbon.rows for cell in cells]

    assert hashes() == hashes()


def test_closing_a_run_leaves_nothing():
    run = unplug(UnplugConfig(**QUICK, last_step=14, kill_at=10, every=4))
    for _ in range(12):
        next(run)
    run.close()
    assert nothing_left()


def test_a_resume_without_a_checkpoint_is_refused(refusal):
    assert (
        refusal(UnplugConfig, kill_at=5, every=8)
        == "There would be no checkpoint to resume from: the first is saved after step 8, and kill_at is 5"
    )
    assert (
        refusal(UnplugConfig, kill_at=15, every=8, accident="bit")
        == "The only checkpoint would be lost: with this accident kill_at must be at least 2 x 8, got 15"
    )
    assert refusal(UnplugConfig, kill_at=48) == "kill_at must be less than the 48 steps of the run, got 48"


def test_the_weaver_waits_for_the_first_run():
    weaver = Weaver((("a", 2), ("b", 3)), "first")
    early = np.arange(5, dtype=np.float32)
    assert weaver.add("second", 0, None, early) == []
    (row, cell), (other, late) = sorted(
        weaver.add("first", 0, None, early + np.float32([0, 0, 0, 0.5, 0])), reverse=True
    )
    assert (row, cell.equal, cell.distance, cell.differing, cell.tensor) == ("second", False, 0.5, 1, "b")
    assert (other, late.equal, late.tensor) == ("first", True, "")
    assert weaver.first_difference("first") is None and weaver.first_difference("second") == cell


def test_minus_zero_is_not_zero_by_hash():
    weaver = Weaver((("a", 1),), "first")
    weaver.add("first", 0, None, np.float32([0.0]))
    ((_, cell),) = weaver.add("second", 0, None, np.float32([-0.0]))
    assert (cell.equal, cell.distance, cell.differing) == (False, 0.0, 1)


# --- chaos ---


def test_the_order_of_a_sum_matters_in_float32():
    values = ChaosConfig(numbers="0.1 0.2; 0.3, 1e8 -1e8").values()
    assert [one_by_one(ordered(values, order))[0] for order in ("given", "backwards", "small first")] == [
        0.0,
        pytest.approx(0.6),
        0.0,
    ]
    assert values[::-1].tolist() == ordered(values, "backwards").tolist()


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("0,1 0,2 0,3", [0.1, 0.2, 0.3]),
        ("-0,5; 1,5e3; ,25", [-0.5, 1500.0, 0.25]),
        ("1, 2, 3", [1, 2, 3]),
        ("1,2,3", [1, 2, 3]),
        ("1.5,2.5 3", [1.5, 2.5, 3]),
    ],
)
def test_a_decimal_comma_is_a_decimal_point(typed, values):
    assert ChaosConfig(numbers=typed).values().tolist() == np.float32(values).tolist()


def test_the_usual_error_of_a_sum_is_what_its_roundings_add_up_to():
    """Over many sums, the root mean square of the errors is the formula's."""
    ratios = []
    for seed in range(200):
        values = np.random.default_rng(seed).standard_normal(500).astype(np.float32)
        total, usual, walk = one_by_one(values)
        ratios.append((total - float(values.astype(np.float64).sum())) / usual)
        assert (
            walk.places[0] == 1
            and walk.places[-1] == 500
            and walk.errors[-1] == pytest.approx(total - values.astype(np.float64).sum())
        )
    assert 0.8 < float(np.sqrt(np.mean(np.square(ratios)))) < 1.2


def test_two_runs_part_and_a_repetition_does_not():
    threads = torch.get_num_threads()
    figures, steps = ran(chaos, ChaosConfig(**QUICK, steps=30, repeats=3, count=100))
    told = [step for step in steps if step.repeated_distance is not None]
    assert [step.repeated_distance for step in told] == [0.0] * 31
    assert 0 < told[0].distance < 3e-8 < told[-1].distance
    assert (
        len({(trial.operation, trial.where, trial.fixed) for trial in steps[-1].trials}) == len(steps[-1].trials) >= 12
    )
    assert all(trial.different == 1 for trial in steps[-1].trials if trial.fixed or trial.where == "1 thread")
    assert figures[RESULTS_FIXED].gap == 0
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == (False, threads)


def test_without_a_nudge_nothing_parts():
    _, steps = ran(chaos, ChaosConfig(**QUICK, steps=5, repeats=2, count=10, nudge=0.0))
    assert {step.distance for step in steps if step.repeated_distance is not None} == {0.0}


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ("1 2 three", "numbers must be numbers with spaces between them, got 'three'"),
        ("1 2", "numbers must be at least 3, since two have only one order to be added in, got 2"),
        ("1 2 inf", "numbers must be finite, and their sizes add up to less than 3e38, as float32 ends there"),
        ("1 2 nan", "numbers must be finite, and their sizes add up to less than 3e38, as float32 ends there"),
        ("1 2e38 2e38", "numbers must be finite, and their sizes add up to less than 3e38, as float32 ends there"),
    ],
)
def test_numbers_that_cannot_be_added_are_refused(numbers, sentence, refusal):
    assert refusal(ChaosConfig, numbers=numbers) == sentence


# --- reshard ---


@given(rows=st.integers(1, 200), columns=st.integers(1, 5), ranks=st.sampled_from([1, 2, 4]))
def test_slices_are_those_of_chunk(rows, columns, ranks):
    parts = [part.numel() for part in torch.zeros(rows, columns).chunk(ranks)]
    assert [piece((rows, columns), rank, ranks) for rank in range(ranks)] == parts + [0] * (ranks - len(parts))


def test_another_number_of_ranks_loads_the_same_bits():
    figures, steps = ran(reshard, ReshardConfig(before=2, steps=3, width=16, n_layer=1, context=16, quarters=1))
    rows = dict(steps[-1].ribbon.rows)
    assert [cell.step for cell in rows["2 ranks, never stopped"]] == list(range(6))
    assert all(cell.equal for cell in rows["loaded on 2 ranks"]) and len(rows["loaded on 2 ranks"]) == 4
    for row in ("loaded on 4 ranks", "loaded on 1 rank"):
        assert rows[row][0].equal and not rows[row][-1].equal
        assert 0 < rows[row][-1].distance < 1e-2
    assert figures[HELD].gap == 0
    assert nothing_left()


# --- interval ---


def test_golden_intervals():
    assert young_interval(60, 3 * 3600) == pytest.approx(1138.4, abs=0.1)
    assert daly_interval(60, 3 * 3600) == pytest.approx(1098.8, abs=0.1)
    assert daly_interval(200, 100) == 100
    assert IntervalConfig().mean_gap / 3600 == pytest.approx(54 * 24 / 419, rel=1e-3)


@given(save=st.floats(1, 400), gap=st.floats(3600, 36_000))
def test_daly_s_interval_is_the_best_of_daly_s_formula(save, gap):
    """To 0.1 % of the loss it is the bottom, and Young's formula is what Daly's becomes for rare failures."""
    best = min(daly_waste(daly_interval(save, gap) * factor, save, gap, 0.0) for factor in np.linspace(0.8, 1.25, 46))
    assert daly_waste(daly_interval(save, gap), save, gap, 0.0) <= best * 1.001
    assert young_waste(100.0, 1.0, 1e9, 0.0) == pytest.approx(daly_waste(100.0, 1.0, 1e9, 0.0), rel=1e-3)


def by_hand(work, interval, save, restart, gaps):
    """The same run, second thoughts none: one event after the other."""
    saved, clock, failures, ready = 0, 0.0, 0, 0.0
    for gap in gaps:
        fails = clock + gap
        now = ready
        while now + interval + save <= fails:
            now, saved = now + interval + save, saved + 1
            if saved * interval >= work:
                return now, failures
        clock, failures, ready = fails, failures + 1, fails + restart
    raise AssertionError("too few gaps")


@given(seed=st.integers(0, 10**6), interval=st.floats(5, 60), save=st.floats(0.5, 10), restart=st.floats(0, 20))
def test_the_simulation_is_what_one_event_after_the_other_gives(seed, interval, save, restart):
    gaps = np.random.default_rng(seed).exponential(80.0, 4000)
    split = simulate(500.0, interval, save, restart, gaps)
    total, failures = by_hand(500.0, interval, save, restart, gaps)
    assert split.failures == failures
    assert split.work + split.saving + split.lost + split.restarting == pytest.approx(total, rel=1e-9)


def test_the_simulation_meets_daly_s_formula():
    wastes = [
        simulate(2e6, 1100.0, 60.0, 300.0, np.random.default_rng(seed).exponential(10_800.0, 4000)).wasted
        for seed in range(60)
    ]
    assert np.mean(wastes) == pytest.approx(
        daly_waste(1100.0, 60.0, 10_800.0, 300.0), abs=4 * np.std(wastes) / math.sqrt(len(wastes))
    )


@given(seed=st.integers(0, 1000))
def test_the_film_has_no_gaps(seed):
    parts = scene("", 20.0, 2.0, 5.0, np.random.default_rng(seed).exponential(60.0, 200), 600.0).parts
    assert parts[0][1] == 0 and parts[-1][2] == pytest.approx(600 / 3600)
    assert all(one[2] == pytest.approx(next_[1]) for one, next_ in itertools.pairwise(parts))


def test_the_best_interval_is_found_by_simulation():
    figures, steps = ran(interval, IntervalConfig(save_seconds=60.0, failures=8.0, repeats=20))
    assert figures[BEST_YOUNG].expected == pytest.approx(1138.4, abs=0.1)
    assert abs(figures[BEST_DALY].gap) < 150
    assert abs(figures[LOST_BEST].gap) < 0.5
    assert [dots for _, *dots in steps[-1].dots] == [
        dots for _, *dots in ran(interval, IntervalConfig(save_seconds=60.0, failures=8.0, repeats=20))[1][-1].dots
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"failures": 1000.0, "days": 50.0}, "failures x days must be at most 10,000, got 1000 x 50"),
        (
            {"save_seconds": 1e6},
            (
                "This job would hardly ever get from one save to the next: a save takes 1,000,000 s, a restart 300 s,"
                " and a failure comes every 11,134 s"
            ),
        ),
        (
            {"failures": 0.01, "days": 0.1, "save_seconds": 60.0},
            "The best interval, 32,199 s, is longer than the job, 8,640 s: save once, at the end",
        ),
    ],
)
def test_hopeless_jobs_are_refused(settings, words, refusal):
    assert refusal(lambda: list(interval(IntervalConfig(**settings)))) == words


# --- the lesson ---

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
RIGHT = (
    "with other bits and nearly the same loss",
    "the same bits, and more steps done twice",
    "more, but less than saving a quarter as often",
    "far: they are different models",
    "only after it",
)


@pytest.mark.slow
@pytest.mark.parametrize(("ask", "answer"), zip(ASKS, RIGHT, strict=True), ids=lambda part: str(part)[:30])
def test_the_questions_are_decided_by_their_runs(ask, answer):
    one = experiments("deterministic_resume")[ask.experiment]
    config = one.config_type(**ask.settings)
    index, because = verdict(ask, drain(one.run(config), Recorder(one, config)).outcome)
    assert ask.answers[index] == answer
    assert because.endswith(".") and "\n" not in because


def test_what_was_seen_follows_the_numbers():
    def said(run, config):
        return takeaways(run.experiment, drain(run(config), Recorder(run.experiment, config)).outcome)

    short = {"last_step": 8, "kill_at": 5, "every": 4, "one_out": False}
    assert said(unplug, UnplugConfig(**QUICK, **short))[0].endswith("the resumed run is the same run.")
    forgotten = said(unplug, UnplugConfig(**QUICK, **short, data=False))
    assert "after step 5:" in forgotten[0] and forgotten[1].startswith("The last loss is")
    assert forgotten[2].startswith("1 steps were done twice")
    rarely = said(interval, IntervalConfig(save_seconds=60.0, failures=8.0, repeats=10))[1]
    assert rarely.endswith("saving too rarely costs more.")


def test_llama_s_failures_are_the_unexpected_ones():
    """Llama 3, table 5: 419 unexpected interruptions in 54 days; 47 more were planned."""
    assert LLAMA_FAILURES == 466 - 47
    assert IntervalConfig().failures == 7.76 and IntervalConfig().billions == 405


def test_the_report_of_a_run_is_json():
    config = UnplugConfig(**QUICK, last_step=6, kill_at=4, every=3, one_out=False)
    json.dumps(drain(unplug(config), Recorder(unplug.experiment, config)).report(), allow_nan=False)
    assert not list(Path().glob("step-*"))
