r"""Toy: a task whose true change has a known rank, so that what LoRA can and cannot learn is known beforehand.

The base is a network 16-32-32-1 that has learned one task: is the product of the first two inputs positive? The second
task is made from it. Its teacher is the same network with a change of rank $k$ in the 32 x 32 weight of the second
layer,

$$W' = W + \sigma \sum_{i=1}^{k} u_i v_i^\top,$$

all $k$ directions equally strong. The $v_i$ are directions in which the hidden layer varies and which the first task
does not need. Then LoRA of every rank from 1 to 8 learns the second task from examples, all at once, and never sees
$W'$. What is *left* is the mean square of its error as a fraction of the base's own error: 1 means nothing learned. A
rank below $k$ leaves something, however long it trains, and what is left drops when $r$ reaches $k$: that drop is the
figure to look for. From there on the singular values of $\frac{\alpha}{r} BA$ are those of the true change. (A singular
value says how strongly a matrix acts along one of its directions; a matrix of rank $k$ has $k$ of them above zero.)

Two things surprise. With $k = 4$ and $r = 3$ far less than a quarter is left, although the best matrix of rank 3 misses
a quarter of the change: what counts here is the squared error of the *answers*, behind two ReLUs and on inputs that
vary unequally, and not the squared size of the matrix. And LoRA ends far below the whole layer, which could hold the
same change: Adam moves all of its 1,024 numbers at one rate, most of them without need, and has to undo it.

Two controls learn beside them: the 32 biases of the layer alone, and the whole layer (1,056 numbers).

The second view is the toy of the notebook this app grew from, rebuilt: base trained on a sphere of radius 4, adapted to
Gaussian inputs 16 times smaller, with labels that do not depend on the size. Multiplying the inputs by 16, without any
training, or training 32 biases, does there what LoRA does, so that toy cannot show what low rank is good for; hence
this one. The notebook's class copies the layer's weight and not its bias, which stays uninitialised memory and is
trained: it prints 160 trained numbers where LoRA has 128, and in two of five trials its training ended in NaN or
infinite outputs.

Left out: noise in the labels; ranks $k$ above 6, which need longer training than a tab allows.
Source: Hu et al. 2021, arXiv:2106.09685, sections 4.1 and 7.3 (what a learned change amplifies).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import seed_field
from core.lora.adapter import LoRALinear, initial_a, trained_numbers
from core.lora.controls import ControlsStep, seed_setting
from core.lora.tiny_network import HIDDEN, Network, first_task, on_sphere, trained_base

VIEWS = {"known_rank": "a change of known rank", "seed_setting": "the notebook's own toy, with controls"}
CHARTED = tuple(range(1, 9))  # ranks that always learn, whatever rank is chosen
BATCH, HELD_OUT, UNIT = 256, 2048, 50  # inputs per step, inputs for judging, steps between two yields
FRAMES = 30  # looks in one run, at most
DROP = Figure(
    "rank at which the remaining error drops most", "rank", "theory", "the true change has rank k", headline=True
)
LEFT = Figure(
    "remaining error",
    "of the base's error",
    "theory",
    "a product of rank r can hold a change of rank k from r = k on",
    headline=True,
)
CONTROL = Figure("remaining error, {control}", "of the base's error", "baseline", "LoRA of the chosen rank")
SIGMA = Figure("mean singular value of the learned change", "no unit", "theory", "the true change's, first k")
NEW_TASK = Figure("accuracy on the new task", "%", "baseline", "the base, before training", headline=True)
OLD_TASK = Figure("accuracy on the old task, adapter on", "%", "baseline", "the base, before training", headline=True)
OLD_TASK_OFF = Figure(
    "accuracy on the old task, adapter off", "%", "theory", "W + BA - BA is W, so it is the base's accuracy"
)
NUMBERS = Figure("trained numbers", "numbers", "theory", "r (d_in + d_out)", "computed")
UNTRAINED = Figure("largest change of an answer before training", "logit", "theory", "B begins at zero, so BA is zero")
STRENGTH = 0.5  # of the change: how much it moves the second layer, as a fraction of how much that varies
SIDE, REACH = 40, 3.5  # pixels and half width of the decision picture


@dataclass(frozen=True)
class ToyConfig(Config):
    """The rank of the truth, the rank of the adapter, and how long it learns."""

    view: str = setting(
        "known_rank",
        "Task",
        choices=VIEWS,
        help="A change of known rank, or a published toy that shows why controls matter.",
    )
    true_rank: int = setting(
        2,
        "Rank k of the true change",
        low=1,
        high=6,
        when=("view", "known_rank"),
        help="A higher k makes the new task harder: LoRA needs a rank of at least k to learn it.",
        slider=True,
    )
    rank: int = setting(
        2,
        "LoRA rank r",
        low=1,
        high=HIDDEN,
        when=("view", "known_rank"),
        help="A higher rank r can hold more of the change and trains 64 more numbers each.",
    )
    alpha: float = setting(
        16.0,
        "Alpha",
        low=0.01,
        high=1000.0,
        when=("view", "known_rank"),
        help="A higher alpha makes the change stronger: it is alpha / r times B A.",
    )
    steps: int = setting(
        1200,
        "Steps",
        unit="step",
        low=1,
        high=20_000,
        when=("view", "known_rank"),
        help="More steps get closer to what each rank can learn; the run takes longer.",
    )
    seeds: int = setting(
        5,
        "Seeds",
        unit="seed",
        low=2,
        high=10,
        when=("view", "seed_setting"),
        help="More repetitions make the error bars more reliable; the run takes longer.",
        slider=True,
    )
    learning_rate: float = setting(
        0.02,
        "Learning rate",
        low=1e-6,
        high=1.0,
        more=True,
        when=("view", "known_rank"),
        help="Higher makes each step larger: learning is faster, until it blows up.",
    )
    seed: int = seed_field(high=2**32 - 1)


@dataclass(frozen=True)
class ToyStep(Step):
    """All students at one moment. Between two looks only `step` is told."""

    step: int
    chosen: int = 0  # the rank in question
    ranks: tuple[int, ...] = ()
    left: tuple[float, ...] = ()  # by rank: fraction of the change not learned yet, on inputs no student has seen
    left_biases: float | None = None  # the same for the 32 biases alone
    left_layer: float | None = None  # the same for the whole layer
    learned: tuple[float, ...] = ()  # singular values of the chosen adapter's change, largest first
    true: tuple[float, ...] = ()  # singular values of the true change
    accuracy_new: float | None = None  # of the chosen rank, fraction of held-out inputs
    accuracy_old: float | None = None
    accuracy_off: float | None = None  # on the old task with the adapter taken out again
    maps: Float[np.ndarray, "3 P P"] | None = field(
        default=None, repr=False
    )  # probability of "yes" on a slice: base, truth, adapted


def true_change(net: Network, k: int, rng: torch.Generator) -> Float[Tensor, "H H"]:
    """A change of rank k of equal singular values, along directions the hidden layer varies in and the first task
    leaves unused.
    """
    hidden = net.hidden(on_sphere(4096, rng))
    axes = torch.linalg.eigh(torch.cov(hidden.T)).eigenvectors.flip(
        1
    )  # columns, the strongest first; the first two carry the first task
    v = axes[:, 2:16] @ torch.linalg.qr(torch.randn(14, 14, generator=rng)).Q[:, :k]
    u = torch.linalg.qr(torch.randn(HIDDEN, k, generator=rng)).Q
    strength = (hidden @ net.w2.T).std(0).mean() / (hidden @ v).std(0).mean() * math.sqrt(HIDDEN / k)
    return STRENGTH * strength * u @ v.T


class Students:
    """LoRA of several ranks and two controls, side by side on one frozen base, each with its own loss.

    All ranks share one shape: of A (K, R, H) and B (K, H, R) a student of rank r uses the first r rows and columns, the
    rest is held at zero. So every student learns exactly what it would learn alone (tested against `LoRALinear`).
    """

    def __init__(self, net: Network, ranks: tuple[int, ...], alpha: float, rng: torch.Generator) -> None:
        self.net, self.ranks, widest = net, ranks, max(ranks)
        of = torch.tensor(ranks)[:, None, None]  # (K, 1, 1)
        self.scale = alpha / of
        self.used = (torch.arange(widest)[None, :, None] < of).float()  # (K, R, 1)
        self.a = torch.stack([initial_a(widest, HIDDEN, rng) for _ in ranks]) * self.used
        self.b = torch.zeros(len(ranks), HIDDEN, widest)
        self.biases = torch.zeros(HIDDEN)
        self.layer_weight, self.layer_bias = torch.zeros(HIDDEN, HIDDEN), torch.zeros(HIDDEN)
        self.parts = [
            part.requires_grad_() for part in (self.a, self.b, self.biases, self.layer_weight, self.layer_bias)
        ]

    def changes(self) -> Float[Tensor, "K H H"]:
        """alpha / r times B A, for every rank."""
        return self.scale * self.b @ (self.a * self.used)  # (K, H, R) @ (K, R, H) -> (K, H, H)

    def answers(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "S N"]:
        """What every student says; after the ranks come the biases alone and the whole layer."""
        weight = torch.cat([self.changes(), torch.zeros(1, HIDDEN, HIDDEN), self.layer_weight[None]])
        bias = torch.cat([torch.zeros(len(self.ranks), HIDDEN), self.biases[None], self.layer_bias[None]])
        return self.net.answer(hidden, self.net.w2 + weight, self.net.b2 + bias)


class Toy:
    """The base, the truth, the students and what they are evaluated on."""

    def __init__(self, config: ToyConfig) -> None:
        self.config, self.net = config, trained_base(config.seed)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.change = true_change(self.net, config.true_rank, self.rng)
        self.ranks = tuple(sorted({*CHARTED, config.rank}))
        self.chosen = self.ranks.index(config.rank)
        self.students = Students(self.net, self.ranks, config.alpha, self.rng)
        self.optimizer = torch.optim.Adam(self.students.parts, config.learning_rate)
        inputs = on_sphere(HELD_OUT, self.rng)
        self.hidden, self.old = self.net.hidden(inputs), first_task(inputs)
        self.base, self.truth = self.net(inputs), self.taught(self.hidden)
        self.whole = float((self.base - self.truth).square().mean())  # the error of the base: what there is to learn
        self.slice = self.net.hidden(telling_plane(self.net, self.change, self.rng))
        fixed = [self.net.answer(self.slice, self.net.w2, self.net.b2), self.taught(self.slice)]
        self.maps = [torch.sigmoid(one).view(SIDE, SIDE).numpy() for one in fixed]

    def taught(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        return self.net.answer(hidden, self.net.w2 + self.change, self.net.b2)

    def one_step(self, progress: float) -> None:
        """New inputs for each step, so that nothing can be learned by heart; half a cosine down."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        hidden = self.net.hidden(on_sphere(BATCH, self.rng))
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
                step,
                self.config.rank,
                self.ranks,
                tuple(left),
                diverged=True,
                doing=f"step {step}: the numbers blew up; try a smaller learning rate or alpha",
            )
        change, mine = self.students.changes()[self.chosen], answers[self.chosen]
        drawn = self.net.answer(self.slice, self.net.w2 + change, self.net.b2)
        removed = self.net.answer(
            self.hidden, (self.net.w2 + change) - change, self.net.b2
        )  # merged and unmerged again
        told = doing or f"step {step}: rank {self.config.rank} has {left[self.chosen]:.2g} of the change left to learn"
        return ToyStep(
            step,
            self.config.rank,
            self.ranks,
            tuple(left),
            left_biases,
            left_layer,
            tuple(torch.linalg.svdvals(change).tolist()),
            tuple(torch.linalg.svdvals(self.change)[: self.config.true_rank].tolist()),
            agreement(mine, self.truth > 0),
            agreement(mine, self.old),
            agreement(removed, self.old),
            np.stack([*self.maps, torch.sigmoid(drawn).view(SIDE, SIDE).numpy()]),
            doing=told,
        )


