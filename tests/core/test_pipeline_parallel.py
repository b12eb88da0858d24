"""Orders == torch's own; simulation == the published makespans; pipelines on real ranks == one device, for every
schedule.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.experiment import experiments
from core.foundations.figures import Outcome
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.ranks import Group, RankLost
from core.foundations.recorder import Recorder, drain
from core.foundations.turns import without_pauses
from core.pipeline_parallel import BalanceConfig, BigConfig, BubbleConfig, balance, big, bubble, formulas
from core.pipeline_parallel.balance import GRADIENT as BALANCE_GRADIENT
from core.pipeline_parallel.balance import REAL_TIME, SOLVED, Puzzle, every_layout
from core.pipeline_parallel.big import BUBBLE as BIG_BUBBLE
from core.pipeline_parallel.big import Study, grid
from core.pipeline_parallel.bubble import GRADIENT, LOSS, job
from core.pipeline_parallel.lesson import LESSON
from core.pipeline_parallel.orders import ORDERS, chunks_of, orders_of, stages_of
from core.pipeline_parallel.simulate import Timeline, durations_of, simulate
from core.pipeline_parallel.watched import chain, timeline_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pipeline_parallel.json").read_text())
QUICK = {"nominal": 2.0, "rounds": 1, "width": 16, "context": 16}
several = st.tuples(
    st.sampled_from(["interleaved", "split", "zbv"]), st.integers(2, 6), st.integers(2, 4), st.integers(2, 4)
)


def times_for(schedule, ranks, chunks, forward=1.0, inputs=1.0, weights=1.0):
    return durations_of(*([time / chunks] * (ranks * chunks) for time in (forward, inputs, weights)))


def simulated(schedule, ranks, micro, chunks=2, *times):
    chunks = chunks_of(schedule, chunks)
    return simulate(orders_of(schedule, ranks, micro, chunks), times_for(schedule, ranks, chunks, *times))


# --- the orders are torch's ---


def plain(actions):
    """Without idle steps and without the adding up of gradients at the end: what is left is computing."""
    kinds = {"FORWARD": "F", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W", "FULL_BACKWARD": "B"}
    kept = [action for action in actions if action is not None and action.computation_type.name in kinds]
    return [(action.stage_index, kinds[action.computation_type.name], action.microbatch_index) for action in kept]


def torch_single(schedule, ranks, micro):
    from torch.distributed.pipelining import schedules

    cls = {"gpipe": schedules.ScheduleGPipe, "1f1b": schedules.Schedule1F1B}[schedule]
    return cls._get_pipeline_order(SimpleNamespace(_num_stages=ranks, _n_microbatches=micro))


def torch_several(schedule, rank, ranks, micro, chunks):
    from torch.distributed.pipelining import schedules

    cls = {
        "interleaved": schedules.ScheduleInterleaved1F1B,
        "split": schedules.ScheduleInterleavedZeroBubble,
        "zbv": schedules.ScheduleZBVZeroBubble,
    }
    known = SimpleNamespace(
        n_local_stages=chunks,
        pp_group_size=ranks,
        microbatches_per_round=ranks,
        _n_microbatches=micro,
        num_stages=ranks * chunks,
        rank=rank,
    )
    return plain(cls[schedule]._calculate_single_rank_operations(known, rank))


@given(ranks=st.integers(2, 6), more=st.integers(0, 9))
def test_gpipe_is_torchs_order(ranks, more):
    found = torch_single("gpipe", ranks, ranks + more)
    assert [plain(found[rank]) for rank in range(ranks)] == orders_of("gpipe", ranks, ranks + more, 1)


@given(ranks=st.integers(2, 6), more=st.integers(0, 9))
def test_1f1b_is_torchs_order_once_its_last_rank_is_fixed(ranks, more):
    """torch 2.13 numbers the last rank's forward passes from 1 in this list, which it only draws: it runs them
    from 0.
    """
    found = [plain(actions) for _, actions in sorted(torch_single("1f1b", ranks, ranks + more).items())]
    wrong = found[-1]
    found[-1] = [(stage, kind, micro - (kind == "F")) for stage, kind, micro in wrong]
    assert found == orders_of("1f1b", ranks, ranks + more, 1)
    assert wrong != orders_of("1f1b", ranks, ranks + more, 1)[-1], (
        "torch has fixed its list: the workaround in this test can go"
    )


@given(several)
def test_schedules_of_several_stages_are_torchs_orders(told):
    schedule, ranks, rounds, chunks = told
    chunks, micro = chunks_of(schedule, chunks), ranks * rounds
    ours = orders_of(schedule, ranks, micro, chunks)
    assert ours == [torch_several(schedule, rank, ranks, micro, chunks) for rank in range(ranks)]


@given(several)
def test_every_rank_does_all_of_its_work_once(told):
    schedule, ranks, rounds, chunks = told
    chunks, micro = chunks_of(schedule, chunks), ranks * rounds
    for rank, order in enumerate(orders_of(schedule, ranks, micro, chunks)):
        kinds = "FB" if schedule == "interleaved" else "FIW"
        assert sorted(order) == sorted(
            (stage, kind, i)
            for stage in stages_of(schedule, rank, ranks, chunks)
            for kind in kinds
            for i in range(micro)
        )


# --- the simulation ---


@pytest.mark.parametrize("row", GOLDEN["unit_times"], ids=lambda row: f"{row['schedule']}-{row['chunks']}")
def test_published_makespans_bubbles_and_peaks(row):
    line = simulated(row["schedule"], 4, 8, row["chunks"])
    assert line.makespan == pytest.approx(row["makespan"])
    assert (line.bubble, line.idle_share) == (pytest.approx(row["bubble"]), pytest.approx(row["share"]))
    assert line.peaks == row["peaks"] == formulas.peaks(row["schedule"], 4, 8, row["chunks"])
    assert line.own_idle == pytest.approx(row["own_idle"])
    assert simulated(row["schedule"], 8, 32, row["chunks"]).bubble == pytest.approx(row["bubble_8_32"])
    assert formulas.bubble(row["schedule"], 4, 8, row["chunks"], 1, 1, 1) == pytest.approx(row["bubble"])


@pytest.mark.parametrize("schedule", ["zbv", "split"])
def test_zero_bubble_is_lost_with_unequal_times(schedule):
    line = simulated(schedule, 4, 8, 2, *GOLDEN["unequal_times"]["times"])
    assert line.own_idle == pytest.approx(GOLDEN["unequal_times"]["own_idle"][schedule])


@given(
    ranks=st.integers(2, 8),
    rounds=st.integers(2, 5),
    chunks=st.integers(2, 4),
    times=st.tuples(*[st.floats(0.5, 2)] * 3),
)
def test_formulas_hold_for_any_times(ranks, rounds, chunks, times):
    for schedule in ("gpipe", "1f1b", "interleaved"):
        v = chunks_of(schedule, chunks)
        found = simulated(schedule, ranks, ranks * rounds, chunks, *times)
        assert found.bubble == pytest.approx(formulas.bubble(schedule, ranks, ranks * rounds, v, *times))
        assert max(found.own_idle) == pytest.approx(formulas.own_idle(schedule, ranks, v, *times))
        assert found.peaks == formulas.peaks(schedule, ranks, ranks * rounds, v)


@given(ranks=st.integers(2, 8), rounds=st.integers(2, 5), time=st.floats(0.5, 2))
def test_zbv_waits_nowhere_in_its_own_span_with_equal_times(ranks, rounds, time):
    found = simulated("zbv", ranks, ranks * rounds, 2, time, time, time)
    assert max(found.own_idle) < 1e-9 * found.makespan
    assert found.bubble == pytest.approx(formulas.bubble("zbv", ranks, ranks * rounds, 2, time, time, time))


@given(layers=st.lists(st.integers(1, 6), min_size=2, max_size=5), more=st.integers(0, 8))
def test_uneven_stages(layers, more):
    """GPipe takes the sum of all stages and m - 1 times the slowest; 1F1B at most that."""
    micro = len(layers) + more
    bound = 3 * (sum(layers) + (micro - 1) * max(layers))
    made = {
        name: simulate(orders_of(name, len(layers), micro, 1), durations_of(layers, layers, layers)).makespan
        for name in ("gpipe", "1f1b")
    }
    assert made["gpipe"] == pytest.approx(bound) and made["1f1b"] <= bound * (1 + 1e-12)


def test_an_order_that_cannot_be_has_no_end(refusal):
    orders = [[(0, "B", 0), (0, "F", 0)], [(1, "F", 0), (1, "B", 0)]]
    assert (
        refusal(simulate, orders, durations_of([1, 1], [1, 1], [1, 1]))
        == "the ranks wait for each other: this order has no end"
    )


def test_cells_are_what_happens_at_their_moment():
    line = simulated("gpipe", 2, 2)  # 9 units
    assert line.sampled(9) == ("ff...bbbb", ".ffbbbb..")


# --- the chain of a real run ---


@given(several, st.floats(0.5, 2))
def test_the_chain_of_a_simulation_is_all_work(told, stretch):
    """Nothing but nominal chunks; stretched by a factor, the rest is 'over'."""
    schedule, ranks, rounds, chunks = told
    chunks = chunks_of(schedule, chunks)
    line, nominal = simulated(schedule, ranks, ranks * rounds, chunks), times_for(schedule, ranks, chunks)
    longer = Timeline(
        line.orders,
        [[stretch * t for t in row] for row in line.starts],
        [[stretch * t for t in row] for row in line.ends],
    )
    found = chain(longer, nominal)
    assert found.nominal + found.over == pytest.approx(longer.makespan) and found.nominal == pytest.approx(
        line.makespan
    )
    assert found.message == pytest.approx(0, abs=1e-9) and found.python == pytest.approx(0, abs=1e-9)


def test_the_chain_tells_messages_from_python():
    told = {
        0: [(0, "F", 0, 0.0, 0.1, 1.0, 1), (0, "B", 0, 3.5, 3.6, 5.5, 0)],
        1: [(1, "F", 0, 1.25, 1.3, 2.0, 1), (1, "B", 0, 2.125, 2.2, 3.25, 0)],
    }
    found = chain(timeline_of(told), durations_of([1, 0.75], [1, 0.5], [1, 0.5]))
    assert (found.nominal, found.over) == (4.75, pytest.approx(0.125)) and (found.message, found.python) == (0.5, 0.125)


# --- real ranks ---


def ran(run, **settings):
    config = run.experiment.config_type(**settings)
    recorder, steps = Recorder(run.experiment, config), []
    for step in run(config):
        recorder.add(step)
        steps.append(step)
    return recorder.figures, steps


@pytest.mark.parametrize("settings", [{"ranks": 4}, {"ranks": 2, "layers": 6, "chunks": 3}], ids=["4 ranks", "2 ranks"])
@pytest.mark.parametrize("schedule", list(ORDERS))
def test_loss_and_gradients_are_one_devices(schedule, settings):
    micro = 8 if settings["ranks"] == 4 else 4
    figures, steps = ran(bubble, schedule=schedule, micro=micro, **QUICK | settings)
    short = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "interleaved", "split": "split", "zbv": "ZBV"}[schedule]
    assert figures[LOSS.of(schedule=short)].gap == pytest.approx(0, abs=1e-5)
    assert 0 <= figures[GRADIENT.of(schedule=short)].measured < 1e-5
    held = {name: found for name, _, found in steps[-1].held}[schedule]
    assert held == {name: theory for name, theory, _ in steps[-1].held}[schedule], (
        "the ranks hold what the formula says"
    )
    orders = [[(int(micro), "FBIW"[int(kind)]) for _, _, kind, micro, _ in row] for row in steps[-1].real]
    chunks = chunks_of(schedule, settings.get("chunks", 2))
    assert orders == [
        [(i, kind) for _, kind, i in order] for order in orders_of(schedule, settings["ranks"], micro, chunks)
    ]


def test_the_parts_of_a_real_run_add_up():
    _, steps = ran(bubble, **QUICK)
    formula, simulated_ms, real = steps[-1].makespans
    assert formula + sum(ms for _, ms in steps[-1].parts) == pytest.approx(real)
    assert steps[-1].parts[0][1] == pytest.approx(simulated_ms - formula)
    assert all(np.all(row[:, 1] >= 0) for row in steps[-1].real) and len(steps[-1].raw) == 4


def test_padded_chunks_take_at_least_their_nominal_time():
    _, steps = ran(bubble, **QUICK | {"nominal": 5.0})
    lengths = [(kind, length) for row in steps[-1].real for _, length, kind, _, _ in row]
    assert (
        min(length for kind, length in lengths if kind == 0) >= 5.0
        and min(length for kind, length in lengths if kind == 1) >= 10.0
    )


def test_the_first_step_shows_formula_and_simulation():
    first = next(bubble(BubbleConfig()))
    assert (
        first.real == ()
        and [row.shape for row in first.ideal] == [(16, 5)] * 4
        and first.makespans == (pytest.approx(1320), None, None)
    )
    assert first.rows[0][1:] == (pytest.approx(0.375), pytest.approx(0.375), None)


def test_a_killed_rank_ends_the_run():
    """Rank 2 dies while micro-batches are on their way."""
    killed = False
    with (
        pytest.raises(RankLost, match="rank 2 of 4 was killed by SIGKILL"),
        Group(job, 4, (BubbleConfig(nominal=100.0),), gloo=True) as group,
    ):
        for said in group.listen():
            if said is None and group.pids and not killed:
                time.sleep(0.5)
                os.kill(group.pids[2], 9)
                killed = True  # its end may be noticed only after another turn


# --- the puzzle ---


def test_every_layout_places_all_layers():
    layouts = list(every_layout(12, 4))
    assert (
        len(set(layouts)) == len(layouts) == 165
        and {sum(cut) for cut in layouts} == {12}
        and min(map(min, layouts)) == 1
    )


@pytest.mark.parametrize(
    ("layout", "solved"), [("3,3,3,3", False), ("3,2,4,3", True), ("4,2,3,3", False), ("2,2,4,4", False)]
)
def test_a_layout_must_be_fast_and_fit(layout, solved):
    puzzle = Puzzle(BalanceConfig(layout=layout))
    assert puzzle.solved == solved and puzzle.verdict().startswith("Solved" if solved else "Not yet")


def test_no_layout_may_fit():
    assert (
        Puzzle(BalanceConfig(memory=2)).verdict() == "Unsolvable: no layout of 12 layers fits 2 activations per rank."
    )


def test_real_ranks_hold_what_the_puzzle_says():
    figures, steps = ran(balance, layout="3,2,4,3", nominal=1.0, rounds=1, width=16)
    assert [theory for theory, _ in steps[-1].held] == [found for _, found in steps[-1].held] == [12, 6, 8, 3]
    assert figures[SOLVED].measured == 1 and figures[BALANCE_GRADIENT].measured < 1e-5
    assert figures[REAL_TIME].measured >= figures[REAL_TIME].expected


# --- many ranks ---


def test_large_simulations_take_turns_and_agree_with_the_formula():
    steps = list(big(BigConfig(schedule="1f1b", ranks=64, micro=512, chunks=2)))
    rows = {row.schedule: row for row in steps[-1].rows}
    assert rows["1f1b"].bubble == pytest.approx(63 / 512) and rows["interleaved"].bubble == pytest.approx(63 / 1024)
    assert rows["gpipe"].peaks[0] == 512 and rows["1f1b"].peaks[0] == 64 and len(steps) > 20
    charts = [step.chart for step in steps if step.chart]
    assert {len(row) for _, _, cells, _ in charts for row in cells} == {1000} and charts[-1][0] == "1f1b"


def test_the_largest_setting_makes_as_many_actions_as_it_says():
    config = BigConfig(schedule="split", ranks=8, micro=64, chunks=8)
    line = without_pauses(Study(config).timeline("split", 64))
    assert sum(map(len, line.orders)) == config.actions("split", 64) and grid(config) == [8, 16, 32, 64, 128, 256, 512]


def test_the_same_settings_give_the_same_run():
    one, other = (drain(big(BigConfig()), Recorder(big.experiment, BigConfig())) for _ in range(2))
    assert one.figures == other.figures


# --- refusals ---


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (
            BubbleConfig,
            {"schedule": "interleaved", "micro": 6, "sequences": 12},
            "interleaved 1F1B needs a multiple of 4 micro-batches on 4 ranks, got 6",
        ),
        (
            BubbleConfig,
            {"schedule": "zbv", "micro": 4},
            "ZBV needs at least 2 x 4 - 1 = 7 micro-batches on 4 ranks, got 4",
        ),
        (BubbleConfig, {"micro": 2}, "1F1B needs at least as many micro-batches as ranks, got 2 for 4 ranks"),
        (BubbleConfig, {"micro": 5}, "a batch of 16 sequences cannot be cut into 5 equal micro-batches"),
        (BubbleConfig, {"ranks": 5}, "ranks must be at most 4 ranks, got 5"),
        (BubbleConfig, {"layers": 4, "schedule": "zbv"}, "layers must be at least 8, one for each stage, got 4"),
        (BubbleConfig, {"width": 30}, "width must be a multiple of 4, got 30"),
        (
            BubbleConfig,
            {"micro": 32, "sequences": 32, "nominal": 100.0, "inputs": 3.0},
            "a batch would take 18 seconds, and may take 15: choose shorter nominal times or fewer micro-batches",
        ),
        (
            BalanceConfig,
            {"slow": 4.0, "micro": 16, "nominal": 30.0, "layout": "1,9,1,1"},
            "a batch would take 52 seconds, and may take 15: choose shorter nominal times or fewer micro-batches",
        ),
        (BalanceConfig, {"layout": "3,3,3"}, "layout must place all 12 layers, got 9"),
        (BalanceConfig, {"layout": "12"}, "layout must name 2 to 4 ranks, got 1"),
        (BalanceConfig, {"layout": "4,4,4,0"}, "layout must give every rank at least 1 layer, got '4,4,4,0'"),
        (
            BalanceConfig,
            {"layout": "3,3,three"},
            "layout must be whole numbers with commas between, such as 3,3,3,3, got '3,3,three'",
        ),
        (
            BalanceConfig,
            {"layout": ""},
            "layout must be whole numbers with commas between, such as 3,3,3,3, got nothing",
        ),
        (BalanceConfig, {"layout": "6,6", "slow_rank": 2}, "slow_rank must be at most 1, the last of 2 ranks, got 2"),
        (
            BigConfig,
            {"schedule": "split", "micro": 30},
            "interleaved, backward split needs a multiple of 8 micro-batches on 8 ranks, got 30",
        ),
        (
            BigConfig,
            {"schedule": "interleaved", "chunks": 1},
            "interleaved 1F1B needs at least 2 stages per rank, got 1",
        ),
        (BigConfig, {"ranks": 65}, "ranks must be at most 64 ranks, got 65"),
    ],
)
def test_bad_settings_get_one_sentence(kind, settings, sentence, refusal):
    assert refusal(kind, **settings) == sentence


def test_another_number_of_ranks_under_torchrun(refusal):
    from core.pipeline_parallel.balance import job as balanced

    assert refusal(lambda: next(balanced(0, 3, BalanceConfig()))) == "layout names 4 ranks, and 3 were started"
    assert refusal(lambda: next(job(0, 8, BubbleConfig()))) == "ranks must be at most 4 ranks, got 8"


# --- the lesson ---

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
RIGHT = (
    "it stays about the same",
    "15 to 30 % of it",
    "only rounding differs",
    "no",
    "only between each rank's own start and end",
    "less than with the split interleaved schedule",
)


@pytest.mark.parametrize(("ask", "answer"), zip(ASKS, RIGHT, strict=True), ids=lambda part: str(part)[:40])
def test_the_questions_are_decided_by_the_run(ask, answer):
    quick = {"bubble": QUICK | {"nominal": 20.0}, "balance": {"nominal": 2.0, "rounds": 1}, "big": {}}[ask.experiment]
    settings = {**ask.settings, **quick}
    run = experiments("pipeline_parallel")[ask.experiment]
    figures, _ = ran(run.run, **settings)
    index, because = verdict(ask, Outcome(figures, run.config_type(**settings), None))
    assert "nan" not in because and because.endswith(".")
    if "16 micro-batches" in ask.text:
        assert index in (1, 2)  # above 3/16 by what a busy machine adds
    else:
        assert ask.answers[index] == answer


def said(run, **settings):
    figures, _ = ran(run, **settings)
    return takeaways(run.experiment, Outcome(figures, run.experiment.config_type(**settings), None))


def test_what_was_seen_follows_the_numbers():
    idle, memory, same = said(bubble, **QUICK | {"nominal": 20.0})
    assert "= 3 / 11 says 27 %" in idle and "1F1B held the activations of up to 4" in memory and "only rounding" in same
    assert said(balance, layout="3,2,4,3", nominal=1.0, rounds=1, width=16)[1].startswith("The puzzle is solved")
    full = said(balance, layout="4,2,3,3", nominal=1.0, rounds=1, width=16)[1]
    assert "activations too many" in full and full.endswith("costs most memory on an early rank.")
    assert (
        "ms faster, with less work on the slowest rank"
        in said(balance, layout="3,3,3,3", nominal=1.0, rounds=1, width=16)[1]
    )
    unsolvable = said(balance, layout="3,3,3,3", memory=3, nominal=1.0, rounds=1, width=16)
    assert len(unsolvable) == 1 and "activations too many" in unsolvable[0]


def test_zbv_is_not_the_least_of_all_with_more_stages_per_rank():
    """With two stages per rank the split schedule loses as much, with four half of it, with eight a quarter."""
    for chunks, times in ((2, 1.0), (4, 2.0), (8, 4.0)):
        figures, _ = ran(big, chunks=chunks)
        split, zbv = (figures[BIG_BUBBLE.of(schedule=schedule)].measured for schedule in ("split", "ZBV"))
        assert zbv / split == pytest.approx(times)
    assert said(big)[0].endswith("least of all waits split and ZBV.") and "a rank of ZBV waits 0 ms" in said(big)[1]
    assert said(big, chunks=4)[0].endswith("least of all waits split.")
    broken = ran(big, inputs=1.2, weights=0.6)[0][BIG_BUBBLE.of(schedule="ZBV")]
    assert broken.expected is None, "the formula holds for F = I = W only"
