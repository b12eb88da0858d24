"""Gradient checkpointing: our checkpoint == torch's == none, bytes against the paper's formulas, FLOPs, golden numbers,
nothing left behind.
"""

import gc
import importlib
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from core.foundations.activation_bytes import Layer, head_bytes, kept_bytes, parts, per_sbh
from core.foundations.experiment import find
from core.foundations.figures import by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.machine import this_machine
from core.foundations.recorder import Recorder, drain
from core.gradient_checkpointing import BigConfig, KeptConfig, TradeoffConfig, big, kept, tradeoff
from core.gradient_checkpointing.big import BIG, WAYS, gpu_bytes, saved_percent, slower_percent
from core.gradient_checkpointing.block import DropoutState, LlamaBlock, Stack, chain, draw_weights, gpt
from core.gradient_checkpointing.kept import LAYER, LAYER_PAPER, NORM_STATISTICS, parse_layers
from core.gradient_checkpointing.ledger import Ledger
from core.gradient_checkpointing.lesson import LESSON
from core.gradient_checkpointing.live import Flops, Live
from core.gradient_checkpointing.strategies import Costs, Way, front, sawtooth, ways
from core.gradient_checkpointing.tradeoff import GRADIENT_ERROR, STEP_FLOPS_WHOLE, WEIGHT_FLOPS, WEIGHT_FLOPS_WHOLE
from core.gradient_checkpointing.trick import recompute
from core.gradient_checkpointing.walk import Walk

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gradient_checkpointing.json").read_text())
block_module = importlib.import_module("core.gradient_checkpointing.block")

shapes = st.builds(
    lambda heads, per_head, s, b, fused, dropout: Layer(s, b, heads * per_head, heads, fused, dropout, mask=2),
    st.integers(1, 4), st.integers(2, 12), st.integers(2, 12), st.integers(1, 3), st.booleans(), st.booleans(),
)  # fmt: skip


def model_of(layer, n_layer=3, dropout=0.2, dtype=torch.float32):
    return gpt(layer, n_layer, dropout if layer.dropout else 0.0, 11, 0, "cpu", dtype)


def batch_for(layer):
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randint(11, (layer.b, layer.s), generator=rng) for _ in range(2))


def gradients(model, batch, how, seed=5):
    """Of one step whose layers run through `how`, in one piece."""
    model.zero_grad()
    with DropoutState(seed, "cpu"):
        x = model.begin(batch[0])
        for layer in model.layers:
            x = how(layer, x)
        model.end(x, batch[1]).backward()
    return [weight.grad for weight in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def plain(layer, x):
    return layer(x)


def by_torch(layer, x):
    return checkpoint(layer, x, use_reentrant=False)


# --- the trick --------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(shapes)
def test_our_checkpoint_is_torchs_and_changes_no_gradient(layer):
    model, batch = model_of(layer), batch_for(layer)
    assert same(gradients(model, batch, plain), gradients(model, batch, recompute))
    assert same(gradients(model, batch, plain), gradients(model, batch, by_torch))


def test_the_walk_in_units_gives_the_gradients_of_one_backward():
    layer = Layer(8, 2, 16, 4)
    model, batch = model_of(layer, 5), batch_for(layer)
    whole = gradients(model, batch, plain)
    for segments in ([(0,), (1,), (2,), (3,), (4,)], [(0, 1), (2, 3), (4,)], [(0, 1, 2, 3, 4)]):
        for through in (
            lambda segment, x: run(model, segment, x),
            lambda segment, x: checkpoint(run, model, segment, x, use_reentrant=False),
        ):
            model.zero_grad()
            walk, rng = Walk(model, batch, segments, through), DropoutState(5, "cpu")
            for _, _, work in walk.units():
                with rng:
                    work()
            assert same(whole, [weight.grad for weight in model.parameters()])


def run(model, segment, x):
    for number in segment:
        x = model.layers[number](x)
    return x


def test_another_random_state_changes_gradients_only_where_there_is_dropout():
    def forgetful(layer, x):
        return checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)

    layer = Layer(8, 2, 16, 4)
    model, batch = model_of(layer), batch_for(layer)
    assert not same(gradients(model, batch, plain), gradients(model, batch, forgetful))
    sure = replace(layer, dropout=False)
    model = model_of(sure)
    assert same(gradients(model, batch, plain), gradients(model, batch, forgetful))


