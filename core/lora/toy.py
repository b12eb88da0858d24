r"""Toy: a task whose true change has a known rank, so that what LoRA can and cannot learn is known beforehand.

The base is a network 16-32-32-1 that has learnt one task: is the product of the first two inputs positive? The second
task is made from it. Its teacher is the same network with a change of rank $k$ in the 32 x 32 weight of the second layer,

$$W' = W + \sigma \sum_{i=1}^{k} u_i v_i^\top,$$

all $k$ directions equally strong. The $v_i$ are directions in which the hidden layer varies and which the first task
does not need. Then LoRA of every rank from 1 to 8 learns the second task from examples, all at once, and never sees
$W'$. What is *left* is the mean square of its error as a share of the base's own error: 1 means nothing learnt. A rank below $k$
leaves something, however long it trains, and what is left drops when $r$ reaches $k$: that drop is the figure to look
for. From there on the singular values of $\frac{\alpha}{r} BA$ are those of the true change.

Two controls learn beside them: the 32 biases of the layer alone, and the whole layer (1,056 numbers).

The second view is the toy of the notebook this app grew from, rebuilt: base trained on a sphere of radius 4, adapted to
Gaussian inputs 16 times smaller, with labels that do not depend on the size. Multiplying the inputs by 16, without any
training, or training 32 biases, does there what LoRA does, so that toy cannot show what low rank is good for; hence
this one. The notebook's class copies the layer's weight and not its bias, which stays uninitialised memory and is
trained: it prints 160 trained numbers where LoRA has 128, and in two of five trials its training ended in NaN or
infinite outputs.

Left out: noise in the labels; ranks $k$ above 6, which need longer training than a tab allows.
Source: Hu et al. 2021, arXiv:2106.09685, sections 4.1 and 7.3 (what a learnt change amplifies).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.lora.adapter import LoRALinear, initial_a, trained_numbers
from core.lora.controls import ControlsStep, seed_setting
from core.lora.tiny_network import HIDDEN, Network, first_task, on_sphere, trained_base

VIEWS = {"known_rank": "a change of known rank", "seed_setting": "the notebook's own toy, with controls"}
CHARTED = tuple(range(1, 9))  # ranks that always learn, whatever rank is chosen
BATCH, HELD_OUT, UNIT = 256, 2048, 50  # inputs per step, inputs for judging, steps between two yields
FRAMES = 30  # looks in one run, at most
STRENGTH = 0.5  # of the change: how much it moves the second layer, as a share of how much that varies
SIDE, REACH = 40, 3.5  # pixels and half width of the decision picture


@dataclass(frozen=True)
class ToyConfig(Config):
    """The rank of the truth, the rank of the adapter, and how long it learns."""

    view: str = setting("known_rank", "Task", choices=VIEWS)
    true_rank: int = setting(2, "Rank k of the true change", low=1, high=6, when=("view", "known_rank"))
    rank: int = setting(2, "LoRA rank r", low=1, high=HIDDEN, when=("view", "known_rank"))
    alpha: float = setting(16.0, "Alpha", low=0.01, high=1000.0, when=("view", "known_rank"), help="the change is alpha / r times B A")
    steps: int = setting(1200, "Steps", unit="step", low=1, high=20_000, when=("view", "known_rank"))
    seeds: int = setting(5, "Seeds", unit="seed", low=2, high=10, when=("view", "seed_setting"), help="whole repetitions, for the error bars")
    learning_rate: float = setting(0.02, "Learning rate", low=1e-6, high=1.0, more=True, when=("view", "known_rank"))
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="the same seed gives the same run, bit for bit")


@dataclass(frozen=True)
class ToyStep(Step):
    """All students at one moment. Between two looks only `step` is told."""

    step: int
    chosen: int = 0  # the rank in question
    ranks: tuple[int, ...] = ()
    left: tuple[float, ...] = ()  # by rank: share of the change not learnt yet, on inputs no student has seen
    left_biases: float | None = None  # the same for the 32 biases alone
    left_layer: float | None = None  # the same for the whole layer
    learnt: tuple[float, ...] = ()  # singular values of the chosen adapter's change, largest first
    true: tuple[float, ...] = ()  # singular values of the true change
    accuracy_new: float | None = None  # of the chosen rank, share of held-out inputs
    accuracy_old: float | None = None
    accuracy_off: float | None = None  # on the old task with the adapter taken out again
    maps: Float[np.ndarray, "3 P P"] | None = field(default=None, repr=False)  # probability of "yes" on a slice: base, truth, adapted


def true_change(net: Network, k: int, dice: torch.Generator) -> Float[Tensor, "H H"]:
    """A change of rank k of equal singular values, along directions the hidden layer varies in and the first task leaves unused."""
    hidden = net.hidden(on_sphere(4096, dice))
    axes = torch.linalg.eigh(torch.cov(hidden.T)).eigenvectors.flip(1)  # columns, the strongest first; the first two carry the first task
    v = axes[:, 2:16] @ torch.linalg.qr(torch.randn(14, 14, generator=dice)).Q[:, :k]
    u = torch.linalg.qr(torch.randn(HIDDEN, k, generator=dice)).Q
    strength = (hidden @ net.w2.T).std(0).mean() / (hidden @ v).std(0).mean() * math.sqrt(HIDDEN / k)
    return STRENGTH * strength * u @ v.T


class Students:
    """LoRA of several ranks and two controls, side by side on one frozen base, each with its own loss.

    All ranks share one shape: of A (K, R, H) and B (K, H, R) a student of rank r uses the first r rows and columns, the
    rest is held at zero. So every student learns exactly what it would learn alone (tested against `LoRALinear`).
    """

    def __init__(self, net: Network, ranks: tuple[int, ...], alpha: float, dice: torch.Generator) -> None:
        self.net, self.ranks, widest = net, ranks, max(ranks)
        of = torch.tensor(ranks)[:, None, None]  # (K, 1, 1)
        self.scale = alpha / of
        self.used = (torch.arange(widest)[None, :, None] < of).float()  # (K, R, 1)
        self.a = torch.stack([initial_a(widest, HIDDEN, dice) for _ in ranks]) * self.used
        self.b = torch.zeros(len(ranks), HIDDEN, widest)
        self.biases = torch.zeros(HIDDEN)
        self.layer_weight, self.layer_bias = torch.zeros(HIDDEN, HIDDEN), torch.zeros(HIDDEN)
        self.parts = [part.requires_grad_() for part in (self.a, self.b, self.biases, self.layer_weight, self.layer_bias)]

    def changes(self) -> Float[Tensor, "K H H"]:
        """alpha / r times B A, for every rank."""
        return self.scale * self.b @ (self.a * self.used)  # (K, H, R) @ (K, R, H) -> (K, H, H)

    def answers(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "S N"]:
        """What every student says; after the ranks come the biases alone and the whole layer."""
        weight = torch.cat([self.changes(), torch.zeros(1, HIDDEN, HIDDEN), self.layer_weight[None]])
        bias = torch.cat([torch.zeros(len(self.ranks), HIDDEN), self.biases[None], self.layer_bias[None]])
        return self.net.answer(hidden, self.net.w2 + weight, self.net.b2 + bias)


class Toy:
    """The base, the truth, the students and what they are judged on."""

    def __init__(self, config: ToyConfig) -> None:
        self.config, self.net = config, trained_base(config.seed)
        self.dice = torch.Generator().manual_seed(config.seed)
        self.change = true_change(self.net, config.true_rank, self.dice)
        self.ranks = tuple(sorted({*CHARTED, config.rank}))
        self.chosen = self.ranks.index(config.rank)
        self.students = Students(self.net, self.ranks, config.alpha, self.dice)
        self.optimizer = torch.optim.Adam(self.students.parts, config.learning_rate)
        inputs = on_sphere(HELD_OUT, self.dice)
        self.hidden, self.old = self.net.hidden(inputs), first_task(inputs)
        self.base, self.truth = self.net(inputs), self.taught(self.hidden)
        self.whole = float((self.base - self.truth).square().mean())  # the error of the base: what there is to learn
        self.slice = self.net.hidden(telling_plane(self.net, self.change, self.dice))
        fixed = [self.net.answer(self.slice, self.net.w2, self.net.b2), self.taught(self.slice)]
        self.maps = [torch.sigmoid(one).view(SIDE, SIDE).numpy() for one in fixed]

    def taught(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        return self.net.answer(hidden, self.net.w2 + self.change, self.net.b2)

    def one_step(self, progress: float) -> None:
        """New inputs for each step, so that nothing can be learnt by heart; half a cosine down."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        hidden = self.net.hidden(on_sphere(BATCH, self.dice))
        errors = self.students.answers(hidden) - self.taught(hidden)  # (S, N)
        loss = errors.square().mean(1).sum() / self.whole  # a sum: no student's gradient sees another
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def look(self, step: int, doing: str = "") -> ToyStep:
        """Judge all students on the held-out inputs; draw the chosen one."""
        answers = self.students.answers(self.hidden)
        *left, left_biases, left_layer = ((answers - self.truth).square().mean(1) / self.whole).tolist()
        if not all(map(math.isfinite, left)):
            return ToyStep(
                step, self.config.rank, self.ranks, tuple(left), diverged=True, doing=f"step {step}: the numbers blew up; try a smaller learning rate or alpha"
            )
        change, mine = self.students.changes()[self.chosen], answers[self.chosen]
        drawn = self.net.answer(self.slice, self.net.w2 + change, self.net.b2)
        removed = self.net.answer(self.hidden, (self.net.w2 + change) - change, self.net.b2)  # merged and unmerged again
        told = doing or f"step {step}: rank {self.config.rank} has {left[self.chosen]:.2g} of the change left to learn"
        return ToyStep(step, self.config.rank, self.ranks, tuple(left), left_biases, left_layer, tuple(torch.linalg.svdvals(change).tolist()),
                       tuple(torch.linalg.svdvals(self.change)[: self.config.true_rank].tolist()), agreement(mine, self.truth > 0),
                       agreement(mine, self.old), agreement(removed, self.old),
                       np.stack([*self.maps, torch.sigmoid(drawn).view(SIDE, SIDE).numpy()]), doing=told)  # fmt: skip


