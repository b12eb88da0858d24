r"""Scaling: fit a law to six tiny runs, predict a seventh, run it. Beside it, what such a law says for large budgets.

Six kinds of runs, three sizes times two lengths, several seeds each, are trained from nothing, every one with a
learning rate that falls to zero at its own end. Their losses are fitted with Kaplan et al.'s law for $N$ weights and
$D$ tokens,

$$L(N, D) = \left[\left(\frac{N_c}{N}\right)^{\alpha_N/\alpha_D} + \frac{D_c}{D}\right]^{\alpha_D},$$

four constants, least squares. In it a small model gains less from more text than a large one, and with models this
small that is what one sees. Chinchilla's $E + A/N^{\alpha} + B/D^{\beta}$ (fitted too, with $\alpha = \beta$, so that
it has four constants as well) gives every size the same gain; the figures show which of the two foresees the seventh
run better.

**The error bar.** The six losses are shaken by the spread of their seeds and fitted again, some 80 times; nine tenths
of these laws lie in the band. It knows about the seeds. It does not know whether the law itself holds beyond the six
runs, and a seventh that lies outside the band says that it does not quite: it is larger, and reads more, than all of
them.

**What should I train with this budget?** The second picture draws Chinchilla's surface with the printed constants and
with Besiroglu's refit (see `core/data_efficiency/chinchilla.py`): along each line the budget is the same. The answers
differ by a factor of five in tokens per parameter, which is one more reason to ask for the gap.

Left out: fitting exponents well (six points cannot; Chinchilla had over 400 runs); sub-word tokens; depth, which stays
the same.
Source: Kaplan et al. 2020, arXiv:2001.08361, equations 1.1, 1.2 and 1.5; Hoffmann et al. 2022, arXiv:2203.15556;
Besiroglu et al. 2024, arXiv:2404.10102; Muennighoff et al. 2023, arXiv:2305.16264 (with a limited text).
"""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from core.data_efficiency.chinchilla import Advice, IsoFlop, advice, isoflops
from core.data_efficiency.fleet import Fleet, FleetConfig, blown_up, expected_seconds, reading_order, spoken, text_once
from core.foundations.corpus import Corpus, windows_of
from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure

WIDTHS = (8, 16, 32)  # of the six runs ...
SHARES = (8, 2)  # ... which read an eighth and a half of the seventh's tokens
WARM_SHARE = 0.05  # of a run, for the learning rate to climb
LOOK, LOOKS = 4096, 5  # characters of unseen text that all are evaluated on, and how often
SHAKES, AT_ONCE = 80, 8  # refits for the error bar, and how many are one unit of work
KAPLAN_N, KAPLAN_D = 0.076, 0.095

SEVENTH = Figure("loss of the seventh run", "nats per character", "theory", headline=True)
SEVENTH_CHINCHILLA = Figure(
    "loss of the seventh run, Chinchilla's form",
    "nats per character",
    "theory",
    "E + A/N^alpha + B/D^alpha fitted to the same six runs",
    headline=True,
)
LARGE = "Kaplan et al. 2020: large models, sub-word tokens"
ALPHA_D = Figure("exponent of the tokens, alpha_D", "power", "paper", LARGE)
ALPHA_N = Figure("exponent of the weights, alpha_N", "power", "paper", LARGE)
RATIO = Figure(
    "tokens per parameter, {who}",
    "tokens per parameter",
    "baseline",
    "Chinchilla's approach 1, the line through its Table 3",
    "computed",
    headline=True,
)

Law = Callable[[Float[np.ndarray, "P"], Any, Any], Any]


