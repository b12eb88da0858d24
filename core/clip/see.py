r"""Where a CLIP looks, and what fools it.

**Cover and measure.** A window of 8 x 8 pixels is covered with the color of the picture's rim, at 64 places, and each
time the cosine with each caption is measured again. Where it falls, something was seen that the caption asks for. That
works for any model.

**Take apart.** The small CLIP allows more: its picture vector is a sum over places, and so is the cosine,

$$\cos = \frac{1}{|z|} \Big( \sum_p w_p \cdot t + \sum_q m_q \cdot t + b \cdot t \Big).$$

Each channel of the global maximum comes from one of 8 x 8 places $p$, which gets its share $w_p$; each cell $q$ of the
4 x 4 map has a share $m_q$ of its own; $b$ are the biases. The shares add up to the cosine, exactly. A share belongs to
the place where a feature stands; the feature has looked some pixels around itself.

**Stickers.** A model that asks "is there something blue?" can be lied to with something blue. A small sticker of
another color and shape is put into a corner, and captions compete again: first yours, then all 48 names over many
scenes, while the sticker grows. If every colored pixel had a vote, the sticker's name would win as often as its share
of the colored pixels (drawn dashed). If the larger object won, it would win in the scenes where the sticker is larger,
28 % of them at radius 5. Watch the *mixtures*: a green star with a red circle is named "red star", since both words are
true of something there.

Real CLIPs also obey *written words*: a paper with "iPod" on an apple (Goh et al. 2021). The small CLIP has never seen a
letter, so a word is only a dark scribble for it; choose the model from the hub to see a typographic attack.

Left out: attention maps, gradients.
Source: Zeiler & Fergus 2013, arXiv:1311.2901 (occlusion); Goh et al. 2021, distill.pub/2021/multimodal-neurons.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.clip.match import encoded, softmax
from core.clip.real import MODELS, Encoder, at_once, lines_of, load_clip, side_of
from core.foundations.captioned_shapes import (
    COLOURS,
    CORNERS,
    PAIRS,
    SHAPES,
    Scenes,
    article,
    distance,
    draw,
    prompt,
    render,
)
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.pictures import take
from core.foundations.settings import picture_field
from core.foundations.small_clip import Clip
from core.foundations.turns import with_pauses

PLACES = 8  # positions of the window on a side
RADII = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)  # of the growing sticker, pixels of 32
SUM = Figure("sum over all places, first caption", "cosine", "theory", "the shares add up to the cosine")
FALL = Figure(
    "largest fall by covering one window, first caption",
    "cosine",
    "limit",
    "the whole cosine, if everything were in one window",
)
NAMED_RIGHT = Figure(
    "scenes named right with the sticker", "%", "baseline", "the same scenes without it", headline=True
)
NAMED_STICKER = Figure(
    "scenes named as the sticker", "%", "baseline", "its fraction of the colored area, on average", headline=True
)
NAMED_MIXTURE = Figure(
    "scenes named as a mixture of both", "%", "baseline", "the same scenes without the sticker", headline=True
)
CAPTIONS = "a green star\na red circle\na green circle\na red star"
STICKERS = {"shape": "a small shape", "word": "a written word", "none": "none"}
SPOTS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}


@dataclass(frozen=True)
class SeeConfig(Config):
    """A picture, captions to ask it, and a sticker."""

    captions: str = setting(
        CAPTIONS,
        "Captions, one per line",
        high=400,
        help="Two to six captions, one per line; they compete for the picture.",
    )
    picture: bytes = picture_field()
    colour: str = setting(
        "green", "Color", choices={name: name for name in COLOURS}, help="The color of the drawn object."
    )
    shape: str = setting(
        "star", "Shape", choices={name: name for name in SHAPES}, help="The shape of the drawn object."
    )
    sticker: str = setting(
        "shape",
        "Sticker",
        choices=STICKERS,
        help="What is stuck into a corner: a small shape, a written word, or nothing.",
    )
    sticker_colour: str = setting(
        "red", "Its color", choices={name: name for name in COLOURS}, help="The color of the sticker."
    )
    sticker_shape: str = setting(
        "circle",
        "Its shape",
        choices={name: name for name in SHAPES},
        when=("sticker", "shape"),
        help="The shape of the sticker.",
    )
    word: str = setting(
        "red circle",
        "Its word",
        high=12,
        when=("sticker", "word"),
        help="The word on the sticker; only a real CLIP can read.",
    )
    radius: float = setting(
        5.0,
        "Its radius",
        unit="pixel",
        low=1.0,
        high=6.0,
        help="A larger sticker misleads the model more often.",
        slider=True,
    )
    spot: str = setting(
        "bottom right",
        "Its corner",
        choices={name: name for name in SPOTS},
        more=True,
        help="The corner that the sticker is put into.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="The models from the hub are larger and need a network once; most need a GPU.",
    )
    seed: int = setting(
        0,
        "Seed of the scenes",
        low=0,
        high=2**31 - 1,
        more=True,
        help="Another seed draws other scenes for the growing sticker.",
    )


@dataclass(frozen=True)
class SeeStep(Step):
    """Both pictures and all that is known about them so far; index 0: as it is, 1: with the sticker."""

    captions: tuple[str, ...] = ()
    pixels: np.ndarray | None = None  # (2, 3, S, S)
    cosines: np.ndarray | None = None  # (2, C)
    shares: np.ndarray | None = None  # (2, C) softmax at the model's scale
    covered: np.ndarray | None = None  # (2, C, 8, 8) fall of the cosine where a window is covered; NaN: not yet
    parts: np.ndarray | None = None  # (2, C, 8, 8) the cosine, taken apart; None for a model that does not allow it
    note: str = ""
    sweep: tuple[
        tuple[float, float, float, float, float], ...
    ] = ()  # radius, % named right, % as the sticker, % as a mixture, % by area
    scenes: int = 0  # of the sweep, per radius


# --- stickers ---------------------------------------------------------------------------------------------------------


def stuck(
    pictures: Float[Tensor, "N 3 S S"],
    config: SeeConfig,
    radius: float,
    x: Float[np.ndarray, "N"],
    y: Float[np.ndarray, "N"],
) -> Tensor:
    """Pictures with the sticker around the points (x, y); all lengths in pixels of 32."""
    side = pictures.shape[-1]
    times = side / 32
    if config.sticker == "none":
        return pictures
    tint = torch.tensor(COLOURS[config.sticker_colour]).view(3, 1, 1)
    if config.sticker == "word":
        word = written(config.word, tint, max(3, round(2 * radius * times)), side)
        out, (_, high, wide) = pictures.clone(), word.shape
        for picture, left, top in zip(out, x * times - wide / 2, y * times - high / 2, strict=True):
            across, down = (
                round(float(np.clip(start, 0, side - length))) for start, length in ((left, wide), (top, high))
            )
            picture[:, down : down + high, across : across + wide] = word
        return out
    centres = (torch.arange(side) + 0.5) / times
    px = ((centres.view(1, 1, -1) - torch.from_numpy(x).float().view(-1, 1, 1)) / radius).expand(-1, side, side)
    py = ((centres.view(1, -1, 1) - torch.from_numpy(y).float().view(-1, 1, 1)) / radius).expand(-1, side, side)
    cover = (0.5 - distance(config.sticker_shape, px, py) * radius * times).clamp(0, 1)[:, None]
    return pictures * (1 - cover) + tint * cover


def written(word: str, tint: Float[Tensor, "3 1 1"], high: int, most: int) -> Float[Tensor, "3 H W"]:
    """A word in a color on a white strip, `high` pixels high, at most `most` wide."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(64)
    box = font.getbbox(word or " ")
    strip = Image.new("L", (max(1, round(box[2] - box[0])) + 12, max(1, round(box[3] - box[1])) + 12), 0)
    ImageDraw.Draw(strip).text((6 - box[0], 6 - box[1]), word, fill=255, font=font)
    wide = min(most, max(1, round(strip.width * high / strip.height)))
    ink = torch.from_numpy(np.array(strip.resize((wide, high), Image.Resampling.LANCZOS))).float() / 255
    return 1 - ink + tint * ink


