r"""Break it on purpose: take the rescaling line out, add 100 to every score, compute in 16 bits.

**The line.** Sums made under an old maximum $m$ are in units of $e^{-m}$. When a tile brings a larger score, the new
terms are in units of $e^{-m'}$, and old and new may be added only after $\ell \leftarrow e^{m-m'}\ell$ and
$O \leftarrow e^{m-m'} O$. Without it nothing crashes and nothing is infinite: rows whose maximum rose give the old keys
too much weight. Rows whose largest score lies in the first tile stay right. That kind of bug survives a glance.

**The maximum.** $\mathrm{softmax}(s + c) = \mathrm{softmax}(s)$ for any $c$, on paper. The textbook formula
$e^{s} / \sum e^{s}$ overflows where the sum passes the largest number: $c + \max_i \ln\sum_j e^{s_{ij}}$ above
$\ln(3.4 \cdot 10^{38}) = 88.7$ in float32 and above $\ln(65504) = 11.1$ in float16. Subtracting the row's maximum first
cures that, and needs all scores of a row before the first exponential. The running maximum needs one tile.

**16 bits.** What no maximum can cure is that near 100 float16 numbers lie 1/16 apart (bfloat16: 1/2), so the scores
have lost their differences before the softmax starts. That is why FlashAttention takes 16-bit inputs and keeps scores,
$m$, $\ell$ and $O$ in 32 bits; the fourth way does that here.

All errors are against float64 without the shift.

Left out: the backward pass; kernels that skip small rescalings (FlashAttention-4).
Source: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135, section 3.1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.flash_attention.sentence import MOST_TOKENS, SENTENCE, Head, check_text, head_field, head_of, layer_field
from core.flash_attention.tiling import Running, Tile, absorb, nothing_seen, pieces, scores_of
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result

NUMBERS = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
WAYS = {
    "textbook": "e^s / sum e^s",
    "safe": "row max first",
    "online": "online, tile by tile",
    "mixed": "online, sums in 32 bits",
}
SHIFTS = 41  # points of the sweep
WRONG = 1e-4  # an output further off than this fraction of the largest is wrong, not rounded

LARGEST = "of the largest output"
WRONG_ROWS = Figure("rows that are wrong without rescaling", "rows", "theory", headline=True)
ERROR_WITHOUT = Figure(
    "largest error without rescaling", LARGEST, "baseline", "the same tiles with the rescaling line", headline=True
)
OVERFLOW = Figure("shift at which the textbook softmax overflows", "added to each score", "theory", headline=True)
SHIFTED_ERROR = Figure("error after the shift, {way}", LARGEST, "theory")
FLOAT16_LOSS = Figure("largest error of a score in float16", "nats", "theory")


@dataclass(frozen=True)
class RescaleConfig(Config):
    """Whose attention, in which tiles, and what is added to all scores."""

    text: str = setting(
        SENTENCE,
        "Your sentence",
        high=MOST_TOKENS,
        help="Up to 128 characters. A longer text makes a larger score matrix; a token is a character.",
    )
    tile_keys: int = setting(
        16,
        "Keys per tile",
        unit="key",
        low=1,
        high=MOST_TOKENS,
        help="Smaller tiles let the maximum of a row rise more often, so more has to be rescaled.",
    )
    shift: float = setting(
        100.0,
        "Added to every score",
        low=0.0,
        high=1000.0,
        help="A larger shift changes no weight on paper; beyond about 88 the textbook softmax overflows in float32.",
    )
    numbers: str = setting(
        "float32",
        "Number type",
        choices=NUMBERS,
        help="Fewer bits round more and overflow earlier. The curves use this type; the table has all three.",
    )
    causal: bool = setting(
        True,
        "Causal mask",
        help="Ticked, a token sees only itself and the past, so half of the scores are left out.",
        more=True,
    )
    layer: int = layer_field()
    head: int = head_field()

    def check(self) -> None:
        check_text(self.text)
        if self.tile_keys > len(self.text):
            raise ValueError(f"tile_keys must be at most the text's {len(self.text)} characters, got {self.tile_keys}")


@dataclass(frozen=True)
class RescaleStep(Step):
    """After some tiles of keys: the outputs with and without the line. Later Steps add the sweep and the table."""

    done: int  # tiles of keys so far
    tiles: int
    exact: np.ndarray  # (N, d) for the keys seen so far
    right: np.ndarray  # (N, d) with the line
    wrong: np.ndarray  # (N, d) without
    error_right: np.ndarray  # (N,) largest error of each row, as a share of the largest output
    error_wrong: np.ndarray
    risen: np.ndarray  # (N,) whether the row's max rose after its first tile
    shifts: tuple[float, ...] = ()  # of the sweep, so far
    errors: tuple[
        tuple[str, tuple[float, ...]], ...
    ] = ()  # way -> largest error at each shift; NaN: not a number came out
    limit: float = math.nan  # the shift at which the textbook formula must overflow, by formula
    table: tuple[
        tuple[str, tuple[float, ...]], ...
    ] = ()  # way -> largest error at the chosen shift in float32, float16, bfloat16


# --- four ways to the same output -------------------------------------------------------------------------------------


def scores_plus(
    head: Head, dtype: torch.dtype, shift: float, causal: bool
) -> tuple[Float[Tensor, "T T"], Float[Tensor, "T D"]]:
    """All scores and the values in one kind of number, the shift added."""
    q, k, v = (part.to(dtype) for part in (head.q, head.k, head.v))
    whole = slice(0, len(q))
    return scores_of(q, k, Tile(whole, whole), causal) + shift, v


def textbook(scores: Float[Tensor, "R K"], v: Float[Tensor, "K D"]) -> Float[Tensor, "R D"]:
    """e^s over its sum, with nothing subtracted: overflows for large scores. R queries meet K keys."""
    weights = torch.exp(scores)
    return (weights / weights.sum(1, keepdim=True)) @ v


def safe(scores: Float[Tensor, "R K"], v: Float[Tensor, "K D"]) -> Float[Tensor, "R D"]:
    """The row's largest score is subtracted first, so no exponent is above 0."""
    return textbook(scores - scores.amax(1, keepdim=True), v)


