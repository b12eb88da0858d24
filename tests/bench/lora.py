"""LoRA: our layer's training step against peft's, and the tokens a second of `text` in float32 against NF4. python -m
tests.bench.lora

Both adapt the same stack of linear layers with the same A and B, forward, backward and AdamW on the same numbers; their
losses must agree first. No goal: the ratios are told.
"""

import copy
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn

from core.foundations.base_model import FOLDER, from_folder
from core.foundations.corpus import load_corpus
from core.foundations.turns import without_pauses
from core.lora.adapter import LoRALinear
from core.lora.tuning import Tuner, adapt, layer_shapes
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

RANK, ALPHA, TOKENS = 8, 16.0, 512
SHAPES = {"layers of our base": (192, 576, 192, 576, 192), "layers of 1024": (1024, 1024, 1024)}
Step = Callable[[], float]


def stack(widths: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def ours(plain: nn.Sequential) -> nn.Module:
    rng = torch.Generator().manual_seed(0)
    return nn.Sequential(*(LoRALinear(layer, RANK, ALPHA, rng) for layer in copy.deepcopy(plain)))


def peft_of(plain: nn.Sequential, like: nn.Module) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    names = [str(number) for number in range(len(plain))]
    adapted: Any = inject_adapter_in_model(
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, lora_dropout=0.0), copy.deepcopy(plain)
    )
    for mine, theirs in zip(like, adapted, strict=True):  # type: ignore[call-overload]
        theirs.lora_A["default"].weight.data.copy_(mine.A.data)
        theirs.lora_B["default"].weight.data.copy_(mine.B.data)
    return adapted


def step_of(model: nn.Module, inputs: torch.Tensor, wanted: torch.Tensor) -> Step:
    free = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(free, 1e-3)

    def step() -> float:
        loss = (model(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def layers(widths: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """Steps a second of both."""
    plain, rng = stack(widths), torch.Generator().manual_seed(1)
    inputs, wanted = torch.randn(TOKENS, widths[0], generator=rng), torch.randn(TOKENS, widths[-1], generator=rng)
    mine = ours(plain)
    steps = {"ours": step_of(mine, inputs, wanted), "peft": step_of(peft_of(plain, mine), inputs, wanted)}
    losses = {name: [step() for _ in range(20)] for name, step in steps.items()}  # warms, too
    if max(abs(a - b) for a, b in zip(losses["ours"], losses["peft"], strict=True)) > 1e-4:
        sys.exit("the losses differ: the two do not compute the same, so their speeds are not compared")

    def speed(step: Step) -> Step:
        def measure() -> float:
            started = time.perf_counter()
            for _ in range(10):
                step()
            return 10 / (time.perf_counter() - started)

        return measure

    return in_turns(rounds, {name: speed(step) for name, step in steps.items()})


def text(rounds: int) -> dict[str, list[float]]:
    """Tokens a second of the tab's own training step."""
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    bases = {"float32": from_folder(FOLDER, "shipped"), "NF4": from_folder(FOLDER, "shipped", quantization_config=four)}
    ids = bases["float32"].ids(load_corpus("play").train[:100_000])
    context, batch, contestants = 64, 8, dict[str, Step]()
    for name, base in bases.items():
        model = adapt(base.model, RANK, ALPHA, list(layer_shapes(base.model, "all")), 0)
        tuner = Tuner(model, ids, context=context, batch=batch, learning_rate=0.01, steps=10**6, seed=0)

        def measure(tuner: Tuner = tuner) -> float:
            started = time.perf_counter()
            for _ in range(3):
                without_pauses(tuner.one_step())
            return 3 * context * batch / (time.perf_counter() - started)

        contestants[name] = measure
    in_turns(1, contestants)  # warm
    return in_turns(rounds, contestants)


def main() -> None:
    arguments = with_threads(options(__doc__))
    lines, rounds = [], 2 if arguments.quick else 11
    for name, widths in SHAPES.items():
        measured = layers(widths, rounds)
        lines.append(
            Line(
                f"LoRA training step, ours against peft, {name}",
                "steps/s",
                *(median(measured[who]) for who in ("ours", "peft")),
                ratio(measured["ours"], measured["peft"]),
            )
        )
    measured = text(rounds)
    lines.append(
        Line(
            "LoRA on the base, NF4 against float32",
            "tokens/s",
            *(median(measured[who]) for who in ("NF4", "float32")),
            ratio(measured["NF4"], measured["float32"]),
        )
    )
    report("lora", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
