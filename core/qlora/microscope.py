r"""Under the microscope: one real layer, rounded to 16 levels by bitsandbytes, weight by weight.

The film shows each weight, divided by the largest of its block, moving to the level it is stored as. If all levels were
used equally often, a 4-bit number would carry 4 bits of information; how often they are really used gives
$H = -\sum_j p_j \log_2 p_j$.

The price of the constants is weighed from the bytes of the tensors that bitsandbytes keeps: a float32 per block of 64
is $32/64 = 0.5$ bit, so NF4 costs 4.5 bits per weight. Double quantization makes it $4 + 8/64 + 32/(64 \cdot 256) =
4.127$. Tables of levels cost the same for a layer of any size: next to nothing in a big one, 0.005 bit in the default
one, and up to a quarter of a bit in the smallest one with double quantization.

Weights that share a constant suffer together. If one weight becomes 50 times larger, the 63 others of its block are
divided by 50 times as much and all land on zero. No other block notices; with double quantization the others notice a
little, since their constants share a mean.

Left out: `load_in_8bit` of transformers, which has one constant per row of a layer instead of per block and keeps
outliers in float16 (LLM.int8). bitsandbytes packs no int4: its 8-bit routine finds the numbers, we pack them.
Source: Dettmers et al. 2023, arXiv:2305.14314, section 3; Yoshida 2023, arXiv:2306.06965 (why the 16 codes of NF4 are
not used equally often).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.foundations.base_model import BASES, fetching_words
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.turns import with_pauses
from core.qlora.codes import Code, code_of, dequantise, formula_bits
from core.qlora.layer import EIGHT, ONE, SECOND, Stored, by_library, differing, load_matrix

KINDS = {
    "nf4": "NF4 (NormalFloat)",
    "fp4": "FP4 (floating point)",
    "int4": "int4 (even steps)",
    "int8": "int8 (even steps)",
}
BLOCKS = {str(size): f"{size} weights" for size in (32, 64, 128, 256, 512, 1024, 2048, 4096)}
MATRICES = {
    "q_proj": "attention: query",
    "k_proj": "attention: key",
    "v_proj": "attention: value",
    "o_proj": "attention: output",
    "gate_proj": "MLP: gate",
    "up_proj": "MLP: up",
    "down_proj": "MLP: down",
}
FRAMES = 12
EDGES = np.linspace(-1.0125, 1.0125, 82)  # bins of the histogram, 0.025 wide, one of them around zero
NOISE = (1024, 1024)
MAP = (96, 128)  # rows and columns of the error map
SHOWN = 64  # weights of the outlier's block, and of blocks, that are drawn
SHOWN_BLOCKS = 512
CODES = Figure("codes that differ from bitsandbytes'", "codes", "theory", "our quantizer (codes.py) is the same method")
ERROR = Figure(
    "rounding error of the layer",
    "% of the weights' size",
    "baseline",
    "the same code on normally distributed numbers",
    headline=True,
)
INFORMATION = Figure("information in a {bits}-bit code", "bits", "baseline", "the same code on normal numbers")
BITS = Figure("bits per weight, all that is stored", "bits", "theory", headline=True)
PLAIN_BITS = Figure("bits per weight without the tables of levels", "bits", "theory")
BLOCKS_CHANGED = Figure("blocks whose error changed by one outlier", "blocks", "theory", headline=True)
OTHER_CODES = Figure(
    "codes that changed in other blocks", "codes", "theory", "their largest weights are the same", "measured"
)
OTHER_ERROR = Figure("rounding error in all other blocks", "% of the weights' size", "baseline", "before the outlier")
ZEROS = Figure(
    "weights of the outlier's block that became 0",
    "weights",
    "theory",
    "all but the outlier, if its factor is large enough",
    headline=True,
)
STORED_BLOCKS = 500  # of 32 weights, whose different values are counted
ALREADY = Figure("different values among 32 neighboring weights, before quantizing", "values", "limit", "all different")


@dataclass(frozen=True)
class MicroscopeConfig(Config):
    """Which layer, and how it is quantized."""

    layer: int = setting(
        2, "Layer", low=1, high=80, help="Which layer of the model; a higher number lies further from the input."
    )
    matrix: str = setting("down_proj", "Matrix", choices=MATRICES, help="Which of the layer's matrices is quantized.")
    kind: str = setting(
        "nf4", "Code", choices=KINDS, help="How the levels are spaced: NF4 puts more of them where weights are dense."
    )
    block: str = setting(
        "64",
        "Block",
        choices=BLOCKS,
        help="Larger blocks share one constant among more weights: fewer bits, more rounding error.",
    )
    double: bool = setting(
        False,
        "Double quantization",
        help="The constants are quantized, too: this saves up to 0.37 bit per weight and adds a little error.",
    )
    outlier: float = setting(
        50.0,
        "Outlier x",
        low=1.0,
        high=1000.0,
        help="Multiplies one weight by this: the larger it is, the more weights of its block become 0; 1 changes "
        "nothing.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=BASES,
        more=True,
        help="The models from the hub are larger and need a network once; most need a GPU.",
    )
    seed: int = setting(
        0,
        "Seed of the noise",
        low=0,
        high=2**31 - 1,
        more=True,
        help="Another seed draws other normal numbers to compare with.",
    )

    @property
    def code(self) -> tuple[str, int, bool]:
        return self.kind, int(self.block), self.double


@dataclass(frozen=True)
class MicroscopeStep(Step):
    """A frame of the film, or one of the measurements; what did not happen in it is None."""

    moved: float = 0.0  # from 0, the weights, to 1, their levels
    histogram: np.ndarray | None = None  # fraction of the weights per bin of EDGES
    error_map: np.ndarray | None = (
        None  # (rows, columns) of the layer's corner, in units of the layer's standard deviation
    )
    error_reach: float = 1.0  # three times the usual error, for the scale of the map
    levels: tuple[float, ...] = ()  # sorted
    formula: tuple[tuple[str, float], ...] = ()  # what is kept besides the codes, and its bits per weight
    occupancy: tuple[float, ...] | None = None  # fraction of the weights per level
    noise_occupancy: tuple[float, ...] | None = None
    weighed: tuple[tuple[str, int, float, float], ...] | None = (
        None  # what, bytes, bits per weight; the same of the noise
    )
    block: np.ndarray | None = (
        None  # weights of the outlier's block, as far as they are shown, without the outlier's factor
    )
    block_before: np.ndarray | None = None  # the same, quantized
    block_after: np.ndarray | None = None  # quantized beside the outlier
    outlier_at: int | None = None  # its place in `block`
    errors_before: np.ndarray | None = None  # root mean square per block
    errors_after: np.ndarray | None = None
    first_block: int = 0  # the number of the first of these blocks


# --- looking ----------------------------------------------------------------------------------------------------------


def occupancy(numbers: Tensor, code: Code) -> np.ndarray:
    """Fraction of the weights per level, the levels in ascending order."""
    counts = torch.bincount(numbers.long(), minlength=len(code.levels))[torch.argsort(code.levels)]
    return (counts / counts.sum()).double().numpy()


def entropy_bits(shares: np.ndarray) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log2(used)).sum())


def relative_error(weight: Tensor, back: Tensor) -> float:
    """Root mean square of the error over that of the weights."""
    return float((back - weight).square().mean().sqrt() / weight.square().mean().sqrt())


def errors_of(weight: Tensor, back: Tensor, block: int) -> np.ndarray:
    return (back - weight).view(-1, block).square().mean(1).sqrt().numpy()


class Film:
    """From the weights to their levels, each a straight way. The heights and the map are exact at both ends."""

    def __init__(self, weight: Tensor, stored: Stored, back: Tensor) -> None:
        rows = weight.view(-1, stored.quantised.block)
        self.scaled = (rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-38)).flatten()
        self.at_end = stored.quantised.code.levels[stored.quantised.numbers.long()]
        self.deviation = float(weight.std())
        self.reach = 3 * float((back - weight).square().mean().sqrt()) / self.deviation
        self.errors = self.map_of(weight, back)
        self.levels = tuple(stored.quantised.code.levels.sort().values.tolist())

    def map_of(self, weight: Tensor, back: Tensor) -> np.ndarray:
        return ((back - weight)[: MAP[0], : MAP[1]] / self.deviation).numpy()

    def frame(self, t: float, doing: str, errors: np.ndarray | None = None) -> MicroscopeStep:
        counts = np.histogram(((1 - t) * self.scaled + t * self.at_end).numpy(), EDGES)[0]
        shown = t * self.errors if errors is None else errors
        return MicroscopeStep(
            moved=t,
            histogram=counts / self.scaled.numel(),
            error_map=shown,
            error_reach=self.reach,
            levels=self.levels,
            doing=doing,
        )

    def frames(self) -> Iterator[MicroscopeStep]:
        for frame in range(1, FRAMES + 1):
            t = frame / FRAMES
            yield self.frame(
                t,
                f"moving the weights to their levels, {t:.0%} of the way" if t < 1 else "every weight is at its level",
            )


def scales(weight: Tensor, stored: Stored) -> list[tuple[str, int, float]]:
    """Name, bytes and bits per weight of every tensor that is kept."""
    return [(name, tensor.nbytes, 8 * tensor.nbytes / weight.numel()) for name, tensor in stored.tensors]


@experiment("What is left of a layer when each weight becomes one of 16 numbers?")
def microscope(config: MicroscopeConfig) -> Iterator[MicroscopeStep]:
    """The film of the weights, then what is used, what it costs, and what one outlier does."""
    import bitsandbytes  # noqa: F401 (its import is slow: the first Step waits for it, later ones do not)

    fetching = MicroscopeStep(doing=fetching_words(config.model))
    weight = yield from with_pauses(load_matrix(config.model, config.layer, config.matrix), fetching)
    stored = by_library(weight, *config.code)
    back = dequantise(stored.quantised)
    film, place = Film(weight, stored, back), outlier_place(weight, int(config.block))
    window, blocks = shown_window(place, int(config.block)), shown_blocks(place, int(config.block))
    told = (
        f"{MATRICES[config.matrix]} of layer {config.layer}: {weight.shape[0]} x {weight.shape[1]} weights, each"
        " divided by the largest of its block"
    )
    yield replace(
        film.frame(0.0, told),
        block=weight.flatten()[window].numpy(),
        outlier_at=place - window.start,
        formula=formula_parts(config),
        errors_before=errors_of(weight, back, int(config.block))[blocks],
        first_block=blocks.start,
    )
    yield from film.frames()
    yield from measured(weight, stored, back, config)
    if config.outlier > 1:
        yield from grown(film, weight, stored, back, place, config)


def formula_parts(config: MicroscopeConfig) -> tuple[tuple[str, float], ...]:
    """What the paper counts besides the codes: bits per weight."""
    block = int(config.block)
    return ((EIGHT, 8 / block), (SECOND, 32 / (block * 256))) if config.double else ((ONE, 32 / block),)


def measured(weight: Tensor, stored: Stored, back: Tensor, config: MicroscopeConfig) -> Iterator[MicroscopeStep]:
    """Use of the levels, error and bytes, each beside the same for Gaussian noise."""
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(config.seed))
    yield MicroscopeStep(doing=f"drawing {NOISE[0]} x {NOISE[1]} normal numbers to compare with")
    noise_stored = by_library(noise, *config.code)
    yield MicroscopeStep(doing="quantizing the noise")
    error, noise_error = relative_error(weight, back), relative_error(noise, dequantise(noise_stored.quantised))
    used, noise_used = (occupancy(one.quantised.numbers, one.quantised.code) for one in (stored, noise_stored))
    bits, different = code_of(config.kind).bits, float(differing(weight, stored, config.kind, config.double))
    yield MicroscopeStep(
        occupancy=tuple(used.tolist()),
        noise_occupancy=tuple(noise_used.tolist()),
        figures=(
            CODES(different, 0.0),
            ERROR(100 * error, 100 * noise_error),
            INFORMATION.of(bits=bits)(
                entropy_bits(used), entropy_bits(noise_used), source=f"{INFORMATION.source}; at most {bits}"
            ),
            ALREADY(float(kinds_in_a_block(weight)), 32.0),
        ),
        doing=f"error: {error:.2%} of the weights' size; on normal numbers {noise_error:.2%}",
    )
    kept, noise_kept = scales(weight, stored), scales(noise, noise_stored)
    formula, tables = (
        formula_bits(config.kind, int(config.block), config.double),
        sum(b for name, _, b in kept if name.startswith("table")),
    )
    total, told = sum(b for *_, b in kept), formula_text(config)
    weighed = tuple((name, size, b, nb) for (name, size, b), (_, _, nb) in zip(kept, noise_kept, strict=True))
    yield MicroscopeStep(
        weighed=weighed,
        formula=formula_parts(config),
        figures=(
            BITS(total, formula, source=f"{told}; tables of levels add {tables:.3f} here"),
            PLAIN_BITS(total - tables, formula, source=told + part_filled(stored, config)),
        ),
        doing=f"weighed: {total:.3f} bits per weight",
    )


def kinds_in_a_block(weight: Tensor) -> int:
    """The most different values that any 32 neighboring weights have: with at most 16, they had 4 bits before."""
    some = weight.flatten()[: 32 * STORED_BLOCKS]
    return max(len(set(block.tolist())) for block in some[: len(some) // 32 * 32].view(-1, 32))


def formula_text(config: MicroscopeConfig) -> str:
    """4 + 32/64, or 4 + 8/64 + 32/(64 x 256)."""
    bits, block = code_of(config.kind).bits, config.block
    return f"{bits} + 8/{block} + 32/({block} x 256)" if config.double else f"{bits} + 32/{block}"


def part_filled(stored: Stored, config: MicroscopeConfig) -> str:
    rest = len(stored.absmax) % 256
    return f"; the last 256 constants are only {rest}, and a mean is kept" if config.double and rest else ""


# --- one outlier ------------------------------------------------------------------------------------------------------


def outlier_place(weight: Tensor, block: int) -> int:
    """The largest weight of the block in which row 40 begins, by its place in the flat layer."""
    number = min(40, weight.shape[0] // 2) * weight.shape[1] // block
    return number * block + int(weight.flatten()[number * block : (number + 1) * block].abs().argmax())


def shown_window(place: int, block: int) -> slice:
    """The outlier's block, or, of a long one, 64 weights of it with the outlier among them."""
    first = place // block * block
    inside = max(0, min(place - first - SHOWN // 2, block - SHOWN))
    return slice(first + inside, first + inside + min(block, SHOWN))


def shown_blocks(place: int, block: int) -> slice:
    first = max(0, place // block - SHOWN_BLOCKS // 2)
    return slice(first, first + SHOWN_BLOCKS)


def grown(
    film: Film, weight: Tensor, stored: Stored, back: Tensor, place: int, config: MicroscopeConfig
) -> Iterator[MicroscopeStep]:
    """Quantize again with one weight grown, and look which blocks took notice."""
    block = int(config.block)
    larger = weight.clone()
    larger.view(-1)[place] *= config.outlier
    after = by_library(larger, *config.code)
    back_after = dequantise(after.quantised)
    yield MicroscopeStep(doing=f"one weight is multiplied by {config.outlier:g}: quantizing the layer again")
    before_errors, after_errors = errors_of(weight, back, block), errors_of(larger, back_after, block)
    changed = stored.quantised.numbers != after.quantised.numbers
    mine = slice(place // block * block, (place // block + 1) * block)
    elsewhere = int(changed.sum() - changed[mine].sum())
    blocks, others = int((before_errors != after_errors).sum()), np.arange(len(before_errors)) != place // block
    others_before, others_after = (
        float(np.sqrt(np.square(errors[others]).mean()) / weight.square().mean().sqrt())
        for errors in (before_errors, after_errors)
    )
    window, shown = shown_window(place, block), shown_blocks(place, block)
    used = after.quantised.code.levels
    zeros, smallest = float((used[after.quantised.numbers[mine].long()] == 0).sum()), float(used[used > 0].min())
    all_others = (
        block - 1.0 if 1 / config.outlier < smallest / 2 else None
    )  # no other is larger than 1 / outlier of the constant
    reason = (
        "the mean of all constants moved, and with it every constant"
        if config.double
        else "a block shares its constant with no other"
    )
    figures = (
        BLOCKS_CHANGED(float(blocks), float(len(before_errors)) if config.double else 1.0, source=reason),
        OTHER_CODES(float(elsewhere), 0.0),
        OTHER_ERROR(100 * others_after, 100 * others_before),
        ZEROS(zeros, all_others),
    )
    told = f"{blocks} of {len(before_errors)} blocks changed; of the outlier's {block} weights, {zeros:.0f} became 0"
    last = film.frame(1.0, told, film.map_of(larger, back_after))
    parts = [tensor.flatten()[window].numpy() for tensor in (weight, back, back_after)]
    yield replace(
        last,
        block=parts[0],
        block_before=parts[1],
        block_after=parts[2],
        outlier_at=place - window.start,
        errors_before=before_errors[shown],
        errors_after=after_errors[shown],
        first_block=shown.start,
        figures=figures,
    )