def online(
    scores: Float[Tensor, "R K"], v: Float[Tensor, "K D"], keys: int, rescaling: bool = True
) -> Iterator[Running]:
    """The state of all rows after each tile of keys."""
    running = nothing_seen(v)
    for part in pieces(len(v), keys):
        running = absorb(running, scores[:, part], v[part], rescaling)
        yield running


def online_output(scores: Float[Tensor, "R K"], v: Float[Tensor, "K D"], keys: int) -> Float[Tensor, "R D"]:
    *_, last = online(scores, v, keys)
    return last.out / last.row_sum


def output_of(way: str, head: Head, dtype: torch.dtype, shift: float, config: RescaleConfig) -> Float[Tensor, "T D"]:
    """One of the four ways. `mixed` has inputs in `dtype`; from the scores on it counts in float32."""
    if way == "mixed":
        rounded = Head(*(part.to(dtype).float() for part in (head.q, head.k, head.v)))
        return online_output(*scores_plus(rounded, torch.float32, shift, config.causal), config.tile_keys)
    scores, v = scores_plus(head, dtype, shift, config.causal)
    ways: dict[str, Callable[[], Tensor]] = {
        "textbook": lambda: textbook(scores, v),
        "safe": lambda: safe(scores, v),
        "online": lambda: online_output(scores, v, config.tile_keys),
    }
    return ways[way]()


# --- with and without the line ----------------------------------------------------------------------------------------


class Pair:
    """The same tiles with and without the rescaling line, both compared with float64."""

    def __init__(self, config: RescaleConfig) -> None:
        self.config, self.head = config, head_of(config.text, config.layer, config.head)
        self.dtype = getattr(torch, config.numbers)
        self.tiles = len(pieces(len(config.text), config.tile_keys))
        self.true, self.true_v = scores_plus(self.head, torch.float64, 0.0, config.causal)
        self.exact = safe(self.true, self.true_v)
        self.largest = float(self.exact.abs().max())  # errors are shares of it
        self.limit = math.log(torch.finfo(self.dtype).max) - float(self.true.logsumexp(1).max())
        self.state: RescaleStep

    def steps(self) -> Iterator[RescaleStep]:
        """A Step per tile of keys. Rows that have seen nothing but the future stay 0."""
        scores, v = scores_plus(self.head, self.dtype, 0.0, self.config.causal)
        both = zip(*(online(scores, v, self.config.tile_keys, rescaling) for rescaling in (True, False)), strict=True)
        first: Tensor | None = None
        for done, (right, wrong) in enumerate(both, start=1):
            seen = min(done * self.config.tile_keys, len(v))
            exact = safe(self.true[:, :seen], self.true_v[:seen])
            first = right.row_max if first is None else first
            outs = [(one.out / one.row_sum).double() for one in (right, wrong)]
            errors = [((out - exact).abs().amax(1) / self.largest).numpy() for out in outs]
            risen = (right.row_max > first)[:, 0].numpy()
            arrays = [tensor.float().numpy() for tensor in (exact, *outs)]
            off = int((errors[1] > self.wrong).sum())
            doing = (
                f"tile {done} of {self.tiles}: the max of {int(risen.sum())} rows has risen so far; {off} are wrong"
                " without the line"
            )
            self.state = RescaleStep(done, self.tiles, *arrays, *errors, risen, limit=self.limit, doing=doing)
            yield self.state

    @property
    def wrong(self) -> float:
        """Further off than rounding explains."""
        return max(WRONG, 20 * float(torch.finfo(self.dtype).eps))

    def error(self, way: str, dtype: torch.dtype, shift: float) -> float:
        """Largest error of a way; NaN where anything that is not a number came out."""
        return (
            float((output_of(way, self.head, dtype, shift, self.config).double() - self.exact).abs().max())
            / self.largest
        )


