"""The diagram of the tab nanoGPT: from characters to probabilities of the next one (Vaswani et al. 2017, figure 1)."""

from contextlib import suppress
from functools import cache
from typing import Any

from core.foundations.experiment import counted
from core.foundations.transformer import Shape
from core.foundations.weights import from_bytes, shipped
from core.nanogpt import DecodeConfig, GenerateConfig, InsideConfig, TokensConfig
from pages._kit.diagram import Diagram, arrow, box, group, label, matrix, stack

GPT2 = Shape(50257, 12, 12, 768, 1024)


@cache
def of_the_shipped() -> Shape:
    return shipped("nanogpt").shape


def writing(model: str, file: bytes) -> Shape:
    """The sizes of a model that writes; of the shipped one where the file is none."""
    if model == "gpt2":
        return GPT2
    with suppress(ValueError):
        if model == "own" and file:
            return from_bytes(file).shape
    return of_the_shipped()


def cutting(config: TokensConfig) -> Diagram:
    """How merges are learned, and what is cut by them."""
    shapes = [
        box(4, 28, 96, 56, "text", "to learn from", part="text", color="d"),
        arrow((100, 56), (122, 56)),
        box(124, 28, 96, 56, "words", "as bytes", part="words", color="d"),
        group(236, 8, 204, 170, f"{counted(config.merges, 'time')}: one more token"),
        arrow((220, 56), (254, 56)),
        box(256, 28, 166, 56, "count the pairs", "of neighbouring tokens", part="pairs", color="a"),
        arrow((372, 84), (372, 110)),
        box(256, 112, 166, 56, "merge", "the most frequent pair", part="merge", color="a"),
        arrow((306, 112), (306, 88)),
        arrow((422, 140), (454, 140)),
        box(456, 112, 84, 56, "tokens", f"256 + {config.merges:,}", part="tokens", color="b"),
        arrow((498, 168), (498, 200)),
        box(256, 202, 284, 36, "a new text, cut by the merges in order", part="cut", color="b"),
    ]
    alt = (
        f"A text is split into words, and these into bytes. {counted(config.merges, 'time')} the most frequent pair of"
        " neighbouring tokens becomes one new token. A new text is cut by the same merges in the same order."
    )
    return Diagram(shapes, 544, 242, alt)


def diagram(config: Any) -> Diagram:
    """With the sizes of the model that is trained, writes or is opened; for tokens, how they are learned."""
    if isinstance(config, TokensConfig):
        return cutting(config)
    writes = isinstance(config, DecodeConfig | GenerateConfig | InsideConfig)
    size = writing(config.model, config.model_file) if writes else config
    layers, heads, width, context = size.n_layer, size.n_head, size.width, size.context
    shapes = [
        box(4, 68, 84, 50, "characters", f"the last {context}", part="text", color="d"),
        arrow((88, 93), (106, 93)),
        matrix(108, 66, 74, 54, "", f"{width} numbers", part="embed", color="d"),
        label(145, 58, "embedding"),
        group(
            204,
            8,
            222,
            166,
            counted(layers, "layer") + (", one after the other: the weights" if layers > 1 else ": the weights"),
        ),
        arrow((182, 93), (226, 93)),
        stack(228, 64, 82, 60, heads, "attention", counted(heads, "head"), part="attention", color="a"),
        arrow((310, 93), (338, 93)),
        box(340, 64, 72, 60, "MLP", "each alone", part="mlp", color="c"),
        arrow((214, 93), (214, 150), (420, 150), (420, 104)),
        label(317, 165, "residual connection: what came in is added"),
        arrow((412, 93), (444, 93)),
        box(446, 64, 92, 60, "probabilities", "of the next one", part="predict", color="b"),
        arrow((492, 124), (492, 190)),
        box(446, 192, 92, 44, "loss", "−ln p", part="loss", color="b"),
        arrow((446, 214), (317, 214), (317, 178)),
        label(206, 218, "training changes the weights", part="update"),
    ]
    alt = (
        f"Characters become rows of {width} numbers, go through {counted(layers, 'layer')} of attention with"
        f" {counted(heads, 'head')} and an MLP, and come out as the probabilities of the next character; the loss"
        " says how wrong they are, and training changes the weights."
    )
    return Diagram(shapes, 544, 242, alt)
