r"""The autoencoder's round trip: what a picture becomes, and what comes back.

The encoder halves width and height some times ($f = 2^k$ in all) and ends with $c$ channels, so the count of numbers
falls by

$$\frac{H \cdot W \cdot 3}{(H/f)(W/f) \cdot c} = \frac{3 f^2}{c}: \qquad \frac{3 \cdot 8^2}{4} = 48 \text{ for Stable
Diffusion}, \qquad
\frac{3 \cdot 4^2}{4} = 12 \text{ here}.$$

Every step of the diffusion then costs that much less. The price is paid once, in the round trip, and measured in
decibels: $\mathrm{PSNR} = -10 \log_{10} \mathrm{MSE}$ for values from 0 to 1. Beside it stands the plain way to store
as few numbers: shrink the picture to $9 \times 9 \times 3 = 243$ and enlarge it again.

**What the latents hold.** Each channel is a small map. In the real Stable Diffusion they are nearly small pictures in
other colors, so that user interfaces show a cheap preview by a linear formula from the four numbers of a place to the
mean color of its pixels. The best such formula for this small autoencoder is fitted here, and $R^2$ says how much of
the colors it explains: look whether the same trick would do. Then each channel is set to 0, its mean, before decoding,
and the picture is compared with the full round trip: what is missing is what the channel held. A code that was learned
uses its channels as it likes.

**What they do not hold.** One latent number cannot encode twelve pixel values without loss. The autoencoder knows what
pictures here look like and leaves out what none of them has; letters and stripes were in none. Pure noise has nothing
that can be left out. If a linear code keeps $k$ of $n$ equally loud directions, $1 - k/n$ of the variance is lost at
least: with uniform noise (variance $\tfrac{1}{12}$) and $k/n = \tfrac{1}{12}$ the PSNR is at most
$-10\log_{10}(\tfrac{11}{12} \cdot \tfrac{1}{12}) = 11.2$ dB.

**A real one** knows photographs, not shapes, and has 512 x 512 pixels: letters and stripes are drawn on so much more
canvas, as small as they were. No judge of shapes is asked, and fewer pictures go through.

Left out: the bits of a number. Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, SHAPES, draw, render
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.pictures import MOST_BYTES, SUFFIXES, take
from core.foundations.small_diffusion import right
from core.stable_diffusion.autoencoder import psnr
from core.stable_diffusion.model import Latent
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown, thinned

KINDS = {
    "one": "one object",
    "two": "two objects",
    "letters": "letters",
    "stripes": "fine stripes",
    "noise": "pure noise",
}
REAL = (512, 8, 4)  # side, factor, channels
FITTED = 32  # pictures of the linear formula
EACH = 8  # pictures of each kind in the comparison
FEW = 2  # of each and for the formula, with a real one
PART = 16  # pictures in one unit of work
COMPRESSION = Figure("compression", "times fewer numbers", "theory", headline=True)
PSNR = Figure("PSNR of this picture after the round trip", "dB", "baseline", headline=True)
ONE_OBJECT = Figure("PSNR of drawings of one object", "dB", "baseline")
NOISE = Figure("PSNR of pure noise", "dB", "limit", "the best linear code of that size", headline=True)
LINEAR = Figure(
    "colors explained by a linear formula of the latents", "%", "limit", "if latents were only small color pictures"
)
NAMED = Figure(
    "unseen pictures named right after the round trip", "%", "baseline", "the same pictures before it", headline=True
)


@dataclass(frozen=True)
class LatentsConfig(Config):
    """A picture, and how many unseen scenes go through after it."""

    picture: bytes = setting(
        b"",
        "Your picture",
        high=MOST_BYTES,
        suffixes=SUFFIXES,
        help="A photograph or drawing (PNG, JPEG or WebP); it is shrunk to what the model sees.",
    )
    drawn: str = setting(
        "one",
        "Else draw",
        choices=KINDS,
        help="What is drawn where no picture is uploaded; letters and stripes were in no training picture.",
    )
    colour: str = setting(
        "red",
        "Color",
        choices={name: name for name in COLOURS},
        when=("drawn", "one"),
        help="The color of the drawn object.",
    )
    shape: str = setting(
        "star",
        "Shape",
        choices={name: name for name in SHAPES},
        when=("drawn", "one"),
        help="The shape of the drawn object.",
    )
    scenes: int = setting(
        96,
        "Unseen scenes for the judge",
        low=16,
        high=512,
        help="More unseen scenes make the judge's percentage more reliable; only with the small model.",
    )
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1, help="Another seed draws other pictures.")
    model: str = model_field()


@dataclass(frozen=True)
class LatentsStep(Step):
    """All that is known so far; what is not known yet is empty."""

    pixels: np.ndarray | None = None  # (3, S, S) the picture
    again: np.ndarray | None = None  # ... after the round trip
    shrunk: np.ndarray | None = None  # ... shrunk to as few numbers and enlarged
    error: np.ndarray | None = None  # (3, S, S) absolute error
    side: int = 0  # pixels of the picture's side as the autoencoder has it; what is shown may be smaller
    grid: int = 0  # places of the latents' side
    latents: np.ndarray | None = None  # (4, h, w); of a large grid every so many places
    preview: np.ndarray | None = None  # (3, h, w) the linear formula's picture
    without: np.ndarray | None = None  # (4, 3, S, S) decoded with one channel at 0
    without_psnr: tuple[float, ...] = ()
    formula: np.ndarray | None = None  # (3, 5): red, green, blue from the four channels and 1
    explained: float = 0.0  # R^2 of that formula on other pictures
    psnr: float = 0.0
    shrunk_psnr: float = 0.0
    kinds: tuple[tuple[str, float, float], ...] = ()  # what, PSNR of the round trip, PSNR of shrinking
    classified: int = 0  # scenes so far
    before: float = 0.0  # % named right as they are
    after: float = 0.0  # % named right after the round trip
    note: str = ""


# --- measures ---------------------------------------------------------------------------------------------------------


def compression(side: int, factor: int, channels: int) -> float:
    """How many numbers of a picture there are for one of its latents."""
    return side * side * 3 / ((side // factor) ** 2 * channels)


def shrunk(pictures: Float[Tensor, "N 3 H W"], numbers: int) -> Float[Tensor, "N 3 H W"]:
    """Shrunk to a square of at most so many numbers, and enlarged again."""
    side = max(1, int((numbers / 3) ** 0.5))
    small = F.interpolate(pictures, (side, side), mode="area")
    return F.interpolate(small, pictures.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def tiles(pictures: Float[Tensor, "N 3 H W"], latents: Float[Tensor, "N C h w"]) -> tuple[Tensor, Tensor]:
    """For each place of the latents, a row each: its numbers and a 1; the mean color of its pixels."""
    numbers = latents.permute(0, 2, 3, 1).flatten(0, 2).double()
    colours = F.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1]).permute(0, 2, 3, 1).flatten(0, 2).double()
    return torch.cat([numbers, torch.ones(len(numbers), 1, dtype=torch.float64)], 1), colours


def linear(pictures: Tensor, latents: Tensor) -> Float[Tensor, "5 3"]:
    """The formula from latents to colors with the least squared error."""
    numbers, colours = tiles(pictures, latents)
    return torch.linalg.lstsq(numbers, colours).solution


def explained_by(formula: Tensor, pictures: Tensor, latents: Tensor) -> float:
    """R^2: the fraction of the variance of the colors that the formula explains."""
    numbers, colours = tiles(pictures, latents)
    return float(1 - (numbers @ formula - colours).square().sum() / (colours - colours.mean(0)).square().sum())


def noise_bound(share: float) -> float:
    """The best PSNR of a linear code that keeps this fraction of the directions of uniform noise."""
    return float(-10 * np.log10((1 - share) / 12))


def round_trip(denoiser: Latent, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Latents, and the pictures made of them."""
    latents = denoiser.encode(pictures)
    return latents, denoiser.decode(latents)