@experiment("What breaks when one line of the online softmax is taken out?")
def rescale(config: RescaleConfig) -> Iterator[RescaleStep]:
    """Tiles with and without the line, the sweep of shifts, the table of numbers."""
    pair = Pair(config)
    steps = pair.steps()
    first = next(steps)  # after one tile nothing has been rescaled yet
    unshifted = tuple((way, (pair.error(way, pair.dtype, 0.0),)) for way in WAYS)
    yield replace(
        first,
        shifts=(0.0,),
        errors=unshifted,
        table=tuple((way, (pair.error(way, torch.float32, config.shift),)) for way in WAYS),
    )
    yield from steps
    yield from swept(pair)
    yield from tabled(pair)


def swept(pair: Pair) -> Iterator[RescaleStep]:
    """Every way at every shift of the sweep: something is added to all scores, which on paper changes nothing."""
    shifts = [float(shift) for shift in np.linspace(0, sweep_end(pair.config), SHIFTS)]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for done, shift in enumerate(shifts, start=1):
        for way in WAYS:
            found[way].append(pair.error(way, pair.dtype, shift))
        doing = f"{shift:.0f} added in {pair.config.numbers}: " + ", ".join(
            f"{way} {said(errors[-1])}" for way, errors in found.items()
        )
        pair.state = replace(
            pair.state,
            shifts=tuple(shifts[:done]),
            errors=tuple((way, tuple(errors)) for way, errors in found.items()),
            doing=doing,
        )
        yield pair.state


def sweep_end(config: RescaleConfig) -> float:
    return max(120.0, 1.2 * config.shift)


def tabled(pair: Pair) -> Iterator[RescaleStep]:
    """At the chosen shift, every way in every kind of number; then the figures."""
    table: dict[str, list[float]] = {way: [] for way in WAYS}
    for name in NUMBERS:
        for way in WAYS:
            table[way].append(pair.error(way, getattr(torch, name), pair.config.shift))
        pair.state = replace(
            pair.state,
            table=tuple((way, tuple(errors)) for way, errors in table.items()),
            doing=f"{pair.config.shift:g} added, in {name}",
        )
        yield pair.state
    off = int((pair.state.error_wrong > pair.wrong).sum())
    done = (
        f"{off} of {len(pair.exact)} rows are wrong without the line; the textbook formula overflows from a shift of"
        f" {overflow_shift(pair):.1f} on"
    )
    yield replace(pair.state, figures=figures_of(pair), doing=done)


def said(error: float) -> str:
    return "not a number" if math.isnan(error) else f"{error:.0e}"


def overflow_shift(pair: Pair) -> float:
    """The smallest shift at which a sum of the textbook formula is infinite, found by halving."""
    low, high = 0.0, 200.0
    for _ in range(30):
        middle = (low + high) / 2
        scores, _ = scores_plus(pair.head, pair.dtype, middle, pair.config.causal)
        fits = bool(torch.isfinite(torch.exp(scores).sum(1)).all())
        low, high = (middle, high) if fits else (low, middle)
    return high


def spacing(dtype: torch.dtype, size: float) -> float:
    """Distance of neighboring numbers of that size."""
    return float(torch.finfo(dtype).eps) * 2.0 ** math.floor(math.log2(max(size, 1e-30)))


def figures_of(pair: Pair) -> tuple[Result, ...]:
    """The line, the overflow, and what 16 bits keep of a score."""
    config, state = pair.config, pair.state
    errors, row = dict(state.table), list(NUMBERS).index(config.numbers)
    # what adding the shift in float16 does to the scores themselves
    shifted, _ = scores_plus(pair.head, torch.float16, config.shift, config.causal)
    past = torch.isfinite(pair.true)
    lost = float((shifted.double() - (pair.true + config.shift))[past].abs().max())
    largest = float((pair.true[past] + config.shift).abs().max())
    after = f"adding {config.shift:g} to every score changes no weight on paper; here in {config.numbers}"
    rows = f"exactly the rows whose max rose after their first tile; wrong is an error above {pair.wrong:.0e}"
    return (
        WRONG_ROWS(float((state.error_wrong > pair.wrong).sum()), float(state.risen.sum()), source=rows),
        ERROR_WITHOUT(float(state.error_wrong.max()), float(state.error_right.max())),
        OVERFLOW(
            overflow_shift(pair),
            state.limit,
            source=f"ln of the largest {config.numbers} number, less the largest logsumexp of a row",
        ),
        *(
            SHIFTED_ERROR.of(way=WAYS[way])(
                None if math.isnan(errors[way][row]) else errors[way][row], 0.0, source=after
            )
            for way in WAYS
        ),
        FLOAT16_LOSS(
            lost,
            spacing(torch.float16, largest) / 2,
            source=f"half the distance of neighboring float16 numbers near {largest:.0f}; rounding q and k adds to it",
        ),
    )