def corner(spot: str, radius: float) -> tuple[float, float]:
    """The middle of a sticker that sits in a corner."""
    right, down = SPOTS[spot]
    x, y = ((31 - radius if there else 1 + radius) for there in (right, down))
    return x, y


def area(shape: str, radius: float) -> float:
    """Square pixels; of a polygon by the shoelace formula."""
    if shape == "circle":
        return float(np.pi * radius**2)
    xs, ys = np.array(CORNERS[shape]).T
    return float(abs(np.dot(xs, np.roll(ys, -1)) - np.dot(ys, np.roll(xs, -1))) / 2 * radius**2)


# --- where it looks ---------------------------------------------------------------------------------------------------


def rim(picture: Float[Tensor, "3 S S"]) -> Float[Tensor, "3 1 1"]:
    """The median color of the outermost pixels."""
    edge = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], 1)
    return edge.median(1).values.view(3, 1, 1)


def windows(picture: Float[Tensor, "3 S S"], row: int) -> Float[Tensor, "8 3 S S"]:
    """The picture with a window covered, at the places of one row; a window is two places wide and high."""
    side, cell = picture.shape[-1], picture.shape[-1] // PLACES
    out = picture.expand(PLACES, -1, -1, -1).clone()
    top, foot = max(0, round((row - 0.5) * cell)), min(side, round((row + 1.5) * cell))
    for column in range(PLACES):
        out[column, :, top:foot, max(0, round((column - 0.5) * cell)) : min(side, round((column + 1.5) * cell))] = rim(
            picture
        )
    return out


