"""Real queries, keys and values: what one attention head of the shipped GPT makes of a text."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.experiment import setting
from core.foundations.transformer import Transformer, rotate
from core.foundations.weights import ModelFile, model_bytes, models, shipped

SENTENCE = "The keeper of the lamp went up the stair, and all the harbour waited for the light that did not come."
MOST_TOKENS, LAYERS, HEADS, WIDTH = 128, 6, 5, 32  # of the shipped GPT; a token is a character


@dataclass(frozen=True)
class Head:
    """What one head works with: a row per character."""

    q: Float[Tensor, "T D"]
    k: Float[Tensor, "T D"]
    v: Float[Tensor, "T D"]


@cache
def model_file() -> ModelFile:
    return shipped("nanogpt")


def gpt() -> Transformer:
    """The shipped character GPT, read once."""
    model: Transformer = models().get("flash_attention nanogpt", lambda: model_file().build(), model_bytes)
    return model


def layer_field() -> Any:
    """Which layer of the trained GPT."""
    help = "Later layers of the trained GPT look for other patterns than the first ones."
    return setting(2, "Layer of the GPT", low=1, high=LAYERS, more=True, help=help, slider=True)


def head_field() -> Any:
    """Which head of that layer."""
    help = "Each head of the trained GPT looks for something else."
    return setting(1, "Attention head", low=1, high=HEADS, more=True, help=help, slider=True)


def check_text(text: str) -> None:
    """What can be said of a text without the model."""
    if len(text) < 2:
        raise ValueError(f"text must be at least 2 characters, got {len(text)}: with one there is nothing to attend to")


def token_ids(text: str) -> list[int]:
    """A character's id is its place in the GPT's alphabet."""
    symbols = model_file().symbols
    unknown = list(dict.fromkeys(symbol for symbol in text if symbol not in symbols))
    if unknown:
        told = ", ".join(repr(symbol) for symbol in unknown[:5]) + (" and others" if len(unknown) > 5 else "")
        raise ValueError(
            f"text may hold only the {len(symbols)} characters the GPT has learned, and it does not know {told}"
        )
    return [symbols.index(symbol) for symbol in text]


@torch.no_grad()
def head_of(text: str, layer: int, head: int) -> Head:
    """Queries, keys and values as that head computes them; layers and heads count from 1."""
    ids, model = token_ids(text), gpt()
    x, turns = model.embed(torch.tensor([ids])), model.turns[: len(ids)]  # (1, T, C)
    for block in model.blocks[: layer - 1]:
        x = block(x, turns, None, None)
    here: Any = model.blocks[layer - 1]
    rows = here.attention.qkv(here.norm_1(x)).view(
        1, len(ids), 3 * HEADS, WIDTH
    )  # the heads of q, then of k, then of v
    qk, v = rows.split((2 * HEADS, HEADS), 2)
    q, k = rotate(F.layer_norm(qk, (WIDTH,)), turns).chunk(2, 2)
    return Head(*(part[0, :, head - 1].clone() for part in (q, k, v)))