def agreement(answers: Float[Tensor, "N"], labels: Tensor) -> float:
    return float(((answers > 0) == labels).float().mean())


def telling_plane(net: Network, change: Float[Tensor, "H H"], dice: torch.Generator) -> Float[Tensor, "N D"]:
    """A slice of the 16 dimensions to draw: of 200 random planes near the centre, the one on which base and truth differ most.

    The planes lie among the two inputs of the first task and the two other directions that the change reacts to most.
    """
    reacts = change @ net.w1  # (H, H) @ (H, D): how the change sees the inputs, without the ReLU
    reacts[:, :2] = 0
    axes = torch.cat([torch.eye(16)[:2], torch.linalg.svd(reacts).Vh[:2]])  # (4, D)
    across, up, off = (torch.linalg.qr(torch.randn(200, 4, 3, generator=dice)).Q.transpose(1, 2) @ axes).unbind(1)  # each (200, D)
    off = off * 1.5 * torch.rand(200, 1, generator=dice)

    def points(side: int, which: slice) -> Float[Tensor, "C P P D"]:
        line = torch.linspace(-REACH, REACH, side)
        return off[which, None, None] + line[None, :, None, None] * up[which, None, None] + line[None, None, :, None] * across[which, None, None]

    hidden = net.hidden(points(12, slice(None)).flatten(0, 2))
    says = [torch.sigmoid(net.answer(hidden, weight, net.b2)).view(200, -1) for weight in (net.w2, net.w2 + change)]
    best = int((says[0] - says[1]).abs().mean(1).argmax())
    return points(SIDE, slice(best, best + 1)).flatten(0, 2)