@torch.no_grad()
def taken_apart(
    clip: Clip, pictures: Float[Tensor, "N 3 32 32"], texts: Float[Tensor, "C E"]
) -> tuple[np.ndarray, np.ndarray]:
    """The small CLIP's cosines as sums over places (N, C, 8, 8), and the biases' part (N, C)."""
    tower = clip.model.visual
    features = tower.features(2 * pictures - 1)  # (N, W, 8, 8)
    n = len(features)
    most, at = features.flatten(2).max(-1)  # (N, W): each channel's maximum and where it is
    shares = texts @ tower.whether.weight  # (C, W)
    whether = torch.zeros(n, len(texts), PLACES**2).scatter_add_(
        2, at[:, None].expand(-1, len(texts), -1), most[:, None] * shares
    )
    mixed = tower.where[1](tower.where[0](features))  # (N, 16, 4, 4)
    weights = (texts @ tower.where[4].weight).view(len(texts), *mixed.shape[1:])  # (C, 16, 4, 4)
    where = torch.einsum("nkij,ckij->ncij", F.silu(mixed), weights)  # (N, C, 4, 4)
    where = where.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4  # a cell of the coarse map is four places
    length = tower(2 * pictures - 1).norm(dim=-1).view(n, 1)
    bias = (texts @ (tower.whether.bias + tower.where[4].bias)).expand(n, -1)
    parts = (whether.view(n, len(texts), PLACES, PLACES) + where) / length[..., None, None]
    return parts.double().numpy(), (bias / length).double().numpy()


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Where does it look, and what fools it?")
def see(config: SeeConfig) -> Iterator[SeeStep]:
    """The picture with and without the sticker, maps for each caption, then many scenes while the sticker grows."""
    typed = lines_of(config.captions, 6, "captions")
    if config.sticker == "word" and not config.word.strip():
        raise ValueError("word must be at least one letter, or choose another sticker")
    fetching = SeeStep(captions=tuple(typed), doing="fetching the model from the hub, once")
    clip = yield from with_pauses(load_clip(config.model), fetching)
    one, note = picture_of(config, side_of(clip))
    pictures = torch.cat(
        [one, stuck(one, config, config.radius, *(np.array([value]) for value in corner(config.spot, config.radius)))]
    )
    texts = clip.texts(typed)
    cosines = (encoded(clip, pictures) @ texts.T).double().numpy()
    state = SeeStep(
        captions=tuple(typed),
        pixels=pictures.numpy(),
        cosines=cosines,
        shares=softmax(cosines, clip.scale),
        note=note,
        covered=np.full((2, len(typed), PLACES, PLACES), np.nan),
    )
    assert state.shares is not None
    before, after = (
        f"'{typed[row.argmax()]}' ({share.max():.0%})" for row, share in zip(cosines, state.shares, strict=True)
    )
    told = f"as it is: {before}" + (f"; with the sticker: {after}" if config.sticker != "none" else "")
    figures: tuple[Result, ...] = ()
    if isinstance(clip, Clip):
        parts, bias = taken_apart(clip, pictures, texts)
        figures = (SUM(float(parts[0, 0].sum() + bias[0, 0]), float(cosines[0, 0])),)
        state = replace(state, parts=parts)
    yield replace(state, doing=told, figures=figures)
    state = yield from covered(clip, pictures, texts, state)
    if config.sticker != "none":
        yield from growing(clip, config, state)
    else:
        yield replace(state, doing="no sticker: nothing to grow", figures=(fall(state),))


