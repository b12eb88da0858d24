"""Model files from anywhere: what is right comes back bit for bit, what is wrong gets one sentence and nothing else."""

import json
import pickle

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import MODEL_FILE_BYTES, ModelCache, from_bytes, gpt2_from_folder, to_bytes

SYMBOLS = "\nabcé"
MODEL = Transformer(Shape(5, 1, 2, 8, 8))


def file_of(tensors=None, **config):
    """A valid file, but for what is named here."""
    told = MODEL.shape.as_dict() | {"symbols": SYMBOLS, "corpus": "play"} | config
    weights = {name: tensor.contiguous() for name, tensor in (MODEL.state_dict() | (tensors or {})).items()}
    return safetensors.torch.save(
        weights, metadata={"config": json.dumps({name: value for name, value in told.items() if value is not None})}
    )


def load(data):
    return from_bytes(data).build()


VALID = to_bytes(MODEL, SYMBOLS, "play")


@pytest.mark.parametrize("dialect", ["modern", "gpt2"])
def test_a_file_brings_the_model_back(dialect, lively):
    model = lively(Shape(5, 2, 2, 8, 8, dialect, bias=dialect == "gpt2", tied=dialect == "gpt2"))
    file = from_bytes(to_bytes(model, SYMBOLS, "play"))
    assert (file.shape, file.symbols, file.corpus) == (model.shape, SYMBOLS, "play")
    built = file.build().state_dict()
    assert built.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in built.items())


def test_half_precision_comes_back_rounded(lively):
    model = lively(MODEL.shape)
    built = load(to_bytes(model, SYMBOLS, "play", torch.float16)).state_dict()
    assert all(torch.equal(tensor, model.state_dict()[name].half().float()) for name, tensor in built.items())


def test_the_helper_writes_a_valid_file():
    assert from_bytes(file_of()).shape == MODEL.shape


BROKEN = "The model file is not a whole safetensors file; only safetensors are read, never pickles"
FOREIGN = "The model file carries no config of this app: upload a model.safetensors that was downloaded here"
WRONG = "The model file's config is wrong: "
UNFIT = "The model file does not fit its own config: "
EMBED = torch.zeros(5, 8)
BAD = {
    "nothing": (b"", BROKEN),
    "a pickle": (pickle.dumps({"embed.weight": [0.0] * 40}), BROKEN),
    "truncated": (VALID[:-1], BROKEN),
    "only a header": (VALID[:200], BROKEN),
    "too large": (bytes(MODEL_FILE_BYTES + 100_000), "The model file must be at most 32 MB, got 32.1 MB"),
    "no config": (safetensors.torch.save({"embed.weight": EMBED}), FOREIGN),
    "config is a list": (safetensors.torch.save({"embed.weight": EMBED}, metadata={"config": "[]"}), FOREIGN),
    "config is no JSON": (safetensors.torch.save({"embed.weight": EMBED}, metadata={"config": "{"}), FOREIGN),
    "no width": (file_of(width=None), FOREIGN),
    "a transposed tensor": (file_of({"embed.weight": EMBED.T}), UNFIT + "embed.weight should be 5 x 8, it is 8 x 5"),
    "a tensor too many": (file_of({"extra": torch.zeros(2)}), UNFIT + "extra should be absent, it is 2"),
    "width is text": (file_of(width="8"), WRONG + "width must be int, got '8'"),
    "bias is a number": (file_of(bias=1), WRONG + "bias must be bool, got '1'"),
    "huge width": (file_of(width=10**6), WRONG + "width must be from 1 to 1024, got 1000000"),
    "huge context": (file_of(context=10**9), WRONG + "context must be from 1 to 4096, got 1000000000"),
    "negative width": (file_of(width=-8), WRONG + "width must be from 1 to 1024, got -8"),
    "no layers": (file_of(n_layer=0), WRONG + "n_layer must be from 1 to 24, got 0"),
    "too many weights": (
        file_of(width=1024, n_layer=24),
        "The model may have at most 16,000,000 parameters in its layers, got 301,989,888",
    ),
    "not a number": (
        file_of({"embed.weight": EMBED / 0}),
        "The model file holds numbers that are not finite, so it cannot write",
    ),
    "too few symbols": (file_of(symbols="abc"), WRONG + "it names 3 characters for a vocabulary of 5"),
}


@pytest.mark.parametrize(("data", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_file_gets_its_sentence(data, sentence, refusal):
    assert refusal(load, data) == sentence


SLY = {
    "no heads": file_of(n_head=0),
    "more heads than width": file_of(n_head=16),
    "a dialect nobody speaks": file_of(dialect="other"),
    "a symbol twice": file_of(symbols=SYMBOLS + "a"),  # the last id would lie beyond the embedding table
    "half a character": file_of(symbols="\nabc\ud800"),  # no encoding can print what it writes
    "a config that nests for ever": safetensors.torch.save({"embed.weight": EMBED}, metadata={"config": "[" * 100_000}),
    "a number of 400 digits": file_of(width=10**400),
    "a number of 5000 digits": safetensors.torch.save(
        {"embed.weight": EMBED}, metadata={"config": '{"vocabulary": ' + "9" * 5000 + "}"}
    ),
}


@pytest.mark.parametrize("data", SLY.values(), ids=SLY)
def test_a_sly_file_is_refused(data, refusal):
    """Each is well-formed, and would fail later or deeper without a check of its own."""
    assert refusal(load, data)


def only_value_errors(data, refusal):
    try:
        load(data)
    except ValueError:
        refusal(load, data)


@given(data=st.binary(max_size=400))
def test_random_bytes_raise_nothing_else(data, refusal):
    only_value_errors(data, refusal)
    only_value_errors(len(data).to_bytes(8, "little") + data, refusal)


@settings(max_examples=150)
@given(
    flips=st.lists(
        st.tuples(st.one_of(st.integers(0, 700), st.integers(0, len(VALID) - 1)), st.integers(0, 7)),
        min_size=1,
        max_size=4,
    )
)
def test_flipped_bits_raise_nothing_else(flips, refusal):
    """A valid file's header has about 1 kB; most flips go there."""
    data = bytearray(VALID)
    for at, bit in flips:
        data[at] ^= 1 << bit
    only_value_errors(bytes(data), refusal)


ANYTHING = st.one_of(st.integers(), st.integers(-3, 20), st.floats(), st.text(max_size=9), st.booleans())


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(MODEL.shape.as_dict())), value=ANYTHING)
def test_any_value_in_the_config_raises_nothing_else(name, value, refusal):
    only_value_errors(file_of(**{name: value}), refusal)


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_a_gpt2_in_the_hub_s_format_is_read(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=16, n_embd=16, n_layer=2, n_head=2)).eval()
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    tokens = torch.arange(13)[None]
    with torch.no_grad():
        torch.testing.assert_close(gpt2_from_folder(tmp_path)(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


# --- the cache of models ----------------------------------------------------------------------------------------------


def test_the_least_recently_used_model_goes_first():
    cache, loaded = ModelCache(100), []

    def get(name, size=40):
        return cache.get(name, lambda: loaded.append(name) or name, lambda thing: size)

    for name in "abacab":  # c drives out b, b drives out c
        assert get(name) == name
    assert "".join(loaded) == "abcb"
    assert set(cache.held) == {"a", "b"}


def test_a_model_larger_than_the_cache_is_used_and_not_kept():
    cache = ModelCache(100)
    assert cache.get("big", lambda: "thing", lambda thing: 101) == "thing"
    assert len(cache.held) == 0
