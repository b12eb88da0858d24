"""QLoRA: our codes are bitsandbytes' to the last bit, a block's fate is its own, and weights in place do what
Linear4bit does.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.recorder import Recorder, drain
from core.foundations.turns import without_pauses
from core.qlora import MicroscopeConfig, microscope
from core.qlora.codes import (
    code_of,
    dequantise,
    dequantise_constants,
    dynamic8,
    float4,
    formula_bits,
    integers,
    normal_float,
    packed,
    quantise,
    quantise_constants,
    round_trip,
    unpacked,
)
from core.qlora.damage import rounded
from core.qlora.layer import by_library, differing, load_matrix
from core.qlora.microscope import (
    BITS,
    BLOCKS_CHANGED,
    CODES,
    OTHER_CODES,
    OTHER_ERROR,
    PLAIN_BITS,
    entropy_bits,
    relative_error,
)

library = pytest.importorskip("bitsandbytes.functional")

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "qlora.json").read_text())
FOUR_BITS, BLOCKS = ("nf4", "fp4"), (32, 64, 256, 1024, 4096)


def numbers(seed, rows=64, wide=192, heavy=False):
    """Normal numbers, or with heavy tails as some layers have them."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, wide, generator=rng)
    return drawn**3 if heavy else drawn


# --- the levels -------------------------------------------------------------------------------------------------------


def test_nf4_is_built_as_in_the_paper():
    """Its levels are the library's and the golden ones, bit by bit; zero is exact; 8 quantiles above it, 7 below."""
    levels = normal_float(4)
    assert torch.equal(levels, library.get_4bit_type("nf4", device="cpu"))
    assert levels.tolist() == GOLDEN["nf4_levels"]
    assert int((levels > 0).sum()) == 8 and int((levels < 0).sum()) == 7 and 0.0 in levels.tolist()


def test_fp4_and_the_8_bit_code_are_the_library_s():
    assert torch.equal(float4(), library.get_4bit_type("fp4", device="cpu"))
    assert torch.equal(dynamic8(), library.create_dynamic_map())


@pytest.mark.parametrize("bits", [4, 8])
def test_even_levels_are_the_library_s(bits):
    """Ours are k/7 and k/127; the library counts them up in float32, which leaves a rounding error, and adds zeros to
    make 256.
    """
    theirs = library.create_linear_map(total_bits=bits).unique()
    near = theirs[:, None].sub(integers(bits)[None]).abs()
    assert near.amin(0).max() < 1e-6 and near.amin(1).max() < 1e-6


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_normal_float_of_any_width(bits):
    levels = normal_float(bits)
    assert len(levels) == 2**bits and levels[0] == -1 and levels[-1] == 1 and (levels.diff() > 0).all()
    assert (levels == 0).sum() == 1


# --- equal to bitsandbytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOUR_BITS)
@pytest.mark.parametrize("block", BLOCKS)
@given(seed=st.integers(0, 2**31 - 1), heavy=st.booleans(), scale=st.sampled_from([1e-4, 0.02, 1.0, 300.0]))
def test_four_bits_are_the_library_s(kind, block, seed, heavy, scale):
    """Flat, since bitsandbytes 0.50 on a CPU misreads a block that goes on in the next row of a matrix; it stores both
    the same.
    """
    weight = numbers(seed, heavy=heavy) * scale
    ours = quantise(weight, kind, block)
    theirs, state = library.quantize_4bit(weight.flatten(), blocksize=block, quant_type=kind)
    assert torch.equal(packed(ours.numbers), theirs.flatten())
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(library.quantize_4bit(weight, blocksize=block, quant_type=kind)[0], theirs)
    if block < 2048:  # above, the library compiles its own dequantising on some processors, which takes seconds
        assert torch.equal(dequantise(ours).flatten(), library.dequantize_4bit(theirs, state).flatten())


