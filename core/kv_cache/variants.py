"""Ways to a smaller cache, each with its formula: fewer heads, fewer tokens, fewer bits. And the race in which they are
evaluated.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.kv_cache.cache import Growing, Rounded, Window
from core.kv_cache.costs import bytes_per_token
from core.kv_cache.llama import Llama, logits

Cache = Growing | Window | Rounded
SCALE_BYTES = 2  # of a row's scale in a rounded cache


@dataclass(frozen=True)
class Variant:
    """A model with its cache. `nbytes` is the formula: tokens seen -> bytes per text."""

    name: str
    model: Llama
    fresh: Callable[[], Cache]
    nbytes: Callable[[int], float]
    corner: int = 0  # tokens from which on the formula's line is flat; 0: never


def whole(name: str, model: Llama) -> Variant:
    """Every token is kept; the model has as many heads of keys and values as it has."""
    per_token = bytes_per_token(len(model.layers), model.kept_heads, model.head_width, model.embed.element_size())
    return Variant(name, model, lambda: Growing(model, 1), lambda tokens: per_token * tokens)


def window(name: str, model: Llama, size: int, sinks: int = 0) -> Variant:
    """The last tokens, and with sinks also the very first: `size` in all."""
    per_token = bytes_per_token(len(model.layers), model.kept_heads, model.head_width, model.embed.element_size())
    return Variant(name, model, lambda: Window(model, size, sinks), lambda tokens: per_token * min(tokens, size), size)


def rounded(name: str, model: Llama, bits: int) -> Variant:
    """Every token in few bits: D numbers of `bits` bits and one scale per row."""
    per_number = bits / 8 + SCALE_BYTES / model.head_width
    per_token = bytes_per_token(len(model.layers), model.kept_heads, model.head_width, per_number)
    return Variant(name, model, lambda: Rounded(model, bits), lambda tokens: per_token * tokens)


class Runner:
    """A variant reads texts token by token through its cache, and records its loss on each."""

    def __init__(self, variant: Variant, texts: Int[Tensor, "B T"]) -> None:
        self.variant, self.texts, self.cache = variant, texts, variant.fresh()
        self.losses: list[float] = []  # nats per token, mean over the sequences, by position
        self.bytes: list[tuple[int, int]] = []  # tokens, bytes per text

    @torch.inference_mode()
    def read(self, tokens: int) -> None:
        """The next `tokens` places of all texts."""
        texts, last = self.texts, min(len(self.losses) + tokens, self.texts.shape[1] - 1)
        for place in range(len(self.losses), last):
            scores = logits(self.variant.model, texts[:, place : place + 1], self.cache)[:, 0]
            self.losses.append(float(F.cross_entropy(scores.float(), texts[:, place + 1])))
        self.bytes.append((self.cache.seen, self.cache.nbytes // len(texts)))

    def perplexity(self, tokens: int) -> float:
        """Over the first `tokens` places, as far as they are read."""
        return perplexity(self.losses[:tokens])


def perplexity(losses: list[float]) -> float:
    return math.exp(min(700.0, sum(losses) / len(losses)))


def binned(losses: list[float], size: int) -> tuple[float, ...]:
    """Means of `size` places each."""
    parts = [losses[first : first + size] for first in range(0, len(losses), size)]
    return tuple(sum(part) / len(part) for part in parts)


@torch.inference_mode()
def loss_in_one_pass(model: Llama, texts: Int[Tensor, "B T"]) -> list[float]:
    """The same losses without any cache: the model sees each text at once."""
    total = torch.zeros(texts.shape[1] - 1)
    for text in texts:
        total += F.cross_entropy(logits(model, text[None, :-1])[0].float(), text[1:], reduction="none").cpu()
    return [float(loss) for loss in total / len(texts)]


def greedy(model: Llama, prompt: list[int], length: int, cache: Cache) -> Iterator[int]:
    """The likeliest token each time; the prompt goes through the cache token by token, as a window needs it."""
    new = prompt
    for _ in range(length):
        scores = scores_after(model, new, cache)
        new = [int(scores.argmax())]
        yield new[0]


@torch.inference_mode()
def scores_after(model: Llama, ids: list[int], cache: Cache) -> Float[Tensor, "V"]:
    for id in ids:
        scores = logits(model, torch.tensor([[id]], device=model.embed.device), cache)[0, -1]
    return scores
