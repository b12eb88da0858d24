"""ZeRO: every stage == plain data parallelism bit for bit, bytes and volume against the paper, what dies with a rank, a
thousand imagined ranks.
"""

import json
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh

from core.foundations.figures import Outcome
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.ranks import Group, RankLost
from core.foundations.recorder import Recorder, drain
from core.foundations.transformer import Shape, Transformer
from core.zero import LoseConfig, ScaleConfig, ShardsConfig, lose, scale, shards
from core.zero.count import BIG, COUNTED, imagined, kept
from core.zero.formulas import FULL, MIXED, STAGES, VOLUME, gigabytes, parts, per_weight, words
from core.zero.holders import DEAD, RANKS, WAYS, chunk, dealt, grid, lost_share, planned
from core.zero.lesson import LESSON
from core.zero.lose import CUT_TENSORS, LOSS_CHECKPOINT, LOST_MOMENTS, LOST_THREE, LOST_WEIGHTS
from core.zero.scale import FULLEST
from core.zero.shards import HELD_THREE, HELD_TWO, LIBRARY, PAPER, WRITTEN, job
from core.zero.state import Piece, together

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "zero.json").read_text())
QUICK = {"n_layer": 2, "width": 16, "context": 16}


@pytest.fixture(autouse=True, scope="module")
def own_temporary_folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    yield Path(tempfile.gettempdir())
    patch.undo()


def ran(run, config):
    """The figures and all Steps of a run."""
    recorder, steps = Recorder(run.experiment, config), []
    drain((steps.append(step) or step for step in run(config)), recorder)
    return recorder.figures, steps


@pytest.fixture(scope="module")
def four():
    """Four real ranks; the weights' numbers cannot all be cut into four equal parts of rows."""
    return ran(shards, ShardsConfig(**QUICK))


@pytest.fixture(scope="module")
def two():
    return ran(shards, ShardsConfig(ranks=2, windows=4, **QUICK))


@pytest.fixture(scope="module")
def lost():
    return ran(lose, LoseConfig(before=30, since=2, steps=4, **QUICK))


@pytest.fixture(scope="module")
def scaled():
    return ran(scale, ScaleConfig(ranks=1024, n_layer=1, width=64, context=16))


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("billions", "ranks", "sizes"), GOLDEN["gigabytes_mixed"])
def test_golden_gigabytes(billions, ranks, sizes):
    assert [gigabytes(billions * 1e9, stage, ranks) for stage in STAGES] == pytest.approx(sizes, rel=1e-12)


def test_golden_figure_1():
    assert [round(gigabytes(7.5e9, stage, 64), 1) for stage in STAGES] == GOLDEN["figure_1_printed"]
    assert [per_weight(stage, 4) for stage in STAGES] == GOLDEN["per_weight_32_bits_4_ranks"]
    assert list(VOLUME) == GOLDEN["volume"]


def test_formulas_in_words():
    assert [words(stage, MIXED) for stage in STAGES] == ["16P", "4P + 12P/N", "2P + 14P/N", "16P/N"]
    assert [words(stage) for stage in STAGES] == ["16P", "8P + 8P/N", "4P + 12P/N", "16P/N"]


@given(ranks=st.integers(1, 4096), kinds=st.sampled_from([FULL, MIXED]))
def test_each_stage_holds_less_and_one_rank_holds_all(ranks, kinds):
    sizes = [per_weight(stage, ranks, kinds) for stage in STAGES]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 16
    assert sizes[3] * ranks == pytest.approx(16)
    assert parts(3, 1, kinds) == kinds


# --- shards: the equivalence ------------------------------------------------------------------------------------------


def test_all_stages_compute_the_same_bits_where_sums_have_one_order(four, two):
    """PyTorch's four and the four written out, all with the hash of plain data parallelism."""
    for _, steps in (four, two):
        runs = [one for one in steps[-1].trained if one.in_order]
        assert {(one.code, one.stage) for one in runs} == {
            (code, stage) for code in (LIBRARY, WRITTEN) for stage in STAGES
        }
        assert len({one.hash for one in runs}) == 1 and all(one.differing == 0 for one in runs)