@pytest.mark.parametrize("kind", FOUR_BITS)
@given(seed=st.integers(0, 2**31 - 1), heavy=st.booleans(), rows=st.sampled_from([8, 64, 86, 256]))
def test_double_quantisation_is_the_library_s(kind, seed, heavy, rows):
    """Also where the last 256 constants are fewer."""
    weight = numbers(seed, rows, 192, heavy)
    ours = quantise(weight, kind)
    constants = quantise_constants(ours.absmax)
    theirs, state = library.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=True)
    assert torch.equal(constants.numbers, state.absmax)
    assert torch.equal(constants.absmax, state.state2.absmax) and constants.mean == state.offset
    assert torch.equal(dequantise(ours, dequantise_constants(constants)), library.dequantize_4bit(theirs, state))


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("block", BLOCKS)
@given(seed=st.integers(0, 2**31 - 1), heavy=st.booleans())
def test_even_steps_are_the_library_s(kind, block, seed, heavy):
    weight = numbers(seed, heavy=heavy)
    ours, levels = quantise(weight, kind, block), code_of(kind).levels
    theirs, state = library.quantize_blockwise(
        weight, code=torch.cat([levels, torch.full((256 - len(levels),), 2.0)]), blocksize=block
    )
    assert torch.equal(ours.numbers, theirs.flatten()) and torch.equal(ours.absmax, state.absmax)
    assert torch.equal(dequantise(ours), library.dequantize_blockwise(theirs, state))


def test_a_block_of_zeros_stays_zero():
    weight = numbers(0)
    weight[0] = 0
    for kind in ("nf4", "fp4", "int8", "int4", "nf3", "nf2"):
        back = round_trip(weight, kind)
        assert torch.isfinite(back).all() and (back[0] == 0).all()


def test_two_numbers_make_a_byte():
    four = torch.tensor([1, 2, 15, 0], dtype=torch.uint8)
    assert packed(four).tolist() == [0x12, 0xF0] and torch.equal(unpacked(packed(four)), four)


@pytest.mark.parametrize("kind", FOUR_BITS)
def test_rounding_through_the_library_is_ours(kind):
    weight = numbers(3)
    assert torch.equal(rounded(weight, kind), round_trip(weight, kind))


# --- what the codes promise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int4", "int8", "nf3", "nf2"])
@given(seed=st.integers(0, 2**31 - 1), heavy=st.booleans())
def test_no_error_is_larger_than_half_a_gap(kind, seed, heavy):
    weight = numbers(seed, heavy=heavy)
    stored = quantise(weight, kind)
    half_gap = stored.code.levels.sort().values.diff().max() / 2
    worst = ((dequantise(stored) - weight).view(-1, 64).abs().amax(1) / stored.absmax).max()
    assert worst <= half_gap + 2e-5  # the library's table of 65,536 places may miss the nearest level by that


@given(seed=st.integers(0, 2**31 - 1), at=st.integers(0, 64 * 192 - 1), times=st.floats(2, 1000))
def test_an_outlier_is_its_own_block_s_business(seed, at, times):
    weight = numbers(seed)
    larger = weight.clone()
    larger.view(-1)[at] *= times
    before, after = quantise(weight, "nf4"), quantise(larger, "nf4")
    others = torch.arange(weight.numel()) // 64 != at // 64
    assert torch.equal(before.numbers[others], after.numbers[others])
    assert int((before.absmax != after.absmax).sum()) <= 1


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int4"])
def test_the_error_on_normal_numbers_is_the_golden_one(kind):
    noise = numbers(0, 1024, 1024)
    assert relative_error(noise, round_trip(noise, kind)) == pytest.approx(
        GOLDEN["error_on_normal_numbers"][kind], abs=2e-4
    )


def test_nf4_errs_least_and_uses_its_codes_best_on_normal_numbers():
    noise, errors, used = numbers(1, 1024, 1024), {}, {}
    for kind in ("nf4", "fp4", "int4"):
        stored = quantise(noise, kind)
        errors[kind] = relative_error(noise, dequantise(stored))
        used[kind] = entropy_bits(np.bincount(stored.numbers.numpy()) / noise.numel())
    assert errors["nf4"] == min(errors.values()) and used["nf4"] == max(used.values()) < 4


