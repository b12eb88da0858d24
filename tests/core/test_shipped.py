"""The card in assets/README.md says what the shipped file does: measured again here."""

import re
from pathlib import Path

import torch
import torch.nn.functional as F

from core.foundations.corpus import ASSETS, character_ids, load_corpus, windows_of
from core.foundations.weights import shipped

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
