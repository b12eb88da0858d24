"""The memory meter: what is weighed equals the formulas to the byte, the loader equals transformers', everything is
freed.
"""

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.foundations.base_model import FOLDER, cross_entropy
from core.foundations.experiment import find
from core.foundations.figures import by_figure
from core.foundations.hub import HUB
from core.foundations.recorder import Recorder, drain
from core.qlora.budget import (
    BIG,
    NOMINAL_BITS,
    PRECISIONS,
    Load,
    activation_bytes,
    at_peak,
    big_bars,
    big_figures,
    big_parts,
    budget,
    constant_bytes,
    full_finetuning,
    itemised,
    nominal_gigabytes,
    optimizer_bytes,
    weight_bytes,
)  # fmt: skip
from core.qlora.loading import loaded, quantisation
from core.qlora.memory import KINDS, PLACES, LiveBytes
from core.qlora.meter import MeterConfig, Weighed, meter
from core.qlora.meter_figures import ALLOCATOR_PEAK, BITS, SAVED, peak_of

module = importlib.import_module("core.qlora.meter")  # the package has a function of the same name

EXACT = [kind for kind in KINDS if kind != "passing"]


def ledger_of(steps):
    """The last ledger of each precision: kind -> (predicted, measured)."""
    told = {}
    for step in steps:
        if step.phase:
            told[step.precision] = dict(zip(KINDS, step.ledger, strict=True))
    return told


def run(**settings):
    return list(meter(MeterConfig(**settings)))


@pytest.fixture(scope="module")
def default_run():
    return run()


@pytest.fixture
def hub_model(tmp_path, monkeypatch):
    """A small model of another shape in the hub's format, in the place of TinyLlama."""
    import shutil

    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=256,
    )
    Qwen2ForCausalLM(config).half().save_pretrained(tmp_path)
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    monkeypatch.setattr("core.foundations.hub.hub_folder", lambda name: tmp_path)
    return "TinyLlama/TinyLlama-1.1B-Chat-v1.0"


# --- weighed == formula -----------------------------------------------------------------------------------------------


def test_every_kind_is_what_the_formula_says_to_the_byte(default_run):
    told = ledger_of(default_run)
    assert list(told) == list(PRECISIONS)
    for kinds in told.values():
        assert {kind: kinds[kind][0] for kind in EXACT} == {kind: kinds[kind][1] for kind in EXACT}
        assert kinds["passing"][1] - kinds["passing"][0] == 4  # the gradient of the loss, one number


@settings(max_examples=6)
@given(
    precision=st.sampled_from(list(PRECISIONS)), batch=st.integers(1, 4), context=st.integers(2, 40), rank=st.integers(1, 64),
    optimizer=st.sampled_from(["adamw", "adamw8bit"]), checkpointing=st.booleans(),
)  # fmt: skip
def test_whatever_the_settings(precision, batch, context, rank, optimizer, checkpointing):
    steps = run(
        precision=precision,
        batch=batch,
        context=context,
        rank=rank,
        optimizer=optimizer,
        checkpointing=checkpointing,
        steps=1,
    )
    kinds = ledger_of(steps)[precision]
    assert {kind: kinds[kind][0] for kind in EXACT} == {kind: kinds[kind][1] for kind in EXACT}
    assert steps[-2].live[-1].sum() == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_another_shape_with_tied_embeddings_biases_and_grouped_heads(hub_model, checkpointing):
    told = ledger_of(run(model=hub_model, context=24, checkpointing=checkpointing, steps=1))
    for kinds in told.values():
        assert {kind: kinds[kind][0] for kind in EXACT} == {kind: kinds[kind][1] for kind in EXACT}


def test_the_peak_is_forecast_to_the_byte(default_run):
    last = default_run[-1]
    assert {name: sum(kinds) for name, kinds in last.peaks} == {name: sum(kinds) for name, kinds in last.forecast}


@pytest.mark.parametrize("precision", ["fp32", "int8", "nf4dq"])
def test_with_checkpointing_the_peak_is_forecast_closely_and_is_lower(precision):
    ((_, forecast),), ((_, peak),) = (
        getattr(run(precision=precision, context=96, checkpointing=True)[-1], name) for name in ("forecast", "peaks")
    )
    assert sum(peak) == pytest.approx(sum(forecast), rel=0.03)
    assert sum(peak) < sum(at_peak(module.counted_in(FOLDER), precision, Load(1, 96, 8)).values())


