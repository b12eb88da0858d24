"""The next token after 64 to 1,024 tokens, with the cache and without, and with transformers' cache. python -m
tests.bench.decode

The shipped base, batch 1. Before a time is taken all three must give the same logits. Without the cache the whole text
goes through the model; with it, one token. `ours` is our cached token in every line; the peer is what the line says.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from core.foundations.base_model import FOLDER, from_folder
from core.foundations.corpus import load_corpus
from core.foundations.machine import this_machine
from core.kv_cache.cache import Growing
from core.kv_cache.llama import llama_of, logits
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

LENGTHS = (64, 128, 256, 512, 1024)


def contestants_at(tokens: int) -> dict[str, Callable[[], Tensor]]:
    """Three ways to the logits after a text of so many tokens; the cached ones read only its last token."""
    from transformers import DynamicCache

    base = from_folder(FOLDER, "shipped")
    model, text = llama_of(base.model), base.ids(load_corpus("reader").validation)[None, :tokens].to(base.device)
    ours, theirs = Growing(model, 16), DynamicCache(config=base.model.config)
    logits(model, text[:, :-1], ours)
    base.model(input_ids=text, past_key_values=theirs, use_cache=True)

    def cached() -> Tensor:
        ours.rewind(tokens - 1)
        return logits(model, text[:, -1:], ours)[0, -1]

    def uncached() -> Tensor:
        return logits(model, text)[0, -1]

    def library() -> Tensor:
        theirs.crop(-1)  # forget the last token
        return base.model(input_ids=text[:, -1:], past_key_values=theirs, use_cache=True).logits[0, -1]

    return {"cached": cached, "uncached": uncached, "transformers": library}


@torch.inference_mode()
def compare(tokens: int, rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each way."""
    ways = contestants_at(tokens)
    wanted = ways["uncached"]()
    if any((way() - wanted).abs().max() > 1e-3 for way in ways.values()):
        sys.exit("the ways do not give the same logits, so their speeds are not compared")
    contestants = {name: timed(way) for name, way in ways.items()}
    in_turns(2, contestants)  # warm
    return in_turns(rounds, contestants)


def timed(way: Callable[[], Tensor]) -> Callable[[], float]:
    def measure() -> float:
        wait()
        started = time.perf_counter()
        way()
        wait()
        return 1 / (time.perf_counter() - started)

    return measure


def wait() -> None:
    if this_machine().gpu:
        torch.cuda.synchronize()


def main() -> None:
    arguments = with_threads(options(__doc__))
    lines, rounds = [], 3 if arguments.quick else 31
    for tokens in LENGTHS[: 1 if arguments.quick else None]:
        measured = compare(tokens, rounds)
        for peer, words in (("uncached", "against no cache"), ("transformers", "against DynamicCache")):
            times = ratio(measured["cached"], measured[peer])
            lines.append(
                Line(
                    f"token {tokens}, cached {words}",
                    "tokens/s",
                    median(measured["cached"]),
                    median(measured[peer]),
                    times,
                )
            )
    report("decode", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