def test_two_ranks_need_no_order(two):
    """a + b is b + a: on two ranks the library's own sums give the same bits at every stage."""
    _, steps = two
    assert len({one.hash for one in steps[-1].trained if not one.in_order}) == 1


def test_four_ranks_differ_in_the_last_bits(four):
    _, steps = four
    assert 0 < max(one.distance for one in steps[-1].trained if not one.in_order) < 1e-4


def test_the_written_stages_hold_what_the_formula_says(four):
    """To the byte, but for rows that end in a few zeros and AdamW's count of steps."""
    _, steps = four
    weights, seen = steps[-1].weights, 0
    for code, kinds in ((WRITTEN, FULL), (PAPER, MIXED)):
        for name, stage, everyone in steps[-1].held:
            if name == code:
                seen += 1
                for nbytes in everyone:
                    assert nbytes == everyone[0]
                    for found, part in zip(nbytes, parts(stage, 4, kinds), strict=True):
                        assert 0 <= found - part * weights <= 12 * 16 * steps[-1].units
    assert seen == 8


def test_what_pytorch_holds(four):
    """Stage 1 is uneven and adds up; stage 2 is not the paper's: after the backward pass its weights are slices
    again.
    """
    _, steps = four
    weights, held = steps[-1].weights, {stage: everyone for code, stage, everyone in steps[-1].held if code == LIBRARY}
    means = [optimizer for _, _, optimizer in held[1]]
    assert len(set(means)) > 1
    assert 8 * weights <= sum(means) <= 8 * weights + 4 * 100
    assert held[2] == held[3] and sum(nbytes[0] for nbytes in held[3]) >= 4 * weights
    assert all(nbytes[:2] == (4 * weights, 4 * weights) for stage in (0, 1) for nbytes in held[stage])


def test_what_is_sent(four):
    """The paper's 2P, 2P, 2P, 3P; PyTorch's stage 1 sends 3P, because it sums for everybody and then broadcasts every
    tensor.
    """
    _, steps = four
    sent = {
        (code, stage): ({kind: count for kind, count, _ in counted}, numbers)
        for code, stage, counted, numbers in steps[-1].sent
    }
    units = steps[-1].units
    for stage, volume in zip(STAGES, VOLUME, strict=True):
        assert sent[WRITTEN, stage][1] == pytest.approx(volume, rel=0.02)
        assert sent[LIBRARY, stage][1] == pytest.approx(3 if stage == 1 else volume, rel=0.02)
    assert sent[LIBRARY, 1][0]["broadcast"] == len(
        list(Transformer(Shape(9, 2, 2, 16, 16, dialect="gpt2")).parameters())
    )
    assert sent[LIBRARY, 2][0] == {"all-gather": units, "reduce-scatter": units}
    assert sent[LIBRARY, 3][0] == {"all-gather": 2 * units, "reduce-scatter": units} == sent[WRITTEN, 3][0]


def test_the_film_shows_units_gathered_and_freed(four):
    _, steps = four
    (films,) = [dict(step.films) for step in steps if step.films]
    assert len({len(frames) for frames in films.values()}) == 1
    for frame in films[3]:
        if frame.unit > 0 and frame.doing in ("forward", "backward"):
            assert frame.shares[frame.unit][0] == 1
        assert sum(share[0] == 1 for share in frame.shares[1:]) <= 1  # one layer at a time, and what is outside of them
        if frame.doing == "forward ends" and frame.unit:
            assert frame.shares[frame.unit][0] < 0.5
    turning = next(place for place, frame in enumerate(films[2]) if frame.doing == "backward")
    assert all(share[0] == 1 for share in films[2][turning].shares)
    for stage in (2, 3):
        assert all(share == (0.25, 0.0, 0.25) for share in films[stage][-1].shares[1:])
        assert [frame.sent for frame in films[stage]] == sorted(frame.sent for frame in films[stage])
    assert all(share[:2] == (1, 1) for frame in films[0] for share in frame.shares)