def test_the_int8_layer_holds_its_inputs_where_checkpointing_cannot_reach_them():
    parts, load = module.counted_in(FOLDER), Load(1, 64, 8, checkpointing=True)
    held = activation_bytes(parts, "int8", load) - activation_bytes(parts, "nf4", load)
    assert held == 64 * 4 * 2 * (192 + 192 + 192 + 576)  # tokens, layers, bytes, inputs of: q k v, gate up, o, down
    told = ledger_of(run(precision="int8", checkpointing=True, steps=1))["int8"]
    assert told["activations"] == (activation_bytes(parts, "int8", load),) * 2


def test_the_items_add_up_to_what_is_weighed(default_run):
    for step in default_run:
        if step.phase == "free":
            weights, constants = (step.ledger[PLACES[kind]][1] for kind in ("weights", "constants"))
            assert sum(size for _, size in step.items) == weights + constants
            assert all(size > 0 for _, size in step.items)


def test_double_quantisation_saves_0_373_bits_but_for_its_tables(default_run):
    figures = by_figure(result for step in default_run for result in step.figures)
    saved, parts = figures[SAVED], module.counted_in(FOLDER)
    assert saved.expected == 0.373046875
    tables = 8 * 1028 * len(parts.matrices) / parts.linear
    assert saved.measured + tables == pytest.approx(0.373046875, abs=1e-3)  # last blocks of 256 constants are not full
    whole = big_parts("7B")
    assert 8 * (constant_bytes(whole, "nf4") - constant_bytes(whole, "nf4dq")) / whole.linear == pytest.approx(
        0.373046875, abs=5e-4
    )


def test_small_tensors_keep_their_8_bit_optimizer_in_32_bits():
    assert optimizer_bytes([4095], "adamw8bit") == 8 * 4095
    assert optimizer_bytes([4096], "adamw8bit") == 2 * 4096 + 2 * 4 * 16 + 2048
    assert optimizer_bytes([100, 100], "adamw") == 2 * 804


# --- the counter ------------------------------------------------------------------------------------------------------


def test_views_share_and_the_freed_are_gone():
    live = LiveBytes("cpu")
    with live:
        a = torch.zeros(100)
        b = a.view(10, 10).t()
        c = torch.ones(50, dtype=torch.float16)
    live.claim("weights", [b])
    assert live.take(9)[-1].tolist() == [400, 0, 0, 0, 0, 0, 100]
    del a
    live.claim("adapters", [c])
    assert live.take(9)[-1].tolist() == [400, 0, 100, 0, 0, 0, 0]
    del b, c
    assert live.take(9)[-1].sum() == 0
    assert live.peak.sum() == 500 and live.most.tolist() == [400, 0, 100, 0, 0, 0, 100]


def test_what_is_left_out_never_counts_nor_do_its_views():
    live, text = LiveBytes("cpu"), torch.arange(1000)
    live.leave_out(text)
    with live:
        window = text[10:20]
        copied = window + 1
    assert live.take(9)[-1].sum() == copied.nbytes


def test_the_largest_moment_survives_thinning():
    live = LiveBytes("cpu")
    with live:
        for size in [1, 2, 300, 4, 5, 6, 7]:
            torch.zeros(size, dtype=torch.uint8)
    assert live.take(3).sum(1).max() >= 300 and live.peak.sum() >= 300


def test_mem_tracker_of_torch_agrees():
    """The same storages are counted, so the peaks are the same but for its own rounding."""
    from torch.distributed._tools.mem_tracker import MemTracker

    def net():
        return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))

    x, theirs, ours = torch.randn(128, 64, generator=torch.Generator().manual_seed(0)), MemTracker(), LiveBytes("cpu")
    model = net()
    theirs.track_external(model, x)
    with theirs:
        model(x).sum().backward()
    model = net()
    ours.claim("weights", model.parameters())
    ours.claim("activations", [x])
    with ours:
        model(x).sum().backward()
    ours.take(9)
    total = next(iter(theirs.get_tracker_snapshot("peak").values()))["Total"]
    assert ours.peak.sum() == pytest.approx(total, rel=0.01)


