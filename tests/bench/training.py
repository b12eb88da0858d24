"""Training speed at nanoGPT's CPU preset: ours, transformers' GPT-2, nanoGPT's own loop. python -m tests.bench.training

Goals (two CPU cores): at least 1.35 times transformers, and not slower than nanoGPT's loop. All three learn from the
same text with the same vocabulary; ours goes through `Trainer.one_step`, with accelerate around it, as the tab does.
And one step of our Muon, in float32, beside one of `torch.optim.Muon`, in bfloat16, on the matrices of the tab's
default model: on a CPU without bfloat16 units that is the difference between seconds and minutes.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from core.foundations.corpus import load_corpus
from core.foundations.muon import Muon
from core.foundations.transformer import Transformer
from core.nanogpt.training import TrainConfig, Trainer, shape_of
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads
from tests.bench.peers import PRESET, NanoGPTLoop, TransformersLoop

MUON_STEPS = 10


def our_loop() -> Trainer:
    corpus = load_corpus("play")
    config = TrainConfig(
        n_layer=PRESET.n_layer,
        n_head=PRESET.n_head,
        width=PRESET.width,
        context=PRESET.context,
        batch=PRESET.batch,
        dialect="gpt2",
        optimizer="adamw",
        learning_rate=PRESET.learning_rate,
    )
    return Trainer(corpus, shape_of(config, corpus), config, PRESET.learning_rate, "adamw")


def speed(one_step: Callable[[], float], steps: int) -> Callable[[], float]:
    """A contestant: tokens per second over `steps` steps."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            one_step()
        return steps * PRESET.batch * PRESET.context / (time.perf_counter() - started)

    return measure


def muon_step(optimizer: type[torch.optim.Optimizer], **how: Any) -> Callable[[], float]:
    """A contestant: steps per second over the layers' matrices of the default model."""
    model, rng = Transformer(shape_of(TrainConfig(), load_corpus("play"))), torch.Generator().manual_seed(0)
    matrices = [weight for weight in model.blocks.parameters() if weight.ndim == 2]
    for weight in matrices:
        weight.grad = torch.randn(weight.shape, generator=rng)
    one = optimizer(matrices, lr=0.02, **how)

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(MUON_STEPS):
            one.step()
        return MUON_STEPS / (time.perf_counter() - started)

    return measure


def main() -> None:
    arguments = with_threads(options(__doc__))
    rounds, steps = (2, 3) if arguments.quick else (11, 40)
    ours = our_loop()
    nano, theirs = NanoGPTLoop(ours.corpus, ours.device), TransformersLoop(ours.corpus, ours.device)
    loops: dict[str, Callable[[], float]] = {
        "ours": lambda: list(ours.one_step(1.0))[-1],
        "transformers": theirs.one_step,
        "nanoGPT": lambda: nano.one_step(PRESET.iterations / 2),
    }
    for one_step in loops.values():
        speed(one_step, steps // 2)()  # the first steps allocate
    measured = in_turns(rounds, {name: speed(one_step, steps) for name, one_step in loops.items()})
    lines = []
    for peer, goal in (("transformers", 1.35), ("nanoGPT", 1.0)):
        times = ratio(measured["ours"], measured[peer])
        lines.append(
            Line(
                f"training against {peer}",
                "tokens/s",
                median(measured["ours"]),
                median(measured[peer]),
                times,
                f"at least {goal:g}",
                times >= goal,
            )
        )
    muons = {"ours": muon_step(Muon), "torch": muon_step(torch.optim.Muon, weight_decay=0.0, adjust_lr_fn="original")}
    for one in muons.values():
        one()
    steps_a_second = in_turns(rounds, muons)
    ours_alone, theirs_alone = steps_a_second["ours"], steps_a_second["torch"]
    lines.append(
        Line("a step of Muon against torch.optim.Muon", "1/s", median(ours_alone), median(theirs_alone),
             ratio(ours_alone, theirs_alone))
    )  # fmt: skip
    report("training", lines, arguments, rounds=rounds, steps_a_round=steps)


if __name__ == "__main__":
    main()
