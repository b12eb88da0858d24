"""Contrastive training: the loss, and one optimizer step of both towers in units small enough to take turns."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.clip.worlds import Lot, World, equal_captions
from core.foundations.small_clip import Clip, encode_texts, make

AT_ONCE = 64  # pictures, or captions, of one unit of work
WARMING = 0.1  # fraction of the run in which the learning rate climbs, 200 steps at most
WEIGHT_DECAY = 0.05


def contrast(
    pictures: Float[Tensor, "N E"],
    texts: Float[Tensor, "N E"],
    scale: Tensor,
    left_out: Bool[Tensor, "N N"] | None = None,
) -> Tensor:
    """InfoNCE in both directions: each picture must find its caption among all, each caption its picture.

    left_out: pairs that are neither right nor wrong, as where two captions are equal; never on the diagonal.
    """
    logits = scale * pictures @ texts.T  # (N, E) @ (E, N) -> (N, N)
    if left_out is not None:
        logits = logits.masked_fill(left_out, -math.inf)
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def schedule(step: int, steps: int) -> float:
    """The learning rate's scale: up, then half a cosine down to a hundredth."""
    warming = max(1.0, min(200, WARMING * steps))
    return min(1.0, (step + 1) / warming) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


class Contrast:
    """The model and its loop."""

    def __init__(
        self,
        world: World,
        width: int,
        rate: float,
        scale: float,
        learn_scale: bool,
        most_scale: float,
        mask: bool,
        seed: int,
    ) -> None:
        self.world, self.rate, self.most_scale, self.mask = world, rate, most_scale, mask
        self.model = make(torch.Generator().manual_seed(seed), width, world.vocabulary)
        self.model.logit_scale.data.fill_(math.log(scale))
        self.model.logit_scale.requires_grad_(learn_scale)
        self.rng = np.random.default_rng(seed)
        weights = [weight for name, weight in self.model.named_parameters() if weight.dim() > 1]
        others = [weight for name, weight in self.model.named_parameters() if weight.dim() < 2 and weight.requires_grad]
        groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), fused=True)

    @property
    def clip(self) -> Clip:
        return Clip(self.model, self.world.tokens)

    def left_out(self, lot: Lot) -> Bool[Tensor, "N N"]:
        same = equal_captions(lot.said)
        return same if self.mask else torch.zeros_like(same)

    def one_step(self, lot: Lot, scale: float) -> Iterator[float | None]:
        """One optimizer step with `scale` times the learning rate. Yields None between units of work, then
        the loss.

        The loss needs all embeddings at once, the towers do not: they run in parts, and so does the way back.
        """
        self.optimizer.param_groups[0]["lr"] = self.optimizer.param_groups[1]["lr"] = self.rate * scale
        parts, n = list[Tensor](), len(lot.pictures)
        for first in range(0, n, AT_ONCE):
            parts.append(self.model.encode_image(2 * lot.pictures[first : first + AT_ONCE] - 1))
            yield None
        for first in range(0, n, AT_ONCE):
            parts.append(encode_texts(self.model, lot.tokens[first : first + AT_ONCE]))
        ends = [part.detach().requires_grad_() for part in parts]
        half = len(ends) // 2
        pictures, texts = (F.normalize(torch.cat(some), dim=-1) for some in (ends[:half], ends[half:]))
        loss = contrast(pictures, texts, self.model.logit_scale.exp(), self.left_out(lot))
        loss.backward()
        for part, end in zip(parts, ends, strict=True):
            yield None
            part.backward(end.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.logit_scale.data.clamp_(0, math.log(self.most_scale))
        yield loss.item()