# --- the loader, and letting go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_the_loader_gives_what_transformers_gives(precision):
    from transformers import AutoModelForCausalLM

    *_, (_, ours) = loaded(FOLDER, precision, "cpu", LiveBytes("cpu"))
    how = {
        "dtype": torch.float32 if precision == "fp32" else torch.bfloat16,
        "quantization_config": quantisation(precision, "cpu"),
    }
    theirs = AutoModelForCausalLM.from_pretrained(
        FOLDER, local_files_only=True, **{name: value for name, value in how.items() if value is not None}
    )
    assert [type(one) for one in ours.modules()] == [type(one) for one in theirs.modules()]
    ids = torch.arange(40)[None] * 7 % 1024
    with torch.no_grad():
        a, b = (cross_entropy(model.train(), ids, ids, "none") for model in (ours, theirs))
    assert torch.equal(a, b)
    mine, stored = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert mine.keys() == stored.keys() and all(torch.equal(mine[name], stored[name]) for name in mine)


def test_everything_is_freed_after_each_precision(default_run):
    ends = [step.live[-1].sum() for step in default_run if step.phase == "free"]
    assert ends == [0.0] * 5
    last = default_run[-1]
    assert np.all(np.diff(last.moments) >= 0) and last.moments[-1] == 5.0 and last.live.min() == 0


def test_stopping_frees(monkeypatch):
    made = []
    monkeypatch.setattr(module, "Weighed", lambda *given: made.append(Weighed(*given)) or made[-1])
    steps = meter(MeterConfig(precision="nf4"))
    for step in steps:
        if step.phase == "backward":
            break
    steps.close()
    made[0].live.take(9)
    assert made[0].live.peak.sum() > 1e6 and made[0].live.now.sum() == 0


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    one, same, other = (run(precision="nf4", seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.live, b.live) for a, b in zip(one, same, strict=True) if a.live is not None)
    losses = [[step.loss for step in steps if step.loss is not None] for steps in (one, same, other)]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns():
    losses = [step.loss for step in run(precision="nf4dq", steps=12, batch=2, context=48) if step.loss is not None]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.05


# --- big models: golden numbers of the papers -------------------------------------------------------------------------


def test_parameters_of_llama():
    assert {name: big_parts(name).parameters for name in BIG} == {
        "7B": 6_738_415_616,
        "13B": 13_015_864_320,
        "33B": 32_528_943_616,
        "65B": 65_285_660_672,
    }


def test_bits_of_the_paper():
    assert NOMINAL_BITS["nf4"] == 4.5 and NOMINAL_BITS["nf4dq"] == 4.126953125
    told = {name: round(nominal_gigabytes(float(name[:-1]) * 1e9, "nf4dq"), 3) for name in BIG}
    assert told == {"7B": 3.611, "13B": 6.706, "33B": 17.024, "65B": 33.531}
    assert round(nominal_gigabytes(65e9, "nf4") - nominal_gigabytes(65e9, "nf4dq"), 2) == 3.03


def test_28_gb_are_26_95():
    first, _, full, small = big_figures("7B", Load(1, 512, 8))
    assert (first.expected, round(first.measured, 2)) == (28.0, 26.95) and {
        result.figure.label for result in big_figures("7B", Load(1, 512, 8))
    } == {"computed"}
    assert small.expected == full.measured > 8 * small.measured
    assert weight_bytes(big_parts("7B"), "fp32") == 4 * 6_738_415_616
    _, _, full, _ = big_figures("65B", Load(1, 512, 8))
    assert full.expected == 780.0 and full.measured > 780 and full.measured == 12 * 65_285_660_672 / 1e9


def test_what_fits_on_a_t4():
    peaks = {name: sum(kinds) / 1e9 for name, kinds in big_bars("7B", Load(1, 512, 8))}
    assert {name for name, peak in peaks.items() if peak <= 16} == {"int8", "nf4", "nf4dq"}
    assert (
        sum(dict(big_bars("65B", Load(1, 512, 64, checkpointing=True)))["nf4dq"]) < 48e9
    )  # the paper's claim, with its rank