def agreement(answers: Float[Tensor, "N"], labels: Tensor) -> float:
    return float(((answers > 0) == labels).float().mean())


def telling_plane(net: Network, change: Float[Tensor, "H H"], rng: torch.Generator) -> Float[Tensor, "N D"]:
    """A slice of the 16 dimensions to draw: of 200 random planes near the center, the one on which base and truth
    differ most.

    The planes lie among the two inputs of the first task and the two other directions that the change reacts to most.
    """
    reacts = change @ net.w1  # (H, H) @ (H, D): how the change sees the inputs, without the ReLU
    reacts[:, :2] = 0
    axes = torch.cat([torch.eye(16)[:2], torch.linalg.svd(reacts).Vh[:2]])  # (4, D)
    across, up, off = (torch.linalg.qr(torch.randn(200, 4, 3, generator=rng)).Q.transpose(1, 2) @ axes).unbind(
        1
    )  # each (200, D)
    off = off * 1.5 * torch.rand(200, 1, generator=rng)

    def points(side: int, which: slice) -> Float[Tensor, "C P P D"]:
        line = torch.linspace(-REACH, REACH, side)
        return (
            off[which, None, None]
            + line[None, :, None, None] * up[which, None, None]
            + line[None, None, :, None] * across[which, None, None]
        )

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