def picture_of(config: SeeConfig, side: int) -> tuple[Float[Tensor, "1 3 S S"], str]:
    """The user's picture, or one small object, a little above and left of the middle, on white."""
    if config.picture:
        taken = take(config.picture, side)
        return taken.pixels[None], taken.note
    scene = draw(np.random.default_rng(0), 1, pairs=[(config.colour, config.shape)])
    scene = replace(
        scene, radius=np.full((1, 2), 6.5), x=np.full((1, 2), 12.0), y=np.full((1, 2), 12.0), ground=np.array([1])
    )
    return render(scene.at(side)), ""


def covered(
    clip: Encoder, pictures: Float[Tensor, "2 3 S S"], texts: Float[Tensor, "C E"], state: SeeStep
) -> Generator[SeeStep, None, SeeStep]:
    """Row by row, both pictures; returns what is known then."""
    assert state.cosines is not None and state.covered is not None
    falls = state.covered
    for row in range(PLACES):
        for which, picture in enumerate(pictures):
            seen = encoded(clip, windows(picture, row))
            falls = falls.copy()
            falls[which, :, row] = state.cosines[which][:, None] - (seen @ texts.T).T.double().numpy()
            state = replace(
                state,
                covered=falls,
                figures=(),
                doing=f"covering row {row + 1} of {PLACES} of the picture" + (" with the sticker" if which else ""),
            )
            if which or at_once(clip) < PLACES:
                yield state
    yield replace(
        state,
        figures=(fall(state),),
        doing=f"covered at 64 places: '{state.captions[0]}' falls by up to {np.nanmax(falls[0, 0]):.2f}",
    )
    return state


def fall(state: SeeStep) -> Result:
    assert state.cosines is not None and state.covered is not None
    return FALL(float(np.nanmax(state.covered[0, 0])), float(state.cosines[0, 0]))


# --- many scenes, a growing sticker -----------------------------------------------------------------------------------