def test_dropout_depends_on_the_seed_and_give_the_global_state_back():
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with (rng := DropoutState(seed, "cpu")):
            first = torch.rand(3)
        with rng:
            drawn.append((first, torch.rand(3)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[2][0]) and not torch.equal(drawn[0][0], drawn[0][1])


def test_attention_written_out_is_fused_attention():
    """And the layer is GPT-2's as torch computes it: the same weights, other kernels."""
    layer = Layer(10, 2, 16, 4, dropout=False)
    a, b = model_of(layer), model_of(replace(layer, fused=True))
    x = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(a.layers[0](x), b.layers[0](x), atol=1e-5)
    assert not torch.allclose(a.layers[0](x), x, atol=0.1)


# --- what is kept -----------------------------------------------------------------------------------------------------


def weighed(layer, how=plain, dtype=torch.bfloat16, n_layer=2):
    """Bytes that autograd keeps at the end of a forward pass: of layer 0 and of what follows the last."""
    model, batch = model_of(layer, n_layer, dtype=dtype), batch_for(layer)
    ledger = Ledger(model, *batch)
    with ledger, DropoutState(0, "cpu"):
        x = model.begin(batch[0])
        for block in model.layers:
            x = how(block, x)
        loss = model.end(x, batch[1])
    told = [sum(tensor.nbytes for tensor in ledger.alive.values() if tensor.layer == number) for number in (0, n_layer)]
    loss.backward()
    del x  # what we hold ourselves
    assert not ledger.alive, "the backward pass lets go of everything"
    ledger.close()
    return told


@given(shapes)
def test_a_layer_keeps_what_the_formula_says_and_the_norms_statistics(layer):
    kept_by_layer, by_head = weighed(layer)
    statistics = 8 * layer.s * layer.b  # two norms, two numbers of two bytes per token
    assert kept_by_layer == pytest.approx(kept_bytes(layer) + statistics, abs=1e-6)
    assert (
        0 <= by_head - head_bytes(layer, 11) <= 4 * layer.s * layer.b + 4
    )  # its norm's statistics, one number of the loss


@given(shapes)
def test_a_checkpointed_layer_keeps_its_input(layer):
    assert weighed(layer, recompute)[0] == kept_bytes(layer, "full") == 2 * layer.sbh


def test_in_32_bits_all_is_twice_as_large():
    layer = Layer(12, 2, 16, 4, mask=2)
    wide = replace(layer, number=4, mask=4)
    assert weighed(wide, dtype=torch.float32)[0] == 2 * weighed(layer)[0] == 2 * kept_bytes(layer) + 16 * 24


@pytest.mark.parametrize(("s", "fused", "told"), GOLDEN["bytes_per_sbh_cpu_bf16_h512_a8"])
def test_the_numbers_measured_before(s, fused, told):
    layer = Layer(s, 1, 512, 8, fused, mask=2)
    assert weighed(layer, n_layer=1)[0] / layer.sbh == pytest.approx(told, abs=6e-4)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 64))
def test_the_paper_s_sums(s, b, half):
    """34 + 5as/h and its relatives, from the list of parts."""
    a, h = 8, 16 * half
    layer, square = Layer(s, b, h, a), a * s / h
    assert per_sbh(layer) == pytest.approx(34 + 5 * square)
    assert per_sbh(replace(layer, mask=2)) == pytest.approx(36 + 6 * square)
    for t in (1, 2, 8):
        assert per_sbh(layer, "none", t) == pytest.approx(10 + 24 / t + 5 * square / t)
        assert per_sbh(layer, "none", t, True) == pytest.approx((34 + 5 * square) / t)
        assert per_sbh(layer, "selective", t) == pytest.approx(10 + 24 / t)
        assert per_sbh(layer, "selective", t, True) == pytest.approx(34 / t)
    assert per_sbh(layer, "full") == 2 and per_sbh(replace(layer, fused=True)) == pytest.approx(34 + 4 * a / h)