def findings(toy: Toy, start: ToyStep, end: ToyStep) -> tuple[Result, ...]:
    """What the run measured, each beside what should come out."""
    rank, k = toy.config.rank, toy.config.true_rank
    mean = sum(end.learned[:k]) / k if rank >= k else None
    remaining = end.left[toy.chosen]
    figures = [
        DROP(steepest(end.ranks, end.left), k),
        LEFT(remaining, 0.0 if rank >= k else None),
        CONTROL.of(control="32 biases alone")(end.left_biases, remaining),
        CONTROL.of(control="whole layer, 1,056 numbers")(end.left_layer, remaining),
        SIGMA(mean, toy_sigma(toy)),
    ]
    for figure, before, after in (
        (NEW_TASK, start.accuracy_new, end.accuracy_new),
        (OLD_TASK, start.accuracy_old, end.accuracy_old),
        (OLD_TASK_OFF, start.accuracy_old, end.accuracy_off),
    ):
        figures.append(figure(100 * (after or 0.0), 100 * (before or 0.0)))
    return tuple(figures)


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
    source = f"r (32 + 32); the whole layer has {HIDDEN * HIDDEN + HIDDEN:,}"
    numbers = NUMBERS(counted_numbers(config.rank), trained_numbers(config.rank, HIDDEN, HIDDEN), source=source)
    first = UNTRAINED(untouched, 0.0)
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
    done = (
        f"done: {end.left[bench.chosen]:.1g} of the change is left at rank {config.rank}, the true rank is"
        f" {config.true_rank}"
    )
    yield ToyStep(**vars(end) | {"figures": findings(bench, start, end), "doing": done})
