"""The base model: loading in the hub's format, refusing what does not fit, judging and writing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations import base_model, real_model
from core.foundations.base_model import (
    BASES,
    CONTEXT,
    bytes_per_weight,
    check_memory,
    cross_entropy,
    drawn,
    from_folder,
    load_base,
    new_model,
    save,
    validate,
    write,
)
from core.foundations.corpus import load_corpus, windows_of
from core.foundations.hub import of_kind
from core.foundations.sampling import Choice
from core.foundations.turns import with_pauses, without_pauses


def loaded(name="shipped", **how):
    return without_pauses(load_base(name, **how))


@pytest.fixture(scope="module")
def base():
    return loaded()


@pytest.fixture(scope="module")
def small(tmp_path_factory, base):
    """A folder in the hub's format with a model of two narrow layers: what a hub model looks like, small."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("hub")
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    save(base_model.Base("small", LlamaForCausalLM(config), base.tokenizer), folder)
    return folder


# --- ours -------------------------------------------------------------------------------------------------------------


def test_the_shipped_base_is_what_its_card_says(base):
    assert sum(weight.numel() for weight in base.model.parameters()) == 2_311_872
    linear = [module for module in base.model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linear) == 4 * 7 + 1 and not base.model.training
    assert {weight.dtype for weight in base.model.parameters()} == {torch.float32}


@given(st.text(max_size=60))
def test_every_text_is_tokens_and_back(base, text):
    assert base.text(base.ids(text).tolist()) == text.encode("utf-8", "replace").decode()


def test_it_knows_its_own_texts_better_than_the_play(base):
    losses = {
        name: without_pauses(validate(base.model, base.ids(load_corpus(name).validation), CONTEXT, 4096))
        for name in ("python", "reader", "play")
    }
    assert losses["play"] > max(losses["python"], losses["reader"]) + 0.5


def test_judging_in_parts_is_judging_at_once(base, monkeypatch):
    ids = base.ids(load_corpus("play").validation)[:2000]
    inputs, targets = windows_of(ids, 64)
    with torch.inference_mode():
        whole = float(cross_entropy(base.model, inputs, targets))
    monkeypatch.setitem(base_model.UNIT_FLOPS, "cpu", 1e9)
    waits = []
    mean = without_pauses(with_pauses(validate(base.model, ids, 64), waits.append))
    assert waits
    assert mean == pytest.approx(whole, abs=1e-5)


def test_writing_with_the_cache_is_writing_without(base):
    """Greedy: each token is the best one of a fresh pass over all that stands before it."""
    ids = base.ids("The sea was").tolist()
    for token in drawn(base.model, list(ids), 12, Choice(0.0), torch.Generator()):
        with torch.inference_mode():
            assert token == int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)


def test_the_same_seed_writes_the_same(base):
    first, again, other = (write(base, base.model, "The ", 20, Choice(0.9), seed) for seed in (1, 1, 2))
    assert first == again != other


def test_new_weights_come_from_the_seed_alone():
    torch.randn(7)  # the global generator stands elsewhere: no matter
    one, two, other = (new_model(seed).model.layers[0].mlp.up_proj.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


# --- the hub's --------------------------------------------------------------------------------------------------------


def test_models_with_linear_layers_are_offered():
    assert "openai-community/gpt2" not in BASES, "its layers are not nn.Linear"
    assert set(BASES) - {"shipped", real_model.NAME} == set(of_kind("llama"))


def test_a_folder_of_the_hub_is_read(small, monkeypatch):
    def fetch(name):
        yield
        return small

    monkeypatch.setattr(base_model, "fetched", fetch)
    base = loaded("HuggingFaceTB/SmolLM2-135M", dtype=torch.float16)
    assert next(base.model.parameters()).dtype == torch.float16 and base.name == "HuggingFaceTB/SmolLM2-135M"
    assert from_folder(small, "small").ids("the sea").tolist() == base.ids("the sea").tolist()


def test_four_bits_are_read_too(small, monkeypatch):
    from transformers import BitsAndBytesConfig

    def fetch(name):
        yield
        return small

    monkeypatch.setattr(base_model, "fetched", fetch)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    how = {"dtype": torch.float32, "quantization_config": four}
    base = loaded("Qwen/Qwen2.5-0.5B", **how)
    assert base.model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert (
        bytes_per_weight(how) == 0.57 and bytes_per_weight({"dtype": torch.float16}) == 2 and bytes_per_weight({}) == 4
    )


def test_what_cannot_fit_is_refused_before_it_is_fetched(monkeypatch, refusal):
    monkeypatch.setattr(base_model, "free_bytes", lambda: 2e9)
    monkeypatch.setattr(base_model, "fetched", lambda name: pytest.fail("nothing may be fetched"))
    told = refusal(loaded, "meta-llama/Llama-2-7b-hf")
    assert "needs 27.0 GB" in told and "2.0 GB are free" in told
    assert check_memory(1.9e9, "it") is None