def far_corners(scenes: Scenes, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """For each scene, the corner that is farthest from its object."""
    right, down = scenes.x[:, 0] < scenes.side / 2, scenes.y[:, 0] < scenes.side / 2
    return np.where(right, 31 - radius, 1 + radius), np.where(down, 31 - radius, 1 + radius)


def others(config: SeeConfig, n: int) -> Scenes:
    """Scenes of one object that shares neither color nor shape with the sticker."""
    rng = np.random.default_rng(config.seed)
    fits = [pair for pair in PAIRS if pair[0] != config.sticker_colour and pair[1] != config.sticker_shape]
    return draw(rng, n, held_out=None, pairs=[fits[at] for at in rng.integers(len(fits), size=n)])


def growing(clip: Encoder, config: SeeConfig, state: SeeStep) -> Iterator[SeeStep]:
    """Named among all 48: the object, the sticker, or neither."""
    n = 96 if side_of(clip) == 32 else 12
    scenes = others(config, n)
    pictures, names = render(scenes.at(side_of(clip))), clip.texts([prompt(*pair) for pair in PAIRS])
    right = np.array([PAIRS.index(scenes.pair(number)) for number in range(n)])
    theirs = {at for at, pair in enumerate(PAIRS) if is_stickers(pair, config)}
    mixed = [mixtures(scenes.pair(number), config) - theirs for number in range(n)]
    sizes = [area(SHAPES[shape], radius) for shape, radius in zip(scenes.shape[:, 0], scenes.radius[:, 0], strict=True)]
    sweep, clean = list[tuple[float, float, float, float, float]](), 0.0
    for radius in (0.0, *RADII, *([config.radius] if config.radius not in RADII else [])):
        found = list[int]()
        for first in range(0, n, at_once(clip)):
            part = slice(first, first + at_once(clip))
            x, y = far_corners(scenes[part], radius)
            shown = stuck(pictures[part], config, radius, x, y) if radius else pictures[part]
            found += (clip.pictures(shown) @ names.T).argmax(1).tolist()
            yield replace(
                state,
                sweep=tuple(sorted(sweep)),
                scenes=n,
                figures=(),
                doing=f"sticker of radius {radius:g}: {len(found)} of {n} scenes named",
            )
        ours = 100 * float(np.mean(np.array(found) == right))
        own = area(config.sticker_shape, radius)
        by_area = 100 * float(np.mean([own / (own + size) for size in sizes]))
        sticker, mixture = (
            100 * float(np.mean(hits))
            for hits in ([at in theirs for at in found], [at in some for at, some in zip(found, mixed, strict=True)])
        )
        sweep.append((radius, ours, sticker, mixture, by_area))
        clean = ours if not radius else clean
    at_radius = next(told for told in sweep if told[0] == config.radius)
    larger = 100 * float(np.mean([area(config.sticker_shape, config.radius) > size for size in sizes]))
    what = (
        f"'{config.word}'" if config.sticker == "word" else article(f"{config.sticker_colour} {config.sticker_shape}")
    )
    figures = (
        NAMED_RIGHT(at_radius[1], clean),
        NAMED_STICKER(
            at_radius[2],
            at_radius[4],
            source=f"{NAMED_STICKER.source}; it is the larger object in {larger:.0f} % of the scenes",
        ),
        NAMED_MIXTURE(at_radius[3], sweep[0][3]),
    )
    told = (
        f"{what} of radius {config.radius:g}: {at_radius[1]:.0f} % named right, {at_radius[2]:.0f} % as the sticker,"
        f" {at_radius[3]:.0f} % as a mixture"
    )
    yield replace(state, sweep=tuple(sorted(sweep)), scenes=n, figures=figures, doing=told)


def is_stickers(pair: tuple[str, str], config: SeeConfig) -> bool:
    """Whether a name is the sticker's: its color and shape, or a name with all of its words."""
    if config.sticker == "word":
        return set(config.word.lower().split()) <= set(pair)
    return pair == (config.sticker_colour, config.sticker_shape)


def mixtures(pair: tuple[str, str], config: SeeConfig) -> set[int]:
    """Names with the color of one and the shape of the other. A written word has a color only."""
    shapes = {pair[1], config.sticker_shape} if config.sticker == "shape" else {pair[1]}
    return {PAIRS.index((colour, shape)) for colour in (pair[0], config.sticker_colour) for shape in shapes} - {
        PAIRS.index(pair)
    }