def counted_numbers(rank: int) -> int:
    """What an optimizer is given by a real LoRA layer of this size."""
    layer = LoRALinear(nn.Linear(HIDDEN, HIDDEN, device="meta"), rank, 1.0, torch.Generator())
    return sum(part.numel() for part in layer.parameters() if part.requires_grad)


def steepest(ranks: tuple[int, ...], left: tuple[float, ...]) -> int:
    """The rank at which what is left falls by the largest factor from one rank to the next; rank 0 leaves all of it."""
    before = [1.0, *left]
    return max((r for r in ranks if r in CHARTED), key=lambda r: math.log(before[r - 1] / max(before[r], 1e-12)))


def findings(toy: Toy, start: ToyStep, end: ToyStep) -> tuple[Compared, ...]:
    """What the run found, each beside what should come out."""
    rank, k = toy.config.rank, toy.config.true_rank
    mean = sum(end.learnt[:k]) / k if rank >= k else None
    return (
        Compared("largest fall of what is left, at rank", "rank", k, steepest(end.ranks, end.left), "the true change has rank k"),
        Compared("left of the change", "share of 1", 0.0 if rank >= k else None, end.left[toy.chosen], "rank r can hold a change of rank k from r = k on"),
        Compared("left with the 32 biases alone", "share of 1", None, end.left_biases, "a control"),
        Compared("left with the whole layer", "share of 1", 0.0, end.left_layer, "1,056 numbers, as many steps"),
        Compared("mean singular value of the learnt change", "no unit", toy_sigma(toy), mean, "the true change's, first k"),
        Compared("accuracy on the new task", "share of 1", start.accuracy_new, end.accuracy_new, "the base, before"),
        Compared("accuracy on the old task, adapter on", "share of 1", start.accuracy_old, end.accuracy_old, "the base, before"),
        Compared("accuracy on the old task, adapter off", "share of 1", start.accuracy_old, end.accuracy_off, "the base, before"),
    )