@dataclass(frozen=True)
class ScalingConfig(FleetConfig):
    """`tokens` and `width` are the seventh run's; `zettaflops` and `text` ask Chinchilla, and train nothing."""

    tokens: int = setting(
        114_688,
        "Tokens of the seventh run",
        unit="character",
        low=64,
        high=1_000_000,
        help="The six runs read an eighth or a half of them; more takes longer.",
    )
    width: int = setting(
        48,
        "Width of the seventh run",
        unit="number",
        low=8,
        high=64,
        help="The six runs have 8, 16 or 32; a multiple of 4. Wider is further from what the law has seen.",
    )
    zettaflops: float = setting(
        576.0,
        "Budget of a large run",
        unit="ZFLOP",
        low=0.001,
        high=1e9,
        help="In 1e21 FLOPs; 576 is what Gopher and Chinchilla cost. More asks for more weights and more tokens.",
    )
    text: float = setting(
        0.0,
        "Unique text available",
        unit="billion tokens",
        low=0,
        high=1e9,
        more=True,
        help="With less unique text, the best model for the budget becomes smaller; 0 means no limit.",
    )

    @property
    def flops(self) -> float:
        return self.zettaflops * 1e21

    def check(self) -> None:
        super().check()
        least = max(SHARES) * self.batch * self.context
        if self.tokens < least:
            raise ValueError(
                f"tokens must be at least {least}, so that the shortest runs read one batch of"
                f" {self.batch * self.context}, got {self.tokens}"
            )
        if 0 < self.text < 0.001:
            raise ValueError(f"text must be 0 for no limit or at least 0.001 billion tokens, got {self.text:g}")


@dataclass(frozen=True)
class Run:
    """A kind of run that has ended: the mean over its seeds, and their standard deviation."""

    parameters: int
    tokens: int
    loss: float  # nats per character on unseen text
    spread: float


@dataclass(frozen=True)
class Line:
    """What the fitted law says for one size over the tokens, with the band of nine tenths of the refits."""

    parameters: int
    tokens: tuple[float, ...]
    losses: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class ScalingStep(Step):
    """One optimizer step of one run, a look at it, or what was computed from the runs so far."""

    run: int  # 1 to 7
    tokens: int  # read so far by each of its models
    parameters: int
    validation: float | None = None  # nats per character on unseen text, mean over the seeds
    path: tuple[tuple[int, float], ...] = ()  # of the run that is on: (tokens, validation)
    runs: tuple[Run, ...] = ()  # that have ended
    lines: tuple[Line, ...] = ()  # once there is a law: for the sizes of all seven
    plan: tuple[tuple[int, int], ...] = ()  # on the first Step and with a look: (parameters, tokens) of all seven
    blind: float | None = None  # on the first Step: the loss before anything is learned
    isoflops: tuple[IsoFlop, ...] = ()  # on the first Step
    advice: tuple[Advice, ...] = ()  # on the first Step


# --- the laws ---------------------------------------------------------------------------------------------------------


def kaplan(p: Float[np.ndarray, "4"], parameters: Any, tokens: Any) -> Any:
    """p: ln N_c, ln D_c, ln alpha_N, ln alpha_D."""
    alpha_n, alpha_d = np.exp(np.clip(p[2:], -20, 3))
    by_size = np.exp(np.clip(alpha_n / alpha_d * (p[0] - np.log(parameters)), -60, 60))
    return (by_size + np.exp(np.clip(p[1] - np.log(tokens), -60, 60))) ** alpha_d


def chinchilla(p: Float[np.ndarray, "4"], parameters: Any, tokens: Any) -> Any:
    """p: ln E, ln A, ln B, ln alpha, with beta = alpha."""
    alpha = np.exp(np.clip(p[3], -20, 3))
    e, a, b = np.exp(np.clip(p[:3], -60, 60))
    return e + a * np.asarray(parameters, float) ** -alpha + b * np.asarray(tokens, float) ** -alpha


STARTS: dict[Law, tuple[float, ...]] = {
    kaplan: (15.0, 17.0, math.log(0.11), math.log(0.12)),
    chinchilla: (0.3, 1.5, 2.7, math.log(0.3)),
}


def fitted(law: Law, parameters: Float[np.ndarray, "R"], tokens: Float[np.ndarray, "R"], losses: Float[np.ndarray, "R"],
           start: Float[np.ndarray, "P"] | None = None) -> Float[np.ndarray, "P"]:  # fmt: skip
    """The constants with the least squares, by Levenberg and Marquardt's method."""
    from scipy.optimize import least_squares

    first = np.array(STARTS[law]) if start is None else start
    found = least_squares(lambda p: law(p, parameters, tokens) - losses, first, method="lm", max_nfev=400)
    return np.asarray(found.x)


