r"""From logits to text: how the next token is chosen, and the loop that writes one token after the other.

Temperature $\tau$ below 1 sharpens the distribution, above 1 flattens it, 0 always takes the likeliest (greedy):

$$p_i = \frac{e^{z_i/\tau}}{\sum_j e^{z_j/\tau}}$$

Three ways to cut the tail: top-k keeps the k likeliest tokens, top-p the fewest likeliest whose probabilities sum to at
least p, min-p all that are at least min-p times as likely as the likeliest. What is left is scaled back to sum to 1. A
repetition penalty $\theta > 1$ makes every token that the text already holds less likely: its logit is divided by
$\theta$ if positive, multiplied by it if negative. Each filter gives what transformers' own gives (tested).

Source: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2019, arXiv:1904.09751, section 3.1
(top-p, there "nucleus"); Nguyen et al. 2024, arXiv:2407.01082, section 3 (min-p); Keskar et al. 2019, arXiv:1909.05858,
section 4.1 (the penalty).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.foundations.transformer import Cache, Transformer

Logits = Float[Tensor, "*B V"]


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen. top_k 0, top_p 1, min_p 0 and penalty 1 leave everything as it is."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    penalty: float = 1.0


def penalized(logits: Logits, penalty: float, earlier: list[int]) -> Logits:
    """Tokens that the text already holds become less likely."""
    seen = torch.tensor(sorted(set(earlier)), dtype=torch.long, device=logits.device)
    chosen, result = logits[..., seen], logits.clone()
    result[..., seen] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    return result


def at_temperature(logits: Logits, temperature: float) -> Logits:
    if temperature < 1e-6:  # float32 cannot divide by much less
        best = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
        return logits.masked_fill(~best, -torch.inf)
    return logits / temperature


def of_the_best(logits: Logits, k: int) -> Logits:
    """Top-k."""
    return logits.masked_fill(logits < logits.topk(min(k, logits.shape[-1])).values[..., -1:], -torch.inf)


def of_the_nucleus(logits: Logits, top_p: float) -> Logits:
    """Top-p."""
    best, order = logits.sort(descending=True)
    before = torch.softmax(best, -1).cumsum(-1) - torch.softmax(best, -1)  # probability of all better tokens
    return logits.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), -torch.inf)


def near_the_best(logits: Logits, min_p: float) -> Logits:
    """Min-p."""
    p = torch.softmax(logits, -1)
    return logits.masked_fill(p < min_p * p.amax(-1, keepdim=True), -torch.inf)


def stages(choice: Choice, earlier: list[int] | None = None) -> list[tuple[str, Callable[[Logits], Logits]]]:
    """What is done to the logits, in this order; only what changes something. earlier: the tokens of the text so far,
    which the penalty needs.
    """
    done: list[tuple[str, Callable[[Logits], Logits]]] = []
    if choice.penalty != 1 and earlier:
        done.append(("penalty", lambda logits: penalized(logits, choice.penalty, earlier)))
    if choice.temperature != 1:
        done.append(("temperature", lambda logits: at_temperature(logits, choice.temperature)))
    if choice.top_k > 0:
        done.append(("top-k", lambda logits: of_the_best(logits, choice.top_k)))
    if choice.top_p < 1:
        done.append(("top-p", lambda logits: of_the_nucleus(logits, choice.top_p)))
    if choice.min_p > 0:
        done.append(("min-p", lambda logits: near_the_best(logits, choice.min_p)))
    return done


def probabilities(logits: Logits, choice: Choice, earlier: list[int] | None = None) -> Logits:
    """The distribution that the next token is drawn from."""
    for _, change in stages(choice, earlier):
        logits = change(logits)
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
        p = probabilities(next_logits(model, torch.tensor([new], device=device), cache, maps), choice, tokens)
        token = draw(p, rng)
        yield Drawn(token, p, cache, maps)
        tokens.append(token)
        new = [token]


def fresh(model: Transformer) -> Cache:
    return Cache(model.shape, 1, model.shape.context, model.embed.weight)


@torch.inference_mode()
def next_logits(model: Transformer, tokens: Tensor, cache: Cache, maps: list[Tensor] | None) -> Float[Tensor, "V"]:
    return finite(model(tokens, cache, maps)[0, -1].float())


def finite(logits: Logits) -> Logits:
    """The logits, if they are numbers; a ValueError of one sentence if the model's weights have made them none."""
    if not torch.isfinite(logits).all():
        raise ValueError("The model's numbers overflow, so it cannot write: its weights are damaged, or far too large")
    return logits
