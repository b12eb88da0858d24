r"""Painting into a hole: the model draws what is missing, and everything else stays.

The denoiser was trained on whole pictures. So it gets a whole picture at each step: outside the hole the given one with
the noise of that step, inside what it has drawn so far. It looks at both, and what it draws fits. Written for the
predicted picture, with a mask $m$ that is 1 in the hole:

$$\hat x_0 \leftarrow m\,\hat x_0 + (1-m)\,x_\text{given}.$$

With DDIM this is the same as replacing the kept part of $x_t$ by the given picture with its first noise, since then its
predicted noise is that noise (tested). The model sees and paints 16 x 16 pixels. What it has painted is enlarged to 32
x 32, and then the kept pixels are copied from the given picture: they are unchanged, bit for bit.

The control beside it fills the hole blindly: a whole picture from the same noise and words, of which only the hole is
cut out. At the rim it does not fit.

Section 4.3 of the GLIDE paper calls this the earlier practice (Sohl-Dickstein et al., Song et al., Meng et al.) and
goes further: its model is trained on pictures with holes, and gets the given part and the mask as four more channels.
Without that, the surroundings are seen only through their noise, and not before the first steps have decided much:
where the noise of the hole leads to another background, the object may grow over the seam, and in a small hole the
words may lose.

Left out: that training; going back and forth in time (RePaint).
Source: Nichol et al. 2021, arXiv:2112.10741, section 4.3; Lugmayr et al. 2022, arXiv:2201.09865; Sohl-Dickstein et al.
2015, arXiv:1503.03585.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations.captioned_shapes import COLOURS, GROUNDS, SHAPES, draw, render, words_of
from core.foundations.diffusion import Moment, Network, sampling, signal, trailing
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import seen
from core.foundations.pictures import take
from core.foundations.settings import noise_seed_field, picture_field
from core.glide.model import PATCH, Glide, answer_of, prompt_tokens, shipped_glide
from core.glide.upsampler import shrunk

CELLS = 16  # squares on a side of the brush: the pixels that the model paints
WAYS = ("blind", "in its surroundings")
RIM = Figure(
    "jump across the rim of the hole",
    "mean difference",
    "baseline",
    "filled blindly, from the same noise",
    headline=True,
)
GIVEN_RIM = Figure("jump across the rim, given picture", "mean difference", None, "the same neighbors before")
ASKED_FOR = Figure(
    "fillings in which the judge sees what was asked",
    "% of fillings",
    "baseline",
    "filled blindly, from the same noise",
    headline=True,
)
CHANGED = Figure("largest change of a pixel outside the hole", "from 0 to 1", "theory", "they are copied, bit for bit")


def default_hole() -> str:
    """The whole picture but for a frame of two squares, as the brush writes it."""
    empty, inner = "0" * CELLS, "00" + "1" * (CELLS - 4) + "00"
    rows = [*[empty] * 2, *[inner] * (CELLS - 4), *[empty] * 2]
    return "".join(f"{int(row[at : at + 4], 2):x}" for row in rows for at in range(0, CELLS, 4))


@dataclass(frozen=True)
class InpaintConfig(Config):
    """A picture, a hole in it, and what to draw there."""

    prompt: str = setting(
        "a blue circle",
        "What to paint into the hole",
        high=200,
        help="What to paint into the hole, in words that the model knows.",
    )
    painted: str = setting(
        default_hole(),
        "The hole",
        high=CELLS**2 // 4,
        more=True,
        help="The brush on the picture writes this: what it paints is drawn anew.",
    )
    colour: str = setting(
        "red", "Color", choices={name: name for name in COLOURS}, help="The color of the drawn object."
    )
    shape: str = setting(
        "star", "Shape", choices={name: name for name in SHAPES}, help="The shape of the drawn object."
    )
    ground: str = setting(
        "white", "Background", choices={name: name for name in GROUNDS}, help="The background of the drawn picture."
    )
    picture: bytes = picture_field()
    scale: float = setting(
        2.0,
        "Guidance scale",
        low=0,
        high=20,
        help="Higher makes the picture follow the prompt more strongly and vary less; 0 ignores the prompt, 1 "
        "follows it and no more.",
    )
    steps: int = setting(
        25, "Steps", unit="step", low=1, high=100, help="More steps make the filling sharper; each takes time."
    )
    samples: int = setting(
        6,
        "Fillings",
        unit="filling",
        low=1,
        high=8,
        more=True,
        help="More fillings show how much they vary; each takes time.",
        slider=True,
    )
    seed: int = noise_seed_field()


@dataclass(frozen=True)
class InpaintStep(Step):
    """A step of filling the hole. Pixels from 0 to 1."""

    number: int = 0
    given: np.ndarray | None = None  # (3, 32, 32) the picture, for the brush; only at the start
    views: np.ndarray | None = (
        None  # (4, 3, 32, 32): the picture with its hole, x_t, the predicted picture, pasted together
    )
    finals: np.ndarray | None = None  # (2, N, 3, 32, 32): blind, and in its surroundings
    verdicts: tuple[tuple[str, ...], ...] = ()
    rims: tuple[float, ...] = ()  # mean jump across the rim of the hole: given picture, blind, in its surroundings
    changed: float | None = None  # largest change of a kept pixel
    note: str = ""


# --- the hole ---------------------------------------------------------------------------------------------------------


def hole_of(painted: str) -> Float[Tensor, "1 1 32 32"]:
    """1 where the brush painted. painted: a hexadecimal digit for four squares, row by row."""
    try:
        digits = [int(digit, 16) for digit in painted]
    except ValueError:
        raise ValueError("painted must be hexadecimal digits, as the brush writes them") from None
    digits += [0] * (CELLS**2 // 4 - len(digits))
    cells = torch.tensor(
        [(digit >> shift) & 1 for digit in digits for shift in (3, 2, 1, 0)], dtype=torch.float32
    ).view(1, 1, CELLS, CELLS)
    if not cells.any():
        raise ValueError("There is no hole: paint over the part of the picture that is to be drawn anew")
    if cells.all():
        raise ValueError("Nothing is kept: leave at least one square of the picture unpainted")
    return F.interpolate(cells, scale_factor=2, mode="nearest")


def keeping(denoiser: Glide, network: Network, given: Tensor, hole: Tensor) -> Network:
    """A network whose predicted pictures have the given one outside the hole."""
    every = signal(denoiser.schedule)

    def told(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        kept = answer_of(denoiser, x, given, every[t])
        without, asked = network(x, t)
        return torch.where(hole > 0, without, kept), torch.where(hole > 0, asked, kept)

    return told


def pasted(drawn: Float[Tensor, "N 3 S S"], given: Float[Tensor, "3 S S"], hole: Tensor) -> Float[Tensor, "N 3 S S"]:
    """What was drawn in the hole, and the given pixels themselves outside it."""
    return torch.where(hole > 0, drawn, given)


def rim(pictures: Float[Tensor, "N 3 S S"], hole: Tensor) -> float:
    """The mean absolute difference of neighbors of which one is in the hole and one is not."""
    total, count = 0.0, 0.0
    for axis in (2, 3):
        last = pictures.shape[axis] - 1
        crossing = (hole.narrow(axis, 0, last) != hole.narrow(axis, 1, last)).float()
        jumps = (pictures.narrow(axis, 0, last) - pictures.narrow(axis, 1, last)).abs().mean(1, keepdim=True)
        total += float((jumps * crossing).sum()) / len(pictures)
        count += float(crossing.sum())
    return total / max(1.0, count)


def with_hole(given: Tensor, hole: Tensor) -> Tensor:
    """The picture, its hole a checkerboard of grays."""
    side = given.shape[-1]
    board = (torch.arange(side).view(-1, 1) // 2 + torch.arange(side).view(1, -1) // 2) % 2 * 0.16 + 0.42
    return torch.where(hole[0] > 0, board.expand(3, -1, -1), given)


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Can it paint into a hole, and leave the rest as it is?")
def inpaint(config: InpaintConfig) -> Iterator[InpaintStep]:
    """The hole filled in view of its surroundings, step by step; beside it, filled blindly from the same noise."""
    prompt_tokens(config.prompt)
    hole, (given, note) = hole_of(config.painted), picture_of(config)
    denoiser = shipped_glide()
    opening = with_hole(given, hole)
    state = InpaintStep(
        given=given.numpy(),
        views=torch.stack([opening, *[opening] * 3]).numpy(),
        rims=(rim(given[None], hole),),
        note=note,
    )
    yield replace(state, doing=f"the hole has {int(hole.sum())} of {hole.numel()} pixels; the others are kept")
    state = replace(state, given=None, views=None)
    ends = dict[str, Tensor]()
    for way in WAYS[::-1]:
        ends[way] = yield from filled(state, denoiser, config, (given, hole), way)
        if way == WAYS[1]:
            both = torch.stack([torch.zeros_like(ends[way]), ends[way]])
            state = replace(
                state, finals=both.numpy(), rims=(*state.rims, rim(ends[way], hole)), verdicts=(tuple(seen(ends[way])),)
            )
            yield replace(state, doing="filled; now the control: the same noise and words, blind for the surroundings")
    yield finished(config.prompt, state, given, hole, torch.stack([ends[way] for way in WAYS]))


def picture_of(config: InpaintConfig) -> tuple[Float[Tensor, "3 S S"], str]:
    """The picture to paint into, from 0 to 1, and what had to be changed of an upload."""
    if config.picture:
        taken = take(config.picture)
        return taken.pixels, taken.note
    scene = draw(np.random.default_rng(7), 1, held_out=None, pairs=[(config.colour, config.shape)])
    scene = replace(
        scene,
        radius=np.full((1, 2), 9.0),
        x=np.full((1, 2), 16.0),
        y=np.full((1, 2), 16.0),
        ground=np.array([tuple(GROUNDS).index(config.ground)]),
    )
    return render(scene)[0], ""


def filled(
    state: InpaintStep, denoiser: Glide, config: InpaintConfig, known: tuple[Tensor, Tensor], way: str
) -> Generator[InpaintStep, None, Float[Tensor, "N 3 S S"]]:
    """All fillings, a unit of work per step; the first one's steps are shown."""
    given, hole = known
    states, x = denoiser.states([config.prompt] * config.samples).detach(), denoiser.noise(config.samples, config.seed)
    network, moment = denoiser.network(states), None
    if way == WAYS[1]:
        network = keeping(
            denoiser, network, denoiser.encode(given[None]), F.pixel_unshuffle(shrunk(hole).expand(1, 3, -1, -1), PATCH)
        )
    kinds, visited = (denoiser.schedule, denoiser.predicts), trailing(config.steps)
    for number, moment in enumerate(
        sampling(network, x, kinds, config.steps, config.scale, clip=denoiser.clip, visited=visited)
    ):
        views = looked(denoiser, moment, given, hole) if way == WAYS[1] else None
        yield replace(
            state, number=number + 1, views=views, doing=f"{way}, step {number + 1} of {config.steps}: t = {moment.t}"
        )
    assert moment is not None
    return pasted(denoiser.decode(moment.after), given, hole)