@given(
    st.sampled_from(list(BIG)),
    st.sampled_from(list(PRECISIONS)),
    st.integers(1, 8),
    st.integers(1, 4096),
    st.integers(1, 64),
    st.booleans(),
)
def test_budgets_are_whole_and_ordered(name, precision, batch, context, rank, checkpointing):
    parts, load = big_parts(name), Load(batch, context, rank, checkpointing=checkpointing)
    kinds, peak = budget(parts, precision, load, "cuda"), at_peak(parts, precision, load, "cuda")
    assert list(kinds) == list(KINDS) and all(size >= 0 for size in kinds.values())
    assert kinds["adapters"] == kinds["gradients"] == kinds["optimizer"] // 2
    assert 0 < sum(peak.values()) <= sum(kinds.values())
    assert sum(size for _, size in itemised(parts, precision)) == weight_bytes(parts, precision) + constant_bytes(
        parts, precision
    )
    assert sum(full_finetuning(parts).values()) == 12 * parts.parameters


# --- bad input, too little memory -------------------------------------------------------------------------------------


def free_memory(monkeypatch, amount):
    for place in ("core.qlora.meter", "core.foundations.base_model"):
        monkeypatch.setattr(importlib.import_module(place), "free_bytes", lambda: amount)


def test_a_batch_that_is_too_large_gets_its_sentence(refusal):
    assert (
        refusal(MeterConfig, batch=16, context=64) == "batch x context must be at most 512 tokens, got 16 x 64 = 1024"
    )


def test_no_memory_gets_its_sentence_before_loading(monkeypatch, refusal):
    free_memory(monkeypatch, 5e6)
    monkeypatch.setattr(module, "loaded", lambda *given: pytest.fail("it began to load"))
    told = refusal(lambda: run(precision="fp32"))
    assert told.startswith("the shipped base, 2.3 M parameters, fine-tuned in fp32, needs 0.0 GB of memory")


def test_what_does_not_fit_is_left_out_and_said(monkeypatch):
    free_memory(monkeypatch, 8e6)
    steps = run(steps=1)
    assert [name for name, _ in steps[-1].peaks] == ["nf4", "nf4dq"]
    assert [step.doing.split(" needs")[0] for step in steps if "left out" in step.doing] == ["fp32", "fp16", "int8"]


def test_a_hub_model_that_is_too_large_is_not_even_fetched(monkeypatch, refusal):
    free_memory(monkeypatch, 3e9)
    monkeypatch.setattr("core.foundations.base_model.fetched", lambda name: pytest.fail("it began to fetch"))
    told = refusal(lambda: run(model="meta-llama/Llama-2-7b-hf"))
    assert told.startswith(
        f"{HUB['meta-llama/Llama-2-7b-hf'].what}, in the fewest bits chosen, needs 3.5 GB of memory, and 3.0 GB are"
        " free here"
    )


# --- as an experiment -------------------------------------------------------------------------------------------------


def test_the_first_step_is_computed_and_the_last_has_figures(default_run):
    first = default_run[0]
    assert [name for name, _ in first.forecast] == list(PRECISIONS) and first.live is None and first.peaks == ()
    assert [name for name, _ in first.bars] == ["full", *PRECISIONS] and [name for name, _ in first.totals] == list(BIG)
    recorder = drain(iter(default_run), Recorder(find("qlora", "meter"), MeterConfig()))
    gaps = {figure: result.gap for figure, result in recorder.figures.items() if figure.label == "measured"}
    assert [figure for figure, gap in gaps.items() if gap] == [
        BITS.of(precision=PRECISIONS["nf4"]),
        BITS.of(precision=PRECISIONS["nf4dq"]),
        SAVED,
    ]
    assert all(math.isfinite(gap) for gap in gaps.values())
    assert sum(figure.headline for figure in recorder.figures) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_s_allocator_holds_at_least_the_live_tensors():
    figures = by_figure(result for step in run(precision="nf4") for result in step.figures)
    peak, allocator = figures[peak_of("nf4")], figures[ALLOCATOR_PEAK.of(precision="NF4")]
    assert peak.gap == pytest.approx(0, abs=0.1 * peak.expected)
    assert allocator.measured >= allocator.expected