def test_the_same_seed_gives_the_same_bits(two):
    _, steps = two
    hashes = [one.hash for one in steps[-1].trained]
    assert [one.hash for one in ran(shards, ShardsConfig(ranks=2, windows=4, **QUICK))[1][-1].trained] == hashes
    assert ran(shards, ShardsConfig(ranks=2, windows=4, seed=1, **QUICK))[1][-1].trained[0].hash != hashes[0]


def test_a_killed_rank_ends_the_run_with_a_sentence(own_temporary_folder):
    with (
        pytest.raises(RankLost, match=r"^rank 2 of 4 was killed by SIGKILL, so the group was ended$"),
        Group(job, 4, (ShardsConfig(**QUICK),), gloo=True) as group,
    ):
        for said in group.listen():
            if said is not None:
                os.kill(group.pids[2], signal.SIGKILL)
    assert not list(own_temporary_folder.glob("ranks-*"))


# --- lose -------------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 200), columns=st.integers(1, 5), ranks=st.sampled_from([1, 2, 4, 7]))
def test_slices_are_those_of_chunk(rows, columns, ranks):
    sizes = [part.numel() for part in torch.zeros(rows, columns).chunk(ranks)]
    spans = [chunk((rows, columns), rank, ranks) for rank in range(ranks)]
    assert [stop - start for start, stop in spans] == sizes + [0] * (ranks - len(sizes))


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=30), ranks=st.integers(1, 8))
def test_dealing_out_is_fair_but_for_one_tensor(sizes, ranks):
    owner = dealt(sizes, ranks)
    loads = [sum(size for size, own in zip(sizes, owner, strict=True) if own == rank) for rank in range(ranks)]
    assert sum(loads) == sum(sizes) and max(loads) - min(loads) <= max(sizes)