def looked(denoiser: Glide, moment: Moment, given: Tensor, hole: Tensor) -> np.ndarray:
    """The pictures of a frame: with the hole, x now, the predicted picture, and that pasted into the surroundings."""
    x = F.interpolate(denoiser.small(moment.x[:1]), scale_factor=2)
    return torch.stack(
        [
            with_hole(given, hole),
            x[0],
            denoiser.decode(moment.x0[:1])[0],
            pasted(denoiser.decode(moment.after[:1]), given, hole)[0],
        ]
    ).numpy()


def asked_for(prompt: str, verdicts: tuple[tuple[str, ...], tuple[str, ...]]) -> tuple[Result, ...]:
    """In how many fillings the judge sees the color and the shape that the prompt names."""
    named = {word for word in words_of(prompt) if word in COLOURS or word in SHAPES}
    if not named:
        return ()
    blind, fitting = (100 * sum(named <= set(name.split()) for name in names) / len(names) for names in verdicts)
    return (ASKED_FOR(fitting, blind),)


def finished(
    prompt: str, state: InpaintStep, given: Tensor, hole: Tensor, ends: Float[Tensor, "2 N 3 S S"]
) -> InpaintStep:
    """Kept pixels counted, rims measured, and what the judge sees."""
    kept = hole.expand_as(ends[1]) == 0
    changed = float((ends[1] - given).abs()[kept].max())
    rims = (state.rims[0], rim(ends[0], hole), rim(ends[1], hole))
    verdicts = (tuple(seen(ends[0])), tuple(seen(ends[1])))
    figures = (RIM(rims[2], rims[1]), GIVEN_RIM(rims[0]), CHANGED(changed, 0.0), *asked_for(prompt, verdicts))
    return replace(
        state,
        number=0,
        finals=ends.numpy(),
        verdicts=verdicts,
        rims=rims,
        changed=changed,
        figures=figures,
        doing=f"kept pixels changed by {changed:g}; the jump across the rim is {rims[2]:.3f}, blindly {rims[1]:.3f}",
    )