def toy_sigma(toy: Toy) -> float:
    return float(torch.linalg.matrix_norm(toy.change, 2))


@experiment("What can a change of rank r learn, and when is r enough?")
def toy(config: ToyConfig) -> Iterator[ToyStep | ControlsStep]:
    """The chosen view."""
    yield from known_rank(config) if config.view == "known_rank" else seed_setting(config.seeds, config.seed)


def known_rank(config: ToyConfig) -> Iterator[ToyStep]:
    """Students of several ranks learn a change of known rank, all from the same inputs."""
    bench = Toy(config)
    start = bench.look(0, "the base, before it is adapted")
    untouched = float((bench.students.answers(bench.hidden)[bench.chosen] - bench.base).detach().abs().max())
    numbers = Compared("trained numbers", "numbers", trained_numbers(config.rank, HIDDEN, HIDDEN), counted_numbers(config.rank),
                       f"r (32 + 32); the whole layer has {HIDDEN * HIDDEN + HIDDEN:,}")  # fmt: skip
    first = Compared("change of any answer before training", "logit", 0.0, untouched, "B begins at zero")
    yield ToyStep(**vars(start) | {"figures": (numbers, first)})
    every = max(UNIT, math.ceil(config.steps / FRAMES / UNIT) * UNIT)
    end = start
    for step in range(1, config.steps + 1):
        bench.one_step((step - 1) / config.steps)
        if step % every == 0 or step == config.steps:
            end = bench.look(step)
            yield end
            if end.diverged:
                return
        elif step % UNIT == 0:
            yield ToyStep(step)
    done = f"done: {end.left[bench.chosen]:.1g} of the change is left at rank {config.rank}, the true rank is {config.true_rank}"
    yield ToyStep(**vars(end) | {"figures": findings(bench, start, end), "doing": done})
