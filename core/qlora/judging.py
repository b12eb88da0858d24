"""Looking at a text with a model: its loss, the likeliest token at each position, and that token's lead."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.foundations.base_model import windows_at_once


@dataclass(frozen=True)
class Seen:
    """What a model says of a text: its loss, and at each position the likeliest token and its lead over the second."""

    loss: float
    likeliest: Tensor
    lead: Tensor  # nats


def look(model: Any, inputs: Tensor, targets: Tensor) -> Generator[None, None, Seen]:
    """Yields between parts."""
    total, parts = 0.0, list[tuple[Tensor, Tensor]]()
    wide = windows_at_once(model, inputs.shape[1], 2)
    for first in range(0, len(inputs), wide):
        if first:
            yield
        part = slice(first, first + wide)
        loss, best, lead = looked_at(model, inputs[part], targets[part])
        total += loss
        parts.append((best, lead))
    likeliest, leads = (torch.cat(column) for column in zip(*parts, strict=True))
    return Seen(total / max(1, targets.numel()), likeliest, leads)


@torch.inference_mode()
def looked_at(model: Any, inputs: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    """Summed loss, likeliest token, and its lead over the second: a difference of logits is one of log-
    probabilities.
    """
    device = next(model.parameters()).device
    logits = model(input_ids=inputs.to(device), use_cache=False).logits.float()
    best = logits.topk(2)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten().to(device), reduction="sum")
    return float(loss), best.indices[..., 0].cpu(), (best.values[..., 0] - best.values[..., 1]).cpu()
