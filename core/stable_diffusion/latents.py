r"""The autoencoder's round trip: what a picture becomes, and what comes back.

The encoder halves width and height some times ($f = 2^k$ in all) and ends with $c$ channels, so the count of numbers falls by

$$\frac{H \cdot W \cdot 3}{(H/f)(W/f) \cdot c} = \frac{3 f^2}{c}: \qquad \frac{3 \cdot 8^2}{4} = 48 \text{ for Stable Diffusion}, \qquad
\frac{3 \cdot 4^2}{4} = 12 \text{ here}.$$

Every step of the diffusion then costs that much less. The price is paid once, in the round trip, and measured in decibels:
$\mathrm{PSNR} = -10 \log_{10} \mathrm{MSE}$ for values from 0 to 1. Beside it stands the plain way to store as few numbers: shrink the picture
to $9 \times 9 \times 3 = 243$ and enlarge it again.

**What the latents hold.** Each channel is a small map. In the real Stable Diffusion they are nearly small pictures in other colours, so that user
interfaces show a cheap preview by a linear formula from the four numbers of a place to the mean colour of its pixels. The best such formula for
this small autoencoder is fitted here, and $R^2$ says how much of the colours it explains: look whether the same trick would do. Then each channel
is set to 0, its mean, before decoding, and the picture is compared with the full round trip: what is missing is what the channel held. A code
that was learnt uses its channels as it likes.

**What they do not hold.** Twelve numbers cannot all be told by one. The autoencoder knows what pictures here look like and leaves out what
none of them has; letters and stripes were in none. Pure noise has nothing that can be left out. If a linear code keeps $k$ of $n$ equally
loud directions, $1 - k/n$ of the variance is lost at least: with uniform noise (variance $\tfrac{1}{12}$) and $k/n = \tfrac{1}{12}$ the PSNR is at
most $-10\log_{10}(\tfrac{11}{12} \cdot \tfrac{1}{12}) = 11.2$ dB.

**A real one** knows photographs, not shapes, and has 512 x 512 pixels: letters and stripes are drawn on so much more canvas, as small as they were. No judge
of shapes is asked, and fewer pictures go through.

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
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.pictures import MOST_BYTES, SUFFIXES, take
from core.foundations.small_diffusion import right
from core.stable_diffusion.autoencoder import psnr
from core.stable_diffusion.model import Latent
from core.stable_diffusion.real import MODELS, Real, painter_of, shown, thinned

KINDS = {"one": "one object", "two": "two objects", "letters": "letters", "stripes": "fine stripes", "noise": "pure noise"}
REAL = (512, 8, 4)  # side, factor, channels
FITTED = 32  # pictures of the linear formula
EACH = 8  # pictures of each kind in the comparison
FEW = 2  # of each and for the formula, with a real one
PART = 16  # pictures in one unit of work


@dataclass(frozen=True)
class LatentsConfig(Config):
    """A picture, and how many unseen scenes go through after it."""

    picture: bytes = setting(b"", "Your picture", high=MOST_BYTES, suffixes=SUFFIXES)
    drawn: str = setting("one", "Else draw", choices=KINDS)
    colour: str = setting("red", "Colour", choices={name: name for name in COLOURS}, when=("drawn", "one"))
    shape: str = setting("star", "Shape", choices={name: name for name in SHAPES}, when=("drawn", "one"))
    scenes: int = setting(96, "Unseen scenes for the judge", low=16, high=512, help="with the small model")
    seed: int = setting(0, "Seed", low=0, high=2**31 - 1)
    model: str = setting("shipped", "Model", choices=MODELS, more=True)


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
    judged: int = 0  # scenes so far
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
    """For each place of the latents, a row each: its numbers and a 1; the mean colour of its pixels."""
    numbers = latents.permute(0, 2, 3, 1).flatten(0, 2).double()
    colours = F.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1]).permute(0, 2, 3, 1).flatten(0, 2).double()
    return torch.cat([numbers, torch.ones(len(numbers), 1, dtype=torch.float64)], 1), colours


def linear(pictures: Tensor, latents: Tensor) -> Float[Tensor, "5 3"]:
    """The formula from latents to colours with the least squared error."""
    numbers, colours = tiles(pictures, latents)
    return torch.linalg.lstsq(numbers, colours).solution


def explained_by(formula: Tensor, pictures: Tensor, latents: Tensor) -> float:
    """R^2: the share of the variance of the colours that the formula explains."""
    numbers, colours = tiles(pictures, latents)
    return float(1 - (numbers @ formula - colours).square().sum() / (colours - colours.mean(0)).square().sum())


def noise_bound(share: float) -> float:
    """The best PSNR of a linear code that keeps this share of the directions of uniform noise."""
    return float(-10 * np.log10((1 - share) / 12))


def round_trip(painter: Latent, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Latents, and the pictures made of them."""
    latents = painter.encode(pictures)
    return latents, painter.decode(latents)


