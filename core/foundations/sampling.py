r"""From scores to text: temperature, top-k, top-p, and the loop that writes one token after the other.

$$p_i = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}$$

Temperature $\tau$ below 1 sharpens the distribution, above 1 flattens it, 0 always takes the best. Top-k keeps the k
best tokens; top-p keeps the smallest set of best tokens whose probabilities sum to at least p. What is left is scaled
back to sum to 1. The filters give what transformers' own give (tested).

Source: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2019, arXiv:1904.09751 (top-p, there "nucleus").
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.transformer import Cache, Transformer


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen. top_k 0 and top_p 1 leave everything in."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def probabilities(logits: Float[Tensor, "*B V"], choice: Choice) -> Float[Tensor, "*B V"]:
    """The distribution the next token is drawn from."""
    if choice.temperature < 1e-6:  # float32 cannot divide by much less
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    logits = logits / choice.temperature
    if 0 < choice.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(choice.top_k).values[..., -1:], -torch.inf)
    if choice.top_p < 1:
        best, order = logits.sort(descending=True)
        before = torch.softmax(best, -1).cumsum(-1) - torch.softmax(best, -1)  # probability of all better tokens
        logits = logits.masked_fill((before >= choice.top_p).scatter(-1, order, before >= choice.top_p), -torch.inf)
    return torch.softmax(logits, -1)


def draw(p: Float[Tensor, "V"], rng: torch.Generator) -> int:
    """One token by inverse transform: the first whose cumulative probability passes a uniform number."""
    u = torch.rand((), generator=rng)
    sums = p.double().cumsum(-1).cpu()
    return int(torch.searchsorted(sums, u.double() * sums[-1], right=True))


@dataclass(frozen=True)
class Drawn:
    token: int
    p: Tensor  # (V,) what it was drawn from
    cache: Cache
    maps: list[Tensor] | None  # per layer (1, H, T, S): where the newest positions looked


def write(
    model: Transformer, prompt: list[int], length: int, choice: Choice, rng: torch.Generator, watch: bool = False
) -> Iterator[Drawn]:
    """Continue the prompt by `length` tokens, one `Drawn` each.

    Keys and values of past tokens are kept in a cache, so a token costs one pass over one position. When the model's
    context is full, the cache is rebuilt from the latest half of the text.
    """
    tokens, context = list(prompt), model.shape.context
    device = model.embed.weight.device
    cache, new = fresh(model), tokens[-context:]
    for _ in range(length):
        if cache.length + len(new) > context:
            cache, new = fresh(model), tokens[-max(1, context // 2) :]
        maps: list[Tensor] | None = [] if watch else None
        p = probabilities(next_logits(model, torch.tensor([new], device=device), cache, maps), choice)
        token = draw(p, rng)
        yield Drawn(token, p, cache, maps)
        tokens.append(token)
        new = [token]


def fresh(model: Transformer) -> Cache:
    return Cache(model.shape, 1, model.shape.context, model.embed.weight)


@torch.inference_mode()
def next_logits(model: Transformer, tokens: Tensor, cache: Cache, maps: list[Tensor] | None) -> Float[Tensor, "V"]:
    return model(tokens, cache, maps)[0, -1].float()
