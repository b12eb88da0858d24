r"""Best of n: no training at all. Draw n answers from the reference and keep the one that the reward model likes best.

How far is that from the reference? Let $F(r)$ be the fraction of the reference's answers whose reward is at most $r$.
An answer with reward $r$ is kept if the other $n-1$ are no better, so best-of-n gives it $n F(r)^{n-1}$ times the
reference's probability, and since $F$ is uniform from 0 to 1 for a reward without ties,

$$\mathrm{KL}(\pi_n \| \pi_\mathrm{ref}) = \ln n + (n-1)\, E[\ln F] = \ln n - \frac{n-1}{n},$$

whatever the reward is. With few answers this is wrong: an answer of probability $p$ has a step of height $p$ in $F$ and
is kept with probability $F^n - (F-p)^n$. Then the KL stays under $-\ln p_\mathrm{best}$, and the formula is an upper
bound.

Measured on cards: answers of one half of a pool, $F$ from the other half, so that nothing is true by construction.
Computed for three answers: all of them, exactly. The mean reward of the best of n comes from a pool of $N$ answers too:
of all $\binom{N}{n}$ ways to draw n of them, the answer at rank $i$ from below is the best in $\binom{i-1}{n-1}$.

Left out: best-of-n token by token; a policy trained to imitate it.
Source: Stiennon et al. 2020, arXiv:2009.01325, and Gao et al. 2022, arXiv:2210.10760 (the formula); Beirami et al.
2024, arXiv:2401.01879 (an upper bound, and when it is loose); Nakano et al. 2021, arXiv:2112.09332 (ranks).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def kl_formula(n: int) -> float:
    """ln n - (n-1)/n, in nats: exact if no two answers have the same reward and none has a noticeable probability."""
    return math.log(n) - (n - 1) / n


def rungs(most: int) -> list[int]:
    """1, 2, 4 ... up to `most`, which is always among them."""
    return sorted({2**k for k in range(most.bit_length()) if 2**k <= most} | {most})


# --- all answers known: exact -----------------------------------------------------------------------------------------


def best_of(p: Float[Tensor, "A"], rewards: Float[Tensor, "A"], n: int) -> Float[Tensor, "A"]:
    """The probability of each answer under best-of-n. Answers with equal rewards share by their probabilities."""
    p, better = p.double(), rewards[:, None] >= rewards  # (A, A): [i, j], i is as good as j or better
    tied = better & better.T
    at_most, level = better.double() @ p, tied.double() @ p  # F, and the height of its step
    return (at_most**n - (at_most - level).clamp(min=0) ** n) * p / level


def tilted(p: Float[Tensor, "*B A"], rewards: Float[Tensor, "*B A"], beta: float) -> Float[Tensor, "*B A"]:
    r"""$\pi^* \propto \pi_\mathrm{ref}\, e^{r / \beta}$: of all policies with its KL, the one with the highest reward
    (DPO's eq. 4).
    """
    return torch.softmax(p.double().log() + rewards.double() / beta, -1)


def divergence(q: Float[Tensor, "*B A"], p: Float[Tensor, "*B A"]) -> Float[Tensor, "*B"]:
    """KL(q || p) in nats; an answer that q never gives adds nothing."""
    q, p = q.double(), p.double()
    return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1)


# --- answers known from samples: estimated ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Answers of the reference to a few prompts, and what the two judges say of them."""

    proxy: Float[Tensor, "P N"]  # prompts x answers
    gold: Float[Tensor, "P N"]

    def halves(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(proxy, gold, proxy of the others) of each half of each prompt's answers."""
        half = self.proxy.shape[1] // 2
        parts = [(slice(None, half), slice(half, 2 * half)), (slice(half, 2 * half), slice(None, half))]
        return [
            (proxy[a], gold[a], proxy[b]) for proxy, gold in zip(self.proxy, self.gold, strict=True) for a, b in parts
        ]


@dataclass(frozen=True)
class Best:
    """What best-of-n gives."""

    n: int
    kl: float  # nats
    kl_error: float  # standard error of that over the prompts; 0 where it is exact
    proxy: float
    gold: float


def rank_weights(count: int, n: int) -> Float[Tensor, "N"]:
    """Of all ways to draw n of `count` answers, the share in which the answer at each rank, from the worst, is the
    best.
    """
    if n > count:
        raise ValueError(f"n must be at most the {count} answers there are, got {n}")
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    ways = torch.lgamma(rank) - math.lgamma(n) - torch.lgamma((rank - n + 1).clamp(min=1))
    every = math.lgamma(count + 1) - math.lgamma(n + 1) - math.lgamma(count - n + 1)
    return torch.exp(ways - every).masked_fill(rank < n, 0.0)


def log_ratio(rewards: Float[Tensor, "A"], others: Float[Tensor, "B"], n: int) -> Float[Tensor, "A"]:
    """ln of best-of-n's probability over the reference's, with F from other answers; each answer counts itself in."""
    among = len(others) + 1
    at_most = ((rewards[:, None] >= others).sum(1) + 1).double() / among
    level = (rewards[:, None] == others).sum(1).double() / among  # a step of F, where answers repeat
    smooth = math.log(n) + (n - 1) * at_most.log()
    step = (at_most**n - (at_most - level).clamp(min=0) ** n) / level.clamp(min=1e-12)
    return torch.where(level > 0, step.log(), smooth)


def best_of_pool(pool: Pool, n: int) -> Best:
    """Best-of-n as its reference answers tell it, prompt by prompt."""
    kls, proxies, golds = list[float](), list[float](), list[float]()
    for proxy, gold, others in pool.halves():
        order = proxy.argsort()
        weights = rank_weights(len(proxy), n)
        kls.append(float(weights @ log_ratio(proxy[order], others, n)))
        proxies.append(float(weights @ proxy[order].double()))
        golds.append(float(weights @ gold[order].double()))
    spread = torch.tensor(kls).std(correction=1) if len(kls) > 1 else torch.tensor(0.0)
    return Best(n, mean(kls), float(spread) / math.sqrt(len(kls)), mean(proxies), mean(golds))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def frontier(
    p: Float[Tensor, "*B A"], rewards: Float[Tensor, "*B A"], furthest: float, points: int = 24
) -> tuple[tuple[float, float], ...]:
    """(KL, mean reward) of `tilted` for falling beta, up to a KL: no policy gets more of this reward for its KL."""
    found = []
    for beta in torch.logspace(1.5, -1.5, points).tolist():
        q = tilted(p, rewards, beta)
        kl, reward = float(divergence(q, p).mean()), float((q * rewards).sum(-1).mean())
        if kl > furthest:
            break
        found.append((kl, reward))
    return tuple(found)
