"""One word's rows in the cache are overwritten with noise: what the model then takes the text to be."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.foundations.base_model import Base
from core.kv_cache.cache import Growing
from core.kv_cache.llama import Llama, logits
from core.kv_cache.variants import greedy

SHOWN = 6  # likeliest next tokens


@dataclass(frozen=True)
class Look:
    """What one overwritten word does to the next token, and what each token of the prompt would do."""

    harm: tuple[
        tuple[str, float], ...
    ]  # each cached token of the prompt, and KL(clean, poisoned) of the next token, nats
    chosen: tuple[int, ...]  # the tokens of the word
    kl: float  # with all tokens of the word overwritten
    nexts: tuple[tuple[str, float, float], ...]  # likeliest next tokens: clean and poisoned probability
    clean: Growing  # the caches: all but the last token of the prompt is in them
    bad: Growing


def tokens_of_word(base: Base, ids: list[int], word: str) -> list[int]:
    """Places of the tokens that hold the word's first occurrence; the last token of the prompt cannot be poisoned: it
    is the question.
    """
    ends = [len(base.text(ids[: place + 1])) for place in range(len(ids))]
    start = base.text(ids).find(word.strip()) if word.strip() else -1
    stop = start + len(word.strip())
    places = [place for place, end in enumerate(ends) if end > start and (ends[place - 1] if place else 0) < stop]
    if start < 0 or not places or places[-1] >= len(ids) - 1:
        raise ValueError(f"poison must be a word of your prompt before its last token, got {word[:40]!r}")
    return places


def overwrite(cache: Growing, text: int, place: int, rng: torch.Generator) -> None:
    """Noise of the same size as the row, in every layer and head."""
    for buffer in cache.buffers:
        row = buffer[:, text, :, place]  # (2, G, D)
        noise = torch.randn(row.shape, generator=rng).to(row)
        buffer[:, text, :, place] = noise * row.square().mean(-1, keepdim=True).sqrt()


def poison(base: Base, model: Llama, ids: list[int], word: str, seed: int) -> Look:
    """Poison each token alone (as one batch), then the whole word."""
    places, rng = tokens_of_word(base, ids, word), torch.Generator().manual_seed(seed)
    filled = read(model, ids[:-1])
    every, bad = filled.times(len(ids) - 1), filled.times(1)
    for place in range(len(ids) - 1):
        overwrite(every, place, place, rng)
    for place in places:
        overwrite(bad, 0, place, rng)
    clean_p, bad_p = (next_distribution(model, ids[-1], cache.times(1))[0] for cache in (filled, bad))
    each = divergence(clean_p, next_distribution(model, ids[-1], every))
    best = torch.stack((clean_p, bad_p)).amax(0).topk(SHOWN).indices.tolist()
    return Look(
        tuple((base.text([id]), float(kl)) for id, kl in zip(ids, each, strict=False)),
        tuple(places),
        float(divergence(clean_p, bad_p[None])[0]),
        tuple((base.text([id]), float(clean_p[id]), float(bad_p[id])) for id in best),
        filled,
        bad,
    )


def go_on(base: Base, model: Llama, last: int, look: Look, length: int) -> Generator[None, None, tuple[str, str, int]]:
    """Both write on from the last token of the prompt: the texts, and how many tokens differ; yields None in
    between.
    """
    clean = list(greedy(model, [last], length, look.clean))
    yield
    changed = list(greedy(model, [last], length, look.bad))
    return base.text(clean), base.text(changed), sum(a != b for a, b in zip(clean, changed, strict=True))


@torch.inference_mode()
def read(model: Llama, ids: list[int]) -> Growing:
    cache = Growing(model, 1)
    logits(model, torch.tensor([ids], device=model.embed.device), cache)
    return cache


@torch.inference_mode()
def next_distribution(model: Llama, last: int, cache: Growing) -> Tensor:
    """(B, V): what comes next, by each text of the cache."""
    batch = cache.buffers[0].shape[1]
    return torch.softmax(
        logits(model, torch.full((batch, 1), last, device=model.embed.device), cache)[:, -1].double(), -1
    )


def divergence(clean: Tensor, others: Tensor) -> Tensor:
    """KL(clean, other) in nats: how much the clean model would be surprised by the other's beliefs."""
    return (clean * (clean.log() - others.log())).sum(-1)
