r"""The network of the small GLIDE: a U-Net written out.

A picture in noise goes in as 8 x 8 places and comes out as 8 x 8 places. On the way down it is halved to 4 x 4, where a
place sees the whole drawing; on the way up it is joined with what was known before halving, so that no edge is lost.

Two things tell each layer what to do. A **condition** (the step of the noise, plus a summary of the words) scales and
shifts every channel. And in each attention the **words stand among the places**: a place asks, and 64 places and 24
words answer. That is how GLIDE reads its caption; Stable Diffusion has an attention of its own for the words.

The last layer of each block begins at zero, so that the untrained network answers 0.

Left out: several blocks per level, dropout, half precision.
Source: Nichol et al. 2021, arXiv:2112.10741, section 4 (words among the keys, a summary added to the step); Dhariwal
and Nichol 2021, arXiv:2105.05233 (scale and shift); Ronneberger et al. 2015, arXiv:1505.04597.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WAVES = 32  # sines and cosines of the step
GROUPS = 1  # of a normalization: all channels together
PER_HEAD = 16  # channels of an attention head


class Block(nn.Module):
    """Two convolutions over 3 x 3 places; between them the condition scales and shifts."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.first_norm, self.first = nn.GroupNorm(GROUPS, before), nn.Conv2d(before, after, 3, padding=1)
        self.told = nn.Linear(condition, 2 * after)
        self.second_norm, self.out = nn.GroupNorm(GROUPS, after), nn.Conv2d(after, after, 3, padding=1)
        self.around = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "N A H W"], condition: Float[Tensor, "N C"]) -> Float[Tensor, "N B H W"]:
        inner = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.told(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
        return self.around(x) + self.out(F.silu(self.second_norm(inner) * (1 + scale) + shift))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Each place looks at all places and all words."""

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.heads = channels // PER_HEAD
        self.norm, self.places, self.words = (
            nn.GroupNorm(GROUPS, channels),
            nn.Linear(channels, 3 * channels),
            nn.Linear(words, 2 * channels),
        )
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "N A H W"], words: Float[Tensor, "N T D"]) -> Float[Tensor, "N A H W"]:
        query, key, value = self.places(self.norm(x).flatten(2).mT).chunk(3, dim=-1)
        word_key, word_value = self.words(words).chunk(2, dim=-1)
        key, value = torch.cat([key, word_key], 1), torch.cat([value, word_value], 1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.out(seen).mT.reshape(x.shape)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Two levels; widths: their channels."""

    def __init__(self, channels: int, widths: tuple[int, int], words: int) -> None:
        super().__init__()
        upper, lower = widths
        condition = 4 * upper
        self.step = nn.Sequential(nn.Linear(2 * WAVES, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.summary = nn.Linear(words, condition)
        self.enter = nn.Conv2d(channels, upper, 3, padding=1)
        self.above, self.look_above = Block(upper, upper, condition), Attention(upper, words)
        self.down = nn.Conv2d(upper, lower, 3, stride=2, padding=1)
        self.below, self.look_below, self.below_again = (
            Block(lower, lower, condition),
            Attention(lower, words),
            Block(lower, lower, condition),
        )
        self.up = nn.Conv2d(lower, upper, 3, padding=1)
        self.joined, self.look_again = Block(2 * upper, upper, condition), Attention(upper, words)
        self.norm, self.out = nn.GroupNorm(GROUPS, upper), nn.Conv2d(upper, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "N C H W"], t: Tensor | int, words: Float[Tensor, "N T D"], summary: Float[Tensor, "N D"]
    ) -> Float[Tensor, "N C H W"]:
        condition = self.step(waves(t)) + self.summary(summary)
        upper = self.look_above(self.above(self.enter(x), condition), words)
        lower = self.look_below(self.below(self.down(upper), condition), words)
        lower = self.below_again(lower, condition)
        joined = torch.cat([self.up(F.interpolate(lower, scale_factor=2)), upper], 1)
        joined = self.look_again(self.joined(joined, condition), words)
        return self.out(F.silu(self.norm(joined)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def hush(self) -> None:
        """Let the last layer of each block begin at zero."""
        for part in self.modules():
            if isinstance(part, (Block, Attention, UNet)):
                part.out.weight.zero_()


def waves(t: Tensor | int) -> Float[Tensor, "N 64"]:
    """A step of the noise as sines and cosines of slower and slower waves."""
    angles = torch.as_tensor(t).reshape(-1, 1) * torch.exp(-math.log(10_000) / WAVES * torch.arange(WAVES))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