# --- the experiment ---------------------------------------------------------------------------------------------------


class Series:
    """The runs one after the other, and the law that is fitted to the first six."""

    def __init__(self, config: ScalingConfig, corpus: Corpus) -> None:
        self.config, self.corpus = config, corpus
        self.windows = text_once(corpus, config.context, config.tokens)
        self.inputs, self.targets = windows_of(corpus.train_ids, config.context)
        self.widths = [(width, config.tokens // share) for width in WIDTHS for share in SHARES] + [
            (config.width, config.tokens)
        ]
        self.plan = tuple((self.fleet(width).parameters, tokens) for width, tokens in self.widths)
        self.runs: list[Run] = []
        self.path: list[tuple[int, float]] = []
        self.lines: tuple[Line, ...] = ()
        self.seen = 0

    def fleet(self, width: int) -> Fleet:
        shape = replace(self.config.shape(self.corpus), width=width)
        return Fleet(shape, self.config.every_seed, self.config.learning_rate * math.sqrt(32 / width))

    def step(self, parameters: int, **more: Any) -> ScalingStep:
        return ScalingStep(
            min(len(self.runs) + 1, 7),
            self.seen,
            parameters,
            runs=tuple(self.runs),
            lines=self.lines,
            path=tuple(self.path),
            plan=self.plan,
            **more,
        )

    def pause(self, fleet: Fleet) -> ScalingStep:
        """A place to take turns."""
        return ScalingStep(min(len(self.runs) + 1, 7), self.seen, fleet.parameters)

    def one_run(self, width: int, tokens: int) -> Generator[ScalingStep, None, bool]:
        """Train the fleet of one kind from nothing to its end. True: it blew up, and the series ends with it."""
        config, fleet = self.config, self.fleet(width)
        steps = tokens // (config.batch * config.context)
        order = torch.stack(
            [reading_order(self.windows, self.windows, steps * config.batch, seed) for seed in config.every_seed]
        )
        self.path, self.seen = [], 0
        for step in range(steps):
            now = order[:, step * config.batch : (step + 1) * config.batch]
            progress = step / steps
            scale = min(1.0, (step + 1) / (WARM_SHARE * steps)) * 0.5 * (1 + math.cos(math.pi * progress))
            for _ in fleet.step_in_parts(self.inputs[now], self.targets[now], scale):
                yield self.pause(fleet)
            self.seen = fleet.steps * config.batch * config.context
            if (step + 1) * LOOKS // steps > step * LOOKS // steps and (
                yield from self.look(fleet, last=step + 1 == steps)
            ):
                return True
        return False

    def look(self, fleet: Fleet, last: bool) -> Generator[ScalingStep, None, bool]:
        """Judge the fleet on unseen text. True: it blew up."""
        blown = ""
        for losses in fleet.validate_in_parts(self.corpus.validation_ids, LOOK):
            if losses is None:
                yield self.pause(fleet)
                continue
            if blown := blown_up(losses):
                yield self.step(fleet.parameters, diverged=True, doing=blown)
                break
            number, loss = len(self.runs) + 1, float(losses.mean())
            self.path.append((self.seen, loss))
            if last:
                self.runs.append(Run(fleet.parameters, self.seen, loss, float(losses.std(ddof=1))))
            told = f"run {number} of 7, {fleet.parameters} weights, {self.seen} characters: loss {loss:.3f}"
            yield replace(self.step(fleet.parameters, validation=loss, doing=told), run=number)
        return bool(blown)


@dataclass
class Forecast:
    """The law of the six runs and its refits; `at` says what they foresee."""

    law: Float[np.ndarray, "P"]
    other: Float[np.ndarray, "P"]  # Chinchilla's form
    shaken: list[Float[np.ndarray, "P"]]

    def band(self, parameters: float, tokens: Any) -> Any:
        """The 5 % and the 95 % of the refits, for one number of tokens or many."""
        return np.percentile([kaplan(p, parameters, tokens) for p in self.shaken], (5, 95), axis=0)

    def line(self, parameters: int, first: float, last: float) -> Line:
        tokens = np.geomspace(first, last, 24)
        rows = (tokens, kaplan(self.law, parameters, tokens), *self.band(parameters, tokens))
        return Line(parameters, *(tuple(float(value) for value in row) for row in rows))


