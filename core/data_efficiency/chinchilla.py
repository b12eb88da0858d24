r"""Chinchilla: how to split a budget of computation between weights and tokens.

Training a model of $N$ weights on $D$ tokens takes about $C = 6ND$ FLOPs, and Hoffmann et al. fit the loss with

$$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}.$$

Along a line of equal $C$ (an isoFLOP line) a small model reads much and a large one little; the loss is lowest at

$$N^* = G \left(\frac{C}{6}\right)^{\frac{\beta}{\alpha+\beta}}, \quad D^* = \frac{C}{6 N^*},
\quad G = \left(\frac{\alpha A}{\beta B}\right)^{\frac{1}{\alpha+\beta}}.$$

**Their three approaches disagree, and the numbers in the paper are why.** Approach 1 (their Table 3) says about 20
tokens per parameter, which is how Chinchilla was trained. The constants of approach 3, as the paper prints them, give
92.6 at Gopher's budget. Besiroglu et al. took the points from the paper's figure and fitted them again: their constants
give 18.4 (they say about 20). The first fit had stopped too early, and the printed constants are rounded.

Source: Hoffmann et al. 2022, arXiv:2203.15556, equations 2, 4 and 10, Table 3; Besiroglu et al. 2024, arXiv:2404.10102.
"""

import math
from dataclasses import dataclass

import numpy as np

from core.data_efficiency.repeat import data_constrained_loss


@dataclass(frozen=True)
class Surface:
    """L = e + a / N^alpha + b / D^beta."""

    name: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) with the lowest loss of all that cost `flops`."""
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / (6 * parameters)


HOFFMANN = Surface("Hoffmann's printed constants", 1.69, 406.4, 410.7, 0.34, 0.28)
BESIROGLU = Surface("Besiroglu's refit", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)

TABLE_3 = (  # parameters, FLOPs, tokens: the optimal training of models of many sizes by approach 1
    (400e6, 1.92e19, 8.0e9),
    (1e9, 1.21e20, 20.2e9),
    (10e9, 1.23e22, 205.1e9),
    (67e9, 5.76e23, 1.5e12),
    (175e9, 3.85e24, 3.7e12),
    (280e9, 9.90e24, 5.9e12),
    (520e9, 3.43e25, 11.0e12),
    (1e12, 1.27e26, 21.2e12),
    (10e12, 1.30e28, 216.2e12),
)


def approach_1(flops: float) -> tuple[float, float]:
    """(parameters, tokens) on the straight line, in logarithms, through the parameters of Table 3."""
    sizes, costs, _ = np.log(np.array(TABLE_3)).T
    slope, start = np.polyfit(costs, sizes, 1)
    parameters = math.exp(start + slope * math.log(flops))
    return parameters, flops / (6 * parameters)


@dataclass(frozen=True)
class Advice:
    """What to train with a budget, and who says so."""

    who: str
    parameters: float
    tokens: float
    loss: float | None  # by the law of whoever says so, in their nats per token
    epochs: float = 1.0

    @property
    def ratio(self) -> float:
        """Tokens per parameter."""
        return self.tokens / self.parameters


def advice(flops: float, text: float) -> list[Advice]:
    """What to train with `flops`; with a limited `text` (tokens; 0: no limit) also what Muennighoff et al. would do."""
    told = [Advice("Hoffmann's approach 1", *approach_1(flops), None)]
    told += [
        Advice(surface.name, *surface.optimum(flops), surface.loss(*surface.optimum(flops)))
        for surface in (HOFFMANN, BESIROGLU)
    ]
    if text:
        told.append(with_text(flops, text))
    return told


def with_text(flops: float, text: float) -> Advice:
    """The best split when there are only `text` different tokens: the lowest point of the data-constrained law, by
    search.
    """
    centre = math.log(approach_1(flops)[0])
    sizes = np.exp(np.linspace(centre - 7, centre + 5, 1201))
    losses = [data_constrained_loss(size, flops / (6 * size), min(text, flops / (6 * size))) for size in sizes]
    best = int(np.argmin(losses))
    tokens = flops / (6 * float(sizes[best]))
    return Advice("Muennighoff, with your text", float(sizes[best]), tokens, losses[best], max(1.0, tokens / text))


@dataclass(frozen=True)
class IsoFlop:
    """All that one budget can buy, by one surface."""

    who: str
    flops: float
    parameters: tuple[float, ...]
    losses: tuple[float, ...]
    best: tuple[float, float]  # parameters and loss at the optimum

    @property
    def tokens_per_parameter(self) -> float:
        """At the optimum, from C = 6 N D."""
        return self.flops / 6 / self.best[0] ** 2


def isoflops(flops: float) -> tuple[IsoFlop, ...]:
    """Three budgets, a hundred times apart, by both surfaces."""
    lines = []
    for surface in (HOFFMANN, BESIROGLU):
        for budget in (flops / 100, flops, flops * 100):
            best, tokens = surface.optimum(budget)
            sizes = tuple(
                float(size) for size in np.geomspace(approach_1(budget)[0] / 30, approach_1(budget)[0] * 30, 41)
            )
            losses = tuple(surface.loss(size, budget / (6 * size)) for size in sizes)
            lines.append(IsoFlop(surface.name, budget, sizes, losses, (best, surface.loss(best, tokens))))
    return tuple(lines)
