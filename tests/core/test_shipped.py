"""The card in assets/README.md says what the shipped file does: measured again here."""

import re
from pathlib import Path

import torch
import torch.nn.functional as F

from core.foundations.base_model import CONTEXT, FOLDER, from_folder, validate
from core.foundations.corpus import ASSETS, character_ids, load_corpus, windows_of
from core.foundations.turns import without_pauses
from core.foundations.weights import shipped
from core.rlhf.policy import evaluated, load_policy
from core.rlhf.postcards import WORDS

CARD = (ASSETS / "README.md").read_text(encoding="utf-8")


def test_validation_loss_is_the_cards():
    file = shipped("nanogpt")
    model = file.build()
    inputs, targets = windows_of(character_ids(load_corpus("play").validation, file.symbols), file.shape.context)
    with torch.inference_mode():
        loss = float(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))
    told = float(re.search(r"\*\*([\d.]+)\*\* nats per character on the play", CARD)[1])
    assert abs(loss - told) < 0.002


def test_size_and_shape_are_the_cards():
    path, file = ASSETS / "weights" / "nanogpt.safetensors", shipped("nanogpt")
    assert path.stat().st_size < 10_000_000
    counted = sum(tensor.numel() for tensor in file.weights.values())
    assert f"{counted:,} parameters" in CARD
    assert all(tensor.dtype == torch.float16 for tensor in file.weights.values())


def test_every_weight_file_has_a_card():
    assert [path.name for path in Path(ASSETS / "weights").iterdir() if f"weights/{path.name}" not in CARD] == []


def test_the_base_models_losses_are_the_cards():
    base = from_folder(FOLDER, "shipped")
    told = CARD.split("## weights/harbour_llama/")[1]
    patterns = {
        "python": r"([\d.]+)\*\* nats per token on the manual",
        "reader": r"([\d.]+)\*\* on the reader",
        "play": r"on the play \| \*\*([\d.]+)\*\*",
    }
    for name, pattern in patterns.items():
        wanted = re.search(pattern, told)
        loss = without_pauses(validate(base.model, base.ids(load_corpus(name).validation), CONTEXT))
        assert abs(loss - float(wanted[1])) < 0.002, name
    assert f"{sum(weight.numel() for weight in base.model.parameters()):,} parameters" in told
    assert all(path.stat().st_size < 10_000_000 for path in FOLDER.iterdir())


def test_the_postcards_policy_is_the_cards():
    surprise, floor = evaluated(load_policy(), 2000, 1)
    told = CARD.split("## weights/postcards.safetensors")[1]
    assert abs(surprise - float(re.search(r"\*\*([\d.]+)\*\* nats per word", told)[1])) < 0.002
    assert abs(floor - float(re.search(r"can beat, is ([\d.]+)", told)[1])) < 0.002
    assert (
        f"{sum(weight.numel() for weight in load_policy().parameters()):,} parameters" in told
        and f"{len(WORDS)} words" in told
    )