@given(data=st.data())
def test_what_nobody_holds_is_dead(data):
    """Pieces put together: every number that a piece has is there, every other one is zero and counted."""
    sizes = tuple(
        (f"t{number}", size)
        for number, size in enumerate(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    )
    state = np.random.default_rng(0).normal(size=(3, sum(size for _, size in sizes))).astype(np.float32)
    pieces, alive, start = [], np.zeros(state.shape, bool), 0
    for name, size in sizes:
        for means in (False, True):
            low, high = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            rows = slice(1, 3) if means else slice(0, 1)
            pieces.append(Piece(name, means, low, high, state[rows, start + low : start + high]))
            alive[rows, start + low : start + high] = True
        start += size
    rest = together(sizes, 3, pieces)
    assert np.array_equal(np.stack([rest.state.weights, *rest.state.means]), np.where(alive, state, 0))
    assert (rest.weights_dead, rest.means_dead) == ((~alive[0]).sum(), (~alive[1]).sum())
    assert sum(high - low for *_, low, high in rest.dead) == rest.weights_dead + rest.means_dead


def test_what_dies_is_what_the_formula_says(lost):
    figures, _ = lost
    lost_percent = [result for result in figures.values() if result.unit == "%"]
    assert all(figures[LOST_WEIGHTS.of(way=way)].measured == 0 for way in WAYS if way != "stage 3")
    assert figures[LOST_THREE].measured == pytest.approx(25, abs=1)
    assert figures[LOST_MOMENTS.of(way="stage 2")].measured == pytest.approx(25, abs=2)
    assert len(lost_percent) == 5 + 3
    for result in lost_percent:
        assert result.gap == pytest.approx(0, abs=1 if "stage 2" in result.name else 1e-9)
    assert LOST_MOMENTS.of(way="stage 0") not in figures and LOST_MOMENTS.of(way="stage 3, twice") not in figures
    assert figures[CUT_TENSORS].gap == 0


def test_ranks_hold_what_was_planned(lost):
    """ZeroRedundancyOptimizer deals tensors out as `dealt` does, FSDP2 cuts rows as `chunk` does, twice on a mesh of 2
    x 2.
    """
    _, steps = lost
    first, last = steps[0], steps[-1]
    for way in WAYS:
        assert dict(last.weights)[way] == dict(first.weights)[way], way
        if way != "stage 2":
            assert [tuple(stop - start for start, stop in spans) for _, spans in dict(last.means)[way]] == [
                tuple(stop - start for start, stop in spans) for _, spans in dict(first.means)[way]
            ], way


def test_the_model_after_the_loss(lost):
    figures, steps = lost
    losses = dict(steps[-1].losses)
    assert losses["replica"] == pytest.approx(losses["nothing lost"], abs=1e-6)  # a mesh of 2 x 2 adds in two rounds
    for way in ("stage 1", "stage 2"):
        assert losses[way][0] == pytest.approx(losses["nothing lost"][0], abs=1e-5)
        assert losses[way][-1] != losses["nothing lost"][-1]
    assert losses["stage 3"][0] > losses["nothing lost"][0] + 0.05
    assert figures[LOSS_CHECKPOINT].measured != losses["nothing lost"][0]
    assert steps[-1].gone == 2 and any("noticed" in step.doing and "closed" in step.doing for step in steps)


def test_the_grid_marks_the_dead(lost):
    _, steps = lost
    before, *_, after = [step.grid for step in steps if step.grid is not None]
    assert not (before == DEAD).any()
    dead = (after == DEAD).any(axis=(2, 3))
    assert dead.tolist() == [[False, False, False, True, False], [False, True, True, True, False]]


@given(lost=st.integers(0, RANKS - 1), rows=st.integers(1, 40))
def test_a_copy_elsewhere_loses_nothing(lost, rows):
    tensors = (("one", (rows, 3)), ("two", (8, 2)))
    weights, means = (dict(kind) for kind in planned(tensors))
    assert (
        lost_share(weights["stage 3, twice"], lost)
        == lost_share(weights["stage 0"], lost)
        == lost_share(means["stage 0"], lost)
        == 0
    )
    assert sum(lost_share(weights["stage 3"], rank) for rank in range(RANKS)) == rows * 3 + 16
    assert grid(tensors, tuple(weights.items()), tuple(means.items()), None).shape[:3] == (2, len(WAYS), 2)


# --- scale ------------------------------------------------------------------------------------------------------------


def test_real_and_imagined_ranks_lie_on_the_lines(scaled):
    """Rows of a small model cannot always be cut evenly: that is the one per cent."""
    _, steps = scaled
    last = steps[-1]
    assert {ranks for _, ranks, _ in last.measured} == {1, 2, 4} and {ranks for _, ranks, _ in last.counted} == {
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        1024,
    }
    for stage, ranks, size in (*last.measured, *last.counted):
        assert size == pytest.approx(gigabytes(7.5e9, stage, ranks), rel=0.01)


def test_fsdp2_counted_is_the_formula_and_more(scaled):
    figures, steps = scaled
    after, peak = dict(steps[-1].now.after), dict(steps[-1].now.peak)
    assert steps[-1].now.ranks == 1024 and sum(list(after.values())[:3]) >= 16 * steps[-1].now.weights / 1024
    assert after["gathered weights"] == after["buffers of reduce-scatter"] == 0 and sum(peak.values()) > sum(
        after.values()
    )
    assert figures[FULLEST].measured == pytest.approx(8 * 54_272 * 4096 / GOLDEN["counted_7_5_billion"]["weights"])


def test_the_counts_that_are_kept():
    """They are of this model, all of them, and FSDP2's slices are 16P/N to the byte but for AdamW's counts of steps."""
    counts = {(one.stage, one.ranks): one for one in kept()}
    golden = GOLDEN["counted_7_5_billion"]
    assert set(counts) == set(COUNTED)
    assert (
        BIG.matrix_parameters + (2 * BIG.vocabulary + BIG.context + 2 * BIG.n_layer + 1) * BIG.width
        == golden["weights"]
    )
    for (stage, ranks), one in counts.items():
        assert (one.weights, one.layer_weights) == (golden["weights"], golden["layer_weights"])
        assert 0 <= sum(size for _, size in one.after[:3]) - 16 * one.weights / ranks < 4 * 400
        if stage == 3:
            assert dict(one.peak)["buffers of all-gather"] == 2 * one.layer_weights == golden["all_gather_buffer"]
            assert (
                dict(one.peak)["buffers of reduce-scatter"] == 4 * one.layer_weights == golden["reduce_scatter_buffer"]
            )
    big = counts[3, 1024]
    assert sum(size for _, size in big.after[:3]) == pytest.approx(golden["states_1024_bytes"], abs=4 * 400)
    assert sum(size for _, size in counts[2, 1024].peak) > sum(size for _, size in big.peak)


def test_fake_tensors_need_a_model_without_skip_init():
    """Fails when torch has fixed it: then `count.bare` can go."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match="swap"):
        Transformer(Shape(9, 1, 2, 16, 8))


def test_a_mesh_cannot_be_made_under_fake_tensors():
    """Fails when torch has fixed it: then `count.count` need not make its mesh outside."""
    with imagined(4), FakeTensorMode(), pytest.raises(DataDependentOutputException):
        init_device_mesh("cpu", (4,))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_bad_settings_get_a_sentence(refusal):
    assert (
        refusal(ShardsConfig, windows=6)
        == "windows must be a multiple of ranks, so that every rank gets as many, got 6 windows and 4 ranks"
    )
    assert refusal(ShardsConfig, ranks=5) == "ranks must be at most 4 ranks, got 5"
    assert refusal(ShardsConfig, width=33).startswith("width must be a multiple of the number of heads")
    assert refusal(LoseConfig, lost=4) == "lost must be at most 3, got 4"
    assert refusal(ScaleConfig, ranks=1025) == "ranks must be at most 1024 ranks, got 1025"
    assert refusal(ScaleConfig, width=4097).startswith("width must be a multiple of the number of heads")
    assert refusal(ScaleConfig, card=1e9) == "card must be at most 1000, got 1e+09"


def test_a_batch_that_does_not_fit_the_ranks_of_torchrun(refusal):
    assert refusal(lambda: next(job(0, 3, ShardsConfig()))).endswith("got 8 windows and 3 ranks")


# --- the lesson -------------------------------------------------------------------------------------------------------


def test_the_questions_are_decided_by_the_runs(two, four, lost, scaled):
    asks = [step for step in LESSON.steps if isinstance(step, Ask)]
    runs = (two, four, four, lost, lost, scaled, scaled)
    right = (
        "about 8",
        "stage 3 and another one",
        "nearly: less than 0.001 apart",
        "a part of every layer",
        "the same",
        "about 30",
        "more than 10 times as large",
    )
    for ask, (figures, _), answer in zip(asks, runs, right, strict=True):
        index, because = verdict(ask, Outcome(figures, None, None))
        assert ask.answers[index] == answer, ask.text
        assert because.endswith(".") and "\n" not in because


def test_what_was_seen_follows_the_numbers(four, lost, scaled):
    def said(run, config, figures):
        return takeaways(run.experiment, Outcome(figures, config, None))

    held, price, same = said(shards, ShardsConfig(**QUICK), four[0])
    assert "held 16.0 bytes per weight" in held and "50 % more communication" in price
    assert same.startswith("Added in the order of the ranks, all stages gave the same weights bit for bit")
    damage, copies = said(lose, LoseConfig(), lost[0])
    assert "the model is damaged" in damage and "the kill changed nothing" in copies
    states, peak = said(scale, ScaleConfig(ranks=1024), scaled[0])
    assert "which fits into 80 GB" in states and "times its states" in peak


def test_stage_2_of_pytorch_is_not_called_a_miss_of_the_formula(four):
    figures, _ = four
    assert figures[HELD_TWO].expected is None and figures[HELD_TWO].measured < figures[HELD_THREE].measured + 0.5
