r"""Beam search: keep the B most probable beginnings, and let each of them go on in all ways.

Greedy decoding takes the likeliest token at each place and can never take it back. A beam keeps B texts at once. At
each place every text could go on with every one of V tokens, so there are B V candidates, and the B with the highest

$$\sum_t \ln p(x_t \mid x_1 \ldots x_{t-1})$$

are kept. B = 1 is greedy decoding; with B as large as the number of all texts it would find the most probable one.
With the same B it finds the same text as transformers' `generate(num_beams=B)` (tested).

Left out: an end token, and a length penalty; here all texts are equally long.
Source: Sutskever et al. 2014, arXiv:1409.3215, section 3.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.sampling import finite
from core.foundations.transformer import Cache, Transformer


@dataclass(frozen=True)
class Beam:
    """The B best texts so far, the best first: what each has added to the prompt, and its sum of ln p."""

    tokens: Int[Tensor, "B T"]
    scores: Float[Tensor, "B"]


@torch.inference_mode()
def beam_search(model: Transformer, prompt: list[int], length: int, beams: int) -> Iterator[Beam]:
    """After each token the beam. prompt: ids, at least one; the latest `context` of them are read."""
    context, device = model.shape.context, model.embed.weight.device
    begun = torch.tensor([prompt[-context:]], device=device)  # (1, P)
    texts, scores = begun, torch.zeros(1, device=device)  # at first there is one text, the prompt
    room = min(context, begun.shape[1] + length)
    cache, new = Cache(model.shape, 1, room, model.embed.weight), begun
    for _ in range(length):
        if cache.length + new.shape[1] > context:  # full: read the latest half again, as `sampling.write` does
            cache = Cache(model.shape, len(texts), room, model.embed.weight)
            new = texts[:, -max(1, context // 2) :]
        logits = finite(model(new, cache)[:, -1].float())
        sums = scores[:, None] + torch.log_softmax(logits, -1)  # (B, 1) + (B, V): every way for every text to go on
        scores, best = sums.flatten().topk(min(beams, sums.numel()))
        came_from, token = best // sums.shape[1], best % sums.shape[1]
        texts = torch.cat((texts[came_from], token[:, None]), 1)
        follow(cache, came_from, room, model)
        new = token[:, None]
        yield Beam(texts[:, begun.shape[1] :], scores)


def follow(cache: Cache, came_from: Int[Tensor, "B"], room: int, model: Transformer) -> None:
    """Each text takes the keys and values of the one it came from; what is still empty is not copied."""
    seen = cache.buffer[:, :, came_from, :, : cache.length]  # (L, 2, B, H, S, D)
    if seen.shape[2] != cache.buffer.shape[2]:  # at first there are fewer texts
        cache.buffer = Cache(model.shape, seen.shape[2], room, model.embed.weight).buffer
    cache.buffer[:, :, :, :, : cache.length] = seen