# --- pictures ---------------------------------------------------------------------------------------------------------


def letters(dice: np.random.Generator, n: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """Dark letters on white, two lines of four on 32 x 32 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font, out = ImageFont.load_default(13), list[Tensor]()
    for _ in range(n):
        sheet = Image.new("L", (side, side), 245)
        for line in range(side // 16):
            word = "".join(chr(97 + int(code)) for code in dice.integers(26, size=side // 8))
            ImageDraw.Draw(sheet).text((1, 1 + 15 * line), word, fill=10, font=font)
        out.append(torch.from_numpy(np.array(sheet)).float().expand(3, -1, -1) / 255)
    return torch.stack(out)


def stripes(dice: np.random.Generator, n: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """Waves of 3 to 5 pixels in two colours, at any angle."""
    across, down = torch.meshgrid(*[torch.arange(float(side))] * 2, indexing="xy")
    out = list[Tensor]()
    for _ in range(n):
        angle, length = dice.uniform(0, np.pi), dice.uniform(3, 5)
        wave = 0.5 + 0.5 * torch.sin(2 * np.pi / length * (across * np.cos(angle) + down * np.sin(angle)))
        one, other = (torch.tensor(list(COLOURS.values())[code]).view(3, 1, 1) for code in dice.integers(len(COLOURS), size=2))
        out.append(wave * one + (1 - wave) * (other if not torch.equal(one, other) else 1 - other))
    return torch.stack(out)


def pictures_of(kind: str, n: int, seed: int, side: int) -> Float[Tensor, "n 3 S S"]:
    """n pictures of a kind."""
    dice = np.random.default_rng(seed)
    if kind == "letters":
        return letters(dice, n, side)
    if kind == "stripes":
        return stripes(dice, n, side)
    if kind == "noise":
        return torch.from_numpy(dice.random((n, 3, side, side), dtype=np.float32))
    return render(draw(dice, n, two=float(kind == "two"), held_out=None).at(side))


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
    """One picture there and back, its channels one by one, other kinds of pictures, then many scenes before the judge."""
    painter = yield from painter_of(config.model, lambda told: LatentsStep(doing=told))
    real = isinstance(painter, Real)
    each, fitted = (FEW, FEW) if real else (EACH, FITTED)
    picture, note = chosen(config, painter.side)
    state = there_and_back(painter, picture)
    codes = 4 * state.grid**2
    told = f"{picture.numel():,} numbers become {codes:,}: {state.psnr:.1f} dB come back"
    state = read(painter, picture, replace(state, note=note), config.seed, fitted)
    yield replace(state, doing=f"{told}; a linear formula of the latents explains {state.explained:.0%} of the colours of other pictures")
    for kind in KINDS:
        some = pictures_of(kind, each, config.seed + 1, painter.side)
        again = round_trip(painter, some)[1]
        plain = psnr(some, shrunk(some, codes))
        state = replace(state, kinds=(*state.kinds, (KINDS[kind], psnr(some, again), plain)))
        yield replace(state, doing=f"{each} pictures of {KINDS[kind]}: {state.kinds[-1][1]:.1f} dB come back, {plain:.1f} dB by shrinking")
    if real:
        yield replace(state, figures=figures_of(state), doing=f"{told}, {state.shrunk_psnr:.1f} dB by shrinking")
        return
    for judged, before, after in verdicts(painter, config):
        state = replace(state, judged=judged, before=before, after=after)
        yield replace(state, doing=f"{judged} unseen scenes: the judge names {before:.0f} % right before and {after:.0f} % after")
    yield replace(state, figures=figures_of(state), doing=f"{state.after:.0f} % of {state.judged} unseen scenes are still named right after the round trip")


def there_and_back(painter: Latent, picture: Float[Tensor, "1 3 S S"]) -> LatentsStep:
    """The picture, its latents, what comes back, and what comes back without each channel."""
    z, again = round_trip(painter, picture)
    plain = shrunk(picture, z.numel())
    fewer = z.repeat(z.shape[1], 1, 1, 1)
    fewer[range(len(fewer)), range(len(fewer))] = 0
    without = painter.decode(fewer)
    return LatentsStep(
        pixels=shown(picture)[0].numpy(), again=shown(again)[0].numpy(), shrunk=shown(plain)[0].numpy(), error=shown((again - picture).abs())[0].numpy(),
        side=picture.shape[-1], grid=z.shape[-1], latents=thinned(z[0]).numpy(), without=shown(without).numpy(),
        without_psnr=tuple(psnr(one[None], again) for one in without), psnr=psnr(picture, again), shrunk_psnr=psnr(picture, plain),
    )  # fmt: skip


def read(painter: Latent, picture: Float[Tensor, "1 3 S S"], state: LatentsStep, seed: int, fitted: int) -> LatentsStep:
    """The linear formula from latents to colours, fitted on some pictures and tried on others; its preview of this one."""
    known, other = (render(draw(np.random.default_rng(seed + start), fitted, two=0.3).at(painter.side)) for start in (2, 3))
    formula = linear(known, painter.encode(known))
    z = painter.encode(picture)
    preview = (tiles(picture, z)[0] @ formula).clamp(0, 1).T.reshape(3, *z.shape[-2:])
    return replace(state, formula=formula.T.numpy(), preview=preview.float().numpy(), explained=explained_by(formula, other, painter.encode(other)))


def verdicts(painter: Latent, config: LatentsConfig) -> Iterator[tuple[int, float, float]]:
    """(scenes so far, % right before, % right after): all pairs of colour and shape, also those never shown in training."""
    scenes, hits = draw(np.random.default_rng(config.seed + 4), config.scenes, held_out=None), np.zeros((0, 2), bool)
    for first in range(0, config.scenes, PART):
        part = scenes[first : first + PART]
        some = render(part)
        seen = [right(pictures, part) for pictures in (some, round_trip(painter, some)[1])]
        hits = np.concatenate([hits, np.stack(seen, 1)])
        yield len(hits), *(100 * float(share) for share in hits.mean(0))


def figures_of(state: LatentsStep) -> tuple[Compared, ...]:
    """How much smaller, how well it comes back, and what else was tried."""
    pixels, codes, here = 3 * state.side**2, 4 * state.grid**2, state.side // state.grid
    by_kind = {name: (trip, plain) for name, trip, plain in state.kinds}
    shrinking = f"shrinking to {3 * int((codes / 3) ** 0.5) ** 2:,} numbers and enlarging"
    side, factor, channels = REAL
    told = (
        Compared("compression here", "x", 3 * here**2 / 4, pixels / codes, f"3 f^2 / c with f = {here}, c = 4"),
        Compared(
            "compression of Stable Diffusion", "x", 3 * factor**2 / channels, compression(side, factor, channels), "3 f^2 / c with f = 8, c = 4", "computed"
        ),
        Compared("PSNR of this picture", "dB", state.shrunk_psnr, state.psnr, shrinking),
        Compared("PSNR of one object", "dB", *by_kind[KINDS["one"]][::-1], shrinking),
        Compared("PSNR of pure noise", "dB", noise_bound(codes / pixels), by_kind[KINDS["noise"]][0], "the best linear code"),
        Compared("colours explained by a linear formula", "%", 100.0, 100 * state.explained, "if latents were only small colour pictures"),
    )
    return (*told, Compared("named right after the round trip", "%", state.before, state.after, "the same scenes before it")) if state.judged else told
