r"""Attention, written out: what each place of the picture reads from each word, and from each other place.

A place $p$ of the latents asks $q_p$; a token $j$ of the prompt offers a key $k_j$ and a value $v_j$:

$$M_{pj} = \frac{e^{q_p \cdot k_j / \sqrt d}}{\sum_i e^{q_p \cdot k_i / \sqrt d}}, \qquad o_p = \sum_j M_{pj} v_j.$$

$M$ has a row per place and a column per token; each row adds up to 1. A column, laid out as a picture, shows where
token $j$ is read. In self-attention the places themselves take the part of the tokens. `Watch` stands in for diffusers'
own processor, gives the same output, and lets $M$ be seen, and replaced on its way to the values.

Left out: masks, group norm and the other cases that Stable Diffusion's U-Net does not have.
Source: Tang et al. 2022, arXiv:2210.04885 (DAAM); Hertz et al. 2022, arXiv:2208.01626 (prompt-to-prompt).
"""

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.small_diffusion import Denoiser

Change = Callable[
    [Float[Tensor, "N H P L"], bool], Float[Tensor, "N H P L"]
]  # a layer's maps, is it cross-attention -> those to use


class Watch:
    """A processor of attention: keeps the maps of words, and uses what `change` makes of any maps."""

    def __init__(self, change: Change | None = None) -> None:
        self.change, self.maps = (
            change,
            list[Tensor](),
        )  # per layer of cross-attention (N, places, tokens), the mean of the heads

    def __call__(
        self, attn: Any, x: Float[Tensor, "N P C"], encoder_hidden_states: Tensor | None = None, *rest: Any, **more: Any
    ) -> Tensor:
        """Called by diffusers' `Attention` in the place of its own processor."""
        read = x if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(x), attn.to_k(read), attn.to_v(read))
        )
        maps = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)  # (N, H, P, L)
        if self.change:
            maps = self.change(maps, encoder_hidden_states is not None)
        if encoder_hidden_states is not None:
            self.maps.append(maps.mean(1).float().cpu())
        return attn.to_out[0]((maps @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@contextmanager
def watched(unet: Any, watch: Watch, names: Sequence[str] = (".attn2",)) -> Iterator[None]:
    """Attention goes through `watch` (.attn2: of words, .attn1: of places); afterwards all is as before. Others share
    the U-Net: no yield meanwhile.
    """
    layers = [layer for name, layer in unet.named_modules() if name.endswith(tuple(names))]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.processor = watch
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.processor = own


def laid_out(maps: Float[Tensor, "N P L"], high: int, wide: int) -> Float[Tensor, "N L h w"]:
    """A layer's maps as pictures of the size of the latents, wherever in the U-Net the layer stands."""
    side = math.isqrt(maps.shape[1])
    return F.interpolate(maps.mT.unflatten(-1, (side, side)), (high, wide), mode="bilinear")


# --- prompt-to-prompt -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reuse:
    """For which fraction of the steps a picture takes the maps of the first one of its batch."""

    words: float = 0.0  # of cross-attention
    places: float = 0.0  # of self-attention


def aligned(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """For each token of the second prompt the place of its partner in the first, or -1: equal ones, and those replaced
    one for one.
    """
    partners = [-1] * len(second)
    for what, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if what == "equal" or (what == "replace" and b - a == d - c):
            partners[c:d] = range(a, b)
    return partners


def reusing(plan: Sequence[Reuse], partners: Sequence[Sequence[int]], done: float) -> Change:
    """The change of maps when the share `done` of the steps is over.

    A batch is the pictures without their prompts, then with them.
    """
    count = len(plan)

    def change(maps: Float[Tensor, "N H P L"], across: bool) -> Float[Tensor, "N H P L"]:
        out = maps.clone()
        for row, reuse in enumerate(plan):
            if across and done < reuse.words:
                own = torch.tensor(partners[row], device=maps.device)
                out[count + row] = torch.where(own < 0, maps[count + row], maps[count][..., own.clamp(min=0)])
            elif not across and done < reuse.places:
                out[row], out[count + row] = maps[0], maps[count]
        return out

    return change


class Watched:
    """A network for `sampling` that watches: after each step `seen` (N, L, h, w) holds the maps under the prompts, the
    mean of layers and heads.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        states: Float[Tensor, "N L W"],
        steps: int,
        plan: Sequence[Reuse] = (),
        partners: Sequence[Sequence[int]] = (),
    ) -> None:
        self.denoiser, self.network, self.count, self.steps = denoiser, denoiser.network(states), len(states), steps
        self.plan, self.partners, self.step = plan, partners, 0
        self.seen = torch.zeros(0)

    def __call__(self, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        watch = Watch(reusing(self.plan, self.partners, self.step / self.steps) if self.plan else None)
        with watched(self.denoiser.unet, watch, (".attn1", ".attn2") if self.plan else (".attn2",)):
            told = self.network(x, t)
        self.step += 1
        self.seen = torch.stack([laid_out(maps[self.count :], *self.denoiser.places[1:]) for maps in watch.maps]).mean(
            0
        )
        return told