def test_bits_by_formula_and_by_weight():
    """Weighed from the library's own tensors, tables of levels aside."""
    assert formula_bits("nf4", 64, False) == GOLDEN["bits_block_64"]
    assert formula_bits("nf4", 64, True) == GOLDEN["bits_block_64_double"]
    assert GOLDEN["bits_block_64"] - GOLDEN["bits_block_64_double"] == GOLDEN["saved_by_double"]
    noise = numbers(0, 1024, 1024)
    for double in (False, True):
        kept = dict(by_library(noise, "nf4", 64, double).tensors)
        tables = sum(tensor.nbytes for name, tensor in kept.items() if name.startswith("table"))
        mean = kept["their mean"].nbytes if double else 0
        bits = 8 * (sum(tensor.nbytes for tensor in kept.values()) - tables - mean) / noise.numel()
        assert bits == formula_bits("nf4", 64, double)
        assert tables == (64 + 1024 if double else 64) and mean == (4 if double else 0)


def test_a_block_must_fit(refusal):
    assert (
        refusal(quantise, torch.ones(3, 50), "nf4", 64)
        == "block must divide the number of weights, got 64 for 150 weights"
    )


# --- microscope -------------------------------------------------------------------------------------------------------


def run(experiment, config):
    return drain(experiment(config), Recorder(experiment.experiment, config)).figures


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int4", "int8"])
@pytest.mark.parametrize(("block", "double"), [("64", False), ("64", True), ("4096", False)])
def test_the_microscope_finds_our_codes_equal(kind, block, double):
    figures = run(microscope, MicroscopeConfig(kind=kind, block=block, double=double))
    assert figures[CODES].measured == 0
    assert figures[PLAIN_BITS].measured == pytest.approx(formula_bits(kind, int(block), double), abs=0.01)
    assert figures[BITS].gap >= 0
    assert figures[OTHER_CODES].measured == 0
    if not double:
        assert figures[BLOCKS_CHANGED].measured == 1
        assert figures[OTHER_ERROR].measured == figures[OTHER_ERROR].expected


def test_differing_codes_would_be_counted():
    """The count can be other than 0."""
    weight = numbers(0)
    stored = by_library(weight, "nf4", 64, True)
    assert differing(weight, stored, "nf4", True) == 0
    assert differing(-weight, stored, "nf4", True) > 1000
    assert differing(weight, replace(stored, small=255 - stored.small), "nf4", True) > 100


def test_the_film_ends_with_every_weight_at_a_level():
    steps = [step for step in microscope(MicroscopeConfig(outlier=1.0)) if step.histogram is not None]
    first, last = steps[0], steps[-1]
    assert all(step.histogram.sum() == pytest.approx(1) for step in steps)
    assert not first.error_map.any() and last.error_map.any()
    assert np.count_nonzero(last.histogram) == 16 < np.count_nonzero(first.histogram)
    assert [step.moved for step in steps] == sorted(step.moved for step in steps)


def test_an_outlier_of_1_is_none():
    figures = run(microscope, MicroscopeConfig(outlier=1.0))
    assert BLOCKS_CHANGED not in figures


def test_with_double_quantisation_all_blocks_share_a_mean():
    figures = run(microscope, MicroscopeConfig(double=True))
    changed, error = figures[BLOCKS_CHANGED], figures[OTHER_ERROR]
    assert changed.measured > 0.9 * changed.expected
    assert 0 < abs(error.measured - error.expected) < 0.01 * error.expected


def test_a_layer_that_is_not_there(refusal):
    assert refusal(run, microscope, MicroscopeConfig(layer=9)) == "layer must be at most 4 for this model, got 9"


def test_a_matrix_of_a_hub_model_in_several_files(tmp_path, monkeypatch):
    """A sharded model in the hub's format: one tensor is read, and of a large one the first rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    assert (tmp_path / "model.safetensors.index.json").exists()

    def there(model):
        yield
        return tmp_path

    monkeypatch.setattr("core.foundations.base_model.fetched", there)
    monkeypatch.setattr("core.qlora.layer.MOST_WEIGHTS", 2**14)
    got = without_pauses(load_matrix("HuggingFaceTB/SmolLM2-135M", 2, "up_proj"))
    assert torch.equal(got, model.model.layers[1].mlp.up_proj.weight[:128])
    steps = list(microscope(MicroscopeConfig(model="HuggingFaceTB/SmolLM2-135M", matrix="k_proj", layer=1)))
    assert "fetching" in steps[0].doing and steps[1].histogram is not None
