"""Loss per second on Tiny Shakespeare: our defaults against nanoGPT's CPU preset. python -m tests.bench.quality [--text
FILE]

Everything is evaluated by one function on the whole validation split, in windows of 64 characters. Only training is on the
clocks: not judging, not samples. The contestants advance in turns of about 5 s, so that a busy machine slows all of
them.

  ours         the tab's defaults for 60 s, the learning rate on its half cosine over those 60 s
  ours, 30 s   the same on a half cosine over 30 s
  preset, 60 s nanoGPT's CPU preset, its whole schedule (2000 iterations) scaled to 60 s
  preset       nanoGPT's CPU preset as it is, until its 2000 iterations are over

Goals (two CPU cores): at most 1.75 nats after 60 s; 1.88, the loss nanoGPT's README names, in at most half the time.
"""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core.foundations.corpus import TINY_SHAKESPEARE_SHA256, Corpus, load_corpus, windows_of
from core.foundations.machine import this_machine
from core.foundations.weights import from_bytes
from core.nanogpt.training import TrainConfig, train
from tests.bench.ledger import Line, options, report, with_threads
from tests.bench.peers import PRESET, NanoGPTLoop

README_LOSS = 1.88
TURN_SECONDS = 5.0
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    seconds: float  # of training
    iterations: int
    loss: float


@torch.inference_mode()
def judge(model: Logits, corpus: Corpus) -> float:
    """Nats per character over the whole validation split."""
    inputs, targets = windows_of(corpus.validation_ids, PRESET.context)
    total = 0.0
    for first in range(0, len(inputs), 64):
        logits = model(inputs[first : first + 64].to(this_machine().device)).float().cpu()
        total += float(F.cross_entropy(logits.flatten(0, 1), targets[first : first + 64].flatten(), reduction="sum"))
    return total / targets.numel()


def ours(corpus: Corpus, seconds: float, seed: int) -> Iterator[Point]:
    """The generator of the tab; it hands over its weights sixteen times a run and at the end."""
    for step in train(TrainConfig(corpus="tinyshakespeare", seconds=seconds, seed=seed)):
        if step.files:
            model = from_bytes(step.files["model.safetensors"]).build(this_machine().device)
            yield Point(step.progress * seconds, step.step, judge(model, corpus))


def preset(corpus: Corpus, seconds: float | None, turn: float, most: int, seed: int) -> Iterator[Point]:
    """nanoGPT's loop. seconds: scale its schedule to that time; None: as it is, for `most` iterations."""
    loop, clock, iterations = NanoGPTLoop(corpus, torch.device(this_machine().device), seed), 0.0, 0
    yield Point(0.0, 0, judge(loop.model.eval(), corpus))
    due = turn
    while clock < seconds if seconds else iterations < most:
        started = time.perf_counter()
        loop.one_step(PRESET.iterations * clock / seconds if seconds else iterations)
        clock, iterations = clock + time.perf_counter() - started, iterations + 1
        if clock >= due:
            due += turn
            yield Point(clock, iterations, judge(loop.model.eval(), corpus))
    yield Point(clock, iterations, judge(loop.model.eval(), corpus))


def in_step(runs: dict[str, Iterator[Point]]) -> dict[str, list[Point]]:
    """Advance whoever has trained least, until all are done."""
    curves, going = {name: list[Point]() for name in runs}, dict(runs)
    while going:
        name = min(going, key=lambda one: curves[one][-1].seconds if curves[one] else -1.0)
        point = next(going[name], None)
        if point is None:
            del going[name]
        else:
            curves[name].append(point)
            print(
                f"{name:<13} {point.seconds:6.1f} s {point.iterations:6d} iterations  loss {point.loss:.3f}",
                file=sys.stderr,
            )
    return curves


def passed(curve: list[Point], loss: float) -> float | None:
    """Seconds of training until the curve passes `loss`, on a straight line between two judgements.

    None: it never does.
    """
    for before, after in pairwise(curve):
        if after.loss <= loss:
            return before.seconds + (after.seconds - before.seconds) * (before.loss - loss) / (before.loss - after.loss)
    return None


def time_line(name: str, curve: list[Point], peer: list[Point], loss: float) -> Line:
    """Seconds to `loss`.

    Where only the peer never passes it, its whole time stands for it, so the true ratio is smaller.
    """
    mine, theirs = passed(curve, loss), passed(peer, loss)
    times = mine / (theirs or peer[-1].seconds) if mine else None
    told = (seconds or f"not in {all_of[-1].seconds:.0f} s" for seconds, all_of in ((mine, curve), (theirs, peer)))
    return Line(f"time to {loss:g}, {name}", "s", *told, times, "at most 0.5", times is not None and times <= 0.5)


def put_into_cache(file: Path) -> None:
    """Place a copy of Tiny Shakespeare where `load_corpus` looks for it, if it is that file."""
    import pooch

    if hashlib.sha256(file.read_bytes()).hexdigest() != TINY_SHAKESPEARE_SHA256:
        sys.exit(f"{file.name} is not Tiny Shakespeare: its SHA-256 is another")
    folder = Path(pooch.os_cache("everything-about-llms"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "tinyshakespeare.txt")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--text", type=Path, help="a copy of Tiny Shakespeare, for a machine without a network")
    parser.add_argument("--seed", type=int, default=0)
    arguments = with_threads(parser)
    if arguments.text:
        put_into_cache(arguments.text)
    try:
        corpus = load_corpus("tinyshakespeare")
    except ValueError as problem:
        sys.exit(f"{problem}; or give a copy of it with --text FILE")
    if arguments.quick:
        corpus = replace(corpus, validation=corpus.validation[:4097])
    long, short, turn, most = (3.0, 2.0, 1.0, 30) if arguments.quick else (60.0, 30.0, TURN_SECONDS, PRESET.iterations)
    loss, seed = 3.0 if arguments.quick else README_LOSS, arguments.seed
    names = {
        "ours": f"ours {long:g} s",
        "short": f"ours {short:g} s",
        "scaled": f"preset {long:g} s",
        "stock": "preset",
    }
    runs = {
        names["ours"]: ours(corpus, long, seed),
        names["short"]: ours(corpus, short, seed),
        names["scaled"]: preset(corpus, long, turn, most, seed),
        names["stock"]: preset(corpus, None, turn, most, seed),
    }
    curves = in_step(runs)
    mine, short_run, scaled, stock = (curves[names[key]] for key in ("ours", "short", "scaled", "stock"))
    lines = [
        Line(
            f"loss after {long:g} s",
            "nats",
            mine[-1].loss,
            scaled[-1].loss,
            mine[-1].loss / scaled[-1].loss,
            "ours at most 1.75",
            mine[-1].loss <= 1.75,
        ),
        time_line(f"schedule over {long:g} s", mine, stock, loss),
        time_line(f"schedule over {short:g} s", short_run, stock, loss),
        Line(
            "iterations a second",
            "",
            mine[-1].iterations / mine[-1].seconds,
            stock[-1].iterations / stock[-1].seconds,
            None,
        ),
    ]
    told = {
        name: [(round(point.seconds, 2), point.iterations, round(point.loss, 4)) for point in curve]
        for name, curve in curves.items()
    }
    report("quality", lines, arguments, seed=seed, curves=told)


if __name__ == "__main__":
    main()
