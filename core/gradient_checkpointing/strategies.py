r"""The ways to checkpoint a stack of layers, and what each should cost.

Keep the input of every $k$-th of $n$ layers, each $e$ bytes, and compute the $k$ layers between two of them again,
which keep $A$ bytes each while their backward pass runs:

$$\text{bytes}(k) = \lceil n/k \rceil\, e + k A - e.$$

If a layer keeps no more than its input ($A = e$), the best is $k = \sqrt n$, with $2\sqrt n$ instead of $n$ (Chen et
al.). A transformer's layer keeps tens of times its input: the best is $k = \sqrt{n e / A}$, below 1 for fewer than tens
of layers, so every layer is checkpointed.

In FLOPs, a backward pass is two forward passes, so a step is 3; everything computed again makes it 4. torch stops the
second forward pass once the last kept tensor is there: the layer's last matmul is skipped, a third of the weights'
FLOPs of a layer, and the step costs $3 \tfrac23$. But where dropout follows that matmul, its mask is the last kept
tensor: nothing is skipped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.foundations.activation_bytes import Layer, core_flops, forward_flops, head_bytes, kept_bytes, parts


@dataclass(frozen=True)
class Way:
    """How the layers are checkpointed: every k layers together (0: not at all), or only the core of attention."""

    key: str
    name: str
    k: int = 0

    def segments(self, n_layer: int) -> list[tuple[int, ...]]:
        size = self.k or 1
        return [tuple(range(first, min(n_layer, first + size))) for first in range(0, n_layer, size)]


def ways(n_layer: int, every: int, chain: bool) -> tuple[Way, ...]:
    """None, selective, and segments of 1, of k, of sqrt(n) and of all layers."""
    root = max(1, round(math.sqrt(n_layer)))
    sizes = sorted({1, min(every, n_layer), root, n_layer})
    plain = [Way("none", "none")] + ([] if chain else [Way("selective", "selective")])
    return (*plain, *(Way(f"every_{k}", named(k, n_layer, root), k) for k in sizes))


def named(k: int, n_layer: int, root: int) -> str:
    """'every layer', 'every 3rd', 'every 4th (root)', 'one for all'."""
    if k == 1:
        return "every layer"
    if k == n_layer:
        return "one for all"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th") if k % 100 not in (11, 12, 13) else "th"
    return f"every {k}{ending}" + (" = √n" if k == root else "")


@dataclass(frozen=True)
class Costs:
    """The formulas for one network of n layers."""

    layer: Layer
    n_layer: int
    vocabulary: int
    chain: bool

    @property
    def input_bytes(self) -> int:
        return self.layer.sbh * self.layer.number

    @property
    def layer_bytes(self) -> float:
        """A: what one layer keeps."""
        return self.input_bytes if self.chain else kept_bytes(self.layer)

    def segment_bytes(self, k: int) -> float:
        """The largest moment with every k-th input kept: at the head, or when the last segment has been computed
        again.
        """
        kept = math.ceil(self.n_layer / k) * self.input_bytes
        again = k * self.layer_bytes - (
            0 if self.chain else self.input_bytes
        )  # a link keeps its output besides, a layer does not
        return kept + max(head_bytes(self.layer, self.vocabulary), again)

    def peak(self, way: Way) -> float:
        """What is kept at the largest moment; gradients on their way and scratch come on top."""
        head = head_bytes(self.layer, self.vocabulary)
        if way.k:
            return self.segment_bytes(way.k)
        if way.key == "none":
            return self.n_layer * self.layer_bytes + head
        return self.n_layer * kept_bytes(self.layer, "selective") + max(head, self.core_again())

    def core_again(self) -> float:
        """How much more there is when a layer's core has been computed again: by then what came after it has been let
        go.
        """
        told = parts(self.layer)
        last = max(place for place, part in enumerate(told) if part.core)
        after = sum(part.per_sbh for part in told[last + 1 :])
        return self.layer.sbh * (sum(part.per_sbh for part in told if part.core) - after)

    def flops(self) -> float:
        """Of all layers, forward."""
        one = 2 * self.layer.b * self.layer.s * self.layer.h**2 if self.chain else forward_flops(self.layer)
        return self.n_layer * one

    def ratio(self, way: Way, early_stop: bool) -> float:
        """FLOPs of a step of the layers over those of their forward pass."""
        extra = 0.0
        core = core_flops(self.layer)
        if way.key == "selective":
            extra = (
                self.n_layer * core * (0.5 if early_stop else 1.0)
            )  # its second product is the last thing that keeps something
        elif way.k:
            skipped = (
                0.0
                if self.chain or self.layer.dropout or not early_stop
                else 8 * self.layer.b * self.layer.s * self.layer.h**2
            )
            extra = self.flops() - math.ceil(self.n_layer / way.k) * skipped
        return 3 + extra / self.flops()

    def moved_bytes(self, way: Way) -> float:
        """Least traffic of a step: what is kept is written and read once, whether the first or the second time."""
        everything = self.n_layer * self.layer_bytes
        return 2 * everything + (2 * self.n_layer * self.input_bytes / way.k if way.k else 0.0)


def sawtooth(costs: Costs, way: Way, early_stop: bool) -> tuple[tuple[float, float], ...]:
    """Corners of (work done, in forward passes; bytes kept) of one step by formula."""
    n, head = costs.n_layer, head_bytes(costs.layer, costs.vocabulary)
    one = kept_bytes(costs.layer, "selective") if way.key == "selective" else costs.layer_bytes
    work, kept, corners = 0.0, 0.0, [(0.0, 0.0)]
    for segment in way.segments(n):
        work, kept = work + len(segment) / n, kept + (costs.input_bytes if way.k else len(segment) * one)
        corners.append((work, kept))
    corners += [(work, kept + head), (work, kept)]
    extra = costs.ratio(way, early_stop) - 3
    for segment in reversed(way.segments(n)):
        share = len(segment) / n
        again = (
            len(segment) * costs.layer_bytes - (0 if costs.chain else costs.input_bytes)
            if way.k
            else costs.core_again()
        )
        if way.k or way.key == "selective":
            work = work + extra * share
            corners.append((work, kept + again))
        work, kept = work + 2 * share, kept - (costs.input_bytes if way.k else len(segment) * one)
        corners.append((work, kept))
    return tuple(corners)


def front(points: Sequence[tuple[str, float, float]], slack: float = 0.0) -> tuple[str, ...]:
    """Names of (name, seconds, bytes) that no other beats in both, the fastest first; `slack` is a share of bytes that
    is no gain.
    """

    def beaten(x: float, y: float) -> bool:
        return any((u <= x and v < y) or (u < x and v <= y * (1 + slack)) for _, u, v in points)

    best = [(x, name) for name, x, y in points if not beaten(x, y)]
    return tuple(name for _, name in sorted(best))