def test_llama_keeps_what_is_counted_and_its_norms_more():
    layer = Layer(12, 2, 32, 4, True, False, dialect="llama", mlp=80, key_heads=2, mask=2)
    block = LlamaBlock(layer)
    draw_weights(block, 0)
    ledger = Ledger(Stack([block.to(torch.bfloat16)], 1, 1, 1))
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    with ledger:
        y = block(x)
    names = {tensor.name for tensor in ledger.alive.values()}
    told = sum(tensor.nbytes for tensor in ledger.alive.values())
    ledger.close()
    assert y.shape == x.shape and {"gate", "silu", "down input"} <= names
    assert per_sbh(layer) == 12 + 4 * 2 / 4 + 8 * 80 / 32 + 4 * 4 / 32
    norms = 2 * (
        2 * 4 * layer.sbh - 2 * layer.sbh + 4 * layer.s * layer.b
    )  # input and result in 32 bits, and the scale
    assert told == kept_bytes(layer) + norms


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_masks_take_one_byte():
    figures = by_figure(result for step in kept(KeptConfig()) for result in step.figures)
    assert figures[LAYER_PAPER].expected == 54
    assert figures[LAYER_PAPER].measured == pytest.approx(54, abs=0.15)  # statistics are in 32 bits there
    assert figures[NORM_STATISTICS].expected == 16 / 128
    assert figures[NORM_STATISTICS].gap == pytest.approx(0, abs=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU stores statistics in 32 bits")
def test_on_a_cpu_norms_keep_8_over_h():
    figures = by_figure(result for step in kept(KeptConfig(n_layer=1)) for result in step.figures)
    assert figures[NORM_STATISTICS].measured == figures[NORM_STATISTICS].expected == 8 / 128


# --- memory, FLOPs and ways -------------------------------------------------------------------------------------------


def test_live_counts_what_is_born_and_freed_and_leaves_the_rest_out():
    live, there = Live(2, "cpu"), torch.zeros(100, dtype=torch.uint8)
    live.leave_out([there])
    with live:
        mine = live.owned(1, lambda: torch.zeros(300, dtype=torch.uint8))()
        view = there[10:20]
        passing = torch.zeros(50, dtype=torch.uint8)
        part = mine[:5]
    _, rows = live.take(5)
    assert rows[-1].tolist() == [0, 300, 0, 0, 0, 50] and view.numel() == 10
    del passing
    with live:
        live.again = True
        live.owned(1, lambda: torch.zeros(7, dtype=torch.uint8))()
    _, rows = live.take(9)
    assert rows.max(0).tolist() == [0, 300, 0, 0, 7, 50] and rows[-1].tolist() == [0, 300, 0, 0, 0, 0]
    del mine
    assert live.take(5)[1][-1].sum() == 300, "a view holds the storage"
    del part
    assert live.take(5)[1][-1].sum() == 0


@pytest.fixture(scope="module")
def default_tradeoff():
    one = find("gradient_checkpointing", "tradeoff")
    config = TradeoffConfig(n_layer=4, context=32, width=32)
    steps = list(tradeoff(config))
    return drain(iter(steps), Recorder(one, config)).figures, steps


@pytest.mark.parametrize("how", [plain, by_torch])
def test_flops_are_those_of_torch_s_counter(how):
    layer = Layer(8, 2, 16, 4)
    model, batch, ours, theirs = model_of(layer), batch_for(layer), Flops(), FlopCounterMode(display=False)
    with ours:
        gradients(model, batch, how)
    with theirs:
        gradients(model, batch, how)
    assert 0 < ours.weights < ours.every == theirs.get_total_flops()


def test_flops_are_the_golden_ones(default_tradeoff):
    figures, _ = default_tradeoff
    golden = GOLDEN["flops"]
    assert figures[WEIGHT_FLOPS].measured == pytest.approx(golden["stopped_early"], abs=5e-4)
    whole = figures[STEP_FLOPS_WHOLE.of(way="every layer")].measured
    assert figures[WEIGHT_FLOPS_WHOLE].measured == whole == golden["to_the_end"]
    counted = [result for result in figures.values() if result.unit == "forward passes"]
    assert len(counted) == 6 and all(result.gap == pytest.approx(0, abs=1e-9) for result in counted)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("network", ["gpt", "chain"])
def test_flops_of_every_way_are_the_formula_s(network, dropout):
    *_, last = tradeoff(TradeoffConfig(network=network, n_layer=5, context=16, width=16, dropout=dropout))
    assert {name for name, *_ in last.flops} >= set(last.names)
    for name, early, told_early, whole, told_whole in last.flops:
        assert early == pytest.approx(told_early) and whole == pytest.approx(told_whole), name
    assert {name: whole for name, _, _, whole, _ in last.flops}["none"] == GOLDEN["flops"]["none"]


def test_peaks_are_the_formula_s_and_the_gradient_on_its_way(default_tradeoff):
    figures, _ = default_tradeoff
    layer = TradeoffConfig(n_layer=4, context=32, width=32).costs(1).layer
    peaks = [result for result in figures.values() if result.name.startswith("peak memory, ")]
    assert len(peaks) == 5
    for peak in peaks:
        assert -0.01 * peak.expected <= peak.gap <= 12 * layer.sbh * layer.number / 1e6, peak.name


def test_gradients_are_equal_and_differ_when_the_random_state_is_not_saved(default_tradeoff):
    figures, steps = default_tradeoff
    assert figures[GRADIENT_ERROR].measured == 0 and len(steps[-1].apart) == len(steps[-1].names)
    apart = dict(list(tradeoff(TradeoffConfig(n_layer=2, context=16, width=16, forget=True)))[-1].apart)
    assert apart.pop("none") == 0 and apart and all(size > 0.01 for size in apart.values())


def test_in_the_chain_the_square_root_is_best():
    *_, last = tradeoff(TradeoffConfig(network="chain", n_layer=25, context=16, width=16, every=2))
    peaks = dict(zip(last.names, (dict(last.peaks)[name] for name in last.names), strict=True))
    assert min(peaks, key=peaks.get) == "every 5th = √n" and peaks["every 5th = √n"] < 0.5 * peaks["none"]


@pytest.mark.parametrize(("n", "k", "units"), GOLDEN["chen_units"])
def test_chen_s_units(n, k, units):
    """n / k + k units of memory; the formula counts whole segments, and the last output once more."""
    costs = Costs(Layer(1, 1, 1, 1, number=1), n, 0, chain=True)
    assert n / k + k == pytest.approx(units, abs=0.01)
    assert costs.segment_bytes(k) == math.ceil(n / k) + k


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_ways_cover_all_layers_in_order(n, every, is_chain):
    found = ways(n, every, is_chain)
    assert len({way.name for way in found}) == len(found) and found[0].k == 0 and any(way.k == 1 for way in found)
    for way in found:
        assert [number for segment in way.segments(n) for number in segment] == list(range(n))


@given(st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_the_sawtooth_starts_and_ends_at_nothing_and_peaks_at_the_peak(n, every, is_chain):
    costs = Costs(Layer(8, 2, 16, 4, number=4, mask=4), n, 11, is_chain)
    for way in ways(n, every, is_chain):
        points = sawtooth(costs, way, early_stop=True)
        assert points[0] == (0, 0) and points[-1] == pytest.approx((costs.ratio(way, True), 0), abs=1e-6)
        assert all(b[0] >= a[0] for a, b in pairwise(points))
        assert max(size for _, size in points) == pytest.approx(costs.peak(way)) or n % max(1, way.k)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_nothing_beats_the_front(points):
    told = [(str(number), x, y) for number, (x, y) in enumerate(points)]
    best = front(told)
    where = {name: (x, y) for name, x, y in told}
    for name, x, y in told:
        beaten = any(u <= x and v <= y and (u, v) != (x, y) for _, u, v in told)
        assert (name in best) != beaten
    assert [where[name][0] for name in best] == sorted(where[name][0] for name in best)


def test_a_hundredth_less_memory_is_no_gain():
    points = [("none", 1.0, 100.0), ("one for all", 1.3, 99.5), ("every layer", 1.4, 10.0)]
    assert front(points) == ("none", "one for all", "every layer") and front(points, slack=0.01) == (
        "none",
        "every layer",
    )


# --- big models -------------------------------------------------------------------------------------------------------


def layer_of(key, s=2048):
    return replace(BIG[key].layer, s=s, b=1)


def test_golden_numbers_of_the_paper():
    for key, told in GOLDEN["5as_over_h"].items():
        assert 5 * layer_of(key).square == pytest.approx(told, abs=1e-3)
    for table, digits in (("saved_percent", 0), ("saved_percent_computed", 1)):
        assert {key: round(saved_percent(layer_of(key)), digits) for key in GOLDEN[table]} == GOLDEN[table]
    assert {key: round(slower_percent(BIG[key], layer_of(key))[0], 1) for key in GOLDEN["slower_percent"]} == GOLDEN[
        "slower_percent"
    ]
    for key, told in GOLDEN["slower_percent_core_forward"].items():
        assert slower_percent(BIG[key], layer_of(key))[1] == pytest.approx(told, abs=6e-3)


def test_golden_bytes_of_gpt3():
    model, layer = BIG["gpt3"], layer_of("gpt3")
    assert round(kept_bytes(layer) / 1e9, 3) == GOLDEN["gpt3_layer_gb"]
    for way, gib in GOLDEN["gpt3_layer_gib"].items():
        assert gpu_bytes(model, layer, way, 8) / model.n_layer / 2**30 == pytest.approx(gib, abs=6e-4), way
    assert round(gpu_bytes(model, layer, "none", 8) / 1e9) == GOLDEN["gpt3_all_layers_gb"]


@pytest.mark.parametrize("key", list(BIG))
def test_the_small_layer_keeps_what_the_big_one_would(key):
    steps = list(big(BigConfig(model=key)))
    measured, formula = dict(steps[-1].measured), {way: here for way, _, here in steps[0].formula}
    assert measured.keys() == formula.keys() and measured["full"] == 2
    for way, size in measured.items():
        if way != "full":
            assert size - formula[way] == pytest.approx(8 / 128 + (12 if key.startswith("llama") else 0)), way
    assert steps[0].small[1] == 128 and [name for name, _ in steps[0].bars] == list(WAYS)


@given(
    st.sampled_from(list(BIG)),
    st.integers(1, 100_000),
    st.integers(1, 16),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
)
def test_bars_are_ordered(key, context, batch, ranks, fused):
    layer = replace(
        BigConfig(model=key, context=context, batch=batch, attention="fused" if fused else "written").layer(key)
    )
    size = {way: gpu_bytes(BIG[key], layer, way, ranks) for way in WAYS}
    assert (
        size["none"] >= size["tensor"] >= size["tensor + sequence"] * (1 - 1e-9) >= size["all three"] * (1 - 2e-9) > 0
    )
    assert size["tensor"] >= size["tensor + selective"] >= size["all three"] * (1 - 1e-9)
    assert sum(part.per_sbh for part in parts(layer)) == pytest.approx(per_sbh(layer))


# --- bad input, and what is left behind -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n", "layers"),
    [("", 3, ()), ("none", 3, ()),
     ("ALL", 3, (0, 1, 2)), ("even", 4, (1, 3)), ("odd", 3, (0, 2)), ("2, 4", 4, (1, 3)), ("1-3;3", 4, (0, 1, 2)), ("4 - 4", 4, (3,))],
)  # fmt: skip
def test_layers_are_read(text, n, layers):
    assert parse_layers(text, n) == layers


@pytest.mark.parametrize("text", ["5", "0", "3-2", "two", "1,,9", "-1", "²", "1-2-3", "1e9"])
def test_layers_that_are_not_there_get_their_sentence(refusal, text):
    assert (
        refusal(KeptConfig, layers=text)
        == f"layers must be all, none, even, odd or numbers from 1 to 4, such as 2, 4 or 1-3, got {text!r}"
    )


def test_other_bad_settings_get_theirs(refusal):
    assert (
        refusal(KeptConfig, width=130) == "width must be a multiple of the number of heads, got width 130 and 4 heads"
    )
    assert refusal(KeptConfig, batch=16) == "batch x context must be at most 1024 tokens, got 16 x 128 = 2048"
    assert "must be at most 4 million" in refusal(KeptConfig, context=512, batch=2, n_head=16)
    assert refusal(TradeoffConfig, width=256, n_layer=48).startswith(
        "the layers' forward pass may take 1.8 billion operations, got 2"
    )
    assert refusal(BigConfig, ranks=5) == "ranks must divide the 96 heads of GPT-3, 175B, got 5"


def test_more_layers_than_memory_are_refused_before_they_are_tried(refusal, monkeypatch):
    monkeypatch.setattr(block_module, "free_bytes", lambda: 20e6)
    told = refusal(lambda: next(kept(KeptConfig(n_layer=24))))
    assert (
        told.startswith("24 layers would keep 0.047 GB, and one run may take 0.005 GB here") and "fewer layers" in told
    )
    assert refusal(lambda: next(tradeoff(TradeoffConfig()))).startswith("12 layers would keep 0.048 GB")


@pytest.mark.parametrize(
    ("start", "stop"),
    [(lambda: kept(KeptConfig(n_layer=2)), 4), (lambda: tradeoff(TradeoffConfig(n_layer=2, context=16, width=16)), 5)],
)
def test_nothing_is_left_behind_however_it_ends(start, stop):
    list(start())
    list(big(BigConfig()))

    def tensors():
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    state = torch.get_rng_state()
    before = tensors()
    for ends in (stop, 10**6):
        steps = start()
        for number, _ in enumerate(steps):
            if number == ends:
                break
        steps.close()
    list(big(BigConfig()))
    assert tensors() <= before and torch.equal(torch.get_rng_state(), state)


# --- as experiments ---------------------------------------------------------------------------------------------------


def test_the_bricks_fall_and_the_counters_tick():
    steps = list(kept(KeptConfig(layers="2", n_layer=3)))
    first, second = (next(step for step in steps if (step.run, step.phase) == (number, "loss")) for number in (1, 2))
    sums = [
        {n: sum(size for layer, _, size in step.tensors if layer == n) for n in range(3)} for step in (first, second)
    ]
    assert sums[0][1] == pytest.approx(60.0625 if not this_machine().gpu else 54, abs=0.2) and sums[1] == sums[0] | {
        1: 2.0
    }
    again = next(step for step in steps if step.phase == "again")
    assert sum(size for layer, _, size in again.tensors if layer == 1) == pytest.approx(sums[0][1])
    last = [step for step in steps if step.phase == "backward"][-1]
    assert last.forwards == (1, 2, 1) and last.tensors == ()
    assert steps[-1].figures[0].figure == LAYER and not steps[0].tensors


def test_the_same_seed_gives_the_same_run():
    def told(seed):
        steps = kept(KeptConfig(n_layer=2, seed=seed))
        return [step.plain() for step in steps]

    assert told(3) == told(3)
    one, same_again = (
        [step.curve for step in tradeoff(TradeoffConfig(n_layer=2, context=16, width=16)) if step.curve]
        for _ in range(2)
    )
    assert one == same_again


def test_the_seed_decides_the_weights():
    layer = Layer(8, 2, 16, 4)
    a, b, c = (gpt(layer, 2, 0.1, 11, seed, "cpu", torch.float32) for seed in (0, 0, 1))
    assert same(list(a.parameters()), list(b.parameters())) and not same(list(a.parameters()), list(c.parameters()))
    assert len(chain(3, 8, 4, 11, 0, "cpu").layers) == 3 and Way("every_2", "", 2).segments(3) == [(0, 1), (2,)]


# --- the lesson -------------------------------------------------------------------------------------------------------


def outcome_of(name, **settings):
    experiment = find("gradient_checkpointing", name)
    config = experiment.config_type(**settings)
    return drain(experiment.run(config), Recorder(experiment, config)).outcome


@pytest.mark.skipif(torch.cuda.is_available(), reason="the answers of a CPU's masks")
def test_the_questions_are_decided_by_the_run():
    fewer = {
        "12 transformer": {"context": 32, "width": 32},
        "36 layers": {"context": 16, "width": 16},
        "The random": {"n_layer": 2, "context": 16, "width": 16},
    }
    right = []
    for ask in (step for step in LESSON.steps if isinstance(step, Ask)):
        less = next((settings for start, settings in fewer.items() if ask.text.startswith(start)), {})
        index, because = verdict(ask, outcome_of(ask.experiment, **(dict(ask.settings) | less)))
        assert because.endswith(".")
        right.append(ask.answers[index])
    assert right == [
        "less than a tenth",
        "between 2 and 4 times",
        "each layer by itself",
        "6 layers, the square root of 36",
        "more than 1 % of the largest",
        "less than 5 %",
    ]


def test_what_was_seen_follows_the_numbers():
    def said(name, **settings):
        return takeaways(find("gradient_checkpointing", name), outcome_of(name, **settings))

    small = {"n_layer": 2, "context": 16, "width": 16}
    assert said("tradeoff", **small)[2].startswith("All gradients differ by 0")
    assert "is off by" in said("tradeoff", **small, forget=True)[2]
    assert "does not fit" in said("big", model="gpt3", batch=4)[0] and "saves 70 %" in said("big")[1]
    assert "fused attention never stores" in said("big", model="llama3_8b")[-1]
    assert "0 of 2 layers" in said("kept", **small, layers="none")[0]