def forecast(runs: list[Run], seeds: int, seed: int) -> Iterator[Forecast | None]:
    """Fit, shake and fit again. Yields None between parts, then the forecast."""
    sizes, lengths, losses = (
        np.array(column, dtype=float)
        for column in zip(*[(run.parameters, run.tokens, run.loss) for run in runs], strict=True)
    )
    error = math.sqrt(
        float(np.mean([run.spread**2 for run in runs])) / seeds
    )  # of a mean over the seeds, all kinds pooled
    law, other = fitted(kaplan, sizes, lengths, losses), fitted(chinchilla, sizes, lengths, losses)
    rng, shaken = np.random.default_rng(seed), list[Float[np.ndarray, "P"]]()
    for number in range(SHAKES):
        if number % AT_ONCE == 0:
            yield None
        shaken.append(fitted(kaplan, sizes, lengths, losses + error * rng.standard_normal(len(losses)), law))
    yield Forecast(law, other, shaken)


@experiment("Can six small runs predict a larger one?")
def scaling(config: ScalingConfig) -> Iterator[ScalingStep]:
    """Six kinds of runs, a law, a prediction, and then the seventh run."""
    series = Series(config, config.read())
    yield opening(series)
    for width, tokens in series.widths[:-1]:
        if (yield from series.one_run(width, tokens)):
            return
    six, seventh = series.runs, series.plan[-1][0]
    found: Forecast | None = None
    for found in forecast(six, config.seeds, config.seed):
        if found is None:
            yield series.step(seventh, doing="fitting the law, again and again with shaken losses")
    assert found is not None
    sizes = sorted({run.parameters for run in six} | {seventh})
    series.path, series.lines = (
        [],
        tuple(found.line(size, config.tokens / max(SHARES) / 1.5, config.tokens * 1.5) for size in sizes),
    )
    low, high = found.band(seventh, config.tokens)
    said = float(kaplan(found.law, seventh, config.tokens))
    yield series.step(
        seventh,
        doing=(
            f"predicted for {seventh} weights and {config.tokens} characters: {said:.3f}, nine tenths between {low:.3f}"
            f" and {high:.3f}"
        ),
    )
    if (yield from series.one_run(*series.widths[-1])):
        return
    last = series.runs[-1]
    figures = (
        SEVENTH(
            last.loss, said, source=f"Kaplan's law fitted to the six runs; 90 % of refits: {low:.3f} to {high:.3f}"
        ),
        SEVENTH_CHINCHILLA(last.loss, float(chinchilla(found.other, seventh, last.tokens))),
        ALPHA_D(float(np.exp(found.law[3])), KAPLAN_D),
        ALPHA_N(float(np.exp(found.law[2])), KAPLAN_N),
    )
    yield series.step(
        seventh,
        validation=last.loss,
        figures=figures,
        doing=f"done: predicted {said:.3f}, measured {last.loss:.3f} ± {last.spread:.3f}",
    )


def opening(series: Series) -> ScalingStep:
    """The start state: Chinchilla's surface and its answers, and what is going to be run."""
    import scipy.optimize  # noqa: F401 (warm before the fit needs it)

    config, sizes = series.config, [size for size, _ in series.plan]
    batch, shape = config.batch * config.context, config.shape(series.corpus)
    seconds = sum(
        expected_seconds(shape, size, config.seeds, tokens // batch, tokens, LOOKS * LOOK)
        for size, tokens in series.plan
    )
    said = tuple(advice(config.flops, 1e9 * config.text))
    figures = tuple(RATIO.of(who=one.who)(one.ratio, said[0].ratio) for one in said[1:3])
    doing = (
        f"six runs of {min(sizes)} to {max(sizes[:-1])} weights, then one of {sizes[-1]}: {spoken(seconds)} on one"
        " thread"
    )
    blind = math.log(len(series.corpus.symbols))
    return series.step(
        sizes[0], blind=blind, isoflops=isoflops(config.flops), advice=said, figures=figures, doing=doing
    )
