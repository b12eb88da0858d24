"""Heads that were averaged learn to work together: a few steps on what the base has learned from ("uptraining", GQA
section 2.1).
"""

from collections.abc import Generator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from core.foundations.base_model import CONTEXT, Base, pretraining_corpora
from core.foundations.corpus import batch_of
from core.kv_cache.llama import Llama, logits

BATCH = 4  # sequences per step: a step is one unit of work
LEARNING_RATE = 2e-3  # at the start; it falls to 0 along a line
CHARACTERS = 40_000  # of each text the base has learned from


def uptraining_ids(base: Base) -> Int[Tensor, "N"]:
    """What the base has learned from, so that nothing new is learned but how to share."""
    return torch.cat([base.ids(corpus.train[:CHARACTERS]) for corpus in pretraining_corpora()]).to(base.device)


def trainable(model: Llama) -> Llama:
    """A copy whose weights can learn."""
    layers = tuple(
        replace(layer, **{name: weight.clone().requires_grad_() for name, weight in vars(layer).items()})
        for layer in model.layers
    )
    embed, norm, head = (weight.clone().requires_grad_() for weight in (model.embed, model.norm, model.head))
    return replace(model, layers=layers, embed=embed, norm=norm, head=head)


def weights_of(model: Llama) -> list[Tensor]:
    return [model.embed, model.norm, model.head, *(weight for layer in model.layers for weight in vars(layer).values())]


def uptrain(model: Llama, ids: Int[Tensor, "N"], steps: int, seed: int) -> Generator[float | None, None, Llama]:
    """Train a copy; yields the loss of each step, and None once more before its update; gives the trained model."""
    model, rng = trainable(model), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(weights_of(model), LEARNING_RATE, weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        inputs, targets = batch_of(ids, CONTEXT, BATCH, rng)
        loss = F.cross_entropy(logits(model, inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        yield None
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach())
    for weight in weights_of(model):
        weight.requires_grad_(False)
    return model
