"""Contrastive training: our loop against open_clip's own loss and loop, on the same towers. python -m tests.bench.clip

Goal: not slower. The peer is the body of open_clip's `train_one_epoch` in float32 without its logging: `model(images,
texts)`, `ClipLoss`, backward, step, clamp. Both learn from the same ready-made batches. Before a time is taken both
losses must agree.
"""

import math
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from core.clip.contrast import Contrast
from core.clip.worlds import Lot, Shapes, equal_captions
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

BATCH, BATCHES = 64, 8


def learner() -> Contrast:
    return Contrast(Shapes(), 96, 0.002, 1 / 0.07, True, 100.0, False, 0)


class Theirs:
    """open_clip's loop on the same model."""

    def __init__(self) -> None:
        import open_clip

        own = learner()
        self.model, self.optimizer, self.loss = own.model, own.optimizer, open_clip.ClipLoss()

    def one_step(self, lot: Lot) -> float:
        self.optimizer.zero_grad()
        pictures, texts, scale = self.model(2 * lot.pictures - 1, lot.tokens)
        loss = self.loss(pictures, texts, scale)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return loss.item()


def batches() -> list[Lot]:
    """Late in the curriculum, without equal captions: so both losses are the same."""
    rng, found = np.random.default_rng(0), list[Lot]()
    while len(found) < BATCHES:
        lot = Shapes().lot(rng, 2 * BATCH, 1000)
        alone = (~equal_captions(lot.said).any(1)).nonzero().flatten()[:BATCH]
        if len(alone) == BATCH:
            found.append(
                Lot(
                    lot.pictures[alone],
                    tuple(lot.captions[place] for place in alone.tolist()),
                    lot.tokens[alone],
                    lot.said[alone],
                )
            )
    return found


def speed(one_step: Callable[[Lot], float], lots: list[Lot]) -> Callable[[], float]:
    """A contestant: pairs per second."""

    def measure() -> float:
        started = time.perf_counter()
        for lot in lots:
            one_step(lot)
        return len(lots) * BATCH / (time.perf_counter() - started)

    return measure


def main() -> None:
    arguments = with_threads(options(__doc__))
    rounds, lots = 2 if arguments.quick else 11, batches()[: 2 if arguments.quick else None]
    ours, theirs = learner(), Theirs()
    ways = {"ours": lambda lot: list(ours.one_step(lot, 1.0))[-1], "open_clip": theirs.one_step}
    losses = [way(lots[0]) for way in ways.values()]
    if abs(losses[0] - losses[1]) > 1e-3:
        sys.exit(f"the losses differ ({losses}), so the speeds are not compared")
    measured = in_turns(rounds, {name: speed(way, lots) for name, way in ways.items()})
    times = ratio(measured["ours"], measured["open_clip"])
    line = Line(
        "contrastive training against open_clip",
        "pairs/s",
        median(measured["ours"]),
        median(measured["open_clip"]),
        times,
        "at least 1",
        times >= 1,
    )
    report("clip", [line], arguments, rounds=rounds, batch=BATCH)


if __name__ == "__main__":
    main()