# --- pictures ---------------------------------------------------------------------------------------------------------


def letters(rng: np.random.Generator, n: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """Dark letters on white, two lines of four on 32 x 32 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font, out = ImageFont.load_default(13), list[Tensor]()
    for _ in range(n):
        sheet = Image.new("L", (side, side), 245)
        for line in range(side // 16):
            word = "".join(chr(97 + int(code)) for code in rng.integers(26, size=side // 8))
            ImageDraw.Draw(sheet).text((1, 1 + 15 * line), word, fill=10, font=font)
        out.append(torch.from_numpy(np.array(sheet)).float().expand(3, -1, -1) / 255)
    return torch.stack(out)


def stripes(rng: np.random.Generator, n: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """Waves of 3 to 5 pixels in two colors, at any angle."""
    across, down = torch.meshgrid(*[torch.arange(float(side))] * 2, indexing="xy")
    out = list[Tensor]()
    for _ in range(n):
        angle, length = rng.uniform(0, np.pi), rng.uniform(3, 5)
        wave = 0.5 + 0.5 * torch.sin(2 * np.pi / length * (across * np.cos(angle) + down * np.sin(angle)))
        one, other = (
            torch.tensor(list(COLOURS.values())[code]).view(3, 1, 1) for code in rng.integers(len(COLOURS), size=2)
        )
        out.append(wave * one + (1 - wave) * (other if not torch.equal(one, other) else 1 - other))
    return torch.stack(out)


def pictures_of(kind: str, n: int, seed: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """n pictures of a kind."""
    rng = np.random.default_rng(seed)
    if kind == "letters":
        return letters(rng, n, side)
    if kind == "stripes":
        return stripes(rng, n, side)
    if kind == "noise":
        return torch.from_numpy(rng.random((n, 3, side, side), dtype=np.float32))
    return render(draw(rng, n, two=float(kind == "two"), held_out=None).at(side))


def chosen(config: LatentsConfig, side: int) -> tuple[Float[Tensor, "1 3 S S"], str]:
    """The user's picture, or a drawn one, and what was done to it."""
    if config.picture:
        taken = take(config.picture, side)
        return taken.pixels[None], taken.note
    if config.drawn == "one":
        return render(draw(np.random.default_rng(config.seed), 1, pairs=[(config.colour, config.shape)]).at(side)), ""
    return pictures_of(config.drawn, 1, config.seed, side), ""


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What does a picture become, and what comes back?")
def latents(config: LatentsConfig) -> Iterator[LatentsStep]:
    """One picture there and back, its channels one by one, other kinds of pictures, then many scenes before the
    judge.
    """
    denoiser = yield from denoiser_of(config.model, lambda told: LatentsStep(doing=told))
    real = isinstance(denoiser, Real)
    each, fitted = (FEW, FEW) if real else (EACH, FITTED)
    picture, note = chosen(config, denoiser.side)
    state = there_and_back(denoiser, picture)
    codes = 4 * state.grid**2
    told = f"{picture.numel():,} numbers become {codes:,}: {state.psnr:.1f} dB come back"
    state = read(denoiser, picture, replace(state, note=note), config.seed, fitted)
    yield replace(
        state,
        doing=(
            f"{told}; a linear formula of the latents explains {state.explained:.0%} of the colors of other pictures"
        ),
    )
    for kind in KINDS:
        some = pictures_of(kind, each, config.seed + 1, denoiser.side)
        again = round_trip(denoiser, some)[1]
        plain = psnr(some, shrunk(some, codes))
        state = replace(state, kinds=(*state.kinds, (KINDS[kind], psnr(some, again), plain)))
        yield replace(
            state,
            doing=(
                f"{each} pictures of {KINDS[kind]}: {state.kinds[-1][1]:.1f} dB come back, {plain:.1f} dB by shrinking"
            ),
        )
    if real:
        yield replace(state, figures=figures_of(state), doing=f"{told}, {state.shrunk_psnr:.1f} dB by shrinking")
        return
    for classified, before, after in verdicts(denoiser, config):
        state = replace(state, classified=classified, before=before, after=after)
        yield replace(
            state,
            doing=f"{classified} unseen scenes: the judge names {before:.0f} % right before and {after:.0f} % after",
        )
    yield replace(
        state,
        figures=figures_of(state),
        doing=f"{state.after:.0f} % of {state.classified} unseen scenes are still named right after the round trip",
    )


def there_and_back(denoiser: Latent, picture: Float[Tensor, "1 3 S S"]) -> LatentsStep:
    """The picture, its latents, what comes back, and what comes back without each channel."""
    z, again = round_trip(denoiser, picture)
    plain = shrunk(picture, z.numel())
    fewer = z.repeat(z.shape[1], 1, 1, 1)
    fewer[range(len(fewer)), range(len(fewer))] = 0
    without = denoiser.decode(fewer)
    return LatentsStep(
        pixels=shown(picture)[0].numpy(),
        again=shown(again)[0].numpy(),
        shrunk=shown(plain)[0].numpy(),
        error=shown((again - picture).abs())[0].numpy(),
        side=picture.shape[-1],
        grid=z.shape[-1],
        latents=thinned(z[0]).numpy(),
        without=shown(without).numpy(),
        without_psnr=tuple(psnr(one[None], again) for one in without),
        psnr=psnr(picture, again),
        shrunk_psnr=psnr(picture, plain),
    )


def read(
    denoiser: Latent, picture: Float[Tensor, "1 3 S S"], state: LatentsStep, seed: int, fitted: int
) -> LatentsStep:
    """The linear formula from latents to colors, fitted on some pictures and tried on others; its preview of this
    one.
    """
    known, other = (
        render(draw(np.random.default_rng(seed + start), fitted, two=0.3).at(denoiser.side)) for start in (2, 3)
    )
    formula = linear(known, denoiser.encode(known))
    z = denoiser.encode(picture)
    preview = (tiles(picture, z)[0] @ formula).clamp(0, 1).T.reshape(3, *z.shape[-2:])
    return replace(
        state,
        formula=formula.T.numpy(),
        preview=preview.float().numpy(),
        explained=explained_by(formula, other, denoiser.encode(other)),
    )


def verdicts(denoiser: Latent, config: LatentsConfig) -> Iterator[tuple[int, float, float]]:
    """(scenes so far, % right before, % right after): all pairs of color and shape, also those never shown in
    training.
    """
    scenes, hits = draw(np.random.default_rng(config.seed + 4), config.scenes, held_out=None), np.zeros((0, 2), bool)
    for first in range(0, config.scenes, PART):
        part = scenes[first : first + PART]
        some = render(part)
        seen = [right(pictures, part) for pictures in (some, round_trip(denoiser, some)[1])]
        hits = np.concatenate([hits, np.stack(seen, 1)])
        yield len(hits), *(100 * float(share) for share in hits.mean(0))


def figures_of(state: LatentsStep) -> tuple[Result, ...]:
    """How much smaller, how well it comes back, and what else was tried."""
    pixels, codes, factor = 3 * state.side**2, 4 * state.grid**2, state.side // state.grid
    one, noise = ({name: (trip, plain) for name, trip, plain in state.kinds}[KINDS[kind]] for kind in ("one", "noise"))
    shrinking = f"shrinking to {3 * int((codes / 3) ** 0.5) ** 2:,} numbers and enlarging"
    figures = (
        COMPRESSION(pixels / codes, 3 * factor**2 / 4, source=f"3 f^2 / c with f = {factor}, c = 4"),
        PSNR(state.psnr, state.shrunk_psnr, source=shrinking),
        ONE_OBJECT(*one, source=shrinking),
        NOISE(noise[0], noise_bound(codes / pixels)),
        LINEAR(100 * state.explained, 100.0),
    )
    return (*figures, NAMED(state.after, state.before)) if state.classified else figures
